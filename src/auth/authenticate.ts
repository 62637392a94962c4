// Who is on the other end of a handshake. The gateway takes the token out of the handshake (P-3),
// asks an Authenticate function before the upgrade (P-4) and again at each resume (P-29), and
// passes what it returns through checkPrincipal. This file holds the types, the check and the
// placeholder; src/auth/jwt.ts is the real one, and an application may hand in its own. What a user
// may do is not decided here.

import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyRequest } from 'fastify'
import { HoldfastError } from '../io/errors.js'
import { userIdProblem } from '../io/names/ids.js'
import { readLabels } from '../io/session/context.js'
import type { JsonObject, MaybePromise, Millis, UserId } from '../io/types.js'

export interface AuthRequest {
  /**
   * The credential of P-3: from the Authorization header, else from the `auth.` subprotocol entry;
   * undefined if there is none.
   */
  token: string | undefined
  /** As Node.js read them; may hold the token as well. */
  headers: IncomingHttpHeaders
  /** Address of the peer, after trusted proxies. */
  address: string
  /** Path and query of the request. Never a place for credentials (P-3). */
  url: string
  /**
   * The handshake as Fastify has it after its onRequest hooks, for what other plugins add:
   * `request.cookies`, `request.session`, `request.jwtVerify()`.
   */
  request: FastifyRequest
}

export interface Principal {
  /**
   * What src/io/names/ids.ts lets pass: 1–128 characters that can be seen, and no path segment of
   * dots.
   */
  userId: UserId
  /**
   * When the credential ends, in milliseconds since 1970-01-01 UTC; the connection is closed with
   * 4202 then (P-47). Absent: never.
   */
  expiresAt?: Millis | undefined
  /**
   * What else the credentials say, such as `{ roles: ['reviewer'] }`: read by command handlers, by
   * `before` and by operators; up to 4096 bytes of JSON. They are as old as the handshake: each
   * resume replaces them, and where it has none, the session has none.
   */
  labels?: JsonObject | undefined
  /** The context that a new session starts with. A session that is resumed keeps its own. */
  context?: JsonObject | undefined
}

/** Nobody: the credentials are missing or not valid. */
export type Refusal = null | undefined | false

/**
 * Decides who sends a handshake. To refuse it, return null (or nothing), or throw an error whose
 * `statusCode` is 401 or 403, as other plugins do. The client is told no more than the status.
 *
 * @throws UNAUTHENTICATED   the credential is missing or not valid (401)
 * @throws FORBIDDEN         the credential is valid, and this user may not connect (403)
 * @throws AUTH_UNAVAILABLE  it could not be decided; the same handshake may succeed later (503)
 */
export type Authenticate = (request: AuthRequest) => MaybePromise<Principal | Refusal>

/**
 * Takes everyone for one and the same user; for trying things out until authentication is
 * configured.
 */
export function placeholderAuthenticator (userId: UserId = 'human_reviewer_1'): Authenticate {
  const principal = checkPrincipal({ userId })
  return () => principal
}

/**
 * The refusal that an error stands for, or undefined for an error that is an outage.
 *
 * By its `statusCode`, as every Fastify plugin has it; and, since JSON Web Token libraries throw
 * errors without one, by the codes with which these say that a token is not valid.
 */
export function readRefusal (error: unknown, token?: string): HoldfastError | undefined {
  const { statusCode, code, name } = (error ?? {}) as { statusCode?: unknown, code?: unknown, name?: unknown }
  if (statusCode === 403) return new HoldfastError('FORBIDDEN', { cause: error })
  // `app.jwt.verify(undefined)` asserts that there is a token.
  const isMissing = token === undefined && code === 'ERR_ASSERTION'
  const isRefusal = isMissing || statusCode === 401 || statusCode === 400 ||
    (typeof code === 'string' && TOKEN_REFUSED.test(code)) ||
    (typeof name === 'string' && JSONWEBTOKEN_REFUSED.has(name))
  return isRefusal ? new HoldfastError('UNAUTHENTICATED', { cause: error }) : undefined
}

/**
 * fast-jwt (`app.jwt.verify`) and jose; without those of their codes that blame a key or an option.
 */
const TOKEN_REFUSED = new RegExp('^(' +
  'FAST_JWT_(INVALID_(TYPE|ALGORITHM|CLAIM_TYPE|CLAIM_VALUE|SIGNATURE|PAYLOAD)|MALFORMED|INACTIVE|EXPIRED|' +
  'MISSING_(REQUIRED_CLAIM|SIGNATURE))|' +
  'ERR_JWT_(EXPIRED|INVALID|CLAIM_VALIDATION_FAILED)|ERR_JWS_(INVALID|SIGNATURE_VERIFICATION_FAILED)|' +
  'ERR_JOSE_ALG_NOT_ALLOWED)$')
const JSONWEBTOKEN_REFUSED = new Set(['JsonWebTokenError', 'TokenExpiredError', 'NotBeforeError'])

/**
 * The principal, if it is one. Every answer of an Authenticate function goes through here, since an
 * application may bring its own.
 *
 * @throws UNAUTHENTICATED  for nobody, and for a user id that cannot be; the cause names what is
 *                          wrong. TypeError for labels that are not JSON: a mistake of the
 *                          application
 */
export function checkPrincipal (principal: Principal | Refusal): Principal {
  if (principal === null || principal === undefined || principal === false) {
    throw new HoldfastError('UNAUTHENTICATED', { cause: new TypeError('authenticate named nobody') })
  }
  const { userId, expiresAt, labels, context } = principal
  const problem = userIdProblem(userId)
  if (problem !== undefined) throw new HoldfastError('UNAUTHENTICATED', { cause: new TypeError(`userId ${problem}`) })
  if (expiresAt !== undefined && !Number.isFinite(expiresAt)) {
    throw new HoldfastError(
      'UNAUTHENTICATED', { cause: new TypeError('expiresAt is not a finite number of milliseconds') }
    )
  }
  if (labels === undefined) return principal
  return { userId, expiresAt, labels: readLabels(labels), context }
}
