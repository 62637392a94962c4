// The event loop of this process is really held up, in short pieces, since that is what is measured; the two seconds of patience are the clock's.

import t from 'tap'
import { buildTestApp } from '../helpers/app.js'
import { createManualClock } from '../helpers/clock.js'

/** Blocks the event loop for 40 of every 41 ms until the test ends. */
function holdUp (t: { teardown (stop: () => void): void }): void {
  const timer = setInterval(() => {
    const until = performance.now() + 40
    while (performance.now() < until);
  }, 1)
  t.teardown(() => { clearInterval(timer) })
}

t.test('sends requests away once the lag has lasted, and lets probes through', async t => {
  const clock = createManualClock()
  const app = await buildTestApp(t, { clock, config: { maxEventLoopDelaySeconds: 0.02 } })
  holdUp(t)
  while (!app.isUnderPressure()) await new Promise(resolve => setTimeout(resolve, 10))

  t.equal((await app.inject('/sessions')).statusCode, 200, 'not at first sight')
  clock.advance(1001)
  const refused = await app.inject('/sessions')
  t.equal(refused.statusCode, 503)
  t.equal(refused.headers['retry-after'], '5')
  t.match(refused.json(), { code: 'SERVER_FULL' })
  t.equal((await app.inject('/health/live')).statusCode, 200)
  t.match((await app.inject('/health/ready')).json(), { reasons: ['under_pressure'] })
  await t.rejects(app.injectWS('/ws', { socket: { remoteAddress: '127.0.0.1' } as never }), /503/)

  clock.advance(2001)
  t.equal((await app.inject('/sessions')).statusCode, 200, 'and each lag is looked at anew')
})
