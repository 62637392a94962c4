// The commits of sessions: at the end of a turn each changed session gives one batch; while it is
// on its way, what comes meanwhile joins the next. What the answer of the store means for a session
// is decided here.
//
// A session of a shared store parts from this node with its last batch (S-13). From the moment that
// the store is told, the record is a mere errand: nobody finds it any more, and it is repeated
// until the store has answered.

import type { Clock, Log, Seq } from '../types.js'
import { createAhead, forgotten, keptThrough, type AheadOptions } from './ahead.js'
import { countCommit, createCommitStats, type CommitStats } from './commit-stats.js'
import { settleAll, settleWaiters } from './journal.js'
import { lastSeqOf, type JournalState, type SessionRecord } from './record.js'
import type { Deadline, SharedBatch, SharedSessionStore } from './shared-store.js'
import { accessOf, lastProgressOf, outputsAfter, progressOf, type ConvertTime } from './stored.js'
import type { CommitBatch, CommitResult, SessionStore } from './store.js'

export interface CommitQueueOptions {
  store: SessionStore
  /** The same store, where it is shared. */
  sharedStore: SharedSessionStore | undefined
  log: Log
  clock: Clock
  toWall: ConvertTime
  limits: AheadOptions['limits']
  /** Runs a callback after the present turn and before other events. */
  defer: (callback: () => void) => void
  yieldTurn: AheadOptions['yieldTurn']
  /** The session is another node's now, or the store has lost it. */
  onLost: (session: SessionRecord, result: 'fenced' | 'missing') => void
  /** The session is about to part: appends what it is still to get. */
  catchUp: (session: SessionRecord) => void
  /** The session has parted: it leaves whatever finds it. */
  onParted: (session: SessionRecord) => void
  /** What becomes of a session that has parted and that nobody claims. */
  deadlineOf: (session: SessionRecord) => Deadline
  /** Told of each batch that is under way, and of its answer. */
  begun: () => void
  answered: () => void
}

export interface CommitQueue {
  /** At the end of this turn the session gives a batch, unless one of it is under way. */
  add(session: SessionRecord, journal: JournalState): void
  /** The newest output need not wait for its batch (ahead.ts). */
  addAhead(session: SessionRecord, journal: JournalState): void
  /** Gives what left ahead of its batch; called about once a second. */
  flush(): void
  flushLast(): void
  /** Gives what has waited for the store to know the session. */
  start(session: SessionRecord, journal: JournalState): void
  /** Tries again what was not kept, up to so many sessions. */
  retry(count: number): void
  /** Tries again at once what of this session was not kept: somebody waits for it. */
  hasten(session: SessionRecord): void
  /** Sessions whose batch comes at the end of this turn. */
  readonly changed: number
  /** Sessions whose last batch was not kept. */
  readonly failed: number
  readonly stats: Readonly<CommitStats>
}

