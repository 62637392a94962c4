// What may be transmitted now: order, the server's limits, and what it asked to wait for.

import type { Millis } from '../io/types.js'
import { FRAME_TAIL_BYTES, RATE_WINDOW_MS } from './bounds.js'
import { isLonger } from './command-frame.js'
import { fail, inFlight, isWaiting, next, onTheirWay, pass, type CommandList } from './command-list.js'

/** `limits` of the server's session frame; a limit it does not name does not bind. */
export interface Limits {
  readonly maxMessageBytes?: number
  readonly commandsPerSecond?: number
  readonly maxInFlight?: number
}

export interface Pace {
  /** Undefined while the session is not live. */
  limits: Limits | undefined
  /** The server asked for a pause. */
  blockedUntil: Millis
  /**
   * Times of the latest transmissions, oldest first. A window instead of a bucket: it satisfies
   * both kinds of server.
   */
  readonly recent: Millis[]
}

/** Milliseconds until the next transmission is allowed; 0 for now. */
function delayOf ({ blockedUntil, recent }: Pace, perSecond: number, now: Millis): Millis {
  while (recent[0]! <= now - RATE_WINDOW_MS) recent.shift()
  return Math.max(0, blockedUntil - now, recent.length < perSecond ? 0 : recent[0]! + RATE_WINDOW_MS - now)
}

/**
 * Takes the frames, but for their end, that may be transmitted now. `delayMs` is above 0 if more
 * may follow then.
 */
export function take (list: CommandList, pace: Pace, now: Millis): { heads: string[], delayMs: Millis } {
  const { maxMessageBytes = Infinity, maxInFlight = Infinity, commandsPerSecond = Infinity } = pace.limits!
  const heads: string[] = []
  const isSuspected = list.items.some(item => item.isSuspect)
  let delayMs = 0
  for (let item = next(list); item !== undefined; item = next(list)) {
    if (isWaiting(item) && isLonger(item.body, maxMessageBytes - FRAME_TAIL_BYTES)) {
      fail(list, item, 'MESSAGE_TOO_LARGE', `A frame may have ${maxMessageBytes} bytes.`)
      continue
    }
    delayMs = delayOf(pace, commandsPerSecond, now)
    // A full window opens with the next answer.
    if (delayMs > 0 || inFlight(list) >= maxInFlight) break
    const { isSuspect } = item
    if (isSuspected && onTheirWay(list).some(other => other.isSuspect || isSuspect)) break
    pass(list, item)
    pace.recent.push(now)
    heads.push(`${item.body},"id":${item.id}`)
  }
  return { heads, delayMs }
}
