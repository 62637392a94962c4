// Requests with an Upgrade header, byte by byte over TCP: no HTTP library sends them as Java's client does.

import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import type { FastifyInstance } from 'fastify'
import { startTestApp } from '../helpers/app.js'
import { rawConnect } from '../helpers/raw-socket.js'

const H2C = ['Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA']

function head (requestLine: string, lines: string[]): string {
  return `${requestLine}\r\nHost: 127.0.0.1\r\n${lines.join('\r\n')}\r\n\r\n`
}

function handshake (path: string): string {
  return head(`GET ${path} HTTP/1.1`, ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`])
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
  return await new Promise((resolve, reject) => { app.server.getConnections((error, count) => { error === null ? resolve(count) : reject(error) }) })
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
  peer.write(Buffer.from(head('GET /mirror?a=1&b=%20 HTTP/1.1', ['X-One: 1', 'X-Two: caf\u00e9', 'Connection: keep-alive, Upgrade', 'Upgrade: h2c']), 'latin1'))
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
  peer.write(head('POST /mirror HTTP/1.1', [...H2C, 'Content-Type: application/json', `Content-Length: ${payload.length}`]))
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
  peer.write(`${head('POST /mirror HTTP/1.1', [...H2C, 'Content-Type: application/json', 'Transfer-Encoding: chunked'])}5\r\n{"a":\r\n`)
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
  t.match(JSON.parse((await peer.nextFrame()).payload.toString()), { type: 'session_created' })
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
