// Resuming, over manager, dispatcher and gateway together: what a client that comes back is told
// and sent (docs/protocol.md section 6).

import t from 'tap'
import { createResumeToken, hashResumeToken, sameHash } from '../../../src/io/session/resume-token.js'
import { createDomain, type Domain, type Frame, type Peer, type Welcome } from '../../helpers/domain.js'

function shape (frames: Frame[]): (number | string)[] {
  return frames.map(frame => frame.seq ?? frame.type)
}

/** A client that was sent `count` outputs, and lost its connection. */
function createLost (domain: Domain, count: number, acked = 0): Peer {
  const peer = domain.connect()
  for (let n = 1; n <= count; n++) domain.manager.send({ sessionId: peer.welcome.sessionId }, 'e', n)
  peer.take()
  if (acked > 0) peer.send({ type: 'ack', seq: acked })
  peer.close(1006)
  return peer
}

t.test('P-27 P-30 a resume gets session_resumed, the outputs after lastSeq, live, and then what is newer', async t => {
  const domain = createDomain()
  const peer = createLost(domain, 5)
  const again = domain.resume(peer.welcome, 2, { sameTurn: true })
  domain.manager.send({ sessionId: peer.welcome.sessionId }, 'e', 6)
  t.strictSame(shape(again.take()), ['session_resumed', 3, 4, 5, 'live', 6])
  t.match(again.welcome, {
    sessionId: peer.welcome.sessionId,
    userId: 'ann',
    protocol: 'holdfast.v1',
    lastCommand: 0,
    replay: { from: 3, to: 5 },
    gap: null
  })
})

t.test('P-27 lastSeq counts as an ack', async t => {
  const domain = createDomain()
  const peer = createLost(domain, 5)
  domain.resume(peer.welcome, 4)
  t.match(domain.manager.peekSession(peer.welcome.sessionId), { outboxMessages: 1, dropped: 0 })
})

t.test('P-30 live comes although there is nothing to send again, and before what is newer', async t => {
  const domain = createDomain()
  const peer = createLost(domain, 3)
  const again = domain.resume(peer.welcome, 3, { sameTurn: true })
  domain.manager.send({ sessionId: peer.welcome.sessionId }, 'e', 4)
  t.strictSame(shape(again.take()), ['session_resumed', 'live', 4])
  t.strictSame([again.welcome.replay, again.welcome.gap], [null, null])
})

t.test('P-30 a resume of a session without any output has live at once', async t => {
  const domain = createDomain()
  const again = domain.resume(createLost(domain, 0).welcome, 0)
  t.strictSame(shape(again.take()), ['session_resumed', 'live'])
  t.strictSame([again.welcome.replay, again.welcome.gap], [null, null])
})

t.test('P-30 output that a listener sends on "attached" comes behind the replay and live', async t => {
  for (const [count, lastSeq, expected] of [
    [3, 1, [2, 3, 'live', 4]], [3, 3, ['live', 4]], [0, 0, ['live', 1]]
  ] as const) {
    const domain = createDomain()
    const peer = createLost(domain, count)
    domain.manager.subscribe(event => {
      if (event.type === 'attached') domain.manager.send({ sessionId: event.sessionId }, 'welcome', null)
    })
    const again = domain.resume(peer.welcome, lastSeq)
    t.strictSame(shape(again.take()), ['session_resumed', ...expected])
  }
})

t.test('P-5 output that a listener sends on "attached" follows the first frame, however full the outbox', async t => {
  const domain = createDomain({ session: { outboxMessages: 2 } })
  const peer = createLost(domain, 2)
  domain.manager.subscribe(event => {
    if (event.type === 'attached') {
      for (let n = 0; n < 5; n++) domain.manager.send({ sessionId: event.sessionId }, 'welcome', n)
    }
  })
  const again = domain.resume(peer.welcome, 0)
  t.strictSame(shape(again.take()), ['session_resumed', 1, 2, 'live', 3, 4, 5, 6, 7])
  const fresh = domain.connect({ userId: 'bob' })
  t.strictSame(shape(fresh.take()), ['session_created', 1, 2, 3, 4, 5])
})

