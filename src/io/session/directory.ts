// This node's sessions: by id, by user, in order of creation, and for a while what is left of the
// ended ones. Synchronous, and the same whatever store is behind it; a store is asked only to keep
// what happens (store.ts).
//
// Creation order is a list of short sorted blocks: appending, removing and seeking cost a binary
// search, however many sessions there are, and a page never copies the whole.
//
// Invariants, held by test/io/session/directory.test.ts:
// D-1  An added record is found by id, by user and in listings, in order of creation; its ordinal
//      is above all before it.
// D-2  `remove` takes the record out of every index and leaves its tombstone, in one step. A second
//      `remove` does nothing.
// D-3  A tombstone lives for `tombstoneTtlMs`; there are at most `maxTombstones`, and the oldest go
//      first.
// D-4  A page follows the cursor exactly: a session that exists during the whole walk is seen once,
//      whatever comes and goes.
// D-5  A page looks at no more than `scanLimit` records; it may be short, or empty, and still have
//      a cursor.
// D-6  A page holds no more contexts than are printed in one piece; it may be short for that as
//      well, but never empty.

import { HoldfastError } from '../errors.js'
import { MAX_JSON_BYTES } from '../json.js'
import type { Clock, Millis, SessionId, SessionState, Tombstone, UserId } from '../types.js'
import type { SessionRecord } from './record.js'

export interface DirectoryQuery {
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
  /** Most bytes of contexts on the page, but for a first one that alone has more; default 1 MiB. */
  readonly maxContextBytes?: number
  /** `nextCursor` of the page before; opaque outside the directory. */
  readonly cursor?: string
}

export interface DirectoryPage {
  readonly records: SessionRecord[]
  /** Null on the last page. */
  readonly nextCursor: string | null
  readonly contextBytes: number
  /**
   * It has `limit` records, or contexts up to the bound. False for the last page, and after
   * `scanLimit`.
   */
  readonly isFull: boolean
}

/** What a tombstone keeps beside what operators see, for P-33. */
export interface KeptTombstone extends Tombstone {
  readonly tokenHash: string | null
  readonly previousTokenHash: string | null
  /** Monotonic. */
  readonly buriedAt: Millis
}

export interface Directory {
  add(record: SessionRecord): void
  get(id: SessionId): SessionRecord | undefined
  /** Sessions of a user; empty when there is none. */
  ofUser(userId: UserId): Iterable<SessionRecord>
  countOfUser(userId: UserId): number
  /**
   * Every record, oldest first. A record removed meanwhile is not given; one added meanwhile may
   * be.
   */
  all(): Iterable<SessionRecord>
  count(): number
  remove(record: SessionRecord, tombstone: KeptTombstone): void
  /** Takes the record out, without a tombstone: the session lives on elsewhere. */
  drop(record: SessionRecord): void
  /** Remembers a session that ended in a former life of this node. */
  bury(tombstone: KeptTombstone): void
  tombstone(id: SessionId): KeptTombstone | undefined
  /** @throws INVALID_CURSOR */
  list(query: DirectoryQuery): DirectoryPage
}

export interface DirectoryOptions {
  clock: Clock
  /** How long an ended session answers 410; default 3,600,000. */
  tombstoneTtlMs?: Millis
  /** Bounds what a churn of short sessions may cost; default 10,000. */
  maxTombstones?: number
  /** Records a listing may look at per page; default 10,000, about a millisecond. */
  scanLimit?: number
}

const BLOCK_SIZE = 512

