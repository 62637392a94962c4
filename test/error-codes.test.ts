// Every code of src/io/errors.ts is provoked from outside: over the wire, by a handshake, by REST
// or by a registration. The table is exhaustive by its type, so a code without a scenario does not
// compile. What led here: an answer of the core that was too large was INVALID_RESULT, although its
// row said otherwise.

import { request } from 'node:http'
import type { FastifyInstance, InjectOptions } from 'fastify'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import sessionManager from '../plugins/session-manager.js'
import { prepareRestScope, sendOnce } from '../plugins/schemas/rest-scope.js'
import type { PlatformCore } from '../src/io/dispatcher/core.js'
import { createHttpCore } from '../src/cores/http.js'
import { ERRORS, HoldfastError, type ErrorCode } from '../src/io/errors.js'
import { createMemoryStore } from '../src/stores/memory.js'
import { systemClock } from '../src/system-clock.js'
import { loadConfig } from '../src/config.js'
import { command as coreCommand, startCore, unusedUrl } from './cores/fake-core.js'
import { buildTestApp, startTestApp, type TestAppOptions } from './helpers/app.js'
import { injectSocket, type TestSocket } from './helpers/socket.js'

/**
 * What the outside was told; `code` is asserted, `status` too where the row's status is on the
 * wire.
 */
interface Told { code: unknown, status?: number }
type Scenario = (t: Test) => Promise<Told>

const FULL = { protocols: ['holdfast.v1'] }

/** The code of the first error after these frames in a new session of the full profile. */
function wire (frames: (socket: TestSocket) => void | Promise<void>, options: TestAppOptions = {}): Scenario {
  return async t => {
    const app = await buildTestApp(t, options)
    const socket = await injectSocket(app, FULL)
    await socket.next()
    await frames(socket)
    return { code: (await socket.nextOf('error')).code }
  }
}

/** A command answered by a handler of this process. */
function handled (handler: () => unknown, options: object = {}, config: TestAppOptions['config'] = {}): Scenario {
  return wire(socket => socket.send({ command: 'it', id: 1 }), {
    config, before: app => app.dispatcher.command('it', options, handler as never)
  })
}

/** A command answered by an HTTP core that behaves so. */
function byCore (answer: Parameters<typeof startCore>[1] | 'nobody'): Scenario {
  return async t => {
    const url = answer === 'nobody' ? await unusedUrl() : (await startCore(t, answer)).url
    const core: PlatformCore = createHttpCore({
      url,
      timeoutMs: 5000,
      lifecycleEvents: [],
      maxAnswerBytes: 1000,
      clock: systemClock,
      log: { debug () {}, info () {}, warn () {}, error () {} }
    })
    t.teardown(() => core.close())
    const { timeoutMs } = { timeoutMs: answer === 'nobody' ? 500 : 20_000 }
    return await core.execute(coreCommand({ timeoutMs })).then(
      () => ({ code: 'none' }),
      (error: { code: string }) => ({ code: error.code })
    )
  }
}

function rest (options: InjectOptions | ((app: FastifyInstance) => InjectOptions), app: TestAppOptions = {}): Scenario {
  return async t => {
    const built = await buildTestApp(t, app)
    const answer = await built.inject({
      remoteAddress: '127.0.0.1',
      ...(typeof options === 'function' ? options(built) : options)
    })
    return { code: answer.json().code, status: answer.statusCode }
  }
}

/** A handshake that is refused over HTTP. */
function handshake (headers: Record<string, string | string[]>, options: TestAppOptions = {}, times = 1): Scenario {
  return async t => {
    const { port, app } = await startTestApp(t, options)
    await options.before?.(app)
    let told: Told = { code: 'none' }
    for (let n = 0; n < times; n++) {
      told = await new Promise((resolve, reject) => {
        const asked = request({
          host: '127.0.0.1',
          port,
          path: '/ws',
          headers: {
            connection: 'Upgrade',
            upgrade: 'websocket',
            'sec-websocket-version': '13',
            'sec-websocket-key': 'SGVsbG8sIHdvcmxkISEhIQ==',
            'sec-websocket-protocol': 'holdfast.v1',
            ...headers
          }
        }, answer => {
          let text = ''
          answer.setEncoding('utf8').on('data', part => { text += part })
          answer.on('end', () => resolve({ code: JSON.parse(text).code, status: answer.statusCode as number }))
        })
        asked.on('upgrade', (_answer, socket) => {
          t.teardown(() => { socket.destroy() })
          resolve({ code: 'none' })
        })
        asked.on('error', reject)
        asked.end()
      })
    }
    return told
  }
}

