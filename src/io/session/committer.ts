// Has the store keep what happens to sessions, and lets outputs go when they are kept (S-2). At the
// end of a turn each changed session gives one batch; while it is on its way, what comes meanwhile
// joins the next. So a hundred outputs are one write, and a store that is slow gets larger writes
// and not more of them.
//
// Where nothing survives, everything counts as kept at once, and the store is asked nothing: no
// batch, no promise, no state. So it is for sessions of the basic profile, which nobody can resume;
// a shared store learns of their beginning and their end.
//
// A session of a shared store parts from this node with its last batch (S-13). From the moment that
// the store is told, the record is a mere errand of the committer: nobody finds it any more, and it
// is repeated until the store has answered.
//
// Invariants: one batch of a session at a time; batches follow one another without a hole in their
// seqs; a waiter is settled once, also when its session ends or is lost.

import type { MaybePromise, SessionId } from '../types.js'
import { createCommitQueue, type CommitQueue, type CommitQueueOptions } from './commit-queue.js'
import type { CommitStats } from './commit-stats.js'
import { createEnrolment } from './enrolment.js'
import { createJournal, settleAll, waitUntilKept } from './journal.js'
import { lastSeqOf, type JournalState, type SessionRecord } from './record.js'
import { isShared } from './shared-store.js'
import type { CreateResult, EndResult, Fence, StoredTombstone } from './store.js'

export type CommitterOptions = Omit<CommitQueueOptions, 'sharedStore' | 'begun' | 'answered'>

export interface Committer {
  /**
   * The state of a new session's journal; null for one that is not committed. `fence` is -1 until
   * `create` has answered.
   */
  journalFor(profile: SessionRecord['profile'], fence: Fence, storedSeq: number): JournalState | null
  /**
   * Has the store keep a new session. Undefined when it is kept, else why it is not; then it has to
   * be ended.
   */
  create(session: SessionRecord): MaybePromise<Exclude<CreateResult, object> | undefined>
  /** Has the store keep the record as it is at the end of this turn, then wakes the connection. */
  commit(session: SessionRecord): void
  /**
   * The same for the newest output where that need not wait for the store (P-55): it leaves at once
   * where it may, and is kept with others a little later.
   */
  commitBehind(session: SessionRecord): void
  /** Has what left ahead of its commit be kept; called about once a second. */
  flush(): void
  /**
   * Undefined when everything until now is kept; else a promise of whether it was, false if the
   * session was lost or ended.
   */
  whenKept(session: SessionRecord): Promise<boolean> | undefined
  contextChanged(session: SessionRecord): void
  accessChanged(session: SessionRecord): void
  /**
   * Gives up a session of a shared store that has no connection: when its commands have ended, or
   * now. Resolves when the store has answered, or when the session is kept after all.
   */
  part(session: SessionRecord, stage: 'idle' | 'now'): Promise<void>
  /**
   * Resolves when the store has answered that a session has parted under this fence; undefined
   * where none is about to. What it could not be told is tried again at once.
   */
  whenParted(id: SessionId, fence: Fence): Promise<void> | undefined
  /** The session stays, unless the store has been told already. */
  keep(session: SessionRecord): void
  /**
   * Gives the store a session that it has lost as it is now (S-21). What the store could not be
   * told is tried again by `retry`.
   */
  giveAgain(session: SessionRecord): Promise<void>
  /** The session is not this node's any more: whoever waits for it is told. */
  abandon(session: SessionRecord): void
  /** Has the store forget an ended session. What it could not be told is tried again by `retry`. */
  end(session: SessionRecord, tombstone: StoredTombstone): MaybePromise<EndResult>
  /** Tries again what the store could not keep; called every now and then. */
  retry(): void
  /** Resolves when everything until now has been answered, kept or not. */
  whenIdle(): Promise<void>
  /** Whether a command may be executed: what follows of it could not be kept otherwise (P-16). */
  readonly isAvailable: boolean
  /** Writes that wait for the store to come back. */
  readonly backlog: number
  /** What is counted of the batches so far. */
  readonly commits: Readonly<CommitStats>
}

/** While the store is away: enough to notice that it is back, and no burden on it. */
const PROBES_WHILE_AWAY = 1
const RETRIES_PER_CALL = 1024

