import t from 'tap'
import { createTurnstile, type Turnstile } from '../../../src/io/gateway/turnstile.js'

function createWorld (
  perTurn: number, maxWaiting: number, random = 0
): { turnstile: Turnstile, turn: () => number, enter: (name: number) => boolean, through: number[] } {
  let yielded: (() => void)[] = []
  const through: number[] = []
  const turnstile = createTurnstile({
    perTurn,
    maxWaiting,
    yieldTurn: callback => { yielded.push(callback) },
    random: () => random
  })
  return {
    turnstile,
    through,
    turn () {
      const callbacks = yielded
      yielded = []
      for (const callback of callbacks) callback()
      return callbacks.length
    },
    enter (name) {
      const waiting = turnstile.pass()
      if (waiting === undefined) through.push(name)
      else void waiting.then(() => { through.push(name) })
      return waiting === undefined
    }
  }
}

const settled = (): Promise<void> => new Promise(resolve => { setImmediate(resolve) })

t.test('few handshakes go through at once, without a promise', async t => {
  const { enter, turnstile } = createWorld(3, 10)
  t.strictSame([enter(1), enter(2), enter(3)], [true, true, true])
  t.equal(turnstile.waiting, 0)
})

t.test('the others wait and go through in order, so many a turn', async t => {
  const { enter, turn, through, turnstile } = createWorld(2, 10)
  for (let n = 1; n <= 7; n++) enter(n)
  t.strictSame([through.length, turnstile.waiting], [2, 5])
  turn()
  await settled()
  t.strictSame([through, turnstile.waiting], [[1, 2, 3, 4], 3])
  turn()
  turn()
  await settled()
  t.strictSame([through, turnstile.waiting], [[1, 2, 3, 4, 5, 6, 7], 0])
})

t.test('whoever comes while others wait does not overtake them', async t => {
  const { enter, turn, through } = createWorld(2, 10)
  for (let n = 1; n <= 5; n++) enter(n)
  turn()
  t.equal(enter(6), false)
  turn()
  await settled()
  turn()
  await settled()
  t.strictSame(through, [1, 2, 3, 4, 5, 6])
})

t.test('P-4 when too many wait the next is sent away with a time spread over seconds', async t => {
  for (const [random, retryAfterMs] of [[0, 1000], [0.5, 3000], [0.9999, 4999]] as const) {
    const { enter, turnstile } = createWorld(1, 2, random)
    for (let n = 1; n <= 3; n++) enter(n)
    t.throws(() => turnstile.pass(), { code: 'SERVER_FULL', retryAfterMs })
    t.equal(turnstile.waiting, 2)
  }
})

t.test('a turnstile at rest asks for no turns', async t => {
  const { enter, turn } = createWorld(2, 2)
  enter(1)
  for (let n = 0; n < 5; n++) turn()
  t.equal(turn(), 0)
  t.equal(enter(2), true)
  t.equal(turn(), 1)
})
