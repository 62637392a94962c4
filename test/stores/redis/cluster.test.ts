// A cluster of three primaries and three replicas on the loopback: every script keeps to one slot,
// nodes hear each other over sharded channels, and the death of a primary costs a few seconds and
// nothing else.

import { execFileSync } from 'node:child_process'
import { Cluster } from 'iovalkey'
import t from 'tap'
import type { Test } from 'tap'
import { adoptRedis, connectRedis } from '../../../src/stores/redis/ioredis.js'
import type { RedisStoreOptions } from '../../../src/stores/redis/store.js'
import { needsRedis, startRedis } from '../../helpers/redis.js'
import { addressOf, batchOf, createdIn, startNode } from '../../helpers/redis-node.js'

const DEADLINE = { keepForMs: 60_000, reason: 'resume_window' } as const
// On a busy machine a server is silent for a second now and then, and none may be taken for dead
// that is not: how quickly a death is noticed is set when there is one.
const SETTINGS = [
  '--cluster-enabled', 'yes', '--cluster-node-timeout', '60000', '--cluster-replica-validity-factor', '0'
]

t.test('a cluster', needsRedis(), async t => {
  const servers = await Promise.all(Array.from({ length: 6 }, () => startRedis(t as Test, SETTINGS)))
  const hosts = servers.map(({ port }) => `127.0.0.1:${port}`)
  const create = ['--cluster', 'create', ...hosts, '--cluster-replicas', '1', '--cluster-yes']
  execFileSync('redis-cli', create, { stdio: 'ignore' })
  await eventually(async () => {
    const infos = await Promise.all(servers.map(({ client }) => client.call('CLUSTER', 'INFO') as Promise<string>))
    return infos.every(info => info.includes('cluster_state:ok'))
  })
  const url = `redis+cluster://${hosts.join()}`
  // What a death has cut is found by ticks, as often as in a deployment.
  const times = (): Partial<RedisStoreOptions> => {
    return { port: connectRedis(addressOf(url)), commandTimeoutMs: 10_000, leaseMs: 15_000 }
  }
  const [a, b] = [await startNode(t as Test, url, times()), await startNode(t as Test, url, times())]
  const sessions = await Promise.all(Array.from({ length: 40 }, (_, i) => createdIn(a, { userId: `user${i}` })))

  t.test('keeps sessions on all primaries', async t => {
    const answers = await Promise.all(sessions.map(({ session, fence }) => {
      return a.store.commit(batchOf(session.id, fence, 0, ['a']))
    }))
    t.same(new Set(answers), new Set(['kept']))
    const sizes = await Promise.all(servers.map(({ client }) => client.dbsize()))
    t.ok(sizes.filter(size => size > 5).length >= 3, sizes.join())
    t.match(await b.store.count(), { total: 40, byNode: { [a.store.nodeId]: 40 } })
    const page = await b.store.list({ newestFirst: true, limit: 40 })
    t.equal(typeof page === 'object' && page.sessions.length, 40)
  })

  t.test('carries doorbells, hand-offs and claims between nodes', async t => {
    const [{ session: { id }, fence } = { session: { id: '' }, fence: 0 }] = sessions
    t.same(await b.store.push(id, { pushId: null, tail: 'p' }), { owner: a.store.nodeId })
    await eventually(async () => a.doorbells.includes(id))
    a.onHandOff = async () => { await a.store.release({ ...batchOf(id, fence, 1, ['last']), inboxTo: 0 }, DEADLINE) }
    const claim = { id, userId: 'user0', tokenHash: 'hash-1', nextTokenHash: 'hash-2', lastSeen: 0, labels: {} }
    const result = await b.store.claim(claim)
    t.match(result, { from: null, session: { outputs: [{ tail: 'a' }, { tail: 'last' }, { tail: 'p' }] } })
  })

  t.test('is reached through a cluster of iovalkey that is handed in', async t => {
    const cluster = new Cluster(servers.map(({ port }) => ({ host: '127.0.0.1', port })))
    t.teardown(() => { cluster.disconnect() })
    const c = await startNode(t as Test, url, { port: adoptRedis(cluster) })
    t.match(await c.store.count(), { total: 40 })
    t.equal(await a.store.tell(c.store.nodeId, 'ping', null), true, 'over the same channels')
    await c.store.close()
    t.equal(await cluster.ping(), 'PONG')
  })

  t.test('outlives the death of a primary', async t => {
    await Promise.all([a.store.tick(), b.store.tick()])
    const primary = servers[0]
    await eventually(async () => isFollowed(await primary?.client.call('INFO', 'replication') as string))
    await Promise.all(servers.map(({ client }) => client.config('SET', 'cluster-node-timeout', '1000')))
    const batches = sessions.slice(1).map(({ session, fence }) => batchOf(session.id, fence, 1, ['b']))
    await primary?.kill()
    await eventually(async () => {
      const answers = await Promise.all(batches.map(batch => a.store.commit(batch)))
      t.notOk(answers.some(answer => answer === 'fenced' || answer === 'missing'))
      return answers.every(answer => answer === 'kept')
    })
    await eventually(async () => {
      await Promise.all([a.store.tick(), b.store.tick()])
      return a.store.health() === 'ok' && b.store.health() === 'ok' && await a.store.tell(b.store.nodeId, 'ping', null)
    })
    // The other node has its own view of the cluster.
    await eventually(async () => typeof await b.store.count() === 'object')
    for (const { session } of sessions.slice(1)) t.match(await b.store.find(session.id), { outboxMessages: 2 })
  })
})

/** Whether the replica has everything; `WAIT` tells that only of what its own caller wrote. */
function isFollowed (replication: string): boolean {
  const written = /^master_repl_offset:(\d+)/m.exec(replication)?.[1]
  return written !== undefined && new RegExp(`state=online,offset=${written},`).test(replication)
}

async function eventually (condition: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + 120_000
  while (!await condition()) {
    if (Date.now() > end) throw new Error('waited two minutes in vain')
    await new Promise(resolve => setTimeout(resolve, 100))
  }
}
