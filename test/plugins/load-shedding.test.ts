// Lag and clock are the test's; that a busy event loop is really seen is one test of its own.

import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import fp from 'fastify-plugin'
import loadShedding from '../../plugins/load-shedding.js'
import { answerError } from '../../plugins/schemas/error-answer.js'
import { buildTestApp } from '../helpers/app.js'
import { createManualClock } from '../helpers/clock.js'

/** An application with two routes, the lag that it is told, and the clock that it goes by. */
async function start (t: Test) {
  const clock = createManualClock()
  const lag = { ms: 0 }
  const app: FastifyInstance = Fastify()
  t.teardown(() => app.close())
  app.setErrorHandler(answerError)
  await app.register(fp(async () => {}, { name: 'holdfast/websocket-gateway' }))
  await app.register(loadShedding, { maxEventLoopDelayMs: 100, clock, readLagMs: () => lag.ms })
  app.get('/work', async () => 'done')
  app.get('/probe', { config: { shedLoad: false } }, async () => 'alive')
  const status = async (url: string): Promise<number> => (await app.inject(url)).statusCode
  return { app, clock, lag, status }
}

t.test('sends requests away after two samples of too much lag in a row', async t => {
  const { app, clock, lag, status } = await start(t)
  lag.ms = 101
  t.equal(await status('/work'), 200, 'before the first sample')
  clock.advance(1000)
  t.equal(await status('/work'), 200, 'after one')
  clock.advance(1000)
  const refused = await app.inject('/work')
  t.equal(refused.statusCode, 503)
  t.equal(refused.headers['retry-after'], '5')
  t.match(refused.json(), { code: 'SERVER_FULL' })
  t.ok(app.isUnderPressure())
})

t.test('lets routes through that ask for it', async t => {
  const { clock, lag, status } = await start(t)
  lag.ms = 1000
  for (let n = 0; n < 3; n++) {
    clock.advance(1000)
    t.equal(await status('/probe'), 200)
  }
  t.equal(await status('/work'), 503)
})

t.test('takes requests again after one sample without', async t => {
  const { clock, lag, status } = await start(t)
  lag.ms = 1000
  for (let n = 0; n < 3; n++) {
    clock.advance(1000)
    await status('/probe')
  }
  lag.ms = 100
  t.equal(await status('/work'), 503, 'until the next sample')
  clock.advance(1000)
  t.equal(await status('/work'), 200)
})

t.test('sends nobody away for one long turn', async t => {
  const { clock, lag, status } = await start(t)
  for (const ms of [5000, 0, 5000, 0]) {
    lag.ms = ms
    clock.advance(1000)
    t.equal(await status('/work'), 200)
  }
})

t.test('sees an event loop that is busy', async t => {
  const clock = createManualClock()
  const app = await buildTestApp(t, { clock, config: { maxEventLoopDelaySeconds: 0.02 } })
  // Held up for 100 of every 101 ms, five times that a sample may see.
  for (let sample = 0; sample < 3; sample++) {
    for (let n = 0; n < 3; n++) {
      const until = performance.now() + 100
      while (performance.now() < until);
      await new Promise(resolve => setTimeout(resolve, 1))
    }
    clock.advance(1001)
    app.isUnderPressure()
  }
  t.equal((await app.inject('/sessions')).statusCode, 503)
  t.match((await app.inject('/health/ready')).json(), { reasons: ['under_pressure'] })
  t.equal((await app.inject('/health/live')).statusCode, 200)
  await t.rejects(app.injectWS('/ws', { socket: { remoteAddress: '127.0.0.1' } as never }), /503/)
})
