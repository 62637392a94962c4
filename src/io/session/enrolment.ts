// The first and the last that a store hears of a session. An end that it could not be told is tried
// again until it is, and one that comes before the store has answered that it knows the session
// waits for that. A store that has lost a session hears of it for the first time once more.

import type { Log, Seq } from '../types.js'
import { forgotten, keptThrough } from './ahead.js'
import { settleWaiters } from './journal.js'
import { lastSeqOf, type JournalState, type SessionRecord } from './record.js'
import { toStored, type ConvertTime } from './stored.js'
import type { CreateResult, EndResult, Fence, SessionStore, StoredTombstone } from './store.js'

export interface EnrolmentOptions {
  store: SessionStore
  log: Log
  toWall: ConvertTime
  /** The store knows the session: what has waited for that may go. */
  onKnown: (session: SessionRecord, journal: JournalState) => void
  /** Told of each call that is under way, and of its answer. */
  begun: () => void
  answered: () => void
}

export interface Enrolment {
  /** Undefined when the store has the session, else why not. */
  create(session: SessionRecord, journal: JournalState): Promise<Exclude<CreateResult, object> | undefined>
  /**
   * The same for a session that the store has lost: it gets all that there is now, and nothing else
   * before it has answered.
   */
  createAgain(session: SessionRecord, journal: JournalState): Promise<Exclude<CreateResult, object> | undefined>
  end(id: string, journal: JournalState, tombstone: StoredTombstone): Promise<EndResult>
  /** Tries again what the store could not be told, up to so many. */
  retry(count: number): void
  /** Ends that the store could not be told. */
  readonly failed: number
}

/** What a store that keeps the session has of it then. */
interface Given { readonly version: number, readonly lastSeq: Seq }
interface EarlyEnd { readonly tombstone: StoredTombstone, readonly resolve: (result: EndResult) => void }
interface Burial { readonly id: string, readonly fence: Fence, readonly tombstone: StoredTombstone }

export function createEnrolment ({ store, log, toWall, onKnown, begun, answered }: EnrolmentOptions): Enrolment {
  const burials: Burial[] = []
  /** Ended before the store had answered that it knows them. */
  const earlyEnds = new Map<JournalState, EarlyEnd>()

  async function bury (burial: Burial): Promise<EndResult> {
    const { id, fence, tombstone } = burial
    begun()
    const answer = await Promise.resolve(store.end(id, fence, tombstone)).catch((error: unknown): EndResult => {
      log.error({ err: error, sid: id }, 'session store rejected an end')
      return 'unavailable'
    })
    if (answer === 'unavailable') burials.push(burial)
    answered()
    return answer
  }

  function created (session: SessionRecord, journal: JournalState, given: Given, answer: CreateResult): void {
    const isKept = typeof answer === 'object'
    if (isKept) {
      journal.fence = answer.fence
      journal.storedSeq = given.lastSeq
      journal.keptVersion = given.version
      keptThrough(session, journal.ahead, given)
      session.connection?.wake()
      settleWaiters(journal, given.version, true)
    }
    const ended = earlyEnds.get(journal)
    if (ended === undefined) {
      if (isKept) onKnown(session, journal)
      return
    }
    earlyEnds.delete(journal)
    if (isKept) void bury({ id: session.id, fence: journal.fence, tombstone: ended.tombstone }).then(ended.resolve)
    else ended.resolve('missing')
  }

  async function create (
    session: SessionRecord, journal: JournalState
  ): Promise<Exclude<CreateResult, object> | undefined> {
    begun()
    const given = { version: journal.version, lastSeq: lastSeqOf(session) }
    const answer = await Promise.resolve(store.create(toStored(session, toWall))).catch(
      (error: unknown): CreateResult => {
        log.error({ err: error, sid: session.id }, 'session store rejected a session')
        return 'unavailable'
      }
    )
    created(session, journal, given, answer)
    answered()
    return typeof answer === 'object' ? undefined : answer
  }

  return {
    get failed () { return burials.length },
    create,

    createAgain (session, journal) {
      journal.fence = -1
      // Its inbox went too, and is numbered from 1 again.
      journal.inboxTo = 0
      forgotten(journal.ahead)
      journal.contextChanged = journal.accessChanged = false
      return create(session, journal)
    },

    end (id, journal, tombstone) {
      if (journal.fence >= 0) return bury({ id, fence: journal.fence, tombstone })
      return new Promise(resolve => { earlyEnds.set(journal, { tombstone, resolve }) })
    },

    retry (count) {
      for (const burial of burials.splice(0, count)) void bury(burial)
    }
  }
}
