// The life of one client's session as a pure machine: an event in, the next state and a list of
// effects out.
//
// Order: connecting → created, or resumed and its replay → live → … → lost, where the server's
// instruction (P-42, P-49) decides whether and when the next attempt follows. Events and effects
// are calls written down, `[name, ...arguments]`: events of `Events` below, effects of
// `SessionPort`, which client.ts carries out in order once the state is final. So nothing that is
// told to an application can find a session between two states. Frames that are not shaped as they
// should be throw, and then the state is what it was. No sockets, timers, clocks or promises here.

import { closeAction, type CloseAction } from '../io/protocol/close-codes.js'
import type { Millis, Seq } from '../io/types.js'
import type { ClientState, Reason, SeqRange, SessionEvents } from './api.js'
import { BAD_FRAME_CODE, type AnswerFrame, type Limits } from './command-queue.js'
import type { SavedCommand, SavedSession } from './environment.js'
import { DETACH_CODE, type Loss } from './link.js'

const REPLACED_CODE = 4003
/** Credentials that are not accepted, and a user who may not connect. */
const DENIED_CODES = [4401, 4403]
/**
 * Endings of the client and not of the session: it may be resumed with better credentials or at a
 * better time.
 */
const KEPT_ENDINGS = ['unauthenticated', 'forbidden', 'unreachable']
/** Losses that being offline explains. */
const LINE_LOSSES = ['connection_lost', 'heartbeat_missed', 'unreachable']
/**
 * An ack frame follows that many outputs, or the first of them after that time, unless a command
 * takes the ack along.
 */
const ACK_OUTPUTS = 32
const ACK_DELAY_MS = 200
/**
 * A connection that was live for less does not reset the back-off, or a server that closes at once
 * would be asked at once.
 */
const STABLE_MS = 5_000
const BACKOFF_BASE_MS = 500
const BACKOFF_CAP_MS = 30_000
/**
 * `navigator.onLine` is wrong on some systems: while it is false attempts are slower, and never
 * end.
 */
const OFFLINE_BACKOFF_MS = 5_000
/** For refusals that name no time. */
const REFUSAL_DELAY_MS = 500
/** P-53b. What a server or a gateway says is taken for at most that long. */
const MAX_RETRY_AFTER_MS = 3_600_000
/** Errors of frames that will be accepted later (P-16). Any other one is for good. */
const REFUSALS = ['RATE_LIMITED', 'TOO_MANY_IN_FLIGHT', 'COMMAND_GAP', 'STORE_UNAVAILABLE', 'DRAINING']

export interface SessionState {
  readonly phase: ClientState
  readonly sessionId: string | undefined
  readonly userId: string | undefined
  /**
   * Whom the latest token was issued to, as far as that can be read. It stands for the user until
   * the server names one.
   */
  readonly subject: string | undefined
  readonly resumeToken: string | undefined
  readonly limits: Limits
  /** Every output up to it has been handled. */
  readonly lastSeq: Seq
  readonly ackedSeq: Seq
  /** `ended` was told of the session, and the next one is on its way. */
  readonly isOver: boolean
  /** `detach` was called: only `connect` goes on. */
  readonly isHeld: boolean
  /** The server gave a session on this connection. */
  readonly isAttached: boolean
  /**
   * What is saved is to be read, and to be claimed, before the next attempt: at first, and after
   * the page was hidden.
   */
  readonly isStale: boolean
  readonly isLoading: boolean
  /** Infinity while it is not live. */
  readonly liveAt: Millis
  /**
   * Live connections in a row that did not last, and attempts since the last one; what the back-off
   * grows with.
   */
  readonly briefs: number
  readonly attempts: number
  /** Attempts since the server last gave a session, and how many of them were denied in a row. */
  readonly failures: number
  readonly denials: number
  /** The server asked not to be asked before. */
  readonly notBefore: Millis
  /** What `detached` told last, for when its time changes. */
  readonly told: SessionEvents['detached'] | undefined
}

export const INITIAL_STATE: SessionState = {
  phase: 'connecting',
  sessionId: undefined,
  userId: undefined,
  subject: undefined,
  resumeToken: undefined,
  limits: {},
  lastSeq: 0,
  ackedSeq: 0,
  isOver: false,
  isHeld: false,
  isAttached: false,
  isStale: true,
  isLoading: false,
  liveAt: Infinity,
  briefs: 0,
  attempts: 0,
  failures: 0,
  denials: 0,
  notBefore: 0,
  told: undefined
}

