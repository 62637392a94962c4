import { setImmediate as turn } from 'node:timers/promises'
import bearerAuth from '@fastify/bearer-auth'
import rateLimit from '@fastify/rate-limit'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { placeholderAuthenticator, type AuthRequest, type Principal } from '../../src/auth/authenticate.js'
import { HoldfastError, type ErrorCode } from '../../src/io/errors.js'
import dispatcher from '../../plugins/dispatcher.js'
import sessionManager from '../../plugins/session-manager.js'
import websocketGateway, { websocketOptions } from '../../plugins/websocket-gateway.js'
import { createManualClock } from '../helpers/clock.js'
import { OPCODE, handshake, rawConnect, rawUpgrade, wireFrame } from '../helpers/raw-socket.js'
import {
  DISPATCHER_LIMITS, GATEWAY_LIMITS, SESSION_LIMITS, createPluginApp, eventually, listen, type PluginAppOptions
} from '../helpers/server.js'
import { connectFull, connectSocket, injectSocket, resumeEntry, type TestSocket } from '../helpers/socket.js'

const GATEWAY = {
  authenticate: placeholderAuthenticator(),
  allowedOrigins: [],
  upgradesPerMinute: 1000,
  closeTimeoutMs: 300,
  limits: GATEWAY_LIMITS
}

async function injected (t: Test, options: PluginAppOptions = {}): Promise<FastifyInstance> {
  const app = await createPluginApp(options)
  t.teardown(() => app.close())
  return app
}

async function listening (
  t: Test, options: PluginAppOptions = {}
): Promise<{ app: FastifyInstance, port: number, url: string }> {
  const app = await injected(t, options)
  const port = await listen(app)
  return { app, port, url: `ws://127.0.0.1:${port}/ws` }
}

async function open (
  t: Test, app: FastifyInstance, protocols?: string[]
): Promise<{ socket: TestSocket, sessionId: string }> {
  const socket = await injectSocket(app, protocols === undefined ? {} : { protocols })
  t.teardown(() => socket.ws.terminate())
  const hello = await socket.next()
  return { socket, sessionId: hello.payload.sessionId as string }
}

t.test('the founding note on the basic profile', async t => {
  t.test('P-5 on connection a session is created and told', async t => {
    const app = await injected(t)
    const socket = await injectSocket(app)
    t.teardown(() => socket.ws.terminate())
    const hello = await socket.next()
    t.match(hello, { type: 'session_created', payload: { sessionId: String, userId: 'human_reviewer_1' } })
    t.equal(app.sessionManager.peekSession(hello.payload.sessionId as string)?.userId, 'human_reviewer_1')
    t.notOk('resumeToken' in hello.payload, 'the basic profile has nothing to resume')
  })

  t.test('a command of its session is answered', async t => {
    const app = await injected(t)
    const { socket, sessionId } = await open(t, app)
    socket.send({ sessionId, id: '1', command: 'echo', payload: { a: 1 } })
    t.match(await socket.next(), { type: 'result', id: '1', payload: { a: 1 } })
  })

  const invalid: [string, (own: string, other: string) => unknown][] = [
    ['missing', () => undefined],
    ['empty', () => ''],
    ['unknown', () => '00000000-0000-4000-8000-000000000000'],
    ['another session\'s', (_own, other) => other],
    ['upper case', own => own.toUpperCase()],
    ['with a space', own => ` ${own}`],
    ['a number', () => 7],
    ['null', () => null],
    ['an array that prints like it', own => [own]],
    ['an object', own => ({ toString: own })]
  ]
  for (const [name, make] of invalid) {
    t.test(`P-9 an invalid session gets the sentence of the note, and the socket is closed: ${name}`, async t => {
      const app = await injected(t)
      const { socket, sessionId } = await open(t, app)
      const other = await open(t, app)
      const before = app.sessionManager.peekSession(other.sessionId)
      socket.send({ sessionId: make(sessionId, other.sessionId), command: 'context.set', payload: { owned: true } })
      t.match(await socket.next(), {
        type: 'error', payload: 'Invalid or expired session.', code: 'SESSION_INVALID', seq: undefined
      })
      t.match(await socket.next(), {
        type: 'goodbye',
        payload: { code: 4409, reason: 'session_invalid', action: 'stop' }
      })
      t.strictSame(await socket.nextClose(), { code: 4409, reason: 'session_invalid' })
      t.strictSame(
        app.sessionManager.peekSession(other.sessionId)?.context,
        before?.context,
        'nothing was done to the other session'
      )
      t.equal(app.sessionManager.peekSession(other.sessionId)?.state, 'active')
    })
  }

  t.test('P-9 an ended session is answered alike', async t => {
    const app = await injected(t)
    const [first, second] = [await open(t, app), await open(t, app)]
    app.sessionManager.terminateSession(second.sessionId)
    first.socket.send({ sessionId: second.sessionId, command: 'ping' })
    t.match(await first.socket.next(), { type: 'error', payload: 'Invalid or expired session.' })
  })

  for (const [name, leave] of [
    ['closes with 1000', (s: TestSocket) => { s.ws.close(1000) }],
    ['closes without a code', (s: TestSocket) => { s.ws.close() }],
    ['closes with 1001', (s: TestSocket) => { s.ws.close(1001) }],
    ['breaks the connection', (s: TestSocket) => { s.ws.terminate() }],
    ['closes with a code of its own', (s: TestSocket) => { s.ws.close(4999) }]
  ] as const) {
    t.test(`P-37 its session ends when the client ${name}`, async t => {
      const { app, url } = await listening(t)
      const socket = await connectSocket(url)
      const { sessionId } = (await socket.next()).payload
      leave(socket)
      await eventually('ended', () => app.sessionManager.peekSession(sessionId as string) === undefined)
      t.ok(app.sessionManager.tombstoneOf(sessionId as string))
    })
  }

  t.test('P-24 nothing is held once it was written, and acks have no effect', async t => {
    const app = await injected(t)
    const { socket, sessionId } = await open(t, app)
    socket.send({ sessionId, command: 'ping', ack: 999 })
    t.match(await socket.next(), { type: 'result', payload: 'pong' })
    t.equal(app.sessionManager.peekSession(sessionId)?.outboxMessages, 0)
    socket.send({ type: 'ack', seq: 12345, sessionId })
    socket.send({ sessionId, command: 'ping' })
    t.match(await socket.next(), { type: 'result', payload: 'pong' })
  })
})

