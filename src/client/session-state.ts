// What the machine of a session knows, hears and does: the state, the events and the effects.
//
// Events and effects are calls written down, `[name, ...arguments]`: events of `Events` below,
// effects of `SessionPort`, which client.ts carries out in order once the state is final. So
// nothing that is told to an application can find a session between two states.

import type { CloseAction } from '../io/protocol/close-codes.js'
import type { Millis, Seq } from '../io/types.js'
import type { ClientState, Reason, SeqRange, SessionEvents } from './api.js'
import { MAX_RETRY_AFTER_MS } from './bounds.js'
import type { AnswerFrame } from './command-frame.js'
import type { Limits } from './command-pace.js'
import type { SavedCommand, SavedSession } from './environment.js'

export interface Settings {
  readonly renew: boolean
  readonly maxAttempts: number
  /** The credentials are always the same, so there is no sense in offering them again. */
  readonly hasStaticToken: boolean
  /** 0 up to, but not including, 1. */
  readonly random: () => number
}

/** How the world is when an event is taken. */
export interface Context { readonly now: Millis, readonly isOffline: boolean }

export interface SessionState extends Settings, Context {
  /** What the latest transition has to have done, in this order. */
  readonly effects: readonly Effect[]
  readonly phase: ClientState
  readonly sessionId?: string | undefined
  readonly userId?: string | undefined
  /**
   * Whom the latest token was issued to, as far as that can be read. It stands for the user until
   * the server names one.
   */
  readonly subject?: string | undefined
  readonly resumeToken?: string | undefined
  readonly limits: Limits
  /** Every output up to it has been handled. */
  readonly lastSeq: Seq
  readonly ackedSeq: Seq
  /** `ended` was told of the session, and the next one is on its way. */
  readonly isOver?: boolean
  /** `detach` was called: only `connect` goes on. */
  readonly isPaused?: boolean
  /** The server gave a session on this connection. */
  readonly isAttached?: boolean
  /**
   * What is saved is to be read, and to be claimed, before the next attempt: at first, and after
   * the page was hidden.
   */
  readonly isStale: boolean
  readonly isLoading?: boolean
  /** Infinity while it is not live. */
  readonly liveAt: Millis
  /**
   * Live connections in a row that did not last, and attempts since the last one; what the back-off
   * grows with.
   */
  readonly unstable: number
  readonly attempts: number
  /** Attempts since the server last gave a session, and how many of them were denied in a row. */
  readonly failures: number
  readonly denials: number
  /** The server asked not to be asked before. */
  readonly notBefore: Millis
  /** What `detached` told last, for when its time changes. */
  readonly told?: SessionEvents['detached']
}

export const INITIAL_STATE: Omit<SessionState, keyof Settings> = {
  now: 0,
  effects: [],
  phase: 'connecting',
  limits: {},
  lastSeq: 0,
  ackedSeq: 0,
  isStale: true,
  liveAt: Infinity,
  unstable: 0,
  attempts: 0,
  failures: 0,
  denials: 0,
  notBefore: 0,
  isOffline: false
}

/** Members of server frames that the client reads (docs/protocol.md section 3.1). */
export interface ServerFrame extends AnswerFrame {
  readonly seq?: Seq
  readonly id?: number
  readonly event?: string
  readonly expected?: number
  readonly retryAfterMs?: Millis
}
export interface SessionPayload {
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
export interface GoodbyePayload {
  readonly code: number
  readonly reason: string
  readonly action?: CloseAction
  readonly retryAfterMs?: Millis
}

export interface Loss {
  readonly code: number
  readonly reason: Reason
  readonly action: CloseAction
  /** What the runtime says of it. */
  readonly message?: string | undefined
}

type TimerName = 'retry' | 'ack'
/** What the machine has done. Each effect sees the state after the whole transition. */
export interface SessionPort {
  open (): void
  send (text: string): void
  expect (heartbeatMs: Millis, canPing: boolean): void
  probe (isSure: boolean): void
  close (code: number): void
  arm (event: TimerName, ms: Millis): void
  disarm (...events: TimerName[]): void
  load (): void
  save (): void
  forget (isReplaced: boolean): void
  claim (sessionId: string): void
  release (): void
  /** Commands: see CommandQueue. */
  flow (limits: Limits): void
  lose (code: number): void
  resume (watermark: number, isLossy: boolean): void
  renew (watermark?: number): void
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
/** Says what has happened. */
export type Emit = (...event: SessionEvent) => void

/**
 * The state that a transition is making: written by it alone, and by nobody once it is returned.
 */
type Writable<T> = { -readonly [K in keyof T]: T[K] }
export type Draft = Writable<Omit<SessionState, 'effects'>> & { effects: Effect[] }

export function act (s: Draft, ...effect: Effect): void {
  s.effects.push(effect)
}

export function tell<K extends keyof SessionEvents> (s: Draft, type: K, event: SessionEvents[K]): void {
  s.effects.push(['tell', type, event] as Effect)
}

export function enter (s: Draft, phase: ClientState): void {
  if (phase !== s.phase) tell(s, 'state', { state: phase, previous: s.phase })
  s.phase = phase
}

/** A time from the wire; `otherwise` for what is none. */
export function clamp (ms: unknown, otherwise: Millis): Millis {
  return typeof ms === 'number' && ms > 0 ? Math.min(ms, MAX_RETRY_AFTER_MS) : otherwise
}
