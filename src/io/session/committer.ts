// Has the store keep what happens to sessions, and lets outputs go when they are kept (S-2). At the end of a turn each changed
// session gives one batch; while it is on its way, what comes meanwhile joins the next. So a hundred outputs are one write, and a
// store that is slow gets larger writes and not more of them.
//
// Where nothing survives, everything counts as kept at once, and the store is asked nothing: no batch, no promise, no state. So it
// is for sessions of the basic profile, which nobody can resume; a shared store learns of their beginning and their end.
//
// A session of a shared store parts from this node with its last batch (S-13). From the moment that
// the store is told, the record is a mere errand of the committer: nobody finds it any more, and it
// is repeated until the store has answered.
//
// Invariants: one batch of a session at a time; batches follow one another without a hole in their seqs; a waiter is settled once,
// also when its session ends or is lost.

import type { Log, MaybePromise } from '../types.js'
import { lastSeqOf, type JournalState, type Parting, type SessionRecord } from './record.js'
import { isShared, type Deadline, type SharedBatch } from './shared-store.js'
import { accessOf, outputsAfter, progressOf, toStored, type ConvertTime } from './stored.js'
import type { CommitBatch, CommitResult, CreateResult, EndResult, Fence, SessionStore, StoredTombstone } from './store.js'

export interface CommitterOptions {
  store: SessionStore
  log: Log
  toWall: ConvertTime
  /** Runs a callback after the present turn and before other events. */
  defer: (callback: () => void) => void
  /** The session is another node's now, or the store has lost it. */
  onLost: (session: SessionRecord, result: 'fenced' | 'missing') => void
  /** The session is about to part: appends what it is still to get. */
  catchUp: (session: SessionRecord) => void
  /** The session has parted: it leaves whatever finds it. */
  onParted: (session: SessionRecord) => void
  /** What becomes of a session that has parted and that nobody claims. */
  deadlineOf: (session: SessionRecord) => Deadline
}

export interface Committer {
  /** The state of a new session's journal; null for one that is not committed. `fence` is -1 until `create` has answered. */
  journalFor(profile: SessionRecord['profile'], fence: Fence, storedSeq: number): JournalState | null
  /** Has the store keep a new session. Undefined when it is kept, else why it is not; then it has to be ended. */
  create(session: SessionRecord): MaybePromise<Exclude<CreateResult, object> | undefined>
  /** Has the store keep the record as it is at the end of this turn, then wakes the connection. */
  commit(session: SessionRecord): void
  /** Undefined when everything until now is kept; else a promise of whether it was, false if the session was lost or ended. */
  whenKept(session: SessionRecord): Promise<boolean> | undefined
  contextChanged(session: SessionRecord): void
  accessChanged(session: SessionRecord): void
  /**
   * Gives up a session of a shared store that has no connection: when its commands have ended, or
   * now. Resolves when the store has answered, or when the session is kept after all.
   */
  part(session: SessionRecord, stage: 'idle' | 'now'): Promise<void>
  /** The session stays, unless the store has been told already. */
  keep(session: SessionRecord): void
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
  /** Answers of the store to batches so far. */
  readonly commits: Readonly<Record<CommitOutcome, number>>
}

/** While the store is away: enough to notice that it is back, and no burden on it. */
const PROBES_WHILE_AWAY = 1
const RETRIES_PER_CALL = 1024

export type CommitOutcome = 'kept' | 'fenced' | 'missing' | 'unavailable' | 'gap'

interface EarlyEnd { readonly tombstone: StoredTombstone, readonly resolve: (result: EndResult) => void }

interface Burial { readonly id: string, readonly fence: Fence, readonly tombstone: StoredTombstone }

