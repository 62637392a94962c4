import t from 'tap'
import { createTurnstile } from '../../../src/io/gateway/turnstile.js'

function setup (perTurn: number, maxWaiting: number) {
  const turns: (() => void)[] = []
  const turnstile = createTurnstile({ perTurn, maxWaiting, yieldTurn: callback => turns.push(callback), random: () => 0.5 })
  const passed: number[] = []
  return {
    turnstile,
    passed,
    come: (n: number) => {
      const pass = turnstile.pass()
      if (pass === undefined) passed.push(n)
      else void pass.then(() => passed.push(n))
    },
    turn: async () => {
      turns.shift()?.()
      await Promise.resolve()
    },
    pending: () => turns.length
  }
}

t.test('lets as many handshakes pass per turn as it may, in order of arrival', async t => {
  const { come, turn, passed, turnstile } = setup(2, 100)
  for (let n = 1; n <= 5; n++) come(n)
  t.same(passed, [1, 2])
  t.equal(turnstile.waiting, 3)
  await turn()
  t.same(passed, [1, 2, 3, 4])
  await turn()
  t.same(passed, [1, 2, 3, 4, 5])
})

t.test('makes a latecomer of a busy turn wait behind those who came before', async t => {
  const { come, turn, passed } = setup(1, 100)
  for (const n of [1, 2, 3]) come(n)
  await turn()
  come(4)
  await turn()
  await turn()
  t.same(passed, [1, 2, 3, 4])
})

t.test('asks for no further turns when nobody comes', async t => {
  const { come, turn, pending } = setup(2, 100)
  come(1)
  await turn()
  t.equal(pending(), 0)
})

t.test('sends away whoever finds too many waiting, with a time to come back', t => {
  const { come, turnstile } = setup(1, 2)
  for (const n of [1, 2, 3]) come(n)
  t.throws(() => turnstile.pass(), { code: 'SERVER_FULL', statusCode: 503, retryAfterMs: 3000 })
  t.end()
})