t.test('P-2 and P-3 the subprotocol', async t => {
  const seen: (string | undefined)[] = []
  const { app, port, url } = await listening(
    t, { options: { authenticate: ({ token }) => { seen.push(token); return { userId: 'ada' } } } }
  )

  const offers: [string[], string][] = [
    [['holdfast.v1'], 'holdfast.v1'],
    [['chat', 'holdfast.v1', 'auth.dG9rZW4'], 'holdfast.v1'],
    [['auth.dG9rZW4', 'holdfast.v1'], 'holdfast.v1'],
    [['resume.a.b.0', 'auth.dG9rZW4', 'holdfast.v1'], 'holdfast.v1']
  ]
  for (const [protocols, selected] of offers) {
    t.test(`P-2 ${protocols.join(', ')} selects ${selected}`, async t => {
      const socket = await connectSocket(url, { protocols })
      t.teardown(() => socket.ws.terminate())
      t.equal(socket.ws.protocol, selected)
      t.match(await socket.next(), { payload: { protocol: 'holdfast.v1' } })
    })
  }

  for (const protocol of [
    'chat', 'auth.dG9rZW4', 'holdfast.v2', 'Holdfast.v1', 'holdfast.v1x', 'a, b, c, d, e, f, g, h, holdfast.v1'
  ]) {
    t.test(`P-2 an offer without it is refused: ${protocol}`, async t => {
      const { answer, raw } = await rawUpgrade(port, { 'Sec-WebSocket-Protocol': protocol })
      t.equal(answer.status, 400)
      t.match(JSON.parse(answer.body), {
        statusCode: 400, code: 'SUBPROTOCOL_UNSUPPORTED', error: 'Bad Request', message: String
      })
      await raw.ended
    })
  }

  t.test('P-3 a JWT stands for itself, another token comes as base64url, and the header wins', async t => {
    seen.length = 0
    for (const [protocols, headers] of [
      [['holdfast.v1', 'auth.aaa.bbb.ccc'], {}],
      [['holdfast.v1', `auth.${Buffer.from('geheim ✓').toString('base64url')}`], {}],
      [['holdfast.v1', 'auth.dG9rZW4'], { authorization: 'Bearer from-the-header' }],
      [['holdfast.v1'], { authorization: 'bearer lower' }],
      [['holdfast.v1'], { authorization: 'Basic dXNlcjpwYXNz' }],
      [['holdfast.v1'], {}]
    ] as [string[], Record<string, string>][]) (await connectSocket(url, { protocols, headers })).ws.terminate()
    t.strictSame(seen, ['aaa.bbb.ccc', 'geheim ✓', 'from-the-header', 'lower', undefined, undefined])
  })

  t.test('P-3 credentials are never read from the URL', async t => {
    seen.length = 0
    const socket = await connectSocket(`${url}?token=abc&access_token=abc&auth=abc`)
    socket.ws.terminate()
    t.strictSame(seen, [undefined])
  })

  t.test('P-1 no extension is negotiated', async t => {
    const { raw, answer } = await rawUpgrade(
      port, { 'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits' }
    )
    t.equal(answer.status, 101)
    t.equal(answer.headers['sec-websocket-extensions'], undefined)
    raw.reset()
  })
  t.ok(app)
})

t.test('P-4 refusals before the upgrade', async t => {
  const refused = (port: number) => async (headers: Record<string, string | null>, requestLine?: string) => {
    const { raw, answer } = await rawUpgrade(port, headers, requestLine)
    await raw.ended
    return answer
  }

  t.test('400 for a handshake that is no WebSocket handshake, and the socket is not left open', async t => {
    const { app, port } = await listening(t)
    const attempt = refused(port)
    for (const [name, headers, requestLine] of [
      ['HTTP/1.0', {}, 'GET /ws HTTP/1.0'],
      ['a body', { 'Content-Length': '5' }],
      ['a body of length 0', { 'Content-Length': '0' }],
      ['a chunked body', { 'Transfer-Encoding': 'chunked' }],
      ['no key', { 'Sec-WebSocket-Key': null }],
      ['a short key', { 'Sec-WebSocket-Key': 'dG9vIHNob3J0' }],
      ['version 12', { 'Sec-WebSocket-Version': '12' }],
      ['no version', { 'Sec-WebSocket-Version': null }],
      ['no Host', { Host: null }]
    ] as [string, Record<string, string | null>, string?][]) {
      const answer = await attempt(headers, requestLine)
      t.ok(answer.status === 400 || (answer.status === 426 && name.includes('ersion')), `${name}: ${answer.status}`)
      t.match(
        JSON.parse(answer.body || '{}'),
        { statusCode: answer.status, code: String, error: String, message: String },
        `${name} has a body: ${answer.body}`
      )
    }
    const raw = await rawConnect(port)
    raw.write(handshake().replace('Host: localhost', 'Host: localhost\r\nHost: evil.example'))
    t.equal((await raw.answer()).status, 400, 'two Host headers')
    await raw.ended
    t.equal(app.sessionManager.totals.created, 0)
    await eventually('no connection left', () => connections(app) === 0)
  })

  t.test('426 where no upgrade was asked for, with the header that the standard demands', async t => {
    const app = await injected(t)
    const answer = await app.inject({ url: '/ws' })
    t.equal(answer.statusCode, 426)
    t.match(answer.json(), { statusCode: 426, code: 'UPGRADE_REQUIRED', error: 'Upgrade Required', message: String })
    t.equal(String(answer.headers.upgrade).toLowerCase(), 'websocket')
  })

  t.test('426 for an upgrade to something else', async t => {
    const { port } = await listening(t)
    // A request like any other: its connection may carry the next one.
    const { raw, answer } = await rawUpgrade(port, { Upgrade: 'h2c' })
    raw.reset()
    t.equal(answer.status, 426)
  })

  t.test('401 without valid credentials, and it is not told why', async t => {
    const { port } = await listening(
      t,
      {
        options: {
          authenticate: () => {
            throw new HoldfastError('UNAUTHENTICATED', { cause: new Error('signature of kid 7 is wrong') })
          }
        }
      }
    )
    const answer = await refused(port)({})
    t.equal(answer.status, 401)
    t.match(JSON.parse(answer.body), { statusCode: 401, code: 'UNAUTHENTICATED' })
    t.notMatch(answer.body, /kid 7/)
  })

  t.test('403 for a user who may not', async t => {
    const { port } = await listening(
      t, { options: { authenticate: async () => { throw new HoldfastError('FORBIDDEN') } } }
    )
    t.equal((await refused(port)({})).status, 403)
  })

  t.test('503 with Retry-After where credentials cannot be checked', async t => {
    const { port } = await listening(
      t, { options: { authenticate: () => { throw new HoldfastError('AUTH_UNAVAILABLE', { retryAfterMs: 2500 }) } } }
    )
    const answer = await refused(port)({})
    t.equal(answer.status, 503)
    t.equal(answer.headers['retry-after'], '3')
  })

  t.test('429 with Retry-After where the user has too many sessions', async t => {
    const { port, url } = await listening(t, { sessions: { maxSessionsPerUser: 1 } })
    const first = await connectSocket(url)
    t.teardown(() => first.ws.terminate())
    const answer = await refused(port)({})
    t.equal(answer.status, 429)
    t.match(JSON.parse(answer.body), { code: 'USER_QUOTA' })
    t.match(answer.headers['retry-after'], /^[1-9]\d*$/)
  })

  t.test('503 with Retry-After where the server is full', async t => {
    const { port, url } = await listening(t, { sessions: { maxSessions: 1 } })
    const first = await connectSocket(url)
    t.teardown(() => first.ws.terminate())
    const answer = await refused(port)({})
    t.equal(answer.status, 503)
    t.match(JSON.parse(answer.body), { code: 'SERVER_FULL' })
    t.match(answer.headers['retry-after'], /^[1-9]\d*$/)
  })

  t.test('429 with Retry-After above the handshakes per minute, where @fastify/rate-limit is registered', async t => {
    const { port } = await listening(t, {
      options: { upgradesPerMinute: 3 },
      before: async app => { await app.register(rateLimit, { global: false }) }
    })
    for (let i = 0; i < 3; i++) {
      const { raw, answer } = await rawUpgrade(port)
      t.equal(answer.status, 101)
      raw.reset()
    }
    const answer = await refused(port)({})
    t.equal(answer.status, 429)
    t.match(answer.headers['retry-after'], /^[1-9]\d*$/)
  })

  t.test('503 with Retry-After while the node drains', async t => {
    const { app, port } = await listening(t)
    await app.gateway.drain(1000)
    const answer = await refused(port)({})
    t.equal(answer.status, 503)
    t.match(JSON.parse(answer.body), { code: 'DRAINING' })
    t.match(answer.headers['retry-after'], /^[1-9]\d*$/)
  })

  t.test('no answer shows a stack, a path or text of a library', async t => {
    const { port } = await listening(
      t, { options: { authenticate: () => { throw new Error('connect ECONNREFUSED 10.0.0.7:5432 password=hunter2') } } }
    )
    const answer = await refused(port)({})
    t.ok(answer.status === 500 || answer.status === 401 || answer.status === 503, String(answer.status))
    t.notMatch(answer.body, /hunter2|10\.0\.0\.7|ECONN/)
  })
})

