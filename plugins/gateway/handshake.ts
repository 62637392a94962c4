// Everything that can refuse an upgrade, in the order of its cost: the request's form, draining,
// the subprotocols, the origin, the credentials, the quotas. It runs before the upgrade, so a
// refusal is an HTTP answer and no socket is ever opened for it (P-4).

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Authenticate, Principal } from '../../src/auth/authenticate.js'
import { HoldfastError, type ErrorCode } from '../../src/io/errors.js'
import { closeOf } from '../../src/io/gateway/closing.js'
import { createTurnstile } from '../../src/io/gateway/turnstile.js'
import { isPromise } from '../../src/io/maybe-promise.js'
import { readHandshake, type Handshake } from '../../src/io/protocol/handshake.js'
import type { Entrance, Entry, EntryRequest } from '../../src/io/session/entry.js'
import type { Clock, MaybePromise, Millis } from '../../src/io/types.js'
import { createAwaitedAnswers } from './awaited-answers.js'
import { createCredentials, tokenOf } from './credentials.js'
import { checkForm } from './handshake-form.js'
import { createOriginCheck, type OriginCheckOptions } from './page-origin.js'

/** A handshake that may be upgraded, be it only to tell the client why it is refused (P-53). */
export interface Upgrade {
  readonly handshake: Handshake
  readonly identity: Principal | HoldfastError
  /** The session; absent where the client is refused. */
  readonly entry?: Entry
  readonly response: ServerResponse
}

export interface HandshakeOptions extends OriginCheckOptions {
  entrance: Entrance
  /** Of a new session. */
  maxContextBytes: number
  authenticate: Authenticate
  clock: Clock
  /**
   * When a client that was refused for a quota may come back: a connection whose peer is gone has
   * been found by then.
   */
  deadPeerMs: Millis
  /** How long `authenticate` may take. */
  authTimeoutMs: Millis
  isDraining: () => boolean
  /** Whether a request is one that can be upgraded. */
  isHandshake: (request: IncomingMessage) => boolean
}

export interface HandshakeCheck {
  /**
   * A preValidation hook with a callback: a handshake that nothing has to wait for is judged
   * without a promise.
   */
  check(request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void): void
  /**
   * Refuses the handshakes whose credentials are being checked; without it an `authenticate` that
   * hangs would hold up a close.
   */
  refusePending(): void
}

interface Asking {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly done: (error?: Error) => void
}

/** About three milliseconds of handshakes between two looks at everything else. */
const PER_TURN = 16
/** About a second of waiting handshakes; those beyond are told to come back. */
const MAX_WAITING = 4096

export function createHandshakeCheck (options: HandshakeOptions): HandshakeCheck {
  const { entrance, authenticate, maxContextBytes, clock, isDraining } = options
  const turnstile = createTurnstile({
    perTurn: PER_TURN,
    maxWaiting: MAX_WAITING,
    yieldTurn: setImmediate,
    random: Math.random
  })
  const awaited = createAwaitedAnswers(options.authTimeoutMs)
  const { identify } = createCredentials({ authenticate, maxContextBytes, clock, awaited })
  const checkOrigin = createOriginCheck(options)

  /** What is judged before anybody waits. */
  function readOffer (request: FastifyRequest): Handshake {
    const { headers } = request
    if (!options.isHandshake(request.raw)) throw new HoldfastError('UPGRADE_REQUIRED')
    checkForm(request.raw)
    const handshake = readHandshake(headers['sec-websocket-protocol'])
    if (handshake === undefined) throw new HoldfastError('SUBPROTOCOL_UNSUPPORTED')
    checkOrigin(request)
    return handshake
  }

  /** Gives a client that may come in its session. */
  function admit (asking: Asking, handshake: Handshake, principal: Principal): MaybePromise<void> {
    if (isDraining()) throw new HoldfastError('DRAINING', { retryAfterMs: 1000 })
    const { request, reply: { raw: response } } = asking
    // Nobody is there any more to be given a session.
    if (request.raw.socket?.destroyed) throw new HoldfastError('BAD_HANDSHAKE')
    const entry = entrance.enter(entryRequest(handshake, principal))
    if (isPromise(entry)) {
      return awaited.withinTime(entry, 'STORE_UNAVAILABLE').then(given => {
        request.upgrade = { handshake, identity: principal, entry: given, response }
      })
    }
    request.upgrade = { handshake, identity: principal, entry, response }
  }

  function refuse ({ request, reply, done }: Asking, offer: Handshake | undefined, reason: unknown): void {
    const error = withRetryTime(reason, options.deadPeerMs)
    // A page must not be told more than CORS would let it see, and a flood is answered in the
    // cheapest way: both by HTTP.
    if (offer?.wantsGoodbye === true && error instanceof HoldfastError && closeOf(error) !== undefined) {
      request.upgrade = { handshake: offer, identity: error, response: reply.raw }
      done()
      return
    }
    if (error instanceof HoldfastError) addHeaders(reply, error)
    done(error as Error)
  }

  return {
    check (request, reply, done) {
      const asking = { request, reply, done }
      let offer: Handshake | undefined
      try {
        const handshake = readOffer(request)
        const turn = turnstile.pass()
        offer = handshake
        if (isDraining()) throw new HoldfastError('DRAINING', { retryAfterMs: 1000 })
        const token = tokenOf(request.headers.authorization, handshake)
        const principal = turn === undefined ? identify(request, token) : turn.then(() => identify(request, token))
        if (isPromise(principal)) {
          principal.then(known => admit(asking, handshake, known))
            .then(() => done(), error => refuse(asking, handshake, error))
          return
        }
        const admission = admit(asking, handshake, principal)
        if (isPromise(admission)) {
          admission.then(() => done(), error => refuse(asking, handshake, error))
          return
        }
      } catch (error) {
        refuse(asking, offer, error)
        return
      }
      // Outside: `done` runs the rest of the request, whose errors are not refusals.
      done()
    },

    refusePending () {
      awaited.refuseAll(new HoldfastError('DRAINING', { retryAfterMs: 1000 }))
    }
  }
}

function entryRequest ({ profile, resume }: Handshake, { userId, labels, context }: Principal): EntryRequest {
  return {
    profile,
    userId,
    ...(labels === undefined ? {} : { labels }),
    ...(context === undefined ? {} : { context }),
    ...(resume === undefined ? {} : { resume })
  }
}

/**
 * Only attached sessions refuse for a quota (P-54), and how long people keep theirs open is not
 * known; when dead ones are found is.
 */
function withRetryTime (error: unknown, deadPeerMs: Millis): unknown {
  const isQuota = error instanceof HoldfastError && (error.code === 'USER_QUOTA' || error.code === 'SERVER_FULL')
  return isQuota ? new HoldfastError(error.code as ErrorCode, { retryAfterMs: deadPeerMs }) : error
}

/**
 * What a refusal says in headers: when to come back (P-4), or what to ask for (RFC 9110, section
 * 15.5.22).
 */
function addHeaders (reply: FastifyReply, error: HoldfastError): void {
  if (error.retryAfterMs !== undefined) void reply.header('retry-after', Math.ceil(error.retryAfterMs / 1000))
  if (error.code === 'UPGRADE_REQUIRED') void reply.header('upgrade', 'websocket')
  if (error.code === 'BAD_HANDSHAKE') void reply.header('sec-websocket-version', '13')
}
