// docs/authentication.md, run: every program that it shows, and every row of its tables.

import { readFileSync } from 'node:fs'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import type { Authenticate, Principal } from '../../src/auth/authenticate.js'
import type { Session, SessionEvents } from '../../src/client/client.js'
import { connect } from '../../src/client/client.js'
import { HoldfastError } from '../../src/io/errors.js'
import { writeDocModules } from '../helpers/doc-modules.js'
import { makeKey, signWithKey, startKeySet } from '../helpers/key-set.js'
import { readBlocks, tableUnder } from '../helpers/markdown.js'
import { createPluginApp, listen } from '../helpers/server.js'
import { injectSocket, resumeEntry, type TestSocket } from '../helpers/socket.js'

const PATH = 'docs/authentication.md'
const doc = readFileSync(PATH, 'utf8')
const RUN = [
  'commands.js', 'cookie.js', 'login.js', 'token.js', 'provider.js', 'function.js', 'roles.js', 'context.js',
  'fresh.js', 'page.js'
]

interface Program { app: FastifyInstance, [name: string]: any }

async function program (t: Test, name: string, replace: Record<string, string> = {}): Promise<Program> {
  const loaded = await writeDocModules(t, PATH, replace).load(name)
  t.teardown(() => loaded.app.close())
  return loaded
}

interface Offer { headers?: Record<string, string>, entries?: string[] }

async function join (t: Test, app: FastifyInstance, { headers = {}, entries = [] }: Offer): Promise<TestSocket> {
  const socket = await injectSocket(app, { protocols: ['holdfast.v1', ...entries], headers })
  t.teardown(() => { socket.ws.terminate() })
  return socket
}

/** The answer to the first handshake: the user's id, or the HTTP status. */
async function answerTo (t: Test, app: FastifyInstance, offer: Offer): Promise<string | number> {
  try {
    const hello = await (await join(t, app, offer)).next()
    return hello.payload.userId as string
  } catch (error) {
    return Number(/(\d+)$/.exec((error as Error).message)?.[1])
  }
}

async function ask (socket: TestSocket, command: string, payload: unknown = null): Promise<unknown> {
  socket.send({ command, payload })
  for (;;) {
    const frame = await socket.next()
    if (frame.type === 'result') return frame.payload
    if (frame.type === 'error') return frame.code
  }
}

