import t from 'tap'
import { createIdempotencyKeys, type KeyedRequest } from '../../../src/io/operators/idempotency-keys.js'
import { createManualClock } from '../../helpers/clock.js'

const request = (over: Partial<KeyedRequest> = {}): KeyedRequest => ({
  target: 't',
  key: 'k',
  fingerprint: 'f',
  ...over
})

function createWorld ({ keepMs = 1000, maxKeys = 100 } = {}) {
  const clock = createManualClock()
  const keys = createIdempotencyKeys({
    clock, limits: { idempotencyKeyMs: keepMs, maxIdempotencyKeys: maxKeys }
  })
  let runs = 0
  return { clock, keys, ask: (over?: Partial<KeyedRequest>) => keys.once(request(over), () => ++runs) }
}

t.test('the same key gives the first answer and executes nothing', async t => {
  const { ask } = createWorld()
  t.strictSame(ask(), { answer: 1, repeated: false })
  t.strictSame(ask(), { answer: 1, repeated: true })
  t.strictSame(ask({ key: 'other' }), { answer: 2, repeated: false })
  t.strictSame(ask({ target: 'other' }), { answer: 3, repeated: false }, 'of another target it is another key')
})

t.test('a key with another body is refused, and keeps its answer', async t => {
  const { ask } = createWorld()
  await ask()
  t.throws(() => ask({ fingerprint: 'other' }), { code: 'IDEMPOTENCY_KEY_REUSED', statusCode: 422 })
  t.strictSame(ask(), { answer: 1, repeated: true })
})

t.test('an answer is kept from when it was given, for the whole time and no longer', async t => {
  const { clock, ask, keys } = createWorld()
  await ask()
  clock.advance(999)
  t.match(await ask(), { repeated: true })
  clock.advance(1)
  t.match(await ask(), { answer: 2, repeated: false })
  t.equal(keys.size, 1)
})

t.test('a repeat while the first is under way is refused, and answered afterwards', async t => {
  const { keys, clock } = createWorld()
  let finish = (_: string): void => {}
  const first = keys.once(request(), () => new Promise<string>(resolve => { finish = resolve }))
  t.throws(
    () => keys.once(request(), () => 'second'),
    { code: 'IDEMPOTENCY_KEY_IN_USE', statusCode: 409, retryAfterMs: 1000 }
  )
  t.throws(() => keys.once(request({ fingerprint: 'other' }), () => ''), { code: 'IDEMPOTENCY_KEY_REUSED' })
  clock.advance(5000)
  finish('first')
  t.strictSame(await first, { answer: 'first', repeated: false })
  clock.advance(999)
  t.strictSame(
    await keys.once(request(), () => 'second'), { answer: 'first', repeated: true }, 'its time begins with the answer'
  )
})

t.test('what failed is not kept: the same key may be tried again, also with another body', async t => {
  const { keys } = createWorld()
  t.throws(() => keys.once(request(), () => { throw new Error('no') }), { message: 'no' })
  await t.rejects(Promise.resolve(keys.once(request(), async () => { throw new Error('later') })), { message: 'later' })
  t.equal(keys.size, 0)
  t.strictSame(keys.once(request({ fingerprint: 'other' }), () => 'done'), { answer: 'done', repeated: false })
})

t.test('beyond the bound a new key is refused until an old one is over, and none is forgotten early', async t => {
  const { clock, keys, ask } = createWorld({ maxKeys: 3 })
  await ask({ key: 'a' })
  clock.advance(400)
  await ask({ key: 'b' })
  await ask({ key: 'c' })
  t.throws(() => ask({ key: 'd' }), { code: 'TOO_MANY_KEYS', statusCode: 429, retryAfterMs: 600 })
  for (const key of ['a', 'b', 'c']) t.match(await ask({ key }), { repeated: true }, key)
  clock.advance(600)
  t.match(await ask({ key: 'd' }), { repeated: false })
  t.match(await ask({ key: 'b' }), { repeated: true })
  t.equal(keys.size, 3)
})

t.test('keys under way count, and do not keep answered ones from being forgotten', async t => {
  const { clock, keys, ask } = createWorld({ maxKeys: 2 })
  void keys.once(request({ key: 'slow' }), () => new Promise<void>(() => {}))
  await ask({ key: 'a' })
  t.throws(() => ask({ key: 'b' }), { code: 'TOO_MANY_KEYS' })
  clock.advance(1000)
  await ask({ key: 'b' })
  t.equal(keys.size, 2)
  const full = createWorld({ maxKeys: 1 }).keys
  void full.once(request({ key: 'slow' }), () => new Promise<void>(() => {}))
  t.throws(() => full.once(request({ key: 'b' }), () => {}), { code: 'TOO_MANY_KEYS', retryAfterMs: 1000 })
})
