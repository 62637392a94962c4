// How an application says who is on the other end of a handshake: it sees the request as Fastify
// has it, refuses by returning nobody or by the errors of other plugins, and gives labels and a
// first context. Before, it saw headers only, and `app.jwt.verify` of an expired token was 503 and
// two stacks.

import cookie from '@fastify/cookie'
import jwt from '@fastify/jwt'
import session from '@fastify/session'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { AuthRequest, Authenticate, Principal } from '../../src/auth/authenticate.js'
import { HoldfastError } from '../../src/io/errors.js'
import type { JsonObject } from '../../src/io/types.js'
import { createPluginApp, type PluginAppOptions } from '../helpers/server.js'
import { injectSocket, resumeEntry, type TestSocket } from '../helpers/socket.js'

const SECRET = 'a secret that has at least 32 bytes'

declare module '@fastify/jwt' {
  interface FastifyJWT { payload: { sub: string, roles?: string[] }, user: { sub: string, roles?: string[] } }
}
declare module 'fastify' {
  interface Session { userId?: string }
}

async function appWith (t: Test, authenticate: Authenticate, more: PluginAppOptions = {}): Promise<FastifyInstance> {
  const app = await createPluginApp({ ...more, options: { authenticate } })
  t.teardown(() => app.close())
  return app
}

async function join (
  t: Test, app: FastifyInstance, headers: Record<string, string> = {}, protocols: string[] = []
): Promise<TestSocket> {
  const socket = await injectSocket(app, { protocols: ['holdfast.v1', ...protocols], headers })
  t.teardown(() => socket.ws.terminate())
  return socket
}

async function statusOf (app: FastifyInstance, headers: Record<string, string> = {}): Promise<number> {
  try {
    const socket = await injectSocket(app, { protocols: ['holdfast.v1'], headers })
    socket.ws.terminate()
    return 101
  } catch (error) {
    return Number(/(\d+)$/.exec((error as Error).message)?.[1])
  }
}

t.test('a cookie decides', async t => {
  const users: Record<string, string> = { s3cret: 'ada' }
  const app = await appWith(t, ({ request }) => {
    const userId = users[request.cookies['login'] ?? '']
    return userId === undefined ? null : { userId }
  }, { before: async app => { await app.register(cookie) } })
  t.match(await (await join(t, app, { cookie: 'login=s3cret' })).next(), { payload: { userId: 'ada' } })
  t.equal(await statusOf(app, { cookie: 'login=other' }), 401)
  t.equal(await statusOf(app), 401)
})

t.test('P-3 an auth entry that is not base64url is refused unasked, unless the header has a token', async t => {
  const tokens: (string | undefined)[] = []
  const app = await appWith(t, ({ token }) => {
    tokens.push(token)
    return { userId: 'guest' }
  })
  await t.rejects(join(t, app, {}, ['auth.opaque~token']), { message: /401/ })
  t.same(tokens, [])
  await join(t, app, { authorization: 'Bearer one' }, ['auth.opaque~token'])
  await join(t, app, {}, ['auth.b25l'])
  t.same(tokens, ['one', 'one'])
})

t.test('plugins that are registered after the gateway are seen as well', async t => {
  const app = await appWith(t, ({ request }) => ({ userId: request.cookies['user'] as string }))
  await app.register(cookie)
  t.match(await (await join(t, app, { cookie: 'user=bob' })).next(), { payload: { userId: 'bob' } })
})

t.test('the session of a login decides', async t => {
  const app = await appWith(
    t,
    ({ request }) => request.session.userId === undefined ? null : { userId: request.session.userId },
    {
      before: async app => {
        await app.register(cookie)
        await app.register(session, { secret: SECRET, cookie: { secure: false } })
        app.post('/login', async request => {
          request.session.userId = 'ada'
          return {}
        })
      }
    }
  )
  const login = await app.inject({ method: 'POST', url: '/login' })
  const [{ name, value }] = login.cookies as [{ name: string, value: string }]
  t.match(
    await (await join(t, app, { cookie: `${name}=${encodeURIComponent(value)}` })).next(),
    { payload: { userId: 'ada' } }
  )
  t.equal(await statusOf(app), 401)
})

t.test('@fastify/jwt decides, and what it throws is a refusal', async t => {
  const log: string[] = []
  const ways: Record<string, Authenticate> = {
    'request.jwtVerify': async ({ request }) => {
      const { sub } = await request.jwtVerify<{ sub: string }>()
      return { userId: sub }
    },
    'app.jwt.verify': ({ token, request }) => {
      const { sub } = request.server.jwt.verify<{ sub: string }>(token as string)
      return { userId: sub }
    }
  }
  for (const [name, authenticate] of Object.entries(ways)) {
    await t.test(name, async t => {
      const app = await appWith(t, authenticate, {
        server: { logger: { level: 'info', stream: { write: line => { log.push(line) } } } },
        before: async app => { await app.register(jwt, { secret: SECRET }) }
      })
      await app.ready()
      const sign = (options: object = {}): string => app.jwt.sign({ sub: 'ada' }, options)
      t.match(await (await join(t, app, { authorization: `Bearer ${sign()}` })).next(), { payload: { userId: 'ada' } })
      const [head, , signature] = sign().split('.') as [string, string, string]
      const forged = [head, Buffer.from('{"sub":"root"}').toString('base64url'), signature].join('.')
      const clockTimestamp = Date.now() - 3_600_000
      for (const token of [
        'nonsense',
        'a.b.c',
        forged,
        app.jwt.sign({ sub: 'ada', iat: clockTimestamp / 1000 } as never, { expiresIn: 1000 })
      ]) {
        t.equal(await statusOf(app, { authorization: `Bearer ${token}` }), 401, token.slice(0, 20))
      }
      t.equal(await statusOf(app), 401, 'without one')
    })
  }
  t.notMatch(log.join('\n'), /"stack"|authenticate failed/, 'a refusal is everyday: no stack in the log')
})

