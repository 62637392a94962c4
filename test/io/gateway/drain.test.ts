// The policy of a stop, on a clock that the test turns: who is told when, and what ends the wait.

import t from 'tap'
import { drainConnections, type DrainOptions } from '../../../src/io/gateway/drain.js'
import { createManualClock } from '../../helpers/clock.js'

interface Step { atMs: number, closed: number, force: boolean, retryAfterMs: number }

/**
 * Connections that close when they are told to, but for those with a command, and those that are
 * deaf.
 */
async function drain ({
  connections = 0, commands = 0, deaf = 0, deadlineMs = 10_000, stallMs = 0, random = () => 0.5, busyUntilMs = 0
}): Promise<{ steps: Step[], tookMs: number }> {
  const clock = createManualClock(0)
  const steps: Step[] = []
  let [idle, running, closing] = [connections - commands - deaf, commands, deaf]
  const gateway: DrainOptions['gateway'] = {
    get connections () { return idle + running + closing },
    closeSome (count, retryAfterMs, force) {
      const now = Math.min(count, idle)
      idle -= now
      if (force) running = 0
      if (now > 0 || force) steps.push({ atMs: clock.now(), closed: now, force, retryAfterMs })
      return idle + running
    }
  }
  await drainConnections({
    gateway,
    clock,
    random,
    deadlineMs,
    delay: async ms => { clock.advance(Math.max(ms, stallMs)) },
    busyRequests: () => clock.now() < busyUntilMs ? 1 : 0
  })
  return { steps, tookMs: clock.now() }
}

t.test('P-48 with nobody there it is over at once', async t => {
  t.equal((await drain({})).tookMs, 0)
})

t.test('P-48 a few clients are told at once, and nothing waits for the rest of the time', async t => {
  const { steps, tookMs } = await drain({ connections: 20 })
  t.match(steps, [{ atMs: 0, closed: 20, force: false, retryAfterMs: 1000 }])
  t.equal(tookMs, 0)
})

t.test('P-48 many are told evenly over the first half', async t => {
  const { steps } = await drain({ connections: 10_000 })
  t.equal(steps.reduce((sum, { closed }) => sum + closed, 0), 10_000)
  const lastAtMs = steps.at(-1)?.atMs ?? 0
  t.ok(lastAtMs > 4900 && lastAtMs <= 5000, `the last at ${lastAtMs} ms`)
  for (const { closed } of steps) t.ok(closed <= 101, `${closed} at once`)
})

t.test('P-48 the rate holds on an event loop whose turns take long', async t => {
  const { steps } = await drain({ connections: 10_000, stallMs: 700 })
  t.ok((steps.at(-1)?.atMs ?? Infinity) <= 5000 + 700, `the last at ${steps.at(-1)?.atMs} ms`)
  t.notOk(steps.some(({ force }) => force))
})

t.test('P-48 running commands have all but the last half second', async t => {
  const { steps, tookMs } = await drain({ connections: 5, commands: 1 })
  t.match(steps, [{ atMs: 0, force: false }, { atMs: 9500, force: true }])
  t.equal(tookMs, 9500)
})

t.test('P-48 a client that answers no close is waited for until the deadline', async t => {
  t.equal((await drain({ connections: 2, deaf: 1 })).tookMs, 10_000)
})

t.test('requests under way are waited for, and not beyond the deadline', async t => {
  const { tookMs } = await drain({ busyUntilMs: 3000 })
  t.ok(tookMs >= 3000 && tookMs <= 3050, `${tookMs} ms`)
  t.equal((await drain({ busyUntilMs: Infinity })).tookMs, 10_000)
})

t.test('a deadline of 0 closes everything at once and leaves half a second for the closing handshakes', async t => {
  const { steps, tookMs } = await drain({ connections: 1000, commands: 10, deaf: 1, deadlineMs: 0 })
  t.match(steps[0], { atMs: 0, closed: 989, force: true })
  t.equal(tookMs, 500)
})
