// Which output keeps ending the connections of its client, and would keep what is behind it for
// ever (P-51). The end of a connection casts a suspicion; the next resume tells by its ack whether
// it falls on the oldest output held, and enough of them are the end of that output.

import type { Output, Seq } from '../types.js'
import { LARGE_OUTPUT_BYTES, MAX_LOST_DELIVERIES, MAX_REFUSED_DELIVERIES } from '../protocol/frames.js'
import { firstSeq, outputAt, type ReplayLog } from './replay-log.js'

/**
 * `sentSeq`: what the connection was sent before it ended; `isRefusal`: by a code that blames it.
 */
export function suspect (log: ReplayLog, isRefusal: boolean, sentSeq: Seq): void {
  log.suspicion = isRefusal ? MAX_LOST_DELIVERIES / MAX_REFUSED_DELIVERIES : 1
  log.suspectedTo = sentSeq
}

/**
 * Counts the suspicion, once, when the client is back. Returns the oldest output if it has to go.
 */
export function judgeOldest (log: ReplayLog): Output | undefined {
  const { suspicion, suspectedTo } = log
  if (suspicion === 0) return undefined
  log.suspicion = 0
  const seq = firstSeq(log)
  const output = outputAt(log, seq)
  const isRefusal = suspicion > 1
  if (output === undefined || seq > suspectedTo || (!isRefusal && output.bytes < LARGE_OUTPUT_BYTES)) return undefined
  log.strikes += suspicion
  if (log.strikes < MAX_LOST_DELIVERIES) return undefined
  log.strikes = 0
  return output
}
