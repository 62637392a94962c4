// Bounds what repeats in the log: in an outage every handshake fails for the same reason, thousands
// of them in a minute, and one line says it. Whoever reads the next line learns how many were held
// back.

import type { Clock, Millis } from '../types.js'

/**
 * Asked before a line of a kind is logged: undefined while one was logged less than `everyMs` ago,
 * else how many were held back since.
 *
 * @param kind one of a few constants; each is remembered
 */
export function createLineLimiter (clock: Pick<Clock, 'now'>, everyMs: Millis): (kind: string) => number | undefined {
  const kinds = new Map<string, { loggedAt: Millis, suppressed: number }>()
  return kind => {
    const seen = kinds.get(kind)
    const now = clock.now()
    if (seen !== undefined && now - seen.loggedAt < everyMs) {
      seen.suppressed++
      return undefined
    }
    kinds.set(kind, { loggedAt: now, suppressed: 0 })
    return seen?.suppressed ?? 0
  }
}
