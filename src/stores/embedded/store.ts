// The store of one process whose sessions outlive it: sessions are in this node's memory, and each
// write goes to a journal on a disk before it is answered. The journal is read once, at the
// opening.
//
// `sessions` and `ended` decide about a write; they run ahead of the disk by what is being written.
// When a group fails, what they say of its sessions is in doubt and is read from the journal.

import { HoldfastError } from '../../io/errors.js'
import type {
  CommitBatch, CommitResult, SessionStore, StoredSession, StoredTombstone, StoreHooks
} from '../../io/session/store.js'
import type { Millis, SessionId } from '../../io/types.js'
import { meet } from '../append.js'
import { describeFault, withoutRetries } from './faults.js'
import { createGroupCommit } from './group-commit.js'
import { createJournal, type Group, type Journal } from './journal.js'
import { createKeeper, type After } from './keeper.js'
import { advance, placeOf, putBatch, putEnd, putSession, tombstoneKey, type Place } from './layout.js'
import { openLayout, prove, readEverything, readSession } from './opening.js'
import { createStats, type EmbeddedStats, type Outcome } from './stats.js'

/** `process`: what is kept survives the end of the process. `disk`: also that of the host. */
export type Durability = 'process' | 'disk'

export interface EmbeddedStoreOptions {
  /** Made if it does not exist. One process at a time. */
  readonly directory: string
  /** Default `process`. */
  readonly durability?: Durability
  /** How long tombstones are kept; default one hour. */
  readonly tombstoneMs?: Millis
  /** At most so many; default 10,000. The oldest go first. */
  readonly maxTombstones?: number
  /** Told of each 10,000 sessions while they are read. */
  readonly onProgress?: (restored: number) => void
  /** Told of each session that could not be read; it is buried as `state_lost`. */
  readonly onDamaged?: (problem: string) => void
  /** A write that takes longer makes the store `degraded`; default 5 s. */
  readonly stallMs?: Millis
  /** Wall clock, timers and journal, for tests. */
  readonly wall?: () => Millis
  readonly after?: After
  readonly journal?: Journal
}

export interface EmbeddedStore extends SessionStore {
  readonly stats: EmbeddedStats
}

const PROGRESS_EVERY = 10_000

