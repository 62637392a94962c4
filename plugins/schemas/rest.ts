// The shapes of the REST API, once: what the routes of plugins/*-api.ts take and answer, and how a
// view of the domain becomes JSON. Schemas with an $id are components of the OpenAPI document; they
// are used in answers only, since the request validator resolves no references. Times are ISO 8601
// texts here and milliseconds everywhere else. No shape has room for a token.

import type { FastifyInstance } from 'fastify'
import { Type, type Static, type TSchema } from 'typebox'
import { HoldfastError, type ErrorCode } from '../../src/io/errors.js'
import { MAX_USER_ID, userIdProblem } from '../../src/io/names/ids.js'
import type { EndReason, JsonValue, Millis, SessionView, UserId } from '../../src/io/types.js'
import { errorBody } from './error-answer.js'

/**
 * `$id`s start with it so that they cannot meet those of a host application; the OpenAPI document
 * leaves it out.
 */
export const SCHEMA_PREFIX = 'holdfast.'
export const MAX_PAGE = 500
export const DEFAULT_PAGE = 50
const MAX_NOTE_CHARACTERS = 256

const Time = (description: string) => Type.String({ format: 'date-time', description })
const Count = (description: string) => Type.Integer({ minimum: 0, description })

/**
 * A choice of words. The type is said too, since the page at /docs shows choices without one as
 * "any".
 */
export function Words<const W extends string[]> (words: [...W], description?: string) {
  return Type.Enum(words, { type: 'string', ...(description === undefined ? {} : { description }) })
}

export const EndReasonSchema = Words([
  'idle', 'resume_window', 'ended_by_client', 'ended_by_operator', 'disconnected', 'quota', 'overloaded', 'state_lost',
  'shutdown'
] satisfies EndReason[])

export const SessionSchema = Type.Object({
  id: Type.String({ description: 'Public: it opens nothing, and is safe to log.' }),
  userId: Type.String(),
  state: Words(['active', 'detached'], 'active: a connection is attached.'),
  profile: Words(['basic', 'full'], 'full: the client speaks holdfast.v1 (P-2).'),
  createdAt: Time('When the session was created.'),
  lastActivityAt: Time('Last accepted command or dispatched output (P-40). Reading it here changes nothing.'),
  detachedAt: Type.Union([Time('When its connection left.'), Type.Null()]),
  labels: Type.Object({}, {
    additionalProperties: true,
    description: 'What the credentials of the latest handshake say of the user, such as roles.'
  }),
  context: Type.Object({}, { additionalProperties: true, description: 'What the platform keeps with the session.' }),
  revision: Count('Lifecycle events of this session so far.'),
  lastSeq: Count('Highest seq given (P-20).'),
  outboxMessages: Count('Outputs held until acknowledged (P-23).'),
  outboxBytes: Count('Their size.'),
  lastCommand: Count('Highest numbered command accepted (P-11).'),
  inFlight: Count('Commands accepted and not yet answered.'),
  dropped: Count('Outputs dropped unacknowledged (P-25).')
}, { $id: `${SCHEMA_PREFIX}Session` })

export const ErrorSchema = Type.Object({
  statusCode: Type.Integer(),
  code: Type.String({ description: 'Stable; see docs/errors.md.' }),
  error: Type.String({ description: 'The name of the status.' }),
  message: Type.String({ description: 'A sentence for a human.' })
}, { $id: `${SCHEMA_PREFIX}Error` })

export const EndedErrorSchema = Type.Object({
  ...ErrorSchema.properties,
  reason: EndReasonSchema,
  endedAt: Type.Optional(Time('When the session ended.')),
  note: Type.Optional(Type.String({ description: 'The reason an operator gave.' }))
}, { $id: `${SCHEMA_PREFIX}EndedError` })

const SessionRef = Type.Unsafe<SessionJson>(Type.Ref(`${SCHEMA_PREFIX}Session#`))

export type SessionJson = Static<typeof SessionSchema>

export const SessionAnswer = Type.Unsafe<SessionJson>(Type.Ref(
  `${SCHEMA_PREFIX}Session#`, { description: 'The session.' }
))
export const DoneAnswer = Type.Null({ description: 'Succeeded; no content.' })
export const PageAnswer = Type.Object({
  data: Type.Array(SessionRef),
  nextCursor: Type.Union(
    [Type.String(), Type.Null()], { description: 'Null on the last page. A page may be short and still have one.' }
  )
}, { description: 'A page of sessions.' })
export const StatsAnswer = Type.Object({
  active: Count('Sessions with a connection.'),
  detached: Count('Sessions without a connection.'),
  total: Count('All sessions.'),
  outboxBytes: Count('Outputs held, over all sessions.'),
  totals: Type.Object({
    created: Count('Sessions created.'),
    ended: Type.Object(
      Object.fromEntries(EndReasonSchema.enum.map(reason => [
        reason, Count('')
      ])) as Record<EndReason, ReturnType<typeof Count>>
    ),
    attached: Count('Connections that joined a session.'),
    detached: Count('Connections that left one.'),
    resumed: Count('Resumes granted.'),
    resumeRefused: Count('Resumes refused.'),
    outputs: Count('Outputs given a seq.'),
    outputsDropped: Count('Outputs dropped unacknowledged.')
  }, { description: 'Since this node started.' })
}, { description: 'Counts of this node.' })

