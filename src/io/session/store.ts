// The port behind which sessions are kept. A session that a node owns lives in that node's memory as one SessionRecord, which the manager changes in
// place; the store is the directory of these records (find, list, count, tombstones) and the journal behind them (commit). There is no read per command in any store.
//
// Rules for whoever writes a store; test/contract/session-store.ts holds each to them:
// S-1  `add` makes the record findable by id, by user and in listings, in order of creation, and gives it an ordinal above all before it.
// S-2  `commit` MUST NOT settle before everything up to the record's `lastSeq`, its watermark and its context are kept as the traits say. The
//      manager lets no output leave the node before. It returns undefined when that is so on return; nothing is awaited then.
// S-3  `commit` of a record that was removed, or that another epoch has replaced, rejects with STORE_UNAVAILABLE and keeps nothing (fencing).
// S-4  `remove` takes the record out of every index and leaves its tombstone, in one step. A second `remove` does nothing.
// S-5  Tombstones live for `tombstoneTtlMs`, at most `maxTombstones` of them; the oldest go first.
// S-6  A page of `list` follows the cursor exactly: a session that exists during the whole walk is seen once, whatever comes and goes meanwhile.
// S-7  `list` looks at no more than `scanLimit` records a call; a page may be short, or empty, and still have a cursor.
// S-8  A failing store rejects or throws a HoldfastError; it never loses silently.
// A crash between two calls leaves what the last settled `commit` promised.

import type { MaybePromise, Millis, SessionId, SessionState, Tombstone, UserId } from '../types.js'
import type { SessionRecord } from './record.js'

export interface StoreTraits {
  /** What a kept session survives: nothing, the death of the process, of the host, of any one node. */
  readonly survives: 'nothing' | 'process' | 'host' | 'node'
  /** Whether several nodes see the same sessions. */
  readonly shared: boolean
}

export interface StoreQuery {
  readonly state?: Exclude<SessionState, 'ended'>
  readonly userId?: UserId
  /** Wall clock, exclusive. */
  readonly createdBefore?: Millis
  readonly createdAfter?: Millis
  /** Monotonic: only sessions whose last activity is before it. */
  readonly activeBefore?: Millis
  readonly newestFirst: boolean
  /** 1 to 500. */
  readonly limit: number
  /** `nextCursor` of the page before; opaque outside the store. */
  readonly cursor?: string
}

export interface StorePage {
  readonly records: SessionRecord[]
  /** Null on the last page. */
  readonly nextCursor: string | null
}

/** What a tombstone keeps beside what operators see, for P-33. */
export interface StoredTombstone extends Tombstone {
  readonly tokenHash: string | null
  readonly previousTokenHash: string | null
  /** Monotonic. */
  readonly buriedAt: Millis
}

export interface SessionStore {
  readonly traits: StoreTraits
  add(record: SessionRecord): MaybePromise<void>
  /** The record of a session this node owns. */
  get(id: SessionId): SessionRecord | undefined
  /** Sessions of a user; empty when there is none. */
  ofUser(userId: UserId): Iterable<SessionRecord>
  countOfUser(userId: UserId): number
  /** Every record, oldest first. A record removed meanwhile is not given; one added meanwhile may be. */
  all(): Iterable<SessionRecord>
  count(): number
  commit(record: SessionRecord): MaybePromise<void>
  remove(record: SessionRecord, tombstone: StoredTombstone): MaybePromise<void>
  tombstone(id: SessionId): StoredTombstone | undefined
  /** @throws INVALID_CURSOR */
  list(query: StoreQuery): StorePage
  close(): Promise<void>
}
