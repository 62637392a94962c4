// The whole application in this process, as the server builds it, without its output; closed with
// the test.

import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { buildApp, type AppOverrides } from '../../src/app.js'
import { configWith, type Config } from '../../src/config.js'

export interface TestAppOptions extends AppOverrides {
  /** Options that differ from the defaults. */
  config?: Partial<Config>
  /** Runs on the built application before it is ready: routes and commands of the test. */
  before?: (app: FastifyInstance) => Promise<void> | void
}

/** A test machine may be busy with other things for longer than a server should be. */
const TEST_CONFIG: Partial<Config> = { port: 0, logLevel: 'silent', maxEventLoopDelaySeconds: 60 }

/**
 * A ready application; not listening. Its log is silent unless `logStream` or `config.logLevel` is
 * given.
 */
export async function buildTestApp (
  t: Test, { config = {}, before, ...overrides }: TestAppOptions = {}
): Promise<FastifyInstance> {
  const app = await buildApp(configWith({ ...TEST_CONFIG, ...config }), overrides)
  t.teardown(() => app.close())
  await before?.(app)
  await app.ready()
  return app
}

/** The same, listening on a free port of the loopback. */
export async function startTestApp (
  t: Test, options: TestAppOptions = {}
): Promise<{ app: FastifyInstance, port: number, url: string }> {
  const app = await buildTestApp(t, options)
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  return { app, port, url: `http://127.0.0.1:${port}` }
}

/** A log that is kept in memory: give `logStream` to the application and read `lines`. */
export function createLogCapture (): { logStream: { write (line: string): void }, lines: Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = []
  return { lines, logStream: { write: line => { lines.push(JSON.parse(line) as Record<string, unknown>) } } }
}