t.test('P-53 a client that cannot read a status', async t => {
  const offer = ['holdfast.v1', 'refuse.goodbye']
  async function goodbyeOf (t: Test, options: PluginAppOptions, taken = 0): Promise<object> {
    const { app, url } = await listening(t, options)
    for (let i = 0; i < taken; i++) {
      const { socket } = await connectFull(url)
      t.teardown(() => socket.ws.terminate())
    }
    const socket = await connectSocket(url, { protocols: offer })
    const goodbye = await socket.next()
    const close = await socket.nextClose()
    t.strictSame(close, { code: goodbye.payload.code, reason: goodbye.payload.reason })
    t.equal(app.gateway.closes.get(close.code), 1, 'and it is counted')
    t.equal(app.sessionManager.countSessions().total, taken, 'without a session')
    t.equal(app.gateway.connections, taken)
    return goodbye
  }
  const refusal = (code: ErrorCode, retryAfterMs?: number): PluginAppOptions => ({
    options: {
      authenticate: async () => { throw new HoldfastError(code, retryAfterMs === undefined ? {} : { retryAfterMs }) }
    }
  })
  const goodbye = (payload: object): object => ({ type: 'goodbye', payload })

  t.test('is told that its credentials are not valid', async t => {
    t.strictSame(
      await goodbyeOf(t, refusal('UNAUTHENTICATED')), goodbye({ code: 4401, reason: 'unauthenticated', action: 'stop' })
    )
  })
  t.test('is told that it may not connect', async t => {
    t.strictSame(await goodbyeOf(t, refusal('FORBIDDEN')), goodbye({ code: 4403, reason: 'forbidden', action: 'stop' }))
  })
  t.test('is told that its credentials cannot be checked now', async t => {
    t.strictSame(
      await goodbyeOf(t, refusal('AUTH_UNAVAILABLE', 2500)),
      goodbye({ code: 4105, reason: 'auth_unavailable', action: 'resume_later', retryAfterMs: 2500 })
    )
  })
  t.test('is told of a quota, and that it may come back', async t => {
    t.match(
      await goodbyeOf(t, { sessions: { maxSessionsPerUser: 1 } }, 1),
      goodbye({ code: 4429, reason: 'quota', action: 'resume_later', retryAfterMs: Number })
    )
  })
  t.test('is told that the server is full', async t => {
    t.match(
      await goodbyeOf(t, { sessions: { maxSessions: 1 } }, 1),
      goodbye({ code: 4104, reason: 'overloaded', action: 'resume_later', retryAfterMs: Number })
    )
  })

  t.test('is told that the node drains', async t => {
    const { app, url } = await listening(t)
    await app.gateway.drain(1000)
    const socket = await connectSocket(url, { protocols: offer })
    t.strictSame(await socket.next(), goodbye({ code: 4200, reason: 'draining', action: 'resume', retryAfterMs: 1000 }))
    t.equal((await socket.nextClose()).code, 4200)
  })

  t.test('gets a status all the same for what is refused before its offer is looked at', async t => {
    const { port } = await listening(t)
    const entries = { 'Sec-WebSocket-Protocol': offer.join(', ') }
    for (const [headers, status] of [
      [{ Origin: 'https://evil.example' }, 403], [{ 'Sec-WebSocket-Key': 'short' }, 400]
    ] as const) {
      const { raw, answer } = await rawUpgrade(port, { ...entries, ...headers })
      raw.reset()
      t.equal(answer.status, status)
    }
  })

  t.test('gets a session if nothing refuses it', async t => {
    const { url } = await listening(t)
    const { socket, hello } = await connectFull(url, ['refuse.goodbye', 'output.2048'])
    t.teardown(() => socket.ws.terminate())
    t.match(hello, { type: 'session_created', payload: { revision: '1.1', limits: { maxOutputBytes: 2048 } } })
    t.equal(socket.ws.protocol, 'holdfast.v1')
  })
})

