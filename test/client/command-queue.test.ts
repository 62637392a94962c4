// Commands of the client against a scripted peer: numbers, answers, refusals, pace, bounds and lost
// sessions.

import t from 'tap'
import { CommandError } from '../../src/client/client.js'
import { createLiveWorld, createWorld, outcome, SESSION, type Frame } from './world.js'

const result = (seq: number, id: number, payload: unknown = `r${id}`): Frame => ({ seq, type: 'result', id, payload })
const refusal = (id: number, code: string, members: Frame = {}): Frame => ({
  type: 'error',
  id,
  code,
  payload: 'refused',
  ...members
})
const limits = (members: Frame): Frame => ({ limits: { ...SESSION.limits, ...members } })

t.test('answers', async t => {
  t.test('P-11 numbers commands without a hole and settles each with its own result', async t => {
    const { first, session } = await createLiveWorld(t)
    const [a, b, c] = [session.send('a', { x: 1 }), session.send('b'), session.send('c', null)]
    t.strictSame(first.sent, [
      { command: 'a', payload: { x: 1 }, id: 1 }, { command: 'b', id: 2 }, { command: 'c', payload: null, id: 3 }
    ])
    first.say(result(1, 2), result(2, 1), {
      seq: 3, type: 'error', id: 3, code: 'UNKNOWN_COMMAND', payload: 'No such command.'
    })
    t.equal(await outcome(a), 'r1')
    t.equal(await outcome(b), 'r2')
    const error = await c.catch((error: unknown) => error)
    t.ok(error instanceof CommandError)
    t.match(error, { code: 'UNKNOWN_COMMAND', command: 'c', message: 'No such command.', name: 'CommandError' })
  })

  t.test('keeps commands until the session is live, in the order of the calls', async t => {
    const { session, peer } = createWorld(t)
    void session.send('a')
    void session.send('b')
    const first = await peer()
    t.strictSame(first.sent, [])
    first.created()
    t.strictSame(first.sent.map(({ command, id }) => [command, id]), [['a', 1], ['b', 2]])
  })

  t.test('sends a payload as it was when `send` was called', async t => {
    const { session, peer } = createWorld(t)
    const payload = { text: 'before' }
    void session.send('a', payload)
    payload.text = 'after'
    const first = await peer()
    first.created()
    t.strictSame(first.sent[0]?.payload, { text: 'before' })
  })

  t.test('P-12 settles with an answer that comes again under an old seq, and tells it to nobody else', async t => {
    const { first, session, clock, peer, events } = await createLiveWorld(t)
    const sent = session.send('a')
    first.drop()
    await clock.advance(500)
    const second = await peer()
    second.resumed({ lastCommand: 1, gap: { from: 1, to: 3 } })
    t.strictSame(second.ids, [1], 'the answer may be among the lost outputs: a duplicate asks for it')
    second.say(result(2, 1))
    t.equal(await outcome(sent), 'r1')
    second.say(result(2, 1))
    t.strictSame(events('orphanResult'), [])
  })

  t.test('P-12 rejects when the answer of an executed command is gone', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    const sent = session.send('a')
    first.drop()
    await clock.advance(500)
    const second = await peer()
    second.resumed({ lastCommand: 1, gap: { from: 1, to: 1 } })
    second.say(refusal(1, 'RESULT_EXPIRED'))
    t.equal(await outcome(sent), 'RESULT_EXPIRED')
  })

  t.test('tells errors that belong to no command', async t => {
    const { first, events } = await createLiveWorld(t)
    first.say({ type: 'error', code: 'BAD_FRAME', payload: 'The frame is malformed.' })
    t.strictSame(events('error'), [{ code: 'BAD_FRAME', message: 'The frame is malformed.' }])
  })

  t.test('raises no unhandled rejection for a promise nobody waits for', async t => {
    const raised: unknown[] = []
    const listen = (reason: unknown): void => { raised.push(reason) }
    process.on('unhandledRejection', listen)
    t.teardown(() => process.off('unhandledRejection', listen))
    const { session, clock } = await createLiveWorld(t)
    void session.send('a')
    session.close()
    await clock.advance(0)
    t.strictSame(raised, [])
  })
})

