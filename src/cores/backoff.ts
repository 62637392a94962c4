// When to try again, and the waiting. Kept apart so that commands and lifecycle events wait alike
// and tests can hold the time in their hands.

import { setTimeout as delay } from 'node:timers/promises'
import type { Millis } from '../io/types.js'

/** Time and chance of the retries; replaced in tests. */
export interface RetryTiming {
  /** Settles after `ms`, or at once when `signal` is aborted; never rejects. */
  sleep(ms: Millis, signal?: AbortSignal): Promise<void>
  /** 0 up to, not including, 1. */
  random(): number
}

export const systemTiming: RetryTiming = {
  async sleep (ms, signal) {
    // The one rejection there is tells of the abort, which callers see on the signal.
    await delay(ms, undefined, { signal }).catch(() => {})
  },
  random: Math.random
}

/**
 * Longest pause that nobody asked for. A core that is back is found within it, and people wait for
 * that; a refused connection costs little, and a core that wants more rest says Retry-After.
 */
const MAX_SPAN_MS = 1_000

/**
 * Pause before repeat number `repeat` (1, 2, …): the span doubles from 100 ms to 1 s, of which the
 * upper half is chance, so that the commands that failed together do not come back together.
 */
export function backoffMs (repeat: number, random: () => number): Millis {
  const span = Math.min(MAX_SPAN_MS, 100 * 2 ** (repeat - 1))
  return span / 2 + random() * span / 2
}
