// The contract of session stores on the Redis store. A Redis store gives nothing back when it
// opens, since its sessions are claimed one by one; the wrapper of this test takes over what the
// store before it owned, as the suite expects of a store that survives.

import t from 'tap'
import type { Test } from 'tap'
import { sessionStoreContract, type StoreUnderTest } from '../../../contract/index.js'
import type { SharedStoreHooks } from '../../../src/io/session/shared-store.js'
import type { SessionStore, StoreHooks } from '../../../src/io/session/store.js'
import { createLayout, readFields, readSession, readTombstone } from '../../../src/stores/redis/layout.js'
import { createRedisStore, type RedisStore } from '../../../src/stores/redis/store.js'
import { needsRedis, startRedis, type RedisServer } from '../../helpers/redis.js'
import { PATIENT, patientPort, realClock, realScheduler, TEST_LIMITS } from '../../helpers/redis-node.js'

const PARTITIONS = 8
const seed = Number(process.env.FUZZ_SEED ?? 20260101)

t.test('redis store', needsRedis(), async t => {
  const server = await startRedis(t as Test)
  let prefixes = 0

  function createStore (on: RedisServer, prefix: string): RedisStore {
    return createRedisStore({
      port: patientPort(on.url),
      clock: realClock,
      scheduler: realScheduler,
      log: { debug () {}, info () {}, warn () {}, error () {} },
      limits: { ...TEST_LIMITS, outboxMessages: 100_000, outboxBytes: 100_000_000 },
      prefix,
      partitions: PARTITIONS,
      tickMs: 0,
      ...PATIENT
    })
  }

  await sessionStoreContract(t as Test, async (t): Promise<StoreUnderTest> => {
    const prefix = `contract${++prefixes}`
    const store = createStore(server, prefix)
    const mend = async (): Promise<void> => { await server.client.replicaof('NO', 'ONE') }
    t.teardown(mend)
    return {
      store: adopting(store, server, prefix),
      next: () => adopting(createStore(server, prefix), server, prefix),
      // A replica of nobody, which takes no writes.
      breakDown: async () => { await server.client.replicaof('127.0.0.1', 1) },
      async mend () {
        await mend()
        while (await store.nodes() === 'unavailable') await new Promise(resolve => setTimeout(resolve, 20))
      }
    }
  }, { seed })
})

function adopting (store: RedisStore, { client }: RedisServer, prefix: string): SessionStore {
  const layout = createLayout(prefix, PARTITIONS, undefined)

  async function adopt (hooks: StoreHooks): Promise<void> {
    for (const name of (await client.keys(`${prefix}:*:s:*`)).sort()) {
      const id = name.slice(name.lastIndexOf(':') + 1)
      const [head, long, outputs] = layout.commitKeys(id) as [string, string, string]
      const former = await client.hget(head, 'o') as string
      const partition = layout.partitionOf(id)
      await client.multi().hset(head, 'o', store.nodeId).hincrby(head, 'f', 1)
        .srem(layout.ofNode(partition, former), id).sadd(layout.ofNode(partition, store.nodeId), id).exec()
      const fields = readFields(flat(await client.hgetallBuffer(head)), flat(await client.hgetallBuffer(long)))
      hooks.restore(readSession(id, fields, await client.lrangeBuffer(outputs, 0, -1)), Number(fields.get('f')))
    }
    for (const name of await client.keys(`${prefix}:*:t:*`)) {
      const fields = readFields(flat(await client.hgetallBuffer(name)))
      hooks.bury(readTombstone(name.slice(name.lastIndexOf(':') + 1), fields))
    }
  }

  return {
    traits: store.traits,
    async open (hooks) {
      await store.open({ ...shared, ...hooks })
      await adopt(hooks)
    },
    close: store.close,
    health: store.health,
    create: store.create,
    commit: store.commit,
    end: store.end
  }
}

const shared: Omit<SharedStoreHooks, keyof StoreHooks> = {
  doorbell () {},
  async handOff () {},
  evicted () {},
  ended () {},
  told () {}
}

function flat (fields: Record<string, Buffer>): Buffer[] {
  return Object.entries(fields).flatMap(([name, value]) => [Buffer.from(name), value])
}
