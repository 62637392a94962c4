// Decides who is an operator. With a token: whoever sends it as `Authorization: Bearer`, compared
// in constant time. Without one: only who sits on this machine, and asks it for itself. Decorates
// the instance with `operatorOnly(scope)`, which puts every route of a scope behind that decision:
// no caching, then the rate limit, so that guesses are counted too, then the decision. Grants no
// CORS, and never reads the URL.
//
// Without a token a browser on this machine is the danger: a page of another site may send requests
// to loopback addresses, and may have its own name resolve to 127.0.0.1. Hence the checks of Host,
// of Origin and of Sec-Fetch-Site; and since a proxy on this machine makes everybody local,
// whatever a proxy has forwarded is refused.

import bearerAuth from '@fastify/bearer-auth'
import type {} from '@fastify/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest, onRequestHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import type { Clock } from '../src/io/types.js'
import {
  createIdempotencyKeys, type IdempotencyKeys, type OperatorLimits
} from '../src/io/operators/idempotency-keys.js'
import { completeOperatorLimits, likeOption, type Given } from '../src/limits.js'
import { isLoopbackAddress, isLoopbackHost, isLoopbackName } from '../src/loopback.js'
import { aClock, anObject, checkPluginOptions, hidden, type OptionCheck } from '../src/option-checks.js'
import { HoldfastError } from '../src/io/errors.js'
import { addressOfPeer, canonicalAddress, limitKeyOf } from '../src/io/names/address.js'
import { canonicalOrigin, isOriginOfHost } from '../src/io/names/origin.js'
import { systemClock } from '../src/system-clock.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** Lets only operators to the routes of this scope; call it before they are declared. */
    operatorOnly(scope: FastifyInstance): void
    /** Requests that carried an Idempotency-Key, over all routes of operators. */
    idempotencyKeys: IdempotencyKeys
  }
}

export interface OperatorAuthOptions {
  /**
   * The operators' secret; 1 or more printable ASCII characters. Without it the API answers
   * loopback only.
   */
  adminToken?: string
  /** The address the server listens on. Anything but a loopback address needs a token. */
  host: string
  /**
   * Requests per minute and address over all routes of operators, refused ones included; needs
   * @fastify/rate-limit. Default: no limit.
   */
  requestsPerMinute?: number
  /** Partial; the rest are the server's defaults. */
  limits?: Given<OperatorLimits>
  clock?: Clock
}

const isString = (value: unknown): boolean => typeof value === 'string'
const CHECKS: Record<keyof OperatorAuthOptions, OptionCheck> = {
  // Which texts they may be is said below, with what to do.
  adminToken: hidden({ is: isString, expected: 'a text' }),
  host: { is: isString, expected: 'the address that the server listens on', required: true },
  requestsPerMinute: likeOption('requestsPerMinute'),
  limits: anObject,
  clock: aClock
}

const MINUTE_MS = 60_000
/**
 * Verbs that change nothing; a page of another site may send them, since without CORS it cannot
 * read the answer.
 */
const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS'])
const FORWARDING_HEADERS = ['forwarded', 'x-forwarded-for', 'x-forwarded-host', 'x-real-ip', 'via'] as const

export default fp<OperatorAuthOptions>(async function operatorAuth (fastify, options) {
  checkPluginOptions('holdfast/operator-auth', options, CHECKS)
  const { adminToken, host, requestsPerMinute, limits, clock = systemClock } = options
  if (fastify.hasDecorator('operatorOnly')) throw misused('The plugin holdfast/operator-auth is registered twice.')
  if (adminToken === undefined && !isLoopbackName(host)) {
    throw misused(
      `Without an operator token the operator API must not listen on ${JSON.stringify(host)}; set ` +
        'HOLDFAST_ADMIN_TOKEN, or HOST to 127.0.0.1.'
    )
  }
  const decide = adminToken === undefined ? requireLoopback : await createTokenCheck(fastify, adminToken)
  const limit = requestsPerMinute === undefined ? undefined : createLimit(fastify, requestsPerMinute)

  fastify.decorate('idempotencyKeys', createIdempotencyKeys({ clock, limits: completeOperatorLimits(limits) }))
  fastify.decorate('operatorOnly', (scope: FastifyInstance) => {
    scope.addHook('onRequest', forbidCaching)
    if (limit !== undefined) scope.addHook('onRequest', limit)
    scope.addHook('onRequest', decide)
  })
}, { name: 'holdfast/operator-auth', fastify: '5.x' })

