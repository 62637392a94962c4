// What a store adds where several nodes see the same sessions. One node owns a session at a time
// and alone gives seqs; the store says who, in the same step that writes. A session without a
// connection may be ownerless: whichever node its client comes back to claims it.
//
// Rules beside S-1 to S-9 of store.ts; test/stores/redis holds the Redis store to them.
// S-10 `claim` checks the token, rotates it (P-28), takes the ownership and reads the session in
//      one step. Of two claims of one ownership one wins, and the other is `moved`. What the former
//      owner writes afterwards is `fenced`.
// S-11 `claim` of a session that another node owns asks that node to release it first, and takes it
//      after `handOffMs` at the latest: a client with a valid token outranks an owner that does not
//      answer. Nobody is asked for a wrong token.
//      A node may not have noticed that it lost a session. So a token that its own record does not
//      know is put to `claim` before the client is told `unknown`; where the claim succeeds, the
//      record of the lost ownership is `evicted` first.
// S-12 A claim whose `lastSeen` is above the session's highest seq ends the session as `state_lost`
//      (P-34). An output that a client has seen is never numbered again.
// S-13 `release` keeps the last batch and gives the ownership up, in one step. A release that is
//      `fenced` needs nothing more.
// S-14 An ownerless session ends at its deadline, by the clock of the store alone. Whoever comes
//      later finds its tombstone, also before `tick` has found the session.
// S-15 `push` is kept before it answers, whoever owns the session and whether or not that node
//      lives. A push id is taken once in ten minutes. The owner alone numbers what is pushed to an
//      owned session.
// S-16 A push is in the inbox until a batch of its owner says that it was taken (`inboxTo`). When
//      the session changes hands, what is in its inbox becomes outputs first: a session is claimed
//      with an empty inbox, numbered from 1 on.
// S-17 A node that cannot renew its lease is not `ok` before another node may take it for dead.
//      When it was taken for dead, each of its sessions is `evicted`, and it goes on under a new
//      name.
// S-18 Sessions of a dead node become ownerless with their deadline, counted from its burial; those
//      of the basic profile end.
// S-19 What the store ends by itself is told to one node, as `ended`; never twice, and not at all
//      if that node dies in between.
// S-20 Calls never pile up: above a bound of calls and bytes they answer `unavailable` at once.
// S-21 A store that came back empty is given owned sessions again. Where a write of the owner is
//      `missing` and the store has no tombstone either, the owner calls `create` with the session
//      as it is in memory; outputs that wait for the batch are kept with it. Of two that believe to
//      be the owner the second finds that it `exists`, and has lost it.

import type {
  ByteString, EndReason, JsonObject, JsonValue, Millis, Profile, Seq, SessionId, SessionState, UserId
} from '../types.js'
import type {
  CommitBatch, CommitResult, Fence, SessionStore, StoredAccess, StoredProgress, StoredSession,
  StoredTombstone, StoreHooks, WallMillis
} from './store.js'

/** Name of one life of a node. A process that was taken for dead goes on under another one. */
export type NodeId = string

export interface ClaimRequest {
  readonly id: SessionId
  /** A session of another user is `unknown` (P-29). */
  readonly userId: UserId
  /**
   * SHA-256 of the token that was presented. It stays valid until a batch says otherwise (P-28a).
   */
  readonly tokenHash: string
  /** SHA-256 of the token that the client is given now. */
  readonly nextTokenHash: string
  readonly lastSeen: Seq
  /** Those of the new credentials, which replace the former ones. */
  readonly labels: JsonObject
}

export interface ClaimedSession {
  /** With both hashes already rotated. `detachedAt` is null from now on. */
  readonly session: StoredSession
  readonly fence: Fence
  /** The node that owned it until now; null for an ownerless session. */
  readonly from: NodeId | null
}

/**
 * `unknown`: no such session, a wrong token, or another user's (P-33a). `ended`: for a holder of
 * the token. `moved`: another node won; the client comes back and finds it there. `unavailable`:
 * the claim may have taken effect all the same, and the token that was presented is still valid.
 */
export type ClaimResult = ClaimedSession | { readonly ended: StoredTombstone } | 'unknown' | 'moved' | 'unavailable'

/** What becomes of a released session that nobody claims. */
export interface Deadline {
  /** From the step that releases it. */
  readonly keepForMs: Millis
  readonly reason: Extract<EndReason, 'idle' | 'resume_window'>
}

export interface PushMessage {
  /**
   * Chosen by the sender for repeating the push; null for one that is not repeated. At most 128
   * characters.
   */
  readonly pushId: string | null
  /** As in StoredOutput. */
  readonly tail: ByteString
}

/**
 * `seq`: an ownerless session has it under this seq. `owner`: it is in the inbox, and that node was
 * told. `full`: the inbox takes no more; the owner is behind or gone.
 */
export type PushResult =
  { readonly seq: Seq } | { readonly owner: NodeId } | 'duplicate' | 'full' | 'missing' | 'unavailable'

export interface InboxEntry {
  /** 1-based number in the session's inbox since it was created or claimed. */
  readonly number: number
  readonly tail: ByteString
}

export type InboxResult = readonly InboxEntry[] | 'fenced' | 'missing' | 'unavailable'