t.test('origins', async t => {
  const allowedOrigins = [
    'https://app.example', 'http://localhost:5173', 'https://*.preview.example', 'capacitor://localhost'
  ]
  const { port } = await listening(t, { options: { allowedOrigins } })
  const status = async (origin: string, host = `127.0.0.1:${port}`): Promise<number> => {
    const { raw, answer } = await rawUpgrade(port, { Origin: origin, Host: host })
    raw.reset()
    return answer.status
  }
  for (const origin of [
    'https://app.example', 'https://app.example:443', 'http://localhost:5173', `http://127.0.0.1:${port}`,
    'https://pr-7.preview.example',
    'capacitor://localhost'
  ]) {
    t.test(`allowed: ${origin.replace(String(port), 'port')}`, async t => { t.equal(await status(origin), 101) })
  }
  for (const origin of [
    'https://evil.example', 'null', 'https://app.example.evil.example', 'https://app.example:444', 'http://app.example',
    'https://APP.example@evil.example',
    'file://', 'https://app.example/', 'https://sub.app.example', '', 'data:text/html,x',
    'https://app.example, https://evil.example',
    'https://preview.example', 'https://evilpreview.example', 'ionic://localhost'
  ]) {
    t.test(`refused: ${JSON.stringify(origin)}`, async t => { t.equal(await status(origin), 403) })
  }

  t.test('the server\'s own origin, with the default port spelled out on either side', async t => {
    for (const [origin, host, expected] of [
      ['https://own.example', 'own.example:443', 101], ['https://own.example:443', 'own.example', 101],
      ['http://own.example', 'own.example:80', 101],
      ['http://own.example', 'own.example:443', 403], ['https://own.example', 'own.example:80', 403],
      ['capacitor://own.example', 'own.example', 403]
    ] as const) t.equal(await status(origin, host), expected, `${origin} at ${host}`)
  })

  t.test('behind a trusted proxy the name that the page used is the one that the proxy was called by', async t => {
    const forward = async (server: object): Promise<number> => {
      const { port } = await listening(t, { server })
      const { raw, answer } = await rawUpgrade(port, {
        Origin: 'https://own.example', Host: 'backend:3000', 'X-Forwarded-Host': 'own.example'
      })
      raw.reset()
      return answer.status
    }
    t.equal(await forward({ trustProxy: '127.0.0.1' }), 101)
    t.equal(await forward({}), 403, 'nobody else may say so')
  })

  t.test('a list with an entry that could have no effect stops the start', async t => {
    await t.rejects(
      listening(t, { options: { allowedOrigins: ['https://app.example/login'] } }), { code: 'CONFIG_INVALID' }
    )
  })

  t.test('a client that is no browser sends none and is let in', async t => {
    const { raw, answer } = await rawUpgrade(port)
    raw.reset()
    t.equal(answer.status, 101)
  })

  t.test('the origin is judged before credentials are looked at', async t => {
    let asked = 0
    const { port } = await listening(t, { options: { authenticate: () => { asked++; return { userId: 'ada' } } } })
    const { raw, answer } = await rawUpgrade(port, { Origin: 'https://evil.example' })
    raw.reset()
    t.equal(answer.status, 403)
    t.match(JSON.parse(answer.body), { code: 'ORIGIN_FORBIDDEN' })
    t.equal(asked, 0)
  })

  t.test('* lets every origin in', async t => {
    const { port } = await listening(t, { options: { allowedOrigins: ['*'] } })
    const { raw, answer } = await rawUpgrade(port, { Origin: 'https://evil.example' })
    raw.reset()
    t.equal(answer.status, 101)
  })
})

// 300 refused handshakes logged 430 KB of stacks.
t.test('an authenticate that fails again and again is logged once a minute', async t => {
  const lines: Array<{ level: number, msg: string, suppressed?: number }> = []
  const clock = { at: 0, now: () => clock.at, wall: () => clock.at }
  let failure: Error = new Error('the directory is down')
  const { port } = await listening(t, {
    server: { logger: { level: 'info', stream: { write: (line: string) => { lines.push(JSON.parse(line)) } } } },
    options: { clock, authenticate: () => { throw failure } }
  })
  const knock = async (times: number): Promise<void> => {
    for (let i = 0; i < times; i++) {
      const { raw, answer } = await rawUpgrade(port)
      raw.reset()
      t.equal(answer.status, 503)
    }
  }
  const told = (msg: string): unknown[] => lines.filter(line => line.msg === msg).map(({ level, suppressed }) => ({
    level, suppressed
  }))
  await knock(30)
  t.same(told('authenticate failed'), [{ level: 50, suppressed: 0 }])
  clock.at = 60_000
  await knock(1)
  t.same(told('authenticate failed').at(-1), { level: 50, suppressed: 29 })
  failure = new HoldfastError('AUTH_UNAVAILABLE')
  await knock(30)
  t.same(told('credentials could not be checked'), [{ level: 40, suppressed: 0 }])
})

