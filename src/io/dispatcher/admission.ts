// Whether a command is accepted (P-10 to P-16). Asked before anything is executed or remembered;
// the order of the questions is the order of their cost, and a duplicate is recognised before
// limits on running commands, since it starts none.
//
// A refusal leaves no trace but the rate: the watermark does not move, and the same id may be sent
// again.

import { HoldfastError } from '../errors.js'
import type { Millis, Seq } from '../types.js'
import { MAX_RATE_REFUSALS } from '../protocol/frames.js'
import { watermarkOf, type SessionRecord } from '../session/record.js'
import { accept, createReplayLog, findAnswer, placeOf } from '../session/replay-log.js'

export interface AdmissionLimits {
  /** Sustained commands per second of a session; bursts of twice as many. */
  commandsPerSecond: number
  maxInFlight: number
}

/** A tenth of the bucket is full again by then, whatever the rate. */
const MIN_RETRY_MS = 200

/**
 * Credit of one command. A command per second is a thousandth of one per millisecond, so whole
 * milliseconds give whole numbers, which V8 keeps in the record itself.
 */
const COMMAND_CREDIT = 1000

export type Verdict =
  | { kind: 'refused', refusal: HoldfastError, abusive: boolean }
  /** It came before. The seq of its held answer; null while it is running: nothing to send yet. */
  | { kind: 'duplicate', answerSeq: Seq | null }

/** Undefined when the command is accepted, and recorded as such. */
export function admit (
  session: SessionRecord, id: number | string | undefined, now: Millis, limits: AdmissionLimits
): Verdict | undefined {
  if (!takeCredit(session, now, limits.commandsPerSecond)) return rateLimited(session, limits.commandsPerSecond)
  if (typeof id === 'number') {
    const place = session.log === null ? (id === 1 ? 'next' : 'gap') : placeOf(session.log, id)
    if (place === 'gap') {
      return refused(new HoldfastError('COMMAND_GAP', { details: { expected: watermarkOf(session) + 1 } }))
    }
    if (place === 'duplicate' && !reopens(session, id)) return duplicate(session, id)
  }
  if (session.calls !== null && session.calls.inFlight >= limits.maxInFlight) {
    return refused(new HoldfastError('TOO_MANY_IN_FLIGHT', { retryAfterMs: 100 }))
  }
  session.rateRefusals = 0
  if (typeof id === 'number' && id > watermarkOf(session)) accept(session.log ??= createReplayLog(), id)
  session.lastActiveAt = now
  return undefined
}

function rateLimited (session: SessionRecord, perSecond: number): Verdict {
  session.rateRefusals++
  // Not the moment of the next single credit: a client that took it at its word would be refused
  // again for all but one command of its queue.
  const retryAfterMs = Math.max(MIN_RETRY_MS, Math.ceil((COMMAND_CREDIT - session.rateCredit) / perSecond))
  const abusive = session.rateRefusals >= MAX_RATE_REFUSALS
  return { kind: 'refused', refusal: new HoldfastError('RATE_LIMITED', { retryAfterMs }), abusive }
}

function refused (refusal: HoldfastError): Verdict {
  return { kind: 'refused', refusal, abusive: false }
}

/**
 * Whether the command had begun when its node died, and may be executed again. Asked once: from now
 * on it is a duplicate.
 */
function reopens ({ log }: SessionRecord, id: number): boolean {
  if (log === null || log.reopened === null || !log.reopened.delete(id)) return false
  if (log.reopened.size === 0) log.reopened = null
  return true
}

function duplicate (session: SessionRecord, id: number): Verdict {
  if (session.calls?.isRunning(id) === true) return { kind: 'duplicate', answerSeq: null }
  const answerSeq = session.log === null ? null : findAnswer(session.log, id)
  return answerSeq === null ? refused(new HoldfastError('RESULT_EXPIRED')) : { kind: 'duplicate', answerSeq }
}

/** A token bucket of two seconds' worth: two numbers per session and no timer. */
function takeCredit (session: SessionRecord, now: Millis, perSecond: number): boolean {
  const capacity = perSecond * 2 * COMMAND_CREDIT
  if (session.rateCredit < 0) session.rateCredit = capacity
  else if (now > session.rateFilledAt) {
    session.rateCredit = Math.min(capacity, session.rateCredit + (now - session.rateFilledAt) * perSecond)
  }
  session.rateFilledAt = now
  if (session.rateCredit < COMMAND_CREDIT) return false
  session.rateCredit -= COMMAND_CREDIT
  return true
}
