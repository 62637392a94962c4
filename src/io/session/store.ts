// The port behind which sessions are kept. A session that a node owns lives in that node's memory
// as one SessionRecord and is found through its directory; the store is the journal behind these
// records. It is given values, never records, so a retry writes what was meant when it was first
// tried. Nothing is read from a store per command.
//
// Rules for whoever writes a store; the suite contract/session-store.ts holds each store to them.
// S-1  `create` keeps a new session, or says why not. An id that is known, also by a tombstone, is
//      `exists`.
// S-2  `commit` resolves with `kept` only when the whole batch is kept as the traits say. No output
//      leaves the node before.
// S-3  A write whose fence is not the session's is `fenced`, and one for a session that is not
//      there is `missing`. Nothing of it is kept.
// S-4  `end` takes the session away and keeps its tombstone, in one step. A second `end` is
//      `missing`.
// S-5  `commit` compares and appends: `prevSeq` is the highest seq that the store has. A batch
//      whose last seq the store already has is `kept` (it was, and its answer was lost); its
//      progress replaces the stored one. Any other is a `gap`, and nothing is kept.
// S-6  The commits of one session take effect in the order of the calls.
// S-7  `open` gives back each session as its last kept batch left it, or a later one whose answer
//      was lost; never a part of a batch.
// S-8  A store that fails answers `unavailable`; it neither throws nor rejects. Such a write may
//      have been kept all the same, and a retry is safe by S-5. `health` is not `ok` from then on,
//      until writes are kept again.
// S-9  When `close` has resolved, everything kept is where the traits say. Later writes are
//      `unavailable`.
// S-22 An owner may give seqs up to the `reservedSeq` of its last kept batch before they are kept;
//      a store that was told a higher one before may keep that. Whoever has the session after an
//      owner that has died cannot know which of them a client has seen, so they become `gap`
//      outputs before anything else is numbered. `open` gives the session as it is, and the owner
//      fills it (stored.ts); a shared store does where an ownership ends without a `release`.

import type {
  ByteString, Clock, EndReason, JsonObject, Log, MaybePromise, Millis, Profile, Seq, SessionId, UserId
} from '../types.js'

export interface StoreTraits {
  /**
   * What a kept session survives: nothing, the death of the process, of the host, of any one node.
   */
  readonly survives: 'nothing' | 'process' | 'host' | 'node'
  /** Whether several nodes see the same sessions. */
  readonly shared: boolean
}

/**
 * `ok`: writes are kept. `degraded`: they are not at the moment, and the store tries again by
 * itself. `fenced`: this process may not write any more until somebody mends the store or starts
 * the process again.
 */
export type StoreHealth = 'ok' | 'degraded' | 'fenced'

/**
 * Ownership of a session: a number that rises with each claim. A write with another one than the
 * session's is refused (S-3).
 */
export type Fence = number

/** Milliseconds since 1970-01-01 UTC; monotonic times mean nothing to another process. */
export type WallMillis = Millis

export interface StoredOutput {
  /** The JSON text of the output without the leading `{"seq":<n>`, as UTF-8 bytes (see Output). */
  readonly tail: ByteString
  /** The numbered command that this answers; 0 for anything else. */
  readonly commandId: number
}

/** A command that was accepted and has no answer yet. */
export interface OpenCommand {
  readonly id: number
  /** It may be executed again; any other is answered OUTCOME_UNKNOWN after its node has died. */
  readonly idempotent: boolean
}

/** What changes with nearly every commit. */
export interface StoredProgress {
  /** Highest seq given, but for what `reservedSeq` says. */
  readonly lastSeq: Seq
  /** Highest seq that may have been given ahead of a batch (S-22); absent if it is `lastSeq`. */
  readonly reservedSeq?: Seq
  /**
   * Every output up to this one is released: acknowledged, or dropped. Those above it are held,
   * without a hole.
   */
  readonly releasedSeq: Seq
  /** Highest seq acknowledged. */
  readonly ackedSeq: Seq
  /** Outputs dropped unacknowledged. */
  readonly dropped: number
  /** Highest numbered command accepted (P-11). */
  readonly watermark: number
  readonly open: readonly OpenCommand[]
  readonly revision: number
  readonly lastActiveAt: WallMillis
  readonly detachedAt: WallMillis | null
  /** Whether its client has ever sent a frame (P-36b). */
  readonly heard: boolean
  /** What speaks against the oldest output held, while something does (P-51). */
  readonly blame?: StoredBlame
}

