// The client against a scripted peer: handshake, outputs and acks, losses and what follows them.

import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import t from 'tap'
import type { Frame } from './world.js'
import { createClock, createLiveWorld, createPage, createWorld, outcome, SESSION } from './world.js'

const message = (seq: number, payload: unknown = seq): Frame => ({ seq, type: 'message', event: 'note', payload })

t.test('handshake', async t => {
  t.test('P-2 offers the full profile and, without a session, nothing else', async t => {
    const { peer, session } = createWorld(t)
    t.equal(session.state, 'connecting')
    t.strictSame((await peer()).protocols, ['holdfast.v1', 'refuse.goodbye'])
  })

  t.test('P-3 sends a JWT as it is', async t => {
    const { peer } = createWorld(t, { token: 'aa.bb-_.cc' })
    t.strictSame((await peer()).protocols, ['holdfast.v1', 'auth.aa.bb-_.cc', 'refuse.goodbye'])
  })

  t.test('P-3 sends any other token as base64url of its UTF-8 bytes', async t => {
    const { peer } = createWorld(t, { token: 'schlüssel~~~?>' })
    const [, entry] = (await peer()).protocols
    t.equal(entry, `auth.${Buffer.from('schlüssel~~~?>').toString('base64url')}`)
  })

  t.test('P-29 asks for fresh credentials before every attempt', async t => {
    let count = 0
    const { first, peer, clock, peers } = await createLiveWorld(t, { token: async () => `a.${++count}.c` })
    first.drop()
    await clock.advance(500)
    t.strictSame((await peer()).protocols[1], 'auth.a.2.c')
    t.equal(peers.length, 2)
  })

  t.test('reports credentials that cannot be had, and tries again', async t => {
    let count = 0
    const { clock, peers, events } = createWorld(
      t, { token: () => { if (++count === 1) throw new Error('no'); return 'a.b.c' } }
    )
    await clock.advance(0)
    t.equal(peers.length, 0)
    t.equal(events('error')[0]?.code, 'TOKEN_FAILED')
    await clock.advance(500)
    t.equal(peers.length, 1)
  })

  t.test('ends when no socket can be made of the address', async t => {
    const { clock, events, session } = createWorld(
      t, { WebSocket: class { constructor () { throw new SyntaxError('bad url') } } as never }
    )
    await clock.advance(0)
    t.equal(events('error')[0]?.code, 'HANDSHAKE_INVALID')
    t.equal(session.state, 'ended')
    t.strictSame(clock.pending(), [])
  })

  t.test('P-27 offers the session, its token and the highest seq', async t => {
    const { first, clock, peer } = await createLiveWorld(t)
    first.say(message(1), message(2))
    first.drop()
    await clock.advance(500)
    t.equal((await peer()).resume, 's1.t1.2')
  })

  t.test('P-28 offers the presented token again when no answer came, and the new one after it did', async t => {
    const { first, clock, peer } = await createLiveWorld(t)
    first.drop()
    await clock.advance(500)
    const second = await peer()
    second.drop()
    await clock.advance(1_000)
    const third = await peer()
    t.equal(third.resume, 's1.t1.0')
    third.resumed({ resumeToken: 'fresh' })
    third.drop()
    await clock.advance(2_000)
    t.equal((await peer()).resume, 's1.fresh.0')
  })

  t.test('P-28 confirms a resume with a frame', async t => {
    const { first, clock, peer } = await createLiveWorld(t)
    first.drop()
    await clock.advance(500)
    const second = await peer()
    second.resumed()
    t.strictSame(second.sent, [{ type: 'ack', seq: 0 }])
  })
})

