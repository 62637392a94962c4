import Fastify, { type FastifyInstance } from 'fastify'
import { setImmediate as nextTurn } from 'node:timers/promises'
import t from 'tap'
import type { SessionStore } from '../../src/io/session/store.js'
import type { Clock } from '../../src/io/types.js'
import { createMemoryStore } from '../../src/stores/memory.js'
import sessionManager from '../../plugins/session-manager.js'
import { SESSION_LIMITS, eventually } from '../helpers/server.js'

const HOUR = 3_600_000

function manualClock (): Clock & { advance (ms: number): void } {
  let at = 1000
  return { now: () => at, wall: () => 1_700_000_000_000 + at, advance (ms) { at += ms } }
}

async function appWith (
  options: Partial<Parameters<typeof sessionManager>[1]> = {}, lines?: string[]
): Promise<FastifyInstance> {
  const app = Fastify(
    lines === undefined ? {} : { logger: { level: 'trace', stream: { write: (line: string) => { lines.push(line) } } } }
  )
  await app.register(sessionManager, {
    limits: { ...SESSION_LIMITS, maxSessions: 10_000 },
    unlimitedUserId: 'human_reviewer_1',
    ...options
  })
  return app
}

t.test('the founding note: create, get, terminate', async t => {
  const app = await appWith()
  t.teardown(() => app.close())
  const session = app.sessionManager.createSession('ada')
  t.match(session, { id: /^[0-9a-f-]{36}$/, userId: 'ada', createdAt: Number, lastActivityAt: Number, context: {} })
  t.equal(app.sessionManager.getSession(session.id)?.id, session.id)
  t.equal(app.sessionManager.terminateSession(session.id), true)
  t.equal(app.sessionManager.terminateSession(session.id), false, 'false if it did not exist')
  t.equal(app.sessionManager.getSession(session.id), undefined)
})

t.test('the founding note: an access updates lastActivityAt, and purges end what is idle past the timeout', async t => {
  const clock = manualClock()
  const app = await appWith({ clock })
  t.teardown(() => app.close())
  const [idle, used] = [app.sessionManager.createSession('a'), app.sessionManager.createSession('b')]
  clock.advance(HOUR - 10)
  const accessed = app.sessionManager.getSession(used.id)
  t.equal(accessed?.lastActivityAt, clock.wall())
  clock.advance(11)
  t.equal(app.sessionManager.purgeStaleSessions(), 1)
  t.equal(app.sessionManager.getSession(idle.id), undefined)
  t.ok(app.sessionManager.getSession(used.id))
})

t.test('P-40 an operator\'s look at a session is no activity', async t => {
  const clock = manualClock()
  const app = await appWith({ clock })
  t.teardown(() => app.close())
  const { id } = app.sessionManager.createSession('a')
  clock.advance(HOUR - 10)
  app.sessionManager.peekSession(id)
  app.sessionManager.listSessions({})
  clock.advance(11)
  t.equal(app.sessionManager.purgeStaleSessions(), 1)
})

t.test('a session past its timeout is gone for a caller before any sweep has run', async t => {
  const clock = manualClock()
  const app = await appWith({ clock })
  t.teardown(() => app.close())
  const { id } = app.sessionManager.createSession('a')
  clock.advance(HOUR + 1)
  t.equal(app.sessionManager.getSession(id), undefined)
})

t.test('the sweep of the plugin purges without anybody asking', async t => {
  const clock = manualClock()
  const app = await appWith({ clock })
  t.teardown(() => app.close())
  for (let i = 0; i < 2500; i++) app.sessionManager.createSession('human_reviewer_1')
  clock.advance(HOUR + 2000)
  await eventually('all purged, in more than one slice', () => app.sessionManager.countSessions().total === 0)
})

