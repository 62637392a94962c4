// The client against the real server over real sockets, which are cut on purpose, and the types
// that flow from one to the other.

import type { AddressInfo } from 'node:net'
import t from 'tap'
import { Type } from 'typebox'
import { Value } from 'typebox/value'
import { WebSocket, WebSocketServer } from 'ws'
import {
  CommandError, connect, type ConnectOptions, type SavedSession, type Session, type SessionEvents
} from '../../src/client/client.js'
import type { CommandMap, EventMap } from '../../src/io/dispatcher/command.js'
import { commandError, defineCommand, HoldfastError } from '../../src/index.js'
import { startTestApp, type TestAppOptions } from '../helpers/app.js'
import { createPage } from './world.js'

const executed: number[] = []
const commands = {
  'review.approve': defineCommand(
    { payload: Type.Object({ draft: Type.Integer() }), result: Type.Object({ title: Type.String() }) },
    ({ payload }) => {
      executed.push(payload.draft)
      if (payload.draft < 0) throw commandError('NO_SUCH_DRAFT', 'There is no such draft.')
      return { title: `draft ${payload.draft}` }
    }
  ),
  'review.count': defineCommand({ payload: Type.Null() }, async () => 7),
  'notes.send': defineCommand({ payload: Type.Integer() }, ({ payload, session }) => {
    for (let note = 1; note <= payload; note++) session.send('note', note)
    return null
  }),
  hold: defineCommand({}, ({ signal }) => new Promise<null>(resolve => {
    signal.addEventListener('abort', () => resolve(null))
  })),
  anything: defineCommand({}, ({ payload }) => payload)
}
const events = { note: Type.Integer(), 'draft.assigned': Type.Object({ draft: Type.Integer() }) }
type Registry = typeof commands

interface Rig {
  readonly app: Awaited<ReturnType<typeof startTestApp>>['app']
  /** A client without back-off; closed with the test. */
  join<C extends CommandMap = Registry, E extends EventMap = typeof events> (options?: ConnectOptions): Session<C, E>
  /** Every socket of the clients, oldest first. */
  readonly sockets: WebSocket[]
}

/** @param cuts that many sockets are cut, each after a few frames, another number each time */
async function start (t: Parameters<typeof startTestApp>[0], options: TestAppOptions = {}, cuts = 0): Promise<Rig> {
  const { app, url } = await startTestApp(t, { before: app => app.dispatcher.commands(commands), ...options })
  executed.length = 0
  const sockets: WebSocket[] = []
  const Recorded = class extends WebSocket {
    constructor (address: string, protocols: string[]) {
      super(address, protocols)
      const nth = sockets.push(this)
      let left = 3 + nth * 7 % 20
      if (nth <= cuts) this.on('message', () => { if (--left === 0) this.terminate() })
    }
  }
  return {
    app,
    sockets,
    join (options) {
      const session = connect<never, never>(`${url.replace('http', 'ws')}/ws`, {
        WebSocket: Recorded,
        random: () => 0,
        ...options
      })
      t.teardown(() => session.close())
      return session as never
    }
  }
}

function next<K extends keyof SessionEvents> (session: Pick<Session, 'on'>, type: K): Promise<SessionEvents[K]> {
  return new Promise(resolve => {
    const off = session.on(type, event => {
      off()
      resolve(event)
    })
  })
}

/** Resolves when `count` values have been noted. */
function collect<V> (count: number): { values: V[], note: (value: V) => void, done: Promise<void> } {
  const values: V[] = []
  let finish = (): void => {}
  const done = new Promise<void>(resolve => { finish = resolve })
  return { values, done, note (value) { if (values.push(value) === count) finish() } }
}

const codeOf = (promise: Promise<unknown>): Promise<string> => promise.then(
  () => 'resolved',
  (error: CommandError) => error.code
)

