// Two whole servers over a Redis that loses a primary: clients go on in their sessions, no command
// runs twice, and nothing that was pushed is lost or doubled.

import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { startTestApp } from '../helpers/app.js'
import { needsRedis } from '../helpers/redis.js'
import { startCluster, startWatched } from '../helpers/redis-shapes.js'
import { eventually } from '../helpers/server.js'
import { post, startUser, type User } from '../helpers/users.js'

/** An election, and then what clients need to come back; far above both on an idle machine. */
const RECOVERY_MS = 120_000

interface Servers {
  readonly urls: readonly string[]
  readonly users: readonly User[]
  /** How often each command was executed, on whichever server. */
  readonly runs: ReadonlyMap<string, number>
}

async function startServers (t: Test, redisUrl: string): Promise<Servers> {
  const runs = new Map<string, number>()
  const before = (app: FastifyInstance): void => {
    app.dispatcher.command('echo', {}, ({ session, payload }) => {
      const run = `${session.id} ${JSON.stringify(payload)}`
      runs.set(run, (runs.get(run) ?? 0) + 1)
      return payload
    })
  }
  const config = { store: 'redis', redisUrl, redisPartitions: 16, commandsPerSecond: 1000 } as const
  const start = () => startTestApp(t, { config, before, builtinCommands: false })
  const urls = (await Promise.all([start(), start()])).map(({ url }) => url)
  const users = await Promise.all(Array.from({ length: 6 }, (_, i) => {
    return startUser(`${(urls[i % 2] as string).replace('http', 'ws')}/ws`)
  }))
  t.teardown(() => { for (const { session } of users) session.dispose() })
  return { urls, users, runs }
}

async function push (t: Test, { urls, users }: Servers, n: number): Promise<void> {
  await Promise.all(users.map(({ id }) => eventually('the push is taken', async () => {
    // By one server: what two of them take at once has no order.
    const status = await post(`${urls[0]}/sessions/${id}/messages`, { event: 'tick', payload: n })
    t.ok(status === 202 || status === 503, `a push was answered ${status}`)
    return status === 202
  }, RECOVERY_MS)))
}

/** Every user gets so many further answers. */
async function answeredAgain ({ users }: Servers): Promise<void> {
  const before = users.map(({ answeredAt }) => answeredAt.length)
  await eventually('everybody is answered again', () => users.every(({ answeredAt }, i) => {
    return answeredAt.length >= (before[i] as number) + 5
  }), RECOVERY_MS)
}

async function goOnAfter (t: Test, servers: Servers, failOver: () => Promise<void>): Promise<void> {
  const { users, runs } = servers
  await push(t, servers, 1)
  await push(t, servers, 2)
  await eventually('both have arrived', () => users.every(({ heard }) => heard.length === 2), RECOVERY_MS)
  await failOver()
  await answeredAgain(servers)
  await push(t, servers, 3)
  await push(t, servers, 4)
  await eventually('everything has arrived', () => users.every(({ heard }) => heard.length >= 4), RECOVERY_MS)
  await Promise.all(users.map(user => user.stop()))
  t.strictSame(users.map(({ heard }) => heard.join()), users.map(() => '1,2,3,4'))
  t.strictSame(users.filter(({ session, id }) => session.sessionId !== id).length, 0, 'the same session')
  t.strictSame(users.flatMap(({ wrong }) => wrong), [])
  // One that was abandoned when its session moved is not asked for again, and says so.
  t.strictSame(users.flatMap(({ errors }) => errors).filter(code => code !== 'OUTCOME_UNKNOWN'), [])
  t.strictSame([...runs].filter(([, times]) => times !== 1), [], 'no command ran twice')
}

t.test('a sentinel gives the place of a dead primary to its replica', needsRedis(), async t => {
  const redis = await startWatched(t as Test)
  await goOnAfter(t as Test, await startServers(t as Test, redis.url), redis.failOver)
})

t.test('a cluster loses the primary of a session', needsRedis(), async t => {
  const cluster = await startCluster(t as Test)
  const servers = await startServers(t as Test, cluster.url)
  await goOnAfter(t as Test, servers, async () => {
    await cluster.failOver(`holdfast:*:s:${servers.users[0]?.id}`)
  })
})