t.test('P-30 the order holds on a socket that drains slowly while more output arrives', async t => {
  const domain = createDomain({ gateway: { maxBufferedBytes: 1000 } })
  const peer = domain.connect()
  const { sessionId } = peer.welcome
  peer.close(1006)
  for (let n = 1; n <= 40; n++) domain.manager.send({ sessionId }, 'e', 'x'.repeat(200))
  const again = domain.resume(peer.welcome, 0, { stalled: true })
  let more = 40
  for (let n = 0; n < 100 && (again.frames().at(-1)?.seq ?? 0) < more; n++) {
    if (n < 20) domain.manager.send({ sessionId }, 'e', more = 41 + n)
    domain.turn()
    t.ok(again.transport.bufferedBytes <= 1000 + 300, 'bounded')
    again.transport.drain()
  }
  t.strictSame(shape(again.take()), [
    'session_resumed', ...Array.from({ length: 40 }, (_, n) => n + 1), 'live',
    ...Array.from({ length: more - 40 }, (_, n) => n + 41)
  ])
})

t.test('P-30 an ack of outputs not yet replayed skips them, and live still comes before what is newer', async t => {
  const domain = createDomain({ gateway: { maxBufferedBytes: 300 } })
  const peer = domain.connect()
  const { sessionId } = peer.welcome
  peer.close(1006)
  for (let n = 1; n <= 6; n++) domain.manager.send({ sessionId }, 'e', 'x'.repeat(400))
  const again = domain.resume(peer.welcome, 0, { stalled: true })
  again.send({ type: 'ack', seq: 6 })
  domain.manager.send({ sessionId }, 'e', 7)
  for (let n = 0; n < 10; n++) again.transport.drain()
  const seen = shape(again.take())
  t.equal(seen[0], 'session_resumed')
  t.strictSame(seen.slice(-2), ['live', 7])
})

t.test('P-31 lastCommand is the watermark; running commands answer on the new connection', async t => {
  const domain = createDomain()
  let finish: (value: string) => void = () => {}
  domain.dispatcher.command('slow', {}, () => new Promise<string>(resolve => { finish = resolve }))
  domain.dispatcher.command('fast', {}, () => 'fast')
  const peer = domain.connect()
  peer.send({ command: 'fast', id: 1 })
  peer.send({ command: 'slow', id: 2 })
  peer.close(1006)
  const again = domain.resume(peer.welcome, 0)
  t.equal(again.welcome.lastCommand, 2)
  t.strictSame(shape(again.take()), ['session_resumed', 1, 'live'])
  again.send({ command: 'slow', id: 2 })
  t.strictSame(again.take(), [], 'a repeat of a running one gets nothing now')
  finish('done')
  await domain.settle()
  t.strictSame(again.take(), [{ seq: 2, type: 'result', id: 2, payload: 'done' }])
})

t.test('P-32 gap names exactly the outputs that were dropped', async t => {
  const domain = createDomain({ session: { outboxMessages: 3 } })
  const peer = domain.connect()
  peer.close(1006)
  for (let n = 1; n <= 8; n++) domain.manager.send({ sessionId: peer.welcome.sessionId }, 'e', n)
  const again = domain.resume(peer.welcome, 2)
  t.strictSame([again.welcome.gap, again.welcome.replay], [{ from: 3, to: 5 }, { from: 6, to: 8 }])
  t.strictSame(shape(again.take()), ['session_resumed', 6, 7, 8, 'live'])
  again.close(1006)
  const third = domain.resume(again.welcome, 5)
  t.strictSame([third.welcome.gap, third.welcome.replay], [null, { from: 6, to: 8 }])
})

t.test('P-28 a token works once: after the first frame of the new connection the old one is dead', async t => {
  const domain = createDomain()
  const peer = createLost(domain, 1)
  const again = domain.resume(peer.welcome, 1)
  t.not(again.welcome.resumeToken, peer.welcome.resumeToken)
  again.send({ type: 'ack', seq: 1 })
  const thief = domain.resume(peer.welcome, 1)
  t.match(thief.welcome, { sessionId: /^(?!s2$)/, previous: { sessionId: peer.welcome.sessionId, reason: 'unknown' } })
  t.notOk('lastCommand' in (thief.welcome.previous ?? {}))
  t.equal(again.transport.closed, undefined, 'and the holder is not disturbed')
})

