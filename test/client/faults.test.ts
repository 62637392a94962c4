// One bad command harms only itself, and everything that comes from the wire is bounded.

import t from 'tap'
import { createLiveWorld, createPage, createWorld, outcome, SESSION, type Frame } from './world.js'

const result = (seq: number, id: number, payload: unknown = `r${id}`): Frame => ({ seq, type: 'result', id, payload })
const badFrame = (id?: number): Frame => ({
  type: 'error',
  code: 'BAD_FRAME',
  payload: 'The frame is malformed.',
  ...(id !== undefined && { id })
})
const gap = (id: number, expected: number): Frame => ({
  type: 'error', code: 'COMMAND_GAP', id, expected, payload: 'gap'
})
const goodbye = (code: number, reason: string, action: string, retryAfterMs?: unknown): Frame =>
  ({ type: 'goodbye', payload: { code, reason, action, retryAfterMs } })

t.test('what is judged is the text that is sent', async t => {
  // The object passed the check, what its `toJSON` made of it did not: the server answered
  // BAD_FRAME eleven times and ended the session, and everything behind it was OUTCOME_UNKNOWN.
  t.test('P-6 rejects a payload whose toJSON gives what the protocol forbids', async t => {
    const { first, session } = await createLiveWorld(t)
    const nest = (depth: number): unknown => JSON.parse('['.repeat(depth) + ']'.repeat(depth))
    const gives = (value: unknown): object => ({ toJSON: () => value })
    for (const payload of [
      gives(JSON.parse('{"__proto__":1}')),
      gives(nest(32)),
      { a: gives(nest(31)) },
      gives({ constructor: { prototype: 1 } })
    ]) {
      t.equal(await outcome(session.send('a', payload as never)), 'BAD_PAYLOAD')
    }
    let asked = 0
    void session.send('b', { toJSON: () => asked++ === 0 ? 'fine' : JSON.parse('{"__proto__":1}') } as never)
    t.strictSame(first.sent, [{ command: 'b', payload: 'fine', id: 1 }], 'it is asked once')
  })

  t.test('P-6 rejects what JSON would change without a word', async t => {
    const { first, session } = await createLiveWorld(t)
    const bad = [NaN, [Infinity], () => 1, { a: Symbol('s') }, { get a () { throw new Error('no') } }]
    for (const payload of bad) t.equal(await outcome(session.send('a', payload as never)), 'BAD_PAYLOAD')
    void session.send('b', { at: new Date(0), none: undefined } as never)
    t.strictSame(first.sent[0]?.payload, { at: '1970-01-01T00:00:00.000Z' })
  })

  t.test('settles calls that no compiler has seen', async t => {
    const { first, session } = await createLiveWorld(t)
    for (const name of [7, null, undefined, {}, ['a'], { toJSON: () => 7 }, Symbol('s')]) {
      t.equal(await outcome(session.send(name as never)), 'BAD_PAYLOAD', String(name))
    }
    t.equal(await outcome(session.send('a', null, { signal: 'soon' } as never)), 'BAD_PAYLOAD')
    void session.send('a', null, null as never)
    t.strictSame(first.ids, [1])
  })

  t.test('P-6 sends lone surrogates as escapes, which are valid UTF-8', async t => {
    const { first, session } = await createLiveWorld(t)
    const text = '\ud800'
    void session.send('a', text)
    t.equal(first.sent[0]?.payload, text)
  })
})

