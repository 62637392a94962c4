// The typed client: one session that outlives its sockets, in browsers and in Node, over the full profile of docs/protocol.md.
//
// Order: attempt → created, or resumed and its replay → live → … → lost, where the server's instruction (P-42, P-49) decides whether and when the
// next attempt follows. Outputs are handled in order and once, acknowledged only after their handlers have returned (P-21), and saved before that.
// Commands are command-queue.ts and the connection is link.ts; this file joins them. Whatever calls an application's code checks afterwards that
// the connection is still the one it was. No dependencies at run time, and no built-ins of any runtime.

import { closeAction, type CloseAction } from '../io/protocol/close-codes.js'
import type { CommandMap, EventMap } from '../io/dispatcher/command.js'
import type { Millis, Seq } from '../io/types.js'
import type { ClientState, ConnectOptions, Session, SessionEvents, SeqRange } from './api.js'
import { createCommandQueue, outcomeOf, type Limits, type Outcome } from './command-queue.js'
import {
  backoffMs, createSessionLock, createTimers, isSavedSession, tabPersistence, watchPage, type Page, type SocketConstructor, type Timing
} from './environment.js'
import { createLink, DETACH_CODE } from './link.js'

export { CommandError } from './api.js'
export type * from './api.js'
// For functions that take any session, such as a hook.
export type { CommandMap, EventMap } from '../io/dispatcher/command.js'
export type { AbortSignalLike, Page, Persistence, SavedSession, SocketConstructor, SocketLike, Timing } from './environment.js'

const REPLACED_CODE = 4003
/** An ack frame follows that many outputs, or the first of them after that time, unless a command takes the ack along. */
const ACK_OUTPUTS = 32
const ACK_DELAY_MS = 200
/** A connection that was live for less does not reset the back-off, or a server that closes at once would be asked at once. */
const STABLE_MS = 5_000
/** For refusals that name no time. */
const REFUSAL_DELAY_MS = 500

/** Members of server frames that the client reads (docs/protocol.md section 3.1). */
interface ServerFrame {
  readonly type?: string
  readonly seq?: Seq
  readonly id?: number
  readonly event?: string
  readonly code?: string
  readonly expected?: number
  readonly retryAfterMs?: Millis
  readonly payload?: unknown
}
interface SessionPayload {
  readonly sessionId: string
  readonly userId: string
  readonly resumeToken?: string | null
  readonly heartbeatMs: Millis
  readonly limits: Limits
  readonly previous?: { readonly reason: string, readonly lastCommand?: number }
  readonly lastCommand: number
  readonly replay: SeqRange | null
  readonly gap: SeqRange | null
}
interface GoodbyePayload { readonly code: number, readonly reason: string, readonly action?: CloseAction, readonly retryAfterMs?: Millis }

type Handler = (...args: never[]) => void

/** Handlers by key. One that throws keeps neither the others nor the session from going on. */
function createHandlers (failed: (key: string, cause: unknown) => void): { add (key: string, handler: Handler): () => void, call (key: string, ...args: unknown[]): void } {
  const handlers = new Map<string, Set<Handler>>()
  return {
    add (key, handler) {
      // Wrapped, so that a handler registered twice is called twice and removed once.
      const own: Handler = (...args) => handler(...args)
      const set = handlers.get(key) ?? new Set()
      handlers.set(key, set.add(own))
      return () => { set.delete(own) }
    },
    call (key, ...args) {
      for (const handler of [...handlers.get(key) ?? []]) {
        try {
          handler(...args as never[])
        } catch (cause) {
          failed(key, cause)
        }
      }
    }
  }
}

/**
 * Starts a session, or goes on with the one that is saved, and keeps it connected until `close()` or an instruction to stop.
 *
 * Returns at once; handlers registered in the same turn miss nothing. Types come from the server: `connect<typeof commands, typeof events>(url)`.
 *
 * @param url `ws:` or `wss:` address of the endpoint (P-1)
 * @throws TypeError  the runtime has no WebSocket and `options.WebSocket` is missing
 */
