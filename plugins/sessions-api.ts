// REST for operators, one session at a time: list, inspect, end, detach, write to. Translates
// requests into operations (src/io/operators) and their answers into JSON; who may ask is decided
// by operator-auth. Reading never counts as activity, and no answer holds a token. Each change is
// logged with the session's id; payloads never are.

import fp from 'fastify-plugin'
import { Type } from 'typebox'
import { HoldfastError } from '../src/io/errors.js'
import type { SessionOperations } from '../src/io/operators/operations.js'
import type { ListQuery } from '../src/io/session/manager.js'
import type { JsonObject, SessionId, SessionView } from '../src/io/types.js'
import { checkPluginOptions } from '../src/option-checks.js'
import type {} from './operator-auth.js'
import type {} from './session-manager.js'
import {
  DEFAULT_PAGE, DoneAnswer, MessageBody, MessageHeaders, NoQuery, Note, PageAnswer, PageCursor, PageLimit, IdQuery,
  SessionAnswer, SessionParams, StatsAnswer, Words, errorAnswers,
  readTime, readUserId, toIso, toSessionJson
} from './schemas/rest.js'
import { bodyLimitOf, prepareRestScope, sendOnce } from './schemas/rest-scope.js'

const ContextPatch = Type.Unsafe<JsonObject>(Type.Object({}, { additionalProperties: true }))
const MAX_IDLE_SECONDS = 365 * 24 * 3600

const SeqAnswer = Type.Object({
  seq: Type.Union([Type.Integer({ minimum: 1 }), Type.Null()], {
    description: 'Its seq in this session; null where another node has the session and gives the number.'
  })
}, { description: 'It is kept, and will be delivered.' })

const ListQueryString = Type.Object({
  state: Type.Optional(Words(['active', 'detached'])),
  userId: Type.Optional(IdQuery),
  createdBefore: Type.Optional(Type.String({ format: 'date-time' })),
  createdAfter: Type.Optional(Type.String({ format: 'date-time' })),
  idleFor: Type.Optional(Type.Integer({
    minimum: 0,
    maximum: MAX_IDLE_SECONDS,
    description: 'Seconds without activity, at least.'
  })),
  sort: Type.Optional(Words(['createdAt', '-createdAt'], 'Default createdAt: oldest first.')),
  limit: PageLimit,
  cursor: PageCursor
}, { additionalProperties: false })