t.test('P-28 a lost answer costs nothing: the presented token works again until the new connection speaks', async t => {
  const domain = createDomain()
  const peer = createLost(domain, 2)
  let latest = peer
  for (let n = 0; n < 5; n++) {
    latest = domain.resume(peer.welcome, 0)
    latest.close(1006)
  }
  t.equal(latest.welcome.sessionId, peer.welcome.sessionId)
  const holder = domain.resume(latest.welcome, 0)
  t.equal(holder.welcome.sessionId, peer.welcome.sessionId, 'the newest token works as well')
  t.equal(domain.resume(peer.welcome, 0).welcome.previous?.reason, 'unknown', 'and it put the first one to rest')
})

// Of two handshakes of one client the earlier came last, and the token that the client had read
// from the answer to the later one was dead: its session was lost to it.
t.test('P-28c a token that was read stays valid when an earlier handshake arrives after it', async t => {
  const domain = createDomain()
  const peer = createLost(domain, 1)
  const read = domain.resume(peer.welcome, 1)
  read.close(1006)
  for (let n = 0; n < 2; n++) domain.resume(peer.welcome, 1).close(1006)
  const holder = domain.resume(read.welcome, 1)
  t.equal(holder.welcome.sessionId, peer.welcome.sessionId)
  holder.send({ type: 'ack', seq: 1 })
  for (const { welcome } of [peer, read]) {
    t.equal(domain.resume(welcome, 1).welcome.previous?.reason, 'unknown', 'dead with the first frame')
  }
})

t.test('P-28c of more than four such tokens the oldest is dead', async t => {
  const domain = createDomain()
  const peer = createLost(domain, 1)
  const given = Array.from({ length: 5 }, () => {
    const again = domain.resume(peer.welcome, 1)
    again.close(1006)
    return again.welcome
  })
  t.equal(domain.resume(given[0] as Welcome, 1).welcome.previous?.reason, 'unknown')
  t.equal(domain.resume(given[1] as Welcome, 1).welcome.sessionId, peer.welcome.sessionId)
})

t.test('P-28 a malformed first frame is a first frame', async t => {
  const domain = createDomain()
  const peer = createLost(domain, 0)
  domain.resume(peer.welcome, 0).send('garbage')
  t.equal(domain.resume(peer.welcome, 0).welcome.previous?.reason, 'unknown')
})

t.test('P-28 the server stores only hashes', async t => {
  const domain = createDomain()
  const peer = domain.connect()
  const record = peer.connection.session
  t.match(peer.welcome.resumeToken, /^[\w-]{43}$/)
  t.equal(record?.tokenHash, hashResumeToken(peer.welcome.resumeToken))
  t.notOk(JSON.stringify(domain.manager.peekSession(peer.welcome.sessionId)).includes(peer.welcome.resumeToken))
  const tokens = new Set(Array.from({ length: 1000 }, createResumeToken))
  t.equal(tokens.size, 1000)
  t.equal(sameHash('a', null), false)
  t.equal(sameHash('a', 'ab'), false)
  t.equal(sameHash('ab', 'ab'), true)
})

t.test('P-29 the same token in the hands of another user is refused like an unknown session, not spent', async t => {
  const domain = createDomain()
  const peer = createLost(domain, 1)
  const thief = domain.resume(peer.welcome, 0, { userId: 'mallory' })
  t.strictSame(thief.welcome.previous, { sessionId: peer.welcome.sessionId, reason: 'unknown' })
  t.equal(thief.welcome.userId, 'mallory')
  t.equal(domain.resume(peer.welcome, 0).welcome.sessionId, peer.welcome.sessionId)
})

