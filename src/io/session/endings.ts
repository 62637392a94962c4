// The ways in which a session stops being this node's: it ends here, or elsewhere, or another node
// has it. A connection is told of an end after the store has answered, and the caller with it.
//
// Invariants: `active` counts the sessions with a connection; an ended session is in no index and
// in no list.

import { CLOSE, type CloseCode } from '../protocol/close-codes.js'
import { isPromise } from '../maybe-promise.js'
import type { EndReason, LifecycleEvent, LifecycleEventType, MaybePromise } from '../types.js'
import type { LifeOptions } from './life.js'
import { watermarkOf, type AttachedConnection, type SessionRecord } from './record.js'
import type { SessionRuntime } from './runtime.js'
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

export interface Endings extends Pick<SessionRuntime, 'end' | 'lose' | 'endedElsewhere'> {
  /** Sessions with a connection. */
  active: number
  emit(type: LifecycleEventType, session: SessionRecord, reason?: string): void
  /** The session has no connection from here on; the caller tells the one it had. */
  leave(session: SessionRecord): AttachedConnection | null
  /** The session has parted from this node, which keeps nothing of it. */
  depart(session: SessionRecord): void
}

export function createEndings (options: LifeOptions): Endings {
  const { directory, detached, totals, expiry, now, feed, committer, delivery, clock, log } = options

  function emit (type: LifecycleEventType, session: SessionRecord, reason?: string): void {
    session.revision++
    if (!feed.isHeard) return
    const { id: sessionId, userId, revision } = session
    const at = clock.wall()
    // Written out: a literal that begins with a spread is slow in V8, and a connection has four
    // events.
    const event: LifecycleEvent = reason === undefined
      ? { type, sessionId, userId, revision, at }
      : { type, sessionId, userId, revision, at, reason }
    feed.append(event)
  }

  function leave (session: SessionRecord): AttachedConnection | null {
    const { connection } = session
    if (connection === null) return null
    session.connection = null
    session.detachedAt = now()
    endings.active--
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
      if (result === 'unavailable') {
        log.warn({ sid: id, reason }, 'session store could not keep the end of a session, trying again')
      }
      connection?.dismiss(END_CLOSE[reason])
      return result
    })
  }

  const endings: Endings = {
    active: 0,
    emit,
    leave,
    end,

    lose (session, result) {
      if (session.ended) return
      log.warn({ sid: session.id, result }, 'session is not held by this node any more')
      totals.lost[result]++
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
  return endings
}
