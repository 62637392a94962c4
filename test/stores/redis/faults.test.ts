// What happens to the Redis store when Redis stands still, dies, comes back empty, is full, or
// takes no writes: on a real server, whose process is stopped and killed.

import { readFileSync } from 'node:fs'
import t from 'tap'
import type { Test } from 'tap'
import { connectRedis } from '../../../src/stores/redis/ioredis.js'
import { needsRedis, startRedis, type RedisServer } from '../../helpers/redis.js'
import { addressOf, batchOf, createdIn, sessionOf, startNode, type TestNode } from '../../helpers/redis-node.js'

const DEADLINE = { keepForMs: 60_000, reason: 'resume_window' } as const

t.test('faults of Redis', needsRedis(), async t => {
  t.test('one that stands still for five seconds costs no output and doubles none', async t => {
    const server = await startRedis(t as Test)
    const port = connectRedis(addressOf(server.url))
    const a = await startNode(t as Test, server.url, { port, commandTimeoutMs: 2000 })
    const sessions = await Promise.all(Array.from({ length: 16 }, () => createdIn(a)))
    server.freeze()
    const frozenAt = Date.now()
    const batches = sessions.map(({ session, fence }) => batchOf(session.id, fence, 0, ['a']))
    const answers = await Promise.all(batches.map(batch => a.store.commit(batch)))
    t.same(new Set(answers), new Set(['unavailable']))
    t.equal(a.store.health(), 'degraded')
    t.match(a.health.at(-1), { health: 'degraded', message: /not answered within 2000 ms/ })
    t.equal(await a.store.push(sessions[0]?.session.id ?? '', { pushId: 'p', tail: 'x' }), 'unavailable')
    await new Promise(resolve => setTimeout(resolve, 5000 - (Date.now() - frozenAt)))
    server.thaw()
    await kept(a, batches)
    for (const { session } of sessions) {
      t.match(await a.store.find(session.id), { progress: { lastSeq: 1 }, outboxMessages: 1 })
    }
    t.equal(a.store.health(), 'ok')
  })

  t.test('one that is slow does not make calls pile up', async t => {
    const server = await startRedis(t as Test)
    const bounds = { maxPendingCalls: 50, maxPendingBytes: 100_000 }
    const port = connectRedis(addressOf(server.url))
    const a = await startNode(t as Test, server.url, { port, commandTimeoutMs: 2000, ...bounds })
    const { session: { id }, fence } = await createdIn(a)
    server.freeze()
    const writes = Array.from({ length: 500 }, (_, i) => a.store.commit(batchOf(id, fence, i, ['x'.repeat(1000)])))
    const answers = await Promise.all(writes)
    t.same(new Set(answers), new Set(['unavailable']))
    t.ok(a.store.pending.calls <= 50, `${a.store.pending.calls} calls wait`)
    t.ok(a.store.pending.bytes <= 100_000, `${a.store.pending.bytes} bytes wait`)
    server.thaw()
    await kept(a, [batchOf(id, fence, 0, ['x'.repeat(1000)])])
  })

  t.test('one that is killed and comes back with its file goes on where it was', async t => {
    const server = await startRedis(t as Test, ['--appendonly', 'yes', '--appendfsync', 'always'])
    // As in a deployment: by renewing its lease a node finds that Redis keeps again what it gets.
    const times = { leaseMs: 15_000 }
    const [a, b] = [await startNode(t as Test, server.url, times), await startNode(t as Test, server.url, times)]
    const { session: { id }, fence } = await createdIn(a)
    t.equal(await a.store.commit(batchOf(id, fence, 0, ['a'])), 'kept')
    await server.kill()
    t.equal(await a.store.commit(batchOf(id, fence, 1, ['b'])), 'unavailable')
    t.equal(a.store.health(), 'degraded')
    await server.restart()
    await kept(a, [batchOf(id, fence, 1, ['b'])])
    await eventually(async () => {
      await Promise.all([a.store.tick(), b.store.tick()])
      return a.store.health() === 'ok' && b.store.health() === 'ok'
    })
    const { session, fence: next } = await createdIn(a)
    await a.store.release(batchOf(session.id, next, 0, []), DEADLINE)
    const hashes = { tokenHash: 'hash-1', nextTokenHash: 'hash-2' }
    const request = { id: session.id, userId: 'ann', lastSeen: 0, labels: {}, ...hashes }
    t.type(await b.store.claim(request), 'object')
    // Each node listens over a connection of its own, which comes back in its own time.
    await eventually(() => a.store.tell(b.store.nodeId, 'ping', null))
    await eventually(async () => b.told.length > 0)
    t.match(b.told, [{ topic: 'ping', from: a.store.nodeId }], 'nodes hear each other again')
  })

  t.test('what was on its way when a connection broke is unavailable at once, and waits no longer', async t => {
    const server = await startRedis(t as Test, ['--appendonly', 'yes', '--appendfsync', 'always'])
    const port = connectRedis(addressOf(server.url))
    const a = await startNode(t as Test, server.url, { port })
    const { session: { id }, fence } = await createdIn(a)
    await server.client.call('CLIENT', 'PAUSE', '60000', 'WRITE')
    const batch = batchOf(id, fence, 0, ['a'])
    const answer = a.store.commit(batch)
    await eventually(async () => a.store.pending.calls === 1)
    // The server goes on, so the first attempt to connect again succeeds.
    await server.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    t.equal(await answer, 'unavailable')
    t.equal(a.store.pending.calls, 0)
    await server.client.call('CLIENT', 'UNPAUSE')
    await kept(a, [batch])
  })

  t.test('one that comes back empty is given owned sessions again by their owners', async t => {
    const server = await startRedis(t as Test)
    const a = await startNode(t as Test, server.url)
    const { session, fence } = await createdIn(a)
    t.equal(await a.store.commit(batchOf(session.id, fence, 0, ['a'])), 'kept')
    await server.kill()
    await server.restart()
    const batch = batchOf(session.id, fence, 1, ['b'])
    await eventually(async () => await a.store.commit(batch) === 'missing')
    const outputs = ['a', 'b'].map(tail => ({ tail, commandId: 0 }))
    const again = await a.store.create({ ...session, progress: batch.progress, outputs })
    t.ok(typeof again === 'object' && again.fence > fence)
    t.match(await a.store.find(session.id), { owner: a.store.nodeId, outboxMessages: 2, progress: { lastSeq: 2 } })
    await a.store.tick()
    t.equal(a.store.health(), 'ok')
  })

  type Act = (server: RedisServer) => Promise<unknown>
  const refusing = async (t: Test, fault: Act, cure: Act, message: RegExp): Promise<void> => {
    const server = await startRedis(t)
    const a = await startNode(t, server.url)
    const { session: { id }, fence } = await createdIn(a)
    await fault(server)
    const batch = batchOf(id, fence, 0, ['a'])
    t.equal(await a.store.commit(batch), 'unavailable')
    t.equal(await a.store.create(sessionOf(a.store)), 'unavailable')
    t.equal(a.store.health(), 'degraded')
    t.match(a.health.find(({ health }) => health === 'degraded')?.message, message)
    await cure(server)
    await kept(a, [batch])
    t.equal(a.store.health(), 'ok')
    t.match(await a.store.find(id), { outboxMessages: 1 }, 'nothing of the refused write is there')
  }

  t.test('one that has reached maxmemory refuses writes, and what to do is said', t => refusing(t as Test,
    server => server.client.config('SET', 'maxmemory', '1'),
    server => server.client.config('SET', 'maxmemory', '0'), /Raise maxmemory/))

  t.test('one that has become a read-only replica refuses writes, and what to do is said', t => refusing(t as Test,
    server => server.client.replicaof('127.0.0.1', 1),
    server => server.client.replicaof('NO', 'ONE'), /read-only replica/))

  t.test('a user whose rights are taken is told of', async t => {
    const server = await startRedis(t as Test)
    // The rights that docs/stores.md names are enough.
    const [, rights = ''] = /^- A user of its own: `([^`]+)`/m.exec(readFileSync('docs/stores.md', 'utf8')) ?? []
    const names = ['~holdfast:*', '&holdfast:*']
    await server.client.acl('SETUSER', 'holdfast', 'on', '>s3cret', ...names, ...rights.split(' '))
    const a = await startNode(t as Test, server.url.replace('//', '//holdfast:s3cret@'))
    const { session: { id }, fence } = await createdIn(a)
    t.equal(await a.store.commit(batchOf(id, fence, 0, [])), 'kept')
    t.type(await a.store.list({ newestFirst: true, limit: 5 }), 'object')
    t.equal(await a.store.tell(a.store.nodeId, 'ping', null), true)
    t.same(a.health, [])
    await server.client.acl('SETUSER', 'holdfast', '-evalsha', '-eval')
    t.equal(await a.store.commit(batchOf(id, fence, 0, ['a'])), 'unavailable')
    t.match(a.health.at(-1)?.message, /may not run a command/)
    t.notMatch(a.health.at(-1)?.message, /s3cret/)
    await t.rejects(startNode(t as Test, server.url.replace('//', '//holdfast:wrong@')), /name or the password/)
    await t.rejects(startNode(t as Test, 'redis://127.0.0.1:1'), /cannot be reached.*ECONNREFUSED/)
  })
})

/** Writes batches again until they are kept, as an owner does. */
async function kept (node: TestNode, batches: ReturnType<typeof batchOf>[]): Promise<void> {
  await eventually(async () => {
    const answers = await Promise.all(batches.map(batch => node.store.commit(batch)))
    return answers.every(answer => answer === 'kept')
  })
}

async function eventually (condition: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + 60_000
  while (!await condition()) {
    if (Date.now() > end) throw new Error('waited a minute in vain')
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}
