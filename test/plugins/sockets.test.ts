// The life of sockets: requests with an Upgrade header, byte by byte over TCP, since no HTTP
// library sends them as Java's client does; and what becomes of connections when the instance
// closes.

import { randomBytes } from 'node:crypto'
import { connect, type AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import Fastify, { type FastifyInstance } from 'fastify'
import dispatcher from '../../plugins/dispatcher.js'
import rateLimit from '../../plugins/rate-limit.js'
import sessionManager from '../../plugins/session-manager.js'
import websocketGateway from '../../plugins/websocket-gateway.js'
import { startTestApp } from '../helpers/app.js'
import { rawConnect, type RawSocket } from '../helpers/raw-socket.js'
import { DISPATCHER_LIMITS, GATEWAY_LIMITS, SESSION_LIMITS, eventually, listen } from '../helpers/server.js'
import { injectSocket } from '../helpers/socket.js'
import { placeholderAuthenticator } from '../../src/auth/authenticate.js'

const H2C = [
  'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA'
]

function head (requestLine: string, lines: string[]): string {
  return `${requestLine}\r\nHost: 127.0.0.1\r\n${lines.join('\r\n')}\r\n\r\n`
}

function handshake (path: string): string {
  return head(`GET ${path} HTTP/1.1`, [
    'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13',
    `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`
  ])
}

/** The application with a route that answers what it was sent. */
async function start (t: Test): Promise<{ app: FastifyInstance, port: number }> {
  return await startTestApp(t, {
    before: app => {
      app.post('/mirror', async ({ body, headers, ip }) => ({ body, headers, ip }))
      app.get('/mirror', async ({ query, headers }) => ({ query, headers }))
    }
  })
}

async function openConnections (app: FastifyInstance): Promise<number> {
  return await new Promise((resolve, reject) => {
    app.server.getConnections((error, count) => { error === null ? resolve(count) : reject(error) })
  })
}

t.test('serves a plain route to a client that offers h2c', async t => {
  const { port } = await start(t)
  const peer = await rawConnect(port)
  peer.write(head('GET /health/live HTTP/1.1', H2C))
  const { status, body } = await peer.answer()
  t.equal(status, 200)
  t.same(JSON.parse(body), { status: 'ok' })
  peer.reset()
})

t.test('keeps every other header and the query of such a request', async t => {
  const { port } = await start(t)
  const peer = await rawConnect(port)
  peer.write(Buffer.from(
    head('GET /mirror?a=1&b=%20 HTTP/1.1', [
      'X-One: 1', 'X-Two: caf\u00e9', 'Connection: keep-alive, Upgrade', 'Upgrade: h2c'
    ]),
    'latin1'
  ))
  const { body } = await peer.answer()
  const { query, headers } = JSON.parse(body) as { query: object, headers: Record<string, string> }
  t.same(query, { a: '1', b: ' ' })
  t.match(headers, { 'x-one': '1', 'x-two': 'caf\u00e9', connection: 'keep-alive' })
  t.notOk('upgrade' in headers)
  peer.reset()
})

t.test('reads the body of such a request, with a length', async t => {
  const { port } = await start(t)
  const peer = await rawConnect(port)
  const payload = JSON.stringify({ text: 'x'.repeat(200_000) })
  peer.write(head('POST /mirror HTTP/1.1', [
    ...H2C, 'Content-Type: application/json', `Content-Length: ${payload.length}`
  ]))
  for (let at = 0; at < payload.length; at += 50_000) peer.write(payload.slice(at, at + 50_000))
  const { status, body } = await peer.answer()
  t.equal(status, 200)
  t.equal((JSON.parse(body) as { body: { text: string } }).body.text.length, 200_000)
  t.equal((JSON.parse(body) as { ip: string }).ip, '127.0.0.1')
  peer.reset()
})

t.test('reads the body of such a request, in chunks', async t => {
  const { port } = await start(t)
  const peer = await rawConnect(port)
  peer.write(
    `${head('POST /mirror HTTP/1.1', [
      ...H2C, 'Content-Type: application/json', 'Transfer-Encoding: chunked'
    ])}5\r\n{"a":\r\n`
  )
  peer.write('2\r\n1}\r\n0\r\n\r\n')
  const { status, body } = await peer.answer()
  t.equal(status, 200)
  t.same((JSON.parse(body) as { body: object }).body, { a: 1 })
  peer.reset()
})

t.test('answers such requests in order when they are pipelined, and keeps the connection open', async t => {
  const { port } = await start(t)
  const peer = await rawConnect(port)
  peer.write(head('GET /mirror?n=1 HTTP/1.1', H2C) + head('GET /mirror?n=2 HTTP/1.1', H2C))
  t.match(JSON.parse((await peer.answer()).body), { query: { n: '1' } })
  t.match(JSON.parse((await peer.answer()).body), { query: { n: '2' } })
  peer.write(head('GET /health/live HTTP/1.1', ['Connection: close']))
  t.equal((await peer.answer()).status, 200)
  await peer.ended
})

t.test('serves many such requests on one connection without piling up listeners', async t => {
  const { port } = await start(t)
  const warnings: Error[] = []
  const onWarning = (warning: Error): void => { warnings.push(warning) }
  process.on('warning', onWarning)
  t.teardown(() => process.off('warning', onWarning))
  const peer = await rawConnect(port)
  for (let n = 0; n < 40; n++) {
    peer.write(head(`GET /mirror?n=${n} HTTP/1.1`, H2C))
    t.match(JSON.parse((await peer.answer()).body), { query: { n: String(n) } })
  }
  await new Promise(setImmediate)
  t.same(warnings, [])
  peer.reset()
})

t.test('answers 426 to another protocol on the socket route', async t => {
  const { port } = await start(t)
  const peer = await rawConnect(port)
  peer.write(head('GET /ws HTTP/1.1', H2C))
  const { status, body } = await peer.answer()
  t.equal(status, 426)
  t.match(JSON.parse(body), { code: 'UPGRADE_REQUIRED' })
  peer.reset()
})

t.test('refuses a handshake on a route without a socket and ends the connection', async t => {
  const { app, port } = await start(t)
  const peer = await rawConnect(port)
  peer.write(handshake('/health/live'))
  const { status, body } = await peer.answer()
  t.equal(status, 400)
  t.match(JSON.parse(body), { statusCode: 400, code: 'BAD_HANDSHAKE' })
  await peer.ended
  t.equal(await openConnections(app), 0)
})

t.test('refuses a handshake on an unknown route and ends the connection', async t => {
  const { port } = await start(t)
  const peer = await rawConnect(port)
  peer.write(handshake('/nowhere'))
  const { status, body } = await peer.answer()
  t.equal(status, 404)
  t.match(JSON.parse(body), { code: 'ROUTE_NOT_FOUND' })
  await peer.ended
})

t.test('lets operators\' authentication answer before it tells that a route has no socket', async t => {
  const { port } = await startTestApp(t, { config: { adminToken: 'sixteen-letters!' } })
  const peer = await rawConnect(port)
  peer.write(handshake('/sessions'))
  t.equal((await peer.answer()).status, 401)
  await peer.ended
})

t.test('accepts a handshake on the socket route', async t => {
  const { port } = await start(t)
  const peer = await rawConnect(port)
  peer.write(handshake('/ws'))
  t.equal((await peer.answer()).status, 101)
  t.match(JSON.parse(await peer.nextText()), { type: 'session_created' })
  peer.reset()
})

t.test('survives a peer that is gone before its request is given back', async t => {
  const { app, port } = await start(t)
  for (let i = 0; i < 20; i++) {
    const peer = await rawConnect(port)
    peer.write(head('GET /mirror HTTP/1.1', H2C) + head('POST /mirror HTTP/1.1', [...H2C, 'Content-Length: 10']))
    if (i % 2 === 0) await new Promise(setImmediate)
    peer.reset()
  }
  t.equal((await app.inject('/health/live')).statusCode, 200)
})

t.test('closes at once although a handshake was refused just before', async t => {
  const { app, port } = await start(t)
  const peer = await rawConnect(port)
  peer.write(handshake('/health/live'))
  await peer.answer()
  await app.close()
  await peer.ended
  t.equal(await openConnections(app), 0)
})

// `app.close()` waited for every connection, and Node stops its own time limits then: one that had
// sent nothing, or half of something, held up a host for ever.

/**
 * A host application. Its `closeTimeoutMs` is short where a test has to wait for it, and far beyond
 * the test's time where it must not matter.
 */
async function host (
  t: Test, closeTimeoutMs: number, before: (app: FastifyInstance) => Promise<void> | void = () => {}
): Promise<FastifyInstance> {
  const app = Fastify()
  t.teardown(() => app.close())
  await before(app)
  await app.register(sessionManager, { limits: SESSION_LIMITS })
  await app.register(dispatcher, { limits: DISPATCHER_LIMITS })
  await app.register(websocketGateway, {
    authenticate: placeholderAuthenticator(),
    allowedOrigins: [],
    upgradesPerMinute: 1000,
    limits: GATEWAY_LIMITS,
    closeTimeoutMs
  })
  return app
}

const NEVER_MS = 120_000
const AT_ONCE_MS = NEVER_MS / 2

async function closesWithin (t: Test, app: FastifyInstance, ms: number): Promise<void> {
  const startedAt = Date.now()
  await app.close()
  t.ok(Date.now() - startedAt < ms, `closed in ${Date.now() - startedAt} ms`)
}

const PLAIN = 'GET /plain HTTP/1.1\r\nHost: localhost\r\n\r\n'

const LEFT_OPEN: Record<string, (port: number) => Promise<RawSocket>> = {
  'a connection that never sent a byte': rawConnect,
  'a connection that was kept alive': async port => {
    const peer = await rawConnect(port)
    peer.write(PLAIN)
    await peer.answer()
    return peer
  },
  'a refused handshake whose socket the client keeps': async port => {
    const peer = await rawConnect(port)
    peer.write(handshake('/nowhere'))
    await peer.answer()
    return peer
  }
}

for (const [what, open] of Object.entries(LEFT_OPEN)) {
  t.test(`close() ends ${what} at once`, async t => {
    const app = await host(t, NEVER_MS, app => { app.get('/plain', async () => 'plain') })
    const peer = await open(await listen(app))
    await closesWithin(t, app, AT_ONCE_MS)
    await peer.ended
  })
}

const UNFINISHED: Record<string, string> = {
  'half a request': 'GET /plain HTTP/1.1\r\nHost: loc',
  'half a body': 'POST /mirror HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ' +
    '100\r\n\r\n{',
  'half a handshake': handshake('/ws').slice(0, -2),
  'a request, and half of another one': `${PLAIN}GET /pl`,
  'the first bytes of TLS': '\x16\x03\x01',
  'a request that no handler answers': 'GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n'
}

for (const [what, bytes] of Object.entries(UNFINISHED)) {
  t.test(`close() ends a connection that sent ${what} after closeTimeoutMs`, async t => {
    const app = await host(t, 600, app => {
      app.get('/plain', async () => 'plain')
      app.post('/mirror', async ({ body }) => body)
      app.get('/never', async () => await new Promise(() => {}))
    })
    const peer = await rawConnect(await listen(app))
    peer.write(bytes)
    await eventually('read', async () => await openConnections(app) === 1 || peer.isEnded)
    await closesWithin(t, app, 600 + AT_ONCE_MS)
    await peer.ended
  })
}

t.test('close() waits for a request under way, answers it with Connection: close, not for its client', async t => {
  let answer: (value: string) => void = () => {}
  const app = await host(t, NEVER_MS, app => {
    app.get('/slow', async () => await new Promise<string>(resolve => { answer = resolve }))
  })
  const peer = await rawConnect(await listen(app))
  peer.write('GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n')
  await eventually('asked', () => answer.length > 0)
  const closed = closesWithin(t, app, AT_ONCE_MS)
  await eventually('draining', () => app.gateway.draining)
  answer('done')
  t.match(await peer.answer(), { status: 200, body: 'done', headers: { connection: 'close' } })
  await peer.ended
  await closed
})

t.test('during a drain requests are served, and each answer ends its connection', async t => {
  const app = await host(t, NEVER_MS, app => { app.get('/plain', async () => 'plain') })
  const port = await listen(app)
  const kept = await rawConnect(port)
  kept.write(PLAIN)
  t.match((await kept.answer()).headers, { connection: 'keep-alive' })
  await app.gateway.drain(1000)
  kept.write(PLAIN)
  t.match(await kept.answer(), { status: 200, headers: { connection: 'close' } })
  await kept.ended
  const fresh = await rawConnect(port)
  fresh.write(PLAIN)
  t.match(await fresh.answer(), { status: 200, headers: { connection: 'close' } })
  await fresh.ended
})

t.test('close() after a drain waits for nobody', async t => {
  const app = await host(t, NEVER_MS, app => { app.get('/never', async () => await new Promise(() => {})) })
  const port = await listen(app)
  const peers = await Promise.all([rawConnect(port), rawConnect(port), rawConnect(port)])
  peers[1]?.write('GET /never HTTP/1.1\r\nHost: localhost\r\n\r\n')
  peers[2]?.write(handshake('/ws'))
  t.equal((await peers[2]?.answer())?.status, 101)
  await app.gateway.drain(500)
  await closesWithin(t, app, AT_ONCE_MS)
  await Promise.all(peers.map(async peer => await peer.ended))
})

t.test('close() ends silent connections on every address that a name stands for', async t => {
  const app = await host(t, NEVER_MS)
  await app.listen({ port: 0, host: 'localhost' })
  const peers = (app.addresses() as AddressInfo[]).map(({ address, port }) => {
    const peer = connect(port, address)
    return {
      connected: new Promise(resolve => { peer.once('connect', resolve) }),
      ended: new Promise(resolve => { peer.once('close', resolve) }),
      peer
    }
  })
  for (const { peer, connected } of peers) {
    peer.resume().on('error', () => {})
    await connected
  }
  await closesWithin(t, app, AT_ONCE_MS)
  await Promise.all(peers.map(async ({ ended }) => await ended))
})

// A hook in front of @fastify/websocket's own answers a handshake of which nobody knows that it is
// one: its socket stayed open, and close() hung.

const REFUSING: Record<string, (app: FastifyInstance) => void> = {
  throws: app => {
    app.addHook('onRequest', async () => { throw Object.assign(new Error('no'), { statusCode: 403 }) })
  },
  answers: app => { app.addHook('onRequest', async (_request, reply) => await reply.code(403).send('no')) },
  hijacks: app => {
    app.addHook('onRequest', async (_request, reply) => {
      reply.hijack()
      reply.raw.writeHead(403, { 'content-length': '0' }).end()
    })
  }
}

for (const [what, refuse] of Object.entries(REFUSING)) {
  for (const order of ['before', 'after'] as const) {
    t.test(`a hook that ${what}, registered ${order} the gateway, leaves no socket open`, async t => {
      const app = await host(t, NEVER_MS, order === 'before' ? refuse : undefined)
      if (order === 'after') refuse(app)
      const port = await listen(app)
      for (const path of ['/ws', '/nowhere']) {
        const peer = await rawConnect(port)
        peer.write(handshake(path))
        t.equal((await peer.answer()).status, 403)
        await peer.ended
      }
      await closesWithin(t, app, AT_ONCE_MS)
    })
  }
}

t.test('the order of plugins makes no difference to what is left open', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  app.get('/early', async () => 'early')
  await app.register(async scope => {
    await scope.register(sessionManager, { limits: SESSION_LIMITS })
    await scope.register(dispatcher, { limits: DISPATCHER_LIMITS })
    await scope.register(websocketGateway, {
      authenticate: placeholderAuthenticator(),
      allowedOrigins: [],
      upgradesPerMinute: 1000,
      limits: GATEWAY_LIMITS,
      closeTimeoutMs: NEVER_MS
    })
    await scope.register(rateLimit, { requestsPerMinute: 1000 })
  })
  app.get('/late', async () => 'late')
  const port = await listen(app)
  for (const path of ['/early', '/late', '/nowhere']) {
    const peer = await rawConnect(port)
    peer.write(handshake(path))
    await peer.answer()
    peer.write(Buffer.from([0x88, 0x80, 0, 0, 0, 0]))
    await peer.ended
  }
  await rawConnect(port)
  await closesWithin(t, app, AT_ONCE_MS)
})