async function caught (act: () => unknown): Promise<Told> {
  try {
    await act()
    return { code: 'none' }
  } catch (error) {
    return { code: (error as HoldfastError).code }
  }
}

const user = (id: string) => async () => ({ userId: id })
const never = () => new Promise<never>(() => {})
const message = (app: FastifyInstance, more: object = {}): InjectOptions => ({
  method: 'POST',
  url: `/sessions/${app.sessionManager.createSession('ann').id}/messages`,
  payload: { event: 'x' },
  ...more
})

const SCENARIOS: Record<ErrorCode, Scenario> = {
  BAD_FRAME: wire(socket => socket.send('{')),
  BAD_ACK: wire(socket => socket.send({ type: 'ack', seq: 7 })),
  SESSION_INVALID: wire(socket => socket.send({ command: 'ping', id: 1, sessionId: 'another' })),
  UNKNOWN_COMMAND: wire(socket => socket.send({ command: 'no.such', id: 1 })),
  INVALID_PAYLOAD: wire(socket => socket.send({ command: 'context.set', payload: 1, id: 1 })),
  COMMAND_GAP: wire(socket => socket.send({ command: 'ping', id: 2 })),
  RESULT_EXPIRED: wire(async socket => {
    socket.send({ command: 'ping', id: 1 })
    const { seq } = await socket.nextOf('result')
    socket.send({ command: 'ping', id: 1, ack: seq })
  }),
  COMMAND_TIMEOUT: handled(never, { timeoutMs: 1 }),
  CORE_UNAVAILABLE: byCore('nobody'),
  OUTCOME_UNKNOWN: byCore((_, response) => { response.destroy() }),
  CORE_REFUSED: byCore((_, response) => { response.writeHead(404).end() }),
  INVALID_RESULT: handled(() => 1n),
  RESULT_TOO_LARGE: byCore((_, response) => { response.end(JSON.stringify({ payload: 'x'.repeat(2000) })) }),
  CONTEXT_TOO_LARGE: wire(
    socket => socket.send({ command: 'context.set', payload: { a: 'x'.repeat(200) }, id: 1 }),
    { config: { maxContextBytes: 100 } }
  ),
  RATE_LIMITED: wire(
    socket => { for (let id = 1; id <= 3; id++) socket.send({ command: 'ping', id }) },
    { config: { commandsPerSecond: 1 } }
  ),
  TOO_MANY_IN_FLIGHT: wire(socket => { for (let id = 1; id <= 2; id++) socket.send({ command: 'hang', id }) }, {
    config: { maxInFlight: 1 }, before: app => app.dispatcher.command('hang', {}, never)
  }),
  STORE_UNAVAILABLE: handshake(
    {}, { store: { ...createMemoryStore(), health: () => 'degraded', traits: { survives: 'process', shared: false } } }
  ),
  DRAINING: wire(
    async socket => socket.send({ command: 'ping', id: 1 }),
    { before: app => app.dispatcher.refuseCommands() }
  ),
  INTERNAL: handled(() => { throw new Error('secret') }),

  UPGRADE_REQUIRED: rest({ url: '/ws' }),
  BAD_HANDSHAKE: handshake({ 'sec-websocket-version': '12' }),
  SUBPROTOCOL_UNSUPPORTED: handshake({ 'sec-websocket-protocol': 'mqtt' }),
  UNAUTHENTICATED: handshake({}, { authenticate: async () => { throw new HoldfastError('UNAUTHENTICATED') } }),
  AUTH_UNAVAILABLE: handshake({}, { authenticate: async () => { throw new HoldfastError('AUTH_UNAVAILABLE') } }),
  FORBIDDEN: rest({
    method: 'DELETE',
    url: '/sessions/x',
    headers: { host: 'localhost', origin: 'http://evil.example', 'sec-fetch-site': 'cross-site' }
  }),
  ORIGIN_FORBIDDEN: handshake({ origin: 'http://evil.example' }),
  TOO_MANY_REQUESTS: handshake({}, { config: { upgradesPerMinute: 1 } }, 2),
  USER_QUOTA: handshake({}, { authenticate: user('ann'), config: { maxSessionsPerUser: 1 } }, 2),
  SERVER_FULL: handshake({}, { config: { maxSessions: 1 } }, 2),

  INVALID_REQUEST: rest({ url: '/sessions?limit=0' }),
  INVALID_CURSOR: rest({ url: '/sessions?cursor=nonsense' }),
  OPERATOR_REQUIRED: rest({ url: '/sessions' }, { config: { adminToken: 'a-token-of-the-test' } }),
  HOST_FORBIDDEN: rest({ url: '/sessions', headers: { host: 'public.example' } }),
  SESSION_NOT_FOUND: rest({ url: '/sessions/no-such' }),
  NODE_NOT_FOUND: rest({ url: '/nodes/no-such' }),
  SESSION_ENDED: rest(app => {
    const { id } = app.sessionManager.createSession('ann')
    app.sessionManager.terminateSession(id)
    return { url: `/sessions/${id}` }
  }),
  NOT_ATTACHED: rest(app => ({
    method: 'DELETE',
    url: `/sessions/${app.sessionManager.createSession('ann').id}/connection`
  })),
  PAYLOAD_TOO_LARGE: rest(
    app => message(app, { payload: { event: 'x', payload: 'x'.repeat(1100) } }),
    { config: { outboxBytes: 1024 } }
  ),
  ROUTE_MOVED: rest({ method: 'POST', url: '/messages', payload: {} }),
  IDEMPOTENCY_KEY_REUSED: async t => {
    const app = await buildTestApp(t)
    const asked = { ...message(app), headers: { 'idempotency-key': 'k' }, remoteAddress: '127.0.0.1' }
    await app.inject(asked)
    const answer = await app.inject({ ...asked, payload: { event: 'other' } })
    return { code: answer.json().code, status: answer.statusCode }
  },
  // The routes of the server answer within a turn; one of an application need not.
  IDEMPOTENCY_KEY_IN_USE: async t => {
    const app = await buildTestApp(t, {
      before: async app => {
        await app.register(async scope => {
          prepareRestScope(scope).post('/slow', (request, reply) => sendOnce(
            app.idempotencyKeys, request, reply, never
          ))
        })
      }
    })
    const asked: InjectOptions = {
      method: 'POST',
      url: '/slow',
      headers: { 'idempotency-key': 'k' },
      payload: {},
      remoteAddress: '127.0.0.1'
    }
    void app.inject(asked).catch(() => {})
    const answer = await app.inject(asked)
    return { code: answer.json().code, status: answer.statusCode }
  },
  TOO_MANY_KEYS: async t => {
    const app = await buildTestApp(t, { config: { maxIdempotencyKeys: 1 } })
    const ask = (key: string) => app.inject({
      ...message(app),
      headers: { 'idempotency-key': key },
      remoteAddress: '127.0.0.1'
    })
    await ask('a')
    const answer = await ask('b')
    return { code: answer.json().code, status: answer.statusCode }
  },
  ROUTE_NOT_FOUND: rest({ url: '/no/such' }),

  CONFIG_INVALID: async () => await caught(() => loadConfig({ env: { PORT: 'x' }, argv: [] })),
  PLUGIN_MISUSED: async t => {
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(sessionManager)
    return await caught(async () => { await app.register(sessionManager) })
  }
}

for (const [code, scenario] of Object.entries(SCENARIOS)) {
  t.test(`${code} is what its row says`, async t => {
    const told = await scenario(t)
    t.equal(told.code, code)
    if (told.status !== undefined) t.equal(told.status, ERRORS[code as ErrorCode].status)
  })
}