export function createCommitter (options: CommitterOptions): Committer {
  const { store, log, toWall, defer } = options
  const { survives, shared } = store.traits
  const sharedStore = isShared(store) ? store : undefined
  const idle: (() => void)[] = []
  /** To be given again. */
  const lost: SessionRecord[] = []
  let unanswered = 0
  const counted = {
    begun () { unanswered++ },
    answered () {
      unanswered--
      checkIdle()
    }
  }
  const leaving = createLeaving(options.onParted)
  const queue = createCommitQueue({ ...options, ...counted, sharedStore, onParted: leaving.parted })
  const enrolment = createEnrolment({ store, log, toWall, onKnown: queue.start, ...counted })

  function checkIdle (): void {
    if (unanswered > 0 || queue.changed > 0) return
    for (const callback of idle.splice(0)) callback()
  }

  function commit (session: SessionRecord): void {
    const { journal } = session
    if (journal === null || session.profile === 'basic') keptAtOnce(session)
    else queue.add(session, journal)
  }

  function commitBehind (session: SessionRecord): void {
    const { journal } = session
    if (journal === null || session.profile === 'basic') keptAtOnce(session)
    else queue.addAhead(session, journal)
  }

  async function giveAgain (session: SessionRecord): Promise<void> {
    const refusal = await enrolment.createAgain(session, session.journal as JournalState)
    if (refusal === undefined || session.ended) return
    if (refusal === 'unavailable') lost.push(session)
    // Another node was the first to give it, or has ended it.
    else options.onLost(session, 'fenced')
  }

  return {
    commits: queue.stats,
    giveAgain,
    ...createPartings(queue, leaving, commit, sharedStore !== undefined),
    get isAvailable () { return survives === 'nothing' || store.health() === 'ok' },
    get backlog () { return queue.failed + enrolment.failed + lost.length },

    journalFor (profile, fence, storedSeq) {
      return survives === 'nothing' || (profile === 'basic' && !shared) ? null : createJournal(fence, storedSeq)
    },

    create: session => session.journal === null ? undefined : enrolment.create(session, session.journal),
    commit,
    commitBehind,
    flush: queue.flush,

    whenKept (session) {
      const { journal, ended } = session
      if (journal?.ahead?.isListed === true && !ended) commit(session)
      if (journal === null || journal.keptVersion === journal.version) return undefined
      return ended ? Promise.resolve(false) : waitUntilKept(journal)
    },

    contextChanged ({ journal }) {
      if (journal !== null) journal.contextChanged = true
    },

    accessChanged ({ journal }) {
      if (journal !== null) journal.accessChanged = true
    },

    abandon ({ journal }) {
      if (journal !== null) settleAll(journal, false)
    },

    end ({ journal, id }, tombstone) {
      if (journal === null) return 'ended'
      settleAll(journal, false)
      return enrolment.end(id, journal, tombstone)
    },

    whenIdle () {
      queue.flushLast()
      return new Promise(resolve => {
        idle.push(resolve)
        defer(checkIdle)
      })
    },

    retry () {
      const count = store.health() === 'ok' ? RETRIES_PER_CALL : PROBES_WHILE_AWAY
      queue.retry(count)
      enrolment.retry(count)
      for (const session of lost.splice(0, count)) void giveAgain(session)
    }
  }
}

/** Sessions that have parted, until the store has answered: nothing else finds them. */
function createLeaving (onParted: CommitQueueOptions['onParted']) {
  const sessions = new Map<SessionId, SessionRecord>()
  return {
    parted (session: SessionRecord): void {
      const { id, journal } = session
      sessions.set(id, session)
      journal?.parting?.settled.push(() => {
        // It may have come and parted once more.
        if (sessions.get(id) === session) sessions.delete(id)
      })
      onParted(session)
    },

    find (id: SessionId, fence: Fence): SessionRecord | undefined {
      const session = sessions.get(id)
      return session?.journal?.fence === fence ? session : undefined
    }
  }
}

function createPartings (
  queue: CommitQueue, leaving: ReturnType<typeof createLeaving>, commit: Committer['commit'], isShared: boolean
): Pick<Committer, 'part' | 'whenParted' | 'keep'> {
  function whenParted (id: SessionId, fence: Fence): Promise<void> | undefined {
    const session = leaving.find(id, fence)
    if (session === undefined) return undefined
    queue.hasten(session)
    return new Promise(resolve => { session.journal?.parting?.settled.push(resolve) })
  }

  return {
    whenParted,

    part (session, stage) {
      const { journal, profile } = session
      if (!isShared || journal === null || profile === 'basic') return Promise.resolve()
      const parting = journal.parting ??= { stage, progress: null, settled: [] }
      if (parting.stage === 'gone' || session.ended) {
        return whenParted(session.id, journal.fence) ?? Promise.resolve()
      }
      if (stage === 'now') parting.stage = 'now'
      return new Promise(resolve => {
        parting.settled.push(resolve)
        commit(session)
        // Else it would wait for `retry`, and the node that asks for the session would take it
        // without what the store could not be told.
        queue.hasten(session)
      })
    },

    keep ({ journal }) {
      if (journal === null || journal.parting === null || journal.parting.stage === 'gone') return
      const { settled } = journal.parting
      journal.parting = null
      for (const settle of settled) settle()
    }
  }
}

function keptAtOnce (session: SessionRecord): void {
  session.sendableSeq = lastSeqOf(session)
  session.connection?.wake()
}
