// The policy of a stop (P-48): clients are sent away over the first half of the time, so that they
// do not all come back at once, those without running commands first; commands and requests under
// way have the rest; the last half second waits for nobody, and is for closing handshakes. Not
// here: who is refused meanwhile, and the sockets themselves.

import type { Clock, Millis } from '../types.js'
import type { Gateway } from './gateway.js'

/** What peers have at least to answer a close. */
export const CLOSING_MS = 500
const STEP_MS = 50
/**
 * Never slower, so that a few clients do not wait for a window made for many; a step's worth goes
 * at once.
 */
const LEAST_PER_MS = 0.4
/** Clients come back over this span. */
const RETRY_SPREAD_MS = 2000

export interface DrainOptions {
  gateway: Pick<Gateway, 'closeSome' | 'connections'>
  clock: Clock
  delay: (ms: Millis) => Promise<unknown>
  random: () => number
  /** 0 closes everything at once; even then closing handshakes have their half second. */
  deadlineMs: Millis
  /** HTTP requests that have begun and are not answered. */
  busyRequests: () => number
}

/** Resolves when no connection and no request is left, or at the deadline. */
export async function drainConnections (options: DrainOptions): Promise<void> {
  const { gateway, clock, delay, random, deadlineMs, busyRequests } = options
  const startedAt = clock.now()
  const endAt = startedAt + Math.max(deadlineMs, CLOSING_MS)
  const total = gateway.connections
  const perMs = Math.max(LEAST_PER_MS, total / (deadlineMs / 2))
  let told = 0
  for (;;) {
    const now = clock.now()
    const elapsedMs = now - startedAt
    const lateAt = endAt - CLOSING_MS
    const isLate = now >= lateAt
    // By the time that has passed and not by steps: on a busy event loop those come late.
    const count = isLate ? Infinity : Math.ceil((elapsedMs + STEP_MS) * perMs) - told
    const open = gateway.closeSome(count, Math.floor(random() * RETRY_SPREAD_MS), isLate)
    told = total - open
    if ((gateway.connections === 0 && busyRequests() === 0) || now >= endAt) return
    // Short steps first: most drains, those of tests above all, wait for a few closing handshakes.
    await delay(Math.min(STEP_MS, Math.max(1, elapsedMs), (isLate ? endAt : lateAt) - now))
  }
}
