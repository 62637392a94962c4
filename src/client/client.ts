// The typed client: one session that outlives its sockets, in browsers and in Node, over the full
// profile of docs/protocol.md. No dependencies at run time, and no built-ins of any runtime.
//
// This file joins the parts and decides nothing. session-machine.ts says what to do about an event;
// its effects are carried out by link.ts (the connection), command-queue.ts (the commands) and
// environment.ts (page, storage, lock, timers). What the application is to hear waits in `news`
// until everything has been done, so a handler finds the final state, may call whatever it likes,
// and hears of that afterwards.

import type { CommandMap, EventMap } from '../io/dispatcher/command.js'
import type { ConnectOptions, Session, SessionEvents } from './api.js'
import { createCommandQueue, outcomeOf, type Outcome } from './command-queue.js'
import {
  createTimers, createVault, tabPersistence, watchPage, type Page, type SocketConstructor, type Timing
} from './environment.js'
import { createLink, DETACH_CODE } from './link.js'
import {
  createTransition, INITIAL_STATE, type ServerFrame, type SessionEvent, type SessionPort
} from './session-machine.js'

export { CommandError } from './api.js'
export type * from './api.js'
// For functions that take any session, such as a hook.
export type { CommandMap, EventMap } from '../io/dispatcher/command.js'
export type {
  AbortSignalLike, Page, Persistence, SavedCommand, SavedSession, SocketConstructor, SocketLike, Timing
} from './environment.js'

type Handler = (...args: never[]) => void

/**
 * Starts a session, or goes on with the one that is saved, and keeps it connected until `close()`
 * or an instruction to stop.
 *
 * Returns at once; handlers registered in the same turn miss nothing. Types come from the server:
 * `connect<typeof commands, typeof events>(url)`.
 *
 * @param url `ws:` or `wss:` address of the endpoint (P-1)
 * @throws TypeError  the runtime has no WebSocket and `options.WebSocket` is missing
 */
