// The store of one process whose sessions outlive it: sessions are in this node's memory, and each
// write goes to a journal on a disk before it is answered. The journal is read once, at the
// opening.

import { HoldfastError } from '../../io/errors.js'
import type { CommitBatch, CommitResult, SessionStore, StoreHooks } from '../../io/session/store.js'
import type { Millis, SessionId } from '../../io/types.js'
import { aFunction, aText, anObject, checkOptions, milliseconds, type OptionCheck } from '../../option-checks.js'
import { meet } from '../append.js'
import { describeFault, withoutRetries } from './faults.js'
import { createGroupCommit, type GroupCommit } from './group-commit.js'
import { createJournal, type Group, type Journal } from './journal.js'
import { createKeeper, type After, type Keeper } from './keeper.js'
import { createKnown } from './known.js'
import { advance, placeOf, putBatch, putEnd, putSession, type Place } from './layout.js'
import { openLayout, prove } from './opening.js'
import { createStats, type EmbeddedStats, type Outcome, type StatsCounters } from './stats.js'

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
  /** Bytes of the journal's files now; undefined where they cannot be seen. */
  size(): Promise<number | undefined>
}

const CHECKS: Record<keyof EmbeddedStoreOptions, OptionCheck> = {
  directory: { ...aText('the path of a directory'), required: true },
  durability: { is: value => value === 'process' || value === 'disk', expected: 'process or disk' },
  tombstoneMs: milliseconds(0, Number.MAX_SAFE_INTEGER),
  maxTombstones: { is: value => Number.isInteger(value) && (value as number) >= 0, expected: 'a whole number' },
  onProgress: aFunction('that is told how many sessions were read'),
  onDamaged: aFunction('that is told what cannot be read'),
  stallMs: milliseconds(1, Number.MAX_SAFE_INTEGER),
  wall: aFunction('that tells the time'),
  after: aFunction('that calls back later'),
  journal: anObject
}

/** @throws CONFIG_INVALID  an option that is wrong, or that there is none of */
export function createEmbeddedStore (options: EmbeddedStoreOptions): EmbeddedStore {
  checkOptions('createEmbeddedStore', options, CHECKS)
  const { directory, durability = 'process', tombstoneMs = 3_600_000, maxTombstones = 10_000 } = options
  const { wall = Date.now, after = timeout, stallMs = 5000, journal = createJournal(directory) } = options
  const counters = createStats()
  const count = countIn(counters)
  const known = createKnown({ journal, wall, tombstoneMs, maxTombstones })
  const { sessions, ended, doubtful } = known
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
    reread: known.reread
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

  const join = createJoin({ groups, keeper, counters, doubtful })
  const isReady = (): boolean => isOpen && keeper.health() === 'ok'

  /** What a write of this fence finds; a text is the answer. */
  function find (id: SessionId, given: number): Place | 'unavailable' | 'missing' | 'fenced' {
    if (!isReady()) return count('unavailable', 'unavailable')
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

  return {
    traits: { survives: durability === 'disk' ? 'host' : 'process', shared: false },
    get stats () { return { ...counters, sessions: sessions.size, tombstones: ended.size } },
    size: journal.size,
    health: keeper.health,
    async open (given) {
      hooks = given
      try {
        await journal.open('anew')
        fence = await openLayout(journal, directory)
        await known.read(fence, given, options)
      } catch (cause) {
        await journal.close().catch(() => {})
        throw openingError(cause, directory)
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
      if (!isReady()) return count('unavailable', 'unavailable')
      const { id } = session
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
        known.forgetOld(group)
      }, 'ended', 'ended')
    }
  }
}

interface JoinParts {
  groups: GroupCommit
  keeper: Keeper
  counters: StatsCounters
  doubtful: Set<SessionId>
}

/** Returns what has a write join the next group, and gives its answer. */
function createJoin ({ groups, keeper, counters, doubtful }: JoinParts): <T>(
  id: SessionId, fill: (group: Group) => void, outcome: Outcome, answer: T
) => Promise<T | 'unavailable'> {
  const count = countIn(counters)
  return (id, fill, outcome, answer) => new Promise(resolve => {
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

/** Returns what counts an answer and gives it back. */
function countIn ({ answers }: StatsCounters): <T>(outcome: Outcome, answer: T) => T {
  return (outcome, answer) => {
    answers[outcome]++
    return answer
  }
}

function openingError (cause: unknown, directory: string): HoldfastError {
  if (cause instanceof HoldfastError) return cause
  const message = withoutRetries(describeFault(cause, directory).message)
  return new HoldfastError('STORE_UNAVAILABLE', { message, cause })
}

function timeout (ms: Millis, callback: () => void): () => void {
  const timer = setTimeout(callback, ms).unref()
  return () => { clearTimeout(timer) }
}