t.test('resending', async t => {
  t.test('P-31 sends what is above lastCommand again, with the same ids, in order, before anything new', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    for (const command of ['a', 'b', 'c']) void session.send(command)
    first.drop()
    void session.send('d')
    await clock.advance(500)
    const second = await peer()
    second.resumed({ lastCommand: 1 })
    t.strictSame(second.ids, [2, 3, 4])
    t.strictSame(second.sent.at(-1)?.command, 'd')
  })

  t.test('P-13 continues from the id the server waits for', async t => {
    const { first, session } = await createLiveWorld(t)
    for (const command of ['a', 'b', 'c']) void session.send(command)
    first.say(refusal(3, 'COMMAND_GAP', { expected: 2 }))
    t.strictSame(first.ids, [1, 2, 3, 2, 3])
  })

  for (const code of ['RATE_LIMITED', 'TOO_MANY_IN_FLIGHT', 'STORE_UNAVAILABLE', 'DRAINING']) {
    t.test(`P-16 sends the same id again when it was refused ${code}`, async t => {
      const { first, session, clock } = await createLiveWorld(t)
      for (const command of ['a', 'b', 'c']) void session.send(command)
      first.say(
        refusal(1, code, { retryAfterMs: 300 }),
        refusal(2, 'COMMAND_GAP', { expected: 1 }),
        refusal(3, code, { retryAfterMs: 100 })
      )
      await clock.advance(299)
      t.strictSame(first.ids, [1, 2, 3])
      await clock.advance(1)
      t.strictSame(first.ids, [1, 2, 3, 1, 2, 3])
    })
  }

  t.test('P-16 waits half a second where the refusal names no time', async t => {
    const { first, session, clock } = await createLiveWorld(t)
    void session.send('a')
    first.say(refusal(1, 'DRAINING'))
    await clock.advance(499)
    t.strictSame(first.ids, [1])
    await clock.advance(1)
    t.strictSame(first.ids, [1, 1])
  })

  t.test('does not answer refusals of an older transmission by sending once more', async t => {
    const { first, session, clock } = await createLiveWorld(t)
    for (const command of ['a', 'b', 'c']) void session.send(command)
    first.say(refusal(1, 'RATE_LIMITED', { retryAfterMs: 10 }))
    await clock.advance(10)
    first.say(refusal(2, 'COMMAND_GAP', { expected: 1 }), refusal(3, 'COMMAND_GAP', { expected: 1 }))
    t.strictSame(first.ids, [1, 2, 3, 1, 2, 3])
    first.say(result(1, 1), result(2, 2), result(3, 3))
    void session.send('d')
    t.strictSame(first.ids.slice(6), [4])
  })

  t.test('counts transmissions per connection: a refusal after a resume is not taken for an older one', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    void session.send('a')
    first.drop()
    await clock.advance(500)
    const second = await peer()
    second.resumed()
    second.say(refusal(1, 'RATE_LIMITED', { retryAfterMs: 10 }))
    await clock.advance(10)
    t.strictSame(second.ids, [1, 1])
  })

  t.test('forgets a pause that was asked for on another connection', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    void session.send('a')
    first.say(refusal(1, 'STORE_UNAVAILABLE', { retryAfterMs: 60_000 }))
    first.drop()
    await clock.advance(500)
    const second = await peer()
    second.resumed()
    t.strictSame(second.ids, [1])
  })

  t.test('starts a new session when the server has lost what it had accepted', async t => {
    const { first, session, peer, events } = await createLiveWorld(t)
    const [, b] = [session.send('a'), session.send('b')]
    first.say(result(1, 1), refusal(2, 'COMMAND_GAP', { expected: 1 }))
    t.equal(first.closedWith, 1000)
    t.strictSame(events('ended'), [{ sessionId: 's1', reason: 'state_lost', renewing: true }])
    const second = await peer()
    t.equal(second.resume, undefined)
    second.created({ sessionId: 's2' })
    t.equal(await outcome(b), 'OUTCOME_UNKNOWN')
  })
})

