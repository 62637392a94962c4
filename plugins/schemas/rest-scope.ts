// What the route plugins of the REST API have in common: a scope that lets only operators in, checks requests strictly and has one form of error. All of it
// stays inside the scope it is called for; nothing reaches the host application.

import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { HoldfastError } from '../../src/io/errors.js'
import { MAX_DEPTH } from '../../src/io/protocol/frames.js'
import type { SessionManager } from '../../src/io/session/manager.js'
import type {} from '../operator-auth.js'
import { answerError } from './error-answer.js'
import { addRestSchemas } from './rest.js'
import { isDeeperThan, strictValidatorCompiler } from './validation.js'

/** Room for the event's name and the braces around a payload as large as an outbox. */
const ENVELOPE_BYTES = 4096

/** Makes an encapsulated scope one of the REST API, before its routes are declared; returns it typed by its schemas. */
export function prepareRestScope (scope: FastifyInstance) {
  scope.setValidatorCompiler(strictValidatorCompiler)
  scope.setErrorHandler(answerError)
  addRestSchemas(scope)
  scope.operatorOnly(scope)
  return scope.withTypeProvider<TypeBoxTypeProvider>()
}

/** `bodyLimit` of routes that take a message: whatever fits into an outbox fits. */
export function bodyLimitOf (manager: SessionManager): number {
  return manager.limits.outboxBytes + ENVELOPE_BYTES
}

/**
 * `preHandler` of routes that take a message. What a client may send is bounded (P-6), and so is what it is sent: printing a payload takes stack
 * by its depth.
 *
 * @throws INVALID_REQUEST
 */
export async function refuseDeepPayload ({ body }: { body: unknown }): Promise<void> {
  if (isDeeperThan(body, MAX_DEPTH)) throw new HoldfastError('INVALID_REQUEST', { message: `The payload is nested deeper than ${MAX_DEPTH - 1}.` })
}
