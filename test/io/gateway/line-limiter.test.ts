import t from 'tap'
import { createLineLimiter } from '../../../src/io/gateway/line-limiter.js'

t.test('one line of a kind passes in a period, and the next says how many did not', async t => {
  let at = 0
  const suppressed = createLineLimiter({ now: () => at }, 60_000)
  t.equal(suppressed('a'), 0)
  for (let i = 0; i < 300; i++) t.equal(suppressed('a'), undefined)
  t.equal(suppressed('b'), 0, 'each kind for itself')
  at = 59_999
  t.equal(suppressed('a'), undefined)
  at = 60_000
  t.equal(suppressed('a'), 301)
  t.equal(suppressed('a'), undefined)
  at = 120_000
  t.equal(suppressed('a'), 1)
})
