import fc from 'fast-check'
import t from 'tap'
import { FUZZ_SEED } from '../../helpers/fuzz-seed.js'
import { createDomain, type Domain, type Peer } from '../../helpers/domain.js'

const MANY = 300

function createCrowd (count: number = MANY): Domain & { peers: Peer[] } {
  const domain = createDomain({ session: { maxSessions: 2000, maxSessionsPerUser: 2000 } })
  const peers = Array.from({ length: count }, () => domain.connect())
  for (const peer of peers) peer.take()
  return { ...domain, peers }
}

/** Every event's payload a peer got, in order. */
function events (peer: Peer): unknown[] {
  return peer.frames().filter(({ type }) => type === 'message').map(({ payload }) => payload)
}

function finish ({ slice }: Domain): void {
  while (slice() > 0);
}

t.test('a fan-out returns before anybody has got it, and gets to everybody once', async t => {
  const domain = createCrowd()
  t.strictSame(domain.manager.send({ userId: 'ann' }, 'news', 1), { sessions: MANY, seq: null })
  domain.turn()
  t.equal(domain.peers.filter(peer => events(peer).length > 0).length, 0)
  finish(domain)
  t.ok(domain.peers.every(peer => events(peer).join() === '1'))
})

t.test('P-20 what is sent to a session later goes behind the fan-outs before it', async t => {
  const domain = createCrowd()
  const last = domain.peers.at(-1) as Peer
  domain.manager.send({ all: true }, 'news', 1)
  domain.manager.send({ userId: 'ann' }, 'news', 2)
  t.equal(domain.manager.send({ sessionId: last.welcome.sessionId }, 'news', 3).seq, 3)
  domain.turn()
  t.strictSame(events(last), [1, 2, 3])
  finish(domain)
  t.strictSame(events(last), [1, 2, 3])
  t.ok(domain.peers.slice(0, -1).every(peer => events(peer).join() === '1,2'))
})

t.test('a session that is made later does not get it, nor does the same user\'s after all others ended', async t => {
  const domain = createCrowd()
  domain.manager.send({ userId: 'ann' }, 'news', 1)
  const late = domain.connect()
  const ended = domain.manager.terminateUser('ann', late.welcome.sessionId)
  for (let round = 0; round < 20; round++) {
    finish(domain)
    await Promise.resolve()
  }
  await ended
  t.strictSame(events(late), [])
})

t.test('one user\'s fan-out gives nothing to others, even if they are caught up meanwhile', async t => {
  const domain = createCrowd()
  const other = domain.connect({ userId: 'bob' })
  domain.manager.send({ userId: 'ann' }, 'news', 1)
  domain.manager.send({ sessionId: other.welcome.sessionId }, 'news', 2)
  finish(domain)
  t.strictSame(events(other), [2])
})

t.test('P-41 P-48 a session that ends, and a connection that is closed, first get what was sent before', async t => {
  const domain = createCrowd()
  const [ended, left] = domain.peers.slice(-2) as [Peer, Peer]
  domain.manager.send({ all: true }, 'news', 1)
  domain.manager.terminateSession(ended.welcome.sessionId)
  domain.gateway.closeSome(1, 0, true)
  t.strictSame(ended.take().map(({ type }) => type), ['message', 'goodbye'])
  t.strictSame(
    domain.peers.filter(peer => peer !== ended && peer.transport.closed !== undefined).map(peer => peer.take().map(
      ({ type }) => type
    )),
    [['message', 'goodbye']]
  )
  finish(domain)
  t.equal(domain.manager.peekSession(left.welcome.sessionId)?.lastSeq, 1, 'kept, and not given twice')
})

t.test('G5 a client that resumes in the middle gets the fan-out once, whichever slice it is in', async t => {
  const domain = createCrowd()
  const [first, last] = [domain.peers[0], domain.peers.at(-1)] as [Peer, Peer]
  domain.manager.send({ all: true }, 'news', 1)
  domain.slice()
  for (const peer of [first, last]) {
    peer.close(1006)
    const again = domain.resume(peer.welcome, 0)
    finish(domain)
    t.strictSame(events(again), [1])
  }
})

t.test('G6 no more than sixteen are under way: one more waits until the oldest is through', async t => {
  const domain = createCrowd()
  for (let n = 1; n <= 16; n++) domain.manager.send({ all: true }, 'news', n)
  t.equal(domain.manager.countSessions().outboxBytes, 0)
  domain.manager.send({ all: true }, 'news', 17)
  const [first] = domain.peers as [Peer]
  t.equal(domain.manager.peekSession(first.welcome.sessionId)?.lastSeq, 16)
  finish(domain)
  t.ok(domain.peers.every(peer => events(peer).join() === Array.from({ length: 17 }, (_, i) => i + 1).join()))
})

t.test('a listener that sends to everybody while a fan-out ends a slow peer loses and doubles nothing', async t => {
  const domain = createDomain({
    session: { maxSessions: 2000, maxSessionsPerUser: 2000, outboxMessages: 4 },
    gateway: { maxBufferedBytes: 1 }
  })
  const stalled = domain.connect({ stalled: true })
  const peers = Array.from({ length: MANY }, () => domain.connect())
  let sent = 0
  domain.manager.subscribe(({ type }) => {
    if (type === 'detached') { domain.manager.send({ all: true }, 'said', 'slow'); sent++ }
  })
  for (let n = 1; n <= 16; n++) domain.manager.send({ all: true }, 'news', n)
  while (domain.slice() > 0) {
    for (const peer of peers) {
      peer.send({ type: 'ack', seq: peer.frames().reduce((most, { seq = 0 }) => Math.max(most, seq), 0) })
    }
  }
  t.equal(sent, 1)
  t.not(stalled.transport.closed, undefined)
  for (const peer of peers) {
    const seqs = peer.frames().flatMap(({ seq }) => seq ?? [])
    t.strictSame(seqs, Array.from({ length: 17 }, (_, i) => i + 1))
    t.equal(new Set(events(peer)).size, 17)
  }
})

t.test('whatever is sent to whomever while slices run arrives in the order it was sent in', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  const step = fc.oneof(
    fc.constant({ kind: 'all' as const }), fc.constant({ kind: 'ann' as const }),
    fc.constant({ kind: 'slice' as const }),
    fc.nat(79).map(at => ({ kind: 'one' as const, at }))
  )
  fc.assert(fc.property(fc.array(step, { maxLength: 25 }), steps => {
    const domain = createCrowd(80)
    const bobs = Array.from({ length: 70 }, () => domain.connect({ userId: 'bob' }))
    const due = new Map<Peer, number[]>([...domain.peers, ...bobs].map(peer => [peer, []]))
    for (const [n, one] of steps.entries()) {
      const targets = one.kind === 'all'
        ? [...due.keys()]
        : one.kind === 'ann' ? domain.peers : one.kind === 'one' ? [domain.peers[one.at] as Peer] : []
      for (const peer of targets) due.get(peer)?.push(n)
      if (one.kind === 'slice') {
        domain.slice()
      } else {
        domain.manager.send(
          one.kind === 'all'
            ? { all: true }
            : one.kind === 'ann' ? { userId: 'ann' } : { sessionId: (targets[0] as Peer).welcome.sessionId },
          'e',
          n
        )
      }
    }
    finish(domain)
    domain.turn()
    for (const [peer, expected] of due) {
      if (events(peer).join() !== expected.join()) return false
      if (peer.frames().flatMap(({ seq }) => seq ?? []).join() !== expected.map((_, i) => i + 1).join()) return false
    }
    return true
  }), { seed: FUZZ_SEED, numRuns: 60 })
})