t.test('outputs', async t => {
  t.test('delivers messages by event, and all of them to the general handler', async t => {
    const { first, session, events } = await createLiveWorld(t)
    const notes: unknown[] = []
    const off = session.onMessage('note', (payload, seq) => notes.push([payload, seq]))
    first.say(message(1, 'a'), { seq: 2, type: 'message', event: 'other', payload: 'b' })
    off()
    first.say(message(3, 'c'))
    t.strictSame(notes, [['a', 1]])
    t.strictSame(
      events('message').map(({ event, payload, seq }) => [event, payload, seq]),
      [['note', 'a', 1], ['other', 'b', 2], ['note', 'c', 3]]
    )
  })

  t.test('P-20 drops repeats', async t => {
    const { first, events } = await createLiveWorld(t)
    first.say(message(1), message(1), message(2), message(1))
    t.strictSame(events('message').map(({ seq }) => seq), [1, 2])
  })

  t.test('P-20 takes a jump on a live connection for a loss, and resumes', async t => {
    const { first, clock, peer, events } = await createLiveWorld(t)
    first.say(message(1), message(3))
    t.equal(first.closedWith, 4900)
    first.say(message(2))
    t.strictSame(events('message').map(({ seq }) => seq), [1])
    await clock.advance(500)
    t.equal((await peer()).resume, 's1.t1.1')
  })

  t.test('P-30 delivers the replay before it is live', async t => {
    const { first, clock, peer, heard } = await createLiveWorld(t)
    first.drop()
    await clock.advance(500)
    heard.length = 0
    const second = await peer()
    second.resumed({ replay: { from: 1, to: 2 } }, [message(1), message(2)])
    second.say(message(3))
    t.strictSame(heard.map(([type]) => type), ['resumed', 'message', 'message', 'live', 'message'])
  })

  t.test('P-32 tells a gap, and goes on behind it', async t => {
    const { first, clock, peer, events } = await createLiveWorld(t)
    first.say(message(1))
    first.drop()
    await clock.advance(500)
    const second = await peer()
    second.resumed({ gap: { from: 2, to: 5 }, replay: { from: 6, to: 6 } }, [message(6)])
    t.strictSame(events('gap'), [{ from: 2, to: 5 }])
    t.strictSame(events('message').map(({ seq }) => seq), [1, 6])
    t.strictSame(second.acks, [6])
  })

  t.test('ignores frames and members it does not know', async t => {
    const { first, session } = await createLiveWorld(t)
    first.say({ type: 'weather', payload: 'fine' }, { type: 'ping', extra: 1 }, { seq: 1, type: 'picture' })
    t.equal(session.state, 'live')
    first.say(message(2))
    t.equal(session.state, 'live')
  })

  t.test('drops a connection that says what is no frame', async t => {
    for (const text of ['{', '{"type":"goodbye"}', '{"type":"session_resumed"}']) {
      const { first, session } = await createLiveWorld(t)
      first.say(text)
      t.equal(session.state, 'detached', text)
      t.equal(first.closedWith, 4900)
    }
  })

  t.test('P-21 acknowledges at once after 32 outputs', async t => {
    const { first } = await createLiveWorld(t)
    for (let seq = 1; seq <= 31; seq++) first.say(message(seq))
    t.strictSame(first.acks, [])
    first.say(message(32))
    t.strictSame(first.acks, [32])
  })

  t.test('P-21 acknowledges fewer outputs together after 200 ms', async t => {
    const { first, clock } = await createLiveWorld(t)
    first.say(message(1))
    await clock.advance(150)
    first.say(message(2))
    await clock.advance(49)
    t.strictSame(first.acks, [])
    await clock.advance(1)
    t.strictSame(first.acks, [2])
  })

  t.test('P-43 answers a ping with an ack, also with none new', async t => {
    const { first } = await createLiveWorld(t)
    first.say({ type: 'ping' }, message(1), { type: 'ping' }, { type: 'ping' })
    t.strictSame(first.acks, [0, 1, 1])
  })

  t.test('P-21 lets the next command take the ack along', async t => {
    const { first, session, clock } = await createLiveWorld(t)
    first.say(message(1), message(2))
    void session.send('a')
    void session.send('b')
    await clock.advance(1_000)
    t.strictSame(first.sent, [{ command: 'a', id: 1, ack: 2 }, { command: 'b', id: 2 }])
  })

  t.test('P-21 acknowledges an output only once its handlers have returned', async t => {
    const { first, session, clock } = await createLiveWorld(t)
    session.onMessage('note', () => { void session.send('inside') })
    first.say(message(1))
    t.strictSame(first.sent, [{ command: 'inside', id: 1 }])
    await clock.advance(200)
    t.strictSame(first.acks, [1])
  })

  t.test('goes on when a handler throws, and tells it', async t => {
    const { first, session, events } = await createLiveWorld(t)
    session.on('error', () => { throw new Error('again') })
    session.onMessage('note', () => { throw new Error('oops') })
    first.say(message(1), message(2))
    t.strictSame(events('error').map(({ code }) => code), ['HANDLER_FAILED', 'HANDLER_FAILED'])
    first.say({ type: 'ping' })
    t.strictSame(first.acks, [2])
  })

  t.test('hears no more when a handler closes the session', async t => {
    const { first, session, events, clock } = await createLiveWorld(t)
    session.onMessage('note', () => session.close())
    first.say(message(1), message(2))
    t.equal(events('message').length, 1)
    t.strictSame(clock.pending(), [])
  })
})

