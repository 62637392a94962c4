// One register gives an application everything. It took three, with fourteen limits, two of them
// given twice, and an order that autoload's alphabet gets wrong.

import cookie from '@fastify/cookie'
import cors from '@fastify/cors'
import helmet from '@fastify/helmet'
import jwt from '@fastify/jwt'
import rateLimit from '@fastify/rate-limit'
import session from '@fastify/session'
import swagger from '@fastify/swagger'
import underPressure from '@fastify/under-pressure'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { Type } from 'typebox'
import holdfast, { commandError, defineCommand, defineEvents, type HoldfastOptions } from '../../src/index.js'
import { createLogCapture } from '../helpers/app.js'
import { connectFull, injectSocket, type TestSocket } from '../helpers/socket.js'
import { listen } from '../helpers/server.js'

const commands = {
  approve: defineCommand({ payload: Type.Object({ draft: Type.Integer() }) }, ({ payload, session }) => {
    session.send('approved', { draft: payload.draft })
    return payload.draft
  })
}

async function appWith (
  t: Test, options: HoldfastOptions = { commands }, before?: (app: FastifyInstance) => Promise<unknown>
): Promise<FastifyInstance> {
  const app = Fastify()
  t.teardown(() => app.close())
  await before?.(app)
  await app.register(holdfast, options)
  return app
}

async function join (t: Test, app: FastifyInstance, path = '/ws'): Promise<TestSocket> {
  const socket = await injectSocket(app, { path, protocols: ['holdfast.v1'] })
  t.teardown(() => socket.ws.terminate())
  t.match(await socket.next(), { type: 'session_created' })
  return socket
}

async function approves (t: Test, app: FastifyInstance, path?: string): Promise<void> {
  const socket = await join(t, app, path)
  socket.send({ command: 'approve', payload: { draft: 7 }, id: 1 })
  t.match(await socket.take(2), [{ event: 'approved', payload: { draft: 7 } }, { type: 'result', payload: 7 }])
}

t.test('one register answers a typed command', async t => { await approves(t, await appWith(t)) })

t.test('without commands the built-in ones answer, and with commands they do not', async t => {
  t.equal((await appWith(t, {})).dispatcher.hasCommand('echo'), true)
  t.equal((await appWith(t)).dispatcher.hasCommand('echo'), false)
})

t.test('limits are given once, and in part', async t => {
  const app = await appWith(t, { commands, limits: { maxInFlight: 3, maxSessions: 5, heartbeatMs: 5000 } })
  t.match(app.dispatcher.limits, { maxInFlight: 3, commandsPerSecond: 50 })
  t.match(app.sessionManager.limits, { maxSessions: 5, maxSessionsPerUser: 64 })
  const socket = await injectSocket(app, { protocols: ['holdfast.v1'] })
  t.teardown(() => socket.ws.terminate())
  t.match(await socket.next(), { payload: { heartbeatMs: 5000, limits: { maxInFlight: 3 } } })
})

t.test('before and events come along', async t => {
  const app = await appWith(t, {
    commands,
    events: defineEvents({ approved: Type.Object({ draft: Type.Integer({ maximum: 5 }) }) }),
    before: ({ payload }) => {
      if ((payload as { draft: number }).draft === 1) throw commandError('NOT_ALLOWED', 'Not the first.')
    }
  })
  const socket = await join(t, app)
  socket.send({ command: 'approve', payload: { draft: 1 } })
  socket.send({ command: 'approve', payload: { draft: 7 } })
  t.match(await socket.take(2), [{ code: 'NOT_ALLOWED' }, { code: 'INTERNAL' }])
})

t.test('under a prefix', async t => {
  await approves(t, await appWith(t, { commands, prefix: '/rt', path: '/live' }), '/rt/live')
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(async scope => { await scope.register(holdfast, { commands }) }, { prefix: '/v1' })
  const { socket, hello } = await connectFull(`ws://127.0.0.1:${await listen(app)}/v1/ws`)
  t.teardown(() => socket.ws.terminate())
  t.equal(hello.type, 'session_created')
})

const others: Record<string, (app: FastifyInstance) => Promise<unknown>> = {
  '@fastify/helmet': async app => await app.register(helmet),
  '@fastify/cors': async app => await app.register(cors, { origin: true }),
  '@fastify/swagger': async app => await app.register(swagger),
  '@fastify/rate-limit': async app => await app.register(rateLimit, { max: 100 }),
  '@fastify/under-pressure': async app => await app.register(underPressure, { maxEventLoopDelay: 60_000 }),
  '@fastify/cookie': async app => await app.register(cookie),
  '@fastify/jwt': async app => await app.register(jwt, { secret: 'a secret of this test alone' }),
  '@fastify/session': async app => {
    await app.register(cookie)
    await app.register(session, { secret: 'a secret of this test alone, 32 bytes' })
  },
  '@fastify/websocket': async app => {
    await app.register(websocket)
    app.get('/chat', { websocket: true }, socket => { socket.send('{"type":"chat"}') })
  }
}
for (const [name, register] of Object.entries(others)) {
  t.test(`beside ${name}, registered before or after`, async t => {
    await approves(t, await appWith(t, { commands }, register))
    const after = await appWith(t)
    await register(after)
    await approves(t, after)
  })
}

