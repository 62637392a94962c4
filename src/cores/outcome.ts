// What one attempt at the core came to, and what that says about execution. A command must not run
// twice, so the question is never "did it fail?" but "can it have run?":
//
//   answered      the core's answer; it ran
//   refused       the core answered, and nothing will change that: its own error, or an answer that
//                 cannot be used
//   not_executed  it surely did not run: no connection was made (refused, no such name, TLS), or
//                 the core said 429 or 503 with Retry-After
//   unknown       it may have run: everything else
//
// docs/core.md, "Answers", is this file in words. What follows from an outcome is decided in
// http.ts.

import type { CoreAnswer } from '../io/dispatcher/core.js'
import { HoldfastError } from '../io/errors.js'
import type { Millis } from '../io/types.js'
import { readAnswer, readRefusal } from './answer.js'
import type { WebhookReply } from './webhook.js'

export type Outcome =
  | { readonly kind: 'answered', readonly answer: CoreAnswer }
  /** `fault`: what the operator of the core should hear of. */
  | { readonly kind: 'refused', readonly error: Error, readonly fault?: string, readonly why: object }
  | {
    readonly kind: 'not_executed'
    readonly why: object
    readonly retryAfterMs: Millis | undefined
    readonly cause: unknown
  }
  /** `known`: a sentence for the client. `again`: another attempt may fare better. */
  | {
    readonly kind: 'unknown'
    readonly known: string
    readonly why: object
    readonly again: boolean
    readonly retryAfterMs: Millis | undefined
    readonly cause: unknown
  }

export function readOutcome (reply: Exclude<WebhookReply, { kind: 'aborted' }>): Outcome {
  if (reply.kind === 'failed') return readFailure(reply)
  const { status, retryAfterMs } = reply
  const why = { status }
  if (status < 300) return reply.kind === 'too_large' ? tooLarge(why) : readSuccess(reply.body, why)
  if ((status === 429 || status === 503) && retryAfterMs !== undefined) {
    return { kind: 'not_executed', why, retryAfterMs, cause: undefined }
  }
  if (status >= 400 && status < 500) {
    const refusal = reply.kind === 'answer' ? readRefusal(reply.body) : undefined
    if (refusal !== undefined) return { kind: 'refused', error: refusal, why }
    return { kind: 'refused', error: new HoldfastError('CORE_REFUSED'), fault: 'core refused without a code', why }
  }
  // A redirect is not followed: it would carry the payload to where no operator sent it. It may be
  // the answer to a form that was taken (303), and the same request would be redirected again.
  const again = status >= 500
  const known = `The Platform Core answered with status ${status}; the command may have been executed.`
  return { kind: 'unknown', known, why, again, retryAfterMs, cause: undefined }
}

function readFailure ({ sent, status, reason, cause }: Extract<WebhookReply, { kind: 'failed' }>): Outcome {
  if (!sent) return { kind: 'not_executed', why: { reason }, retryAfterMs: undefined, cause }
  const why = status === undefined ? { reason } : { reason, status }
  const known = status !== undefined && status < 300
    ? `The Platform Core answered with status ${status} and the answer was cut off; the command was executed.`
    : reason === 'TIMEOUT'
      ? 'The Platform Core was sent the command and did not answer in time; it may have been executed.'
      : 'The Platform Core was sent the command and the connection broke; it may have been executed.'
  return { kind: 'unknown', known, why, again: true, retryAfterMs: undefined, cause }
}

function readSuccess (body: Uint8Array, why: object): Outcome {
  try {
    return { kind: 'answered', answer: readAnswer(body) }
  } catch (error) {
    const cause = error instanceof Error ? error.cause : undefined
    const fault = cause instanceof Error ? cause.message : undefined
    return { kind: 'refused', error: error as Error, fault: 'core answer not valid', why: { ...why, fault } }
  }
}

function tooLarge (why: object): Outcome {
  return { kind: 'refused', error: new HoldfastError('RESULT_TOO_LARGE'), fault: 'core answer too large', why }
}
