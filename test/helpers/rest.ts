// The operators' side on top of the plugins: a host application with every REST plugin, in the
// order of docs/api.md.

import type { FastifyInstance, InjectOptions, LightMyRequestResponse } from 'fastify'
import type { Test } from 'tap'
import health, { type HealthOptions } from '../../plugins/health.js'
import metrics, { type MetricsOptions } from '../../plugins/metrics.js'
import nodesApi from '../../plugins/nodes-api.js'
import openapi from '../../plugins/openapi.js'
import operatorAuth, { type OperatorAuthOptions } from '../../plugins/operator-auth.js'
import rateLimit from '../../plugins/rate-limit.js'
import sessionsApi from '../../plugins/sessions-api.js'
import usersApi from '../../plugins/users-api.js'
import { createPluginApp, type PluginAppOptions } from './server.js'

export interface RestAppOptions extends PluginAppOptions {
  auth?: Partial<OperatorAuthOptions>
  health?: HealthOptions
  metrics?: MetricsOptions
  /** Runs after the plugins are registered and before the app is ready. */
  after?: (app: FastifyInstance) => Promise<void> | void
}

/** A ready application; closed with the test. */
export async function buildRestApp (t: Test, options: RestAppOptions = {}): Promise<FastifyInstance> {
  const app = await createPluginApp({
    ...options,
    before: async app => {
      await options.before?.(app)
      await app.register(rateLimit, { requestsPerMinute: 1_000_000 })
      await app.register(openapi, { version: '0.0.0' })
    }
  })
  t.teardown(() => app.close())
  await app.register(operatorAuth, { host: '127.0.0.1', ...options.auth })
  await app.register(metrics, options.metrics ?? {})
  await app.register(health, options.health ?? {})
  await app.register(sessionsApi)
  await app.register(usersApi)
  await app.register(nodesApi, { drainMs: 500 })
  await options.after?.(app)
  await app.ready()
  return app
}

export type Ask = (
  method: NonNullable<InjectOptions['method']>, url: string, body?: object
) => Promise<LightMyRequestResponse>

/** Sends a request and returns the answer. */
export function asker (app: FastifyInstance, headers: Record<string, string> = {}): Ask {
  return (method, url, body) => app.inject({ method, url, headers, ...(body === undefined ? {} : { payload: body }) })
}