function misused (message: string): HoldfastError {
  return new HoldfastError('PLUGIN_MISUSED', { message })
}

async function forbidCaching (_request: FastifyRequest, reply: FastifyReply): Promise<void> {
  reply.header('cache-control', 'no-store')
}

/** One limiter for all routes: a limit per route would multiply the guesses an address has. */
function createLimit (fastify: FastifyInstance, max: number): onRequestHookHandler {
  if (!fastify.hasDecorator('rateLimit')) {
    throw misused('requestsPerMinute needs @fastify/rate-limit; register it before holdfast/operator-auth.')
  }
  return fastify.rateLimit({
    max,
    timeWindow: MINUTE_MS,
    keyGenerator: request => limitKeyOf(addressOfPeer(request)),
    errorResponseBuilder: (_request, { ttl }) => new HoldfastError('TOO_MANY_REQUESTS', { retryAfterMs: ttl })
  })
}

async function createTokenCheck (fastify: FastifyInstance, adminToken: string): Promise<onRequestHookHandler> {
  // Node reads headers as Latin-1, so a token of other characters could never match.
  if (!/^[\x21-\x7e]+$/.test(adminToken)) {
    throw misused('adminToken has to consist of printable ASCII characters without spaces.')
  }
  let verify: FastifyInstance['verifyBearerAuth']
  // A scope of its own, so that its decorators do not meet those of a host that uses the same
  // package.
  await fastify.register(async scope => {
    await scope.register(bearerAuth, {
      keys: new Set([adminToken]), addHook: false, specCompliance: 'rfc6749', verifyErrorLogLevel: 'debug'
    })
    verify = scope.verifyBearerAuth
  })
  return function requireToken (request, reply, done) {
    verify?.(request, reply, error => {
      if (error === undefined || error === null) return done()
      reply.header('www-authenticate', 'Bearer realm="holdfast"')
      request.log.warn({ address: addressOfPeer(request), code: 'OPERATOR_REQUIRED' }, 'operator request refused')
      done(new HoldfastError('OPERATOR_REQUIRED'))
    })
  }
}

async function requireLoopback (request: FastifyRequest): Promise<void> {
  const { headers, socket } = request
  // Not that of the request: it may come from a header.
  const address = canonicalAddress(socket.remoteAddress) ?? ''
  const isLocal = isLoopbackAddress(address) && isLoopbackHost(onlyHostOf(request)) &&
    FORWARDING_HEADERS.every(name => headers[name] === undefined)
  if (!isLocal) {
    request.log.warn({ address, code: 'HOST_FORBIDDEN' }, 'operator request refused')
    throw new HoldfastError('HOST_FORBIDDEN')
  }
  if (!SAFE_METHODS.has(request.method) && isFromOtherSite(headers)) {
    request.log.warn({ address, code: 'FORBIDDEN' }, 'operator request refused')
    throw new HoldfastError(
      'FORBIDDEN', { message: 'The request comes from a page of another site; without a token that is not allowed.' }
    )
  }
}

/**
 * Host, if the request names one and no other: of two Node takes the first, and a URL in place of
 * the path names one as well (RFC 9112 section 3.2.2).
 */
function onlyHostOf ({ headers, raw }: FastifyRequest): string {
  const named = raw.rawHeaders.filter((name, i) => i % 2 === 0 && name.toLowerCase() === 'host').length
  return named === 1 && raw.url?.startsWith('/') === true ? headers.host ?? '' : ''
}

function isFromOtherSite ({ origin, host, 'sec-fetch-site': site }: FastifyRequest['headers']): boolean {
  if (site !== undefined && site !== 'same-origin' && site !== 'none') return true
  return origin !== undefined && !isOriginOfHost(canonicalOrigin(origin) ?? '', host)
}
