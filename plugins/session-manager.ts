// Builds the session manager over its store and decorates the instance with it. Logs what happens
// to sessions, turns the expiry sweep, and closes the store. Decides nothing: the life of sessions
// is src/io/session/manager.ts.

import { randomUUID } from 'node:crypto'
import { setImmediate as yieldTurn, setTimeout as delay } from 'node:timers/promises'
import fp from 'fastify-plugin'
import { HoldfastError } from '../src/io/errors.js'
import { createFleetOperations } from '../src/io/operators/fleet.js'
import { createLocalOperations } from '../src/io/operators/local.js'
import type { SessionOperations } from '../src/io/operators/operations.js'
import { createClaims } from '../src/io/session/claim.js'
import { createEntrance, type Entrance } from '../src/io/session/entry.js'
import { createSessionManager, type SessionManager } from '../src/io/session/manager.js'
import { restoreSessions } from '../src/io/session/restore.js'
import { createSessionRuntime, type SessionLimits, type SessionRuntime } from '../src/io/session/runtime.js'
import { isShared } from '../src/io/session/shared-store.js'
import type { CreateStore, SessionStore, StoreHealth, StoreSurroundings } from '../src/io/session/store.js'
import type { Clock, LifecycleEvent, UserId } from '../src/io/types.js'
import { completeSessionLimits, type Given } from '../src/limits.js'
import {
  aClock, aSessionStore, aText, anObject, checkOptions, checkPluginOptions, orFunction, type OptionCheck
} from '../src/option-checks.js'
import { createMemoryStore } from '../src/stores/memory.js'
import { systemClock } from '../src/system-clock.js'
import { createMembership, type Membership } from './cluster/membership.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** The sessions of this node: create, find, list, send to, end. */
    sessionManager: SessionManager
    /**
     * What the other plugins of Holdfast work with. Not for applications: it may change with any
     * version.
     */
    sessionInternals: SessionInternals
  }
}

export interface SessionInternals {
  readonly sessions: SessionRuntime
  readonly entrance: Entrance
  readonly operations: SessionOperations
  readonly store: SessionStore
  /** Of a node whose store others share. */
  readonly membership: Membership | undefined
}

export interface SessionManagerPluginOptions {
  /** Default: the server's, each of those that are not given. */
  limits?: Given<SessionLimits>
  /** Default: the memory store. One that several nodes share is made by a function. */
  store?: SessionStore | CreateStore
  /** The placeholder user, who is everybody and has no quota. */
  unlimitedUserId?: UserId
  clock?: Clock
}

/**
 * How often expiry is looked at. With the second that a limited purge leaves alone, a session ends
 * at most 1.25 s late.
 */
const SWEEP_EVERY_MS = 250
/** Outputs that do not wait for the store are kept about a second later. */
const SWEEPS_PER_FLUSH = 4
/**
 * Sessions ended per turn: about five milliseconds. The rest of a large purge goes between other
 * events.
 */
const PURGE_SLICE = 1000

const CHECKS: Record<keyof SessionManagerPluginOptions, OptionCheck> = {
  limits: anObject,
  store: orFunction(aSessionStore, 'that makes one'),
  unlimitedUserId: aText('a user id'),
  clock: aClock
}

/** A wait that does not keep the process alive. */
const waitFor = (ms: number): Promise<unknown> => delay(ms, undefined, { ref: false })

export default fp<SessionManagerPluginOptions>(async function sessionManager (fastify, options) {
  if (fastify.hasDecorator('sessionManager')) {
    throw new HoldfastError('PLUGIN_MISUSED', { message: 'The plugin holdfast/session-manager is registered twice.' })
  }
  checkPluginOptions('holdfast/session-manager', options, CHECKS)
  const limits = completeSessionLimits(options.limits)
  const { clock = systemClock, unlimitedUserId } = options
  const log = fastify.log.child({ module: 'sessions' })
  const startedAt = new Date(clock.wall()).toISOString()
  const store = made(options.store, {
    clock,
    log: fastify.log,
    limits,
    describe: () => ({ startedAt, draining: fastify.hasDecorator('gateway') && fastify.gateway.draining }),
    ...(unlimitedUserId === undefined ? {} : { unlimitedUserId })
  })
  const sessions = createSessionRuntime({
    store,
    clock,
    limits,
    log: fastify.log,
    generation: randomUUID().slice(0, 8),
    createId: store.newId ?? (() => randomUUID()),
    defer: process.nextTick,
    yieldTurn: setImmediate,
    ...(unlimitedUserId === undefined ? {} : { unlimitedUserId })
  })
  const membership = isShared(store)
    ? createMembership({ sessions, store, clock, log, delay: waitFor, yieldTurn })
    : undefined
  const restored = await restoreSessions(sessions, store, { healthChanged: logHealth, ...membership?.hooks })
  if (store.traits.survives !== 'nothing') {
    log.info({ ...restored, survives: store.traits.survives }, 'session store opened')
  }
  const manager = createSessionManager(sessions, setImmediate)
  manager.subscribe(event => logEvent(event))

  function logHealth (health: StoreHealth, error?: Error): void {
    if (health === 'ok') log.info({}, 'session store keeps sessions again')
    else log.error({ err: error, health }, 'session store does not keep sessions')
  }

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
  let sweeps = 0
  const sweep = setInterval(() => {
    sessions.committer.retry()
    if (++sweeps % SWEEPS_PER_FLUSH === 0) sessions.committer.flush()
    if (pending === undefined) purge()
  }, SWEEP_EVERY_MS)
  sweep.unref()

  fastify.decorate('sessionManager', manager)
  const local = createLocalOperations({ sessions, manager, delay: waitFor, yieldTurn })
  const operations = membership === undefined
    ? local
    : createFleetOperations({
      sessions, manager, local, store: membership.store, asking: membership.asking, clock, log
    })
  const claims = membership === undefined ? undefined : createClaims(sessions, membership.store)
  fastify.decorate('sessionInternals', {
    sessions, entrance: createEntrance(sessions, claims), operations, store, membership
  })
  fastify.addHook('onClose', async () => {
    clearInterval(sweep)
    if (pending !== undefined) clearImmediate(pending)
    await membership?.leave()
    await sessions.committer.whenIdle()
    await store.close()
  })
}, { name: 'holdfast/session-manager', fastify: '5.x' })

/** @throws CONFIG_INVALID  where the function of an application makes something else */
function made (given: SessionManagerPluginOptions['store'], surroundings: StoreSurroundings): SessionStore {
  if (typeof given !== 'function') return given ?? createMemoryStore()
  const store = given(surroundings)
  checkOptions('holdfast/session-manager', { store }, { store: aSessionStore })
  return store
}