t.test('the authenticate option', async t => {
  t.test('is told token, headers, address and url', async t => {
    let told: AuthRequest | undefined
    const { url } = await listening(
      t, { options: { authenticate: request => { told = request; return { userId: 'ada' } } } }
    )
    const socket = await connectSocket(`${url}?room=7`, { headers: { authorization: 'Bearer abc' } })
    t.teardown(() => socket.ws.terminate())
    t.match(told, { token: 'abc', address: '127.0.0.1', url: '/ws?room=7', headers: { host: String } })
    t.match(await socket.next(), { payload: { userId: 'ada' } })
  })

  const nonsense: [string, unknown][] = [
    ['undefined', undefined], ['null', null], ['a string', 'ada'], ['an empty user', { userId: '' }],
    ['a number for a user', { userId: 7 }],
    ['a user with a line break', { userId: 'ada\nlevel=fatal' }],
    ['a user of 129 characters', { userId: 'x'.repeat(129) }],
    ['an expiry that is no number', { userId: 'ada', expiresAt: 'tomorrow' }],
    ['an expiry of NaN', { userId: 'ada', expiresAt: NaN }]
  ]
  for (const [name, answer] of nonsense) {
    t.test(`an answer that is no principal is 401: ${name}`, async t => {
      const { app, port } = await listening(t, { options: { authenticate: async () => answer as Principal } })
      const { raw, answer: http } = await rawUpgrade(port)
      t.equal(http.status, 401)
      await raw.ended
      t.equal(app.sessionManager.totals.created, 0)
    })
  }

  t.test('one that throws what is no error is answered and harms nobody', async t => {
    // eslint-disable-next-line no-throw-literal
    const { port } = await listening(t, { options: { authenticate: () => { throw 'no' as unknown as Error } } })
    const { raw, answer } = await rawUpgrade(port)
    t.ok(answer.status >= 400)
    await raw.ended
  })

  t.test('a client that resets while it is asked harms nobody, and leaves no session', async t => {
    let release: (value: Principal) => void = () => {}
    const asked: Promise<void>[] = []
    let arrived: () => void = () => {}
    const { app, port } = await listening(t, {
      options: {
        authenticate: async () => {
          arrived()
          return await new Promise<Principal>(resolve => { release = resolve })
        }
      }
    })
    for (let i = 0; i < 5; i++) {
      const arrival = new Promise<void>(resolve => { arrived = resolve })
      asked.push(arrival)
      const raw = await rawConnect(port)
      raw.write(handshake())
      await arrival
      raw.reset()
      await raw.ended
      await turn()
      release({ userId: 'ada' })
    }
    await eventually('no connection left', () => connections(app) === 0)
    await eventually('no session left', () => app.sessionManager.countSessions().total === 0)
  })

  t.test('one that hangs is 503 with Retry-After in the end, and what it answers later has no effect', async t => {
    let release: (value: Principal) => void = () => {}
    const { app, port } = await listening(
      t,
      {
        options: {
          authTimeoutMs: 50,
          authenticate: async () => await new Promise<Principal>(resolve => { release = resolve })
        }
      }
    )
    const { raw, answer } = await rawUpgrade(port)
    t.equal(answer.status, 503)
    t.match(JSON.parse(answer.body), { code: 'AUTH_UNAVAILABLE' })
    t.match(answer.headers['retry-after'], /^[1-9]\d*$/)
    await raw.ended
    release({ userId: 'ada' })
    await turn()
    t.equal(app.sessionManager.totals.created, 0)
  })

  t.test('P-47 a connection is closed with 4202 when its credentials expire, and resumes with fresh ones', async t => {
    const clock = createManualClock()
    let expiresAt = clock.wall() + 300
    const { app, url } = await listening(t, {
      gateway: { heartbeatMs: 400 },
      options: { clock, authenticate: () => ({ userId: 'ada', expiresAt }) }
    })
    const { socket, hello } = await connectFull(url)
    clock.advance(301)
    t.match(await socket.nextOf('goodbye'), { payload: { code: 4202, action: 'resume' } })
    t.equal((await socket.nextClose()).code, 4202)
    t.equal(app.sessionManager.peekSession(hello.payload.sessionId as string)?.state, 'detached')
    expiresAt = clock.wall() + 60_000
    const again = await connectFull(url, [resumeEntry(hello)])
    t.teardown(() => again.socket.ws.terminate())
    t.match(again.hello, { type: 'session_resumed', payload: { sessionId: hello.payload.sessionId } })
  })

  t.test('P-47 credentials that have expired already are not let in', async t => {
    const { app, port } = await listening(
      t, { options: { authenticate: () => ({ userId: 'ada', expiresAt: Date.now() - 1000 }) } }
    )
    const { raw, answer } = await rawUpgrade(port)
    raw.reset()
    t.equal(answer.status, 401)
    t.equal(app.sessionManager.totals.created, 0)
  })

  t.test('P-29 a resume by another user is refused like an unknown session', async t => {
    let userId = 'ada'
    const { app, url } = await listening(t, { options: { authenticate: () => ({ userId }) } })
    const first = await connectFull(url)
    userId = 'mallory'
    const second = await connectFull(url, [resumeEntry(first.hello)])
    t.teardown(() => { first.socket.ws.terminate(); second.socket.ws.terminate() })
    t.match(second.hello, { type: 'session_created', payload: { userId: 'mallory', previous: { reason: 'unknown' } } })
    t.notOk('lastCommand' in second.hello.payload.previous)
    t.equal(
      app.sessionManager.peekSession(first.hello.payload.sessionId as string)?.state,
      'active',
      'the session was not taken over'
    )
  })
})

t.test('200 handshakes at once are all let in', async t => {
  const { app, port } = await listening(t, { unlimitedUserId: 'human_reviewer_1' })
  const raws = await Promise.all(Array.from({ length: 200 }, async (_, i) => await rawUpgrade(
    port, i % 2 === 0 ? {} : { 'Sec-WebSocket-Protocol': 'holdfast.v1' }
  )))
  t.ok(raws.every(({ answer }) => answer.status === 101))
  t.equal(app.sessionManager.countSessions().active, 200)
  for (const { raw } of raws) raw.reset()
  await eventually('none is left', () => app.gateway.connections === 0 && connections(app) === 0)
})

t.test('quotas', async t => {
  t.test('P-33 P-54 a refused resume of a user at the quota is answered 429', async t => {
    const { url } = await listening(t, { sessions: { maxSessionsPerUser: 1 } })
    const first = await connectFull(url)
    t.teardown(() => first.socket.ws.terminate())
    const protocols = ['holdfast.v1', `resume.${first.hello.payload.sessionId as string}.wrong.0`]
    await t.rejects(connectSocket(url, { protocols }), { message: /429/ })
  })

  t.test('20 upgrades at once do not get past a quota of 5', async t => {
    const { app, port } = await listening(t, {
      sessions: { maxSessionsPerUser: 5 },
      options: { authenticate: async () => { await turn(); return { userId: 'ada' } } }
    })
    const raws = await Promise.all(Array.from({ length: 20 }, async () => await rawUpgrade(port)))
    t.teardown(() => { for (const { raw } of raws) raw.reset() })
    t.ok(app.sessionManager.countSessions().total <= 5, `${app.sessionManager.countSessions().total} sessions`)
  })
})

