// What /metrics says of session stores. Each value is provoked on the whole application: over the
// embedded store on a directory, and over two nodes that share a Redis server.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { createEmbeddedStore } from '../../src/stores/embedded/store.js'
import { createJournal } from '../../src/stores/embedded/journal.js'
import { buildTestApp, startTestApp } from '../helpers/app.js'
import { createFaultyJournal } from '../helpers/faulty-journal.js'
import { startFleetNode } from '../helpers/fleet.js'
import { needsRedis, startRedis } from '../helpers/redis.js'
import { startNode } from '../helpers/redis-node.js'
import { eventually } from '../helpers/server.js'
import { connectFull, resumeEntry, type Frame } from '../helpers/socket.js'

type Read = (sample: string) => number | undefined

async function scrape (app: FastifyInstance): Promise<Read> {
  const { body } = await app.inject('/metrics')
  const values = new Map(body.split('\n').filter(line => line !== '' && !line.startsWith('#')).map(line => {
    const space = line.lastIndexOf(' ')
    return [line.slice(0, space), Number(line.slice(space + 1))]
  }))
  return sample => values.get(`holdfast_${sample}`)
}

function folder (t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'holdfast-metrics-'))
  t.teardown(() => { rmSync(path, { recursive: true, force: true }) })
  return path
}

const idOf = (hello: Frame): string => hello.payload.sessionId as string

t.test('the memory store is given no batch, and has none of the values of the others', async t => {
  const app = await buildTestApp(t)
  const value = await scrape(app)
  t.equal(value('store_available'), 1)
  t.equal(value('store_health{state="ok"}'), 1)
  t.equal(value('store_commits_total{outcome="kept"}'), 0)
  for (const absent of [
    'store_commit_duration_seconds_count', 'store_commit_outputs_count', 'store_write_duration_seconds_count',
    'store_journal_bytes', 'store_written_bytes_total', 'store_claims_total{outcome="claimed"}', 'store_inboxes',
    'store_calls_waiting'
  ]) t.equal(value(absent), undefined, absent)
})