t.test('P-33 wrong, cut, foreign and made-up resumes get the same answer, and a session of their own', async t => {
  const domain = createDomain()
  const peer = createLost(domain, 1)
  const other = domain.connect()
  const { sessionId, resumeToken: token } = peer.welcome
  const offers = [
    { sessionId, token: 'x', lastSeq: 0 }, { sessionId, token: token.slice(1), lastSeq: 0 },
    { sessionId, token: token + 'A', lastSeq: 0 },
    { sessionId, token: hashResumeToken(token), lastSeq: 0 },
    { sessionId, token: other.welcome.resumeToken, lastSeq: 0 },
    { sessionId: 'nobody', token, lastSeq: 0 }, { sessionId: '__proto__', token, lastSeq: 0 },
    { sessionId, token: 'wrong', lastSeq: 99 }
  ]
  for (const resume of offers) {
    const refused = domain.connect({ resume })
    t.equal(refused.frames()[0]?.type, 'session_created')
    t.strictSame(refused.welcome.previous, { sessionId: resume.sessionId, reason: 'unknown' })
  }
  t.equal(domain.connect({ resume: 'malformed' }).welcome.previous?.reason, 'unknown')
  t.equal(domain.manager.peekSession(sessionId)?.state, 'detached', 'and nobody ended it')
  t.equal(domain.manager.totals.resumeRefused, offers.length)
})

t.test('P-33 reason and lastCommand of an ended session are told to a holder of the token alone', async t => {
  const ends: [string, (domain: Domain, peer: Peer) => void][] = [
    ['ended_by_operator', (domain, peer) => { domain.manager.terminateSession(peer.welcome.sessionId) }],
    ['ended_by_client', (_, peer) => { peer.close(1000) }],
    ['shutdown', (domain, peer) => { domain.manager.terminateSession(peer.welcome.sessionId, 'shutdown') }],
    ['idle', domain => { domain.clock.advance(3_600_001) }],
    ['resume_window', (domain, peer) => {
      peer.close(1006)
      domain.clock.advance(600_001)
      domain.manager.purgeStaleSessions()
    }]
  ]
  for (const [reason, end] of ends) {
    const domain = createDomain()
    const peer = domain.connect()
    peer.send({ command: 'nothing', id: 1 })
    end(domain, peer)
    const holder = domain.resume(peer.welcome, 1)
    t.strictSame(holder.welcome.previous, { sessionId: peer.welcome.sessionId, reason, lastCommand: 1 }, reason)
    const stranger = domain.connect({ resume: { sessionId: peer.welcome.sessionId, token: 'guess', lastSeq: 0 } })
    t.strictSame(stranger.welcome.previous, { sessionId: peer.welcome.sessionId, reason: 'unknown' })
    const other = domain.resume(peer.welcome, 1, { userId: 'mallory' })
    t.strictSame(other.welcome.previous, { sessionId: peer.welcome.sessionId, reason: 'unknown' })
  }
})

t.test('P-33 a holder is told the reason with the token before the last too, while it was valid', async t => {
  const domain = createDomain()
  const peer = createLost(domain, 0)
  domain.resume(peer.welcome, 0)
  domain.manager.terminateSession(peer.welcome.sessionId)
  t.equal(domain.resume(peer.welcome, 0).welcome.previous?.reason, 'ended_by_operator')
})

t.test('P-33 P-54 a refused resume of a user at the quota, or on a full server, ends before the upgrade', async t => {
  const resume = { sessionId: 'nobody', token: 'x', lastSeq: 0 }
  const quota = createDomain({ session: { maxSessionsPerUser: 1 } })
  quota.connect()
  t.throws(() => quota.connect({ resume }), { code: 'USER_QUOTA' })
  const full = createDomain({ session: { maxSessions: 1 } })
  full.connect()
  t.throws(() => full.connect({ userId: 'bob', resume }), { code: 'SERVER_FULL' })
  for (const domain of [quota, full]) t.equal(domain.manager.countSessions().total, 1)
})

t.test('P-33 a resume at the quota is no further session', async t => {
  const domain = createDomain({ session: { maxSessionsPerUser: 1, maxSessions: 1 } })
  const peer = createLost(domain, 1)
  t.equal(domain.resume(peer.welcome, 0).frames()[0]?.type, 'session_resumed')
})

t.test('P-34 a lastSeq of the future ends the old session: state_lost', async t => {
  const domain = createDomain()
  const peer = createLost(domain, 3)
  const again = domain.resume(peer.welcome, 4)
  t.strictSame(again.welcome.previous, { sessionId: peer.welcome.sessionId, reason: 'state_lost', lastCommand: 0 })
  t.equal(domain.manager.tombstoneOf(peer.welcome.sessionId)?.reason, 'state_lost')
})

