// Builds the session manager over its store and decorates the instance with it. Logs what happens to sessions, turns the expiry sweep, and closes the
// store. Decides nothing: the life of sessions is src/io/session/manager.ts.

import { randomUUID } from 'node:crypto'
import fp from 'fastify-plugin'
import { HoldfastError } from '../src/io/errors.js'
import { createSessionManager, type SessionLimits, type SessionManager } from '../src/io/session/manager.js'
import type { SessionStore } from '../src/io/session/former-store.js'
import type { Clock, LifecycleEvent, UserId } from '../src/io/types.js'
import { completeSessionLimits, type Given } from '../src/limits.js'
import { aClock, aText, anObject, anObjectWith, checkOptions, type OptionCheck } from '../src/option-checks.js'
import { createMemoryStore } from '../src/stores/memory.js'
import { systemClock } from '../src/system-clock.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** The sessions of this node: create, find, list, send to, end. */
    sessionManager: SessionManager
  }
}

export interface SessionManagerPluginOptions {
  /** Default: the server's, each of those that are not given. */
  limits?: Given<SessionLimits>
  /** Default: the memory store. */
  store?: SessionStore
  /** The placeholder user, who is everybody and has no quota. */
  unlimitedUserId?: UserId
  clock?: Clock
}

/** How often expiry is looked at. With the second that a limited purge leaves alone, a session ends at most 1.25 s late. */
const SWEEP_EVERY_MS = 250
/** Sessions ended per turn: about five milliseconds. The rest of a large purge goes between other events. */
const PURGE_SLICE = 1000

const CHECKS: Record<keyof SessionManagerPluginOptions, OptionCheck> = {
  limits: anObject,
  store: anObjectWith(['add', 'commit', 'remove', 'close'], 'a session store'),
  unlimitedUserId: aText('a user id'),
  clock: aClock
}

export default fp<SessionManagerPluginOptions>(async function sessionManager (fastify, options) {
  if (fastify.hasDecorator('sessionManager')) throw new HoldfastError('PLUGIN_MISUSED', { message: 'The plugin holdfast/session-manager is registered twice.' })
  checkOptions('holdfast/session-manager', options, CHECKS)
  const limits = completeSessionLimits(options.limits)
  const { clock = systemClock, unlimitedUserId } = options
  const store = options.store ?? createMemoryStore()
  const manager = createSessionManager({
    store,
    clock,
    limits,
    log: fastify.log,
    createId: randomUUID,
    defer: process.nextTick,
    yieldTurn: setImmediate,
    ...(unlimitedUserId === undefined ? {} : { unlimitedUserId })
  })
  const log = fastify.log.child({ module: 'sessions' })
  manager.subscribe(event => logEvent(event))

  function logEvent ({ type, sessionId: sid, userId, revision, reason }: LifecycleEvent): void {
    const fields = { sid, userId, revision, reason }
    if (type === 'created') log.info(fields, 'session created')
    else if (type === 'ended') log.info(fields, 'session ended')
    else if (type === 'attached') log.debug(fields, 'session attached')
    else log.info(fields, 'session detached')
  }

  let purged = 0
  let pending: NodeJS.Immediate | undefined
  function purge (): void {
    pending = undefined
    purged += manager.purgeStaleSessions(PURGE_SLICE)
    if (manager.purgeBehind) {
      pending = setImmediate(purge)
    } else if (purged > 0) {
      log.info({ purged }, 'stale sessions purged')
      purged = 0
    }
  }
  const sweep = setInterval(() => { if (pending === undefined) purge() }, SWEEP_EVERY_MS)
  sweep.unref()

  fastify.decorate('sessionManager', manager)
  fastify.addHook('onClose', async () => {
    clearInterval(sweep)
    if (pending !== undefined) clearImmediate(pending)
    await store.close()
  })
}, { name: 'holdfast/session-manager', fastify: '5.x' })
