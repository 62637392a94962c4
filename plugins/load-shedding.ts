// Sends new requests and handshakes away while the event loop cannot keep up, so that the sessions
// that are there are served: 503 with Retry-After. What counts as too much is a lag above the limit
// in two samples in a row: one long turn, such as the start of the process or a large purge, sends
// nobody away. Connections that are open are not touched.
//
// Register it after the socket route's plugin, since its hook refuses. Routes with
// `config.shedLoad: false`, such as health, are let through. Not
// @fastify/under-pressure: it also samples the memory of the process from a timer, and that throws
// when the process is out of descriptors, which would end every session for a burst of connects.

import { monitorEventLoopDelay } from 'node:perf_hooks'
import fp from 'fastify-plugin'
import { HoldfastError } from '../src/io/errors.js'
import type { Clock, Millis } from '../src/io/types.js'
import { millisecondsLike } from '../src/limits.js'
import { aClock, aFunction, checkPluginOptions, type OptionCheck } from '../src/option-checks.js'
import { systemClock } from '../src/system-clock.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** Whether new requests are sent away at present. */
    isUnderPressure(): boolean
  }
  interface FastifyContextConfig {
    /** False: the route is answered under pressure too. */
    shedLoad?: boolean
  }
}

export interface LoadSheddingOptions {
  /** Lag of the event loop, on average over a sample, that is too much: 20 to 60,000. */
  maxEventLoopDelayMs: Millis
  /** Mean lag since it was last asked; default: as Node measures it. */
  readLagMs?: () => Millis
  clock?: Clock
}

const CHECKS: Record<keyof LoadSheddingOptions, OptionCheck> = {
  maxEventLoopDelayMs: { ...millisecondsLike('maxEventLoopDelaySeconds'), required: true },
  readLagMs: aFunction('that tells the lag'),
  clock: aClock
}

const SAMPLE_MS = 1000
const RESOLUTION_MS = 20
const RETRY_AFTER_MS = 5000

export default fp<LoadSheddingOptions>(async function loadShedding (fastify, options) {
  checkPluginOptions('holdfast/load-shedding', options, CHECKS)
  const { maxEventLoopDelayMs, clock = systemClock } = options
  const histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  const readLagMs = options.readLagMs ?? (() => {
    // The histogram has the length of its own intervals in it. Without a single one since the last
    // look there is no mean.
    const lagMs = histogram.mean / 1e6 - RESOLUTION_MS
    histogram.reset()
    return Number.isNaN(lagMs) ? 0 : lagMs
  })
  let sampledAt = clock.now()
  let wasOver = false
  let shedding = false

  /**
   * Samples when it is asked, at most once a second: no timer, and nothing to measure when nobody
   * comes.
   */
  function isUnderPressure (): boolean {
    const now = clock.now()
    if (now - sampledAt >= SAMPLE_MS) {
      const isOver = readLagMs() > maxEventLoopDelayMs
      shedding = isOver && wasOver
      wasOver = isOver
      sampledAt = now
    }
    return shedding
  }

  histogram.enable()
  fastify.decorate('isUnderPressure', isUnderPressure)
  fastify.addHook('onRequest', (request, _reply, done) => {
    if (!isUnderPressure() || request.routeOptions.config.shedLoad === false) {
      done()
    } else {
      done(new HoldfastError('SERVER_FULL', {
        message: 'The server is too busy to take more.',
        retryAfterMs: RETRY_AFTER_MS
      }))
    }
  })
  fastify.addHook('onClose', async () => { histogram.disable() })
}, { name: 'holdfast/load-shedding', fastify: '5.x', dependencies: ['holdfast/websocket-gateway'] })
