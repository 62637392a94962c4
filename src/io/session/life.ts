// What happens to one session: attached, detached, parted, lost, ended. The runtime's own part; every change is made in one turn.
//
// Invariants: `active` counts the sessions with a connection; an ended session is in no index and in no list; a connection is
// told of the end after the store has answered, and the caller with it.

import { CLOSE, type CloseCode } from '../protocol/close-codes.js'
import { isPromise } from '../maybe-promise.js'
import type { EndReason, LifecycleEvent, LifecycleEventType, MaybePromise, Millis } from '../types.js'
import type { Feed } from '../events/feed.js'
import type { Committer } from './committer.js'
import type { Delivery } from './delivery.js'
import type { DetachedSessions } from './detached.js'
import type { Directory } from './directory.js'
import type { Expiry } from './expiry.js'
import { lastSeqOf, NEVER, watermarkOf, type AttachedConnection, type SessionRecord } from './record.js'
import { planReplay, type ReplayPlan } from './replay-log.js'
import { createResumeToken, hashResumeToken } from './resume-token.js'
import type { SessionRuntime, SessionRuntimeOptions, SessionTotals } from './runtime.js'
import type { EndResult } from './store.js'

export const END_CLOSE: Record<EndReason, CloseCode> = {
  idle: CLOSE.idle,
  resume_window: CLOSE.idle,
  ended_by_client: CLOSE.ended,
  ended_by_operator: CLOSE.terminated,
  disconnected: CLOSE.ended,
  quota: CLOSE.quota,
  overloaded: CLOSE.overloaded,
  state_lost: CLOSE.stateLost,
  shutdown: CLOSE.draining
}
const NOTHING_TO_REPLAY: ReplayPlan = Object.freeze({ replay: null, gap: null })

export interface LifeOptions extends Pick<SessionRuntimeOptions, 'clock' | 'log' | 'limits'> {
  readonly directory: Directory
  readonly detached: DetachedSessions<SessionRecord>
  readonly feed: Feed
  readonly totals: SessionTotals
  readonly expiry: Expiry
  readonly committer: Committer
  readonly delivery: Delivery
  readonly now: () => Millis
}

export type Life = Pick<SessionRuntime,
  'active' | 'adopt' | 'expect' | 'rotateToken' | 'attach' | 'detach' | 'confirmAttach' | 'dismiss' | 'end' | 'lose' |
  'endedElsewhere'> & {
    emit: (type: LifecycleEventType, session: SessionRecord, reason?: string) => void
    /** The session has parted from this node, which keeps nothing of it. */
    depart: (session: SessionRecord) => void
  }

