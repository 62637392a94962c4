// Budgets of requests per address, for the server and for hosts that want the same: registers @fastify/rate-limit so that only routes which ask are
// limited, and answers TOO_MANY_REQUESTS. The socket route asks by its `config.rateLimit`; the operators' scope asks by `fastify.rateLimit()`,
// which is one budget for all its routes together.
//
// Register it before the routes that ask: it looks at each route when that is declared. It counts per process; behind several nodes the
// budget of an address is that many times larger.

import rateLimitLibrary from '@fastify/rate-limit'
import fp from 'fastify-plugin'
import { HoldfastError } from '../src/io/errors.js'
import { addressOfPeer, limitKeyOf } from '../src/io/names/address.js'

export interface RateLimitOptions {
  /** Requests per minute of one address to everything that asks without a number of its own. An IPv6 address counts as its /64. */
  requestsPerMinute: number
}

export default fp<RateLimitOptions>(async function rateLimit (fastify, options) {
  if (fastify.hasDecorator('rateLimit')) return
  await fastify.register(rateLimitLibrary, {
    global: false,
    max: options.requestsPerMinute,
    timeWindow: 60_000,
    keyGenerator: request => limitKeyOf(addressOfPeer(request)),
    errorResponseBuilder: (_request, { ttl }) => new HoldfastError('TOO_MANY_REQUESTS', { retryAfterMs: ttl })
  })
}, { name: 'holdfast/rate-limit', fastify: '5.x' })