export function createCommitter (options: CommitterOptions): Committer {
  const { store, log, toWall, defer, onLost } = options
  const sharedStore = isShared(store) ? store : undefined
  const { survives, shared } = store.traits
  let changed: SessionRecord[] = []
  let failed: SessionRecord[] = []
  const burials: Burial[] = []
  /** Ended before the store had answered that it knows them. */
  const earlyEnds = new Map<JournalState, EarlyEnd>()
  const commits: Record<CommitOutcome, number> = { kept: 0, fenced: 0, missing: 0, unavailable: 0, gap: 0 }
  let unanswered = 0
  const idle: (() => void)[] = []

  function flush (): void {
    const sessions = changed
    changed = []
    for (const session of sessions) {
      const journal = session.journal as JournalState
      journal.isListed = false
      start(session, journal)
    }
    checkIdle()
  }

  function start (session: SessionRecord, journal: JournalState): void {
    if (journal.isRunning || journal.isListed || journal.fence < 0 || journal.keptVersion === journal.version) return
    if (session.ended && journal.parting?.stage !== 'gone') return
    const parting = startParting(session, journal)
    const { version } = journal
    const batch = createBatch(session, journal)
    if (parting !== null) options.onParted(session)
    journal.isRunning = true
    unanswered++
    journal.contextChanged = journal.accessChanged = false
    const { parting: present } = journal
    const answer = sharedStore !== undefined && present?.stage === 'gone'
      ? sharedStore.release(batch, options.deadlineOf(session))
      : store.commit(batch)
    answer.then(result => settle(session, journal, batch, version, result), error => {
      // S-8 is broken; whether it was kept is unknown, as after any lost answer.
      log.error({ err: error, sid: session.id }, 'session store rejected a commit')
      settle(session, journal, batch, version, 'unavailable')
    })
  }

  /** What has just begun: the batch that follows is the last one. */
  function startParting (session: SessionRecord, { parting }: JournalState): Parting | null {
    if (parting === null || parting.stage === 'gone' || session.connection !== null) return null
    if (parting.stage === 'idle' && session.calls !== null) return null
    options.catchUp(session)
    parting.stage = 'gone'
    parting.progress = progressOf(session, toWall)
    return parting
  }

  function createBatch (session: SessionRecord, journal: JournalState): CommitBatch | SharedBatch {
    return {
      id: session.id,
      fence: journal.fence,
      prevSeq: journal.storedSeq,
      outputs: outputsAfter(session, journal.storedSeq),
      progress: journal.parting?.progress ?? progressOf(session, toWall),
      ...(journal.inboxTo > 0 ? { inboxTo: journal.inboxTo } : {}),
      ...(journal.contextChanged ? { context: session.context } : {}),
      ...(journal.accessChanged ? { access: accessOf(session) } : {})
    }
  }

  function settle (session: SessionRecord, journal: JournalState, batch: CommitBatch, version: number, result: CommitResult): void {
    journal.isRunning = false
    commits[typeof result === 'object' ? 'gap' : result]++
    apply(session, journal, batch, version, result)
    answered()
  }

  function answered (): void {
    unanswered--
    checkIdle()
  }

  function checkIdle (): void {
    if (unanswered > 0 || changed.length > 0) return
    for (const callback of idle.splice(0)) callback()
  }

  function apply (session: SessionRecord, journal: JournalState, batch: CommitBatch, version: number, result: CommitResult): void {
    const { parting } = journal
    const isParting = parting?.stage === 'gone' && session.ended
    if (session.ended && !isParting) return
    if (isParting && (result === 'kept' || result === 'fenced' || result === 'missing')) {
      journal.keptVersion = journal.version
      settleAll(journal, result === 'kept')
      return
    }
    if (result === 'kept') {
      journal.storedSeq = batch.progress.lastSeq
      journal.keptVersion = version
      session.keptSeq = Math.max(session.keptSeq, batch.progress.lastSeq)
      session.connection?.wake()
      settleWaiters(journal, version, true)
      start(session, journal)
      return
    }
    // Not known to be kept: they go with the next batch, whatever else that has.
    journal.contextChanged ||= batch.context !== undefined
    journal.accessChanged ||= batch.access !== undefined
    if (result === 'fenced' || result === 'missing') {
      onLost(session, result)
    } else if (result === 'unavailable') {
      journal.isListed = true
      failed.push(session)
    } else {
      log.warn({ sid: session.id, storedSeq: result.gap, prevSeq: batch.prevSeq }, 'session store has lost outputs, sending them again')
      journal.storedSeq = Math.min(result.gap, lastSeqOf(session))
      start(session, journal)
    }
  }

  function retryCommits (count: number): void {
    const sessions = failed
    failed = []
    for (let i = 0; i < sessions.length; i++) {
      const session = sessions[i] as SessionRecord
      if (i >= count) {
        failed.push(session)
        continue
      }
      const journal = session.journal as JournalState
      journal.isListed = false
      start(session, journal)
    }
  }

  async function bury (burial: Burial): Promise<EndResult> {
    const { id, fence, tombstone } = burial
    unanswered++
    const answer = await Promise.resolve(store.end(id, fence, tombstone)).catch((error: unknown): EndResult => {
      log.error({ err: error, sid: id }, 'session store rejected an end')
      return 'unavailable'
    })
    if (answer === 'unavailable') burials.push(burial)
    answered()
    return answer
  }

  function created (session: SessionRecord, journal: JournalState, answer: CreateResult): void {
    const isKept = typeof answer === 'object'
    if (isKept) journal.fence = answer.fence
    const ended = earlyEnds.get(journal)
    if (ended === undefined) {
      if (isKept) start(session, journal)
      return
    }
    earlyEnds.delete(journal)
    if (isKept) void bury({ id: session.id, fence: journal.fence, tombstone: ended.tombstone }).then(ended.resolve)
    else ended.resolve('missing')
  }

  function commit (session: SessionRecord): void {
    const { journal } = session
    if (journal === null || session.profile === 'basic') {
      session.keptSeq = lastSeqOf(session)
      session.connection?.wake()
      return
    }
    journal.version++
    if (journal.isRunning || journal.isListed) return
    journal.isListed = true
    if (changed.push(session) === 1) defer(flush)
  }

  return {
    commits,
    get isAvailable () { return survives === 'nothing' || store.health() === 'ok' },
    get backlog () { return failed.length + burials.length },

    journalFor (profile, fence, storedSeq) {
      if (survives === 'nothing' || (profile === 'basic' && !shared)) return null
      return {
        fence,
        storedSeq,
        version: 0,
        keptVersion: 0,
        isRunning: false,
        isListed: false,
        contextChanged: false,
        accessChanged: false,
        waiters: null,
        inboxTo: 0,
        parting: null
      }
    },

    create (session) {
      const { journal } = session
      if (journal === null) return undefined
      unanswered++
      return Promise.resolve(store.create(toStored(session, toWall))).catch((error: unknown): CreateResult => {
        log.error({ err: error, sid: session.id }, 'session store rejected a session')
        return 'unavailable'
      }).then(answer => {
        created(session, journal, answer)
        answered()
        return typeof answer === 'object' ? undefined : answer
      })
    },

    commit,

    whenKept ({ journal, ended }) {
      if (journal === null || journal.keptVersion === journal.version) return undefined
      if (ended) return Promise.resolve(false)
      return new Promise(resolve => { (journal.waiters ??= []).push({ version: journal.version, settle: resolve }) })
    },

    contextChanged ({ journal }) {
      if (journal !== null) journal.contextChanged = true
    },

    accessChanged ({ journal }) {
      if (journal !== null) journal.accessChanged = true
    },

    part (session, stage) {
      const { journal, profile } = session
      if (sharedStore === undefined || journal === null || profile === 'basic') return Promise.resolve()
      const parting = journal.parting ??= { stage, progress: null, settled: [] }
      if (parting.stage === 'gone' || session.ended) return Promise.resolve()
      if (stage === 'now') parting.stage = 'now'
      return new Promise(resolve => {
        parting.settled.push(resolve)
        commit(session)
      })
    },

    keep ({ journal }) {
      if (journal === null || journal.parting === null || journal.parting.stage === 'gone') return
      const { settled } = journal.parting
      journal.parting = null
      for (const settle of settled) settle()
    },

    abandon ({ journal }) {
      if (journal !== null) settleAll(journal, false)
    },

    end ({ journal, id }, tombstone) {
      if (journal === null) return 'ended'
      settleAll(journal, false)
      if (journal.fence >= 0) return bury({ id, fence: journal.fence, tombstone })
      return new Promise(resolve => { earlyEnds.set(journal, { tombstone, resolve }) })
    },

    whenIdle () {
      return new Promise(resolve => {
        idle.push(resolve)
        defer(checkIdle)
      })
    },

    retry () {
      if (failed.length === 0 && burials.length === 0) return
      const count = store.health() === 'ok' ? RETRIES_PER_CALL : PROBES_WHILE_AWAY
      retryCommits(count)
      const due = burials.splice(0, count)
      for (const burial of due) void bury(burial)
    }
  }
}

/** Settles what waits for a version up to this one. */
function settleWaiters (journal: JournalState, version: number, isKept: boolean): void {
  const { waiters } = journal
  if (waiters === null) return
  const due = waiters.filter(waiter => waiter.version <= version)
  const rest = waiters.filter(waiter => waiter.version > version)
  journal.waiters = rest.length === 0 ? null : rest
  for (const waiter of due) waiter.settle(isKept)
}

/** Nothing more comes of the session here. */
function settleAll (journal: JournalState, isKept: boolean): void {
  settleWaiters(journal, Infinity, isKept)
  for (const settled of journal.parting?.settled.splice(0) ?? []) settled()
}
