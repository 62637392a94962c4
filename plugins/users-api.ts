// REST for operators, many sessions at a time: all sessions of a user, and messages to a user or to everybody. The rules are those of sessions-api.ts.
// A user without sessions is no error: whether the user exists at all is not known here.

import { setImmediate } from 'node:timers/promises'
import fp from 'fastify-plugin'
import { Type } from 'typebox'
import type {} from './operator-auth.js'
import type {} from './session-manager.js'
import { bodyLimitOf, prepareRestScope, refuseDeepPayload } from './schemas/rest-scope.js'
import {
  DEFAULT_PAGE, MessageBody, NoQuery, Note, PageAnswer, PageCursor, PageLimit, SessionIdQuery, UserParams, errorAnswers, toSessionJson
} from './schemas/rest.js'

const EndedAnswer = Type.Object({ ended: Type.Integer({ minimum: 0 }) }, { description: 'How many sessions were ended.' })
const SentAnswer = Type.Object({ sessions: Type.Integer({ minimum: 0 }) }, { description: 'How many sessions it was sent to.' })

export default fp(async function usersApi (fastify) {
  const manager = fastify.sessionManager
  const scope = prepareRestScope(fastify)

  scope.get('/users/:userId/sessions', {
    schema: {
      summary: 'Lists the sessions of a user, page by page',
      description: 'Oldest first. A page is full, or the last one.',
      tags: ['users'],
      params: UserParams,
      querystring: Type.Object({ limit: PageLimit, cursor: PageCursor }, { additionalProperties: false }),
      response: { 200: PageAnswer, ...errorAnswers() }
    }
  }, async ({ params: { userId }, query: { limit = DEFAULT_PAGE, cursor } }) => {
    const page = manager.listSessions({ userId, limit, ...(cursor === undefined ? {} : { cursor }) })
    // A step looks at a bounded number of sessions, whosever they are; other events go between two of them.
    while (page.nextCursor !== null && page.data.length < limit) {
      await setImmediate()
      const step = manager.listSessions({ userId, limit: limit - page.data.length, cursor: page.nextCursor })
      page.data.push(...step.data)
      page.nextCursor = step.nextCursor
    }
    return { data: page.data.map(toSessionJson), nextCursor: page.nextCursor }
  })

  scope.delete('/users/:userId/sessions', {
    schema: {
      summary: 'Ends the sessions of a user',
      tags: ['users'],
      params: UserParams,
      querystring: Type.Object({ except: Type.Optional(SessionIdQuery), reason: Note }, { additionalProperties: false }),
      response: { 200: EndedAnswer, ...errorAnswers() }
    }
  }, async ({ params: { userId }, query: { except, reason }, log }) => {
    const ended = manager.terminateUser(userId, except, reason)
    log.info({ userId, except, note: reason, ended }, 'sessions of user ended by operator')
    return { ended }
  })

  scope.post('/users/:userId/messages', {
    bodyLimit: bodyLimitOf(manager),
    schema: {
      summary: 'Sends a message to every session of a user',
      tags: ['messages'],
      params: UserParams,
      querystring: NoQuery,
      body: MessageBody,
      response: { 202: SentAnswer, ...errorAnswers(413) }
    },
    preHandler: refuseDeepPayload
  }, async ({ params: { userId }, body: { event, payload = null } }, reply) => {
    const { sessions } = manager.send({ userId }, event, payload)
    return reply.code(202).send({ sessions })
  })

  scope.post('/messages', {
    bodyLimit: bodyLimitOf(manager),
    schema: {
      summary: 'Sends a message to every session',
      tags: ['messages'],
      querystring: NoQuery,
      body: MessageBody,
      response: { 202: SentAnswer, ...errorAnswers(413) }
    },
    preHandler: refuseDeepPayload
  }, async ({ body: { event, payload = null }, log }, reply) => {
    const { sessions } = manager.send({ all: true }, event, payload)
    log.info({ sessions }, 'message sent to every session by operator')
    return reply.code(202).send({ sessions })
  })
}, {
  name: 'holdfast/users-api',
  fastify: '5.x',
  encapsulate: true,
  dependencies: ['holdfast/session-manager', 'holdfast/operator-auth'],
  decorators: { fastify: ['sessionManager', 'operatorOnly'] }
})