export function createCommitQueue (options: CommitQueueOptions): CommitQueue {
  const { store, sharedStore, log, clock, defer, limits, yieldTurn } = options
  const changed: SessionRecord[] = []
  const failed = createFailed(startAll)
  const stats = createCommitStats()

  const ahead = createAhead({ limits, add, yieldTurn })

  function add (session: SessionRecord, journal: JournalState): void {
    journal.version++
    if (journal.isRunning || journal.isListed) return
    journal.isListed = true
    if (changed.push(session) === 1) defer(startChanged)
  }

  function startAll (sessions: readonly SessionRecord[]): void {
    for (const session of sessions) {
      const journal = session.journal as JournalState
      journal.isListed = false
      start(session, journal)
    }
  }

  function startChanged (): void {
    options.begun()
    startAll(changed.splice(0))
    options.answered()
  }

  function start (session: SessionRecord, journal: JournalState): void {
    if (journal.isRunning || journal.isListed || journal.fence < 0 || journal.keptVersion === journal.version) return
    if (session.ended && journal.parting?.stage !== 'gone') return
    const hasBegunParting = startParting(session, journal, options)
    const { version } = journal
    const batch = createBatch(session, journal, options.toWall, ahead.reserve(session, journal))
    if (hasBegunParting) options.onParted(session)
    journal.isRunning = true
    options.begun()
    journal.contextChanged = journal.accessChanged = false
    const answer = sharedStore !== undefined && journal.parting?.stage === 'gone'
      ? sharedStore.release(batch, options.deadlineOf(session))
      : store.commit(batch)
    const startedAt = clock.now()
    const answered = (result: CommitResult): void => {
      countCommit(stats, batch.outputs.length, clock.now() - startedAt, result)
      settle(session, journal, batch, version, result)
    }
    answer.then(answered, error => {
      // S-8 is broken; whether it was kept is unknown, as after any lost answer.
      log.error({ err: error, sid: session.id }, 'session store rejected a commit')
      answered('unavailable')
    })
  }

  function settle (
    session: SessionRecord, journal: JournalState, batch: CommitBatch, version: number, result: CommitResult
  ): void {
    journal.isRunning = false
    const isParting = journal.parting?.stage === 'gone' && session.ended
    if (isParting && (result === 'kept' || result === 'fenced' || result === 'missing')) {
      journal.keptVersion = journal.version
      settleAll(journal, result === 'kept')
    } else if (!session.ended || isParting) {
      if (result === 'kept') kept(session, journal, batch, version)
      else notKept(session, journal, batch, result)
    }
    options.answered()
  }

  function kept (session: SessionRecord, journal: JournalState, { progress }: CommitBatch, version: number): void {
    journal.storedSeq = progress.lastSeq
    journal.keptVersion = version
    keptThrough(session, journal.ahead, progress)
    session.connection?.wake()
    settleWaiters(journal, version, true)
    start(session, journal)
  }

  function notKept (
    session: SessionRecord, journal: JournalState, batch: CommitBatch, result: Exclude<CommitResult, 'kept'>
  ): void {
    // They go with the next batch, whatever else that has.
    journal.contextChanged ||= batch.context !== undefined
    journal.accessChanged ||= batch.access !== undefined
    if (result === 'fenced' || result === 'missing') {
      options.onLost(session, result)
    } else if (result === 'unavailable') {
      journal.isListed = true
      failed.add(session)
    } else {
      const { prevSeq } = batch
      // It has more where the answer to an earlier batch was lost.
      if (result.gap < prevSeq) {
        log.warn(
          { sid: session.id, storedSeq: result.gap, prevSeq }, 'session store has lost outputs, sending them again'
        )
      }
      journal.storedSeq = Math.min(result.gap, lastSeqOf(session))
      forgotten(journal.ahead)
      start(session, journal)
    }
  }

  return {
    stats,
    start,
    get changed () { return changed.length },
    get failed () { return failed.size },

    add,
    addAhead: ahead.give,
    flush: ahead.flush,
    flushLast: ahead.flushLast,
    retry: failed.retry,
    hasten: failed.hasten
  }
}

/** Sessions whose last batch was not kept, the longest failed first. */
function createFailed (startAll: (sessions: readonly SessionRecord[]) => void) {
  const failed = new Set<SessionRecord>()
  return {
    get size () { return failed.size },
    add (session: SessionRecord): void { failed.add(session) },

    retry (count: number): void {
      const due: SessionRecord[] = []
      for (const session of failed) {
        if (due.length >= count) break
        due.push(session)
        failed.delete(session)
      }
      startAll(due)
    },

    hasten (session: SessionRecord): void {
      if (failed.delete(session)) startAll([session])
    }
  }
}

/** Whether it has begun just now: the batch that follows is the last one. */
function startParting (
  session: SessionRecord, { parting }: JournalState, { catchUp, toWall }: CommitQueueOptions
): boolean {
  if (parting === null || parting.stage === 'gone' || session.connection !== null) return false
  if (parting.stage === 'idle' && session.calls !== null) return false
  catchUp(session)
  parting.stage = 'gone'
  parting.progress = lastProgressOf(session, toWall)
  return true
}

function createBatch (
  session: SessionRecord, journal: JournalState, toWall: ConvertTime, reservedSeq: Seq
): CommitBatch | SharedBatch {
  return {
    id: session.id,
    fence: journal.fence,
    prevSeq: journal.storedSeq,
    outputs: outputsAfter(session, journal.storedSeq),
    progress: journal.parting?.progress ?? progressOf(session, toWall, reservedSeq),
    ...(journal.inboxTo > 0 ? { inboxTo: journal.inboxTo } : {}),
    ...(journal.contextChanged ? { context: session.context } : {}),
    ...(journal.accessChanged ? { access: accessOf(session) } : {})
  }
}
