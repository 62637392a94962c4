// docs/other-sockets.md: its code is run, and what it says about it is tried.

import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'
import { io as connectIo } from 'socket.io-client'
import t, { type Test } from 'tap'
import { WebSocket, WebSocketServer } from 'ws'
import holdfast from '../../src/index.js'
import { readBlocks } from '../helpers/markdown.js'
import { eventually, listen } from '../helpers/server.js'
import { connectFull, connectSocket, injectSocket } from '../helpers/socket.js'

const blocks = readBlocks(readFileSync('docs/other-sockets.md', 'utf8'), 'js')
const OURS = { authenticate: () => ({ userId: 'ada' }) }
/** A time limit that a test does not reach, on however slow a machine. */
const NEVER_MS = 120_000

/** Runs a block of the document and gives its application, listening. */
async function run (t: Test, marker: string): Promise<{ app: FastifyInstance, port: number }> {
  const source = blocks.find(block => block.includes(marker)) as string
  const file = join(t.testdir(), 'block.mjs')
  writeFileSync(file, source
    .replace("from 'holdfast'", `from '${pathToFileURL('src/index.ts').href}'`)
    .replace('const app =', 'export const app ='))
  const { app } = await import(pathToFileURL(file).href) as { app: FastifyInstance }
  t.teardown(() => app.close())
  return { app, port: await listen(app) }
}

async function answers (t: Test, port: number, path = '/ws'): Promise<void> {
  const { socket, hello } = await connectFull(`ws://127.0.0.1:${port}${path}`)
  t.teardown(() => socket.ws.terminate())
  t.equal(hello.type, 'session_created', path)
  t.equal(socket.ws.protocol, 'holdfast.v1')
  t.equal(socket.ws.extensions, '')
}

async function firstMessage (
  t: Test, port: number, path: string, protocols: string[] = [], first?: string
): Promise<string> {
  const ws = new WebSocket(`ws://127.0.0.1:${port}${path}`, protocols)
  t.teardown(() => ws.terminate())
  if (first !== undefined) ws.on('open', () => { ws.send(first) })
  const [data] = await once(ws, 'message') as [Buffer]
  return `${ws.protocol} ${data.toString()}`.trim()
}

t.test('routes of @fastify/websocket have subprotocols and messages of their own', async t => {
  const { port } = await run(t, 'graphql')
  const large = 'x'.repeat(2_000_000)
  t.equal(await firstMessage(t, port, '/graphql', ['graphql-transport-ws'], large), 'graphql-transport-ws 2000000')
  await answers(t, port)
})

t.test('scopes beside each other have sessions of their own', async t => {
  const { port } = await run(t, 'team')
  await answers(t, port, '/red/ws')
  await answers(t, port, '/blue/ws')
})

t.test('a scope that has drained ends its own connections only', async t => {
  const scopes: FastifyInstance[] = []
  const app = Fastify()
  t.teardown(() => app.close())
  for (const prefix of ['/red', '/blue']) {
    await app.register(async scope => {
      scopes.push(scope)
      await scope.register(holdfast, OURS)
    }, { prefix })
  }
  const port = await listen(app)
  const [red, blue] = await Promise.all(
    ['red', 'blue'].map(async name => await connectFull(`ws://127.0.0.1:${port}/${name}/ws`)))
  await scopes[0]?.gateway.drain(1000)
  t.equal((await red?.socket.nextClose())?.code, 4200)
  t.equal(blue?.socket.ws.readyState, WebSocket.OPEN)
  await app.close()
  t.equal((await blue?.socket.nextClose())?.code, 4200)
})

t.test('socket.io and ws keep their paths', async t => {
  const { app, port } = await run(t, 'socket.io')
  const io = connectIo(`http://127.0.0.1:${port}`, { path: '/chat', transports: ['websocket'], reconnection: false })
  t.teardown(() => { io.disconnect() })
  t.equal(await new Promise(resolve => { io.on('hello', resolve) }), 'socket.io')
  t.equal(await firstMessage(t, port, '/feed'), 'ws')
  await answers(t, port)
  await app.close()
})

