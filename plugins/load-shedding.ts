// Sends new requests and handshakes away while the event loop cannot keep up, so that the sessions that are there are served: 503 with Retry-After. Measuring is
// @fastify/under-pressure's; what counts as too much is decided here: a lag above the limit in two samples in a row. One long turn,
// such as the start of the process or a large purge, sends nobody away.
//
// Register it after the socket route's plugin, since its hook refuses. Routes with `config.pressureHandler` of their own, such as health, are let
// through. Connections that are open are not touched.

import underPressure from '@fastify/under-pressure'
import fp from 'fastify-plugin'
import { HoldfastError } from '../src/io/errors.js'
import type { Clock, Millis } from '../src/io/types.js'
import { systemClock } from '../src/system-clock.js'

export interface LoadSheddingOptions {
  /** Lag of the event loop, on average over a sample, that is too much. */
  maxEventLoopDelayMs: Millis
  clock?: Clock
}

const SAMPLE_MS = 1000
const RETRY_AFTER_MS = 5000

export default fp<LoadSheddingOptions>(async function loadShedding (fastify, options) {
  const { maxEventLoopDelayMs, clock = systemClock } = options
  let since = -Infinity
  let last = -Infinity

  await fastify.register(underPressure, {
    sampleInterval: SAMPLE_MS,
    maxEventLoopDelay: maxEventLoopDelayMs,
    pressureHandler: async (_request, _reply, _type, value) => {
      // Without a single turn during a sample the library tells an infinite lag; what is known is that it was as long as the sample.
      if (value === Infinity && maxEventLoopDelayMs > SAMPLE_MS) return
      const now = clock.now()
      if (now - last > 2 * SAMPLE_MS) since = now
      last = now
      if (now - since < SAMPLE_MS) return
      throw new HoldfastError('SERVER_FULL', { message: 'The server is too busy to take more.', retryAfterMs: RETRY_AFTER_MS })
    }
  })
}, { name: 'holdfast/load-shedding', fastify: '5.x', dependencies: ['holdfast/websocket-gateway'] })
