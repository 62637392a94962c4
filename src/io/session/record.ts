// The record of one session: everything its owner node knows of it. Plain data, shared by reference between the manager, the
// directory that finds it, the store that keeps it, and the gateway, which reads what to send. Fields that a quiet session does not need are null until first used.
// Operators and handlers never see a record: they get views (manager.ts) and handles (dispatcher).

import type { JsonObject, Millis, Profile, Seq, SessionId, UserId } from '../types.js'
import type { CloseCode } from '../protocol/close-codes.js'
import type { DetachedItem } from './detached.js'
import type { ReplayLog } from './replay-log.js'
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
  /** The session ended: aborts the signals; what comes later is discarded. */
  abandon(): void
}

export interface SessionRecord extends WheelItem, DetachedItem {
  readonly id: SessionId
  readonly userId: UserId
  readonly profile: Profile
  /** Wall clock, for people. */
  readonly createdAt: Millis
  /** Creation order on this node; the keyset of listings. */
  ordinal: number
  /** Identity of one life of the log; a store that cannot prove continuity changes it. */
  readonly epoch: string
  ended: boolean
  /** Whether its client has ever sent a frame; until then there is no sign that the client learned of it (P-36b). */
  heard: boolean
  /** Monotonic, whole ms: an accepted command or a dispatched output (P-40). */
  lastActiveAt: Millis
  /** Monotonic; -1 while attached, and for a session that never was. */
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
  /** Highest seq the store has kept; nothing above it leaves the node. */
  keptSeq: Seq
  calls: CallState | null
  /** Largest output it is given (P-50): the server's limit, or less if the client of its latest connection asked for less. */
  maxOutputBytes: number
  /** The latest fan-out it was given, or that came before it (fan-out.ts). */
  fanOut: number
  /** SHA-256 of the resume token in force, and of the one before it while it is still valid (P-28). */
  tokenHash: string | null
  previousTokenHash: string | null
  /** Token bucket of commands (P-46): credit in thousandths of a command, so that it stays a whole number; and when it was last filled. */
  rateCredit: number
  rateFilledAt: Millis
  /** Refusals for rate since the last accepted command. */
  rateRefusals: number
  /** Handle given to command handlers, made for the first command. */
  handle: object | null
}

/** Highest seq given. */
export function lastSeqOf (session: SessionRecord): Seq {
  return session.log === null ? 0 : session.log.lastSeq
}

/** Highest numbered command accepted. */
export function watermarkOf (session: SessionRecord): number {
  return session.log === null ? 0 : session.log.watermark
}
