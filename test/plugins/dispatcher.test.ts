import Fastify, { type FastifyInstance } from 'fastify'
import { setImmediate as nextTurn } from 'node:timers/promises'
import t from 'tap'
import { Type } from 'typebox'
import type { PlatformCore } from '../../src/io/dispatcher/core.js'
import { commandError } from '../../src/io/errors.js'
import type { LifecycleEvent } from '../../src/io/types.js'
import dispatcher from '../../plugins/dispatcher.js'
import sessionManager from '../../plugins/session-manager.js'
import { DISPATCHER_LIMITS, SESSION_LIMITS, createPluginApp } from '../helpers/server.js'
import { injectSocket, type TestSocket } from '../helpers/socket.js'

function fakeCore (overrides: Partial<PlatformCore> = {}): PlatformCore & { events: LifecycleEvent[], closed: number } {
  const events: LifecycleEvent[] = []
  return Object.assign({
    events,
    closed: 0,
    execute: async () => ({ payload: 'from the core', messages: [] }),
    notify: (event: LifecycleEvent) => { events.push(event) },
    async close () { (this as unknown as { closed: number }).closed++ }
  }, overrides) as unknown as PlatformCore & { events: LifecycleEvent[], closed: number }
}

async function fullSocket (app: FastifyInstance): Promise<{ socket: TestSocket, sessionId: string }> {
  const socket = await injectSocket(app, { protocols: ['holdfast.v1'] })
  const hello = await socket.next()
  return { socket, sessionId: hello.payload.sessionId as string }
}

t.test('wiring', async t => {
  t.test('without a session manager registration is refused with a code', async t => {
    const app = Fastify()
    t.teardown(() => app.close())
    await t.rejects(
      async () => await app.register(dispatcher, { limits: DISPATCHER_LIMITS }),
      { code: 'FST_ERR_PLUGIN_NOT_PRESENT_IN_INSTANCE' }
    )
  })

  t.test('registered twice it says so', async t => {
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(sessionManager, { limits: SESSION_LIMITS })
    await app.register(dispatcher, { limits: DISPATCHER_LIMITS })
    await t.rejects(
      async () => await app.register(dispatcher, { limits: DISPATCHER_LIMITS }),
      { code: 'PLUGIN_MISUSED', message: /dispatcher.*twice/ }
    )
  })

  t.test('without a core the built-in commands answer, and with one they do not', async t => {
    for (const core of [undefined, fakeCore()]) {
      const app = Fastify()
      t.teardown(() => app.close())
      await app.register(sessionManager, { limits: SESSION_LIMITS })
      await app.register(dispatcher, { limits: DISPATCHER_LIMITS, ...(core === undefined ? {} : { core }) })
      for (const name of ['ping', 'echo', 'context.get', 'context.set']) {
        t.equal(app.dispatcher.hasCommand(name), core === undefined, name)
      }
    }
  })

  t.test('built-in commands can be had beside a core, and left out without one', async t => {
    for (const builtinCommands of [true, false]) {
      const app = Fastify()
      t.teardown(() => app.close())
      await app.register(sessionManager, { limits: SESSION_LIMITS })
      await app.register(dispatcher, {
        limits: DISPATCHER_LIMITS,
        builtinCommands,
        ...(builtinCommands ? { core: fakeCore() } : {})
      })
      t.equal(app.dispatcher.hasCommand('echo'), builtinCommands)
    }
  })

  t.test('the core is told of lifecycle events and closed with the instance', async t => {
    const core = fakeCore()
    const app = Fastify()
    await app.register(sessionManager, { limits: SESSION_LIMITS })
    await app.register(dispatcher, { limits: DISPATCHER_LIMITS, core })
    const { id } = app.sessionManager.createSession('ada')
    app.sessionManager.terminateSession(id)
    await nextTurn()
    t.match(core.events, [
      { type: 'created', sessionId: id, revision: 1 },
      { type: 'ended', sessionId: id, revision: 2, reason: 'ended_by_operator' }
    ])
    await app.close()
    t.equal(core.closed, 1)
  })
})