t.test('beside routes of @fastify/websocket, which stay the host\'s', async t => {
  const app = await appWith(t, { commands }, others['@fastify/websocket'])
  const chat = await injectSocket(app, { path: '/chat' })
  t.teardown(() => chat.ws.terminate())
  t.same(await chat.next(), { type: 'chat' })
  await approves(t, app)
})

t.test('beside all of them at once, under a prefix', async t => {
  const app = await appWith(t, { commands, prefix: '/rt' }, async app => {
    for (const [name, register] of Object.entries(others)) if (name !== '@fastify/cookie') await register(app)
  })
  await approves(t, app, '/rt/ws')
})

t.test('operators and health are served where they are asked for', async t => {
  const plain = await appWith(t)
  for (const url of ['/sessions', '/health/live']) t.equal((await plain.inject(url)).statusCode, 404, url)
  const app = await appWith(t, {
    commands,
    health: true,
    operators: { adminToken: 'sixteen-letters!', prefix: '/ops' }
  })
  t.equal((await app.inject('/health/ready')).statusCode, 200)
  t.equal((await app.inject('/ops/sessions')).statusCode, 401)
  t.equal(
    (await app.inject({ url: '/ops/sessions', headers: { authorization: 'Bearer sixteen-letters!' } })).statusCode, 200
  )
})

t.test('operators drain within the time they are given, or the server\'s', async t => {
  for (const [operators, drainMs] of [[{ drainMs: 500 }, 500], [{}, 10_000]] as const) {
    const { lines, logStream } = createLogCapture()
    const app = Fastify({ logger: { stream: logStream } })
    t.teardown(() => app.close())
    await app.register(holdfast, { commands, operators })
    const socket = await join(t, app)
    t.equal((await app.inject({ method: 'POST', url: '/nodes/node/drain' })).statusCode, 202)
    t.match(lines.find(({ msg }) => msg === 'node is drained by an operator'), { drainMs })
    if (drainMs === 500) t.match(await socket.nextClose(), { code: 4200 })
  }
})

t.test('without authenticate only this machine is let in', async t => {
  const app = await appWith(t)
  const port = await listen(app)
  const { socket } = await connectFull(`ws://127.0.0.1:${port}/ws`)
  socket.ws.terminate()
  await t.rejects(
    connectFull(`ws://127.0.0.1:${port}/ws`, [], { 'x-forwarded-for': '203.0.113.9' }), { message: /403/ }
  )
})

const wrong: [string, object, RegExp][] = [
  ['a misspelt option', { comands: commands }, /comands is not an option of holdfast; did you mean commands\?/],
  [
    'a misspelt limit',
    { limits: { maxSesions: 1 } },
    /limits\.maxSesions is not a limit of holdfast; did you mean maxSessions\?/
  ],
  ['a negative limit', { limits: { heartbeatMs: -4 } }, /limits\.heartbeatMs of holdfast: -4 is not valid/],
  ['an authenticate that is none', { authenticate: true }, /authenticate of holdfast: true is not valid/],
  [
    'a short token',
    { operators: { adminToken: 'quoted' } },
    /^adminToken of operators of holdfast: a text of 6 bytes is not valid\. Expected (?!.*quoted)/
  ],
  [
    'a misspelt token',
    { operators: { admintoken: 'sixteen-letters!' } },
    /^admintoken is not an option of operators of holdfast; did you mean adminToken\?/
  ],
  [
    'an option of plugins for operators',
    { operators: { logLevel: 'warn' } },
    /^logLevel is not an option of operators of holdfast/
  ],
  [
    'a drain longer than the server takes',
    { operators: { drainMs: 600_001 } },
    /^drainMs of operators of holdfast: 600001 is not valid\. Expected 0 to 600000 milliseconds\.$/
  ],
  ['a core that is none', { core: {} }, /^core of holdfast: .* Expected a Platform Core, with the methods execute/]
]
for (const [name, options, message] of wrong) {
  t.test(`${name} stops the registration`, async t => {
    await t.rejects(appWith(t, options), { code: 'CONFIG_INVALID', message })
  })
}

t.test('a command without a handler, or not made with defineCommand, stops the registration', async t => {
  await t.rejects(appWith(t, { commands: { approve: { options: {} } } }), {
    code: 'PLUGIN_MISUSED', message: /"approve" has no handler/
  })
  await t.rejects(appWith(t, { commands: { approve: (() => 1) as never } }), {
    code: 'PLUGIN_MISUSED',
    message: /"approve" was not made with defineCommand/
  })
})

t.test('registered twice it says so', async t => {
  const app = await appWith(t)
  await t.rejects(
    async () => { await app.register(holdfast, { commands }) },
    { code: 'PLUGIN_MISUSED', message: /holdfast is registered twice/ }
  )
})