export function connect<C extends CommandMap = CommandMap, E extends EventMap = EventMap> (
  url: string, options: ConnectOptions = {}
): Session<C, E> {
  const page = options.page ?? globalThis as Page
  const Socket = options.WebSocket ?? (globalThis as { WebSocket?: SocketConstructor }).WebSocket
  if (Socket === undefined) throw new TypeError('This runtime has no WebSocket; pass one as options.WebSocket.')
  const timing: Timing = {
    now: options.now ?? (() => performance.now()),
    wall: options.wall ?? Date.now,
    setTimeout: options.setTimeout ?? ((run, ms) => setTimeout(run, ms)),
    clearTimeout: options.clearTimeout ?? (handle => clearTimeout(handle as number)),
    random: options.random ?? Math.random
  }
  const { token, maxOutputBytes } = options

  // What the application hears

  const handlers = new Map<string, Set<Handler>>()
  const news: Array<() => void> = []
  let isTelling = false

  /** A handler that throws keeps neither the others nor the session from going on. */
  function call (key: string, ...args: unknown[]): void {
    for (const handler of [...handlers.get(key) ?? []]) {
      try {
        handler(...args as never[])
      } catch (cause) {
        if (key !== 'on error') tell('error', { code: 'HANDLER_FAILED', message: `A handler failed: ${key}`, cause })
      }
    }
  }

  function add (key: string, handler: Handler): () => void {
    // Wrapped, so that a handler registered twice is called twice and removed once.
    const own: Handler = (...args) => handler(...args)
    const set = handlers.get(key) ?? new Set()
    handlers.set(key, set.add(own))
    return () => { set.delete(own) }
  }

  function tell<K extends keyof SessionEvents> (type: K, event: SessionEvents[K]): void {
    news.push(() => call(`on ${type}`, event))
  }

  function publish (): void {
    if (isTelling || isActing) return
    isTelling = true
    for (let next = news.shift(); next !== undefined; next = news.shift()) next()
    isTelling = false
  }

  // What happens

  const transition = createTransition({
    renew: options.renew !== false,
    maxAttempts: options.maxAttempts ?? Infinity,
    hasStaticToken: typeof token === 'string'
  })
  const events: SessionEvent[] = []
  let state = INITIAL_STATE
  let isActing = false

  /**
   * Events of one turn are taken one after another, each with all its effects. @throws what a
   * malformed frame makes the machine throw
   */
  function dispatch (...event: SessionEvent): void {
    events.push(event)
    if (isActing) return
    isActing = true
    try {
      for (let next = events.shift(); next !== undefined; next = events.shift()) {
        const isOffline = page.navigator?.onLine === false
        const result = transition(state, next, { now: timing.now(), random: timing.random, isOffline })
        state = result.state
        for (const [name, ...args] of result.effects) (port[name] as (...args: unknown[]) => void)(...args)
      }
    } finally {
      isActing = false
    }
    publish()
  }

  // The parts

  const timers = createTimers(timing)
  const queue = createCommandQueue({
    timing,
    timers,
    maxQueue: options.maxQueue ?? 1000,
    timeoutMs: options.timeoutMs,
    transmit: heads => dispatch('transmit', heads),
    orphan
  })
  const link = createLink({
    url,
    Socket,
    timing,
    timers,
    token: () => typeof token === 'function' ? token() : token,
    identified: subject => dispatch('token', subject),
    entries () {
      const { sessionId, resumeToken, lastSeq } = state
      return [
        ...resumeToken === undefined ? [] : [`resume.${sessionId}.${resumeToken}.${lastSeq}`],
        ...maxOutputBytes === undefined ? [] : [`output.${maxOutputBytes}`]
      ]
    },
    receive (frame) {
      dispatch('frame', frame as ServerFrame)
      queue.flush()
    },
    lost: loss => dispatch('lost', loss),
    failed: (reason, cause) => dispatch('failed', reason, cause)
  })
  const persistence = options.persistence === false
    ? undefined
    : options.persistence ?? tabPersistence(page, options.persistenceKey ?? `holdfast:${url}`)
  const vault = createVault(
    persistence,
    page.navigator?.locks,
    timers,
    (message, cause) => {
      tell('error', { code: 'PERSISTENCE_FAILED', message, cause })
      publish()
    }
  )
  let loads = 0
  const unwatch = watchPage(page, { wake: isSure => dispatch('wake', isSure), hide: () => dispatch('hide') })

  function orphan (id: number, command: string | undefined, outcome: Outcome): void {
    // The next `connect()` hears of what this one leaves.
    if (outcome.error?.code !== 'DISPOSED') tell('orphanResult', { id, command, ...outcome })
    publish()
  }

  const port: SessionPort = {
    ...queue,
    ...link,
    disarm: timers.disarm,
    arm: (event, ms) => timers.arm(event, ms, () => dispatch(event)),
    load () {
      const mine = ++loads
      void vault.load().then(({ saved, isFree }) => { if (mine === loads) dispatch('loaded', saved, isFree) })
    },
    save () {
      const { sessionId, userId, resumeToken, lastSeq } = state
      if (resumeToken === undefined) return
      vault.save({ sessionId: sessionId!, userId: userId!, resumeToken, lastSeq, commands: queue.saved() })
    },
    forget (isReplaced) {
      // A session that was taken over lives on. Where its new holder saves to the same place, that
      // is now theirs; what is this tab's alone must not take the session back at the next reload.
      if (!isReplaced || persistence?.isShared !== true) vault.clear()
    },
    claim: vault.claim,
    release () {
      loads++
      vault.release()
    },
    flow: queue.open,
    answer (frame, isNew) {
      const { id } = frame
      if (id !== undefined && !queue.answer(id, frame) && isNew) orphan(id, undefined, outcomeOf(frame, ''))
    },
    refuse (id, retryAfterMs, expected) {
      if (!queue.refuse(id, retryAfterMs, expected)) dispatch('stateLost')
    },
    blame () {
      if (queue.isSending()) dispatch('blamed')
    },
    endCommands: queue.end,
    tell,
    deliver (event, payload, seq) {
      tell('message', { event, payload, seq })
      news.push(() => call(`event ${event}`, payload, seq), () => dispatch('handled', seq))
    },
    leave () {
      link.close(DETACH_CODE)
      timers.disarm()
      unwatch()
      vault.release()
    }
  }

  dispatch('start')

  const send = (command: string, payload?: unknown, sendOptions?: object): Promise<unknown> =>
    queue.send(command, payload, sendOptions)
  return {
    get state () { return state.phase },
    get sessionId () { return state.sessionId },
    get userId () { return state.userId },
    send: send as Session<C, E>['send'],
    onMessage: (event, handler) => add(`event ${event}`, handler),
    on: (type, handler) => add(`on ${type}`, handler),
    connect: () => dispatch('connect'),
    detach: () => dispatch('detach'),
    close: () => dispatch('close'),
    dispose: () => dispatch('dispose')
  }
}