for (const how of ['open', 'closed', 'terminated', 'refused'] as const) {
  t.test(`an injected socket that is ${how} costs a close nothing`, async t => {
    const app = await host(t, NEVER_MS)
    if (how === 'refused') {
      await app.ready()
      await t.rejects(app.injectWS('/nowhere'), /404/)
    } else {
      const socket = await injectSocket(app)
      await socket.next()
      if (how === 'closed') socket.ws.close()
      if (how === 'terminated') socket.ws.terminate()
    }
    await closesWithin(t, app, AT_ONCE_MS)
  })
}

t.test('a handshake behind a request that is not answered yet is answered after it', async t => {
  let answer: (value: string) => void = () => {}
  const app = await host(t, NEVER_MS, app => {
    app.get('/slow', async () => await new Promise<string>(resolve => { answer = resolve }))
  })
  const peer = await rawConnect(await listen(app))
  peer.write(`GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n${handshake('/ws')}`)
  await eventually('asked', () => answer.length > 0)
  answer('done')
  t.match(await peer.answer(), { status: 200, body: 'done' })
  t.equal((await peer.answer()).status, 101)
  t.match(JSON.parse(await peer.nextText()), { type: 'session_created' })
  peer.reset()
})

t.test('requests over a Unix socket are served', async t => {
  const path = `${t.testdir()}/server.sock`
  const other = Fastify()
  t.teardown(() => other.close())
  await other.register(sessionManager, { limits: SESSION_LIMITS })
  await other.register(dispatcher, { limits: DISPATCHER_LIMITS })
  await other.register(websocketGateway, {
    authenticate: placeholderAuthenticator(), allowedOrigins: [], upgradesPerMinute: 1000, limits: GATEWAY_LIMITS
  })
  other.get('/plain', async () => 'plain')
  await other.listen({ path })
  const text = await new Promise<string>(resolve => {
    const peer = connect(path, () => { peer.write('GET /plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n') })
    let received = ''
    peer.on('data', data => { received += String(data) }).on('close', () => { resolve(received) })
  })
  t.match(text, /200 OK/)
})