t.test('creation, termination and purges are logged', async t => {
  const lines: string[] = []
  const clock = manualClock()
  const app = await appWith({ clock }, lines)
  t.teardown(() => app.close())
  const first = app.sessionManager.createSession('a')
  app.sessionManager.terminateSession(first.id)
  app.sessionManager.createSession('b')
  clock.advance(HOUR + 2000)
  await eventually('purged', () => lines.some(line => line.includes('stale sessions purged')))
  const logged = lines.map(line => JSON.parse(
    line
  ) as { msg: string, sid?: string, reason?: string, purged?: number, level: number })
  t.match(logged.filter(line => line.sid === first.id), [
    { msg: 'session created', level: 30 }, { msg: 'session ended', reason: 'ended_by_operator', level: 30 }
  ])
  t.match(logged.find(line => line.purged === 1), { msg: 'stale sessions purged' })
})

t.test('wiring', async t => {
  t.test('registered twice it says so', async t => {
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(sessionManager, { limits: SESSION_LIMITS })
    await t.rejects(
      async () => await app.register(sessionManager, { limits: SESSION_LIMITS }),
      { code: 'PLUGIN_MISUSED', message: /session-manager.*twice/ }
    )
  })

  t.test('registered in a scope of its own it stays there', async t => {
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(async scope => {
      await scope.register(sessionManager, { limits: SESSION_LIMITS })
      t.ok(scope.hasDecorator('sessionManager'))
    })
    t.notOk(app.hasDecorator('sessionManager'))
  })

  t.test('shares its decorator with the whole application', async t => {
    const app = await appWith()
    t.teardown(() => app.close())
    await app.register(async scope => { t.equal(scope.sessionManager, app.sessionManager) })
  })

  t.test('closes its store, after everything that was registered later', async t => {
    const order: string[] = []
    const memory = createMemoryStore()
    const store: SessionStore = { ...memory, close: async () => { order.push('store') } }
    const app = await appWith({ store })
    app.addHook('onClose', async () => { order.push('later plugin') })
    await app.close()
    t.strictSame(order, ['later plugin', 'store'])
  })

  t.test('uses the store it is given', async t => {
    const added: string[] = []
    const memory = createMemoryStore()
    const store: SessionStore = {
      ...memory,
      traits: { survives: 'process', shared: false },
      create: session => {
        added.push(session.userId)
        return memory.create(session)
      }
    }
    const app = await appWith({ store })
    t.teardown(() => app.close())
    app.sessionManager.createSession('ada')
    t.strictSame(added, ['ada'])
  })

  t.test('leaves no timer behind', async t => {
    const before = process.getActiveResourcesInfo().filter(name => name === 'Timeout').length
    const app = await appWith()
    await app.close()
    // Others may have run out meanwhile.
    t.ok(process.getActiveResourcesInfo().filter(name => name === 'Timeout').length <= before)
  })
})

t.test('quotas', async t => {
  const app = await appWith({
    limits: { ...SESSION_LIMITS, maxSessions: 3, maxSessionsPerUser: 1 },
    unlimitedUserId: 'everybody'
  })
  t.teardown(() => app.close())
  const manager = app.sessionManager
  manager.createSession('ada')
  t.throws(() => manager.createSession('ada'), { code: 'USER_QUOTA', statusCode: 429, retryAfterMs: Number })
  manager.createSession('everybody')
  manager.createSession('everybody')
  t.throws(
    () => manager.createSession('everybody'),
    { code: 'SERVER_FULL', statusCode: 503 },
    'the placeholder user has no quota, the server has'
  )
})

t.test('a lifecycle listener that throws harms nobody', async t => {
  const lines: string[] = []
  const app = await appWith({}, lines)
  t.teardown(() => app.close())
  const seen: string[] = []
  app.sessionManager.subscribe(() => { throw new Error('listener broke') })
  app.sessionManager.subscribe(event => { seen.push(event.type) })
  app.sessionManager.terminateSession(app.sessionManager.createSession('a').id)
  await nextTurn()
  t.strictSame(seen, ['created', 'ended'])
  t.ok(lines.some(line => line.includes('lifecycle listener failed')))
})

t.test('ids are made by the server, of 122 random bits, and none is like another', async t => {
  const app = await appWith()
  t.teardown(() => app.close())
  const ids = new Set(Array.from({ length: 500 }, () => app.sessionManager.createSession('human_reviewer_1').id))
  t.equal(ids.size, 500)
  for (const id of ids) {
    if (!/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(id)) {
      t.fail(`${id} is no random UUID`)
    }
  }
})
