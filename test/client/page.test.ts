// A page's whole life, and lines that are slow, dead or asleep: what the client believes, and how
// soon it knows better.

import t from 'tap'
import { createLiveWorld, createPage, createWorld, outcome, SESSION, type Frame, type Peer } from './world.js'

const message = (seq: number): Frame => ({ seq, type: 'message', event: 'note', payload: seq })
/** A server that answers `ping`. */
const ASKABLE = { revision: '1.1' }
const pings = (peer: Peer): number => peer.sent.filter(({ type }) => type === 'ping').length
const saved = (members: Frame = {}): string =>
  JSON.stringify({ sessionId: 's1', userId: 'ann', resumeToken: 't1', lastSeq: 0, commands: [], ...members })
const KEY = 'holdfast:ws://test/ws'

t.test('questions', async t => {
  // A page that was offline was shown as live for 35 s, and after a change of network a command
  // took as long.
  for (const type of ['offline', 'online', 'resume', 'pageshow', 'visibilitychange']) {
    t.test(`P-52 asks at ${type} whether the line lives, and knows within 2 s`, async t => {
      const page = createPage()
      const { first, session, clock, events, peer, peers } = await createLiveWorld(
        t, { page, persistence: false }, ASKABLE
      )
      page.state.onLine = type !== 'offline'
      page.fire(type, { persisted: true })
      page.fire(type, { persisted: true })
      t.equal(pings(first), 1)
      await clock.advance(1_499)
      t.equal(session.state, 'live')
      await clock.advance(1)
      t.match(events('detached'), [{
        reason: type === 'offline' ? 'offline' : 'connection_lost',
        retryInMs: type === 'offline' ? 5_000 : 0
      }])
      t.equal(first.closedWith, 4900)
      if (type === 'offline') return
      await peer()
      t.equal(peers.length, 2)
    })
  }

  t.test('P-52 stays live when anything comes in time', async t => {
    const page = createPage()
    const { first, session, clock } = await createLiveWorld(t, { page, persistence: false }, ASKABLE)
    for (const frame of [{ type: 'pong' }, message(1)]) {
      page.fire('online')
      await clock.advance(1_000)
      first.say(frame)
      await clock.advance(5_000)
      t.equal(session.state, 'live')
    }
    t.equal(pings(first), 2)
  })

  t.test('P-52 does not take the bytes of its own question for life', async t => {
    // A socket takes them without a network as well, which doubled the time until a page said that
    // it is offline.
    const page = createPage()
    const { first, session, clock } = await createLiveWorld(t, { page, persistence: false }, ASKABLE)
    const send = first.send.bind(first)
    first.send = data => {
      send(data)
      first.bufferedAmount += data.length
    }
    page.fire('offline')
    first.bufferedAmount = 0
    await clock.advance(1_500)
    t.not(session.state, 'live')
  })

  t.test('P-52 does not ask a server of revision 1.0; it resumes where there is reason for doubt', async t => {
    const page = createPage()
    const { first, session, events, peer } = await createLiveWorld(t, { page, persistence: false })
    page.fire('visibilitychange')
    t.equal(session.state, 'live')
    page.fire('online')
    t.strictSame(first.sent, [])
    t.match(events('detached'), [{ reason: 'connection_lost', retryInMs: 0 }])
    t.equal((await peer()).resume, 's1.t1.0')
  })

  t.test('gives an attempt that was under way 1.5 s more', async t => {
    const page = createPage()
    const { clock, peer, peers } = createWorld(t, { page, persistence: false })
    await peer()
    page.fire('online')
    await clock.advance(1_500)
    await peer()
    t.equal(peers.length, 2)
    t.equal(peers[0]!.closedWith, 4900)
  })

  t.test('P-52 asks on waking when the machine slept, as no event tells of it', async t => {
    const { first, session, clock } = await createLiveWorld(t, {}, ASKABLE)
    await clock.advance(4_000)
    clock.sleep(60_000)
    await clock.advance(1_000)
    t.equal(pings(first), 1)
    await clock.advance(2_000)
    t.not(session.state, 'live')
  })

  t.test('P-53b tells a new time when it changes, and not before the one the server named', async t => {
    const page = createPage()
    const { first, clock, events } = await createLiveWorld(t, { page, persistence: false })
    first.say({
      type: 'goodbye',
      payload: { code: 4104, reason: 'overloaded', action: 'resume_later', retryAfterMs: 5_000 }
    })
    await clock.advance(1_000)
    page.fire('online')
    t.match(events('detached'), [{ retryInMs: 5_250 }, { reason: 'overloaded', retryInMs: 4_000 }])
  })
})

