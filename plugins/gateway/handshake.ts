// Everything that can refuse an upgrade, in the order of its cost: the request's form, draining,
// the subprotocols, the origin, the credentials, the quotas. It runs before the upgrade, so a
// refusal is an HTTP answer and no socket is ever opened for it (P-4).
//
// Node checks little of an upgrade: without `checkForm`, HTTP/1.0, two Host headers, or a body that
// is then read as frames would get through.

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import {
  checkPrincipal, readRefusal, type Authenticate, type AuthRequest, type Principal, type Refusal
} from '../../src/auth/authenticate.js'
import { isLoopbackHost } from '../../src/loopback.js'
import { HoldfastError, type ErrorCode } from '../../src/io/errors.js'
import { closeOf } from '../../src/io/gateway/closing.js'
import { createLineLimiter } from '../../src/io/gateway/line-limiter.js'
import { createTurnstile } from '../../src/io/gateway/turnstile.js'
import { addressOfPeer } from '../../src/io/names/address.js'
import { canonicalOrigin, createOriginMatcher, isOriginOfHost } from '../../src/io/names/origin.js'
import { readContext } from '../../src/io/session/context.js'
import { readHandshake, type Handshake } from '../../src/io/protocol/handshake.js'
import type { Entrance, Entry, EntryRequest } from '../../src/io/session/entry.js'
import { isPromise } from '../../src/io/maybe-promise.js'
import type { Clock, MaybePromise, Millis } from '../../src/io/types.js'

/** A handshake that may be upgraded, be it only to tell the client why it is refused (P-53). */
export interface Upgrade {
  readonly handshake: Handshake
  readonly identity: Principal | HoldfastError
  /** The session; absent where the client is refused. */
  readonly entry?: Entry
  readonly response: ServerResponse
}