t.test('losses', async t => {
  t.test('P-43 gives up a connection that is silent for its heartbeat and 10 s', async t => {
    const { first, clock, session } = await createLiveWorld(t)
    await clock.advance(30_000)
    first.say({ type: 'ping' })
    await clock.advance(34_999)
    t.equal(session.state, 'live')
    await clock.advance(1)
    t.equal(session.state, 'detached')
    t.equal(first.closedWith, 4900)
  })

  t.test('gives up an attempt that nothing comes of', async t => {
    const { clock, peers } = createWorld(t)
    await clock.advance(20_000)
    t.equal(peers[0]?.closedWith, 4900)
    await clock.advance(500)
    t.equal(peers.length, 2)
  })

  t.test('takes a dead socket down without a closing handshake where it can', async t => {
    const { first, clock } = await createLiveWorld(t)
    Object.assign(first, { terminate: () => { first.terminated = true } })
    await clock.advance(35_000)
    t.equal(first.terminated, true)
  })

  t.test('backs off with full jitter from 500 ms to 30 s', async t => {
    const { clock, peers, events } = createWorld(t, {}, createClock(() => 0.999))
    for (let attempt = 0; attempt < 9; attempt++) {
      await clock.advance(0)
      peers.at(-1)!.drop()
      await clock.step()
    }
    t.strictSame(
      events('detached').map(({ retryInMs }) => Math.round(retryInMs! / 0.999)),
      [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]
    )
    t.strictSame(events('connecting').map(({ attempt }) => attempt).slice(0, 3), [0, 1, 2])
  })

  t.test('starts the back-off afresh after 5 s of being live', async t => {
    const { first, clock, peer, events } = await createLiveWorld(t)
    first.drop()
    await clock.advance(500)
    const second = await peer()
    second.resumed()
    await clock.advance(4_000)
    second.drop()
    await clock.advance(1_000)
    const third = await peer()
    third.resumed()
    await clock.advance(5_000)
    third.drop()
    t.strictSame(events('detached').map(({ retryInMs }) => retryInMs), [250, 500, 250])
  })

  t.test('does not hold a long outage against the connection that ended it', async t => {
    const { clock, peers, peer, events } = createWorld(t)
    for (let attempt = 0; attempt < 8; attempt++) {
      await clock.advance(0)
      peers.at(-1)!.drop()
      await clock.step()
    }
    const up = await peer()
    up.created()
    up.drop(4200, 'draining')
    t.equal(events('detached').at(-1)?.retryInMs, 0)
  })

  t.test('gives up after maxAttempts without an answer, and tells what the socket said', async t => {
    const { clock, peers, events, session } = createWorld(t, { maxAttempts: 2 })
    const sent = session.send('a')
    await clock.advance(0)
    peers[0]!.fail('Unexpected server response: 503')
    peers[0]!.drop()
    t.match(events('detached')[0], { reason: 'refused', message: 'Unexpected server response: 503' })
    await clock.advance(500)
    peers[1]!.drop()
    t.strictSame(events('ended'), [{ sessionId: undefined, reason: 'unreachable', renewing: false }])
    t.equal(await outcome(sent), 'SESSION_ENDED')
    t.strictSame(clock.pending(), [])
  })

  t.test('P-42 follows goodbye without waiting for the close', async t => {
    const { first, clock, peers } = await createLiveWorld(t)
    first.say({ type: 'goodbye', payload: { code: 4200, reason: 'draining', action: 'resume', retryAfterMs: 700 } })
    first.drop(4001)
    t.equal(first.closedWith, 4900)
    await clock.advance(699)
    t.equal(peers.length, 1)
    await clock.advance(1)
    t.equal(peers.length, 2)
  })

  t.test('P-49 obeys the hundreds digit, also of codes it does not know', async t => {
    for (const [code, state, delay] of [
      [4299, 'detached', 0], [4199, 'detached', 250], [1006, 'detached', 250], [1009, 'detached', 250],
      [1000, 'detached', 250], [4099, 'ended', null], [4499, 'ended', null]
    ] as const) {
      const { first, session, events } = await createLiveWorld(t)
      first.drop(code)
      t.equal(session.state, state, String(code))
      t.equal(events('detached')[0]?.retryInMs ?? null, delay, String(code))
    }
  })

  t.test('P-49 does not believe `resume now` again and again', async t => {
    const { first, clock, peer, events } = await createLiveWorld(t)
    first.drop(4203)
    const second = await peer()
    second.resumed()
    second.drop(4203)
    await clock.advance(500)
    t.strictSame(events('detached').map(({ retryInMs }) => retryInMs), [0, 500])
  })

  t.test('P-41 stops when the operator ends the session', async t => {
    const { first, session, events, clock } = await createLiveWorld(t)
    const sent = session.send('a')
    first.say({ type: 'goodbye', payload: { code: 4001, reason: 'ended_by_operator', action: 'stop' } })
    t.strictSame(events('ended'), [{ sessionId: 's1', reason: 'ended_by_operator', renewing: false }])
    t.equal(await outcome(sent), 'OUTCOME_UNKNOWN')
    t.equal(await outcome(session.send('b')), 'SESSION_ENDED')
    t.strictSame(clock.pending(), [])
  })

  t.test('P-35 stops when another connection took over', async t => {
    const { first, session, events, peers, clock } = await createLiveWorld(t)
    first.drop(4003, 'replaced')
    await clock.advance(60_000)
    t.strictSame(events('replaced'), [{ sessionId: 's1' }])
    t.strictSame(events('ended'), [])
    t.equal(session.state, 'ended')
    t.equal(peers.length, 1)
  })

  t.test('P-40 starts a new session after an idle end', async t => {
    const { first, peer, events, session } = await createLiveWorld(t)
    first.say({ type: 'goodbye', payload: { code: 4300, reason: 'idle', action: 'new' } })
    t.strictSame(events('ended'), [{ sessionId: 's1', reason: 'idle', renewing: true }])
    const second = await peer()
    t.equal(second.resume, 's1.t1.0', 'the old session is offered, since only then its lastCommand is told')
    second.created({ sessionId: 's2', previous: { sessionId: 's1', reason: 'idle', lastCommand: 0 } })
    t.equal(session.sessionId, 's2')
    t.equal(events('ended').length, 1)
    second.say(message(1))
    t.equal(events('message').length, 1, 'seqs start again')
  })

  t.test('ends instead of renewing when told so', async t => {
    const { first, events, peers, clock } = await createLiveWorld(t, { renew: false })
    first.drop(4300, 'idle')
    await clock.advance(60_000)
    t.strictSame(events('ended'), [{ sessionId: 's1', reason: 'idle', renewing: false }])
    t.equal(peers.length, 1)
  })

  t.test('P-33 ends a session that it did not want when told not to renew', async t => {
    const { first, events, peer, session, clock } = await createLiveWorld(t, { renew: false })
    first.drop()
    await clock.advance(500)
    const second = await peer()
    second.created({ sessionId: 's2', previous: { sessionId: 's1', reason: 'resume_window', lastCommand: 0 } })
    t.equal(second.closedWith, 1000)
    t.strictSame(events('ended'), [{ sessionId: 's1', reason: 'resume_window', renewing: false }])
    t.equal(session.state, 'ended')
  })

  t.test('P-36 starts a new session after every loss where nothing can be resumed', async t => {
    const { first, events, peer, clock, session } = await createLiveWorld(
      t, {}, { resumeToken: null, resumeWindowMs: 0 }
    )
    const sent = session.send('a')
    first.drop()
    await clock.advance(500)
    const second = await peer()
    t.equal(second.resume, undefined)
    second.created({ sessionId: 's2' })
    t.equal(await outcome(sent), 'OUTCOME_UNKNOWN')
    t.equal(events('ended')[0]?.sessionId, 's1')
  })
})