// With the defaults of the library the first entry that is offered is echoed, and that may be the
// token.
for (const order of ['before', 'after'] as const) {
  t.test(`@fastify/websocket with its defaults, registered ${order}, changes nothing on our route`, async t => {
    const app = Fastify()
    t.teardown(() => app.close())
    if (order === 'before') await app.register(websocket)
    await app.register(holdfast, { ...OURS, closeTimeoutMs: NEVER_MS })
    if (order === 'after') await app.register(websocket)
    app.get('/own', { websocket: true }, socket => { socket.send('{"type":"own"}') })
    const port = await listen(app)
    const { socket } = await connectFull(`ws://127.0.0.1:${port}/ws`, ['auth.dG9rZW4'])
    t.equal(socket.ws.protocol, 'holdfast.v1')
    socket.ws.terminate()
    const oversized = await connectFull(`ws://127.0.0.1:${port}/ws`)
    oversized.socket.send(Buffer.alloc(70_000))
    t.equal((await oversized.socket.nextClose()).code, 1009)
    for (const [path, type] of [['/own', 'own'], ['/ws', 'session_created']] as const) {
      const injected = await injectSocket(app, { path })
      t.equal((await injected.next()).type, type)
      injected.ws.terminate()
    }
    const own = await connectSocket(`ws://127.0.0.1:${port}/own`)
    await own.next()
    const startedAt = Date.now()
    await app.close()
    t.ok(Date.now() - startedAt < NEVER_MS / 2, `closed in ${Date.now() - startedAt} ms`)
    await own.nextClose()
  })
}

t.test('twice in scopes beside each other, the library hands each handshake on once', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  let handled = 0
  for (const name of ['a', 'b']) {
    await app.register(async scope => {
      await scope.register(websocket)
      await scope.register(holdfast, OURS)
      scope.get('/own', { websocket: true }, socket => {
        handled++
        socket.send(name)
      })
    }, { prefix: `/${name}` })
  }
  const port = await listen(app)
  for (const name of ['a', 'b']) {
    t.equal(await firstMessage(t, port, `/${name}/own`), name)
    await answers(t, port, `/${name}/ws`)
  }
  t.equal(handled, 2)
})

t.test('sockets of others that are open are not requests that a drain waits for', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(websocket)
  app.addHook('onRequest', async () => { await new Promise(setImmediate) })
  await app.register(holdfast, OURS)
  app.get('/own', { websocket: true }, socket => { socket.send('{"type":"own"}') })
  const own = await connectSocket(`ws://127.0.0.1:${await listen(app)}/own`)
  await own.next()
  const startedAt = Date.now()
  await app.gateway.drain(NEVER_MS)
  t.ok(Date.now() - startedAt < NEVER_MS / 2, `drained in ${Date.now() - startedAt} ms`)
  t.equal(own.ws.readyState, WebSocket.OPEN)
})

t.test('what is attached while the application listens gets its handshakes, and not ours', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(holdfast, OURS)
  const port = await listen(app)
  const late = new WebSocketServer({ server: app.server, path: '/late' })
  late.on('connection', peer => { peer.send('late') })
  await eventually('taken in', () => app.server.listenerCount('upgrade') === 1)
  t.equal(await firstMessage(t, port, '/late'), 'late')
  await answers(t, port)
})

t.test('a WebSocket route without the library stops the start with what to do', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(holdfast, OURS)
  const declare = (): unknown => app.get('/own', { websocket: true }, async () => {})
  t.throws(declare, { code: 'PLUGIN_MISUSED', message: /\/own needs.*Register @fastify\/websocket before it/ })
})

t.test('without the library a socket is injected in the turn of the call', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(holdfast, OURS)
  await app.ready()
  let isInitialised = false
  const injected = app.injectWS('/ws', {}, { onInit: () => { isInitialised = true } })
  t.ok(isInitialised)
  const ws = await injected
  ws.terminate()
})

t.test('a parametric path is ours beside others', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(holdfast, { ...OURS, path: '/rooms/:room/ws' })
  const others = new WebSocketServer({ server: app.server, path: '/other' })
  t.teardown(() => { others.close() })
  await answers(t, await listen(app), '/rooms/7/ws')
})
