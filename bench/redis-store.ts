// What the Redis store costs, on a Redis that is started for it: bytes of a session, microseconds
// of Redis per call, calls per second from one process, and a page of a listing.
//
//   npm run --silent build && node dist/bench/redis-store.js [sessions]

import { spawn } from 'node:child_process'
import { Redis } from 'ioredis'
import { buildStored, NO_PROGRESS } from '../contract/forms.js'
import { connectRedis } from '../src/stores/redis/ioredis.js'
import { createRedisStore } from '../src/stores/redis/store.js'
import { readRedisUrl } from '../src/stores/redis/url.js'
import { systemClock } from '../src/system-clock.js'

const SESSIONS = Number(process.argv[2] ?? 200_000)
const COMMITS = 100_000
const IN_FLIGHT = 256
const PORT = 7390

const server = spawn('redis-server', ['--port', String(PORT), '--save', '', '--bind', '127.0.0.1'], { stdio: 'ignore' })
const client = new Redis({ port: PORT, retryStrategy: () => 100 })
client.on('error', () => {})
while (await client.ping().catch(() => '') !== 'PONG') await new Promise(resolve => setTimeout(resolve, 100))

const address = readRedisUrl(`redis://127.0.0.1:${PORT}`)
if ('problem' in address) throw new Error(address.problem)
const store = createRedisStore({
  port: connectRedis(address),
  clock: systemClock,
  scheduler: {
    after (ms, callback) {
      const timer = setTimeout(callback, ms)
      return () => { clearTimeout(timer) }
    }
  },
  log: { debug () {}, info () {}, warn () {}, error () {} },
  limits: {
    resumeWindowMs: 300_000,
    idleTimeoutMs: 3_600_000,
    unheardWindowMs: 30_000,
    maxSessionsPerUser: 64,
    outboxMessages: 1000,
    outboxBytes: 1_048_576,
    tombstoneMs: 3_600_000
  }
})
await store.open({
  restore () {},
  bury () {},
  healthChanged () {},
  doorbell () {},
  async handOff () {},
  evicted () {},
  ended () {},
  told () {}
})

async function number (section: string, pattern: RegExp): Promise<number> {
  return Number(pattern.exec(await client.info(section))?.[1] ?? 0)
}

/** Runs `count` calls, so many at a time; prints what Redis and this process spent on each. */
async function measure (name: string, count: number, call: (i: number) => Promise<unknown>): Promise<void> {
  await client.config('RESETSTAT')
  const cpu = process.cpuUsage()
  const startedAt = performance.now()
  let next = 0
  await Promise.all(Array.from({ length: IN_FLIGHT }, async () => {
    while (next < count) await call(next++)
  }))
  const seconds = (performance.now() - startedAt) / 1000
  const { user, system } = process.cpuUsage(cpu)
  const micros = await number('commandstats', /cmdstat_evalsha:calls=\d+,usec=(\d+)/)
  console.log(`${name}: ${Math.round(count / seconds)}/s, ${(micros / count).toFixed(1)} µs of Redis, ` +
    `${((user + system) / count).toFixed(1)} µs of this process`)
}

const progress = { ...NO_PROGRESS, lastActiveAt: Date.now(), heard: true }
const ids: string[] = []
const fences: number[] = []
const before = await number('memory', /used_memory:(\d+)/)
await measure('create', SESSIONS, async i => {
  const userId = `user-${Math.floor(i / 2)}`
  const id = store.newId?.(userId) ?? ''
  const access = { labels: { role: 'reviewer' }, tokenHash: 'x'.repeat(43), previousTokenHash: null }
  const session = buildStored({ id, userId, createdAt: Date.now(), generation: 'a1b2c3d4', access, progress })
  const result = await store.create(session)
  if (typeof result === 'string') throw new Error(result)
  ids[i] = id
  fences[i] = result.fence
})
console.log(`an idle session: ${Math.round((await number('memory', /used_memory:(\d+)/) - before) / SESSIONS)} bytes`)

const tail = 'x'.repeat(300)
const seqs = new Uint32Array(SESSIONS)
await measure('commit of one output of 300 bytes', COMMITS, async i => {
  const at = i % SESSIONS
  const prevSeq = seqs[at] as number
  seqs[at] = prevSeq + 1
  const result = await store.commit({
    id: ids[at] as string,
    fence: fences[at] as number,
    prevSeq,
    outputs: [{ tail, commandId: 1 }],
    progress: { ...progress, lastSeq: prevSeq + 1, releasedSeq: prevSeq }
  })
  if (result !== 'kept') throw new Error(JSON.stringify(result))
})
const tails = Array.from({ length: 8 }, () => ({ tail, commandId: 0 }))
await measure('commit of eight outputs', 20_000, async i => {
  const at = i % SESSIONS
  const prevSeq = seqs[at] as number
  seqs[at] = prevSeq + 8
  await store.commit({
    id: ids[at] as string,
    fence: fences[at] as number,
    prevSeq,
    outputs: tails,
    progress: { ...progress, lastSeq: prevSeq + 8, releasedSeq: prevSeq }
  })
})
let cursor: string | null = null
await client.config('RESETSTAT')
const pages = 20
const startedAt = performance.now()
for (let i = 0; i < pages; i++) {
  const page = await store.list({ newestFirst: true, limit: 100, ...cursor === null ? {} : { cursor } })
  if (typeof page === 'string') throw new Error(page)
  cursor = page.nextCursor
}
const micros = await number('commandstats', /cmdstat_evalsha:calls=\d+,usec=(\d+)/)
console.log(`a page of 100 of ${SESSIONS}: ${((performance.now() - startedAt) / pages).toFixed(1)} ms, ` +
  `${(micros / pages / 1000).toFixed(1)} ms of Redis`)
const moved = Math.min(20_000, SESSIONS)
await measure('release', moved, i => store.release({
  id: ids[i] as string,
  fence: fences[i] as number,
  prevSeq: seqs[i] as number,
  outputs: [],
  progress: { ...progress, lastSeq: seqs[i] as number, releasedSeq: 0 }
}, { keepForMs: 300_000, reason: 'resume_window' }))
await measure('claim', moved, i => store.claim({
  id: ids[i] as string,
  userId: `user-${Math.floor(i / 2)}`,
  tokenHash: 'x'.repeat(43),
  nextTokenHash: 'y'.repeat(43),
  lastSeen: 0,
  labels: {}
}))
await store.close()
client.disconnect()
server.kill()