t.test('life', async t => {
  t.test('tells states in order', async t => {
    const { session, peer, clock } = createWorld(t)
    const states: string[] = []
    session.on('state', ({ state }) => states.push(state))
    const first = await peer()
    first.created()
    first.drop()
    await clock.advance(500)
    ;(await peer()).resumed()
    session.close()
    t.strictSame(states, ['live', 'detached', 'connecting', 'live', 'ended'])
  })

  t.test('P-38 closes with an end frame and 1000', async t => {
    const { first, session, events, clock } = await createLiveWorld(t)
    session.close()
    session.close()
    t.strictSame(first.sent, [{ type: 'end' }])
    t.equal(first.closedWith, 1000)
    t.strictSame(events('ended'), [{ sessionId: 's1', reason: 'ended_by_client', renewing: false }])
    t.strictSame(clock.pending(), [])
  })

  t.test('closes before anything has happened', async t => {
    const { session, clock, peers } = createWorld(t)
    session.close()
    await clock.advance(60_000)
    t.equal(peers.length, 0)
    t.strictSame(clock.pending(), [])
  })

  t.test('closes while credentials are awaited', async t => {
    const { session, clock, peers } = createWorld(
      t, { token: () => new Promise(resolve => clock.setTimeout(() => resolve('a.b.c'), 100)) }, createClock()
    )
    await clock.advance(50)
    session.close()
    await clock.advance(100)
    t.equal(peers.length, 0)
    t.strictSame(clock.pending(), [])
  })

  t.test('P-39 detaches, keeps commands, and connects again', async t => {
    const { first, session, events, clock, peer, peers } = await createLiveWorld(t)
    session.detach()
    t.equal(first.closedWith, 4900)
    t.equal(events('detached')[0]?.retryInMs, null)
    t.strictSame(clock.pending(), [])
    const sent = session.send('a')
    await clock.advance(60_000)
    t.equal(peers.length, 1)
    session.connect()
    const second = await peer()
    t.equal(second.resume, 's1.t1.0')
    second.resumed()
    second.say({ seq: 1, type: 'result', id: 1, payload: 'done' })
    t.equal(await outcome(sent), 'done')
  })

  t.test('detaches while waiting for the next attempt', async t => {
    const { first, session, clock } = await createLiveWorld(t)
    first.drop()
    session.detach()
    t.strictSame(clock.pending(), [])
  })

  t.test('connects at once instead of waiting', async t => {
    const { first, session, peer, peers } = await createLiveWorld(t)
    first.drop()
    session.connect()
    session.connect()
    await peer()
    t.equal(peers.length, 2)
  })

  t.test('may be told what to do by its own events', async t => {
    const { first, session, peer, clock, events } = await createLiveWorld(t)
    const off = session.on('state', ({ state }) => { if (state === 'detached') session.connect() })
    first.drop(4300, 'idle')
    off()
    t.equal(session.state, 'connecting')
    t.equal(events('detached').length, 1, 'what happened is told all the same, in order')
    t.equal(events('ended').length, 1)
    const second = await peer()
    second.resumed()
    session.on('ended', () => session.detach())
    second.drop()
    await clock.advance(1_000)
    const third = await peer()
    third.created({ sessionId: 's2' })
    t.equal(third.closedWith, 4900)
    t.equal(session.state, 'detached')
    session.on('connecting', () => session.close())
    session.connect()
    await clock.advance(0)
    t.equal(session.state, 'ended')
    t.strictSame(clock.pending(), [])
  })

  t.test('a misspelt option is thrown, and named', async t => {
    const { connect } = await import('../../src/client/client.js')
    // The session was saved in the tab although that had been switched off.
    t.throws(() => connect('ws://test/ws', { WebSocket: class {}, persistance: false } as object), {
      name: 'TypeError', message: /persistance is not an option of connect/
    })
  })

  t.test('needs a WebSocket', async t => {
    const { connect } = await import('../../src/client/client.js')
    const given = Object.getOwnPropertyDescriptor(globalThis, 'WebSocket')
    Object.defineProperty(globalThis, 'WebSocket', { value: undefined, configurable: true, writable: true })
    t.teardown(() => given
      ? Object.defineProperty(globalThis, 'WebSocket', given)
      : delete (globalThis as { WebSocket?: unknown }).WebSocket)
    t.throws(() => connect('ws://test/ws'), TypeError)
  })
})