t.test('types flow from the definitions of the server', async t => {
  const { app, join } = await start(t)
  const session = join<typeof commands, typeof events>()

  const approved: Promise<{ title: string }> = session.send('review.approve', { draft: 1 })
  const counted: Promise<number> = session.send('review.count')
  t.strictSame(await approved, { title: 'draft 1' })
  t.equal(await counted, 7)
  t.strictSame(await session.send('anything', [1, 'two'], { timeoutMs: 10_000 }), [1, 'two'])
  const untyped = join<CommandMap, EventMap>()
  t.strictSame(await untyped.send('review.approve', { draft: 2 }), { title: 'draft 2' })

  const assigned = new Promise<number>(resolve => session.onMessage('draft.assigned', ({ draft }, seq) => resolve(
    draft + seq
  )))
  app.dispatcher.send(
    { sessionId: session.sessionId! }, 'draft.assigned', Value.Parse(events['draft.assigned'], { draft: 40 })
  )
  t.equal(await assigned, 44)

  // Never called: what is refused here is refused by the compiler.
  const refused = (): void => {
    // @ts-expect-error a member of the wrong type
    void session.send('review.approve', { draft: 'one' })
    // @ts-expect-error a payload that may not be left out
    void session.send('review.approve')
    // @ts-expect-error a payload where none is taken
    void session.send('review.count', { draft: 1 })
    // @ts-expect-error no such command
    void session.send('review.reject', { draft: 1 })
    // @ts-expect-error a result of another type
    const wrong: Promise<{ title: number }> = session.send('review.approve', { draft: 1 })
    // @ts-expect-error no JSON
    void session.send('anything', () => wrong)
    // @ts-expect-error no such event
    session.onMessage('draft.lost', () => {})
    // @ts-expect-error a member the event does not have
    session.onMessage('draft.assigned', ({ title }) => title)
    // @ts-expect-error no such lifecycle event
    session.on('opened', () => {})
  }
  t.type(refused, 'function')
})

t.test('P-15 rejects with the code of the server or of the platform', async t => {
  const { join } = await start(t)
  const session = join<CommandMap, EventMap>()
  t.equal(await codeOf(session.send('review.approve', { draft: -1 })), 'NO_SUCH_DRAFT')
  t.equal(await codeOf(session.send('review.approve', {})), 'INVALID_PAYLOAD')
  t.equal(await codeOf(session.send('no.such')), 'UNKNOWN_COMMAND')
})

t.test('runs every command once, and delivers every output once and in order, while its sockets are cut', async t => {
  const { app, join, sockets } = await start(
    t, { config: { commandsPerSecond: 10_000, maxInFlight: 8, outboxMessages: 32_768 } }, 30
  )
  const session = join()
  const notes = collect<number>(300)
  session.onMessage('note', notes.note)
  await next(session, 'live')
  const answers = Array.from({ length: 300 }, (_, at) => {
    app.dispatcher.send({ sessionId: session.sessionId! }, 'note', at + 1)
    return session.send('review.approve', { draft: at + 1 })
  })
  t.strictSame((await Promise.all(answers)).map(({ title }) => title), answers.map((_, at) => `draft ${at + 1}`))
  await notes.done
  t.strictSame(executed, answers.map((_, at) => at + 1))
  t.strictSame(notes.values, executed)
  t.ok(sockets.length > 10, `${sockets.length} sockets`)
  t.equal(app.sessionManager.totals.created, 1)
})

t.test('P-28 resumes after answers to resumes were lost twice', async t => {
  const { app, join, sockets } = await start(t)
  const session = join()
  await next(session, 'live')
  const { sessionId } = session
  for (let lost = 0; lost < 2; lost++) {
    const opened = next(session, 'connecting')
    sockets.at(-1)!.terminate()
    await opened
    await new Promise(resolve => setImmediate(resolve))
    // The server has attached the session and sent a token; the frame never gets to the client.
    const socket = sockets.at(-1)!
    socket.onmessage = null
    await new Promise(resolve => socket.once('message', resolve))
  }
  sockets.at(-1)!.terminate()
  await next(session, 'resumed')
  t.equal(session.sessionId, sessionId)
  t.equal(app.sessionManager.totals.created, 1)
})