export interface Settings {
  readonly renew: boolean
  readonly maxAttempts: number
  /** The credentials are always the same, so there is no sense in offering them again. */
  readonly hasStaticToken: boolean
}

/** What a transition may look at beside state and event. */
export interface Context { readonly now: Millis, readonly random: () => number, readonly isOffline: boolean }

/** Members of server frames that the client reads (docs/protocol.md section 3.1). */
export interface ServerFrame extends AnswerFrame {
  readonly seq?: Seq
  readonly id?: number
  readonly event?: string
  readonly expected?: number
  readonly retryAfterMs?: Millis
}
interface SessionPayload {
  readonly sessionId: string
  readonly userId: string
  readonly revision?: string
  readonly resumeToken?: string | null
  readonly heartbeatMs: Millis
  readonly limits?: Limits
  readonly previous?: { readonly reason: string, readonly lastCommand?: number }
  readonly lastCommand: number
  readonly replay: SeqRange | null
  readonly gap: SeqRange | null
}
interface GoodbyePayload {
  readonly code: number
  readonly reason: string
  readonly action?: CloseAction
  readonly retryAfterMs?: Millis
}

type Name = 'retry' | 'ack'
/** What the machine has done. Each effect sees the state after the whole transition. */
export interface SessionPort {
  open (): void
  send (text: string): void
  expect (heartbeatMs: Millis, canPing: boolean): void
  probe (isSure: boolean): void
  close (code: number): void
  arm (event: Name, ms: Millis): void
  disarm (event: Name): void
  load (): void
  save (): void
  forget (isReplaced: boolean): void
  claim (sessionId: string): void
  release (): void
  /** Commands: see CommandQueue. */
  flow (limits: Limits): void
  lose (code: number): void
  resume (watermark: number, isLossy: boolean): void
  renew (watermark: number | undefined): void
  disown (): void
  restore (commands: readonly SavedCommand[]): void
  answer (frame: ServerFrame, isNew: boolean): void
  refuse (id: number, retryAfterMs: Millis, expected: number | undefined): void
  reject (id: number, frame: ServerFrame): void
  /** A frame was malformed, and the server does not say which. */
  blame (): void
  endCommands (code: 'SESSION_ENDED' | 'DISPOSED', reason: string): void
  tell<K extends keyof SessionEvents> (type: K, event: SessionEvents[K]): void
  /** Tells a message to its handlers, then `handled`. */
  deliver (event: string, payload: unknown, seq: Seq): void
  /** Sockets, timers, listeners and locks are given up. */
  leave (): void
}
type Call<T> = { [K in keyof T]: T[K] extends (...args: infer A) => void ? [K, ...A] : never }[keyof T]
export type Effect = Call<SessionPort>

export interface Events {
  /** The client was made. */
  start (): void
  connect (): void
  detach (): void
  close (): void
  dispose (): void
  /** What is saved, if anything; `isFree`: no other page holds it. */
  loaded (saved: SavedSession | undefined, isFree: boolean): void
  /** Credentials are there; `subject`: see SessionState. */
  token (subject: string | undefined): void
  failed (reason: 'token_failed' | 'handshake_invalid', cause: unknown): void
  frame (frame: ServerFrame): void
  /** The handlers of an output have returned. */
  handled (seq: Seq): void
  lost (loss: Loss): void
  /** Commands are to be written: frames but for their end. */
  transmit (heads: string[]): void
  /** A frame that was on its way is malformed, and the server does not say which. */
  blamed (): void
  /** The server waits for a command that was answered long ago. */
  stateLost (): void
  wake (isSure: boolean): void
  hide (): void
  retry (): void
  ack (): void
}
export type SessionEvent = Call<Events>
export interface Step { readonly state: SessionState, readonly effects: readonly Effect[] }
export type Transition = (state: SessionState, event: SessionEvent, context: Context) => Step