export function connect<C extends CommandMap = CommandMap, E extends EventMap = EventMap> (url: string, options: ConnectOptions = {}): Session<C, E> {
  const page = options.page ?? globalThis as Page
  const Socket = options.WebSocket ?? (globalThis as { WebSocket?: SocketConstructor }).WebSocket
  if (Socket === undefined) throw new TypeError('This runtime has no WebSocket; pass one as options.WebSocket.')
  const timing: Timing = {
    now: options.now ?? (() => performance.now()),
    setTimeout: options.setTimeout ?? ((run, ms) => setTimeout(run, ms)),
    clearTimeout: options.clearTimeout ?? (handle => clearTimeout(handle as number)),
    random: options.random ?? Math.random
  }
  const timers = createTimers(timing)
  const { add, call } = createHandlers((key, cause) => {
    if (key !== 'on error') emit('error', { code: 'HANDLER_FAILED', message: `A handler failed: ${key}`, cause })
  })
  const emit = <K extends keyof SessionEvents>(type: K, event: SessionEvents[K]): void => call(`on ${type}`, event)
  const queue = createCommandQueue({ timing, timers, maxQueue: options.maxQueue ?? 1000, transmit, orphan })
  const link = createLink({
    url,
    Socket,
    timing,
    timers,
    token: () => typeof options.token === 'function' ? options.token() : options.token,
    resumeEntry: () => resumeToken && `${sessionId}.${resumeToken}.${lastSeq}`,
    receive,
    lost,
    refused (cause) {
      const turn = link.turn()
      emit('error', { code: 'TOKEN_FAILED', message: 'There are no credentials to connect with.', cause })
      if (link.turn() === turn) link.drop('token_failed')
    },
    impossible (cause) {
      emit('error', { code: 'HANDSHAKE_INVALID', message: 'No WebSocket takes this address or token.', cause })
      end('handshake_invalid')
    }
  })
  let persistence = options.persistence === false ? undefined : options.persistence ?? tabPersistence(page, options.persistenceKey ?? `holdfast:${url}`)
  const lock = createSessionLock(persistence && page.navigator?.locks, timers)

  let state: ClientState = 'connecting'
  let sessionId: string | undefined
  let userId: string | undefined
  let resumeToken: string | undefined
  let limits: Limits = {}
  /** Every output up to it has been handled. */
  let lastSeq: Seq = 0
  let ackedSeq: Seq = 0
  /** `ended` was told of the session, and the next one is on its way. */
  let isOver = false
  /** `detach` was called: only `connect` goes on. */
  let isHeld = false
  /** The server gave a session on this connection. */
  let isAttached = false
  /** Infinity while it is not live. */
  let liveAt = Infinity
  /** Live connections in a row that did not last, and attempts since the last one; what the back-off grows with. */
  let briefs = 0
  let attempts = 0
  /** Attempts since the server last gave a session. */
  let failures = 0
  /** The server asked not to be asked before. */
  let notBefore = 0

  const unwatch = watchPage(page, wake, () => { save(); lock.release() })
  const restored = restore()
  attempt()

  function setState (next: ClientState): void {
    const previous = state
    state = next
    if (next !== previous) emit('state', { state: next, previous })
  }

  // What outlives the page

  async function restore (): Promise<void> {
    try {
      const saved = await persistence?.load()
      if (!isSavedSession(saved) || state === 'ended' || !await lock.acquire(saved.sessionId)) return
      ({ sessionId, userId, resumeToken, lastSeq } = saved)
      queue.restore(saved.commands)
    } catch (cause) {
      emit('error', { code: 'PERSISTENCE_FAILED', message: 'The saved session cannot be read.', cause })
    }
  }

  function save (): void {
    try {
      if (resumeToken !== undefined) persistence?.save({ sessionId: sessionId!, userId: userId!, resumeToken, lastSeq, commands: queue.saved() })
    } catch (cause) {
      // A storage that is full now would bring back an older state later, which is worse than none.
      forget()
      persistence = undefined
      // Later, since no application code may run between the frames of a transmission.
      void Promise.resolve().then(() => emit('error', { code: 'PERSISTENCE_FAILED', message: 'The session is no longer saved.', cause }))
    }
  }

  function forget (): void {
    try {
      persistence?.clear()
    } catch {
      // Where nothing can be cleared, nothing could be saved either.
    }
  }

  // From an attempt to live

  function attempt (): void {
    isHeld = isAttached = false
    timers.disarm('retry')
    setState('connecting')
    void restored.then(() => {
      if (state === 'connecting') emit('connecting', { attempt: attempts, resuming: resumeToken !== undefined })
      if (state === 'connecting') link.open()
    })
  }

  function receive (frame: ServerFrame): void {
    const { type, seq, payload } = frame
    if (type === 'session_created') created(payload as SessionPayload)
    else if (type === 'session_resumed') resumed(payload as SessionPayload)
    else if (type === 'live') live(true)
    else if (type === 'ping') acknowledge()
    else if (type === 'goodbye') {
      const { code, reason, action, retryAfterMs } = payload as GoodbyePayload
      // What comes after it, if anything, is the close (P-42), which may be slow to arrive or never does.
      link.close(DETACH_CODE)
      lost(code, reason, action ?? closeAction(code), retryAfterMs)
    } else if (seq !== undefined) output(frame, seq)
    else if (type === 'error') refusal(frame)
    queue.flush()
  }

  function adopt (given: SessionPayload): void {
    ({ sessionId, userId, limits } = given)
    resumeToken = given.resumeToken ?? undefined
    isAttached = true
    isOver = false
    failures = 0
    link.expect(given.heartbeatMs)
    // A resume window of 0 (P-36) leaves nothing worth keeping.
    if (resumeToken === undefined) forget()
    save()
  }

  function created (given: SessionPayload): void {
    const turn = link.turn()
    const old = sessionId
    const previousUser = userId
    const wasOver = isOver
    const reason = given.previous?.reason ?? 'unknown'
    isAttached = true
    queue.renew(given.previous?.lastCommand)
    if (previousUser !== undefined && previousUser !== given.userId) {
      queue.disown()
      emit('userChanged', { userId: given.userId, previous: previousUser })
    }
    if (turn === link.turn() && old !== undefined && options.renew === false) {
      link.close(1000)
      end(reason)
    }
    if (turn !== link.turn()) return
    lastSeq = ackedSeq = 0
    adopt(given)
    lock.release()
    void lock.acquire(given.sessionId)
    if (old !== undefined && !wasOver) emit('ended', { sessionId: old, reason, renewing: true })
    if (turn === link.turn()) live(false)
  }

  function resumed (given: SessionPayload): void {
    const { lastCommand, replay, gap } = given
    ackedSeq = lastSeq
    if (gap !== null) lastSeq = gap.to
    queue.resume(lastCommand, gap !== null)
    adopt(given)
    emit('resumed', { sessionId: given.sessionId, lastCommand, replay, gap })
    if (gap !== null) emit('gap', gap)
  }

  function live (isResumed: boolean): void {
    const turn = link.turn()
    liveAt = timing.now()
    // The first frame is what makes the presented token worthless (P-28).
    if (isResumed) acknowledge()
    setState('live')
    if (turn === link.turn()) emit('live', { sessionId: sessionId!, userId: userId!, resumed: isResumed })
    if (turn === link.turn()) queue.open(limits)
  }

  // Outputs and commands

  function output (frame: ServerFrame, seq: Seq): void {
    const { type, id, event, payload } = frame
    const turn = link.turn()
    if (seq > lastSeq + 1) return link.drop('seq_jump')
    const isNew = seq > lastSeq
    if (type === 'message' && isNew) {
      emit('message', { event: event!, payload, seq })
      call(`event ${event}`, payload, seq)
    } else if (id !== undefined && !queue.answer(id, frame) && isNew) orphan(id, undefined, outcomeOf(frame, ''))
    if (!isNew) return
    lastSeq = seq
    if (turn !== link.turn()) return
    if (seq - ackedSeq >= ACK_OUTPUTS) acknowledge()
    else if (seq - ackedSeq === 1) timers.arm('ack', ACK_DELAY_MS, acknowledge)
  }

  function orphan (id: number, command: string | undefined, outcome: Outcome): void {
    // The next `connect()` hears of what this one leaves.
    if (outcome.error?.code !== 'DISPOSED') emit('orphanResult', { id, command, ...outcome })
  }

  function refusal (frame: ServerFrame): void {
    const { id, code = '', expected, retryAfterMs } = frame
    if (id === undefined) emit('error', { code, message: String(frame.payload) })
    else if (code === 'RESULT_EXPIRED') queue.answer(id, frame)
    else if (!queue.refuse(id, retryAfterMs ?? (expected === undefined ? REFUSAL_DELAY_MS : 0), expected)) {
      resumeToken = undefined
      link.close(1000)
      lost(1006, 'state_lost', 'new')
    }
  }

  /** The tail of a frame that takes the ack along. */
  function takeAck (): string {
    const tail = lastSeq > ackedSeq ? `,"ack":${lastSeq}}` : '}'
    ackedSeq = lastSeq
    timers.disarm('ack')
    return tail
  }

  function acknowledge (): void {
    save()
    takeAck()
    link.send(`{"type":"ack","seq":${lastSeq}}`)
  }

  function transmit (heads: string[]): void {
    save()
    for (const head of heads) link.send(head + takeAck())
  }

  // From a loss to the next attempt, or the end

  function lost (code: number, reason: string, action: CloseAction, retryAfterMs: Millis = 0): void {
    timers.disarm('ack')
    queue.pause()
    if (liveAt !== Infinity) {
      if (timing.now() - liveAt >= STABLE_MS) briefs = 0
      attempts = briefs++
      liveAt = Infinity
    }
    if (action === 'stop' || (action === 'new' && options.renew === false)) return end(reason, code === REPLACED_CODE)
    if (!isAttached && ++failures >= (options.maxAttempts ?? Infinity)) return end('unreachable')
    // `resume` and `new` mean now, but a server that says so again and again is not believed.
    const backoff = action === 'resume_later' || attempts > 0 ? backoffMs(attempts, timing.random) : 0
    const retryInMs = retryAfterMs + backoff
    attempts++
    notBefore = timing.now() + retryAfterMs
    timers.arm('retry', retryInMs, retry)
    const isEnding = action === 'new' && !isOver && sessionId !== undefined
    if (isEnding) isOver = true
    setState('detached')
    if (state === 'detached') emit('detached', { code, reason, retryInMs })
    if (isEnding && state !== 'ended') emit('ended', { sessionId, reason, renewing: true })
  }

  function retry (): void {
    // Without a network an attempt tells nothing; `online` will.
    if (page.navigator?.onLine !== false) attempt()
  }

  function wake (): void {
    if (state === 'detached' && !isHeld) timers.arm('retry', Math.max(0, notBefore - timing.now()), retry)
  }

  function end (reason: string, isReplaced = false): void {
    if (state === 'ended') return
    // A session that was taken over lives on. Where its new holder saves to the same place, that is now theirs; what is this tab's alone must not take
    // the session back at the next reload.
    if (!isReplaced || persistence?.isShared !== true) forget()
    leave()
    setState('ended')
    queue.end('SESSION_ENDED', reason)
    if (isReplaced) emit('replaced', { sessionId })
    else emit('ended', { sessionId, reason, renewing: false })
  }

  function leave (): void {
    link.close(DETACH_CODE)
    timers.disarm()
    unwatch()
    lock.release()
  }

  const send = (command: string, payload?: unknown, sendOptions?: object): Promise<unknown> => queue.send(command, payload, sendOptions)
  return {
    get state () { return state },
    get sessionId () { return sessionId },
    get userId () { return userId },
    send: send as Session<C, E>['send'],
    onMessage: (event, handler) => add(`event ${event}`, handler),
    on: (type, handler) => add(`on ${type}`, handler),
    connect () {
      if (state === 'detached') attempt()
    },
    detach () {
      if (state === 'ended' || isHeld) return
      isHeld = true
      link.close(DETACH_CODE)
      timers.disarm('retry', 'ack')
      queue.pause()
      save()
      setState('detached')
      emit('detached', { code: DETACH_CODE, reason: 'detached_by_client', retryInMs: null })
    },
    close () {
      // Either would do (P-38); close codes get lost behind proxies, and frames are possible only on an open socket.
      if (isAttached) {
        link.send('{"type":"end"}')
        link.close(1000)
      }
      end('ended_by_client')
    },
    dispose () {
      if (state === 'ended') return
      save()
      leave()
      setState('ended')
      queue.end('DISPOSED', 'disposed')
      emit('ended', { sessionId, reason: 'disposed', renewing: false })
    }
  }
}