t.test('slow lines', async t => {
  t.test('P-43 takes bytes of a message that is not complete yet for life', async t => {
    const { first, session, clock } = await createLiveWorld(t)
    first._socket = { bytesRead: 0 }
    for (let second = 0; second < 120; second += 5) {
      first._socket.bytesRead += 100
      await clock.advance(5_000)
    }
    t.equal(session.state, 'live')
    await clock.advance(35_000)
    t.equal(session.state, 'detached', 'and finds a line that is dead in the stated time')
  })

  t.test('P-43 takes bytes that the network takes for life', async t => {
    const { first, session, clock } = await createLiveWorld(t)
    first.bufferedAmount = 100_000
    for (let second = 0; second < 60; second += 5) {
      await clock.advance(5_000)
      first.bufferedAmount -= 1_000
    }
    t.equal(session.state, 'live')
    await clock.advance(40_000)
    t.equal(session.state, 'detached')
  })

  t.test('P-52 does not cut a line that moves', async t => {
    const page = createPage()
    const { first, session, clock } = await createLiveWorld(t, { page, persistence: false }, ASKABLE)
    await clock.advance(5_000)
    first.bufferedAmount = 60_000
    page.fire('online')
    for (let second = 0; second < 10; second++) {
      await clock.advance(500)
      first.bufferedAmount -= 2_000
      await clock.advance(500)
    }
    t.equal(session.state, 'live')
    await clock.advance(3_000)
    t.not(session.state, 'live')
  })

  // A browser shows whole messages only: one large output on a slow line was cut at 35 s each time,
  // and never came.
  t.test('P-43f waits twice as long each time for what comes behind the first frame of a connection', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    await clock.advance(35_000)
    t.equal(first.closedWith, 4900)
    await clock.advance(500)
    const second = await peer()
    second.say({
      type: 'session_resumed',
      payload: { ...SESSION, lastCommand: 0, replay: { from: 1, to: 1 }, gap: null }
    })
    await clock.advance(69_000)
    second.say(message(1), { type: 'live' })
    t.equal(session.state, 'live')
    await clock.advance(34_999)
    t.equal(session.state, 'live')
    await clock.advance(1)
    t.equal(session.state, 'detached', 'and is as patient as before once something came')
  })
})

t.test('what never answers', async t => {
  t.test('token() has a minute', async t => {
    const { clock, events, session } = createWorld(t, { token: () => new Promise(() => {}) })
    await clock.advance(59_999)
    t.equal(session.state, 'connecting')
    await clock.advance(1)
    t.equal(events('error')[0]?.code, 'TOKEN_FAILED')
    t.match(events('detached'), [{ reason: 'token_failed', retryInMs: 250 }])
  })

  t.test('storage has 3 s, and the session starts without', async t => {
    const { clock, events, peers } = createWorld(
      t, { persistence: { load: () => new Promise(() => {}), save: () => {}, clear: () => {} } }
    )
    await clock.advance(2_999)
    t.equal(peers.length, 0)
    await clock.advance(1)
    t.equal(peers.length, 1)
    t.equal(events('error')[0]?.code, 'PERSISTENCE_FAILED')
  })

  t.test('locks have 2 s, and the server decides', async t => {
    const page = {
      ...createPage(new Map([[KEY, saved()]])),
      navigator: { locks: { request: () => new Promise<void>(() => {}) } }
    }
    const { clock, peers } = createWorld(t, { page })
    await clock.advance(1_999)
    t.equal(peers.length, 0)
    await clock.advance(1)
    t.equal(peers[0]?.resume, 's1.t1.0')
  })
})

