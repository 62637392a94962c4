// One output to many sessions without holding up anybody else: a slice of the sessions gets it per
// turn of the event loop, and other events have their turn in between (docs/performance.md). What
// is sent to a session meanwhile goes behind it all the same, since every append first gives the
// session what it has not got yet.
//
// Invariants: a session gets each fan-out that was started while it lived once, in the order of
// their start, and before whatever is sent to it later.

import type { Millis, Output, UserId } from '../types.js'
import type { SessionRecord } from './record.js'

export interface FanOuts {
  /** Number of the latest one, from which a new session starts. */
  readonly latestNumber: number
  /**
   * Begins one, to all sessions given that live now; `userId` if they are one user's. Returns
   * before anybody has got it.
   */
  start(sessions: Iterable<SessionRecord>, userId: UserId | null, output: Output, behind?: boolean): void
  /** Gives the session what it is to get of those under way. */
  catchUp(session: SessionRecord, now: Millis): void
}

export interface FanOutOptions {
  append: (session: SessionRecord, output: Output, now: Millis, behind: boolean) => void
  /** Runs a callback after other events had their turn. */
  yieldTurn: (callback: () => void) => void
  now: () => Millis
}

/** Sessions per turn: about a millisecond and a half, writing included. */
const SLICE = 128
/**
 * Fan-outs under way, since each append looks at them all. Whoever starts one more waits until the
 * oldest is through.
 */
const MAX_RUNNING = 16

interface FanOut {
  readonly number: number
  readonly sessions: Iterator<SessionRecord>
  readonly userId: UserId | null
  readonly output: Output
  /** It need not wait until it is kept. */
  readonly behind: boolean
}

export function createFanOuts ({ append, yieldTurn, now }: FanOutOptions): FanOuts {
  const running: FanOut[] = []
  let latestNumber = 0

  function catchUp (session: SessionRecord, at: Millis): void {
    for (const { number, userId, output, behind } of running) {
      if (session.fanOut >= number) continue
      // First: an append may dismiss a connection, whose goodbye catches up as well.
      session.fanOut = number
      if (userId === null || userId === session.userId) append(session, output, at, behind)
    }
  }

  /** Gives the oldest to its next sessions. */
  function advance (count: number): void {
    const { sessions } = running[0] as FanOut
    const at = now()
    for (let left = count; left > 0; left--) {
      const next = sessions.next()
      if (next.done === true) {
        running.shift()
        break
      }
      catchUp(next.value, at)
    }
  }

  function slice (): void {
    advance(SLICE)
    if (running.length > 0) yieldTurn(slice)
  }

  return {
    get latestNumber () { return latestNumber },

    start (sessions, userId, output, behind = false) {
      if (running.length >= MAX_RUNNING) advance(Infinity)
      running.push({ number: ++latestNumber, sessions: sessions[Symbol.iterator](), userId, output, behind })
      if (running.length === 1) yieldTurn(slice)
    },

    catchUp (session, at) {
      if (running.length > 0) catchUp(session, at)
    }
  }
}
