// The record of one session: everything its owner node knows of it. Plain data, shared by reference
// between those who act on it: the runtime (life), delivery (outputs), committer (what is kept),
// admission (commands), and the gateway, which reads what to send. Fields that a quiet session does
// not need are null until first used. Operators and handlers never see a record: they get views
// (view.ts) and handles (dispatcher).

import type { JsonObject, Millis, Profile, Seq, SessionId, UserId } from '../types.js'
import type { CloseCode } from '../protocol/close-codes.js'
import type { DetachedItem } from './detached.js'
import type { ReplayLog } from './replay-log.js'
import type { Fence, OpenCommand, StoredProgress } from './store.js'
import type { WheelItem } from './timing-wheel.js'

/** The attached connection as far as the session is concerned. */
export interface AttachedConnection {
  /** Highest seq written to the socket by this connection. */
  readonly sentSeq: Seq
  /** Largest output that its client takes, as the text that is sent (P-50); a whole number. */
  readonly maxOutputBytes: number
  /** There is output to send at the end of this turn. */
  wake(): void
  /** Writes what the socket takes, now. */
  flush(): void
  /** Says goodbye and closes; the connection has left the session by then. */
  dismiss(code: CloseCode): void
}

/** What the dispatcher keeps per session while commands run or wait; null when none does. */
export interface CallState {
  /** Accepted and not yet answered. */
  readonly inFlight: number
  isRunning(id: number): boolean
  /**
   * The numbered ones, for a store that keeps what has begun. With `isOver` none begins any more:
   * those that have not may be executed again, whatever they are.
   */
  open(isOver: boolean): OpenCommand[]
  /** The session ended: aborts the signals; what comes later is discarded. */
  abandon(): void
}

/** What the committer keeps per session; null where nothing is committed. */
export interface JournalState {
  /** Known to the store since it was created there; -1 before. */
  fence: Fence
  /** Highest seq that the store has. */
  storedSeq: Seq
  /** Counts what is to be kept, and what of it is kept. */
  version: number
  keptVersion: number
  isRunning: boolean
  /** In the list for the end of this turn, or in that of those to try again. */
  isListed: boolean
  contextChanged: boolean
  accessChanged: boolean
  waiters: JournalWaiter[] | null
  /** Entries of the session's inbox that are among its outputs (S-16). */
  inboxTo: number
  /** Null while this node keeps the session. */
  parting: Parting | null
  /** Null until the session is sent something that does not wait for the store. */
  ahead: AheadState | null
}

/** How far outputs may leave ahead of their commit, and which of them do (ahead.ts). */
export interface AheadState {
  /** Highest seq that the store knows may have been given; 0 where it may have forgotten. */
  reservedSeq: Seq
  /** The output of this seq, or of a higher one, asks for a further reservation. */
  raiseAt: Seq
  /** The last outputs that do not wait, without another one between them. */
  runFrom: Seq
  runTo: Seq
  /** Among those that are kept a little later. */
  isListed: boolean
}

/** How a session of a shared store is given up (S-13). */
export interface Parting {
  /** `idle`: when its commands have ended. `now`: whatever runs. `gone`: the store was told. */
  stage: 'idle' | 'now' | 'gone'
  /** What the store is told last; null until then. Its commands are abandoned after that. */
  progress: StoredProgress | null
  /** Called when the store has answered, or when the session is kept after all. */
  readonly settled: (() => void)[]
}

export interface JournalWaiter {
  readonly version: number
  readonly settle: (isKept: boolean) => void
}

export interface SessionRecord extends WheelItem, DetachedItem {
  readonly id: SessionId
  readonly userId: UserId
  readonly profile: Profile
  /** Wall clock, for people. */
  readonly createdAt: Millis
  /** Creation order on this node; the keyset of listings. */
  ordinal: number
  /** Continuity of the numbering; a store that cannot prove it gives another one. */
  readonly generation: string
  ended: boolean
  /**
   * Whether its client has ever sent a frame; until then there is no sign that the client learned
   * of it (P-36b).
   */
  heard: boolean
  /** Monotonic, whole ms: an accepted command or a dispatched output (P-40). */
  lastActiveAt: Millis
  /** Monotonic; NEVER while attached, and for a session that never was. */
  detachedAt: Millis
  /** Count of lifecycle events. */
  revision: number
  /** Frozen. */
  context: JsonObject
  /** Of the context as JSON. */
  contextBytes: number
  /** Of the latest handshake's credentials; frozen. */
  labels: JsonObject
  connection: AttachedConnection | null
  log: ReplayLog | null
  /** Highest seq that may leave the node: what the store has kept, or may be told later (S-22). */
  sendableSeq: Seq
  journal: JournalState | null
  calls: CallState | null
  /**
   * Largest output it is given (P-50): the server's limit, or less if the client of its latest
   * connection asked for less.
   */
  maxOutputBytes: number
  /** The latest fan-out it was given, or that came before it (fan-out.ts). */
  fanOut: number
  /** Count of handshakes that were given the session; only the latest may attach. */
  claims: number
  /**
   * SHA-256 of the resume token in force, and of those before it that are still valid (P-28), with
   * spaces between them.
   */
  tokenHash: string | null
  previousTokenHash: string | null
  /**
   * Token bucket of commands (P-46): credit in thousandths of a command, so that it stays a whole
   * number; and when it was last filled.
   */
  rateCredit: number
  rateFilledAt: Millis
  /** Refusals for rate since the last accepted command. */
  rateRefusals: number
  /** Handle given to command handlers, made for the first command. */
  handle: object | null
}

/**
 * No time at all; below every time that a session restored after 24 days may have. A whole number,
 * which V8 keeps in the record itself.
 */
export const NEVER: Millis = -2_147_483_648

export interface NewRecord {
  id: SessionId
  userId: UserId
  profile: Profile
  createdAt: Millis
  generation: string
  now: Millis
  context: JsonObject
  contextBytes: number
  labels: JsonObject
  journal: JournalState | null
  maxOutputBytes: number
  fanOut: number
}

/** The one place that makes records, so that all have one hidden class. */
export function createRecord (from: NewRecord): SessionRecord {
  return {
    id: from.id,
    userId: from.userId,
    profile: from.profile,
    createdAt: from.createdAt,
    ordinal: 0,
    generation: from.generation,
    ended: false,
    heard: false,
    lastActiveAt: from.now,
    detachedAt: NEVER,
    revision: 0,
    context: from.context,
    contextBytes: from.contextBytes,
    labels: from.labels,
    connection: null,
    log: null,
    sendableSeq: 0,
    journal: from.journal,
    calls: null,
    maxOutputBytes: from.maxOutputBytes,
    fanOut: from.fanOut,
    claims: 0,
    tokenHash: null,
    previousTokenHash: null,
    rateCredit: -1,
    rateFilledAt: from.now,
    rateRefusals: 0,
    handle: null,
    wheelNext: null,
    wheelPrevious: null,
    wheelBucket: -1,
    detachedNext: null,
    detachedPrevious: null,
    userDetachedNext: null,
    userDetachedPrevious: null
  }
}

/** Highest seq given. */
export function lastSeqOf (session: SessionRecord): Seq {
  return session.log === null ? 0 : session.log.lastSeq
}

/** Highest numbered command accepted. */
export function watermarkOf (session: SessionRecord): number {
  return session.log === null ? 0 : session.log.watermark
}