t.test('logs', async t => {
  t.test('carry no token, payload or resume token at any level', async t => {
    const lines: string[] = []
    const { app, url, port } = await listening(t, {
      server: { logger: { level: 'trace', stream: { write: (line: string) => { lines.push(line) } } } },
      options: {
        authenticate: ({ token }) => {
          if (token?.includes('WRONG') === true) throw new HoldfastError('UNAUTHENTICATED')
          return { userId: 'ada' }
        }
      }
    })
    app.dispatcher.command('crash', {}, () => { throw new Error('broke') })
    const secret = 'S3CR3T'
    const first = await connectFull(
      url, [`auth.${Buffer.from(`${secret}-sub`).toString('base64url')}`], { authorization: `Bearer ${secret}-header` }
    )
    first.socket.send({ command: 'echo', payload: { note: `${secret}-payload` }, id: 1 })
    await first.socket.next()
    first.socket.send({ command: 'crash', payload: `${secret}-payload`, id: 2 })
    await first.socket.next()
    first.socket.send(`{"command":"echo","${secret}-member":1}`)
    await first.socket.next()
    first.socket.send(`not json ${secret}`)
    await first.socket.next()
    app.dispatcher.send({ sessionId: first.hello.payload.sessionId as string }, 'event', `${secret}-output`)
    await first.socket.next()
    first.socket.ws.terminate()
    const second = await connectFull(url, [resumeEntry(first.hello)])
    second.socket.ws.close()
    await rawUpgrade(port, { 'Sec-WebSocket-Protocol': `holdfast.v1, auth.${secret}.WRONG.x` })
    await rawUpgrade(port, { 'Sec-WebSocket-Protocol': `chat.${secret}` })
    await eventually('logged', () => lines.some(line => line.includes('session ended')))
    const log = lines.join('')
    const tokens = [
      secret, Buffer.from(`${secret}-sub`).toString('base64url'), first.hello.payload.resumeToken as string,
      second.hello.payload.resumeToken as string
    ]
    for (const token of tokens) {
      t.notOk(log.includes(token), `${token}: ${lines.find(line => line.includes(token)) ?? ''}`)
    }
    t.ok(log.includes(first.hello.payload.sessionId as string), 'the id of the session is logged')
  })

  t.test('a client cannot forge a line', async t => {
    const lines: string[] = []
    const { url } = await listening(
      t, { server: { logger: { level: 'trace', stream: { write: (line: string) => { lines.push(line) } } } } }
    )
    const { socket } = await connectFull(url)
    t.teardown(() => socket.ws.terminate())
    socket.send({ command: 'x\n{"level":60,"msg":"forged"}\u001b[31m', id: 1 })
    t.match(await socket.next(), { code: 'UNKNOWN_COMMAND' })
    for (const line of lines) {
      t.equal(line.split('\n').length, 2, 'one line each')
      t.notOk(line.includes('\u001b'))
    }
  })

  t.test('malformed frames cannot flood it', async t => {
    const lines: string[] = []
    const { url } = await listening(
      t, { server: { logger: { level: 'info', stream: { write: (line: string) => { lines.push(line) } } } } }
    )
    const before = lines.length
    for (let i = 0; i < 5; i++) {
      const { socket } = await connectFull(url)
      for (let n = 0; n < 50; n++) socket.send('garbage')
      await socket.nextClose()
    }
    t.ok(lines.length - before <= 5 * 10, `${lines.length - before} lines`)
  })
})

t.test('wiring', async t => {
  t.test('without dispatcher or session manager registration is refused with a code', async t => {
    const app = Fastify()
    t.teardown(() => app.close())
    await t.rejects(
      async () => await app.register(websocketGateway, GATEWAY),
      { code: /^FST_ERR_PLUGIN_(NOT_PRESENT_IN_INSTANCE|DEPENDENCY_NOT_REGISTERED)$/ }
    )
  })

  t.test('registered twice it says so', async t => {
    const app = await injected(t)
    await t.rejects(
      async () => await app.register(websocketGateway, GATEWAY),
      { code: 'PLUGIN_MISUSED', message: /websocket-gateway.*twice/ }
    )
  })

  async function hostedApp (
    t: Test, host: (app: FastifyInstance) => Promise<void>, options: object = {}
  ): Promise<FastifyInstance> {
    const app = Fastify()
    t.teardown(() => app.close())
    await host(app)
    await app.register(sessionManager, { limits: SESSION_LIMITS })
    await app.register(dispatcher, { limits: DISPATCHER_LIMITS })
    await app.register(websocketGateway, { ...GATEWAY, ...options })
    return app
  }

  t.test('a host that registered @fastify/websocket with our options keeps its own routes beside ours', async t => {
    const app = await hostedApp(t, async app => {
      await app.register(websocket, { options: websocketOptions(65_536, 300) })
      await app.register(async scope => {
        scope.get('/own', { websocket: true }, socket => { socket.send('{"type":"own"}') })
      })
    })
    const own = await injectSocket(app, { path: '/own' })
    t.match(await own.next(), { type: 'own' })
    const { socket } = await open(t, app, ['holdfast.v1'])
    socket.send({ command: 'ping', id: 1 })
    t.match(await socket.next(), { type: 'result' })
    own.ws.terminate()
  })

  t.test('the path option moves the route', async t => {
    const app = await hostedApp(t, async () => {}, { path: '/sockets' })
    const socket = await injectSocket(app, { path: '/sockets' })
    t.teardown(() => socket.ws.terminate())
    t.match(await socket.next(), { type: 'session_created' })
    t.equal((await app.inject('/ws')).statusCode, 404)
  })

  t.test('a prefix is kept', async t => {
    const app = await hostedApp(t, async () => {}, { prefix: '/v1' })
    t.equal((await app.inject('/v1/ws')).statusCode, 426)
    t.equal((await app.inject('/ws')).statusCode, 404)
  })

  t.test('the prefix of the scope around it is kept', async t => {
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(async scope => {
      await scope.register(sessionManager, { limits: SESSION_LIMITS })
      await scope.register(dispatcher, { limits: DISPATCHER_LIMITS })
      await scope.register(websocketGateway, GATEWAY)
    }, { prefix: '/v1' })
    await app.ready()
    t.equal((await app.inject('/v1/ws')).statusCode, 426)
    t.notOk(app.hasDecorator('gateway'), 'nothing leaks out of the scope')
  })

  t.test('leaves the host its error handler, its not-found handler and its other routes', async t => {
    const app = await hostedApp(t, async app => {
      app.setErrorHandler(async (error, _request, reply) => await reply.code(418).send({
        mine: (error as Error).message
      }))
      app.setNotFoundHandler(async (_request, reply) => await reply.code(404).send({ mine: true }))
      app.get('/boom', async () => { throw new Error('boom') })
    })
    t.strictSame((await app.inject('/boom')).json(), { mine: 'boom' })
    t.strictSame((await app.inject('/nowhere')).json(), { mine: true })
  })

  t.test('a host hook that refuses, registered after, leaves no socket open and close() settles (T5)', async t => {
    const { app, port } = await listening(t)
    await app.close()
    const guarded = Fastify()
    t.teardown(() => guarded.close())
    await guarded.register(sessionManager, { limits: SESSION_LIMITS })
    await guarded.register(dispatcher, { limits: DISPATCHER_LIMITS })
    await guarded.register(async scope => {
      await scope.register(websocketGateway, GATEWAY)
      await scope.register(bearerAuth, { keys: new Set(['x']) })
    })
    const guardedPort = await listen(guarded)
    const { raw, answer } = await rawUpgrade(guardedPort)
    t.equal(answer.status, 401)
    await raw.ended
    await guarded.close()
    t.ok(port)
  })

  t.test('an upgrade of a route that is no socket is refused or answered, never left open', async t => {
    const { app, port } = await listening(t, { before: app => { app.get('/plain', async () => ({ hello: true })) } })
    for (const path of ['/plain', '/nowhere', '/ws/extra']) {
      const raw = await rawConnect(port)
      raw.write(handshake({}, `GET ${path} HTTP/1.1`))
      const answer = await raw.answer()
      if (answer.status === 101) raw.write(wireFrame('', { opcode: OPCODE.close }))
      await raw.ended
      t.pass(`${path}: ${answer.status}`)
    }
    await eventually('no connection left', () => connections(app) === 0)
  })
})

