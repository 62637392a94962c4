// The typed client: one session that outlives its sockets, in browsers and in Node, over the full
// profile of docs/protocol.md. No dependencies at run time, and no built-ins of any runtime.
//
// This file joins the parts and decides nothing. session-machine.ts says what to do about an event;
// its effects are carried out by link.ts (the connection), command-queue.ts (the commands),
// vault.ts (storage and lock) and news.ts (what the application hears).

import type { CommandMap, EventMap } from '../io/dispatcher/command.js'
import type { ConnectOptions, Session, SessionEvents } from './api.js'
import { DETACH_CODE } from './bounds.js'
import { outcomeOf, type Outcome } from './command-frame.js'
import { createCommandQueue } from './command-queue.js'
import { watchPage, type Page, type SocketConstructor } from './environment.js'
import { createLink } from './link.js'
import { createNews } from './news.js'
import { transition } from './session-machine.js'
import {
  INITIAL_STATE, type ServerFrame, type SessionEvent, type SessionPort, type SessionState
} from './session-state.js'
import { createTimers } from './timers.js'
import { createVault, tabPersistence } from './vault.js'

export { CommandError } from './api.js'
export type * from './api.js'
// For functions that take any session, such as a hook.
export type { CommandMap, EventMap } from '../io/dispatcher/command.js'
export type {
  AbortSignalLike, Page, Persistence, SavedCommand, SavedSession, SocketConstructor, SocketLike, Timing
} from './environment.js'

/**
 * Starts a session, or goes on with the one that is saved, and keeps it connected until `close()`
 * or an instruction to stop.
 *
 * Returns at once; handlers registered in the same turn miss nothing. Types come from the server:
 * `connect<typeof commands, typeof events>(url)`.
 *
 * @param url `ws:` or `wss:` address of the endpoint (P-1)
 * @throws TypeError  the runtime has no WebSocket and `options.WebSocket` is missing; a name in
 *                    `options` that is not one of an option
 */
export function connect<C extends CommandMap = CommandMap, E extends EventMap = EventMap> (
  url: string, options: ConnectOptions = {}
): Session<C, E> {
  const {
    token, timeoutMs, maxOutputBytes, renew = true, maxAttempts = Infinity, maxQueue = 1000, page = globalThis as Page,
    WebSocket: Socket = (globalThis as { WebSocket?: SocketConstructor }).WebSocket,
    now = () => performance.now(), wall = Date.now, random = Math.random,
    setTimeout: later = (run, ms) => setTimeout(run, ms), clearTimeout: cancel = timer => clearTimeout(timer as number),
    persistenceKey = `holdfast:${url}`, persistence = tabPersistence(page, persistenceKey), ...others
  } = options
  refuse(Object.keys(others))
  if (Socket === undefined) throw new TypeError('This runtime has no WebSocket; pass one as options.WebSocket.')
  const timing = { now, wall, random, setTimeout: later, clearTimeout: cancel }
  const timers = createTimers(timing)
  const news = createNews()
  const events: SessionEvent[] = []
  let state: SessionState = { ...INITIAL_STATE, renew, maxAttempts, random, hasStaticToken: typeof token === 'string' }
  let isActing = false

  /**
   * Events of one turn are taken one after another, each with all its effects. Throws what a
   * malformed frame makes the machine throw.
   */
  function dispatch (...event: SessionEvent): void {
    events.push(event)
    if (isActing) return
    isActing = true
    try {
      for (let next = events.shift(); next !== undefined; next = events.shift()) {
        state = transition(state, next, { now: now(), isOffline: page.navigator?.onLine === false })
        for (const [name, ...args] of state.effects) (port[name] as (...args: unknown[]) => void)(...args)
      }
    } finally {
      isActing = false
    }
    news.publish()
  }

  /** Tells what no event of the machine tells. */
  function announce<K extends keyof SessionEvents> (type: K, event: SessionEvents[K]): void {
    news.tell(type, event)
    if (!isActing) news.publish()
  }

  function orphan (id: number, command: string | undefined, outcome: Outcome): void {
    // The next `connect()` hears of what this one leaves.
    if (outcome.error?.code !== 'DISPOSED') announce('orphanResult', { id, command, ...outcome })
  }

  const queue = createCommandQueue({ now, timers, maxQueue, timeoutMs, orphan, emit: dispatch })
  const link = createLink({
    url,
    Socket,
    timing,
    timers,
    token: () => typeof token === 'function' ? token() : token,
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
    emit: dispatch
  })
  const vault = createVault(persistence || undefined, page.navigator?.locks, timers, dispatch, (message, cause) => {
    announce('error', { code: 'PERSISTENCE_FAILED', message, cause })
  })
  const unwatch = watchPage(page, dispatch)

  const port: SessionPort = {
    ...timers,
    ...news,
    ...vault,
    ...queue,
    ...link,
    arm: (event, ms) => timers.arm(event, ms, () => dispatch(event)),
    save () {
      const { sessionId, userId, resumeToken, lastSeq } = state
      if (resumeToken === undefined) return
      vault.save({ sessionId: sessionId!, userId: userId!, resumeToken, lastSeq, commands: queue.saved() })
    },
    answer (frame, isNew) {
      const { id } = frame
      if (id !== undefined && !queue.answer(id, frame) && isNew) orphan(id, undefined, outcomeOf(frame, ''))
    },
    deliver (event, payload, seq) {
      news.tell('message', { event, payload, seq })
      news.post(() => {
        news.call(`event ${event}`, payload, seq)
        dispatch('handled', seq)
      })
    },
    leave () {
      link.close(DETACH_CODE)
      timers.disarm()
      unwatch()
      vault.release()
    }
  }

  dispatch('start')

  return {
    get state () { return state.phase },
    get sessionId () { return state.sessionId },
    get userId () { return state.userId },
    send: queue.send as Session<C, E>['send'],
    onMessage: (event, handler) => news.on(`event ${event}`, handler),
    on: (type, handler) => news.on(`on ${type}`, handler),
    connect: () => dispatch('connect'),
    detach: () => dispatch('detach'),
    close: () => dispatch('close'),
    dispose: () => dispatch('dispose')
  }
}

/** A typo would be silent: `persistance: false` saved the session after all. */
function refuse ([name]: string[]): void {
  if (name !== undefined) throw new TypeError(`${name} is not an option of connect.`)
}