t.test('BAD_FRAME', async t => {
  t.test('P-6 settles the command that it names, and the next takes its number once none is on its way', async t => {
    const { first, session } = await createLiveWorld(t)
    const [a, b, c, d] = ['a', 'b', 'c', 'd'].map(command => session.send(command))
    first.say(badFrame(2))
    t.equal(await outcome(b!), 'BAD_FRAME')
    const e = session.send('e')
    first.say(gap(3, 2))
    t.strictSame(first.ids, [1, 2, 3, 4], 'command 4 is still on its way: 3 would mean two commands')
    first.say(gap(4, 2))
    t.strictSame(first.sent.slice(4).map(({ command, id }) => [command, id]), [['c', 2], ['d', 3], ['e', 4]])
    first.say(result(1, 1), result(2, 2), result(3, 3), result(4, 4))
    t.strictSame(await Promise.all([a, c, d, e].map(promise => outcome(promise!))), ['r1', 'r2', 'r3', 'r4'])
  })

  t.test('P-6 settles several of a pipeline', async t => {
    const { first, session } = await createLiveWorld(t)
    const sent = ['a', 'b', 'c', 'd'].map(command => session.send(command))
    first.say(badFrame(1), gap(2, 1), badFrame(3), gap(4, 1))
    t.strictSame(first.sent.slice(4).map(({ command, id }) => [command, id]), [['b', 1], ['d', 2]])
    first.say(result(1, 1), result(2, 2))
    t.strictSame(await Promise.all(sent.map(outcome)), ['BAD_FRAME', 'r1', 'BAD_FRAME', 'r2'])
  })

  t.test('P-6 gives a freed number away at a resume as well', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    const sent = ['a', 'b', 'c'].map(command => session.send(command))
    first.say(badFrame(2))
    first.drop()
    await clock.advance(500)
    const second = await peer()
    second.resumed({ lastCommand: 1 })
    t.strictSame(second.sent.slice(1).map(({ command, id }) => [command, id]), [['c', 2]])
    t.strictSame(await Promise.all(sent.map(outcome)), ['pending', 'BAD_FRAME', 'pending'])
  })

  t.test('P-10 any other unsequenced error that names a command is for good as well', async t => {
    const { first, session } = await createLiveWorld(t)
    const sent = session.send('a')
    first.say({ type: 'error', code: 'NOT_CARRIED', id: 1, payload: 'The number cannot be carried.' })
    t.equal(await outcome(sent), 'NOT_CARRIED')
    void session.send('b')
    t.strictSame(first.ids, [1, 1])
  })

  // A server of revision 1.0 does not say which: the only command in flight was pending for ever.
  t.test('P-6 finds the one command it can mean by the watermark of a resume', async t => {
    const { first, session, peer } = await createLiveWorld(t)
    const sent = session.send('a')
    first.say(badFrame())
    t.equal(first.closedWith, 4900)
    const second = await peer()
    second.resumed()
    t.equal(await outcome(sent), 'BAD_FRAME')
    void session.send('b')
    t.strictSame(second.ids, [1])
  })

  t.test('P-6 sends the commands it can mean one at a time', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    const [a, b, c] = ['a', 'b', 'c'].map(command => session.send(command))
    first.say(badFrame())
    const second = await peer()
    second.resumed()
    const d = session.send('d')
    t.strictSame(second.sent.slice(1).map(({ command }) => command), ['a'])
    second.say(result(1, 1))
    t.strictSame(second.sent.slice(2).map(({ command }) => command), ['b'])
    second.say(badFrame())
    await clock.advance(500)
    const third = await peer()
    third.resumed({ lastCommand: 1 })
    t.equal(await outcome(b!), 'BAD_FRAME')
    t.strictSame(third.sent.slice(1).map(({ command, id }) => [command, id]), [['c', 2]])
    third.say(result(2, 2))
    t.strictSame(third.sent.slice(2).map(({ command, id }) => [command, id]), [['d', 3]])
    third.say(result(3, 3))
    t.strictSame(await Promise.all([a!, c!, d].map(outcome)), ['r1', 'r2', 'r3'])
  })

  t.test('is told and harms nothing where no command is on its way', async t => {
    const { first, session, events } = await createLiveWorld(t)
    first.say(badFrame())
    t.equal(session.state, 'live')
    t.equal(events('error')[0]?.code, 'BAD_FRAME')
  })
})