t.test('commands of an application', async t => {
  const app = await createPluginApp()
  t.teardown(() => app.close())
  app.dispatcher.command('add', {
    payload: Type.Object({ a: Type.Number(), b: Type.Number() }), result: Type.Number()
  }, ({ payload }) => payload.a + payload.b)
  app.dispatcher.command('whoami', {}, ({ session, id }) => ({
    userId: session.userId, sessionId: session.id, id: id ?? null
  }))
  app.dispatcher.command('fail', {}, () => { throw commandError('NOT_TODAY', 'Closed on Mondays.') })
  app.dispatcher.command('crash', {}, () => { throw new Error('db password=hunter2 at /srv/secret.js') })
  app.dispatcher.command('crash.async', {}, async () => {
    throw Object.assign(new Error('db password=hunter2'), { code: 'ECONNREFUSED' })
  })
  app.dispatcher.command('lie', { result: Type.Number() }, () => 'seven' as unknown as number)
  app.dispatcher.command('cycle', {}, () => { const a: Record<string, unknown> = {}; a.a = a; return a })
  app.dispatcher.command('nothing', {}, () => undefined)
  const { socket, sessionId } = await fullSocket(app)
  t.teardown(() => socket.ws.terminate())

  t.test('P-10 is answered with its result under its id', async t => {
    socket.send({ command: 'add', payload: { a: 2, b: 3 }, id: 'x' })
    t.match(await socket.next(), { type: 'result', id: 'x', payload: 5 })
  })

  t.test('handlers see the session of the socket', async t => {
    socket.send({ command: 'whoami' })
    t.strictSame((await socket.next()).payload, { userId: 'human_reviewer_1', sessionId, id: null })
  })

  const answers: [string, unknown, object][] = [
    ['add', { a: '2', b: 3 }, { type: 'error', code: 'INVALID_PAYLOAD' }],
    ['add', undefined, { type: 'error', code: 'INVALID_PAYLOAD' }],
    ['no.such', {}, { type: 'error', code: 'UNKNOWN_COMMAND' }],
    ['fail', {}, { type: 'error', code: 'NOT_TODAY', payload: 'Closed on Mondays.' }],
    ['crash', {}, { type: 'error', code: 'INTERNAL', payload: 'Something failed inside the server.' }],
    ['crash.async', {}, { type: 'error', code: 'INTERNAL', payload: 'Something failed inside the server.' }],
    ['lie', {}, { type: 'error', code: 'INVALID_RESULT' }],
    ['cycle', {}, { type: 'error', code: 'INVALID_RESULT' }],
    ['nothing', {}, { type: 'result', payload: null }]
  ]
  for (const [command, payload, expected] of answers) {
    t.test(`P-15 ${command} ${JSON.stringify(payload)} is answered ${JSON.stringify(expected)}`, async t => {
      socket.send({ command, payload, id: 'q' })
      const frame = await socket.next()
      t.match(frame, { ...expected, id: 'q', seq: Number })
      t.notMatch(
        JSON.stringify(frame), /hunter2|secret\.js|node_modules|at Object/, 'no stack, path or text of a library'
      )
    })
  }

  for (const name of ['constructor', '__proto__', 'toString', 'hasOwnProperty', 'valueOf', '__defineGetter__']) {
    t.test(`an inherited name is no command: ${name}`, async t => {
      socket.send({ command: name, id: 'p' })
      t.match(await socket.next(), { type: 'error', code: 'UNKNOWN_COMMAND' })
    })
  }

  t.test('names that cannot be are refused when they are registered', async t => {
    for (const name of ['', 'x'.repeat(129), 'add']) {
      t.throws(() => app.dispatcher.command(name, {}, () => 1), { code: 'PLUGIN_MISUSED' })
    }
    for (const timeoutMs of [0, -1, 1.5, Infinity, 3_600_001]) {
      t.throws(() => app.dispatcher.command('late', { timeoutMs }, () => 1), { code: 'PLUGIN_MISUSED' })
    }
  })
})

t.test('P-19 a command past its time limit is answered, its signal aborted, and its late result discarded', async t => {
  const app = await createPluginApp()
  t.teardown(() => app.close())
  let finish: (value: string) => void = () => {}
  let aborted: unknown
  app.dispatcher.command('slow', { timeoutMs: 50 }, async ({ signal }) => {
    signal.addEventListener('abort', () => { aborted = signal.reason })
    return await new Promise<string>(resolve => { finish = resolve })
  })
  const { socket } = await fullSocket(app)
  t.teardown(() => socket.ws.terminate())
  socket.send({ command: 'slow', id: 1 })
  t.match(await socket.next(), { type: 'error', code: 'COMMAND_TIMEOUT', id: 1, seq: 1 })
  t.match(aborted, { code: 'COMMAND_TIMEOUT' })
  finish('too late')
  await socket.nothingWithin(5)
  socket.send({ command: 'ping', id: 2 })
  t.match(await socket.next(), { type: 'result', id: 2, seq: 2 })
})

