// Error handler of the REST API: every refusal is `{statusCode, code, error, message}` from a row
// of src/io/errors.ts. Client errors of Fastify become INVALID_REQUEST; everything else becomes
// INTERNAL. Text of a library or a stack never leaves the process.

import { STATUS_CODES } from 'node:http'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { ERRORS, HoldfastError, type ErrorCode } from '../../src/io/errors.js'

export interface ErrorBody {
  statusCode: number
  code: string
  error: string
  message: string
  [detail: string]: string | number
}

/** Body of an answer for a HoldfastError; its details become members. */
export function errorBody (error: HoldfastError): ErrorBody {
  const { statusCode, code, message, details } = error
  return { ...details, statusCode, code, error: STATUS_CODES[statusCode] as string, message }
}

/** `setErrorHandler` of a scope takes it. */
export function answerError (error: FastifyError | HoldfastError, request: FastifyRequest, reply: FastifyReply): void {
  const shown = toShownError(error)
  // A refusal for now is no failure: a reconnect storm against a draining node must not fill the
  // log with stacks.
  if (shown.statusCode === 500) request.log.error({ err: error, code: shown.code }, 'request failed')
  else if (shown.statusCode > 500) request.log.debug({ code: shown.code }, 'request refused')
  if (shown.retryAfterMs !== undefined) reply.header('retry-after', Math.ceil(shown.retryAfterMs / 1000))
  reply.code(shown.statusCode).send(errorBody(shown))
}

/**
 * Sentences for what Fastify and its plugins find before a handler runs; what they say themselves
 * is a library's text.
 */
const FASTIFY_FAULTS: Record<string, { code: ErrorCode, message: string }> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: {
    code: 'INVALID_REQUEST',
    message: 'The content type of the body is not application/json.'
  },
  FST_ERR_CTP_INVALID_JSON_BODY: { code: 'INVALID_REQUEST', message: 'The body is not JSON, or has a forbidden key.' },
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: {
    code: 'INVALID_REQUEST',
    message: 'The body is not as long as Content-Length says.'
  },
  FST_ERR_CTP_BODY_TOO_LARGE: { code: 'PAYLOAD_TOO_LARGE', message: ERRORS.PAYLOAD_TOO_LARGE.message },
  FST_UNDER_PRESSURE: { code: 'SERVER_FULL', message: 'The server is too busy to take more.' }
}

function toShownError (error: FastifyError | HoldfastError): HoldfastError {
  if (error instanceof HoldfastError) return error
  if ('validationContext' in error && error.validationContext !== undefined) {
    return new HoldfastError('INVALID_REQUEST', { message: error.message })
  }
  const fault = FASTIFY_FAULTS[error.code]
  if (fault !== undefined) return new HoldfastError(fault.code, { message: fault.message })
  const status = error.statusCode ?? 500
  return new HoldfastError(status >= 400 && status < 500 ? 'INVALID_REQUEST' : 'INTERNAL')
}
