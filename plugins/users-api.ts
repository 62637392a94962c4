// REST for operators, many sessions at a time: all sessions of a user, and messages to a user or to
// everybody. The rules are those of sessions-api.ts. A user without sessions is not an error:
// whether the user exists at all is not known here.
//
// Where a message goes must not depend on how an id is written: URL clients remove `.` and `..`
// from a path, and proxies merge slashes. With such an id `/users/:userId/messages` becomes
// `/messages`, and `/sessions/:id/messages` becomes `/sessions/messages`. So the broadcast has a
// path that does not end as those do, and nothing is ever sent on the paths they shrink to.

import fp from 'fastify-plugin'
import { Type } from 'typebox'
import { HoldfastError } from '../src/io/errors.js'
import { checkPluginOptions } from '../src/option-checks.js'
import type {} from './operator-auth.js'
import type {} from './session-manager.js'
import { bodyLimitOf, prepareRestScope, sendOnce } from './schemas/rest-scope.js'
import {
  DEFAULT_PAGE, MessageBody, MessageHeaders, NoQuery, Note, PageAnswer, PageCursor, PageLimit, IdQuery, UserParams,
  errorAnswers, readUserId, toSessionJson
} from './schemas/rest.js'

const EndedAnswer = Type.Object(
  { ended: Type.Integer({ minimum: 0 }) }, { description: 'How many sessions were ended.' }
)
const SentAnswer = Type.Object(
  { sessions: Type.Integer({ minimum: 0 }) }, { description: 'How many sessions it was sent to.' }
)

export default fp(async function usersApi (fastify, options) {
  checkPluginOptions('holdfast/users-api', options, {})
  const { operations } = fastify.sessionInternals
  const keys = fastify.idempotencyKeys
  const scope = prepareRestScope(fastify)

  scope.get('/users/:userId/sessions', {
    schema: {
      summary: 'Lists the sessions of a user, page by page',
      description: 'Oldest first. A page is full, or holds 1 MiB of contexts, or is the last one.',
      tags: ['users'],
      params: UserParams,
      querystring: Type.Object({ limit: PageLimit, cursor: PageCursor }, { additionalProperties: false }),
      response: { 200: PageAnswer, ...errorAnswers() }
    }
  }, async ({ params, query: { limit = DEFAULT_PAGE, cursor } }) => {
    const userId = readUserId('path', params.userId)
    const page = await operations.list({ userId, limit, ...(cursor === undefined ? {} : { cursor }) })
    return { data: page.data.map(toSessionJson), nextCursor: page.nextCursor }
  })

  scope.delete('/users/:userId/sessions', {
    schema: {
      summary: 'Ends the sessions of a user',
      description: 'All, or all but `except`. If that is not a session of the user, the answer is 404 and nothing ' +
        'is ended.',
      tags: ['users'],
      params: UserParams,
      querystring: Type.Object({ except: Type.Optional(IdQuery), reason: Note }, { additionalProperties: false }),
      response: { 200: EndedAnswer, ...errorAnswers(404) }
    }
  }, async ({ params, query: { except, reason }, log }) => {
    const userId = readUserId('path', params.userId)
    const ended = await operations.terminateUser(userId, except, reason)
    log.info({ userId, except, note: reason, ended }, 'sessions of user ended by operator')
    return { ended }
  })

  scope.post('/users/:userId/messages', {
    bodyLimit: bodyLimitOf(fastify.sessionManager),
    schema: {
      summary: 'Sends a message to every session of a user',
      tags: ['messages'],
      params: UserParams,
      querystring: NoQuery,
      headers: MessageHeaders,
      body: MessageBody,
      response: { 202: SentAnswer, ...errorAnswers(409, 413, 422) }
    }
  }, (request, reply) => sendOnce(keys, request, reply, async () => {
    const { params, body: { event, payload = null, behind = false } } = request
    const target = { userId: readUserId('path', params.userId) }
    const { sessions } = await operations.send(target, event, payload, { behind })
    return { sessions }
  }))

  scope.post('/broadcast', {
    bodyLimit: bodyLimitOf(fastify.sessionManager),
    schema: {
      summary: 'Sends a message to every session',
      tags: ['messages'],
      querystring: NoQuery,
      headers: MessageHeaders,
      body: MessageBody,
      response: { 202: SentAnswer, ...errorAnswers(409, 413, 422) }
    }
  }, (request, reply) => sendOnce(keys, request, reply, async () => {
    const { body: { event, payload = null, behind = false }, log } = request
    const { sessions } = await operations.send({ all: true }, event, payload, { behind })
    log.info({ sessions }, 'message sent to every session by operator')
    return { sessions }
  }))

  scope.post('/messages', { schema: { hide: true } }, async () => {
    throw new HoldfastError('ROUTE_MOVED', {
      message: 'A message to every session is POST /broadcast. A user whose id is made of dots cannot be named in a ' +
        'path.'
    })
  })
}, {
  name: 'holdfast/users-api',
  fastify: '5.x',
  encapsulate: true,
  dependencies: ['holdfast/session-manager', 'holdfast/operator-auth'],
  decorators: { fastify: ['sessionManager', 'operatorOnly', 'idempotencyKeys'] }
})