t.test('pace', async t => {
  t.test('keeps within maxInFlight', async t => {
    const { first, session } = await createLiveWorld(t, {}, limits({ maxInFlight: 2 }))
    for (const command of ['a', 'b', 'c', 'd']) void session.send(command)
    t.strictSame(first.ids, [1, 2])
    first.say(result(1, 2))
    t.strictSame(first.ids, [1, 2, 3])
    first.say(result(2, 1), result(3, 3))
    t.strictSame(first.ids, [1, 2, 3, 4])
  })

  t.test('counts what is still running after a resume', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t, {}, limits({ maxInFlight: 2 }))
    for (const command of ['a', 'b', 'c']) void session.send(command)
    first.drop()
    await clock.advance(500)
    const second = await peer()
    second.resumed({ lastCommand: 1, ...limits({ maxInFlight: 2 }) })
    t.strictSame(second.ids, [2])
    second.say(result(1, 1))
    t.strictSame(second.ids, [2, 3])
  })

  t.test('keeps within commandsPerSecond', async t => {
    const { first, session, clock } = await createLiveWorld(t, {}, limits({ commandsPerSecond: 3 }))
    for (let count = 0; count < 8; count++) void session.send('a')
    t.strictSame(first.ids, [1, 2, 3])
    await clock.advance(1_049)
    t.equal(first.ids.length, 3)
    await clock.advance(1)
    t.equal(first.ids.length, 6)
    await clock.advance(1_050)
    t.equal(first.ids.length, 8)
  })

  t.test('does without limits that the server does not name', async t => {
    const { first, session } = await createLiveWorld(t, {}, { limits: {} })
    for (let count = 0; count < 200; count++) void session.send('a')
    t.equal(first.ids.length, 200)
  })
})

t.test('bounds', async t => {
  t.test('rejects above maxQueue, and only then', async t => {
    const { session } = createWorld(t, { maxQueue: 2 })
    const sent = ['a', 'b', 'c'].map(command => session.send(command))
    t.strictSame(await Promise.all(sent.map(outcome)), ['pending', 'pending', 'QUEUE_FULL'])
  })

  t.test('P-8 rejects what is larger than a message may be, without using an id', async t => {
    const { first, session } = await createLiveWorld(t)
    const large = session.send('a', 'ü'.repeat(500))
    void session.send('b', 'u'.repeat(900))
    t.equal(await outcome(large), 'MESSAGE_TOO_LARGE')
    t.strictSame(first.sent.map(({ command, id }) => [command, id]), [['b', 1]])
  })

  t.test('P-6 rejects what would be a malformed frame', async t => {
    const { first, session } = await createLiveWorld(t)
    const cycle: Record<string, unknown> = {}
    cycle.self = cycle
    const nest = (depth: number): unknown => JSON.parse('['.repeat(depth) + ']'.repeat(depth))
    const bad = [
      cycle, 1n, nest(32), JSON.parse('{"a":{"__proto__":1}}'), JSON.parse('{"constructor":{"prototype":1}}')
    ]
    for (const payload of bad) t.equal(await outcome(session.send('a', payload as never)), 'BAD_PAYLOAD')
    t.equal(await outcome(session.send('')), 'BAD_PAYLOAD')
    t.equal(await outcome(session.send('a'.repeat(129))), 'BAD_PAYLOAD')
    void session.send('a', nest(31) as never)
    t.strictSame(first.ids, [1])
  })

  t.test('takes back an unsent command that times out or is aborted, without using an id', async t => {
    const { session, peer, clock } = createWorld(t)
    const abort = new AbortController()
    const late = session.send('a', null, { timeoutMs: 50 })
    const aborted = session.send('b', null, { signal: abort.signal })
    const kept = session.send('c')
    await clock.advance(50)
    abort.abort('changed my mind')
    t.equal(await outcome(late), 'TIMEOUT')
    t.match(await aborted.catch((error: unknown) => error), { code: 'ABORTED', cause: 'changed my mind' })
    const first = await peer()
    first.created()
    t.strictSame(first.sent.map(({ command, id }) => [command, id]), [['c', 1]])
    t.equal(await outcome(kept), 'pending')
  })

  t.test('lets a sent command keep its id when it is aborted, and drops its answer', async t => {
    const { first, session, clock, events } = await createLiveWorld(t)
    const abort = new AbortController()
    const aborted = session.send('a', null, { signal: abort.signal })
    const late = session.send('b', null, { timeoutMs: 100 })
    abort.abort()
    t.equal(await outcome(aborted), 'ABORTED')
    await clock.advance(100)
    t.equal(await outcome(late), 'TIMEOUT')
    void session.send('c')
    t.strictSame(first.ids, [1, 2, 3])
    first.say(result(1, 1), result(2, 2))
    t.strictSame(events('orphanResult'), [])
  })

  // A command was sent again and again after a resume, also when its promise had timed out long
  // ago.
  t.test('does not send again what nobody waits for any more', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    const abort = new AbortController()
    void session.send('a')
    void session.send('b', null, { signal: abort.signal })
    void session.send('c')
    abort.abort()
    first.drop()
    await clock.advance(500)
    const second = await peer()
    second.resumed({ lastCommand: 1 })
    t.strictSame(second.sent.slice(1), [{ command: 'c', id: 2 }], 'what comes behind it takes its number')
  })

  t.test('sends nothing for a signal that is aborted already', async t => {
    const { first, session } = await createLiveWorld(t)
    t.equal(await outcome(session.send('a', null, { signal: AbortSignal.abort() })), 'ABORTED')
    t.strictSame(first.ids, [])
  })

  t.test('leaves neither timers nor listeners of a settled command behind', async t => {
    const { first, session, clock } = await createLiveWorld(t)
    let listeners = 0
    const signal = {
      aborted: false,
      addEventListener: () => { listeners++ },
      removeEventListener: () => { listeners-- }
    }
    const before = clock.pending().length
    void session.send('a', null, { timeoutMs: 5_000, signal })
    t.equal(listeners, 1)
    first.say(result(1, 1), { type: 'ping' })
    t.equal(listeners, 0)
    t.equal(clock.pending().length, before)
  })
})

