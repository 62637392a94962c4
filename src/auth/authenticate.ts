// Who is on the other end of a handshake. The gateway takes the token out of the handshake (P-3), asks an Authenticate function before the
// upgrade (P-4) and again at each resume (P-29), and passes what it returns through checkPrincipal. This file holds the types, the check and
// the placeholder; src/auth/jwt.ts is the real one, and an application may hand in its own. What a user may do is not decided here.

import type { IncomingHttpHeaders } from 'node:http'
import { HoldfastError } from '../io/errors.js'
import { userIdProblem } from '../io/names/ids.js'
import type { MaybePromise, Millis, UserId } from '../io/types.js'

export interface AuthRequest {
  /** The credential of P-3: from the Authorization header, else from the `auth.` subprotocol entry; undefined if there is none. */
  token: string | undefined
  /** As Node.js read them; may hold the token as well. */
  headers: IncomingHttpHeaders
  /** Address of the peer, after trusted proxies. */
  address: string
  /** Path and query of the request. Never a place for credentials (P-3). */
  url: string
}

export interface Principal {
  /** What src/io/names/ids.ts lets pass: 1–128 characters that can be seen, and no path segment of dots. */
  userId: UserId
  /** When the credential ends, in milliseconds since 1970-01-01 UTC; the connection is closed with 4202 then (P-47). Absent: never. */
  expiresAt?: Millis
}

/**
 * Decides who sends a handshake.
 *
 * @throws UNAUTHENTICATED   the credential is missing or not valid; the client is told no more than that (401)
 * @throws AUTH_UNAVAILABLE  it could not be decided; the same handshake may succeed later
 */
export type Authenticate = (request: AuthRequest) => MaybePromise<Principal>

/** Takes everyone for one and the same user; for trying things out until authentication is configured. */
export function placeholderAuthenticator (userId: UserId = 'human_reviewer_1'): Authenticate {
  const principal = checkPrincipal({ userId })
  return () => principal
}

/**
 * The principal, if it is one. Every answer of an Authenticate function goes through here, since an application may bring its own.
 *
 * @throws UNAUTHENTICATED  the cause names the member that is wrong
 */
export function checkPrincipal (principal: Principal): Principal {
  const { userId, expiresAt } = principal ?? {}
  const problem = userIdProblem(userId)
  if (problem !== undefined) throw new HoldfastError('UNAUTHENTICATED', { cause: new TypeError(`userId ${problem}`) })
  if (expiresAt !== undefined && !Number.isFinite(expiresAt)) {
    throw new HoldfastError('UNAUTHENTICATED', { cause: new TypeError('expiresAt is not a finite number of milliseconds') })
  }
  return principal
}
