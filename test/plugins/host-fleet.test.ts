// Applications of several processes as one fleet. The store of a fleet could not be had by an
// application: the package exported the embedded one alone.

import Fastify, { type FastifyInstance } from 'fastify'
import { Valkey } from 'iovalkey'
import t, { type Test } from 'tap'
import holdfast, { redisStore, type HoldfastOptions } from '../../src/index.js'
import { needsRedis, startRedis } from '../helpers/redis.js'
import { eventually, listen } from '../helpers/server.js'
import { connectFull, resumeEntry } from '../helpers/socket.js'

async function startHost (t: Test, options: HoldfastOptions): Promise<{ app: FastifyInstance, wsUrl: string }> {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(holdfast, { operators: {}, ...options })
  return { app, wsUrl: `ws://127.0.0.1:${await listen(app)}/ws` }
}

t.test('the store of a fleet is given to an application', needsRedis(), async t => {
  const redis = await startRedis(t)
  const client = new Valkey(redis.url)
  t.teardown(() => { client.disconnect() })
  const limits = { resumeWindowMs: 30_000 }
  const [a, b] = await Promise.all([
    startHost(t, { limits, store: redisStore({ url: redis.url, nodeName: 'a', info: { version: '7' } }) }),
    startHost(t, { limits, store: redisStore({ client, nodeName: 'b' }) })
  ])

  t.test('G5 a session of one process is resumed in another', async t => {
    const { socket, hello } = await connectFull(a.wsUrl)
    socket.send({ command: 'echo', payload: 'hello', id: 1 })
    await socket.nextOf('result')
    socket.ws.terminate()
    const again = await connectFull(b.wsUrl, [resumeEntry(hello, 0)])
    t.match(again.hello, { type: 'session_resumed', payload: { lastCommand: 1 } })
    t.match(await again.socket.nextOf('result'), { seq: 1, payload: 'hello' })
    again.socket.ws.close()
  })

  t.test('G8 operators see all nodes and sessions from any process', async t => {
    const { socket, hello } = await connectFull(a.wsUrl)
    const { sessionId } = hello.payload
    await eventually('nodes and sessions are seen', async () => {
      const { data } = (await b.app.inject('/nodes')).json()
      const session = await b.app.inject(`/sessions/${sessionId}`)
      return data.length === 2 && session.statusCode === 200
    })
    const { data } = (await b.app.inject('/nodes')).json()
    const self = data.find((node: { self: boolean }) => node.self)
    const other = data.find((node: { self: boolean }) => !node.self)
    t.match(self, { id: /^b-/, info: { draining: false } })
    t.match(other, { id: /^a-/, info: { draining: false, version: '7', startedAt: /^\d{4}-/ } })
    t.equal((await b.app.inject({ method: 'DELETE', url: `/sessions/${sessionId}` })).statusCode, 204)
    t.equal((await socket.nextClose()).code, 4001)
  })
})

t.test('a function that makes no store stops the registration', async t => {
  const none = { code: 'CONFIG_INVALID', message: /a session store/ }
  await t.rejects(startHost(t, { store: (() => ({})) as never }), none)
  await t.rejects(startHost(t, { store: 'redis' as never }), /a session store, .* or a function that makes one/)
})
