// The port behind which sessions are kept. A session that a node owns lives in that node's memory as one SessionRecord, found
// through its directory (directory.ts) and changed in place; the store is the journal behind these records. Nothing is read from
// a store per command.
//
// Rules for whoever writes a store; test/contract/session-store.ts holds each to them. Numbers are not reused: S-5 to S-7 are
// D-3 to D-5 of the directory now.
// S-1  `add` keeps a new session. One that it cannot keep is refused, and does not come to be.
// S-2  `commit` MUST NOT settle before everything up to the record's `lastSeq`, its watermark and its context are kept as the
//      traits say. No output leaves the node before. It returns undefined when that is so on return; nothing is awaited then.
// S-3  `commit` of a session that has ended, or that another epoch has replaced, rejects with STORE_UNAVAILABLE and keeps
//      nothing (fencing).
// S-4  `remove` forgets the session and keeps its tombstone, in one step. A second `remove` does nothing.
// S-8  A failing store rejects or throws a HoldfastError; it never loses silently.
// A crash between two calls leaves what the last settled `commit` promised.

import type { MaybePromise } from '../types.js'
import type { KeptTombstone } from './directory.js'
import type { SessionRecord } from './record.js'

export interface StoreTraits {
  /** What a kept session survives: nothing, the death of the process, of the host, of any one node. */
  readonly survives: 'nothing' | 'process' | 'host' | 'node'
  /** Whether several nodes see the same sessions. */
  readonly shared: boolean
}

export interface SessionStore {
  readonly traits: StoreTraits
  add(record: SessionRecord): MaybePromise<void>
  commit(record: SessionRecord): MaybePromise<void>
  remove(record: SessionRecord, tombstone: KeptTombstone): MaybePromise<void>
  close(): Promise<void>
}