t.test('the back button', async t => {
  /** The page goes into the back/forward cache. */
  const leave = (page: ReturnType<typeof createPage>): void => page.fire('pagehide')
  const comeBack = (page: ReturnType<typeof createPage>): void => page.fire('pageshow', { persisted: true })

  t.test('lets go of socket and lock, and takes them up again', async t => {
    const [storage, locks] = [new Map<string, string>(), new Set<string>()]
    const page = createPage(storage, locks)
    const { first, session, clock, events, peer, peers } = await createLiveWorld(t, { page })
    await clock.advance(0)
    leave(page)
    await clock.advance(600_000)
    t.equal(first.closedWith, 4900)
    t.equal(locks.size, 0)
    t.equal(peers.length, 1)
    t.match(events('detached'), [{ reason: 'page_hidden', retryInMs: null }])
    comeBack(page)
    const second = await peer()
    t.equal(second.resume, 's1.t1.0')
    t.strictSame([...locks], ['holdfast.s1'])
    second.resumed()
    t.equal(session.state, 'live')
  })

  // The token of the page had been used up by the next page of the site: its session was lost.
  t.test('P-28 goes on where another page of the tab stands', async t => {
    const [storage, locks] = [new Map<string, string>(), new Set<string>()]
    const page = createPage(storage, locks)
    const { first, session, clock, events, peer } = await createLiveWorld(t, { page })
    first.say(message(1))
    const [answered, running] = [session.send('a'), session.send('b')]
    leave(page)
    await clock.advance(0)

    const next = createPage(storage, locks)
    const other = createWorld(t, { page: next })
    const peerOfOther = await other.peer()
    t.equal(peerOfOther.resume, 's1.t1.1')
    peerOfOther.resumed({ resumeToken: 'newer', lastCommand: 2 }, [
      message(2), { seq: 3, type: 'result', id: 1, payload: 'one' }
    ])
    leave(next)
    await clock.advance(0)

    comeBack(page)
    const second = await peer()
    t.equal(second.resume, 's1.newer.3')
    t.strictSame(events('gap'), [{ from: 2, to: 3 }], 'what the other page has heard is not told again')
    t.equal(await outcome(answered!), 'OUTCOME_UNKNOWN')
    second.resumed({ lastCommand: 2 })
    second.say({ seq: 4, type: 'result', id: 2, payload: 'two' })
    t.equal(await outcome(running!), 'two')
    t.strictSame(events('orphanResult'), [])
  })

  t.test('joins the session that another page of the tab has started since', async t => {
    const storage = new Map<string, string>()
    const page = createPage(storage, new Set())
    const { session, clock, events, peer } = await createLiveWorld(t, { page })
    const sent = session.send('a')
    leave(page)
    storage.set(KEY, saved({ sessionId: 's2', resumeToken: 'newer', lastSeq: 7 }))
    comeBack(page)
    t.equal((await peer()).resume, 's2.newer.7')
    t.strictSame(events('ended'), [{ sessionId: 's1', reason: 'unknown', renewing: true }])
    t.equal(await outcome(sent), 'OUTCOME_UNKNOWN')
    await clock.advance(0)
  })

  t.test('starts anew when another tab holds the session by now', async t => {
    const [storage, locks] = [new Map<string, string>(), new Set<string>()]
    const page = createPage(storage, locks)
    const { session, clock, events, peer } = await createLiveWorld(t, { page })
    await clock.advance(0)
    leave(page)
    const unsent = session.send('later')
    await clock.advance(0)
    locks.add('holdfast.s1')
    comeBack(page)
    await clock.advance(150)
    const second = await peer()
    t.equal(second.resume, undefined)
    t.strictSame(events('ended'), [{ sessionId: 's1', reason: 'replaced', renewing: true }])
    second.created({ sessionId: 's2' })
    t.strictSame(second.sent, [{ command: 'later', id: 1 }])
    second.say({ seq: 1, type: 'result', id: 1, payload: 'done' })
    t.equal(await outcome(unsent), 'done')
    t.equal(events('ended').length, 1)
  })

  t.test('ends as replaced then, where no new session is wanted', async t => {
    const [storage, locks] = [new Map<string, string>(), new Set<string>()]
    const page = createPage(storage, locks)
    const { session, clock, events } = await createLiveWorld(t, { page, renew: false })
    await clock.advance(0)
    leave(page)
    await clock.advance(0)
    locks.add('holdfast.s1')
    comeBack(page)
    await clock.advance(150)
    t.equal(session.state, 'ended')
    t.strictSame(events('replaced'), [{ sessionId: 's1' }])
  })

  t.test('leaves a session alone that was detached on purpose', async t => {
    const page = createPage(new Map(), new Set())
    const { session, clock, peers } = await createLiveWorld(t, { page })
    session.detach()
    leave(page)
    comeBack(page)
    await clock.advance(60_000)
    t.equal(peers.length, 1)
    session.connect()
    await clock.advance(0)
    t.equal(peers[1]?.resume, 's1.t1.0')
  })

  t.test('keeps its session without a storage', async t => {
    const page = createPage()
    const { peer } = await createLiveWorld(t, { page, persistence: false })
    leave(page)
    comeBack(page)
    t.equal((await peer()).resume, 's1.t1.0')
  })

  t.test('comes back while what was saved is being read', async t => {
    const page = createPage(new Map([[KEY, saved()]]), new Set())
    const { peer, peers } = createWorld(t, { page })
    leave(page)
    comeBack(page)
    t.equal((await peer()).resume, 's1.t1.0')
    t.equal(peers.length, 1)
  })
})