t.test('a refusal', async t => {
  const withStatus = (statusCode: number): Error => Object.assign(new Error('the database says no'), { statusCode })
  const ways: [string, () => unknown, number][] = [
    ['null', () => null, 401],
    ['undefined', () => undefined, 401],
    ['false', () => false, 401],
    ['a promise of null', async () => null, 401],
    ['an error with the status 401', () => { throw withStatus(401) }, 401],
    ['a promise of an error with the status 401', async () => { throw withStatus(401) }, 401],
    ['an error with the status 403', () => { throw withStatus(403) }, 403],
    ['our own error', () => { throw new HoldfastError('UNAUTHENTICATED') }, 401],
    ['our own error for who may not', () => { throw new HoldfastError('FORBIDDEN') }, 403],
    [
      'an error of jsonwebtoken',
      () => { throw Object.assign(new Error('jwt expired'), { name: 'TokenExpiredError' }) },
      401
    ],
    [
      'an error of jose',
      async () => { throw Object.assign(new Error('"exp" claim'), { code: 'ERR_JWT_EXPIRED' }) },
      401
    ],
    ['an outage', () => { throw new Error('connect ECONNREFUSED') }, 503],
    ['an outage with a status of another server', () => { throw withStatus(500) }, 503],
    [
      'a key that cannot be fetched',
      () => { throw Object.assign(new Error('no key'), { code: 'FAST_JWT_KEY_FETCHING_ERROR' }) },
      503
    ]
  ]
  for (const [name, authenticate, status] of ways) {
    await t.test(`is ${status} for ${name}, and the client is not told why`, async t => {
      const app = await appWith(t, authenticate as Authenticate)
      t.equal(await statusOf(app), status)
    })
  }
})

t.test('labels', async t => {
  async function deskOf (t: Test, principal: () => Principal): Promise<FastifyInstance> {
    const app = await appWith(t, () => principal())
    app.dispatcher.command('whoami', {}, ({ session }) => session.labels)
    return app
  }

  t.test('are read by command handlers and by operators, and are frozen', async t => {
    const labels = { roles: ['reviewer'], tenant: 'north' }
    const app = await deskOf(t, () => ({ userId: 'ada', labels }))
    const socket = await join(t, app)
    const { payload: { sessionId } } = await socket.next()
    labels.roles.push('changed afterwards')
    socket.send({ command: 'whoami', id: 1 })
    t.same((await socket.next()).payload, { roles: ['reviewer'], tenant: 'north' })
    t.same(app.sessionManager.peekSession(sessionId)?.labels, { roles: ['reviewer'], tenant: 'north' })
    t.ok(Object.isFrozen(app.sessionManager.peekSession(sessionId)?.labels.roles))
  })

  t.test('are those of the latest handshake: a role that was taken away is gone with the next resume', async t => {
    let principal: Principal = { userId: 'ada', labels: { roles: ['chief'] } }
    const app = await deskOf(t, () => principal)
    for (const labels of [{ roles: ['reviewer'] }, undefined]) {
      principal = { userId: 'ada', labels: { roles: ['chief'] } }
      const first = await join(t, app)
      const hello = await first.next()
      principal = { userId: 'ada', labels }
      const again = await join(t, app, {}, [resumeEntry(hello)])
      t.equal((await again.next()).type, 'session_resumed')
      t.same(app.sessionManager.peekSession(hello.payload.sessionId as string)?.labels, labels ?? {})
    }
  })

  t.test('that are too large or not JSON are a mistake of the application: 503, and a line that says so', async t => {
    for (const labels of [{ roles: ['x'.repeat(5000)] }, 'reviewer', ['reviewer'], 7]) {
      const log: string[] = []
      const app = await appWith(t, () => ({ userId: 'ada', labels: labels as never }), {
        server: { logger: { level: 'info', stream: { write: line => { log.push(line) } } } }
      })
      t.equal(await statusOf(app), 503)
      t.match(log.join(''), /authenticate failed.*labels|labels.*authenticate failed/)
      t.equal(app.sessionManager.totals.created, 0)
    }
  })
})

t.test('a context that is given with the user seeds a new session, and a resumed one keeps its own', async t => {
  let desk = 'night'
  const app = await appWith(t, () => ({ userId: 'ada', context: { desk } }))
  app.dispatcher.command('context', {}, ({ session }) => session.context)
  const first = await join(t, app)
  const hello = await first.next()
  first.send({ command: 'context', id: 1 })
  t.same((await first.next()).payload, { desk: 'night' })
  desk = 'day'
  const again = await join(t, app, {}, [resumeEntry(hello)])
  await again.nextOf('live')
  again.send({ command: 'context', id: 2 })
  t.same((await again.next()).payload, { desk: 'night' })
})

t.test('a context that is larger than it may be is a mistake of the application, and no session is left', async t => {
  const context: JsonObject = { text: 'x'.repeat(70_000) }
  const app = await appWith(t, () => ({ userId: 'ada', context }))
  t.equal(await statusOf(app), 503)
  t.equal(app.sessionManager.countSessions().total, 0)
})

t.test('the request is the one of Fastify', async t => {
  let told: AuthRequest | undefined
  const app = await appWith(t, request => {
    told = request
    return { userId: 'ada' }
  })
  await join(t, app)
  t.equal(told?.request.server.hasDecorator('gateway'), true)
  t.equal(told?.request.routeOptions.url, '/ws')
})