t.test('lost sessions', async t => {
  t.test('P-33 sends what was surely not accepted to the new session, and tells the fate of the rest', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    const sent = ['a', 'b', 'c'].map(command => session.send(command))
    first.say(result(1, 1))
    first.drop()
    const unsent = session.send('d')
    await clock.advance(500)
    const second = await peer()
    second.created({ sessionId: 's2', previous: { sessionId: 's1', reason: 'idle', lastCommand: 2 } })
    t.equal(await outcome(sent[1]!), 'OUTCOME_UNKNOWN')
    t.strictSame(second.sent.map(({ command, id }) => [command, id]), [['c', 1], ['d', 2]])
    second.say(result(1, 1), result(2, 2))
    t.equal(await outcome(sent[2]!), 'r1')
    t.equal(await outcome(unsent), 'r2')
  })

  t.test('P-33 knows of no sent command whether it ran where lastCommand is not told', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    const sent = session.send('a')
    first.drop()
    const unsent = session.send('b')
    await clock.advance(500)
    const second = await peer()
    second.created({ sessionId: 's2', previous: { sessionId: 's1', reason: 'unknown' } })
    t.equal(await outcome(sent), 'OUTCOME_UNKNOWN')
    t.equal(await outcome(unsent), 'pending')
    t.strictSame(second.sent.map(({ command, id }) => [command, id]), [['b', 1]])
  })

  t.test('does not carry an aborted command over to the new session', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    const abort = new AbortController()
    void session.send('a', null, { signal: abort.signal })
    abort.abort()
    first.drop()
    await clock.advance(500)
    const second = await peer()
    second.created({ sessionId: 's2', previous: { sessionId: 's1', reason: 'idle', lastCommand: 0 } })
    t.strictSame(second.ids, [])
  })

  t.test('settles everything when it ends', async t => {
    const { session, first } = await createLiveWorld(t, {}, limits({ maxInFlight: 1 }))
    const [sent, unsent] = [session.send('a'), session.send('b')]
    first.drop(4429, 'quota')
    t.equal(await outcome(sent), 'OUTCOME_UNKNOWN')
    t.equal(await outcome(unsent), 'SESSION_ENDED')
  })
})

// What one user had queued offline was sent in the session of the next one, and ran as theirs.
t.test('never sends what one user queued as another', async t => {
  const { first, session, clock, peer, events } = await createLiveWorld(t)
  const sent = session.send('a')
  first.drop()
  const unsent = session.send('payment.approve')
  await clock.advance(500)
  const second = await peer()
  second.created({ sessionId: 's2', userId: 'bob', previous: { sessionId: 's1', reason: 'unknown' } })
  t.equal(await outcome(sent), 'OUTCOME_UNKNOWN')
  t.equal(await outcome(unsent), 'USER_CHANGED')
  t.strictSame(events('userChanged'), [{ userId: 'bob', previous: 'ann' }])
  t.strictSame(second.sent, [])
})