t.test('P-32 tells the outputs that were dropped, and asks for the answers among them', async t => {
  const { join, app } = await start(t, { config: { outboxMessages: 10 } })
  const session = join()
  await next(session, 'live')
  const lost = session.send('review.approve', { draft: 1 })
  session.detach()
  await new Promise<void>(resolve => app.sessionManager.subscribe(({ type }) => { if (type === 'detached') resolve() }))
  const { sessionId } = session
  for (let note = 1; note <= 30; note++) app.dispatcher.send({ sessionId: sessionId! }, 'note', note)
  const gap = next(session, 'gap')
  session.connect()
  t.strictSame(await gap, { from: 1, to: 21 })
  t.equal(await codeOf(lost), 'RESULT_EXPIRED')
  t.strictSame(executed, [1])
})

t.test('P-33 goes on in a new session when the old one ended while it was away', async t => {
  const { app, join } = await start(t)
  const session = join()
  await next(session, 'live')
  const old = session.sessionId!
  const running = session.send('hold')
  await new Promise<void>(resolve => {
    const look = (): void => { if (app.dispatcher.inFlight === 1) resolve(); else setImmediate(look) }
    look()
  })
  session.detach()
  const unsent = session.send('review.count')
  app.sessionManager.terminateSession(old)
  const ended = next(session, 'ended')
  session.connect()
  t.strictSame(await ended, { sessionId: old, reason: 'ended_by_operator', renewing: true })
  t.equal(await codeOf(running), 'OUTCOME_UNKNOWN')
  t.equal(await unsent, 7)
  t.not(session.sessionId, old)
})

t.test('P-41 stops when an operator ends the session, and comes back when he only detaches', async t => {
  const { app, join } = await start(t)
  const session = join()
  await next(session, 'live')
  const resumed = next(session, 'resumed')
  app.sessionManager.detachSession(session.sessionId!)
  await resumed
  const ended = next(session, 'ended')
  app.sessionManager.terminateSession(session.sessionId!)
  t.match(await ended, { reason: 'ended_by_operator', renewing: false })
  t.equal(session.state, 'ended')
})

t.test('P-35 stops when a copy of its saved session takes over', async t => {
  const { join } = await start(t)
  const kept: { state: SavedSession | null } = { state: null }
  const persistence = { load: () => kept.state, save: (state: SavedSession) => { kept.state = state }, clear: () => {} }
  const original = join({ persistence })
  await next(original, 'live')
  const replaced = next(original, 'replaced')
  const copy = join({ persistence })
  await next(copy, 'resumed')
  t.strictSame(await replaced, { sessionId: copy.sessionId })
  t.equal(await copy.send('review.count'), 7)
})

t.test('P-36 starts a new session after every loss where the server keeps none', async t => {
  const { join, sockets } = await start(t, { config: { resumeWindowSeconds: 0 } })
  const session = join()
  await next(session, 'live')
  const ended = next(session, 'ended')
  sockets.at(-1)!.terminate()
  t.match(await ended, { reason: 'unknown', renewing: true })
  t.equal(await session.send('review.count'), 7)
})

t.test('P-38 ends the session at the server too', async t => {
  const { app, join } = await start(t)
  const session = join()
  await next(session, 'live')
  const ended = new Promise(resolve => app.sessionManager.subscribe(event => {
    if (event.type === 'ended') resolve(event.reason)
  }))
  session.close()
  t.equal(await ended, 'ended_by_client')
})

t.test('keeps within the limits of the server, so that nothing is refused', async t => {
  const { app, join } = await start(t, { config: { maxInFlight: 3, commandsPerSecond: 40 } })
  const session = join()
  await Promise.all(Array.from({ length: 60 }, () => session.send('review.count')))
  t.strictSame(Object.values(app.dispatcher.refusals).reduce((sum, count) => sum + count, 0), 0)
})