t.test('the next user', async t => {
  t.test('gets none of what a saved session of another user left', async t => {
    const commands = [{ id: 1, command: 'payment.approve', body: '{"command":"payment.approve"' }]
    const { session, peer, events } = createWorld(t, { page: createPage(new Map([[KEY, saved({ commands })]])) })
    const unsent = session.send('a')
    const first = await peer()
    first.created({ sessionId: 's2', userId: 'bob', previous: { sessionId: 's1', reason: 'unknown' } })
    t.strictSame(first.sent, [])
    t.equal(await outcome(unsent), 'USER_CHANGED')
    t.match(events('orphanResult'), [{ command: 'payment.approve', error: { code: 'OUTCOME_UNKNOWN' } }])
    t.strictSame(events('userChanged'), [{ userId: 'bob', previous: 'ann' }])
  })

  t.test('gets none of what waited for a first connection, as far as a token says whose it is', async t => {
    const jwt = (sub: string): string =>
      `h.${Buffer.from(JSON.stringify({ sub, name: 'ü??>' })).toString('base64url')}.s`
    let token = jwt('ann')
    const { session, clock, peer, events } = createWorld(t, { token: () => token })
    const sent = session.send('payment.approve')
    ;(await peer()).drop()
    await clock.advance(500)
    t.equal(await outcome(sent), 'pending', 'a fresh token of the same user changes nothing')
    token = jwt('bob')
    ;(await peer()).drop()
    await clock.advance(1_000)
    t.equal(await outcome(sent), 'USER_CHANGED')
    t.strictSame(events('userChanged'), [{ userId: 'bob', previous: 'ann' }])
    const second = await peer()
    second.created({ userId: 'bob' })
    t.strictSame(second.sent, [])
  })

  t.test('is told after every renewal', async t => {
    const { first, session, peer, events } = await createLiveWorld(t)
    first.say({ type: 'goodbye', payload: { code: 4300, reason: 'idle', action: 'new' } })
    const unsent = session.send('a')
    const second = await peer()
    second.created({ sessionId: 's2', userId: 'bob', previous: { sessionId: 's1', reason: 'idle', lastCommand: 0 } })
    t.equal(await outcome(unsent), 'USER_CHANGED')
    t.equal(session.userId, 'bob')
    t.equal(events('userChanged').length, 1)
  })

  t.test('sends nothing of another user in a session that was resumed under another name', async t => {
    const { first, session, clock, peer } = await createLiveWorld(t)
    const [a, b] = ['a', 'b'].map(command => session.send(command))
    first.drop()
    await clock.advance(500)
    const second = await peer()
    second.resumed({ userId: 'bob', lastCommand: 1 })
    t.equal(await outcome(a!), 'OUTCOME_UNKNOWN')
    t.equal(await outcome(b!), 'USER_CHANGED')
    void session.send('c')
    t.strictSame(second.sent.slice(1), [{ command: 'c', id: 2 }])
  })
})
