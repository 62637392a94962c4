// Budgets of requests per address, for the server and for hosts that want the same: registers
// @fastify/rate-limit so that only routes which ask are limited, and answers TOO_MANY_REQUESTS. The
// socket route asks by its `config.rateLimit`; the operators' scope asks by `fastify.rateLimit()`,
// which is one budget for all its routes together.
//
// Register it before the routes that ask: it looks at each route when that is declared. It counts
// per process, where it is given no Redis: behind several nodes the budget of an address is that
// many times larger then. While Redis is away nothing is counted.

import rateLimitLibrary from '@fastify/rate-limit'
import fp from 'fastify-plugin'
import { HoldfastError } from '../src/io/errors.js'
import { addressOfPeer, limitKeyOf } from '../src/io/names/address.js'
import { likeOption } from '../src/limits.js'
import { anObjectWith, aText, checkPluginOptions, type OptionCheck } from '../src/option-checks.js'

export interface RateLimitOptions {
  /**
   * Requests per minute of one address to everything that asks without a number of its own. An IPv6
   * address counts as its /64.
   */
  requestsPerMinute: number
  /**
   * A client of ioredis through which several nodes count together. It is ended with the instance.
   */
  redis?: RateLimitRedis
  /** In front of every key there; default `holdfast:rate:`. */
  prefix?: string
}

/** What is used of ioredis here; the rest is the library's. */
export interface RateLimitRedis {
  on(event: 'error', listener: () => void): unknown
  connect(): Promise<unknown>
  disconnect(): void
}

const CHECKS: Record<keyof RateLimitOptions, OptionCheck> = {
  requestsPerMinute: { ...likeOption('requestsPerMinute'), required: true },
  redis: anObjectWith(['on', 'connect', 'disconnect'], 'a client of ioredis'),
  prefix: aText('what is in front of every key')
}

export default fp<RateLimitOptions>(async function rateLimit (fastify, options) {
  checkPluginOptions('holdfast/rate-limit', options, CHECKS)
  if (fastify.hasDecorator('rateLimit')) return
  const { redis, prefix = 'holdfast:rate:' } = options
  if (redis !== undefined) {
    // What the store says of the same Redis is enough.
    redis.on('error', () => {})
    await redis.connect().catch(() => {})
    fastify.addHook('onClose', async () => { redis.disconnect() })
  }
  await fastify.register(rateLimitLibrary, {
    ...redis === undefined ? {} : { redis, nameSpace: prefix, skipOnError: true },
    global: false,
    max: options.requestsPerMinute,
    timeWindow: 60_000,
    keyGenerator: request => limitKeyOf(addressOfPeer(request)),
    errorResponseBuilder: (_request, { ttl }) => new HoldfastError('TOO_MANY_REQUESTS', { retryAfterMs: ttl })
  })
}, { name: 'holdfast/rate-limit', fastify: '5.x' })
