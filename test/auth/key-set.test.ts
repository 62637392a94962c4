// The bad days of an identity provider: its key server fails, hangs, publishes nothing, rotates.
// Over real HTTP, with a clock that the test turns.

import type { ServerResponse } from 'node:http'
import t, { type Test } from 'tap'
import { createJwtAuthenticator, type JwtAuthenticator, type JwtAuthenticatorOptions } from '../../src/auth/jwt.js'
import { HoldfastError } from '../../src/io/errors.js'
import { createRecordingLog } from '../helpers/log.js'
import { makeKey, signWithKey, startKeySet } from '../helpers/key-set.js'

const MINUTE_MS = 60_000
const HOUR_MS = 3_600_000

async function setUp (t: Test, options: Partial<JwtAuthenticatorOptions> = {}) {
  const key = makeKey('k1')
  const set = await startKeySet(t, [key])
  const clock = { at: 1_000_000 }
  const log = createRecordingLog()
  const authenticator = createJwtAuthenticator({ jwksUrl: set.url, now: () => clock.at, log, ...options })
  return { key, set, clock, log, authenticator }
}

/** `ok`, or the code of the refusal and when to come back. */
async function ask (authenticator: JwtAuthenticator, token: string): Promise<string> {
  try {
    await authenticator({ token, headers: {}, address: '', url: '' } as never)
    return 'ok'
  } catch (error) {
    const { code, retryAfterMs } = error as HoldfastError
    return retryAfterMs === undefined ? code : `${code} ${retryAfterMs}`
  }
}

const broken: Array<[string, (response: ServerResponse) => void]> = [
  ['fails', response => { response.writeHead(500).end() }],
  ['hangs', () => {}],
  ['publishes no keys', response => { response.writeHead(200).end('{"keys":[]}') }],
  ['publishes nonsense', response => { response.writeHead(200).end('<html>') }]
]

for (const [title, answer] of broken) {
  // Ten minutes after its key server went down every handshake was 503, with the right key in
  // memory.
  t.test(`while the key server ${title}, the keys at hand are used, for a day`, async t => {
    const { key, set, clock, authenticator } = await setUp(t, { jwksTimeoutMs: 2000 })
    const token = await signWithKey(key)
    t.equal(await ask(authenticator, token), 'ok')
    set.answer = answer
    for (const ms of [9 * MINUTE_MS, 2 * MINUTE_MS, MINUTE_MS, HOUR_MS, 20 * HOUR_MS]) {
      clock.at += ms
      t.equal(await ask(authenticator, token), 'ok', `${ms} ms later`)
    }
    clock.at = 1_000_000 + 24 * HOUR_MS
    t.equal(await ask(authenticator, token), 'ok', 'to the end of the day')
    clock.at++
    t.match(await ask(authenticator, token), /^AUTH_UNAVAILABLE \d+$/, 'and not beyond')
    set.answer = undefined
    clock.at += MINUTE_MS
    t.equal(await ask(authenticator, token), 'ok', 'until it answers again')
    t.ok(authenticator.keySet?.ageMs === 0)
  })
}

t.test('with a bound of 0 keys are used for their age and not a moment longer', async t => {
  const { key, set, clock, authenticator } = await setUp(t, { jwksMaxStaleMs: 0 })
  const token = await signWithKey(key)
  await ask(authenticator, token)
  set.answer = response => { response.writeHead(500).end() }
  clock.at += 600_000
  t.equal(await ask(authenticator, token), 'ok')
  clock.at++
  t.equal(await ask(authenticator, token), 'AUTH_UNAVAILABLE 1000')
})

t.test('an outage costs a fetch now and then, however many handshakes there are', async t => {
  const { key, set, clock, authenticator } = await setUp(t)
  const token = await signWithKey(key)
  set.answer = response => { response.writeHead(500).end() }
  const fetchedAt: number[] = []
  for (let ms = 0; ms < 120_000; ms += 500) {
    const before = set.fetches
    await Promise.all([1, 2, 3].map(async () => await ask(authenticator, token)))
    if (set.fetches > before) fetchedAt.push(ms)
    t.ok(set.fetches - before <= 1, 'one at a time')
    clock.at += 500
  }
  t.same(fetchedAt, [0, 1000, 3000, 7000, 15_000, 31_000, 61_000, 91_000])
})

t.test('while the key server is known to hang, nobody waits for it', async t => {
  const { key, set, clock, authenticator } = await setUp(t, { jwksTimeoutMs: 2000 })
  const token = await signWithKey(key)
  await ask(authenticator, token)
  set.answer = () => {}
  clock.at += 600_001
  t.equal(await ask(authenticator, token), 'ok', 'the first one waits for a fetch that may succeed')
  const answers: ServerResponse[] = []
  set.answer = response => { answers.push(response) }
  clock.at += MINUTE_MS
  t.equal(await ask(authenticator, token), 'ok')
  t.same(answers.filter(response => response.writableEnded), [], 'answered before the key server was')
})

