// Servers behind haproxy with the very configuration of deploy/: what passes and what does not, a
// line that is quiet for longer than the proxy's time limits for requests, a node that drains.

import { readFileSync } from 'node:fs'
import WebSocket from 'ws'
import t, { type Test } from 'tap'
import { connect } from '../../src/client/client.js'
import { HAPROXY_CONFIG, needsHaproxy, startHaproxy } from '../helpers/haproxy.js'
import { needsRedis, startRedis } from '../helpers/redis.js'
import { eventually, startServer, type ServerProcess } from '../helpers/server.js'
import { connectFull, resumeEntry } from '../helpers/socket.js'

async function start (t: Test, env: Record<string, string> = {}): Promise<ServerProcess> {
  const server = await startServer({
    HOLDFAST_UPGRADES_PER_MINUTE: '100000',
    HOLDFAST_TRUST_PROXY: '127.0.0.1',
    ...env
  })
  t.teardown(async () => { await server.stop('SIGKILL') })
  return server
}

const NEEDS_BOTH = needsHaproxy().skip === false ? needsRedis() : needsHaproxy()

const at = ({ port }: ServerProcess): string => `127.0.0.1:${port}`

async function takesClients (url: string): Promise<boolean> {
  return (await fetch(`${url}/health/ready`)).status === 200
}

async function openConnections ({ url }: ServerProcess): Promise<number> {
  const metrics = await (await fetch(`${url}/metrics`)).text()
  return Number(/^holdfast_connections(?:\{[^}]*\})? (\d+)/m.exec(metrics)?.[1])
}

t.test('clients pass, and operators\' routes do not', needsHaproxy(), async t => {
  const server = await start(t, { HOLDFAST_DATA_DIR: t.testdir() })
  const proxy = await startHaproxy(t, [at(server)])
  await eventually('a node that is up', () => takesClients(proxy.url))
  const { socket, hello } = await connectFull(proxy.wsUrl)
  t.match(hello, { type: 'session_created' })
  socket.send({ command: 'echo', id: 1, payload: 'through' })
  t.match(await socket.nextOf('result'), { id: 1, payload: 'through' })
  for (const path of ['/sessions', '/metrics', '/docs', '/', '/ws/../sessions']) {
    t.equal((await fetch(proxy.url + path)).status, 404, path)
  }
  socket.ws.terminate()
  const { socket: again, hello: resumed } = await connectFull(proxy.wsUrl, [resumeEntry(hello, 0)])
  t.match(resumed, { type: 'session_resumed', payload: { sessionId: hello.payload.sessionId } })
  again.ws.terminate()
})

t.test('a quiet connection stays open beyond the time limits of requests', needsHaproxy(), async t => {
  const [, limit] = /^ {4}timeout client (\d+)s$/m.exec(readFileSync(HAPROXY_CONFIG, 'utf8')) ?? []
  const server = await start(t)
  const proxy = await startHaproxy(t, [at(server)])
  await eventually('a node that is up', () => takesClients(proxy.url))
  const { socket } = await connectFull(proxy.wsUrl)
  await new Promise(resolve => setTimeout(resolve, (Number(limit) + 3) * 1000))
  socket.send({ command: 'echo', id: 1, payload: 'still here' })
  t.match(await socket.nextOf('result'), { id: 1, payload: 'still here' })
  socket.ws.terminate()
})

t.test('a node that drains gets nobody new, and readiness goes when no node is left', needsHaproxy(), async t => {
  const nodes = [await start(t), await start(t)] as const
  const proxy = await startHaproxy(t, nodes.map(at))
  await eventually('a node that is up', () => takesClients(proxy.url))
  const join = async (): Promise<unknown> => {
    const { socket, hello } = await connectFull(proxy.wsUrl)
    t.equal(hello.type, 'session_created', 'a node that refuses is not what the client sees')
    socket.ws.terminate()
    return hello.payload.sessionId
  }
  const exit = nodes[0].stop('SIGTERM')
  for (let i = 0; i < 10; i++) await join()
  await nodes[0].line(({ msg }) => msg === 'draining')
  for (let i = 0; i < 10; i++) {
    const id = await join()
    await nodes[1].line(({ msg, sid }) => msg === 'session created' && sid === id)
  }
  t.same(await exit, { code: 0, signal: null })
  await nodes[1].stop('SIGTERM')
  await eventually('no node', async () => (await fetch(`${proxy.url}/health/ready`)).status === 503)
})

t.test('a client of a fleet keeps its session when its node stops, or dies', NEEDS_BOTH, async t => {
  const redis = await startRedis(t)
  const env = { HOLDFAST_REDIS_URL: redis.url, HOLDFAST_DRAIN_SECONDS: '2' }
  const nodes = [await start(t, env), await start(t, env), await start(t, env)]
  const proxy = await startHaproxy(t, nodes.map(at))
  await eventually('a node that is up', () => takesClients(proxy.url))
  const sessions = new Set<string>()
  const session = connect(proxy.wsUrl, { WebSocket })
  t.teardown(() => { session.close() })
  session.on('live', ({ sessionId }) => { sessions.add(sessionId) })
  t.equal(await session.send('echo', 'first'), 'first')
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    const counts = await Promise.all(nodes.map(openConnections))
    const owner = counts.indexOf(1)
    t.not(owner, -1, `connections: ${counts}`)
    const [node] = nodes.splice(owner, 1) as [ServerProcess]
    await node.stop(signal)
    t.equal(await session.send('echo', signal), signal)
  }
  t.equal(sessions.size, 1, 'one session')
})