export function createEmbeddedStore (options: EmbeddedStoreOptions): EmbeddedStore {
  const { directory, durability = 'process', tombstoneMs = 3_600_000, maxTombstones = 10_000 } = options
  const { wall = Date.now, after = timeout, stallMs = 5000, journal = createJournal(directory) } = options
  const counters = createStats()
  const sessions = new Map<SessionId, Place>()
  /** When each ended, oldest first. */
  const ended = new Map<SessionId, Millis>()
  const doubtful = new Set<SessionId>()
  let hooks: StoreHooks | undefined
  let isOpen = false
  let fence = 0

  const keeper = createKeeper({
    journal,
    directory,
    sync: durability === 'disk',
    stallMs,
    after,
    stats: counters,
    healthChanged: (health, error) => hooks?.healthChanged(health, error),
    stalled: () => { groups.giveUp() },
    reread
  })
  const groups = createGroupCommit({
    begin: () => journal.group(),
    write: keeper.write,
    defer: setImmediate,
    failed (error, members) {
      for (const { id } of members) doubtful.add(id)
      keeper.failed(error)
    }
  })

  async function reread (): Promise<void> {
    for (const id of doubtful) {
      const { place, endedAt } = await readSession(journal, id)
      if (place === undefined) sessions.delete(id)
      else sessions.set(id, place)
      if (endedAt === undefined) ended.delete(id)
      else ended.set(id, endedAt)
    }
    doubtful.clear()
  }

  function count<T> (outcome: Outcome, answer: T): T {
    counters.answers[outcome]++
    return answer
  }

  /** The answer to a write that joins the next group. */
  function join<T> (
    id: SessionId, fill: (group: Group) => void, outcome: Outcome, answer: T
  ): Promise<T | 'unavailable'> {
    return new Promise(resolve => {
      const settle = (kept: boolean): void => {
        counters.writes++
        resolve(kept ? count(outcome, answer) : count('unavailable', 'unavailable'))
      }
      try {
        groups.join(id, fill, settle)
      } catch (error) {
        doubtful.add(id)
        settle(false)
        keeper.failed(error)
      }
    })
  }

  /** What a write of this fence finds; a text is the answer. */
  function find (id: SessionId, given: number): Place | 'unavailable' | 'missing' | 'fenced' {
    if (!isOpen || keeper.health() !== 'ok') return count('unavailable', 'unavailable')
    const place = sessions.get(id)
    if (place === undefined) return count('missing', 'missing')
    return given === fence ? place : count('fenced', 'fenced')
  }

  function commit (batch: CommitBatch): CommitResult | Promise<CommitResult> {
    const { id } = batch
    const place = find(id, batch.fence)
    if (typeof place === 'string') return place
    const meeting = meet(place.lastSeq, batch)
    // Both are true only if what is being written is kept, so they wait for it.
    if (typeof meeting === 'object') return join(id, () => {}, 'gap', meeting)
    if (meeting === 'late') return join(id, () => {}, 'kept', 'kept')
    const next = advance(place, batch, meeting === 'repeat')
    sessions.set(id, next.place)
    return join(id, group => putBatch(group, place, next, batch), 'kept', 'kept')
  }

  /** Tombstones that have served their time go with this group. */
  function forgetOld (group: Group): void {
    const before = wall() - tombstoneMs
    for (const [id, endedAt] of ended) {
      if (ended.size <= maxTombstones && endedAt >= before) return
      ended.delete(id)
      doubtful.add(id)
      group.delete(tombstoneKey(id))
    }
  }

  async function read (): Promise<void> {
    await journal.open('anew')
    fence = await openLayout(journal, directory)
    await readEverything(journal, {
      restore (session: StoredSession, place: Place) {
        sessions.set(session.id, place)
        if (sessions.size % PROGRESS_EVERY === 0) options.onProgress?.(sessions.size)
        hooks?.restore(session, fence)
      },
      bury (tombstone: StoredTombstone) {
        ended.set(tombstone.id, tombstone.endedAt)
        hooks?.bury(tombstone)
      },
      damaged: problem => { options.onDamaged?.(problem) }
    }, { now: wall(), tombstoneMs, maxTombstones })
  }

  return {
    traits: { survives: durability === 'disk' ? 'host' : 'process', shared: false },
    get stats () { return { ...counters, sessions: sessions.size, tombstones: ended.size } },
    health: keeper.health,
    async open (given) {
      hooks = given
      try {
        await read()
      } catch (cause) {
        await journal.close().catch(() => {})
        if (cause instanceof HoldfastError) throw cause
        const message = withoutRetries(describeFault(cause, directory).message)
        throw new HoldfastError('STORE_UNAVAILABLE', { message, cause })
      }
      isOpen = true
      keeper.start(fence)
    },
    async close () {
      if (!isOpen) return
      isOpen = false
      await groups.idle()
      keeper.stop()
      // The clean end of a process is not to be lost with the host either.
      if (keeper.health() === 'ok') await prove(journal).catch(() => {})
      await journal.close().catch(() => {})
    },
    create (session) {
      const { id } = session
      if (!isOpen || keeper.health() !== 'ok') return count('unavailable', 'unavailable')
      if (sessions.has(id) || ended.has(id)) return count('exists', 'exists')
      sessions.set(id, placeOf(session))
      return join(id, group => putSession(group, session), 'created', { fence })
    },
    commit: async batch => await commit(batch),
    end (id, given, tombstone) {
      const place = find(id, given)
      if (typeof place === 'string') return place
      sessions.delete(id)
      ended.set(id, tombstone.endedAt)
      return join(id, group => {
        putEnd(group, place, tombstone)
        forgetOld(group)
      }, 'ended', 'ended')
    }
  }
}

function timeout (ms: Millis, callback: () => void): () => void {
  const timer = setTimeout(callback, ms).unref()
  return () => { clearTimeout(timer) }
}
