// The application as the server builds it: what it answers when something is wrong, what it writes
// to the log, and the bounds on addresses and time.

import type { Socket } from 'node:net'
import t from 'tap'
import { WebSocket } from 'ws'
import { buildApp } from '../src/app.js'
import { placeholderAuthenticator } from '../src/auth/authenticate.js'
import { configWith } from '../src/config.js'
import { HoldfastError } from '../src/io/errors.js'
import { buildTestApp, createLogCapture, startTestApp } from './helpers/app.js'
import { rawConnect } from './helpers/raw-socket.js'

// injectWS has no connection; limits by address need one.
const PEER = { socket: { remoteAddress: '127.0.0.1' } as Socket }

t.test('an override that is misspelt or wrong stops the building and is named', async t => {
  const authenticate = placeholderAuthenticator('ada')
  // Everybody was the placeholder user.
  await t.rejects(buildApp(configWith(), { authentcate: authenticate } as object), {
    code: 'CONFIG_INVALID', message: /^authentcate is not an option of buildApp; did you mean authenticate\?/
  })
  await t.rejects(buildApp(configWith(), { authenticate: 'jwt', core: {}, store: {}, logStream: {} } as object), {
    code: 'CONFIG_INVALID', message: /^authenticate .*"jwt" .*\ncore .*\nstore .*\nlogStream /
  })
})

t.test('answers every fault as {statusCode, code, error, message}', async t => {
  const app = await buildTestApp(t, {
    before: app => {
      app.get('/domain', async () => { throw new HoldfastError('USER_QUOTA', { retryAfterMs: 1500 }) })
      app.post(
        '/checked',
        { schema: { body: { type: 'object', properties: { n: { type: 'integer' } } } } },
        async () => 'ok'
      )
    }
  })
  const json = { 'content-type': 'application/json' }
  const cases = [
    [await app.inject('/nowhere'), 404, 'ROUTE_NOT_FOUND'],
    [await app.inject('/domain'), 429, 'USER_QUOTA'],
    [
      await app.inject({ method: 'POST', url: '/checked', headers: json, payload: '{"n":"x"}' }), 400, 'INVALID_REQUEST'
    ],
    [await app.inject({ method: 'POST', url: '/checked', headers: json, payload: '{"n":' }), 400, 'INVALID_REQUEST'],
    [
      await app.inject({ method: 'POST', url: '/checked', headers: json, payload: '{"__proto__":{}}' }),
      400,
      'INVALID_REQUEST'
    ],
    [
      await app.inject({ method: 'POST', url: '/checked', headers: json, payload: `"${'x'.repeat(1_200_000)}"` }),
      413,
      'PAYLOAD_TOO_LARGE'
    ],
    [await app.inject('/%zz'), 400, 'INVALID_REQUEST'],
    [await app.inject('/ws'), 426, 'UPGRADE_REQUIRED']
  ] as const
  for (const [answer, statusCode, code] of cases) {
    t.equal(answer.statusCode, statusCode, code)
    t.match(answer.json(), { statusCode, code, error: String, message: String })
  }
  t.equal(cases[1][0].headers['retry-after'], '2')
  t.equal(
    (await app.inject({ method: 'DELETE', url: '/nowhere', headers: json })).statusCode,
    404,
    'what has no body has no type'
  )
})

t.test('shows nothing of an unexpected error and logs it whole', async t => {
  const { logStream, lines } = createLogCapture()
  const app = await buildTestApp(t, {
    config: { logLevel: 'info' },
    logStream,
    before: app => { app.get('/broken', async () => { throw new Error('password=hunter2') }) }
  })
  const answer = await app.inject('/broken')
  t.equal(answer.statusCode, 500)
  t.match(answer.json(), { code: 'INTERNAL' })
  t.notMatch(answer.body, 'hunter2')
  t.match(lines.find(line => line['msg'] === 'request failed'), { err: { message: 'password=hunter2', stack: String } })
})