t.test('page', async t => {
  // `navigator.onLine` is stuck at false on some systems: no attempt was ever made, though
  // `retryInMs` had promised one.
  t.test('attempts more slowly while the page says it is offline, and at once when online again', async t => {
    const page = createPage()
    const { first, clock, peers, peer, events } = await createLiveWorld(t, { page, persistence: false })
    page.state.onLine = false
    first.drop()
    t.match(events('detached'), [{ reason: 'offline', retryInMs: 5_000 }])
    await clock.advance(4_999)
    t.equal(peers.length, 1)
    await clock.advance(1)
    t.equal(peers.length, 2)
    peers[1]!.drop()
    page.state.onLine = true
    page.fire('online')
    await peer()
    t.equal(peers.length, 3)
  })

  t.test('tries at once when the page is seen again', async t => {
    const page = createPage()
    const { first, clock, peers, peer } = await createLiveWorld(t, { page, persistence: false })
    first.drop()
    page.state.visible = 'hidden'
    page.fire('visibilitychange')
    await clock.advance(0)
    t.equal(peers.length, 1)
    page.state.visible = 'visible'
    page.fire('visibilitychange')
    await peer()
    t.equal(peers.length, 2)
  })

  t.test('does not come before the time the server named, nor when detached', async t => {
    const page = createPage()
    const { first, clock, peers, session } = await createLiveWorld(t, { page, persistence: false })
    first.say({
      type: 'goodbye',
      payload: { code: 4104, reason: 'overloaded', action: 'resume_later', retryAfterMs: 5_000 }
    })
    page.fire('online')
    await clock.advance(4_999)
    t.equal(peers.length, 1)
    await clock.advance(1)
    t.equal(peers.length, 2)
    session.detach()
    page.fire('online')
    await clock.advance(60_000)
    t.equal(peers.length, 2)
  })

  t.test('leaves no listeners behind', async t => {
    const page = createPage()
    const { session } = await createLiveWorld(t, { page })
    t.not(page.listeners(), 0)
    session.close()
    t.equal(page.listeners(), 0)
  })
})