t.test('closes that a command has caused', async t => {
  // A gateway with a smaller limit: the same command was sent for ever, and those behind it were
  // never answered.
  t.test('P-49b does not send again the largest of what was on its way when 1009 came', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    const sent = [session.send('a'), session.send('large', 'x'.repeat(800)), session.send('c', 'x'.repeat(700))]
    first.drop(1009)
    await clock.advance(500)
    const second = await peer()
    second.resumed({ lastCommand: 1 })
    t.equal(await outcome(sent[1]!), 'MESSAGE_TOO_LARGE')
    t.strictSame(second.sent.slice(1).map(({ command, id }) => [command, id]), [['c', 2]])
  })

  t.test('P-49b does not blame a command that had been accepted', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    const sent = session.send('a')
    first.drop(1009)
    await clock.advance(500)
    ;(await peer()).resumed({ lastCommand: 1 })
    t.equal(await outcome(sent), 'pending')
  })

  t.test('P-49b remembers what closed the connection while attempts fail', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    const sent = session.send('a')
    first.drop(1009)
    await clock.advance(500)
    ;(await peer()).drop(1006)
    await clock.advance(1_000)
    ;(await peer()).resumed()
    t.equal(await outcome(sent), 'MESSAGE_TOO_LARGE')
  })

  t.test('P-49b does not blame a command for an error of this end', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    const sent = session.send('a')
    first.fail('Max payload size exceeded')
    first.drop(1009)
    await clock.advance(500)
    ;(await peer()).resumed()
    t.equal(await outcome(sent), 'pending')
  })

  for (const code of [1007, 1002]) {
    t.test(`P-49b sends what may have caused ${code} one at a time`, async t => {
      const { first, session, clock, peer } = await createLiveWorld(t)
      const [a, b] = ['a', 'b'].map(command => session.send(command))
      first.drop(code)
      await clock.advance(500)
      const second = await peer()
      second.resumed()
      t.strictSame(second.ids, [1])
      second.drop(code)
      await clock.advance(1_000)
      const third = await peer()
      third.resumed()
      t.equal(await outcome(a!), 'UNDELIVERABLE')
      t.strictSame(third.sent.slice(1).map(({ command, id }) => [command, id]), [['b', 1]])
      third.say(result(1, 1))
      t.equal(await outcome(b!), 'r1')
    })
  }

  t.test('P-49c gives up a command that three connections in a row were lost with', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    const [a] = ['a', 'b'].map(command => session.send(command))
    first.drop(1006)
    for (const wait of [500, 1_000]) {
      await clock.advance(wait)
      const next = await peer()
      next.resumed()
      t.strictSame(next.ids, [1, 2])
      next.drop(1006)
    }
    await clock.advance(2_000)
    const last = await peer()
    last.resumed()
    t.equal(await outcome(a!), 'UNDELIVERABLE')
    t.strictSame(last.sent.slice(1).map(({ command, id }) => [command, id]), [['b', 1]])
  })

  t.test('P-49c counts no connection that brought an answer or that the server closed for its own reasons', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    const sent = session.send('a')
    let next = first
    for (const code of [1006, 4200, 4203, 4103, 4200, 4101]) {
      next.drop(code)
      await clock.advance(30_000)
      next = await peer()
      next.resumed()
    }
    t.equal(await outcome(sent), 'pending')
  })

  t.test('P-50 asks for outputs of a size that it can take', async t => {
    const { peer } = createWorld(t, { maxOutputBytes: 32_768 })
    t.ok((await peer()).protocols.includes('output.32768'))
  })

  t.test('P-50d tells a gap in the place of an output, and goes on behind it', async t => {
    const { first, events, clock } = await createLiveWorld(t)
    first.say({ seq: 1, type: 'gap', payload: { reason: 'too_large', bytes: 99_999 } }, {
      seq: 2, type: 'message', event: 'note', payload: 2
    })
    t.strictSame(events('gap'), [{ from: 1, to: 1, reason: 'too_large' }])
    await clock.advance(200)
    t.strictSame(first.acks, [2])
  })

  t.test('P-55 tells why an output will not come, also in a word that it does not know', async t => {
    const { first, events } = await createLiveWorld(t)
    const payloads = [{ reason: 'not_kept' }, { reason: 'eaten_by_a_fox' }, null]
    first.say(...payloads.map((payload, i) => ({ seq: i + 1, type: 'gap', payload })))
    t.strictSame(events('gap'), [
      { from: 1, to: 1, reason: 'not_kept' }, { from: 2, to: 2, reason: 'eaten_by_a_fox' },
      { from: 3, to: 3, reason: undefined }
    ])
  })
})