t.test('writes no token, cookie or query to the log', async t => {
  const { logStream, lines } = createLogCapture()
  const { port } = await startTestApp(t, { config: { logLevel: 'trace', jwtSecret: 'x'.repeat(32) }, logStream })
  const socket = new WebSocket(
    `ws://127.0.0.1:${port}/ws?token=in-the-query`,
    ['holdfast.v1', 'auth.in-the-subprotocol'],
    {
      headers: { authorization: 'Bearer in-the-header', cookie: 'in=the-cookie' }
    }
  )
  socket.on('error', () => {})
  await new Promise(resolve => {
    socket.once('unexpected-response', (_request, response) => { resolve(response.resume()) })
  })
  socket.terminate()
  const log = JSON.stringify(lines)
  t.match(log, '"url":"/ws"')
  for (const secret of ['in-the-query', 'in-the-subprotocol', 'in-the-header', 'the-cookie']) t.notMatch(log, secret)
})

// A request was logged without its method and route below debug, and each one without the
// operators' token was an error of a library besides.
t.test('logs one line a request, with method, route, status and time; an operator\'s refusal as a warning', async t => {
  const { logStream, lines } = createLogCapture()
  const app = await buildTestApp(t, { logStream, config: { logLevel: 'info', adminToken: 'sixteen-letters!' } })
  lines.length = 0
  await app.inject('/sessions?limit=1&token=secret')
  await app.inject({ url: '/sessions/s-1?x=secret', headers: { authorization: 'Bearer wrong-wrong-wrong' } })
  await app.inject({ url: '/sessions/no-such-session', headers: { authorization: 'Bearer sixteen-letters!' } })
  await app.inject('/nowhere?secret')
  const completed = lines.filter(line => line['msg'] === 'request completed')
  t.match(completed, [
    { level: 30, method: 'GET', route: '/sessions', statusCode: 401, responseTime: Number },
    { level: 30, method: 'GET', route: '/sessions/:id', statusCode: 401 },
    { level: 30, method: 'GET', route: '/sessions/:id', statusCode: 404 },
    { level: 30, method: 'GET', route: '(none)', statusCode: 404 }
  ])
  t.match(lines.filter(line => line['level'] !== 30), [
    { level: 40, msg: 'operator request refused', code: 'OPERATOR_REQUIRED' },
    { level: 40, msg: 'operator request refused', code: 'OPERATOR_REQUIRED' }
  ])
  t.equal(lines.length, 6)
  t.notMatch(JSON.stringify(lines), /secret/)
})

t.test('does not log probes and scrapes', async t => {
  const { logStream, lines } = createLogCapture()
  const app = await buildTestApp(t, { config: { logLevel: 'trace' }, logStream })
  await app.inject('/health/live')
  await app.inject('/metrics')
  t.same(lines.filter(line => 'req' in line || 'res' in line), [])
})

t.test('warns once that everybody is the placeholder user', async t => {
  const { logStream, lines } = createLogCapture()
  await buildTestApp(t, { config: { logLevel: 'warn' }, logStream })
  t.match(lines, [{ userId: 'human_reviewer_1', msg: /no authentication/ }])
})