export const SessionParams = Type.Object({ id: Type.String({ minLength: 1, maxLength: MAX_USER_ID }) })
export const UserParams = Type.Object({ userId: Type.String({ minLength: 1, maxLength: MAX_USER_ID }) })
export const Note = Type.Optional(Type.String({
  minLength: 1,
  maxLength: MAX_NOTE_CHARACTERS,
  description: 'Why, for the log and for the 410 that follows.'
}))
export const PageLimit = Type.Optional(Type.Integer({
  minimum: 1, maximum: MAX_PAGE, description: `Default ${DEFAULT_PAGE}.`
}))
export const PageCursor = Type.Optional(Type.String({
  minLength: 1,
  maxLength: 256,
  description: 'nextCursor of the page before, with the same filters and sort.'
}))
export const IdQuery = Type.String({ minLength: 1, maxLength: MAX_USER_ID })
export const NoQuery = Type.Object({}, { additionalProperties: false })

/**
 * Bare, or as a string of structured fields (RFC 9651), which the draft of the header asks for. A
 * comma would be two headers.
 */
const KEY = /^(?:"[\x20\x21\x23-\x5b\x5d-\x7e]{1,255}"|[\x21\x23-\x2b\x2d-\x7e]{1,255})$/

export const MessageHeaders = Type.Object({
  'idempotency-key': Type.Optional(Type.String({
    pattern: KEY.source,
    description: 'Chosen by the caller for this message: 1 to 255 visible characters. A repeat with the same key ' +
      'sends nothing and gets the first answer, for HOLDFAST_IDEMPOTENCY_KEY_SECONDS.'
  }))
})

export const MessageBody = Type.Object({
  event: Type.String({ minLength: 1, maxLength: 128 }),
  payload: Type.Optional(Type.Unsafe<JsonValue>(Type.Unknown({ description: 'Any JSON; absent means null.' }))),
  behind: Type.Optional(Type.Boolean({
    description: 'It is sent, and answered, without waiting for the store, and may be lost with its node (P-55).'
  }))
}, { additionalProperties: false })

/** The codes behind each status of the API. */
const CODES_OF_STATUS = {
  400: ['INVALID_REQUEST', 'INVALID_CURSOR'],
  401: ['OPERATOR_REQUIRED'],
  403: ['HOST_FORBIDDEN', 'FORBIDDEN'],
  404: ['SESSION_NOT_FOUND'],
  409: ['NOT_ATTACHED', 'IDEMPOTENCY_KEY_IN_USE'],
  410: ['SESSION_ENDED'],
  413: ['PAYLOAD_TOO_LARGE', 'CONTEXT_TOO_LARGE'],
  422: ['IDEMPOTENCY_KEY_REUSED'],
  429: ['TOO_MANY_REQUESTS', 'TOO_MANY_KEYS'],
  500: ['INTERNAL'],
  503: ['SERVER_FULL', 'STORE_UNAVAILABLE']
} as const satisfies Record<number, ErrorCode[]>

type ErrorStatus = keyof typeof CODES_OF_STATUS
type ErrorAnswers<S extends number> = Record<S | 400 | 401 | 403 | 429 | 500 | 503, TSchema>

/** Answers with these statuses, beside those that any route of the API may give. */
export function errorAnswers<S extends ErrorStatus = never> (...statuses: S[]): ErrorAnswers<S> {
  const answers: Record<number, TSchema> = {}
  for (const status of [400, 401, 403, 429, 500, 503, ...statuses] as const) {
    answers[status] = errorAnswer(CODES_OF_STATUS[status]) as unknown as TSchema
  }
  return answers as ErrorAnswers<S>
}

/**
 * Describes the answer with one of these codes, each by an example of its own; without those every
 * page shows the same made-up one.
 */
export function errorAnswer (codes: readonly ErrorCode[]) {
  const isEnd = codes.includes('SESSION_ENDED')
  const examples = codes.map(code => {
    const details = isEnd ? { reason: 'idle', endedAt: '2026-01-01T12:00:00.000Z' } : undefined
    return [code, { value: errorBody(new HoldfastError(code, details === undefined ? {} : { details })) }]
  })
  const schema = Type.Ref(`${SCHEMA_PREFIX}${isEnd ? 'EndedError' : 'Error'}#`)
  return {
    description: codes.join(', '),
    content: { 'application/json': { schema, examples: Object.fromEntries(examples) } }
  }
}

/** Makes the components known to a scope. */
export function addRestSchemas (scope: FastifyInstance): void {
  for (const schema of [SessionSchema, ErrorSchema, EndedErrorSchema]) scope.addSchema(schema)
}

export function toSessionJson (view: SessionView): SessionJson {
  return {
    id: view.id,
    userId: view.userId,
    state: view.state === 'active' ? 'active' : 'detached',
    profile: view.profile,
    createdAt: toIso(view.createdAt),
    lastActivityAt: toIso(view.lastActivityAt),
    detachedAt: view.detachedAt === null ? null : toIso(view.detachedAt),
    labels: view.labels,
    context: view.context,
    revision: view.revision,
    lastSeq: view.lastSeq,
    outboxMessages: view.outboxMessages,
    outboxBytes: view.outboxBytes,
    lastCommand: view.lastCommand,
    inFlight: view.inFlight,
    dropped: view.dropped
  }
}

export function toIso (at: Millis): string {
  return new Date(at).toISOString()
}

/**
 * @throws INVALID_REQUEST  for a text that nobody's id can be; an empty list would look like a user
 * without sessions
 */
export function readUserId (part: 'path' | 'query', userId: string): UserId {
  const problem = userIdProblem(userId)
  if (problem !== undefined) {
    throw new HoldfastError('INVALID_REQUEST', { message: `The ${part} is not valid: /userId ${problem}.` })
  }
  return userId
}

/** @throws INVALID_REQUEST  for what has the form of a time and is none, such as a leap second */
export function readTime (name: string, text: string): Millis {
  const at = Date.parse(text)
  if (Number.isNaN(at)) {
    throw new HoldfastError('INVALID_REQUEST', { message: `The query is not valid: /${name} is not a time.` })
  }
  return at
}