export function createDirectory (options: DirectoryOptions): Directory {
  const { clock, tombstoneTtlMs = 3_600_000, maxTombstones = 10_000, scanLimit = 10_000 } = options
  const byId = new Map<SessionId, SessionRecord>()
  const byUser = new Map<UserId, Set<SessionRecord>>()
  const tombstones = new Map<SessionId, KeptTombstone>()
  /**
   * Tombstones in order of burial from `eldest` on. The Map alone would not do: whoever deletes its
   * first entry again and again walks over the holes.
   */
  const burials: KeptTombstone[] = []
  let eldest = 0
  /** Sorted by ordinal, within a block and from block to block; no block is empty. */
  const blocks: SessionRecord[][] = []
  let lastOrdinal = 0

  function bury (tombstone: KeptTombstone): void {
    tombstones.set(tombstone.id, tombstone)
    burials.push(tombstone)
    for (; eldest < burials.length; eldest++) {
      const oldest = burials[eldest] as KeptTombstone
      if (tombstones.size <= maxTombstones && clock.now() - oldest.buriedAt <= tombstoneTtlMs) break
      tombstones.delete(oldest.id)
    }
    if (eldest * 2 > burials.length && eldest > maxTombstones) {
      burials.splice(0, eldest)
      eldest = 0
    }
  }

  function unlist (record: SessionRecord): void {
    const b = blockOf(blocks, record.ordinal)
    const block = blocks[b] as SessionRecord[]
    block.splice(firstAtOrAbove(block, record.ordinal), 1)
    if (block.length === 0) blocks.splice(b, 1)
  }

  function drop (record: SessionRecord): boolean {
    if (byId.get(record.id) !== record) return false
    byId.delete(record.id)
    const ofUser = byUser.get(record.userId)
    ofUser?.delete(record)
    if (ofUser?.size === 0) byUser.delete(record.userId)
    unlist(record)
    return true
  }

  return {
    add (record) {
      record.ordinal = ++lastOrdinal
      byId.set(record.id, record)
      const ofUser = byUser.get(record.userId)
      if (ofUser === undefined) byUser.set(record.userId, new Set([record]))
      else ofUser.add(record)
      const last = blocks.at(-1)
      if (last === undefined || last.length === BLOCK_SIZE) blocks.push([record])
      else last.push(record)
    },

    get: id => byId.get(id),
    ofUser: userId => byUser.get(userId)?.values() ?? [],
    countOfUser: userId => byUser.get(userId)?.size ?? 0,
    all: () => byId.values(),
    count: () => byId.size,

    remove (record, tombstone) {
      if (drop(record)) bury(tombstone)
    },

    drop,
    bury,

    tombstone (id) {
      const found = tombstones.get(id)
      return found !== undefined && clock.now() - found.buriedAt <= tombstoneTtlMs ? found : undefined
    },

    list (query) {
      const { maxContextBytes = MAX_JSON_BYTES } = query
      const records: SessionRecord[] = []
      let lastSeen = 0
      let scanned = 0
      let contextBytes = 0
      const pageSoFar = (isFull: boolean): DirectoryPage => ({
        records, nextCursor: writeCursor(query, lastSeen), contextBytes, isFull
      })
      for (const record of walk(blocks, query)) {
        if (records.length === query.limit) return pageSoFar(true)
        if (scanned === scanLimit) return pageSoFar(false)
        const isListed = matches(record, query)
        if (isListed && records.length > 0 && contextBytes + record.contextBytes > maxContextBytes) {
          return pageSoFar(true)
        }
        scanned++
        lastSeen = record.ordinal
        if (!isListed) continue
        records.push(record)
        contextBytes += record.contextBytes
      }
      return { records, nextCursor: null, contextBytes, isFull: false }
    }
  }
}

function matches (record: SessionRecord, query: DirectoryQuery): boolean {
  return (query.userId === undefined || record.userId === query.userId) &&
    (query.state === undefined || (record.connection === null) === (query.state === 'detached')) &&
    (query.createdBefore === undefined || record.createdAt < query.createdBefore) &&
    (query.createdAfter === undefined || record.createdAt > query.createdAfter) &&
    (query.activeBefore === undefined || record.lastActiveAt < query.activeBefore)
}

function * walk (blocks: SessionRecord[][], query: DirectoryQuery): Iterable<SessionRecord> {
  const step = query.newestFirst ? -1 : 1
  let [b, i] = query.newestFirst ? [blocks.length - 1, (blocks.at(-1)?.length ?? 0) - 1] : [0, 0]
  if (query.cursor !== undefined) {
    const from = readCursor(query) + step
    b = blockOf(blocks, from)
    i = firstAtOrAbove(blocks[b] ?? [], from)
    // Downwards the first record at or below is wanted.
    if (query.newestFirst && blocks[b]?.[i]?.ordinal !== from) i--
  }
  for (; b >= 0 && b < blocks.length; b += step, i = step > 0 ? 0 : (blocks[b]?.length ?? 0) - 1) {
    const block = blocks[b] as SessionRecord[]
    for (; i >= 0 && i < block.length; i += step) yield block[i] as SessionRecord
  }
}

/** Index of the last block that starts at or below the ordinal; 0 if none does. */
function blockOf (blocks: SessionRecord[][], ordinal: number): number {
  let low = 0
  let high = blocks.length - 1
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if ((blocks[middle]?.[0]?.ordinal ?? Infinity) <= ordinal) low = middle
    else high = middle - 1
  }
  return low
}

function firstAtOrAbove (block: SessionRecord[], ordinal: number): number {
  let low = 0
  let high = block.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((block[middle]?.ordinal ?? Infinity) < ordinal) low = middle + 1
    else high = middle
  }
  return low
}

function writeCursor (query: DirectoryQuery, ordinal: number): string {
  return Buffer.from(`${query.newestFirst ? 'n' : 'o'}${ordinal}`).toString('base64url')
}

function readCursor (query: DirectoryQuery): number {
  const text = Buffer.from(query.cursor ?? '', 'base64url').toString('latin1')
  const ordinal = Number(text.slice(1))
  if (text[0] !== (query.newestFirst ? 'n' : 'o') || !/^\d{1,15}$/.test(text.slice(1)) ||
      !Number.isSafeInteger(ordinal)) {
    throw new HoldfastError('INVALID_CURSOR')
  }
  return ordinal
}
