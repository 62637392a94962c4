// What people and handlers see of a record: copies that do not change, without tokens. Monotonic times become wall-clock times here, counted back from
// now, so that a system clock which was set does not make a session look older or newer than it is.

import type { Clock, Session, SessionView } from '../types.js'
import { lastSeqOf, watermarkOf, type SessionRecord } from './record.js'

/** The session as the founding note has it. */
export function snapshotOf (session: SessionRecord, clock: Clock): Session {
  return {
    id: session.id,
    userId: session.userId,
    createdAt: session.createdAt,
    lastActivityAt: wallTime(session.lastActiveAt, clock),
    context: session.context
  }
}

/** The session as an operator sees it. */
export function viewOf (session: SessionRecord, clock: Clock): SessionView {
  const { log } = session
  return {
    ...snapshotOf(session, clock),
    state: session.connection === null ? 'detached' : 'active',
    profile: session.profile,
    revision: session.revision,
    lastSeq: lastSeqOf(session),
    outboxMessages: log === null ? 0 : log.count,
    outboxBytes: log === null ? 0 : log.bytes,
    lastCommand: watermarkOf(session),
    inFlight: session.calls === null ? 0 : session.calls.inFlight,
    dropped: log === null ? 0 : log.dropped,
    detachedAt: session.detachedAt === -1 ? null : wallTime(session.detachedAt, clock)
  }
}

function wallTime (monotonic: number, clock: Clock): number {
  return clock.wall() - (Math.floor(clock.now()) - monotonic)
}
