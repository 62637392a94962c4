// Time that moves only when a test says so. `now` and `wall` are separate on purpose: setting the
// system's clock must change nothing but what is shown.

import type { Clock, Millis } from '../../src/io/types.js'

export interface ManualClock extends Clock {
  /** Both clocks go on. */
  advance(ms: Millis): void
  /** Somebody sets the system's clock; the monotonic one does not notice. */
  setWall(at: Millis): void
}

export const START_WALL = Date.UTC(2026, 0, 1)

export function createManualClock (now: Millis = 10_000, wall: Millis = START_WALL): ManualClock {
  return {
    now: () => now,
    wall: () => wall,
    advance (ms) {
      now += ms
      wall += ms
    },
    setWall (at) {
      wall = at
    }
  }
}