export default fp(async function sessionsApi (fastify, options) {
  checkPluginOptions('holdfast/sessions-api', options, {})
  const { operations } = fastify.sessionInternals
  const { totals } = fastify.sessionManager
  const keys = fastify.idempotencyKeys
  const scope = prepareRestScope(fastify)

  scope.get('/sessions', {
    schema: {
      summary: 'Lists sessions, page by page',
      description: 'A session that exists during the whole walk is seen exactly once, whatever comes and goes ' +
        'meanwhile.',
      tags: ['sessions'],
      querystring: ListQueryString,
      response: { 200: PageAnswer, ...errorAnswers() }
    }
  }, async ({ query }) => {
    const { idleFor, sort, limit = DEFAULT_PAGE, createdBefore, createdAfter, ...rest } = query
    const wanted: ListQuery = { ...rest, limit, newestFirst: sort === '-createdAt' }
    if (rest.userId !== undefined) wanted.userId = readUserId('query', rest.userId)
    if (idleFor !== undefined) wanted.idleForMs = idleFor * 1000
    if (createdBefore !== undefined) wanted.createdBefore = readTime('createdBefore', createdBefore)
    if (createdAfter !== undefined) wanted.createdAfter = readTime('createdAfter', createdAfter)
    const page = await operations.list(wanted)
    return { data: page.data.map(toSessionJson), nextCursor: page.nextCursor }
  })

  scope.get('/sessions/stats', {
    schema: {
      summary: 'Counts sessions',
      tags: ['sessions'],
      querystring: NoQuery,
      response: { 200: StatsAnswer, ...errorAnswers() }
    }
  }, async () => ({ ...await operations.count(), totals }))

  scope.get('/sessions/:id', {
    schema: {
      summary: 'Shows a session',
      description: 'No activity of the session. An ended one is answered 410 with its reason for a while, then 404.',
      tags: ['sessions'],
      params: SessionParams,
      querystring: NoQuery,
      response: { 200: SessionAnswer, ...errorAnswers(404, 410) }
    }
  }, async ({ params: { id } }) => {
    return toSessionJson(await present(operations, id))
  })

  scope.delete('/sessions/:id', {
    schema: {
      summary: 'Ends a session',
      description: 'Its connection receives `goodbye` and is closed with 4001 (P-41). A second request is answered ' +
        '404.',
      tags: ['sessions'],
      params: SessionParams,
      querystring: Type.Object({ reason: Note }, { additionalProperties: false }),
      response: { 204: DoneAnswer, ...errorAnswers(404) }
    }
  }, async ({ params: { id }, query: { reason }, log }, reply) => {
    if (!await operations.terminate(id, reason)) throw new HoldfastError('SESSION_NOT_FOUND')
    log.info({ sid: id, note: reason }, 'session ended by operator')
    return reply.code(204).send(null)
  })

  scope.delete('/sessions/:id/connection', {
    schema: {
      summary: 'Drops the connection of a session',
      description: 'The session is kept for a resume; one of the basic profile ends (P-37). The connection is ' +
        'closed with 4203.',
      tags: ['sessions'],
      params: SessionParams,
      querystring: NoQuery,
      response: { 204: DoneAnswer, ...errorAnswers(404, 409, 410) }
    }
  }, async ({ params: { id }, log }, reply) => {
    await present(operations, id)
    if (!await operations.detach(id)) throw new HoldfastError('NOT_ATTACHED')
    log.info({ sid: id }, 'session detached by operator')
    return reply.code(204).send(null)
  })

  scope.patch('/sessions/:id/context', {
    schema: {
      summary: 'Changes the context of a session',
      description: 'The body is a merge patch (RFC 7396): its members replace those of the context, null removes. ' +
        'No activity of the session.',
      tags: ['sessions'],
      params: SessionParams,
      querystring: NoQuery,
      body: ContextPatch,
      response: { 200: SessionAnswer, ...errorAnswers(404, 410, 413) }
    }
  }, async ({ params: { id }, body, log }) => {
    await present(operations, id)
    const view = await operations.patchContext(id, body)
    log.info({ sid: id }, 'session context changed by operator')
    return toSessionJson(view)
  })

  scope.post('/sessions/:id/messages', {
    bodyLimit: bodyLimitOf(fastify.sessionManager),
    schema: {
      summary: 'Sends a message to a session',
      description: 'It becomes an output with a seq of its own and waits in the outbox while no connection is ' +
        'attached (P-23).',
      tags: ['messages'],
      params: SessionParams,
      querystring: NoQuery,
      headers: MessageHeaders,
      body: MessageBody,
      response: { 202: SeqAnswer, ...errorAnswers(404, 409, 410, 413, 422) }
    }
  }, (request, reply) => sendOnce(keys, request, reply, async () => {
    const { params: { id }, body: { event, payload = null, behind = false } } = request
    await present(operations, id)
    const { seq } = await operations.send({ sessionId: id }, event, payload, { behind })
    return { seq }
  }))
}, {
  name: 'holdfast/sessions-api',
  fastify: '5.x',
  encapsulate: true,
  dependencies: ['holdfast/session-manager', 'holdfast/operator-auth'],
  decorators: { fastify: ['sessionManager', 'operatorOnly', 'idempotencyKeys'] }
})

/** @throws SESSION_NOT_FOUND, SESSION_ENDED  with what operators may know of its end */
async function present (operations: SessionOperations, id: SessionId): Promise<SessionView> {
  const found = await operations.find(id)
  if (found === undefined) throw new HoldfastError('SESSION_NOT_FOUND')
  if ('view' in found) return found.view
  const { reason, endedAt, note } = found.tombstone
  throw new HoldfastError(
    'SESSION_ENDED', { details: { reason, endedAt: toIso(endedAt), ...(note === undefined ? {} : { note }) } }
  )
}