t.test('limits handshakes per address and says when to come back', async t => {
  const { port } = await startTestApp(t, { config: { upgradesPerMinute: 2 } })
  const refusals: { status: number, retryAfter: string | undefined }[] = []
  for (let n = 0; n < 3; n++) {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/ws`)
    await new Promise<void>(resolve => {
      socket.once('open', resolve)
      socket.once('unexpected-response', (_request, response) => {
        refusals.push({ status: response.statusCode ?? 0, retryAfter: response.headers['retry-after'] })
        response.resume()
        resolve()
      })
      socket.on('error', () => {})
    })
    t.teardown(() => { socket.terminate() })
  }
  t.match(refusals, [{ status: 429, retryAfter: /^\d+$/ }])
})

t.test('limits requests per address over all routes, unknown ones included, but not probes', async t => {
  const app = await buildTestApp(t, { config: { requestsPerMinute: 2 } })
  t.equal((await app.inject('/sessions')).statusCode, 200)
  t.equal((await app.inject('/sessions/stats')).statusCode, 200)
  const refused = await app.inject('/sessions')
  t.equal(refused.statusCode, 429)
  t.match(refused.json(), { code: 'TOO_MANY_REQUESTS' })
  t.match(refused.headers['retry-after'], /^\d+$/)
  for (let n = 0; n < 3; n++) t.equal((await app.inject('/health/live')).statusCode, 200)
  const unknown = [await app.inject('/a'), await app.inject('/b'), await app.inject('/c')]
  t.same(unknown.map(({ statusCode }) => statusCode), [404, 404, 429])
})

t.test('counts what operators ask in one budget, and what needs no operator in another of the same size', async t => {
  const statuses = async (paths: string[]): Promise<number[]> => {
    const app = await buildTestApp(t, { config: { requestsPerMinute: 3 } })
    const answers: number[] = []
    for (const path of paths) answers.push((await app.inject(path)).statusCode)
    return answers
  }
  t.same(
    await statuses(['/metrics', '/sessions', '/users/x/sessions', '/metrics', '/openapi.json']),
    [200, 200, 200, 429, 200]
  )
  t.same(
    await statuses(['/openapi.json', '/docs/', '/', '/nowhere', '/docs/', '/openapi.json', '/', '/sessions']),
    [200, 200, 200, 429, 429, 429, 429, 200]
  )
})

t.test('believes forwarded addresses only from named proxies', async t => {
  const before = (app: Awaited<ReturnType<typeof buildTestApp>>): void => { app.get('/ip', async ({ ip }) => ip) }
  const forwarded = { url: '/ip', headers: { 'x-forwarded-for': '198.51.100.1, 203.0.113.9' } }
  const trusting = await buildTestApp(t, { config: { trustProxy: ['127.0.0.0/8'] }, before })
  t.equal(
    (await trusting.inject(forwarded)).body, '203.0.113.9', 'and then the last one that the proxy has seen itself'
  )
  const plain = await buildTestApp(t, { before })
  t.equal((await plain.inject(forwarded)).body, '127.0.0.1')
})

t.test('gives slow headers a time, and answers 408', async t => {
  const { port } = await startTestApp(t, { config: { handshakeSeconds: 0.2 } })
  const peer = await rawConnect(port)
  peer.write('GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n')
  const { status, body } = await peer.answer()
  t.equal(status, 408)
  t.match(JSON.parse(body), { statusCode: 408, code: 'INVALID_REQUEST' })
  await peer.ended
})

t.test('answers broken HTTP and too many headers, and closes', async t => {
  const { port } = await startTestApp(t)
  for (const [text, status] of [
    ['NONSENSE\r\n\r\n', 400], [`GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, 431]
  ] as const) {
    const peer = await rawConnect(port)
    peer.write(text)
    const answer = await peer.answer()
    t.equal(answer.status, status)
    t.match(JSON.parse(answer.body), { statusCode: status, code: 'INVALID_REQUEST' })
    await peer.ended
  }
})

t.test('sets headers that browsers need, and none that break plain HTTP', async t => {
  const app = await buildTestApp(t)
  const { headers } = await app.inject('/sessions')
  t.equal(headers['x-content-type-options'], 'nosniff')
  t.match(headers['content-security-policy'], /script-src 'self'/)
  t.notMatch(headers['content-security-policy'], /upgrade-insecure-requests/)
  t.equal(headers['strict-transport-security'], undefined)
})

t.test('serves sockets without listening', async t => {
  const app = await buildTestApp(t)
  const frame = await new Promise<string>((resolve, reject) => {
    app.injectWS('/ws', PEER, {
      onInit: ws => { ws.once('message', data => { resolve(String(data)) }) }
    }).then(ws => { t.teardown(() => { ws.terminate() }) }, reject)
  })
  t.match(JSON.parse(frame), { type: 'session_created', payload: { userId: 'human_reviewer_1' } })
})

t.test('P-47 asks for tokens as soon as a secret is set', async t => {
  const app = await buildTestApp(t, { config: { jwtSecret: 'x'.repeat(32) } })
  await t.rejects(app.injectWS('/ws', PEER), /401/)
})

t.test('leaves peers alone that are gone before they are looked at', async t => {
  const { logStream, lines } = createLogCapture()
  const { app, port } = await startTestApp(t, { config: { logLevel: 'info' }, logStream })
  // What a reset before the first hook looks like; without an address there is no budget to count
  // it in.
  app.server.on('connection', (socket: Socket) => {
    Object.defineProperty(socket, 'remoteAddress', { value: undefined })
  })
  for (const text of [
    'GET /sessions HTTP/1.1\r\nHost: a\r\n\r\n',
    'GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: ' +
      `13\r\nSec-WebSocket-Key: ${'A'.repeat(22)}==\r\n\r\n`
  ]) {
    const peer = await rawConnect(port)
    peer.write(text)
    await peer.ended
    t.equal(peer.received.length, 0)
  }
  t.same(lines.filter(({ level }) => Number(level) >= 50), [])
})
