// Who is an operator (reliability promises 47 and 48): with a token, and without one on the
// loopback. Peers are made up by inject; what depends on a real socket is asked over one.

import { connect, type AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import type { InjectOptions } from 'fastify'
import t from 'tap'
import operatorAuth from '../../plugins/operator-auth.js'
import { asker, buildRestApp } from '../helpers/rest.js'
import { createPluginApp } from '../helpers/server.js'

const TOKEN = 's3cret-token-of-32-characters-min'
const ROUTES: Array<[NonNullable<InjectOptions['method']>, string]> = [
  ['GET', '/sessions'], ['GET', '/sessions/stats'], ['GET', '/sessions/x'], ['DELETE', '/sessions/x'],
  ['DELETE', '/sessions/x/connection'], ['POST', '/sessions/x/messages'],
  ['GET', '/users/x/sessions'], ['DELETE', '/users/x/sessions'], ['POST', '/users/x/messages'], ['POST', '/broadcast'],
  ['POST', '/messages'], ['GET', '/metrics'], ['HEAD', '/sessions']
]

t.test('with a token every route of operators is closed to everybody else', async t => {
  const app = await buildRestApp(t, { auth: { adminToken: TOKEN, host: '0.0.0.0' } })
  for (const [method, url] of ROUTES) {
    const answer = await app.inject({ method, url })
    t.equal(answer.statusCode, 401, `${method} ${url}`)
    t.equal(answer.headers['www-authenticate'], 'Bearer realm="holdfast"')
    t.equal(answer.headers['cache-control'], 'no-store')
    if (method !== 'HEAD') t.equal(answer.json().code, 'OPERATOR_REQUIRED')
  }
})

t.test('the token is taken from the Authorization header and from nowhere else', async t => {
  const app = await buildRestApp(t, { auth: { adminToken: TOKEN } })
  const refused: Array<Pick<InjectOptions, 'url' | 'headers'>> = [
    { url: `/sessions?token=${TOKEN}` }, { url: `/sessions?access_token=${TOKEN}` },
    { url: '/sessions', headers: { authorization: TOKEN } },
    { url: '/sessions', headers: { authorization: `Basic ${TOKEN}` } },
    { url: '/sessions', headers: { authorization: `Bearer ${TOKEN}x` } },
    { url: '/sessions', headers: { authorization: `Bearer ${TOKEN.slice(1)}` } },
    { url: '/sessions', headers: { authorization: 'Bearer ' } },
    { url: '/sessions', headers: { authorization: `Bearer ${TOKEN.toUpperCase()}` } },
    { url: '/sessions', headers: { cookie: `token=${TOKEN}` } },
    { url: '/sessions', headers: { 'x-api-key': TOKEN } }
  ]
  for (const request of refused) {
    t.equal((await app.inject({ method: 'GET', ...request })).statusCode, 401, JSON.stringify(request))
  }
  for (const scheme of ['Bearer', 'bearer', 'BEARER']) {
    t.equal((await asker(app, { authorization: `${scheme} ${TOKEN}` })('GET', '/sessions')).statusCode, 200, scheme)
  }
})

t.test('with a token neither the peer nor the Host header matters', async t => {
  const app = await buildRestApp(t, { auth: { adminToken: TOKEN, host: '0.0.0.0' } })
  const answer = await app.inject({
    url: '/sessions',
    remoteAddress: '203.0.113.9',
    headers: {
      host: 'ops.example', authorization: `Bearer ${TOKEN}`, 'x-forwarded-for': '1.2.3.4', origin: 'https://ops.example'
    }
  })
  t.equal(answer.statusCode, 200)
})

t.test('no answer grants anything to another origin', async t => {
  const app = await buildRestApp(t)
  for (const method of ['GET', 'OPTIONS'] as const) {
    const { headers } = await app.inject({
      method,
      url: '/sessions',
      headers: { origin: 'https://evil.example', 'access-control-request-method': 'DELETE' }
    })
    t.same(Object.keys(headers).filter(name => name.startsWith('access-control')), [])
  }
})

t.test('without a token only a loopback peer that asks for a loopback host is an operator', async t => {
  const app = await buildRestApp(t)
  const ask = async (remoteAddress: string, host: string): Promise<number> => (await app.inject({
    url: '/sessions',
    remoteAddress,
    headers: { host }
  })).statusCode
  for (const host of [
    'localhost', 'localhost:3000', 'LOCALHOST:1', '127.0.0.1', '127.0.0.1:65535', '127.255.3.4:80', '[::1]',
    '[::1]:3000'
  ]) {
    t.equal(await ask('127.0.0.1', host), 200, host)
  }
  for (const peer of ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1']) {
    t.equal(await ask(peer, 'localhost'), 200, peer)
  }
  for (const host of [
    'evil.example', 'evil.example:3000', 'localhost.evil.example', 'localhost.', 'evil.localhost',
    '127.0.0.1.evil.example', '0.0.0.0', '10.0.0.1', '192.168.1.5:3000', '[::]', '[fe80::1]', '::1', '[127.0.0.1]',
    '2130706433', '0x7f000001', '127.1', 'localhost:3000:1', 'localhost@evil.example', ' localhost x', '[::1',
    '127.0.0.1:', 'localhost:999999'
  ]) t.equal(await ask('127.0.0.1', host), 403, host)
  for (const peer of ['203.0.113.9', '10.0.0.1', '::', 'fe80::1', '::ffff:10.0.0.1']) {
    t.equal(await ask(peer, 'localhost'), 403, peer)
  }
  const answer = await app.inject({ url: '/sessions', headers: { host: 'evil.example' } })
  t.match(answer.json(), { statusCode: 403, code: 'HOST_FORBIDDEN', error: 'Forbidden' })
})

t.test('without a token what a proxy has forwarded is refused, since it makes everybody local', async t => {
  const app = await buildRestApp(t, { server: { trustProxy: '127.0.0.1' } })
  for (const header of ['x-forwarded-for', 'x-forwarded-host', 'x-real-ip', 'forwarded', 'via']) {
    t.equal(
      (await app.inject({ url: '/sessions', headers: { host: 'localhost', [header]: '127.0.0.1' } })).statusCode,
      403,
      header
    )
  }
})

t.test('without a token a page of another site changes nothing', async t => {
  const app = await buildRestApp(t)
  const { id } = app.sessionManager.createSession('alice')
  const remove = async (headers: Record<string, string>): Promise<{ statusCode: number, json(): { code: string } }> =>
    await app.inject({ method: 'DELETE', url: `/sessions/${id}`, headers: { host: 'localhost:3000', ...headers } })
  for (const headers of [
    { origin: 'https://evil.example' }, { origin: 'null' }, { origin: 'http://localhost:8080' },
    { origin: 'http://127.0.0.1:3000' }, { origin: '' }, { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' }, { origin: 'http://localhost:3000', 'sec-fetch-site': 'cross-site' }
  ]) {
    const answer = await remove(headers)
    t.equal(answer.statusCode, 403, JSON.stringify(headers))
    t.equal(answer.json().code, 'FORBIDDEN')
  }
  t.ok(app.sessionManager.peekSession(id))
  t.equal((await remove({ origin: 'http://localhost:3000', 'sec-fetch-site': 'same-origin' })).statusCode, 204)
})

t.test('without a token a request that names no host, two, or another one in its URL is refused', async t => {
  const app = await buildRestApp(t)
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  const statusOf = async (request: string): Promise<string | undefined> => {
    const socket = connect(port, '127.0.0.1').end(`${request}\r\nConnection: close\r\n\r\n`)
    return (await text(socket)).split(' ')[1]
  }
  t.equal(await statusOf('GET /sessions HTTP/1.1\r\nHost: localhost'), '200')
  t.equal(await statusOf('GET /sessions HTTP/1.0\r\nAccept: */*'), '403')
  t.equal(await statusOf('GET /sessions HTTP/1.1\r\nAccept: */*'), '400')
  t.equal(await statusOf('GET /sessions HTTP/1.1\r\nHost: localhost\r\nHost: evil.example'), '403')
  t.equal(await statusOf('GET http://evil.example/sessions HTTP/1.1\r\nHost: localhost'), '403')
})

t.test('an address that guesses is told to wait, on whatever route, and so is it with the right token', async t => {
  const app = await buildRestApp(t, { auth: { adminToken: TOKEN, requestsPerMinute: 5 } })
  for (let i = 0; i < 5; i++) {
    const [method, url] = ROUTES[i % ROUTES.length] as (typeof ROUTES)[0]
    t.equal(
      (await app.inject({
        method,
        url,
        remoteAddress: '203.0.113.9',
        headers: { authorization: `Bearer guess-${i}` }
      })).statusCode,
      401
    )
  }
  const late = await app.inject({
    url: '/users/x/sessions',
    remoteAddress: '203.0.113.9',
    headers: { authorization: `Bearer ${TOKEN}` }
  })
  t.equal(late.statusCode, 429)
  t.match(late.json(), { statusCode: 429, code: 'TOO_MANY_REQUESTS', error: 'Too Many Requests' })
  t.ok(Number(late.headers['retry-after']) > 0 && Number(late.headers['retry-after']) <= 60)
  const other = await app.inject({
    url: '/sessions',
    remoteAddress: '203.0.113.10',
    headers: { authorization: `Bearer ${TOKEN}` }
  })
  t.equal(other.statusCode, 200)
  t.equal((await app.inject({ url: '/health/live', remoteAddress: '203.0.113.9' })).statusCode, 200)
})

// Behind a proxy that writes `ip:port` each guess came from an address of its own.
t.test('an address that guesses is one address, however a trusted proxy writes it', async t => {
  const app = await buildRestApp(t, {
    auth: { adminToken: TOKEN, requestsPerMinute: 5 },
    server: { trustProxy: '127.0.0.1' }
  })
  for (const write of [(i: number) => `203.0.113.9:${5000 + i}`, (i: number) => `[2001:db8::${i}]:${5000 + i}`]) {
    const statuses: number[] = []
    for (let i = 1; i <= 6; i++) {
      statuses.push(
        (await app.inject({
          url: '/sessions',
          headers: { authorization: 'Bearer guess', 'x-forwarded-for': write(i) }
        })).statusCode
      )
    }
    t.same(statuses, [401, 401, 401, 401, 401, 429])
  }
})

t.test('refusals are logged without the token that was sent', async t => {
  const lines: string[] = []
  const app = await buildRestApp(t, {
    auth: { adminToken: TOKEN },
    server: { logger: { level: 'trace', stream: { write: (line: string) => { lines.push(line) } } } }
  })
  await app.inject({ url: '/sessions', headers: { authorization: 'Bearer a-guess' } })
  await app.inject({ url: '/sessions', headers: { authorization: `Bearer ${TOKEN}` } })
  t.match(lines.map(line => JSON.parse(line)).find(({ msg }) => msg === 'operator request refused'), {
    code: 'OPERATOR_REQUIRED', address: '127.0.0.1'
  })
  t.notMatch(lines.join(''), 'a-guess')
  t.notMatch(lines.join(''), TOKEN)
})

t.test('registrations that would leave the API open or closed by mistake are refused', async t => {
  const register = async (options: Parameters<typeof operatorAuth>[1]): Promise<void> => {
    const app = await createPluginApp()
    t.teardown(() => app.close())
    await app.register(operatorAuth, options)
  }
  for (const host of ['0.0.0.0', '::', '192.168.0.1', 'holdfast.example', '']) {
    await t.rejects(register({ host }), { code: 'PLUGIN_MISUSED' }, host)
  }
  for (const host of ['127.0.0.1', 'localhost', '::1', '127.1.2.3']) await t.resolves(register({ host }), host)
  for (const adminToken of ['', 'with space', 'ünprintable', 'line\nbreak']) {
    await t.rejects(register({ host: '0.0.0.0', adminToken }), { code: 'PLUGIN_MISUSED' }, JSON.stringify(adminToken))
  }
  await t.rejects(
    register({ host: '127.0.0.1', requestsPerMinute: 10 }), { code: 'PLUGIN_MISUSED' }, 'no @fastify/rate-limit'
  )
  const app = await createPluginApp()
  t.teardown(() => app.close())
  await app.register(operatorAuth, { host: '127.0.0.1' })
  await t.rejects(
    Promise.resolve(app.register(operatorAuth, { host: '127.0.0.1' })), { code: 'PLUGIN_MISUSED' }, 'twice'
  )
})

t.test('nothing of it reaches the routes of the host application', async t => {
  const app = await buildRestApp(t, {
    auth: { adminToken: TOKEN },
    after: app => { app.get('/own', async () => ({ own: true })) }
  })
  const answer = await app.inject('/own')
  t.equal(answer.statusCode, 200)
  t.equal(answer.headers['cache-control'], undefined)
  t.equal(app.hasDecorator('verifyBearerAuth'), false)
})