export interface HandshakeOptions {
  entrance: Entrance
  /** Of a new session. */
  maxContextBytes: number
  authenticate: Authenticate
  /** Entries as of src/io/names/origin.ts. */
  allowedOrigins: readonly string[]
  /**
   * Browsers have to call the server by a loopback name; for servers that take everybody on this
   * machine for the placeholder user.
   */
  loopbackHostOnly: boolean
  clock: Clock
  /**
   * When a client that was refused for a quota may come back: a connection whose peer is gone has
   * been found by then.
   */
  deadPeerMs: Millis
  /** How long `authenticate` may take: the socket is open meanwhile, and nobody owns it. */
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

/** About three milliseconds of handshakes between two looks at everything else. */
const PER_TURN = 16
/**
 * A line for each handshake that fails for one and the same reason would fill the disk during an
 * outage.
 */
const LOG_EVERY_MS = 60_000
/** About a second of waiting handshakes; those beyond are told to come back. */
const MAX_WAITING = 4096

export function createHandshakeCheck (options: HandshakeOptions): HandshakeCheck {
  const { entrance, clock, isDraining } = options
  const turnstile = createTurnstile({
    perTurn: PER_TURN,
    maxWaiting: MAX_WAITING,
    yieldTurn: setImmediate,
    random: Math.random
  })
  const pending = new Set<(reason: HoldfastError) => void>()
  const isAllowed = createOriginMatcher(options.allowedOrigins)
  const suppressedLines = createLineLimiter(clock, LOG_EVERY_MS)

  function identify (request: FastifyRequest, token: string | undefined): MaybePromise<Principal> {
    const { headers, url } = request
    try {
      const asked: AuthRequest = { token, headers, address: addressOfPeer(request), url, request }
      const answer = options.authenticate(asked)
      if (!isPromise(answer)) return vet(answer)
      return withinTime(answer, 'AUTH_UNAVAILABLE').then(vet).catch(error => { throw translate(request, error, token) })
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
    if (principal.context !== undefined) readSeed(principal.context, options.maxContextBytes)
    return principal
  }

  /** Lets go of the wait once it is decided, whether the answer ever comes or not. */
  function withinTime<T> (answer: PromiseLike<T>, late: 'AUTH_UNAVAILABLE' | 'STORE_UNAVAILABLE'): Promise<T> {
    const { promise, resolve, reject } = withResolvers<T>()
    const timer = setTimeout(() => reject(new HoldfastError(late, { retryAfterMs: 1000 })), options.authTimeoutMs)
    const release = (): void => {
      clearTimeout(timer)
      pending.delete(reject)
    }
    pending.add(reject)
    promise.then(release, release)
    answer.then(resolve, reject)
    return promise
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

  /**
   * Browsers send an Origin, and no CORS rule protects a WebSocket: a foreign page must not speak
   * for its visitor.
   */
  function checkOrigin ({ headers: { origin: text, host }, host: forwardedHost }: FastifyRequest): void {
    if (text === undefined) return
    const origin = canonicalOrigin(text)
    if (isAllowed(origin ?? '')) return
    // A trusted proxy may have put another name into Host; then it says which one the page used.
    const own = origin === undefined ? undefined : [host, forwardedHost].find(name => isOriginOfHost(origin, name))
    // A page whose name was made to resolve to this machine is its own origin too.
    if (own !== undefined && (!options.loopbackHostOnly || isLoopbackHost(own))) return
    throw new HoldfastError('ORIGIN_FORBIDDEN')
  }

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

  return {
    check (request, reply, done) {
      let offer: Handshake | undefined
      function refuse (reason: unknown): void {
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
      function admit (handshake: Handshake, principal: Principal): MaybePromise<void> {
        if (isDraining()) throw new HoldfastError('DRAINING', { retryAfterMs: 1000 })
        // Nobody is there any more to be given a session.
        if (request.raw.socket?.destroyed) throw new HoldfastError('BAD_HANDSHAKE')
        const entry = entrance.enter(entryRequest(handshake, principal))
        const upgrade = (given: Entry): void => {
          request.upgrade = { handshake, identity: principal, entry: given, response: reply.raw }
        }
        if (!isPromise(entry)) return upgrade(entry)
        return withinTime(entry, 'STORE_UNAVAILABLE').then(upgrade)
      }
      try {
        const handshake = readOffer(request)
        const turn = turnstile.pass()
        offer = handshake
        if (isDraining()) throw new HoldfastError('DRAINING', { retryAfterMs: 1000 })
        const bearer = bearerOf(request.headers.authorization)
        if (bearer === undefined && handshake.isTokenMalformed) throw malformedToken()
        const token = bearer ?? handshake.token
        const principal = turn === undefined ? identify(request, token) : turn.then(() => identify(request, token))
        if (isPromise(principal)) {
          principal.then(known => admit(handshake, known)).then(() => done(), refuse)
          return
        }
        const admission = admit(handshake, principal)
        if (isPromise(admission)) {
          admission.then(() => done(), refuse)
          return
        }
      } catch (error) {
        refuse(error)
        return
      }
      // Outside: `done` runs the rest of the request, whose errors are not refusals.
      done()
    },

    refusePending () {
      for (const reject of pending) reject(new HoldfastError('DRAINING', { retryAfterMs: 1000 }))
    }
  }
}

/** P-3c: whoever sent this meant to say who he is, so he is not let in as nobody either. */
function malformedToken (): HoldfastError {
  return new HoldfastError('UNAUTHENTICATED', { message: 'The auth entry is not base64url; see docs/protocol.md P-3.' })
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

/** Throws a TypeError: that it is too large is no fault of the client's. */
function readSeed (context: unknown, maxBytes: number): void {
  try {
    readContext(context, maxBytes)
  } catch (cause) {
    throw new TypeError(`the context of a new session: ${(cause as Error).message}`, { cause })
  }
}

/** `Promise.withResolvers`, which Node has from version 22 on. */
function withResolvers<T> (): { promise: Promise<T>, resolve: (value: T) => void, reject: (reason: unknown) => void } {
  let resolve: (value: T) => void = () => {}
  let reject: (reason: unknown) => void = () => {}
  const promise = new Promise<T>((_resolve, _reject) => {
    resolve = _resolve
    reject = _reject
  })
  return { promise, resolve, reject }
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

/** 16 bytes in base64 (RFC 6455, section 4.2.1). */
const KEY = /^[+/0-9A-Za-z]{22}==$/

function checkForm (raw: IncomingMessage): void {
  const { headers } = raw
  if (headers.upgrade?.toLowerCase() !== 'websocket') throw new HoldfastError('UPGRADE_REQUIRED')
  const isWellFormed = raw.httpVersion === '1.1' && countHosts(raw.rawHeaders) === 1 &&
    headers['content-length'] === undefined && headers['transfer-encoding'] === undefined &&
    String(headers['sec-websocket-version']) === '13' && KEY.test(headers['sec-websocket-key'] ?? '')
  if (!isWellFormed) throw new HoldfastError('BAD_HANDSHAKE')
}

/** Node keeps the first of several; a request of `inject` has no raw headers. */
function countHosts (rawHeaders: readonly string[] | undefined): number {
  if (rawHeaders === undefined) return 1
  let hosts = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    if (name.length === 4 && name.toLowerCase() === 'host') hosts++
  }
  return hosts
}

function bearerOf (header: string | undefined): string | undefined {
  const [scheme = '', token, ...rest] = header?.split(' ') ?? []
  const isBearer = scheme.toLowerCase() === 'bearer' && token !== undefined && token !== '' && rest.length === 0
  return isBearer ? token : undefined
}