t.test('P-53 tells a refused login from a lost connection; gives up when fresh credentials are refused', async t => {
  const { join } = await start(t, { authenticate: () => { throw new HoldfastError('UNAUTHENTICATED') } })
  let asked = 0
  const session = join({ token: () => `a.b.${++asked}` })
  const sent = session.send('review.count')
  const detached = next(session, 'detached')
  const ended = next(session, 'ended')
  t.match(await detached, { code: 4401, reason: 'unauthenticated' })
  t.match(await ended, { reason: 'unauthenticated', renewing: false })
  t.equal(asked, 2)
  t.equal(await codeOf(sent), 'SESSION_ENDED')
})

t.test('P-6 settles a command that the server does not take, and runs those behind it once', async t => {
  const { app, url } = await startTestApp(t, { before: app => app.dispatcher.commands(commands) })
  executed.length = 0
  // The client would not send it: this stands for a server, or a gateway, with rules of its own.
  const Tampering = class extends WebSocket {
    override send (data: string): void { super.send(data.replace('"draft":13', '"__proto__":13')) }
  }
  const session = connect<Registry>(
    `${url.replace('http', 'ws')}/ws`, { WebSocket: Tampering as never, random: () => 0 }
  )
  t.teardown(() => session.close())
  const outcomes = await Promise.all([11, 12, 13, 14, 15].map(draft => codeOf(session.send(
    'review.approve', { draft }
  ))))
  t.strictSame(outcomes, ['resolved', 'resolved', 'BAD_FRAME', 'resolved', 'resolved'])
  t.strictSame(executed, [11, 12, 14, 15])
  t.equal(app.sessionManager.totals.created, 1)
})

t.test('P-49b settles a command that a gateway with a smaller limit closes for, and goes on with the rest', async t => {
  const { app, url } = await startTestApp(t, { before: app => app.dispatcher.commands(commands) })
  const gateway = new WebSocketServer({
    port: 0,
    host: '127.0.0.1',
    maxPayload: 2_000,
    handleProtocols: () => 'holdfast.v1'
  })
  let connections = 0
  gateway.on('connection', (near, request) => {
    connections++
    const far = new WebSocket(
      `${url.replace('http', 'ws')}/ws`, String(request.headers['sec-websocket-protocol']).split(',')
    )
    far.on('message', data => near.send(String(data)))
    near.on('message', data => far.send(String(data)))
    for (const [socket, other] of [[near, far], [far, near]] as const) {
      socket.on('error', () => {})
      socket.on('close', () => other.terminate())
    }
  })
  await new Promise(resolve => gateway.once('listening', resolve))
  const session = connect<Registry>(
    `ws://127.0.0.1:${(gateway.address() as AddressInfo).port}`, { WebSocket, random: () => 0 }
  )
  t.teardown(() => {
    session.close()
    gateway.close()
    for (const socket of gateway.clients) socket.terminate()
  })
  await next(session as never, 'live')
  const sizes = [10, 5_000, 20, 3_000, 30]
  const outcomes = await Promise.all(sizes.map(size => codeOf(session.send('anything', 'x'.repeat(size)))))
  t.strictSame(outcomes, ['resolved', 'MESSAGE_TOO_LARGE', 'resolved', 'MESSAGE_TOO_LARGE', 'resolved'])
  t.equal(connections, 3)
  t.equal(app.sessionManager.totals.created, 1)
})

t.test('P-52 asks whether the line lives, and the server answers', async t => {
  const { join, sockets } = await start(t)
  const page = createPage()
  const session = join({ page, persistence: false })
  await next(session, 'live')
  const answered = new Promise<string>(resolve => sockets.at(-1)!.on('message', data => resolve(String(data))))
  page.fire('online')
  t.equal(await answered, '{"type":"pong"}')
  t.equal(session.state, 'live')
  t.equal(sockets.length, 1)
})

t.test('P-38 leaves nothing at the server when it is closed during its handshake', async t => {
  const { app, join } = await start(t)
  const sessions = Array.from({ length: 20 }, () => join())
  await new Promise(resolve => setImmediate(resolve))
  for (const session of sessions) session.close()
  const { totals } = app.sessionManager
  while (app.sessionManager.countSessions().active > 0 || app.sessionManager.countSessions().detached > 0 ||
      totals.created < 20) {
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  t.equal(totals.created, 20)
})