t.test('persistence', async t => {
  /** What a page leaves behind: it hides, its locks go, and nobody hears its sockets. */
  const unload = (page: ReturnType<typeof createPage>): void => page.fire('pagehide')

  t.test('a reload resumes, sends unanswered commands again under their ids, and tells their results', async t => {
    const storage = new Map<string, string>()
    const locks = new Set<string>()
    const before = createPage(storage, locks)
    const old = await createLiveWorld(t, { page: before })
    void old.session.send('a', 1)
    void old.session.send('b', 2)
    old.first.say({ seq: 1, type: 'result', id: 1, payload: 'one' })
    unload(before)

    const { peer, session, events } = createWorld(t, { page: createPage(storage, locks) })
    const second = await peer()
    t.equal(second.resume, 's1.t1.1')
    second.resumed({ lastCommand: 1 })
    t.strictSame(second.sent.slice(1), [{ command: 'b', payload: 2, id: 2 }])
    void session.send('c')
    t.strictSame(second.ids, [2, 3])
    second.say({ seq: 2, type: 'result', id: 2, payload: 'two' })
    t.strictSame(events('orphanResult'), [{ id: 2, command: 'b', payload: 'two' }])
  })

  t.test('P-12 asks again for commands that were accepted before a reload', async t => {
    const storage = new Map<string, string>()
    const before = createPage(storage)
    const old = await createLiveWorld(t, { page: before })
    void old.session.send('a')
    unload(before)
    const { peer, events } = createWorld(t, { page: createPage(storage) })
    const second = await peer()
    second.resumed({ lastCommand: 1 })
    t.strictSame(second.ids, [1])
    second.say({ type: 'error', code: 'RESULT_EXPIRED', id: 1, payload: 'gone' })
    t.equal(events('orphanResult')[0]?.error?.code, 'RESULT_EXPIRED')
  })

  t.test('numbers new commands behind the watermark, whatever was saved', async t => {
    const storage = new Map([[
      'holdfast:ws://test/ws', JSON.stringify({ sessionId: 's1', resumeToken: 't1', lastSeq: 0, commands: [] })
    ]])
    const { peer, session } = createWorld(t, { page: createPage(storage) })
    const first = await peer()
    first.resumed({ lastCommand: 7 })
    void session.send('a')
    t.strictSame(first.ids, [8])
  })

  t.test('P-33 tells the fate of restored commands of a lost session', async t => {
    const commands = [{ id: 1, command: 'a', body: '{"command":"a"' }, { id: 2, command: 'b', body: '{"command":"b"' }]
    const storage = new Map([[
      'holdfast:ws://test/ws', JSON.stringify({ sessionId: 's1', resumeToken: 't1', lastSeq: 0, commands })
    ]])
    const { peer, events } = createWorld(t, { page: createPage(storage) })
    const first = await peer()
    first.created({ sessionId: 's2', previous: { sessionId: 's1', reason: 'idle', lastCommand: 1 } })
    t.strictSame(events('orphanResult').map(({ id, error }) => [id, error?.code]), [[1, 'OUTCOME_UNKNOWN']])
    t.strictSame(first.sent, [{ command: 'b', id: 1 }])
  })

  t.test('P-21 saves what it acknowledges before it does', async t => {
    const order: unknown[] = []
    const { peer } = createWorld(
      t,
      { persistence: { load: () => null, save: ({ lastSeq }) => { order.push(['saved', lastSeq]) }, clear: () => {} } }
    )
    const first = await peer()
    Object.assign(first, { send: (data: string) => order.push((JSON.parse(data) as Frame).seq) })
    first.created()
    first.say(message(1), { type: 'ping' })
    t.strictSame(order, [['saved', 0], ['saved', 1], 1])
  })

  t.test('P-28 saves a new resume token before the first frame', async t => {
    const storage = new Map<string, string>()
    const { first, clock, peer } = await createLiveWorld(t, { page: createPage(storage) })
    first.drop()
    await clock.advance(500)
    const second = await peer()
    let saved: unknown
    Object.assign(second, { send: () => { saved ??= JSON.parse([...storage.values()][0]!).resumeToken } })
    second.resumed({ resumeToken: 'fresh' })
    t.equal(saved, 'fresh')
  })

  t.test('a duplicated tab gets a session of its own, and the tab it was made of is left alone', async t => {
    const locks = new Set<string>()
    const storage = new Map<string, string>()
    const original = await createLiveWorld(t, { page: createPage(storage, locks) })
    const copy = createWorld(t, { page: createPage(new Map(storage), locks) })
    await copy.clock.advance(150)
    const peer = await copy.peer()
    t.equal(peer.resume, undefined)
    peer.created({ sessionId: 's2' })
    t.equal(original.session.state, 'live')
    await copy.clock.advance(0)
    t.strictSame([...locks], ['holdfast.s1', 'holdfast.s2'])
  })

  t.test('a reload waits a moment for the lock of the page before it', async t => {
    const locks = new Set(['holdfast.s1'])
    const storage = new Map([[
      'holdfast:ws://test/ws', JSON.stringify({ sessionId: 's1', resumeToken: 't1', lastSeq: 4, commands: [] })
    ]])
    const { clock, peer } = createWorld(t, { page: createPage(storage, locks) })
    await clock.advance(100)
    locks.clear()
    await clock.advance(50)
    t.equal((await peer()).resume, 's1.t1.4')
  })

  t.test('lets go of lock and storage at the end', async t => {
    const locks = new Set<string>()
    const storage = new Map<string, string>()
    const { session, clock } = await createLiveWorld(t, { page: createPage(storage, locks) })
    t.equal(storage.size, 1)
    await clock.advance(0)
    session.close()
    await clock.advance(0)
    t.equal(storage.size, 0)
    t.equal(locks.size, 0)
  })

  t.test('P-35 forgets what this tab saved of a session that was taken over', async t => {
    const storage = new Map<string, string>()
    const { first } = await createLiveWorld(t, { page: createPage(storage) })
    first.drop(4003, 'replaced')
    t.equal(storage.size, 0)
  })

  t.test('P-35 leaves a shared storage to the connection that took over', async t => {
    const cleared: string[] = []
    const { first } = await createLiveWorld(
      t, { persistence: { isShared: true, load: () => null, save: () => {}, clear: () => { cleared.push('cleared') } } }
    )
    first.drop(4003, 'replaced')
    t.strictSame(cleared, [])
  })

  t.test('keeps no lock that is granted after the end', async t => {
    const locks = new Set<string>()
    const { session, clock } = await createLiveWorld(t, { page: createPage(new Map(), locks) })
    session.close()
    await clock.advance(0)
    t.equal(locks.size, 0)
  })

  t.test('works without locks, and where they fail', async t => {
    const storage = new Map([[
      'holdfast:ws://test/ws', JSON.stringify({ sessionId: 's1', resumeToken: 't1', lastSeq: 4, commands: [] })
    ]])
    for (const navigator of [undefined, { locks: { request: async () => { throw new Error('SecurityError') } } }]) {
      const { peer } = createWorld(t, { page: { ...createPage(new Map(storage)), navigator } as never })
      t.equal((await peer()).resume, 's1.t1.4')
    }
  })

  t.test('starts anew when what was saved makes no sense', async t => {
    for (const text of [
      'nonsense',
      '{}',
      '{"sessionId":"s1","resumeToken":"t1","lastSeq":"4","commands":[]}',
      '{"sessionId":"s1","resumeToken":"t1","lastSeq":4,"commands":[null]}'
    ]) {
      const { peer } = createWorld(t, { page: createPage(new Map([['holdfast:ws://test/ws', text]])) })
      t.equal((await peer()).resume, undefined, text)
    }
  })

  t.test('goes on without a storage that is full, and leaves nothing old in it', async t => {
    const storage = new Map<string, string>()
    const page = createPage(storage)
    const { first, session, clock, events } = await createLiveWorld(t, { page })
    Object.assign(page.sessionStorage!, { setItem: () => { throw new Error('QuotaExceededError') } })
    void session.send('a')
    await clock.advance(0)
    t.equal(events('error')[0]?.code, 'PERSISTENCE_FAILED')
    t.equal(storage.size, 0)
    t.strictSame(first.ids, [1])
  })

  t.test('saves a bounded number of commands, the oldest', async t => {
    let storage = new Map<string, string>()
    const limits = { ...SESSION.limits, commandsPerSecond: 10_000, maxInFlight: 10_000, maxMessageBytes: 1_000_000 }
    const { session } = await createLiveWorld(t, { page: createPage(storage) }, { limits })
    for (let count = 0; count < 300; count++) void session.send('a')
    const saved = (): number[] => JSON.parse([...storage.values()][0]!).commands.map(({ id }: { id: number }) => id)
    t.strictSame([saved()[0], saved().length], [1, 256])
    const large = createWorld(t, { page: createPage(storage = new Map()) })
    ;(await large.peer()).created({ limits })
    for (let count = 0; count < 4; count++) void large.session.send('a', 'x'.repeat(100_000))
    t.strictSame(saved(), [1, 2])
  })

  t.test('is off in pages that may not store', async t => {
    const page = Object.defineProperty(
      { ...createPage() }, 'sessionStorage', { get () { throw new Error('SecurityError') } }
    )
    const { first, events, session } = await createLiveWorld(t, { page })
    first.say(message(1))
    t.equal(session.state, 'live')
    t.strictSame(events('error'), [])
  })

  t.test('P-36 keeps nothing of a session that cannot be resumed', async t => {
    const storage = new Map<string, string>()
    await createLiveWorld(t, { page: createPage(storage) }, { resumeToken: null })
    t.equal(storage.size, 0)
  })
})