// Each of 300 refused handshakes logged a stack: 430 KB.
t.test('an outage is one line, then one a minute, and its end is one line', async t => {
  const { key, set, clock, log, authenticator } = await setUp(t)
  const token = await signWithKey(key)
  set.answer = response => { response.writeHead(500).end() }
  for (let second = 0; second < 300; second++) {
    await ask(authenticator, token)
    clock.at += 1000
  }
  t.ok(log.lines.length >= 4 && log.lines.length <= 6, `${log.lines.length} lines in five minutes`)
  t.match(log.lines[0], {
    level: 'error',
    message: 'key set not fetched, tokens cannot be checked',
    fields: { url: /^http:\/\/127\.0\.0\.1:\d+$/, failures: 1 }
  })
  set.answer = undefined
  clock.at += MINUTE_MS
  t.equal(await ask(authenticator, token), 'ok')
  t.match(log.lines.at(-1), { level: 'info', message: 'key set fetched again' })
  set.answer = response => { response.writeHead(500).end() }
  clock.at += 600_001
  await ask(authenticator, token)
  t.match(log.lines.at(-1), {
    level: 'warn',
    message: 'key set not fetched, older keys are used',
    fields: { ageSeconds: 600 }
  })
})

// A client with a token of the new key was told 401, which means: do not come back.
t.test('a token with a key that was not there when the set was fetched is told to come back', async t => {
  const { key, set, clock, authenticator } = await setUp(t)
  const fresh = makeKey('k2')
  await ask(authenticator, await signWithKey(key))
  clock.at += 5000
  set.keys = [key, fresh]
  const token = await signWithKey(fresh)
  t.equal(await ask(authenticator, token), 'AUTH_UNAVAILABLE 25000')
  t.equal(set.fetches, 1)
  clock.at += 25_000
  t.equal(await ask(authenticator, token), 'ok')
  t.equal(await ask(authenticator, await signWithKey(key)), 'ok', 'and the old one is still taken')
  t.equal(set.fetches, 2)
})

t.test('a token whose key is in no set that was fetched since it came is refused for good', async t => {
  const { key, set, clock, authenticator } = await setUp(t)
  const token = async (kid: string): Promise<string> => await signWithKey(key, { sub: 'ada' }, { kid })
  t.equal(await ask(authenticator, await token('gone')), 'UNAUTHENTICATED', 'it came before the first fetch')
  clock.at += 1000
  for (const kid of ['x1', 'x2', 'x3']) t.equal(await ask(authenticator, await token(kid)), 'AUTH_UNAVAILABLE 29000')
  t.equal(set.fetches, 1, 'made-up names do not make it fetch again and again')
  clock.at += 29_000
  t.equal(await ask(authenticator, await token('x1')), 'UNAUTHENTICATED')
  clock.at += 1000
  for (const kid of ['x1', 'x2', 'x3']) {
    t.equal(
      await ask(authenticator, await token(kid)),
      'UNAUTHENTICATED',
      'the fetch for one has answered all that came before it'
    )
  }
  t.equal(set.fetches, 2)
})

t.test('names that somebody makes up by the thousand leave honest tokens as they are', async t => {
  const { key, set, clock, authenticator } = await setUp(t)
  const honest = await signWithKey(key)
  await ask(authenticator, honest)
  clock.at += 1000
  const forged = await Promise.all(Array.from({ length: 300 }, async (_, i) => await signWithKey(
    key, { sub: 'ada' }, { kid: `x${i}` }
  )))
  for (const token of forged) t.match(await ask(authenticator, token), 'AUTH_UNAVAILABLE')
  t.equal(await ask(authenticator, honest), 'ok')
  t.equal(set.fetches, 1)
})

t.test('a missing key during an outage is not a verdict', async t => {
  const { key, set, clock, authenticator } = await setUp(t)
  await ask(authenticator, await signWithKey(key))
  set.answer = response => { response.writeHead(500).end() }
  clock.at += MINUTE_MS
  const token = await signWithKey(makeKey('k2'))
  for (let i = 0; i < 5; i++) {
    t.match(await ask(authenticator, token), /^AUTH_UNAVAILABLE \d+$/)
    clock.at += MINUTE_MS
  }
})

t.test('a fetch that is under way is joined, also by those who miss a key', async t => {
  const { key, set, clock, authenticator } = await setUp(t)
  await ask(authenticator, await signWithKey(key))
  const fresh = makeKey('k2')
  set.keys = [key, fresh]
  clock.at += MINUTE_MS
  const token = await signWithKey(fresh)
  t.same(await Promise.all([1, 2, 3, 4].map(async () => await ask(authenticator, token))), ['ok', 'ok', 'ok', 'ok'])
  t.equal(set.fetches, 2)
})

t.test('what is counted is what happened', async t => {
  const { key, set, clock, authenticator } = await setUp(t)
  t.match({ ...authenticator.keySet }, { ageMs: undefined, fetches: 0, failures: 0 })
  await ask(authenticator, await signWithKey(key))
  clock.at += 600_001
  set.answer = response => { response.writeHead(500).end() }
  await ask(authenticator, await signWithKey(key))
  t.match({ ...authenticator.keySet }, { ageMs: 600_001, fetches: 1, failures: 1 })
  t.equal(createJwtAuthenticator({ secret: 'x'.repeat(32) }).keySet, undefined)
})