t.test('numbers of the wire', async t => {
  // `retryAfterMs: -1e9` made thousands of attempts a minute.
  t.test('P-53b takes retryAfterMs for what lies between 0 and one hour', async t => {
    for (const [given, expected] of [
      [-1e9, 250], [1e12, 3_600_250], [1_000, 1_250], ['soon', 250], [null, 250]
    ] as const) {
      const { first, events } = await createLiveWorld(t)
      first.say(goodbye(4104, 'overloaded', 'resume_later', given))
      t.equal(events('detached')[0]?.retryInMs, expected, String(given))
    }
  })

  t.test('P-16 waits after a refusal whose time makes no sense', async t => {
    const { first, session, clock } = await createLiveWorld(t)
    void session.send('a')
    first.say({ type: 'error', code: 'RATE_LIMITED', id: 1, retryAfterMs: -5, payload: 'no' })
    await clock.advance(499)
    t.strictSame(first.ids, [1])
    await clock.advance(1)
    t.strictSame(first.ids, [1, 1])
  })

  t.test('P-43 keeps watch where the heartbeat makes no sense', async t => {
    for (const heartbeatMs of [-1, 0, 'often', 1e12]) {
      const { first, session, clock } = await createLiveWorld(t, {}, { heartbeatMs })
      await clock.advance(15_000)
      t.equal(session.state, 'live')
      await clock.advance(610_000)
      t.not(session.state, 'live', String(heartbeatMs))
      t.equal(first.closedWith, 4900)
    }
  })
})

t.test('refused logins', async t => {
  t.test('P-53a ends when a token that is always the same is refused', async t => {
    const { session, peer, events, clock } = createWorld(t, { token: 'a.b.c' })
    const sent = session.send('a')
    ;(await peer()).say(goodbye(4401, 'unauthenticated', 'stop'))
    t.strictSame(events('ended'), [{ sessionId: undefined, reason: 'unauthenticated', renewing: false }])
    t.equal(await outcome(sent), 'SESSION_ENDED')
    t.strictSame(clock.pending(), [])
  })

  for (const [code, reason] of [[4401, 'unauthenticated'], [4403, 'forbidden']] as const) {
    t.test(`P-53a tries once more with fresh credentials after ${code}, and says why`, async t => {
      const { peer, events, clock, peers } = createWorld(t, { token: () => 'a.b.c' })
      ;(await peer()).say(goodbye(code, reason, 'stop'))
      t.match(events('detached'), [{ code, reason, retryInMs: 250 }])
      await clock.advance(500)
      ;(await peer()).say(goodbye(code, reason, 'stop'))
      t.match(events('ended'), [{ reason, renewing: false }])
      await clock.advance(60_000)
      t.equal(peers.length, 2)
    })
  }

  t.test('P-53a reads the status in the words of `ws`', async t => {
    for (const [status, reason, state] of [
      [401, 'unauthenticated', 'ended'], [403, 'forbidden', 'ended'], [400, 'refused', 'ended'],
      [426, 'refused', 'ended'], [503, 'refused', 'detached'], [502, 'refused', 'detached']
    ] as const) {
      const { session, peer, heard } = createWorld(t, { token: 'a.b.c' })
      const first = await peer()
      first.fail(`Unexpected server response: ${status}`)
      first.drop()
      t.equal(session.state, state, String(status))
      t.match(heard.at(-1)?.[1], { reason }, String(status))
    }
  })

  t.test('P-53a keeps what is saved, so that the next login goes on', async t => {
    let saved: unknown
    const persistence = {
      load: () => saved as never,
      save: (state: unknown) => { saved = state },
      clear: () => { saved = undefined }
    }
    const { first, clock, peer } = await createLiveWorld(t, { token: 'a.b.c', persistence })
    first.drop(4202)
    await clock.advance(500)
    ;(await peer()).say(goodbye(4401, 'unauthenticated', 'stop'))
    t.match(saved, { sessionId: 's1', resumeToken: 't1' })
    t.equal((await createWorld(t, { persistence }).peer()).resume, 's1.t1.0')
  })

  t.test('P-3 carries any token', async t => {
    const entries = async (token: string): Promise<string | undefined> => (await createWorld(
      t, { token }
    ).peer()).protocols[1]
    const base64 = (token: string): string => Buffer.from(token).toString('base64url')
    t.equal(await entries('v1.abc/def'), `auth64.${base64('v1.abc/def')}`)
    t.equal(await entries('ü.x'), `auth64.${base64('ü.x')}`)
    t.equal(await entries('opaque'), `auth.${base64('opaque')}`)
    t.equal(await entries('aa.bb.cc-_'), 'auth.aa.bb.cc-_')
  })
})