t.test('close', async t => {
  t.test('P-42 tells every client, and leaves no handle', async t => {
    const before = process.getActiveResourcesInfo().filter(name => name === 'Timeout' || name === 'TCPSocketWrap' ||
      name === 'TCPServerWrap').length
    const app = await createPluginApp()
    const port = await listen(app)
    const [full, basic] = [
      await connectFull(`ws://127.0.0.1:${port}/ws`), await connectSocket(`ws://127.0.0.1:${port}/ws`)
    ]
    const startedAt = Date.now()
    await app.close()
    t.ok(Date.now() - startedAt < 30_000, `closed in ${Date.now() - startedAt} ms`)
    t.match(await full.socket.nextOf('goodbye'), { payload: { code: 4200, reason: 'draining', action: 'resume' } })
    t.match(await basic.nextOf('goodbye'), { payload: { code: 4200 } })
    t.equal((await full.socket.nextClose()).code, 4200)
    t.equal((await basic.nextClose()).code, 4200)
    await eventually('no handle', () =>
      process.getActiveResourcesInfo().filter(name => name === 'Timeout' || name === 'TCPSocketWrap' ||
        name === 'TCPServerWrap').length <= before)
  })

  t.test('settles soon although a peer never answers (T8)', async t => {
    const app = await createPluginApp()
    const port = await listen(app)
    const { raw } = await rawUpgrade(port)
    raw.tcp.pause()
    const startedAt = Date.now()
    await app.close()
    t.ok(Date.now() - startedAt < 30_000, `closed in ${Date.now() - startedAt} ms`)
    raw.reset()
  })

  t.test('settles although an upgrade arrives while it runs (T6)', async t => {
    const app = await createPluginApp()
    const port = await listen(app)
    const deaf = await rawUpgrade(port)
    const late = await rawConnect(port)
    const closing = app.close()
    await eventually('draining', () => app.gateway.draining)
    late.write(handshake())
    t.equal((await late.answer()).status, 503)
    await late.ended
    deaf.raw.reset()
    await closing
    t.pass('close settled')
  })

  t.test('settles although a handshake came in one packet behind another request', async t => {
    const app = await createPluginApp({
      before: app => { app.get('/slow', async () => { await turn(); return { slow: true } }) }
    })
    const port = await listen(app)
    const raw = await rawConnect(port)
    t.teardown(() => raw.reset())
    raw.write(`GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n${handshake()}`)
    await raw.answer().catch(() => undefined)
    const outcome = await Promise.race([
      app.close().then(() => 'closed'),
      new Promise<string>(resolve => { setTimeout(resolve, 60_000, 'still open').unref() })
    ])
    t.equal(outcome, 'closed')
  })

  t.test('settles although a handshake is being authenticated, and lets nobody in after the drain', async t => {
    let release: (value: Principal) => void = () => {}
    let arrived: () => void = () => {}
    const arrival = new Promise<void>(resolve => { arrived = resolve })
    const app = await createPluginApp({
      options: {
        authenticate: async () => { arrived(); return await new Promise<Principal>(resolve => { release = resolve }) }
      }
    })
    const port = await listen(app)
    const raw = await rawConnect(port)
    raw.write(handshake())
    await arrival
    await app.gateway.drain(500)
    release({ userId: 'ada' })
    t.equal((await raw.answer()).status, 503)
    await raw.ended
    await app.close()
    t.equal(app.sessionManager.totals.created, 0)
  })

  t.test('settles although authentication never answers', async t => {
    let arrived: () => void = () => {}
    const arrival = new Promise<void>(resolve => { arrived = resolve })
    const app = await createPluginApp({
      options: { authenticate: async () => { arrived(); return await new Promise<Principal>(() => {}) } }
    })
    const port = await listen(app)
    const raw = await rawConnect(port)
    t.teardown(() => raw.reset())
    raw.write(handshake())
    await arrival
    const outcome = await Promise.race([
      app.close().then(() => 'closed'),
      new Promise<string>(resolve => { setTimeout(resolve, 60_000, 'still open').unref() })
    ])
    t.equal(outcome, 'closed')
  })

  t.test('P-48 a drain waits for commands that run, answers them, and refuses new ones', async t => {
    let finish: (value: string) => void = () => {}
    const { app, url } = await listening(t)
    app.dispatcher.command('slow', {}, async () => await new Promise<string>(resolve => { finish = resolve }))
    const { socket } = await connectFull(url)
    socket.send({ command: 'slow', id: 1 })
    await eventually('running', () => app.dispatcher.inFlight === 1)
    const drained = app.gateway.drain(5000)
    socket.send({ command: 'ping', id: 2 })
    t.match(await socket.next(), { type: 'error', code: 'DRAINING', id: 2, seq: undefined })
    finish('done')
    t.match(await socket.next(), { type: 'result', id: 1, payload: 'done' })
    t.match(await socket.next(), { type: 'goodbye', payload: { code: 4200, retryAfterMs: Number } })
    await drained
    t.equal(app.gateway.connections, 0)
  })

  t.test('P-48 a drain ends at its deadline whatever clients and commands do', async t => {
    const app = await createPluginApp()
    const port = await listen(app)
    app.dispatcher.command('forever', {}, async () => await new Promise<never>(() => {}))
    const { socket } = await connectFull(`ws://127.0.0.1:${port}/ws`)
    socket.send({ command: 'forever', id: 1 })
    const deaf = await rawUpgrade(port)
    deaf.raw.tcp.pause()
    await eventually('running', () => app.dispatcher.inFlight === 1)
    const startedAt = Date.now()
    await app.gateway.drain(1000)
    t.ok(Date.now() - startedAt < 30_000, `drained in ${Date.now() - startedAt} ms`)
    await app.close()
    t.match(await socket.nextOf('goodbye'), { payload: { code: 4200 } })
    deaf.raw.reset()
  })

  t.test('P-48 many clients are told to come back at different times', async t => {
    const { app, url } = await listening(t, { sessions: { maxSessionsPerUser: 1000 } })
    const sockets = await Promise.all(Array.from({ length: 100 }, async () => await connectFull(url)))
    const gone = sockets.map(async ({ socket }) => {
      const { payload } = await socket.nextOf('goodbye')
      return payload as { retryAfterMs: number }
    })
    await app.gateway.drain(4000)
    const goodbyes = await Promise.all(gone)
    t.ok(new Set(goodbyes.map(goodbye => goodbye.retryAfterMs)).size > 1, 'they come back at different times')
  })
})