t.test('every block is a program that is run here', async t => {
  t.same(writeDocModules(t, PATH).names, RUN)
  t.equal(readBlocks(doc, 'js').length, [...doc.matchAll(/^```\w/gm)].length, 'and there are no other blocks')
})

t.test('a cookie', async t => {
  const { app } = await program(t, 'cookie.js')
  t.equal(await answerTo(t, app, { headers: { cookie: 'login=kiwi-7' } }), 'ada')
  t.equal(await answerTo(t, app, { headers: { cookie: 'login=kiwi-8' } }), 401)
  t.equal(await answerTo(t, app, {}), 401)
  t.equal(await answerTo(t, app, { headers: { cookie: 'login=kiwi-7', origin: 'https://other.example' } }), 403)
})

t.test('a login session, and a logout that ends what it allowed', async t => {
  const { app } = await program(t, 'login.js')
  const login = await app.inject({ method: 'POST', url: '/login', payload: { user: 'ada' } })
  const [{ name, value }] = login.cookies as [{ name: string, value: string }]
  const headers = { cookie: `${name}=${encodeURIComponent(value)}` }
  const socket = await join(t, app, { headers })
  t.match(await socket.next(), { payload: { userId: 'ada' } })
  t.equal((await app.inject({ method: 'POST', url: '/logout', headers })).statusCode, 200)
  t.equal((await socket.nextClose()).code, 4001)
  t.equal(await answerTo(t, app, { headers }), 401)
})

t.test('a token, whose end is that of the connection', async t => {
  const { app } = await program(t, 'token.js')
  await app.ready()
  const sign = (claims: object, options: object = {}): string => `auth.${(app as any).jwt.sign(claims, options)}`
  const chief = sign({ sub: 'ada', roles: ['chief'] }, { expiresIn: '2s' })
  const socket = await join(t, app, { entries: [chief] })
  await socket.next()
  t.same(await ask(socket, 'whoami'), { userId: 'ada', labels: { roles: ['chief'] } })
  t.same(await ask(socket, 'draft.delete', { draft: 7 }), { deleted: 7 })
  t.equal((await socket.nextClose()).code, 4202)
  const expired = sign({ sub: 'ada', iat: 1_700_000_000, exp: 1_700_000_060 })
  for (const entries of [[], [expired], ['auth.a.b.c']]) {
    t.equal(await answerTo(t, app, { entries }), 401, entries.join())
  }
  const other = await join(t, app, { entries: [sign({ sub: 'bob' })] })
  await other.next()
  t.equal(await ask(other, 'draft.delete', { draft: 7 }), 'NOT_ALLOWED')
})

t.test('a token of an identity provider', async t => {
  const key = makeKey('k1')
  const set = await startKeySet(t, [key])
  const { app } = await program(t, 'provider.js', { 'https://id.example/.well-known/jwks.json': set.url })
  const claims = {
    sub: 'ada', iss: 'https://id.example', aud: 'desk', roles: ['chief'], tenant: 'north', email: 'ada@id.example'
  }
  const socket = await join(t, app, { entries: [`auth.${await signWithKey(key, claims)}`] })
  await socket.next()
  t.same(await ask(socket, 'whoami'), { userId: 'ada', labels: { roles: ['chief'], tenant: 'north' } })
  t.equal(await answerTo(t, app, { entries: [`auth.${await signWithKey(key, { ...claims, aud: 'other' })}`] }), 401)
})

t.test('a function of the application', async t => {
  const { app, tokens } = await program(t, 'function.js')
  const offer = (token: string): Offer => ({ headers: { authorization: `Bearer ${token}` } })
  t.equal(await answerTo(t, app, offer('v1.abc/def')), 'ada')
  t.equal(await answerTo(t, app, offer('v1.xyz')), 403)
  t.equal(await answerTo(t, app, offer('v1.other')), 401)
  t.equal(await answerTo(t, app, {}), 401)
  tokens.find = async () => { throw new Error('connect ECONNREFUSED') }
  t.equal(await answerTo(t, app, offer('v1.abc/def')), 503)
})

t.test('roles decide which commands may run', async t => {
  const { app } = await program(t, 'roles.js')
  const asUser = async (user: string): Promise<TestSocket> => {
    const socket = await join(t, app, { headers: { 'x-user': user } })
    await socket.next()
    return socket
  }
  t.equal(await ask(await asUser('eve'), 'whoami'), 'NOT_ALLOWED')
  t.same(await ask(await asUser('bob reviewer'), 'whoami'), { userId: 'bob', labels: { roles: ['reviewer'] } })
  t.equal(await ask(await asUser('bob reviewer'), 'draft.delete', { draft: 1 }), 'NOT_ALLOWED')
  t.same(await ask(await asUser('ada reviewer chief'), 'draft.delete', { draft: 1 }), { deleted: 1 })
  t.equal(await answerTo(t, app, {}), 401)
})

t.test('a context to start with, and a resume that keeps its own', async t => {
  const { app } = await program(t, 'context.js')
  const asAda = `auth64.${Buffer.from('ada').toString('base64url')}`
  const first = await join(t, app, { entries: [asAda] })
  const hello = await first.next()
  t.equal(await ask(first, 'desk.get'), 'day')
  t.equal(await ask(first, 'desk.move', 'night'), 'night')
  const again = await join(t, app, { entries: [asAda, resumeEntry(hello)] })
  await again.nextOf('live')
  t.equal(await ask(again, 'desk.get'), 'night')
})

function fail (fields: object): () => never {
  return () => { throw Object.assign(new Error('no'), fields) }
}
/** Ways to do what the first cell of a row says. */
const WAYS: Record<string, Array<() => unknown>> = {
  'returns null, undefined or false': [() => null, () => undefined, () => false, async () => null],
  'throws an error with statusCode 401 or 400': [fail({ statusCode: 401 }), fail({ statusCode: 400 })],
  'throws what a JWT library throws for a bad token': [
    fail({ code: 'FAST_JWT_EXPIRED' }), fail({ code: 'ERR_JWT_EXPIRED' }), fail({ name: 'JsonWebTokenError' })
  ],
  "throws new HoldfastError('UNAUTHENTICATED')": [() => { throw new HoldfastError('UNAUTHENTICATED') }],
  "throws an error with statusCode 403, or new HoldfastError('FORBIDDEN')": [
    fail({ statusCode: 403 }), () => { throw new HoldfastError('FORBIDDEN') }
  ],
  'throws anything else, or takes too long': [fail({}), fail({ statusCode: 500 }), () => new Promise(() => {})],
  'returns a userId that cannot be, or an expiresAt that is over': [
    () => ({ userId: '..' }), () => ({ userId: '' }), () => ({ userId: 'ada', expiresAt: 1 })
  ],
  'returns labels or a context that are too large or not JSON': [
    () => ({ userId: 'ada', labels: { x: 'x'.repeat(5000) } }), () => ({ userId: 'ada', labels: { at: NaN } }),
    () => ({ userId: 'ada', context: { x: 'x'.repeat(70_000) } })
  ]
}

t.test('every row of the refusals is what happens', async t => {
  const { rows } = tableUnder(doc, 'How to refuse')
  t.same(rows.map(([does]) => does), Object.keys(WAYS))
  for (const [does = '', status] of rows) {
    for (const [at, authenticate] of (WAYS[does] ?? []).entries()) {
      const app = await createPluginApp({ options: { authenticate: authenticate as Authenticate, authTimeoutMs: 50 } })
      t.teardown(() => app.close())
      t.equal(await answerTo(t, app, {}), Number(status), `${does} (${at})`)
    }
  }
})

function next<K extends keyof SessionEvents> (session: Pick<Session, 'on'>, type: K): Promise<SessionEvents[K]> {
  return new Promise(resolve => { session.on(type, resolve) })
}

/** A server of which a browser's client is told by `goodbye`, since its sockets show no status. */
async function refusing (t: Test, authenticate: () => Principal | null): Promise<string> {
  const app = await createPluginApp({ options: { authenticate } })
  t.teardown(() => app.close())
  return `ws://127.0.0.1:${await listen(app)}/ws`
}

t.test('every row of what a browser sees', async t => {
  const ways: Record<string, () => Principal | null> = {
    401: () => null,
    403: fail({ statusCode: 403 }),
    '503, authenticate failed': fail({}),
    'expired later': () => ({ userId: 'ada', expiresAt: Date.now() + 2000 })
  }
  const { rows } = tableUnder(doc, 'What a browser sees')
  t.same(rows.map(([refusal]) => refusal), ['401', '403', '503, authenticate failed', 'expired later'])
  for (const [refusal = '', code, reason] of rows) {
    await t.test(refusal, async t => {
      const url = await refusing(t, ways[refusal] as () => Principal | null)
      const session = connect(url, { WebSocket, token: 'opaque' })
      t.teardown(() => { session.close() })
      const told = await Promise.race([next(session, 'detached'), next(session, 'ended')])
      t.equal(told.reason, reason)
      if ('code' in told) t.equal(told.code, Number(code))
    })
  }
})

t.test('a page asks for a new login once fresh credentials were refused as well', async t => {
  const { load } = writeDocModules(t, PATH)
  const { openDesk } = await load('page.js')
  let asked = 0
  const url = await refusing(t, () => null)
  await new Promise<void>(resolve => {
    openDesk(url, { WebSocket, random: () => 0, token: () => `opaque${++asked}`, onSignIn: resolve })
  })
  t.equal(asked, 2)
})

t.test('a token that is a function is asked before every attempt', async t => {
  const { openDesk } = await writeDocModules(t, PATH).load('fresh.js')
  const { fetch } = globalThis
  t.teardown(() => { globalThis.fetch = fetch })
  let issued = 0
  globalThis.fetch = async () => new Response(`opaque${++issued}`)
  const told: Array<string | undefined> = []
  const authenticate: Authenticate = ({ token }) => {
    told.push(token)
    return { userId: 'ada' }
  }
  const app = await createPluginApp({ options: { authenticate } })
  t.teardown(() => app.close())
  const session = openDesk(`ws://127.0.0.1:${await listen(app)}/ws`, { WebSocket, random: () => 0 })
  t.teardown(() => session.close())
  const { sessionId } = await next(session, 'live')
  const again = next(session, 'resumed')
  app.sessionManager.detachSession(sessionId)
  t.match(await again, { sessionId })
  t.same(told, ['opaque1', 'opaque2'])
})