t.test('P-34 state_lost closes the connection that the old session still has', async t => {
  const domain = createDomain()
  const peer = domain.connect()
  const again = domain.resume(peer.welcome, 1)
  t.equal(again.welcome.previous?.reason, 'state_lost')
  t.equal(peer.transport.closed?.code, 4302)
})

t.test('P-35 a take-over gives the older connection goodbye, 4003 and nothing more', async t => {
  const domain = createDomain()
  const peer = domain.connect()
  peer.take()
  const again = domain.resume(peer.welcome, 0, { sameTurn: true })
  domain.manager.send({ sessionId: peer.welcome.sessionId }, 'e', 1)
  t.strictSame(peer.take(), [{ type: 'goodbye', payload: { code: 4003, reason: 'replaced', action: 'stop' } }])
  t.strictSame(shape(again.take()), ['session_resumed', 'live', 1])
  peer.send({ command: 'nothing', id: 1 })
  peer.send({ type: 'end' })
  t.strictSame([...peer.take(), ...again.take()], [], 'what the older one still says is not heard')
  peer.close()
  t.equal(
    domain.manager.peekSession(peer.welcome.sessionId)?.state, 'active', 'its close does not detach the newer one'
  )
})

t.test('P-35 of twenty simultaneous resumes the last one wins and the others are closed with 4003', async t => {
  const domain = createDomain()
  const peer = createLost(domain, 2)
  const peers = Array.from({ length: 20 }, () => domain.resume(peer.welcome, 0, { sameTurn: true }))
  domain.turn()
  const [winner, ...losers] = peers.reverse() as [Peer, ...Peer[]]
  t.strictSame(shape(winner.take()), ['session_resumed', 1, 2, 'live'])
  for (const loser of losers) {
    t.strictSame(shape(loser.take()), ['session_resumed', 'goodbye'])
    t.equal(loser.transport.closed?.code, 4003)
    loser.close()
  }
  t.strictSame(domain.manager.countSessions(), {
    active: 1,
    detached: 0,
    total: 1,
    outboxBytes: domain.manager.countSessions().outboxBytes
  })
  t.equal(domain.gateway.connections, 1)
  winner.close(1006)
  t.equal(domain.resume(winner.welcome, 2).welcome.sessionId, peer.welcome.sessionId)
})

t.test('P-36 a resume at the last millisecond of the window works; one later is refused, sweep or not', async t => {
  const domain = createDomain({ session: { resumeWindowMs: 5000 } })
  const intime = createLost(domain, 0)
  const late = createLost(domain, 0)
  domain.clock.advance(5000)
  t.equal(domain.resume(intime.welcome, 0).frames()[0]?.type, 'session_resumed')
  domain.clock.advance(1)
  t.equal(domain.resume(late.welcome, 0).welcome.previous?.reason, 'resume_window')
  t.equal(domain.manager.purgeStaleSessions(), 0, 'the refusal ended it')
})

t.test('P-36 with a window of 0 no token is given and every close terminates', async t => {
  const domain = createDomain({ session: { resumeWindowMs: 0 } })
  const peer = domain.connect()
  t.equal(peer.welcome.resumeToken, null)
  t.equal(peer.welcome.resumeWindowMs, 0)
  peer.close(1006)
  t.equal(domain.manager.tombstoneOf(peer.welcome.sessionId)?.reason, 'disconnected')
})

t.test('P-37 a basic session cannot be resumed', async t => {
  const domain = createDomain()
  const peer = domain.connect({ profile: 'basic' })
  t.notOk('resumeToken' in peer.welcome)
  t.equal(
    domain.connect({ resume: { sessionId: peer.welcome.sessionId, token: '', lastSeq: 0 } }).welcome.previous?.reason,
    'unknown'
  )
  t.equal(peer.transport.closed, undefined)
})

t.test('P-27 a session made without a connection has no token that could resume it', async t => {
  const domain = createDomain()
  const { id } = domain.manager.createSession('ann')
  for (const token of ['', 'null', 'undefined']) {
    t.equal(domain.connect({ resume: { sessionId: id, token, lastSeq: 0 } }).welcome.previous?.reason, 'unknown')
  }
  t.equal(domain.manager.peekSession(id)?.state, 'detached')
})