/** A time from the wire (P-53b); `otherwise` for what is none. */
function clamp (ms: unknown, otherwise: Millis): Millis {
  return typeof ms === 'number' && ms > 0 ? Math.min(ms, MAX_RETRY_AFTER_MS) : otherwise
}

export function createTransition (settings: Settings): Transition {
  // Written between the call of a transition and its return only; what is outside sees neither.
  let s: { -readonly [K in keyof SessionState]: SessionState[K] }
  let effects: Effect[]
  let at: Context

  const act = (...effect: Effect): void => { effects.push(effect) }
  function tell<K extends keyof SessionEvents> (type: K, event: SessionEvents[K]): void {
    effects.push(['tell', type, event] as Effect)
  }

  function enter (phase: ClientState): void {
    if (phase !== s.phase) tell('state', { state: phase, previous: s.phase })
    s.phase = phase
  }

  // From an attempt to live

  function attempt (): void {
    s.isHeld = s.isAttached = false
    act('disarm', 'retry')
    enter('connecting')
    if (s.isLoading) return
    s.isLoading = s.isStale
    if (s.isStale) act('load')
    else begin()
  }

  function begin (): void {
    tell('connecting', { attempt: s.attempts, resuming: s.resumeToken !== undefined })
    act('open')
  }

  /** Another page may have used the session since this one has read it, or may hold it now. */
  function join (saved: SavedSession): void {
    const isSame = saved.sessionId === s.sessionId
    if (isSame && saved.resumeToken === s.resumeToken) return
    if (isSame) {
      if (saved.lastSeq > s.lastSeq) tell('gap', { from: s.lastSeq + 1, to: saved.lastSeq })
    } else if (s.sessionId !== undefined) over('unknown')
    if (saved.userId !== undefined) identify(saved.userId)
    s.sessionId = saved.sessionId
    s.userId = saved.userId
    s.resumeToken = saved.resumeToken
    s.lastSeq = isSame ? Math.max(s.lastSeq, saved.lastSeq) : saved.lastSeq
    s.isOver = false
    act('restore', saved.commands)
  }

  /** The session is over, and a new one is to follow. */
  function over (reason: Reason): void {
    act('renew', undefined)
    if (!s.isOver) tell('ended', { sessionId: s.sessionId, reason, renewing: true })
    s.isOver = true
    s.resumeToken = undefined
  }

  /** What one user queued is never sent as another. */
  function identify (userId: string, previous = s.userId): void {
    if (previous === undefined || previous === userId) return
    act('disown')
    tell('userChanged', { userId, previous })
  }

  function adopt (given: SessionPayload): void {
    s.sessionId = given.sessionId
    s.userId = given.userId
    s.limits = given.limits ?? {}
    s.resumeToken = given.resumeToken ?? undefined
    s.isAttached = true
    s.isOver = false
    s.failures = s.denials = 0
    act('expect', given.heartbeatMs, given.revision !== undefined)
    // A resume window of 0 (P-36) leaves nothing worth keeping.
    act(...(s.resumeToken === undefined ? ['forget', false] : ['save']) as Effect)
  }

  function created (given: SessionPayload): void {
    const { sessionId: old, isOver: wasOver } = s
    const reason = given.previous?.reason ?? 'unknown'
    act('renew', given.previous?.lastCommand)
    if (old !== undefined && !settings.renew) {
      act('send', '{"type":"end"}')
      act('close', 1000)
      return end(reason)
    }
    identify(given.userId)
    s.lastSeq = s.ackedSeq = 0
    adopt(given)
    act('claim', given.sessionId)
    if (old !== undefined && !wasOver) tell('ended', { sessionId: old, reason, renewing: true })
    live(false)
  }

  function resumed (given: SessionPayload): void {
    const { lastCommand, replay, gap } = given
    s.ackedSeq = s.lastSeq
    if (gap !== null) s.lastSeq = gap.to
    if (s.userId !== undefined && s.userId !== given.userId) act('renew', lastCommand)
    identify(given.userId)
    act('resume', lastCommand, gap !== null)
    adopt(given)
    tell('resumed', { sessionId: given.sessionId, lastCommand, replay, gap })
    if (gap !== null) tell('gap', gap)
  }

  function live (isResumed: boolean): void {
    s.liveAt = at.now
    // The first frame is what makes the presented token worthless (P-28).
    if (isResumed) acknowledge()
    enter('live')
    tell('live', { sessionId: s.sessionId!, userId: s.userId!, resumed: isResumed })
    act('flow', s.limits)
  }

  // Outputs and commands

  function output (frame: ServerFrame, seq: Seq): void {
    if (seq > s.lastSeq + 1) return drop('seq_jump')
    const isNew = seq > s.lastSeq
    if (frame.type !== 'message') act('answer', frame, isNew)
    if (!isNew) return
    if (frame.type === 'message') return act('deliver', frame.event!, frame.payload, seq)
    // In the place of an output that is too large for this client (P-50d). One that is given up is
    // in the `gap` of a resume (P-51).
    if (frame.type === 'gap') tell('gap', { from: seq, to: seq })
    handled(seq)
  }

  function handled (seq: Seq): void {
    if (seq !== s.lastSeq + 1) return
    s.lastSeq = seq
    if (!s.isAttached || s.phase === 'detached') return
    if (seq - s.ackedSeq >= ACK_OUTPUTS) acknowledge()
    else if (seq - s.ackedSeq === 1) act('arm', 'ack', ACK_DELAY_MS)
  }

  function refusal (frame: ServerFrame): void {
    const { id, code = '', expected, retryAfterMs } = frame
    if (id === undefined) {
      tell('error', { code, message: String(frame.payload) })
      if (code === 'BAD_FRAME') act('blame')
    } else if (code === 'RESULT_EXPIRED') act('answer', frame, false)
    else if (REFUSALS.includes(code) || retryAfterMs !== undefined) {
      act('refuse', id, clamp(retryAfterMs, expected === undefined ? REFUSAL_DELAY_MS : 0), expected)
    } else act('reject', id, frame)
  }

  /** The tail of a frame that takes the ack along. */
  function takeAck (): string {
    const tail = s.lastSeq > s.ackedSeq ? `,"ack":${s.lastSeq}}` : '}'
    s.ackedSeq = s.lastSeq
    act('disarm', 'ack')
    return tail
  }

  function acknowledge (): void {
    act('save')
    takeAck()
    act('send', `{"type":"ack","seq":${s.lastSeq}}`)
  }

  // From a loss to the next attempt, or the end

  function drop (reason: Reason, code = DETACH_CODE): void {
    act('close', DETACH_CODE)
    lost({ code, reason, action: 'resume' })
  }

  function lost ({ code, reason, action, message }: Loss, retryAfterMs?: Millis): void {
    act('disarm', 'ack')
    act('lose', code)
    if (s.liveAt !== Infinity) {
      if (at.now - s.liveAt >= STABLE_MS) s.briefs = 0
      s.attempts = s.briefs++
      s.liveAt = Infinity
    }
    // Fresh credentials are tried once (P-53a).
    if (DENIED_CODES.includes(code) && !settings.hasStaticToken && s.denials++ === 0) action = 'resume_later'
    if (action === 'stop' || (action === 'new' && !settings.renew)) return end(reason, code === REPLACED_CODE)
    if (!s.isAttached && ++s.failures >= settings.maxAttempts) return end('unreachable')
    const wait = clamp(retryAfterMs, 0)
    // `resume` and `new` mean now, but a server that says so again and again is not believed.
    const backoff = action === 'resume_later' || s.attempts > 0
      ? at.random() * Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** s.attempts)
      : 0
    const retryInMs = wait + Math.max(backoff, at.isOffline ? OFFLINE_BACKOFF_MS : 0)
    s.attempts++
    s.isAttached = false
    s.notBefore = at.now + wait
    act('arm', 'retry', retryInMs)
    const told = at.isOffline && LINE_LOSSES.includes(reason) ? 'offline' : reason
    detached({ code, reason: told, retryInMs, ...(message !== undefined && { message }) })
    if (action === 'new' && s.sessionId !== undefined && !s.isOver) {
      s.isOver = true
      tell('ended', { sessionId: s.sessionId, reason, renewing: true })
    }
  }

  function detached (event: SessionEvents['detached']): void {
    s.told = event
    enter('detached')
    tell('detached', event)
  }

  /** Gives up the connection without a reason to end the session. */
  function pause (reason: Reason): void {
    s.liveAt = Infinity
    s.isAttached = false
    act('close', DETACH_CODE)
    act('disarm', 'retry')
    act('disarm', 'ack')
    act('lose', DETACH_CODE)
    act('save')
    detached({ code: DETACH_CODE, reason, retryInMs: null })
  }

  function end (reason: Reason, isReplaced = false, code: 'SESSION_ENDED' | 'DISPOSED' = 'SESSION_ENDED'): void {
    const isKept = code === 'DISPOSED' || KEPT_ENDINGS.includes(reason)
    act(...(isKept ? ['save'] : ['forget', isReplaced]) as Effect)
    act('leave')
    enter('ended')
    act('endCommands', code, reason)
    if (isReplaced) tell('replaced', { sessionId: s.sessionId })
    else tell('ended', { sessionId: s.sessionId, reason, renewing: false })
  }

  const events: Events = {
    start: attempt,
    connect () {
      if (s.phase === 'detached') attempt()
    },
    detach () {
      if (s.isHeld) return
      s.isHeld = true
      pause('detached_by_client')
    },
    close () {
      // Either would do (P-38); close codes get lost behind proxies, and frames are possible only
      // on an open socket.
      if (s.isAttached) act('send', '{"type":"end"}')
      act('close', 1000)
      end('ended_by_client')
    },
    dispose: () => end('disposed', false, 'DISPOSED'),
    loaded (saved, isFree) {
      s.isLoading = s.isStale = false
      if (saved !== undefined && isFree) join(saved)
      else if (!isFree && s.sessionId !== undefined) {
        // Another tab went on with the session while this page was away, as with one that is
        // duplicated.
        if (!settings.renew) return end('replaced', true)
        over('replaced')
      }
      if (s.phase === 'connecting') begin()
    },
    token (subject) {
      if (s.userId === undefined && subject !== undefined) identify(subject, s.subject)
      s.subject = subject ?? s.subject
    },
    failed (reason, cause) {
      const message = String(cause)
      if (reason === 'token_failed') {
        tell('error', { code: 'TOKEN_FAILED', message: 'There are no credentials to connect with.', cause })
        lost({ code: DETACH_CODE, reason, action: 'resume_later', message })
      } else {
        tell('error', { code: 'HANDSHAKE_INVALID', message: 'No WebSocket takes this address or token.', cause })
        end(reason)
      }
    },
    frame (frame) {
      const { type, seq, payload } = frame
      if (type === 'session_created') created(payload as SessionPayload)
      else if (type === 'session_resumed') resumed(payload as SessionPayload)
      else if (type === 'live') live(true)
      else if (type === 'ping') acknowledge()
      else if (type === 'goodbye') {
        const { code, reason, action, retryAfterMs } = payload as GoodbyePayload
        // What comes after it, if anything, is the close (P-42), which may be slow to arrive or
        // never does.
        act('close', DETACH_CODE)
        lost({ code, reason, action: action ?? closeAction(code) }, retryAfterMs)
      } else if (seq !== undefined) output(frame, seq)
      else if (type === 'error') refusal(frame)
    },
    handled,
    lost: loss => lost(loss),
    transmit (heads) {
      act('save')
      for (const head of heads) act('send', head + takeAck())
    },
    blamed: () => drop('bad_frame', BAD_FRAME_CODE),
    stateLost () {
      s.resumeToken = undefined
      act('close', 1000)
      lost({ code: 1006, reason: 'state_lost', action: 'new' })
    },
    wake (isSure) {
      if (s.phase !== 'detached') return act('probe', isSure)
      if (s.isHeld || at.isOffline) return
      const retryInMs = Math.max(0, s.notBefore - at.now)
      act('arm', 'retry', retryInMs)
      if (retryInMs > 0 && s.told !== undefined) detached({ ...s.told, retryInMs })
    },
    hide () {
      act('release')
      s.isStale = true
      s.isLoading = false
      if (s.isHeld) act('save')
      else pause('page_hidden')
    },
    retry: attempt,
    ack: acknowledge
  }

  return (state, [name, ...args], context) => {
    if (state.phase === 'ended') return { state, effects: [] }
    s = { ...state }
    effects = []
    at = context
    ;(events[name] as (...args: unknown[]) => void)(...args)
    return { state: s, effects }
  }
}
