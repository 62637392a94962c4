// Serves `/metrics` in Prometheus' text form, to operators only, and measures HTTP answers. What is
// measured of sessions, of their store and of the process is in the folder beside it. Register it
// before the routes whose answers it shall measure and after the plugins whose counters it reads.
// An accepted upgrade is no answer: nothing here sees the life of a socket.

import fp from 'fastify-plugin'
import { Histogram, Registry } from 'prom-client'
import { Type } from 'typebox'
import {
  aFunction, anObject, anObjectWith, aWholeNumber, checkPluginOptions, type OptionCheck
} from '../src/option-checks.js'
import { collectProcessMetrics } from './metrics/process-metrics.js'
import { collectSessionMetrics, type KeySetSource } from './metrics/session-metrics.js'
import { collectStoreMetrics } from './metrics/store-metrics.js'
import type {} from './load-shedding.js'
import type {} from './dispatcher.js'
import type {} from './operator-auth.js'
import type {} from './session-manager.js'
import type {} from './websocket-gateway.js'
import { NoQuery, errorAnswers } from './schemas/rest.js'
import { prepareRestScope } from './schemas/rest-scope.js'

export interface MetricsOptions {
  /**
   * Where to register; default: a registry of its own. A host that has one hands it in and serves
   * it as it likes.
   */
  registry?: Registry
  /**
   * `keySet` of the function that createJwtAuthenticator returned; default: no key set, and no
   * values of one.
   */
  keySet?: KeySetSource
  /** Log lines that were lost since nobody read them; default: none ever are. */
  readLostLogLines?: () => number
  /**
   * Number of this worker where several share a port: a label of every metric. Each answer closes
   * its connection then, so that the next scrape comes to another worker.
   */
  worker?: number
}

const CHECKS: Record<keyof MetricsOptions, OptionCheck> = {
  registry: anObjectWith(['registerMetric', 'setDefaultLabels', 'metrics'], 'a registry of prom-client'),
  keySet: anObject,
  readLostLogLines: aFunction('that tells how many log lines were lost'),
  worker: aWholeNumber(0)
}

const HTTP_BOUNDS_SECONDS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5]

export default fp<MetricsOptions>(async function metrics (fastify, options) {
  checkPluginOptions('holdfast/metrics', options, CHECKS)
  const registry = options.registry ?? new Registry()
  if (options.worker !== undefined) registry.setDefaultLabels({ worker: String(options.worker) })
  const { sessionManager: manager, sessionInternals, dispatcher, gateway } = fastify
  const { sessions: { committer, totals }, store, membership } = sessionInternals
  collectSessionMetrics(registry, { manager, dispatcher, gateway, keySet: options.keySet })
  collectStoreMetrics(registry, {
    store,
    committer,
    totals,
    readInboxes: membership === undefined ? undefined : () => membership.inboxes
  })
  const stop = collectProcessMetrics(registry, { readLostLogLines: options.readLostLogLines ?? (() => 0) })
  fastify.addHook('onClose', async () => { stop() })

  const requests = new Histogram({
    name: 'holdfast_http_request_duration_seconds',
    help: 'Time to answer an HTTP request, by method, route template and status. Refused handshakes are among them.',
    labelNames: ['method', 'route', 'status'],
    buckets: HTTP_BOUNDS_SECONDS,
    registers: [registry]
  })
  fastify.addHook('onResponse', async (request, reply) => {
    // The template, never the path: ids are in the path. Requests without a route share one.
    const route = request.routeOptions.url ?? '(none)'
    requests.observe({ method: request.method, route, status: reply.statusCode }, reply.elapsedTime / 1000)
  })

  await fastify.register(async scope => {
    prepareRestScope(scope).get('/metrics', {
      // Under pressure every route is answered 503, and that is when somebody wants to know.
      config: { shedLoad: false },
      logLevel: 'warn',
      schema: {
        summary: 'Counters and gauges for Prometheus',
        tags: ['health'],
        querystring: NoQuery,
        response: {
          200: { description: 'Text exposition format 0.0.4.', content: { 'text/plain': { schema: Type.String() } } },
          ...errorAnswers()
        }
      }
    }, async (_request, reply) => {
      reply.type(registry.contentType)
      if (options.worker !== undefined) reply.header('connection', 'close')
      return registry.metrics()
    })
  })
}, {
  name: 'holdfast/metrics',
  fastify: '5.x',
  dependencies: [
    'holdfast/session-manager', 'holdfast/dispatcher', 'holdfast/websocket-gateway', 'holdfast/operator-auth'
  ],
  decorators: { fastify: ['sessionManager', 'dispatcher', 'gateway', 'operatorOnly'] }
})