t.test('the signal of a command is aborted when its session ends', async t => {
  const app = await createPluginApp()
  t.teardown(() => app.close())
  const aborted = new Promise<unknown>(resolve => {
    app.dispatcher.command('forever', {}, async ({ signal }) => await new Promise<never>((_resolve, reject) => {
      signal.addEventListener('abort', () => {
        resolve(signal.reason)
        reject(new Error('aborted'))
      })
    }))
  })
  const { socket, sessionId } = await fullSocket(app)
  t.teardown(() => socket.ws.terminate())
  socket.send({ command: 'forever', id: 1 })
  socket.send({ command: 'ping', id: 2 })
  t.match(await socket.next(), { type: 'result', id: 2 })
  app.sessionManager.terminateSession(sessionId)
  t.match(await aborted, { code: 'SESSION_ENDED' })
  t.match(await socket.next(), { type: 'goodbye', payload: { code: 4001 } })
})

t.test('a core', async t => {
  t.test('is asked what no handler answers, under a key that names session, epoch and id', async t => {
    const keys: string[] = []
    const core = fakeCore({
      execute: async request => {
        keys.push(request.key)
        return {
          payload: { command: request.command },
          context: { seen: true },
          messages: [{ event: 'note', payload: 1 }]
        }
      }
    } as Partial<PlatformCore>)
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(sessionManager, { limits: SESSION_LIMITS })
    await app.register(dispatcher, { limits: DISPATCHER_LIMITS, core })
    const { default: websocketGateway } = await import('../../plugins/websocket-gateway.js')
    const { GATEWAY_LIMITS } = await import('../helpers/server.js')
    await app.register(websocketGateway, {
      authenticate: () => ({ userId: 'ada' }),
      allowedOrigins: [],
      upgradesPerMinute: 100,
      limits: GATEWAY_LIMITS,
      closeTimeoutMs: 300
    })
    app.dispatcher.command('local', {}, ({ session }) => session.context)
    const { socket, sessionId } = await fullSocket(app)
    t.teardown(() => socket.ws.terminate())
    socket.send({ command: 'remote', id: 1 })
    t.match(await socket.take(2), [
      { type: 'message', event: 'note', seq: 1 }, { type: 'result', id: 1, seq: 2, payload: { command: 'remote' } }
    ])
    t.match(keys[0], new RegExp(`^${sessionId}\\.[0-9a-f]+\\.1$`))
    socket.send({ command: 'local', id: 2 })
    t.match(await socket.next(), { payload: { seen: true } })
  })
})

t.test('fastify.dispatcher.send', async t => {
  const app = await createPluginApp()
  t.teardown(() => app.close())
  const [a, b] = [await fullSocket(app), await fullSocket(app)]
  t.teardown(() => { a.socket.ws.terminate(); b.socket.ws.terminate() })

  t.test('reaches one session', async t => {
    t.strictSame(app.dispatcher.send({ sessionId: a.sessionId }, 'hello', { x: 1 }), { sessions: 1, seq: 1 })
    t.match(await a.socket.next(), { type: 'message', event: 'hello', payload: { x: 1 }, seq: 1 })
    await b.socket.nothingWithin(3)
  })

  t.test('reaches every session of a user, and all', async t => {
    t.match(app.dispatcher.send({ userId: 'human_reviewer_1' }, 'u', null), { sessions: 2 })
    t.match(app.dispatcher.send({ all: true }, 'all', null), { sessions: 2 })
    t.match(await a.socket.take(2), [{ event: 'u', seq: 2 }, { event: 'all', seq: 3 }])
    t.match(await b.socket.take(2), [{ event: 'u', seq: 1 }, { event: 'all', seq: 2 }])
  })

  t.test('tells an ended session from one that never was', async t => {
    t.throws(() => app.dispatcher.send({ sessionId: 'nobody' }, 'x', null), { code: 'SESSION_NOT_FOUND' })
    app.sessionManager.terminateSession(b.sessionId)
    t.throws(() => app.dispatcher.send({ sessionId: b.sessionId }, 'x', null), { code: 'SESSION_ENDED' })
    t.same(app.dispatcher.send({ userId: 'nobody' }, 'x', null), { sessions: 0, seq: null })
  })

  t.test('waits for what keeps sessions as deliver, and checks the same', async t => {
    const before = app.sessionManager.peekSession(a.sessionId)?.lastSeq ?? 0
    t.same(await app.dispatcher.deliver({ sessionId: a.sessionId }, 'd', 1), { sessions: 1, seq: before + 1 })
    t.match(await a.socket.next(), { event: 'd', payload: 1 })
    await t.rejects(app.dispatcher.deliver({ sessionId: 'nobody' }, 'x', null), { code: 'SESSION_NOT_FOUND' })
    await t.rejects(app.dispatcher.deliver({ all: true }, 'x', 'x'.repeat(1_048_577)), { code: 'PAYLOAD_TOO_LARGE' })
  })

  t.test('refuses what no outbox can hold', async t => {
    t.throws(
      () => app.dispatcher.send({ sessionId: a.sessionId }, 'x', 'x'.repeat(1_048_577)),
      { code: 'PAYLOAD_TOO_LARGE' }
    )
  })
})
