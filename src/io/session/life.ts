// What happens to a session while it is this node's: expected, attached, detached. The runtime's
// own part; every change is made in one turn. How it leaves the node is endings.ts.

import type { EndReason, LifecycleEventType, Millis } from '../types.js'
import type { Feed } from '../events/feed.js'
import type { Committer } from './committer.js'
import type { Delivery } from './delivery.js'
import type { DetachedSessions } from './detached.js'
import type { Directory } from './directory.js'
import { createEndings } from './endings.js'
import type { Expiry } from './expiry.js'
import { lastSeqOf, NEVER, type AttachedConnection, type SessionRecord } from './record.js'
import { planReplay, type ReplayPlan } from './replay-log.js'
import { createResumeToken, hashResumeToken } from './resume-token.js'
import type { SessionRuntime, SessionRuntimeOptions, SessionTotals } from './runtime.js'

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
  const { detached, totals, expiry, now, committer, delivery, limits } = options
  const endings = createEndings(options)
  const { emit, end, leave } = endings

  function detach (
    session: SessionRecord, connection: AttachedConnection, reason: string, endReason: EndReason | null
  ): void {
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
    get active () { return endings.active },
    emit,
    end,
    lose: endings.lose,
    endedElsewhere: endings.endedElsewhere,
    depart: endings.depart,
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
      endings.active++
      totals.attached++
      if (lastSeen !== null) {
        delivery.acknowledge(session, lastSeen)
        delivery.judge(session)
      }
      delivery.limitOutputs(session, connection.maxOutputBytes)
      const { replay, gap } = session.log === null || lastSeen === null
        ? NOTHING_TO_REPLAY
        : planReplay(session.log, lastSeen)
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
    }
  }
}
