// Nodes of a fleet in this process: the whole application over one Redis server, with small times.

import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { PLACEHOLDER_USER } from '../../src/app.js'
import { createRedisStore, type RedisStore, type RedisStoreOptions } from '../../src/stores/redis/store.js'
import { startTestApp, type TestAppOptions } from './app.js'
import { PATIENT, patientPort, realClock, realScheduler, TEST_LIMITS } from './redis-node.js'

export interface FleetNode {
  readonly app: FastifyInstance
  readonly store: RedisStore
  readonly url: string
  readonly wsUrl: string
}

export interface FleetNodeOptions extends TestAppOptions {
  redis?: Partial<RedisStoreOptions>
}

export async function startFleetNode (
  t: Test, url: string, { redis, ...options }: FleetNodeOptions = {}
): Promise<FleetNode> {
  const store = createRedisStore({
    port: patientPort(url),
    clock: realClock,
    scheduler: realScheduler,
    log: { debug () {}, info () {}, warn () {}, error () {} },
    limits: TEST_LIMITS,
    unlimitedUserId: PLACEHOLDER_USER,
    partitions: 16,
    ...PATIENT,
    ...redis
  })
  const started = await startTestApp(t, { ...options, store })
  return { app: started.app, store, url: started.url, wsUrl: `ws://127.0.0.1:${started.port}/ws` }
}