export function createLife (options: LifeOptions): Life {
  const { directory, detached, totals, expiry, now, feed, committer, delivery, clock, limits, log } = options
  let active = 0

  function emit (type: LifecycleEventType, session: SessionRecord, reason?: string): void {
    session.revision++
    if (!feed.isHeard) return
    const { id: sessionId, userId, revision } = session
    const at = clock.wall()
    // Written out: a literal that begins with a spread is slow in V8, and a connection has four events.
    const event: LifecycleEvent = reason === undefined
      ? { type, sessionId, userId, revision, at }
      : { type, sessionId, userId, revision, at, reason }
    feed.append(event)
  }

  /** The session has no connection from here on; the caller tells the one it had. */
  function leave (session: SessionRecord): AttachedConnection | null {
    const { connection } = session
    if (connection === null) return null
    session.connection = null
    session.detachedAt = now()
    active--
    totals.detached++
    return connection
  }

  /** Takes the session out of everything that finds it. */
  function remove (session: SessionRecord): AttachedConnection | null {
    session.ended = true
    expiry.remove(session)
    detached.remove(session)
    const connection = leave(session)
    session.calls?.abandon()
    delivery.discard(session)
    return connection
  }

  function end (session: SessionRecord, reason: EndReason, note?: string): MaybePromise<EndResult> {
    if (session.ended) return 'missing'
    // What was sent before the end arrives before the goodbye.
    if (session.connection !== null) {
      delivery.catchUp(session, now())
      session.connection?.flush()
    }
    // A basic connection that did not drain took its session along (P-26).
    if (session.ended) return 'missing'
    const connection = remove(session)
    const { id, userId, tokenHash, previousTokenHash } = session
    const tombstone = {
      id,
      userId,
      reason,
      endedAt: clock.wall(),
      lastCommand: watermarkOf(session),
      tokenHash,
      previousTokenHash,
      ...(note === undefined ? {} : { note })
    }
    directory.remove(session, { ...tombstone, buriedAt: now() })
    totals.ended[reason]++
    emit('ended', session, reason)
    const answer = committer.end(session, tombstone)
    if (!isPromise(answer)) {
      connection?.dismiss(END_CLOSE[reason])
      return answer
    }
    return answer.then(result => {
      if (result === 'unavailable') log.warn({ sid: id, reason }, 'session store could not keep the end of a session, trying again')
      connection?.dismiss(END_CLOSE[reason])
      return result
    })
  }

  function detach (session: SessionRecord, connection: AttachedConnection, reason: string, endReason: EndReason | null): void {
    // A connection that was taken over, or whose session ended, left before its socket closed.
    if (session.connection !== connection) return
    leave(session)
    emit('detached', session, reason)
    const ending = endReason ?? (isResumable(session) ? null : 'disconnected')
    if (ending !== null) {
      void end(session, ending)
      return
    }
    expiry.file(session)
    detached.file(session)
    committer.commit(session)
    // Whichever node its client comes back to claims it.
    void committer.part(session, 'idle')
  }

  function isResumable (session: SessionRecord): boolean {
    return session.profile === 'full' && limits.resumeWindowMs > 0
  }

  return {
    get active () { return active },
    emit,
    end,
    detach,

    adopt (session) {
      delivery.adopt(session)
      expiry.file(session)
      detached.file(session)
    },

    expect (session) {
      if (session.connection !== null || session.ended) return
      committer.keep(session)
      session.detachedAt = now()
      expiry.file(session)
      detached.remove(session)
      detached.file(session)
    },

    rotateToken (session) {
      session.claims++
      if (!isResumable(session)) return null
      const token = createResumeToken()
      session.tokenHash = hashResumeToken(token)
      committer.accessChanged(session)
      return token
    },

    attach (session, connection, lastSeen) {
      committer.keep(session)
      session.connection = connection
      session.detachedAt = NEVER
      detached.remove(session)
      active++
      totals.attached++
      if (lastSeen !== null) {
        delivery.acknowledge(session, lastSeen)
        delivery.judge(session)
      }
      delivery.limitOutputs(session, connection.maxOutputBytes)
      const { replay, gap } = session.log === null || lastSeen === null ? NOTHING_TO_REPLAY : planReplay(session.log, lastSeen)
      committer.commit(session)
      emit('attached', session)
      return { lastSeq: lastSeqOf(session), replay, gap }
    },

    confirmAttach (session) {
      session.heard = true
      session.previousTokenHash = null
      committer.accessChanged(session)
      committer.commit(session)
    },

    dismiss (session, code) {
      const { connection } = session
      if (connection === null) return false
      detach(session, connection, code.reason, null)
      connection.dismiss(code)
      return true
    },

    lose (session, result) {
      if (session.ended) return
      log.warn({ sid: session.id, result }, 'session is not held by this node any more')
      const connection = remove(session)
      directory.drop(session)
      committer.abandon(session)
      if (connection === null) return
      emit('detached', session, CLOSE.moved.reason)
      connection.dismiss(result === 'fenced' ? CLOSE.moved : CLOSE.unknownSession)
    },

    endedElsewhere (session, tombstone) {
      if (session.ended) return
      const connection = remove(session)
      const { reason } = tombstone
      directory.remove(session, { ...tombstone, buriedAt: now() })
      committer.abandon(session)
      totals.ended[reason]++
      emit('ended', session, reason)
      connection?.dismiss(END_CLOSE[reason])
    },

    depart (session) {
      remove(session)
      directory.drop(session)
    }
  }
}
