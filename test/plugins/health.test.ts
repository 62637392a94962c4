import t from 'tap'
import { buildRestApp } from '../helpers/rest.js'
import { injectSocket } from '../helpers/socket.js'

t.test('a living, ready process says so to anybody and lets nobody cache it', async t => {
  const app = await buildRestApp(t, { auth: { adminToken: 'x'.repeat(32), requestsPerMinute: 1 } })
  for (let i = 0; i < 3; i++) {
    const live = await app.inject({
      url: '/health/live',
      remoteAddress: '203.0.113.9',
      headers: { host: 'balancer.example' }
    })
    t.equal(live.statusCode, 200)
    t.same(live.json(), { status: 'ok' })
    t.equal(live.headers['cache-control'], 'no-store')
    const ready = await app.inject('/health/ready?probe=1')
    t.equal(ready.statusCode, 200)
    t.same(ready.json(), { status: 'ready' })
  }
})

t.test('P-48 a draining node is alive and not ready', async t => {
  const app = await buildRestApp(t)
  const socket = await injectSocket(app)
  await socket.next()
  const drained = app.gateway.drain(2000)
  const ready = await app.inject('/health/ready')
  t.equal(ready.statusCode, 503)
  t.same(ready.json(), { status: 'not_ready', reasons: ['draining'] })
  t.equal((await app.inject('/health/live')).statusCode, 200)
  await socket.nextClose()
  await drained
})

t.test('a node under pressure is alive and not ready', async t => {
  const app = await buildRestApp(t, { before: async app => { app.decorate('isUnderPressure', () => true) } })
  t.equal((await app.inject('/health/live')).statusCode, 200)
  const ready = await app.inject('/health/ready')
  t.equal(ready.statusCode, 503)
  t.same(ready.json(), { status: 'not_ready', reasons: ['under_pressure'] })
})

t.test('a check that fails, throws or hangs makes the node not ready, by name and without its error', async t => {
  let storeWorks = false
  const app = await buildRestApp(t, {
    health: {
      checkTimeoutMs: 20,
      checks: {
        store: () => storeWorks,
        core: async () => { throw new Error('password=1') },
        sync: () => { throw new Error('password=2') },
        silent: async () => await new Promise<boolean>(() => {}),
        fine: () => true
      }
    }
  })
  const ready = await app.inject('/health/ready')
  t.equal(ready.statusCode, 503)
  t.same(ready.json(), { status: 'not_ready', reasons: ['store', 'core', 'sync', 'silent'] })
  storeWorks = true
  t.same((await app.inject('/health/ready')).json().reasons, ['core', 'sync', 'silent'])
})

t.test('probes leave no line in the log', async t => {
  const lines: string[] = []
  const app = await buildRestApp(
    t, { server: { logger: { level: 'info', stream: { write: (line: string) => { lines.push(line) } } } } }
  )
  lines.length = 0
  await app.inject('/health/live')
  await app.inject('/health/ready')
  await app.inject('/metrics')
  t.same(lines, [])
})
