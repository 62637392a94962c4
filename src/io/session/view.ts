// What people and handlers see of a record: copies that do not change, without tokens. Monotonic
// times become wall-clock times here, counted back from now, so that a system clock which was set
// does not make a session look older or newer than it is.

import type { Clock, Millis, Session, SessionView } from '../types.js'
import { lastSeqOf, NEVER, watermarkOf, type SessionRecord } from './record.js'

/** The session as the founding note has it. */
export function snapshotOf (session: SessionRecord, toWall: WallTime): Session {
  return {
    id: session.id,
    userId: session.userId,
    createdAt: session.createdAt,
    lastActivityAt: toWall(session.lastActiveAt),
    context: session.context
  }
}

/** The session as an operator sees it. */
export function viewOf (session: SessionRecord, toWall: WallTime): SessionView {
  const { log } = session
  // Written out: a literal that begins with a spread takes a hundred times as long in V8, and a
  // page of a listing makes up to 500.
  return {
    id: session.id,
    userId: session.userId,
    createdAt: session.createdAt,
    lastActivityAt: toWall(session.lastActiveAt),
    context: session.context,
    labels: session.labels,
    state: session.connection === null ? 'detached' : 'active',
    profile: session.profile,
    revision: session.revision,
    lastSeq: lastSeqOf(session),
    outboxMessages: log === null ? 0 : log.count,
    outboxBytes: log === null ? 0 : log.bytes,
    lastCommand: watermarkOf(session),
    inFlight: session.calls === null ? 0 : session.calls.inFlight,
    dropped: log === null ? 0 : log.dropped,
    detachedAt: session.detachedAt === NEVER ? null : toWall(session.detachedAt)
  }
}

/** Milliseconds since 1970-01-01 UTC of a monotonic time. */
export type WallTime = (monotonic: Millis) => Millis

/**
 * Below this the two clocks differ by the rounding of one of them; above it somebody set the
 * system's.
 */
const CLOCK_SET_MS = 10

/**
 * Keeps the distance of the clocks until it changes for good, so that the same moment is shown as
 * the same time twice.
 */
export function createWallTime (clock: Clock): WallTime {
  let distance = NaN
  return monotonic => {
    const present = clock.wall() - Math.floor(clock.now())
    if (!(Math.abs(present - distance) < CLOCK_SET_MS)) distance = present
    return monotonic + distance
  }
}