// A component's cleanup used to have `close()` alone, which ends the session: React's StrictMode
// (connect, cleanup, connect) lost what was saved.
t.test('dispose', async t => {
  t.test('leaves the session as it is, and the next connect resumes it and hears the answers', async t => {
    const storage = new Map<string, string>()
    const locks = new Set<string>()
    const page = createPage(storage, locks)
    const { first, session, clock, events } = await createLiveWorld(t, { page })
    const [sent, unsent] = [session.send('a'), session.send('b'.repeat(990))]
    session.dispose()
    session.dispose()
    t.strictSame(first.sent, [{ command: 'a', id: 1 }])
    t.equal(first.closedWith, 4900)
    t.equal(page.listeners(), 0)
    t.strictSame(clock.pending(), [])
    t.strictSame(events('ended'), [{ sessionId: 's1', reason: 'disposed', renewing: false }])
    t.equal(await outcome(sent), 'DISPOSED')
    t.equal(await outcome(unsent), 'BAD_PAYLOAD')
    t.equal(await outcome(session.send('c')), 'DISPOSED')

    const { peer, events: heard } = createWorld(t, { page })
    const second = await peer()
    t.equal(second.resume, 's1.t1.0')
    second.resumed()
    second.say({ seq: 1, type: 'result', id: 1, payload: 'done' })
    t.strictSame(heard('orphanResult'), [{ id: 1, command: 'a', payload: 'done' }])
  })

  t.test('leaves what is saved alone before anything has happened, as React StrictMode does', async t => {
    const saved = JSON.stringify({
      sessionId: 's1',
      userId: 'ann',
      resumeToken: 't1',
      lastSeq: 4,
      commands: [{ id: 1, command: 'a', body: '{"command":"a"' }]
    })
    const storage = new Map([['holdfast:ws://test/ws', saved]])
    const page = createPage(storage, new Set())
    const before = createWorld(t, { page })
    before.session.dispose()
    await before.clock.advance(60_000)
    t.equal(before.peers.length, 0)
    t.strictSame(before.events('orphanResult'), [])
    t.equal(storage.size, 1)
    t.equal((await createWorld(t, { page }).peer()).resume, 's1.t1.4')
  })
})

t.test('is one file without dependencies and built-ins', async t => {
  const { metafile } = await build({
    entryPoints: [fileURLToPath(new URL('../../src/client/client.ts', import.meta.url))],
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'neutral',
    write: false,
    metafile: true
  })
  const inputs = Object.keys(metafile.inputs).map(path => path.replace(/^.*src\//, ''))
  t.strictSame(inputs.filter(path => !path.startsWith('client/')), ['io/protocol/close-codes.ts'])
})