t.test('limits that are not named do not bind', async t => {
  const { first, session } = await createLiveWorld(t, {}, { limits: undefined })
  void session.send('a')
  t.strictSame(first.ids, [1])
})

t.test('timeoutMs of the options holds for commands that name none', async t => {
  const { session, clock } = createWorld(t, { timeoutMs: 100 })
  const [a, b] = [session.send('a'), session.send('b', null, { timeoutMs: 300 })]
  await clock.advance(100)
  t.strictSame(await Promise.all([a, b].map(outcome)), ['TIMEOUT', 'pending'])
})

t.test('P-38 leaves nothing at the server when it goes during the handshake', async t => {
  t.test('close() waits for the session, and ends it', async t => {
    const { session, peer, clock } = createWorld(t)
    const first = await peer()
    session.close()
    t.equal(session.state, 'ended')
    t.equal(first.closedWith, undefined)
    first.created()
    t.strictSame(first.sent, [{ type: 'end' }])
    t.equal(first.closedWith, 1000)
    t.strictSame(clock.pending(), [])
  })

  t.test('dispose() ends a session that nobody would know, and keeps one that is resumed', async t => {
    const fresh = createWorld(t)
    const first = await fresh.peer()
    fresh.session.dispose()
    first.created()
    t.strictSame(first.sent, [{ type: 'end' }])
    const { first: before, session, clock, peer } = await createLiveWorld(t)
    before.drop()
    await clock.advance(500)
    const second = await peer()
    session.dispose()
    second.say({ type: 'session_resumed', payload: { ...SESSION, lastCommand: 0, replay: null, gap: null } })
    t.strictSame(second.sent, [])
    t.equal(second.closedWith, 4900)
  })

  t.test('does not wait for long', async t => {
    const { session, peer, clock } = createWorld(t)
    const first = await peer()
    session.close()
    await clock.advance(10_000)
    t.equal(first.closedWith, 1000)
    t.strictSame(clock.pending(), [])
    const other = createWorld(t)
    const second = await other.peer()
    other.session.close()
    second.drop()
    t.strictSame(other.clock.pending(), [])
  })
})

t.test('an aborted command is neither sent again nor told as an orphan after a reload', async t => {
  const page = createPage()
  const abort = new AbortController()
  const { first, session } = await createLiveWorld(t, { page })
  void session.send('a', null, { signal: abort.signal })
  void session.send('b', null, { signal: abort.signal })
  abort.abort()
  page.fire('pagehide')
  t.strictSame(first.ids, [1, 2])
  const next = createWorld(
    t,
    { page: createPage(new Map([['holdfast:ws://test/ws', page.sessionStorage!.getItem('holdfast:ws://test/ws')!]])) }
  )
  const second = await next.peer()
  second.resumed({ lastCommand: 1 }, [result(1, 1)])
  void next.session.send('c')
  t.strictSame(second.sent.filter(frame => 'command' in frame), [{ command: 'c', id: 2 }])
  t.strictSame(next.events('orphanResult'), [])
})