/** A batch of a session that may have an inbox. */
export interface SharedBatch extends CommitBatch {
  /**
   * Every entry up to this one is among the outputs so far; 0 before the first. Absolute, so a
   * retry takes nothing twice.
   */
  readonly inboxTo: number
}

/** A session as operators see it, wherever it is. */
export interface StoredSummary extends Omit<StoredSession, 'outputs' | 'access'> {
  readonly labels: StoredAccess['labels']
  readonly progress: StoredProgress
  /** Null for an ownerless session. */
  readonly owner: NodeId | null
  readonly outboxMessages: number
  readonly outboxBytes: number
}

export interface StoreListQuery {
  /** `detached`: without an owner, or kept by its owner without a connection. */
  readonly state?: Exclude<SessionState, 'ended'>
  readonly userId?: UserId
  readonly nodeId?: NodeId
  /** Exclusive. */
  readonly createdBefore?: WallMillis
  readonly createdAfter?: WallMillis
  /** Only sessions whose last activity is before it. */
  readonly activeBefore?: WallMillis
  readonly newestFirst: boolean
  /** 1 to 500. */
  readonly limit: number
  /** Most bytes of contexts on the page, but for a first one that alone has more; default 1 MiB. */
  readonly maxContextBytes?: number
  /** `nextCursor` of the page before; opaque outside the store. */
  readonly cursor?: string
}

/**
 * In order of (createdAt, id). A session that exists during the whole walk is seen once, whatever
 * comes and goes.
 */
export interface StorePage {
  readonly sessions: StoredSummary[]
  /** Null on the last page. */
  readonly nextCursor: string | null
  /**
   * It has `limit` sessions, or contexts up to the bound. False for the last page, and where the
   * filter matched little.
   */
  readonly isFull: boolean
}

export interface StoreCounts {
  readonly total: number
  readonly ownerless: number
  readonly byNode: Readonly<Record<NodeId, number>>
}

export interface StoreNode {
  readonly nodeId: NodeId
  /** What the node says of itself; JSON of its `describe`. */
  readonly info: JsonObject
  /** Until then nobody takes it for dead, by the clock of the store. */
  readonly leaseUntil: WallMillis
}

export interface SharedStoreHooks extends StoreHooks {
  /**
   * The inbox of an owned session has something new; read it with `inbox`. May be told more than
   * once.
   */
  doorbell(id: SessionId): void
  /**
   * Another node has a client for this session: finish what runs if that is short, commit,
   * `release`. The node waits for the promise, but not for long (S-11). Not called for sessions
   * that the manager has not got any more.
   */
  handOff(id: SessionId, fence: Fence): Promise<void>
  /**
   * The session is no longer this node's: drop it, close its connection, write nothing. With a
   * tombstone it has ended; without one another node has it, or the store cannot say. A record with
   * a higher fence is not meant.
   */
  evicted(id: SessionId, fence: Fence, tombstone: StoredTombstone | null): void
  /** The store has ended an ownerless session. */
  ended(tombstone: StoredTombstone, profile: Profile, revision: number): void
  /** What another node sent with `tell`. */
  told(topic: string, body: JsonValue, from: NodeId): void
}

/** `owned`: it has an owner, who alone changes it. `changed`: the context is another one now. */
export type ReplaceResult = 'kept' | 'changed' | 'owned' | 'missing' | 'unavailable'

export type TerminateResult = { readonly ended: StoredTombstone } | 'missing' | 'unavailable'

export interface SharedSessionStore extends SessionStore {
  /** This life's name; changes when the node was taken for dead. */
  readonly nodeId: NodeId
  open(hooks: SharedStoreHooks): Promise<void>
  /** A batch without `inboxTo` has taken nothing since the one before it. */
  commit(batch: CommitBatch | SharedBatch): Promise<CommitResult>
  claim(request: ClaimRequest): Promise<ClaimResult>
  release(batch: CommitBatch | SharedBatch, deadline: Deadline): Promise<CommitResult>
  push(id: SessionId, message: PushMessage): Promise<PushResult>
  /** What an owned session was pushed after the entry `after`, oldest first; at most 100. */
  inbox(id: SessionId, fence: Fence, after: number): Promise<InboxResult>
  /** Replaces the context of an ownerless session, where it is still `former`. */
  replaceContext(id: SessionId, former: JsonObject, next: JsonObject): Promise<ReplaceResult>
  /** Ends a session wherever it is; its owner is told. A second one is `missing`. */
  terminate(id: SessionId, reason: EndReason, note?: string): Promise<TerminateResult>
  find(id: SessionId): Promise<StoredSummary | StoredTombstone | 'missing' | 'unavailable'>
  /** @throws INVALID_CURSOR */
  list(query: StoreListQuery): Promise<StorePage | 'unavailable'>
  count(): Promise<StoreCounts | 'unavailable'>
  /** Those whose lease is not over. */
  nodes(): Promise<readonly StoreNode[] | 'unavailable'>
  /** Sends something to another node, at most once; false where nobody listens. */
  tell(nodeId: NodeId, topic: string, body: JsonValue): Promise<boolean>
  /**
   * What is due: the lease, burials, deadlines, sessions to look after. Call it about once a
   * second; a call while one is under way joins it. It never rejects.
   */
  tick(): Promise<void>
}

/** Whether a store is shared, for callers that hold either. */
export function isShared (store: SessionStore): store is SharedSessionStore {
  return store.traits.shared
}