t.test('the embedded store: batches, their size and duration, the journal and its health', async t => {
  const directory = folder(t as Test)
  const journal = createFaultyJournal(createJournal(directory))
  const store = createEmbeddedStore({ directory, journal })
  const { app, port } = await startTestApp(t as Test, { store })
  const { socket } = await connectFull(`ws://127.0.0.1:${port}/ws`)
  for (let id = 1; id <= 3; id++) {
    socket.send({ command: 'echo', payload: id, id })
    await socket.nextOf('result')
  }
  const value = await scrape(app)
  const kept = value('store_commits_total{outcome="kept"}') ?? 0
  t.ok(kept >= 3, `${kept} batches`)
  t.equal(value('store_commit_duration_seconds_count'), kept)
  t.equal(value('store_commit_duration_seconds_bucket{le="+Inf"}'), kept)
  t.ok((value('store_commit_duration_seconds_sum') ?? 0) > 0)
  t.equal(value('store_commit_outputs_count'), kept)
  t.equal(value('store_commit_outputs_sum'), 3)
  t.ok((value('store_journal_bytes') ?? 0) > 0)
  t.ok((value('store_written_bytes_total') ?? 0) > 0)
  const writes = value('store_writes_total{outcome="ok"}') ?? 0
  t.ok(writes > 0)
  t.equal(value('store_write_duration_seconds_count'), writes)
  t.ok((value('store_write_duration_seconds_sum') ?? 0) > 0)

  journal.fail(Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' }))
  app.sessionManager.send({ all: true }, 'note', 1)
  await eventually('the store is away', () => store.health() !== 'ok')
  const away = await scrape(app)
  t.equal(away('store_available'), 0)
  t.strictSame(['ok', 'degraded', 'fenced'].map(state => away(`store_health{state="${state}"}`)), [0, 1, 0])
  t.ok((away('store_commits_total{outcome="unavailable"}') ?? 0) > 0)
  t.ok((away('store_writes_total{outcome="failed"}') ?? 0) > 0)
  t.equal(away('store_backlog'), 1)
  journal.mend()
  await eventually('the store is back', () => store.health() === 'ok')
  socket.ws.close()
})

// Its statistics were read as those of the embedded store, and each missing number was shown as 1.
t.test('the Redis store has no values of a journal', needsRedis(), async t => {
  const redis = await startRedis(t as Test)
  const { app } = await startFleetNode(t as Test, redis.url)
  const value = await scrape(app)
  for (const absent of ['journal_bytes', 'written_bytes_total', 'writes_total{outcome="ok"}']) {
    t.equal(value(`store_${absent}`), undefined, absent)
  }
})

t.test('the Redis store: claims, hand-offs, pushes, inboxes and losses', needsRedis(), async t => {
  const redis = await startRedis(t as Test)
  const [a, b] = await Promise.all([
    startFleetNode(t as Test, redis.url), startFleetNode(t as Test, redis.url, { redis: { handOffMs: 60_000 } })
  ])
  const { socket, hello } = await connectFull(a.wsUrl)
  socket.send({ command: 'echo', payload: 1, id: 1 })
  await socket.nextOf('result')
  const pushed = await b.app.inject({
    method: 'POST', url: `/sessions/${idOf(hello)}/messages`, payload: { event: 'note', payload: 1 }
  })
  t.equal(pushed.statusCode, 202)
  await socket.nextOf('message')
  const moved = await connectFull(b.wsUrl, [resumeEntry(hello, 2)])
  t.equal(moved.hello.type, 'session_resumed')

  const former = await scrape(a.app)
  t.equal(former('store_inbox_entries_total'), 1)
  await eventually('the inbox is read to its end', async () => (await scrape(a.app))('store_inboxes') === 0)
  t.equal(former('store_hand_off_requests_total{outcome="given"}'), 1)
  t.ok((former('store_commits_total{outcome="kept"}') ?? 0) >= 2)
  t.ok((former('store_commit_duration_seconds_sum') ?? 0) > 0)
  t.ok((former('store_commit_outputs_sum') ?? 0) >= 2)
  const present = await scrape(b.app)
  t.equal(present('store_pushes_total{outcome="queued"}'), 1)
  t.equal(present('store_claims_total{outcome="claimed"}'), 1)
  t.equal(present('store_hand_offs_total{outcome="released"}'), 1)
  t.equal(present('store_hand_offs_total{outcome="taken"}'), 0)
  t.equal(present('store_calls_refused_total'), 0)
  t.type(present('store_calls_waiting'), 'number')
  moved.socket.ws.close()
})

t.test('the Redis store: an owner that does not let go in time loses its session', needsRedis(), async t => {
  const redis = await startRedis(t as Test)
  const [a, b] = await Promise.all([
    startFleetNode(t as Test, redis.url), startFleetNode(t as Test, redis.url, { redis: { handOffMs: 10 } })
  ])
  const { socket, hello } = await connectFull(a.wsUrl)
  // A client that has a new token and has not spoken is waited for longer than that.
  const again = await connectFull(a.wsUrl, [resumeEntry(hello)])
  const moved = await connectFull(b.wsUrl, [resumeEntry(hello)])
  t.equal(moved.hello.type, 'session_resumed')
  t.equal((await scrape(b.app))('store_hand_offs_total{outcome="taken"}'), 1)
  await eventually('the former owner knows', async () => {
    return (await scrape(a.app))('sessions_lost_total{reason="fenced"}') === 1
  })
  t.equal((await again.socket.nextOf('goodbye')).payload.code, 4204)
  for (const one of [socket, moved.socket]) one.ws.close()
})

t.test('the Redis store: calls that wait and calls that are refused', needsRedis(), async t => {
  const redis = await startRedis(t as Test)
  const { app, store } = await startFleetNode(t as Test, redis.url, { redis: { maxPendingCalls: 5 } })
  redis.freeze()
  const answers = Array.from({ length: 20 }, () => store.find('none'))
  const value = await scrape(app)
  t.equal(value('store_calls_waiting'), 5)
  t.ok((value('store_calls_refused_total') ?? 0) >= 15)
  redis.thaw()
  await Promise.all(answers)
})

t.test('the Redis store: what becomes of a dead node', needsRedis(), async t => {
  const redis = await startRedis(t as Test)
  // As in a deployment: by renewing its lease a node finds who is dead.
  const leaseMs = 15_000
  const { app, store } = await startFleetNode(t as Test, redis.url, { redis: { leaseMs } })
  const other = await startNode(t as Test, redis.url, { leaseMs })
  const { id } = app.sessionManager.createSession('someone')
  await eventually('the session is kept', async () => typeof await store.find(id) === 'object')
  // As if its lease had been over, and another node had noticed.
  const former = store.nodeId
  await redis.client.zrem('holdfast:{nodes}:l', former)
  await redis.client.zadd('holdfast:{nodes}:d', Date.now(), former)
  await eventually('it goes on under another name', async () => {
    return (await scrape(app))('store_node_deaths_total') === 1
  })
  await eventually('its session has no owner', async () => {
    await other.store.tick()
    const orphaned = (await scrape(app))('store_sessions_orphaned_total') ?? 0
    return orphaned + other.store.stats.orphaned === 1
  })
  t.equal((await scrape(app))('sessions_lost_total{reason="fenced"}'), 1)
})

t.test('the Redis store: a session without an owner whose time is over', needsRedis(), async t => {
  const redis = await startRedis(t as Test)
  const { app, wsUrl } = await startFleetNode(t as Test, redis.url, { config: { resumeWindowSeconds: 0.05 } })
  const { socket } = await connectFull(wsUrl)
  socket.send({ command: 'echo', payload: 1, id: 1 })
  await socket.nextOf('result')
  socket.ws.terminate()
  await eventually('it has ended', async () => (await scrape(app))('store_sessions_expired_total') === 1)
})
