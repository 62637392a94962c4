// One server with two workers over Redis: how clients are spread, what they notice of a worker that
// dies, and how all of it stops. Without a Redis server most of it is skipped and says so; with
// REQUIRE_REDIS=1 it fails instead.

import { writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { built } from '../helpers/built.js'
import { spawnProgram } from '../helpers/program.js'
import { rawUpgrade } from '../helpers/raw-socket.js'
import { needsRedis, startRedis } from '../helpers/redis.js'
import { eventually, startServer, type LogLine, type ServerProcess } from '../helpers/server.js'
import { connectFull } from '../helpers/socket.js'
import { outages, p95, post, startUser, type User } from '../helpers/users.js'

const CLIENTS = 20
const PUSHES_EVERY_MS = 20

const ofMessage = (msg: string) => (line: LogLine) => line.msg === msg
const started = ({ lines }: ServerProcess) => lines.filter(ofMessage('worker started'))
const pidsOf = (server: ServerProcess) => started(server).map(({ workerPid }) => workerPid as number)

function lives (pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** Two workers, both of which take connections. */
async function start (t: Test, env: Record<string, string> = {}): Promise<ServerProcess> {
  const redis = await startRedis(t)
  const server = await startServer({
    HOLDFAST_REDIS_URL: redis.url,
    HOLDFAST_WORKERS: '2',
    HOLDFAST_UPGRADES_PER_MINUTE: '100000',
    HOLDFAST_REQUESTS_PER_MINUTE: '100000',
    HOLDFAST_COMMANDS_PER_SECOND: '1000',
    HOLDFAST_DRAIN_SECONDS: '3',
    ...env
  })
  t.teardown(async () => {
    const pids = pidsOf(server)
    await server.stop('SIGKILL')
    for (const pid of pids.filter(lives)) process.kill(pid, 'SIGKILL')
  })
  await eventually('both workers', () => started(server).length === 2)
  return server
}

async function startUsers (t: Test, { wsUrl }: ServerProcess): Promise<User[]> {
  const users = await Promise.all(Array.from({ length: CLIENTS }, () => startUser(wsUrl)))
  t.teardown(() => { for (const { session } of users) session.dispose() })
  return users
}

/** Which worker each session was created by, as the log says. */
const createdBy = ({ lines }: ServerProcess) => lines.filter(ofMessage('session created')).map(({ worker }) => worker)

async function nodesOf ({ url }: ServerProcess): Promise<{ id: string }[]> {
  const { data } = await (await fetch(`${url}/nodes`)).json() as { data: { id: string }[] }
  return data.sort((a, b) => a.id < b.id ? -1 : 1)
}

/** Pushes 1, 2, 3 … to every user; returns, of each, the numbers that were accepted. */
function startPushing (users: readonly User[], { url }: ServerProcess): { stop (): Promise<number[][]> } {
  const accepted = users.map((): number[] => [])
  const control = { stopped: false }
  const pushing = (async () => {
    for (let payload = 1; !control.stopped; payload++) {
      await Promise.all(users.map(async ({ id }, i) => {
        // A request to the worker that dies has no answer.
        const status = await post(`${url}/sessions/${id}/messages`, { event: 'tick', payload }).catch(() => 0)
        if (status === 202) accepted[i]?.push(payload)
      }))
      await delay(PUSHES_EVERY_MS)
    }
  })()
  return {
    async stop () {
      control.stopped = true
      await pushing
      return accepted
    }
  }
}

/** Everybody is live in the session that he had, and heard what was accepted, once and in order. */
async function checkAll (t: Test, users: readonly User[], accepted: readonly number[][]): Promise<void> {
  const misses = ({ heard }: User, i: number) => (accepted[i] as number[]).some(n => !heard.includes(n))
  await eventually('everything has arrived', () => !users.some(misses))
  await Promise.all(users.map(user => user.stop()))
  t.strictSame(
    users.filter(({ session, id }) => session.state !== 'live' || session.sessionId !== id).length,
    0,
    'the same session'
  )
  t.ok(
    users.every(({ heard }) => heard.every((n, i) => i === 0 || n > (heard[i - 1] as number))),
    'nothing doubled or out of order'
  )
  t.strictSame(users.flatMap(({ wrong }) => wrong), [])
  t.strictSame(users.flatMap(({ errors }) => errors).filter(code => code !== 'OUTCOME_UNKNOWN'), [])
}

// It went on taking its share of the connections of the port, and answered each of them 503.
t.test('a worker that is drained leaves new connections to the others', needsRedis(), async t => {
  const server = await start(t)
  const users = await Promise.all(Array.from({ length: 6 }, () => startUser(server.wsUrl)))
  t.teardown(() => { for (const { session } of users) session.dispose() })
  const [drained] = await nodesOf(server) as [{ id: string }]
  t.equal(await post(`${server.url}/nodes/${drained.id}/drain`, {}), 202)
  const { worker } = await server.line(ofMessage('node is drained by an operator'))
  const ready = async () => (await fetch(`${server.url}/health/ready`, { headers: { connection: 'close' } })).status
  await eventually('new connections come to the other one', async () => {
    for (let n = 0; n < 10; n++) if (await ready() !== 200) return false
    return true
  })
  await eventually('its clients are with the other one', async () => {
    const { data } = await (await fetch(`${server.url}/nodes`)).json() as { data: { id: string, sessions: number }[] }
    return data.every(({ id, sessions }) => sessions === (id === drained.id ? 0 : users.length))
  })
  await checkAll(t, users, users.map(() => []))
  const { workerPid } = started(server).find(line => line.worker === worker) as LogLine
  process.kill(workerPid as number, 'SIGTERM')
  await server.line(line => line.msg === 'worker stopped, another one is started' && line.worker === worker)
  await eventually('there are two again', async () => {
    return started(server).length === 3 && (await nodesOf(server)).every(({ id }) => id !== drained.id)
  })
})

t.test('clients are spread evenly, and each worker is a node', needsRedis(), async t => {
  const server = await start(t, { HOLDFAST_NODE_NAME: 'box' })
  // One after the other: of a crowd that comes at once, a busy worker is given fewer.
  for (let i = 0; i < 40; i++) {
    const { socket } = await connectFull(server.wsUrl)
    t.teardown(() => { socket.ws.close() })
  }
  await eventually('a line for each', () => createdBy(server).length === 40)
  const created = createdBy(server)
  const ofOne = created.filter(worker => worker === 1).length
  t.ok(ofOne >= 18 && ofOne <= 22, `${ofOne} and ${created.length - ofOne}`)
  t.match(await nodesOf(server), [{ id: /^box-1-/ }, { id: /^box-2-/ }])
})

t.test('a worker is killed under load: its clients go on with others, and it is replaced', needsRedis(), async t => {
  const server = await start(t)
  const users = await startUsers(t, server)
  const pushing = startPushing(users, server)
  await delay(1000)
  const [victim = 0] = pidsOf(server)
  const killedAt = performance.now()
  process.kill(victim, 'SIGKILL')
  const died = await server.line(ofMessage('worker died, another one is started'))
  t.match(died, { level: 50, worker: 1, workerPid: victim, signal: 'SIGKILL' })
  await delay(5000)
  await checkAll(t, users, await pushing.stop())
  const waits = outages(users, killedAt)
  t.comment(`outage after kill -9 of a worker, of ${users.length} clients: ` +
    `p95 ${p95(waits)} ms, longest ${Math.round(waits.at(-1) as number)} ms`)
  // Who waits for the end of a lease waits for 15 s.
  t.ok(p95(waits) < 10_000, `p95 of the outage is ${p95(waits)} ms`)
  await eventually('another worker', () => started(server).length === 3)
  t.equal(started(server)[2]?.worker, 3)
})

t.test('SIGTERM to one worker: its clients go on with the others, and it is replaced', needsRedis(), async t => {
  const server = await start(t)
  const users = await startUsers(t, server)
  const pushing = startPushing(users, server)
  const [victim = 0] = pidsOf(server)
  process.kill(victim, 'SIGTERM')
  t.match(await server.line(ofMessage('worker stopped, another one is started')), { worker: 1, exitCode: 0 })
  await eventually('another worker', () => started(server).length === 3)
  await checkAll(t, users, await pushing.stop())
})

t.test('P-48 SIGTERM drains every worker and exits 0 within the drain', needsRedis(), async t => {
  const server = await start(t, { HOLDFAST_DRAIN_SECONDS: '60' })
  const sockets = await Promise.all(Array.from({ length: 10 }, () => connectFull(server.wsUrl)))
  const startedAt = Date.now()
  const exit = server.stop('SIGTERM')
  for (const { socket } of sockets) {
    t.match(await socket.nextOf('goodbye'), { payload: { code: 4200, reason: 'draining', action: 'resume' } })
    t.equal((await socket.nextClose()).code, 4200)
  }
  t.strictSame(await exit, { code: 0, signal: null })
  t.ok(Date.now() - startedAt < 30_000, `${Date.now() - startedAt} ms`)
  t.equal(server.lines.filter(ofMessage('draining')).length, 2)
  t.strictSame(server.lines.filter(line => line.level >= 50), [])
  t.strictSame(pidsOf(server).filter(lives), [])
})

t.test('a signal that reaches the whole group, more than once even, drains it once', needsRedis(), async t => {
  const server = await start(t)
  const { socket } = await connectFull(server.wsUrl)
  const exit = server.stop('SIGINT')
  for (const pid of pidsOf(server)) process.kill(pid, 'SIGINT')
  t.equal((await socket.nextClose()).code, 4200)
  t.strictSame(await exit, { code: 0, signal: null })
  t.equal(server.lines.filter(ofMessage('draining')).length, 2)
  t.strictSame(server.lines.filter(line => line.level >= 40 && line['userId'] === undefined), [])
})

t.test('a second signal ends every worker at once', needsRedis(), async t => {
  const server = await start(t, { HOLDFAST_DRAIN_SECONDS: '30' })
  const deaf = await rawUpgrade(server.port)
  deaf.raw.tcp.pause()
  server.child.kill('SIGTERM')
  await server.line(ofMessage('draining'))
  t.strictSame(await server.stop('SIGTERM'), { code: 1, signal: null })
  t.ok(server.lines.some(ofMessage('second signal, exiting at once')))
  await eventually('no worker is left', () => !pidsOf(server).some(lives))
  deaf.raw.reset()
})

t.test('workers do not outlive the process that started them', needsRedis(), async t => {
  const server = await start(t)
  await server.stop('SIGKILL')
  await eventually('no worker is left', () => !pidsOf(server).some(lives))
})

t.test('what keeps a worker from starting is one sentence and exit 1', needsRedis(), async t => {
  const redis = await startRedis(t)
  const other = createServer()
  await new Promise<void>(resolve => { other.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => { other.close() })
  const { port } = other.address() as AddressInfo
  const { exit, output } = spawnProgram(t, process.execPath, [built('src/server.js')], {
    cwd: t.testdir(),
    env: {
      PATH: process.env['PATH'], PORT: String(port), HOLDFAST_WORKERS: '3', HOLDFAST_REDIS_URL: redis.url
    }
  })
  t.strictSame(await exit, { code: 1, signal: null })
  t.equal(output().match(/Port \d+ on 127\.0\.0\.1 is taken/g)?.length, 1)
  t.match(output(), /"level":60,.*"worker":1,.*"msg":"no worker could start, exiting"/)
  t.equal(output().match(/"session store opened"/g)?.length, 1, 'no other worker was started')
})

t.test('a store of one process is refused', async t => {
  await t.rejects(
    startServer({ HOLDFAST_WORKERS: '2' }),
    { message: /the memory store belongs to a single process: set HOLDFAST_REDIS_URL/ }
  )
  await t.rejects(
    startServer({ HOLDFAST_WORKERS: '2', HOLDFAST_DATA_DIR: t.testdir() }), { message: /the embedded store belongs/ }
  )
})

t.test('a worker that is replaced has the .env of the first start', needsRedis(), async t => {
  const redis = await startRedis(t)
  const cwd = t.testdir({ '.env': `HOLDFAST_WORKERS=2\nHOLDFAST_REDIS_URL=${redis.url}\nHOLDFAST_NODE_NAME=before\n` })
  const { child, output, until, exit } = spawnProgram(t, process.execPath, [built('src/server.js')], {
    cwd, env: { PATH: process.env['PATH'], PORT: '0' }
  })
  const workerPids = () => [...output().matchAll(/"workerPid":(\d+),"msg":"worker started"/g)].map(([, pid]) => Number(
    pid
  ))
  await until('both workers', () => workerPids().length === 2)
  writeFileSync(join(cwd, '.env'), 'HOLDFAST_NONSENSE=1\n')
  process.kill(workerPids()[0] as number, 'SIGKILL')
  await until('another worker', () => workerPids().length === 3)
  child.kill('SIGTERM')
  t.strictSame(await exit, { code: 0, signal: null })
  t.notMatch(output(), /HOLDFAST_NONSENSE/)
})