// ws says so in an error only: the close that follows has 1006 if the peer does not answer, and
// that was counted and logged.
t.test('P-8 a message that is too large is counted and logged as such', async t => {
  const { app, port } = await listening(t)
  const reasons: unknown[] = []
  app.sessionManager.subscribe(({ type, reason }) => { if (type === 'detached') reasons.push(reason) })
  const { raw } = await rawUpgrade(port, { 'Sec-WebSocket-Protocol': 'holdfast.v1' })
  await raw.nextFrame()
  raw.write(wireFrame('', { claim: 65_537 }))
  t.equal(await raw.closeCode(), 1009)
  raw.reset()
  await eventually('closed', () => app.gateway.connections === 0)
  t.same(reasons, ['message_too_large'])
  t.same([...app.gateway.closes], [[1009, 1]])
})

t.test('frames in one packet', async t => {
  t.test('P-46 refusals of a burst are all answered, and only a client that goes on is closed with 4102', async t => {
    // No allowance grows while the burst is read.
    const { port } = await listening(t, {
      dispatcher: { commandsPerSecond: 5 }, options: { clock: createManualClock() }
    })
    const { raw } = await rawUpgrade(port, { 'Sec-WebSocket-Protocol': 'holdfast.v1' })
    await raw.nextFrame()
    raw.write(Buffer.concat(Array.from({ length: 90 }, (_, i) => wireFrame(JSON.stringify({
      command: 'ping', id: `c${i}`
    })))))
    const codes: string[] = []
    for (let i = 0; i < 90; i++) {
      const frame = await raw.nextFrame()
      if (frame.opcode === OPCODE.close) break
      const { type, code } = JSON.parse(frame.payload.toString()) as { type: string, code?: string }
      codes.push(code ?? type)
    }
    t.equal(codes.filter(code => code === 'result').length, 10)
    t.equal(codes.filter(code => code === 'RATE_LIMITED').length, 80)
    raw.write(Buffer.concat(Array.from({ length: 60 }, (_, i) => wireFrame(JSON.stringify({
      command: 'ping', id: `d${i}`
    })))))
    t.equal(await raw.closeCode(), 4102)
    raw.reset()
  })

  t.test('P-12 a burst of duplicates is answered, each with the old seq', async t => {
    const { port } = await listening(t)
    const { raw } = await rawUpgrade(port, { 'Sec-WebSocket-Protocol': 'holdfast.v1' })
    await raw.nextFrame()
    const first = wireFrame(JSON.stringify({ command: 'echo', payload: 'once', id: 1 }))
    raw.write(first)
    t.match(JSON.parse(await raw.nextText()), { seq: 1, id: 1, payload: 'once' })
    raw.write(Buffer.concat(Array.from({ length: 100 }, () => first)))
    for (let i = 0; i < 100; i++) {
      const frame = await raw.nextFrame()
      if (frame.opcode !== OPCODE.text) {
        return t.fail(`frame ${i} has opcode ${frame.opcode}: ${frame.payload.toString('latin1')}`)
      }
      const answer = JSON.parse(frame.payload.toString()) as { seq?: number, type: string }
      if (answer.seq !== 1) return t.fail(`frame ${i}: ${JSON.stringify(answer)}`)
    }
    raw.reset()
  })

  t.test('P-5 frames that come in the same packet as the handshake are not lost', async t => {
    const { port } = await listening(t)
    const raw = await rawConnect(port)
    raw.write(Buffer.concat([
      Buffer.from(handshake({ 'Sec-WebSocket-Protocol': 'holdfast.v1' })), wireFrame('{"command":"ping","id":1}')
    ]))
    t.equal((await raw.answer()).status, 101)
    t.match(JSON.parse(await raw.nextText()), { type: 'session_created' })
    t.match(JSON.parse(await raw.nextText()), { type: 'result', id: 1 })
    raw.reset()
  })
})

t.test('the upgrade is not retained by its connection', async t => {
  const { app, url } = await listening(t)
  const accepted: { _httpMessage?: unknown }[] = []
  app.server.on('connection', socket => { accepted.push(socket as object) })
  const { socket } = await connectFull(url)
  t.teardown(() => socket.ws.terminate())
  t.equal(accepted.length, 1)
  t.equal(accepted[0]?._httpMessage ?? null, null)
})

function connections (app: FastifyInstance): number {
  return (app.server as unknown as { _connections: number })._connections
}

t.test('where nobody proves who he is, a page that had its name resolve to this machine is refused', async t => {
  const { port } = await listening(t, { options: { loopbackHostOnly: true } })
  for (const [name, status] of [['evil.example', 403], ['localhost', 101], ['127.0.0.1', 101]] as const) {
    const { raw, answer } = await rawUpgrade(port, { Host: `${name}:${port}`, Origin: `http://${name}:${port}` })
    raw.reset()
    t.equal(answer.status, status, name)
  }
})
