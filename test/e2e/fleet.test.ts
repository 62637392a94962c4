// Three servers over one Redis, behind a balancer that knows nothing of sessions: what happens to
// clients when nodes stop, die and freeze, and when Redis does. Without a Redis server it is
// skipped and says so; with REQUIRE_REDIS=1 it fails instead.

import { once } from 'node:events'
import { connect as connectTcp, createServer, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { needsRedis, startRedis, type RedisServer } from '../helpers/redis.js'
import { eventually, startServer, type ServerProcess } from '../helpers/server.js'
import { outages, p95, post, startUser, type User } from '../helpers/users.js'

const CLIENTS = 20
const PUSHES_EVERY_MS = 20

interface Balancer { readonly url: string, readonly ports: Set<number> }

/** Gives each connection to the next port that takes it. */
async function startBalancer (t: Test, ports: Iterable<number>): Promise<Balancer> {
  const live = new Set(ports)
  const sockets = new Set<Socket>()
  let turn = 0

  function pass (socket: Socket, left: number): void {
    const candidates = [...live]
    const port = candidates[turn++ % candidates.length]
    if (port === undefined || left === 0) {
      socket.destroy()
      return
    }
    const upstream = connectTcp(port, '127.0.0.1')
    upstream.once('error', () => { pass(socket, left - 1) })
    upstream.once('connect', () => {
      upstream.removeAllListeners('error')
      for (const [one, other] of [[socket, upstream], [upstream, socket]] as const) {
        one.on('error', () => { other.destroy() }).on('close', () => { other.destroy() })
        one.pipe(other)
      }
    })
  }

  const server = createServer(socket => {
    sockets.add(socket)
    socket.on('error', () => {}).once('close', () => { sockets.delete(socket) })
    pass(socket, 6)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return { url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}/ws`, ports: live }
}

interface Fleet {
  readonly redis: RedisServer
  readonly balancer: Balancer
  nodes: ServerProcess[]
  startNode(redisUrl?: string): Promise<ServerProcess>
}

async function startFleet (t: Test, count = 3): Promise<Fleet> {
  const redis = await startRedis(t)
  let started = 0
  const fleet: Fleet = {
    redis,
    nodes: [],
    balancer: await startBalancer(t, []),
    async startNode (redisUrl = redis.url) {
      const node = await startServer({
        HOLDFAST_REDIS_URL: redisUrl,
        HOLDFAST_NODE_NAME: `n${++started}`,
        HOLDFAST_UPGRADES_PER_MINUTE: '100000',
        HOLDFAST_REQUESTS_PER_MINUTE: '100000',
        HOLDFAST_COMMANDS_PER_SECOND: '1000',
        HOLDFAST_DRAIN_SECONDS: '3'
      })
      t.teardown(async () => { await node.stop('SIGKILL') })
      fleet.nodes.push(node)
      fleet.balancer.ports.add(node.port)
      return node
    }
  }
  await Promise.all(Array.from({ length: count }, () => fleet.startNode()))
  return fleet
}

async function startUsers (t: Test, { balancer }: Fleet): Promise<User[]> {
  const users = await Promise.all(Array.from({ length: CLIENTS }, () => startUser(balancer.url)))
  t.teardown(() => { for (const { session } of users) session.dispose() })
  return users
}

/** Pushes 1, 2, 3 … to every user, over the REST API of the node that `via` names then. */
function startPushing (users: readonly User[], via: () => ServerProcess): { stop(): Promise<number> } {
  const control = { stopped: false }
  let pushed = 0
  const pushing = (async () => {
    while (!control.stopped) {
      const payload = pushed + 1
      const { url } = via()
      const statuses = await Promise.all(users.map(({ id }) => post(
        `${url}/sessions/${id}/messages`, { event: 'tick', payload }
      )))
      if (statuses.some(status => status !== 202)) throw new Error(`a push was answered ${statuses.join()}`)
      pushed++
      await delay(PUSHES_EVERY_MS)
    }
  })()
  return {
    async stop () {
      control.stopped = true
      await pushing
      return pushed
    }
  }
}

async function answeredAfter (time: number, users: readonly User[]): Promise<void> {
  const isAnswered = ({ answeredAt }: User): boolean => (answeredAt.at(-1) ?? 0) > time
  await eventually('commands are answered again', () => users.every(isAnswered))
}

/** Every client is live in the session that it had, and got everything once and in order. */
async function checkAll (t: Test, users: readonly User[], pushed: number, mayBeUnknown = false): Promise<void> {
  const expected = Array.from({ length: pushed }, (_, i) => i + 1)
  await eventually('everything has arrived', () => users.every(({ heard }) => heard.length >= pushed))
  await Promise.all(users.map(user => user.stop()))
  t.strictSame(
    users.filter(({ session, id }) => session.state !== 'live' || session.sessionId !== id).length,
    0,
    'the same session'
  )
  t.ok(users.every(({ heard }) => heard.join() === expected.join()), 'nothing lost, doubled or out of order')
  t.strictSame(users.flatMap(({ wrong }) => wrong), [])
  const unexpected = users.flatMap(({ errors }) => errors).filter(code => !mayBeUnknown || code !== 'OUTCOME_UNKNOWN')
  t.strictSame(unexpected, [])
}

t.test('a node is killed under load: its clients are live in their sessions elsewhere', needsRedis(), async t => {
  const fleet = await startFleet(t)
  const users = await startUsers(t, fleet)
  const [victim, , survivor] = fleet.nodes as [ServerProcess, ServerProcess, ServerProcess]
  const pushing = startPushing(users, () => survivor)
  await delay(1000)
  const killedAt = performance.now()
  await victim.stop('SIGKILL')
  await delay(6000)
  const pushed = await pushing.stop()
  await checkAll(t, users, pushed, true)
  const waits = outages(users, killedAt)
  t.comment(
    `outage after kill -9, of ${users.length} clients: p95 ${p95(waits)} ms, longest ` +
      `${Math.round(waits.at(-1) as number)} ms`
  )
  t.ok(p95(waits) < 10_000, `p95 of the outage is ${p95(waits)} ms`)
})

t.test('a rolling restart under load loses, doubles and reorders nothing', needsRedis(), async t => {
  const fleet = await startFleet(t)
  const users = await startUsers(t, fleet)
  let via = fleet.nodes[1] as ServerProcess
  const pushing = startPushing(users, () => via)
  const former = [...fleet.nodes]
  for (const [i, node] of former.entries()) {
    const fresh = await fleet.startNode()
    via = i === 0 ? fresh : (former[i + 1] ?? fresh)
    if (via === node) via = fresh
    await delay(500)
    fleet.balancer.ports.delete(node.port)
    t.strictSame(await node.stop('SIGTERM'), { code: 0, signal: null })
  }
  await delay(1000)
  await checkAll(t, users, await pushing.stop())
})

t.test('an operator ends a session from another node', needsRedis(), async t => {
  const fleet = await startFleet(t, 2)
  const [one, two] = fleet.nodes as [ServerProcess, ServerProcess]
  const users = await Promise.all([startUser(one.wsUrl), startUser(one.wsUrl)])
  t.teardown(() => { for (const { session } of users) session.dispose() })
  const [ended] = users as [User, User]
  const answer = await fetch(`${two.url}/sessions/${ended.id}`, { method: 'DELETE' })
  t.equal(answer.status, 204)
  await eventually('its client is told', () => ended.session.state === 'ended')
  t.equal(users[1]?.session.state, 'live')
  await Promise.all(users.map(user => user.stop()))
})

t.test('a node freezes past its lease: clients go on elsewhere, and it owns nothing', needsRedis(), async t => {
  const fleet = await startFleet(t, 2)
  const [frozen, other] = fleet.nodes as [ServerProcess, ServerProcess]
  const users = await Promise.all(Array.from({ length: 4 }, () => startUser(frozen.wsUrl)))
  t.teardown(() => { for (const { session } of users) session.dispose() })
  await Promise.all(users.map(user => user.stop()))
  process.kill(frozen.pid, 'SIGSTOP')
  // The lease is over after 15 s, and the other node finds that when it renews its own.
  await eventually('nobody owns them', async () => {
    const listed = await (await fetch(`${other.url}/sessions`)).json() as { data: { state: string }[] }
    return listed.data.length === 4 && listed.data.every(({ state }) => state === 'detached')
  }, 60_000)
  process.kill(frozen.pid, 'SIGCONT')
  // Their sockets have lived on: they are told to resume, and the node takes them anew.
  await eventually('all are live', () => users.every(({ session }) => session.state === 'live'))
  t.strictSame(
    await Promise.all(users.map(({ session }) => session.send('echo', 'after'))), ['after', 'after', 'after', 'after']
  )
  t.strictSame(users.filter(({ session, id }) => session.sessionId !== id).length, 0, 'the same session')
})

t.test('Redis stops for 5 s: nobody loses a session, an answer or a message', needsRedis(), async t => {
  const fleet = await startFleet(t)
  const users = await startUsers(t, fleet)
  await delay(500)
  fleet.redis.freeze()
  await delay(5000)
  fleet.redis.thaw()
  await answeredAfter(performance.now(), users)
  const [node] = fleet.nodes as [ServerProcess]
  for (let n = 1; n <= 5; n++) {
    const statuses = await Promise.all(users.map(({ id }) => post(
      `${node.url}/sessions/${id}/messages`, { event: 'tick', payload: n }
    )))
    t.ok(statuses.every(status => status === 202))
  }
  await checkAll(t, users, 5)
})

t.test('S-21 Redis dies and comes back empty: whoever is connected goes on in his session', needsRedis(), async t => {
  const fleet = await startFleet(t)
  const users = await startUsers(t, fleet)
  await delay(500)
  await fleet.redis.kill()
  await delay(500)
  await fleet.redis.restart()
  await answeredAfter(performance.now(), users)
  await eventually('all sessions are there', async () => await fleet.redis.client.dbsize() > CLIENTS)
  const [node] = fleet.nodes as [ServerProcess]
  for (let n = 1; n <= 5; n++) {
    const statuses = await Promise.all(users.map(({ id }) => post(
      `${node.url}/sessions/${id}/messages`, { event: 'tick', payload: n }
    )))
    t.ok(statuses.every(status => status === 202))
  }
  await checkAll(t, users, 5)
})

/** A way to Redis that can be closed: nothing passes then, and nothing is refused. */
async function startWire (t: Test, port: number): Promise<{ url: string, cut(): void, mend(): void }> {
  const sockets = new Set<Socket>()
  let isCut = false
  const server = createServer(socket => {
    const upstream = connectTcp(port, '127.0.0.1')
    for (const [one, other] of [[socket, upstream], [upstream, socket]] as const) {
      sockets.add(one)
      one.on('error', () => { other.destroy() }).on('close', () => {
        sockets.delete(one)
        other.destroy()
      })
      one.on('data', data => { other.write(data) })
    }
    if (isCut) for (const one of [socket, upstream]) one.pause()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return {
    url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}`,
    cut () {
      isCut = true
      for (const socket of sockets) socket.pause()
    },
    mend () {
      isCut = false
      for (const socket of sockets) socket.resume()
    }
  }
}

t.test(
  'P-39 a node is cut off from Redis under load: its clients go on elsewhere after 10 s',
  needsRedis(),
  async t => {
    const fleet = await startFleet(t, 1)
    const wire = await startWire(t, fleet.redis.port)
    const cutOff = await fleet.startNode(wire.url)
    const users = await startUsers(t, fleet)
    await delay(500)
    wire.cut()
    const cutAt = performance.now()
    await eventually('readiness is red', async () => (await fetch(`${cutOff.url}/health/ready`)).status === 503)
    // As a balancer does that looks at readiness.
    fleet.balancer.ports.delete(cutOff.port)
    await cutOff.line(({ msg }) => msg === 'session store is away, clients are sent to other nodes')
    // The node that is cut off can answer nobody.
    await answeredAfter(performance.now(), users)
    const waits = outages(users, cutAt)
    t.comment(
      `outage of a node that is cut off, of ${users.length} clients: longest ${Math.round(waits.at(-1) as number)} ms`
    )
    await checkAll(t, users, 0, true)
    wire.mend()
    await eventually('readiness is green', async () => (await fetch(`${cutOff.url}/health/ready`)).status === 200)
  }
)