/** Whole numbers; see ReplayLog. */
export interface StoredBlame {
  readonly strikes: number
  readonly suspicion: number
  readonly suspectedTo: Seq
}

/** Who may take the session up. */
export interface StoredAccess {
  readonly labels: JsonObject
  /**
   * SHA-256 of the resume token in force, and of those before it that are still valid (P-28): up
   * to four, with spaces between them.
   */
  readonly tokenHash: string | null
  readonly previousTokenHash: string | null
}

/** A session as it is kept. Plain JSON but for `outputs`, whose tails are strings of bytes. */
export interface StoredSession {
  readonly id: SessionId
  readonly userId: UserId
  readonly profile: Profile
  readonly createdAt: WallMillis
  /**
   * Continuity of the numbering: whoever cannot prove that seqs go on without a hole gives the
   * session another one.
   */
  readonly generation: string
  readonly context: JsonObject
  readonly access: StoredAccess
  readonly progress: StoredProgress
  /** Those from `progress.releasedSeq + 1` to `progress.lastSeq`. */
  readonly outputs: readonly StoredOutput[]
}

/** What is left of an ended session: for operators, and for P-33. */
export interface StoredTombstone {
  readonly id: SessionId
  readonly userId: UserId
  readonly reason: EndReason
  readonly endedAt: WallMillis
  readonly lastCommand: number
  readonly note?: string
  readonly tokenHash: string | null
  readonly previousTokenHash: string | null
}

/** One write. Everything in it is kept, or nothing. */
export interface CommitBatch {
  readonly id: SessionId
  readonly fence: Fence
  /** Highest seq of the last batch that was kept; 0 before the first. */
  readonly prevSeq: Seq
  /**
   * The outputs since then that are still held; they end with `progress.lastSeq`. Fewer than
   * `lastSeq - prevSeq` where some were dropped already; `progress.releasedSeq` says so.
   */
  readonly outputs: readonly StoredOutput[]
  readonly progress: StoredProgress
  /** Present when it has changed since the last batch. */
  readonly context?: JsonObject
  /** Present when it has changed since the last batch. */
  readonly access?: StoredAccess
}

export type CreateResult = { readonly fence: Fence } | 'exists' | 'user_quota' | 'full' | 'unavailable'
/** `gap`: the store ends with this seq, and the owner sends what is missing from memory. */
export type CommitResult = 'kept' | 'fenced' | 'missing' | 'unavailable' | { readonly gap: Seq }
export type EndResult = 'ended' | 'fenced' | 'missing' | 'unavailable'

/** What a store tells its owner. */
export interface StoreHooks {
  /** A session that this node owns from its former life. Called during `open` only. */
  restore(session: StoredSession, fence: Fence): void
  /** A tombstone that is still of interest. Called during `open` only. */
  bury(tombstone: StoredTombstone): void
  /** `health()` has changed; `error` says why, for operators. */
  healthChanged(health: StoreHealth, error?: Error): void
}

export interface SessionStore {
  readonly traits: StoreTraits
  /**
   * The first call. Rejects where the store cannot be used at all, with a sentence that says what
   * to do.
   */
  open(hooks: StoreHooks): Promise<void>
  /** The last call. */
  close(): Promise<void>
  /** Asked before each command; it costs nothing. */
  health(): StoreHealth
  /** An id for a session of this user; default 122 random bits. */
  readonly newId?: (userId: UserId) => SessionId
  create(session: StoredSession): MaybePromise<CreateResult>
  /**
   * Not called where nothing survives, nor for sessions of the basic profile, which nobody can
   * resume.
   */
  commit(batch: CommitBatch): Promise<CommitResult>
  end(id: SessionId, fence: Fence, tombstone: StoredTombstone): MaybePromise<EndResult>
}

/** What a node knows of itself, for a store that has to judge sessions without their owner. */
export interface StoreSurroundings {
  readonly clock: Clock
  readonly log: Log
  readonly limits: {
    readonly resumeWindowMs: Millis
    readonly idleTimeoutMs: Millis
    /** 0: no limit. */
    readonly maxSessionsPerUser: number
    readonly outboxMessages: number
    readonly outboxBytes: number
  }
  /** A user without a quota, who is everybody. */
  readonly unlimitedUserId?: UserId
  /** What the node says of itself to others; asked again and again. */
  readonly describe: () => JsonObject
}

/** Makes a store for a node; nothing is connected or opened yet. */
export type CreateStore = (surroundings: StoreSurroundings) => SessionStore
