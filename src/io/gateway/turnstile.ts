// Lets handshakes in a few at a time. After a deploy or an outage thousands of clients come back at
// once, and a handshake costs ten times what a command costs; taken as they come they would hold up
// every command for as long. So each turn of the event loop takes some, the others wait in order,
// and when too many wait the next are sent away with a time to come back.

import { HoldfastError } from '../errors.js'
import type { Millis } from '../types.js'

export interface Turnstile {
  /**
   * Undefined when the caller may go on at once; otherwise a promise of its turn.
   *
   * @throws SERVER_FULL  too many are waiting; `retryAfterMs` spreads them over the time that those
   *   will take
   */
  pass(): Promise<void> | undefined
  readonly waiting: number
}

export interface TurnstileOptions {
  /** Most handshakes in a turn of the event loop; half as many always find their turn. */
  perTurn: number
  maxWaiting: number
  /** Runs a callback after other events had their turn. */
  yieldTurn: (callback: () => void) => void
  /** Uniform in [0, 1). */
  random: () => number
}

const RETRY_LEAST_MS: Millis = 1000
const RETRY_SPREAD_MS: Millis = 4000

export function createTurnstile (options: TurnstileOptions): Turnstile {
  const { perTurn, maxWaiting, yieldTurn, random } = options
  let queue: (() => void)[] = []
  let next = 0
  let free = perTurn
  let turning = false

  function turn (): void {
    free = perTurn
    for (; free > 0 && next < queue.length; free--) queue[next++]?.()
    if (next === queue.length) {
      queue = []
      next = 0
    }
    turning = free < perTurn
    if (turning) yieldTurn(turn)
  }

  return {
    get waiting () { return queue.length - next },

    pass () {
      // Not for the first half: to ask for the next turn costs a fiftieth of a handshake. What is
      // spread over many turns is counted as if it came in one, so a burst finds half at least.
      if (!turning && free <= perTurn / 2) {
        turning = true
        yieldTurn(turn)
      }
      if (free > 0) {
        free--
        return undefined
      }
      if (queue.length - next >= maxWaiting) {
        const retryAfterMs = RETRY_LEAST_MS + Math.floor(random() * RETRY_SPREAD_MS)
        throw new HoldfastError('SERVER_FULL', { retryAfterMs })
      }
      return new Promise(resolve => queue.push(resolve))
    }
  }
}
