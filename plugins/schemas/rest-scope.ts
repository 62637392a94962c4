// What the route plugins of the REST API have in common: a scope that lets only operators in,
// checks requests strictly and has one form of error. All of it stays inside the scope it is called
// for; nothing reaches the host application.

import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { createHash } from 'node:crypto'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { IdempotencyKeys } from '../../src/io/operators/idempotency-keys.js'
import { largestOutputBytes } from '../../src/io/session/delivery.js'
import type { SessionManager } from '../../src/io/session/manager.js'
import type { MaybePromise } from '../../src/io/types.js'
import type {} from '../operator-auth.js'
import { readBodies } from './body.js'
import { answerError } from './error-answer.js'
import { addRestSchemas } from './rest.js'
import { strictValidatorCompiler } from './validation.js'

/** Room for the event's name and the braces around a payload as large as an output may be. */
const ENVELOPE_BYTES = 4096

/**
 * Makes an encapsulated scope one of the REST API, before its routes are declared; returns it typed
 * by its schemas.
 */
export function prepareRestScope (scope: FastifyInstance) {
  scope.setValidatorCompiler(strictValidatorCompiler)
  scope.setErrorHandler(answerError)
  readBodies(scope)
  addRestSchemas(scope)
  scope.operatorOnly(scope)
  return scope.withTypeProvider<TypeBoxTypeProvider>()
}

/** `bodyLimit` of routes that take a message: whatever may be one output fits. */
export function bodyLimitOf (manager: SessionManager): number {
  return largestOutputBytes(manager.limits) + ENVELOPE_BYTES
}

/**
 * Body of routes that send: sends once for each Idempotency-Key, and answers 202 with what `send`
 * gives. Without the header every request sends.
 *
 * The key belongs to the route and what its path names, so the same key may be used for another
 * session. There is one operator; with several, the key would belong to the one who sends it as
 * well.
 */
export async function sendOnce<A extends object> (
  keys: IdempotencyKeys, request: FastifyRequest, reply: FastifyReply, send: () => MaybePromise<A>
): Promise<FastifyReply> {
  const header = request.headers['idempotency-key']
  reply.code(202)
  if (typeof header !== 'string') return reply.send(await send())
  const { answer, repeated } = await keys.once({
    target: `${request.routeOptions.url} ${JSON.stringify(request.params)}`,
    key: header.startsWith('"') ? header.slice(1, -1) : header,
    fingerprint: createHash('sha256').update(JSON.stringify(request.body)).digest('base64')
  }, send)
  if (repeated) reply.header('idempotent-replayed', 'true')
  return reply.send(answer)
}
