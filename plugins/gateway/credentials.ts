// Who is asking: the token of a handshake, the answer of `authenticate`, and what is said and
// logged when there is none. An `authenticate` that answers at once costs no promise.

import type { FastifyRequest } from 'fastify'
import {
  checkPrincipal, readRefusal, type Authenticate, type AuthRequest, type Principal, type Refusal
} from '../../src/auth/authenticate.js'
import { HoldfastError } from '../../src/io/errors.js'
import { createLineLimiter } from '../../src/io/gateway/line-limiter.js'
import { isPromise } from '../../src/io/maybe-promise.js'
import { addressOfPeer } from '../../src/io/names/address.js'
import type { Handshake } from '../../src/io/protocol/handshake.js'
import { readContext } from '../../src/io/session/context.js'
import type { Clock, MaybePromise } from '../../src/io/types.js'
import type { AwaitedAnswers } from './awaited-answers.js'

export interface CredentialsOptions {
  authenticate: Authenticate
  /** Of a new session. */
  maxContextBytes: number
  clock: Clock
  awaited: Pick<AwaitedAnswers, 'withinTime'>
}

export interface Credentials {
  /** Throws, or rejects with, what `authenticate` refused, or AUTH_UNAVAILABLE. */
  identify(request: FastifyRequest, token: string | undefined): MaybePromise<Principal>
}

/**
 * A line for each handshake that fails for one and the same reason would fill the disk during an
 * outage.
 */
const LOG_EVERY_MS = 60_000

export function createCredentials (options: CredentialsOptions): Credentials {
  const { authenticate, maxContextBytes, clock, awaited } = options
  const suppressedLines = createLineLimiter(clock, LOG_EVERY_MS)

  function identify (request: FastifyRequest, token: string | undefined): MaybePromise<Principal> {
    const { headers, url } = request
    try {
      const asked: AuthRequest = { token, headers, address: addressOfPeer(request), url, request }
      const answer = authenticate(asked)
      if (!isPromise(answer)) return vet(answer)
      return awaited.withinTime(answer, 'AUTH_UNAVAILABLE').then(vet)
        .catch(error => { throw translate(request, error, token) })
    } catch (error) {
      throw translate(request, error, token)
    }
  }

  function vet (answer: Principal | Refusal): Principal {
    const principal = checkPrincipal(answer)
    // Let in, it would be told at once to come back with fresh credentials, and a client without
    // any would do so for ever.
    if (principal.expiresAt !== undefined && principal.expiresAt <= clock.wall()) {
      throw new HoldfastError('UNAUTHENTICATED')
    }
    // Found here and not when the session is made: by then the socket would be open.
    if (principal.context !== undefined) readSeed(principal.context, maxContextBytes)
    return principal
  }

  /** Refusals go on as they are; whatever else an `authenticate` throws is for the log alone. */
  function translate (request: FastifyRequest, thrown: unknown, token: string | undefined): HoldfastError {
    const error = thrown instanceof HoldfastError ? thrown : readRefusal(thrown, token) ?? thrown
    // The reason is in the cause, for operators alone. A bad token is everyday; an outage is theirs
    // to mend.
    if (error instanceof HoldfastError && error.code !== 'AUTH_UNAVAILABLE') {
      request.log.debug({ err: error }, 'credentials refused')
      return error
    }
    const isOutage = error instanceof HoldfastError
    const suppressed = suppressedLines(isOutage ? 'outage' : 'failure')
    if (suppressed === undefined) request.log.debug({ err: error }, 'credentials still cannot be checked')
    else if (isOutage) request.log.warn({ err: error, suppressed }, 'credentials could not be checked')
    else request.log.error({ err: error, suppressed }, 'authenticate failed')
    return isOutage ? error : new HoldfastError('AUTH_UNAVAILABLE', { cause: error, retryAfterMs: 1000 })
  }

  return { identify }
}

/**
 * The token of a handshake: of its Authorization header, or else of its `auth` entry.
 *
 * @throws UNAUTHENTICATED  P-3c: whoever sent a malformed one meant to say who he is, so he is not
 *   let in as nobody either
 */
export function tokenOf (header: string | undefined, handshake: Handshake): string | undefined {
  const bearer = bearerOf(header)
  if (bearer === undefined && handshake.isTokenMalformed) {
    const message = 'The auth entry is not base64url; see docs/protocol.md P-3.'
    throw new HoldfastError('UNAUTHENTICATED', { message })
  }
  return bearer ?? handshake.token
}

function bearerOf (header: string | undefined): string | undefined {
  const [scheme = '', token, ...rest] = header?.split(' ') ?? []
  const isBearer = scheme.toLowerCase() === 'bearer' && token !== undefined && token !== '' && rest.length === 0
  return isBearer ? token : undefined
}

/** Throws a TypeError: that it is too large is no fault of the client's. */
function readSeed (context: unknown, maxBytes: number): void {
  try {
    readContext(context, maxBytes)
  } catch (cause) {
    throw new TypeError(`the context of a new session: ${(cause as Error).message}`, { cause })
  }
}
