// P-54, P-36 and P-51: what gives way, so that what people hold now is not locked out by what they
// held before.

import fc from 'fast-check'
import t from 'tap'
import { createDetachedSessions } from '../../../src/io/session/detached.js'
import type { SessionRecord } from '../../../src/io/session/record.js'
import { FUZZ_SEED } from '../../helpers/fuzz-seed.js'
import { buildRecord, createDomain, type Domain, type Peer } from '../../helpers/domain.js'

/** A tab: opened, heard of once, closed by the death of its socket. */
function openAndClose (domain: Domain, userId = 'ann'): Peer {
  const peer = domain.connect({ userId })
  peer.send({ type: 'ack', seq: 0 })
  peer.close(1006)
  domain.clock.advance(1000)
  return peer
}

t.test('P-54 a user who opened and closed tabs all day is let in; the longest detached session gives way', async t => {
  // 64 closed tabs within an hour locked their user out with 429 until the window of the first was
  // over.
  const domain = createDomain({ session: { maxSessionsPerUser: 3 } })
  const tabs = Array.from({ length: 3 }, () => openAndClose(domain))
  const fourth = domain.connect()
  t.equal(fourth.take()[0]?.type, 'session_created')
  domain.turn()
  t.match(
    domain.events.filter(({ type }) => type === 'ended'), [{ sessionId: tabs[0]?.welcome.sessionId, reason: 'quota' }]
  )
  t.match(domain.manager.tombstoneOf(tabs[0]?.welcome.sessionId as string), { reason: 'quota' })
  t.equal(domain.manager.totals.ended.quota, 1)
  t.equal(domain.manager.sessionsOfUser('ann').length, 3)
  const back = domain.resume((tabs[1] as Peer).welcome, 0)
  t.equal(back.take()[0]?.type, 'session_resumed', 'the others can be resumed')
  const late = domain.resume((tabs[0] as Peer).welcome, 0)
  t.match(late.welcome.previous, { reason: 'quota', lastCommand: 0 })
  t.equal(
    domain.manager.peekSession((tabs[2] as Peer).welcome.sessionId),
    undefined,
    'P-54 a refused resume starts a session, which needs room'
  )
})

t.test('P-54 what was detached longest goes first, not what was created first', async t => {
  const domain = createDomain({ session: { maxSessionsPerUser: 2 } })
  const first = domain.connect()
  const second = openAndClose(domain)
  first.close(1006)
  domain.connect()
  t.equal(domain.manager.peekSession(second.welcome.sessionId), undefined)
  t.equal(domain.manager.peekSession(first.welcome.sessionId)?.state, 'detached')
})

t.test('P-54 attached sessions never give way: they alone refuse, and nothing else ends', async t => {
  const domain = createDomain({ session: { maxSessionsPerUser: 2, maxSessions: 4 } })
  const attached = [domain.connect(), domain.connect()]
  t.throws(() => domain.sessions.quota.check('ann'), { code: 'USER_QUOTA' })
  t.throws(() => domain.sessions.open('ann', 'full'), { code: 'USER_QUOTA' })
  const others = [domain.connect({ userId: 'bob' }), domain.connect({ userId: 'cyd' })]
  t.throws(() => domain.sessions.quota.check('dan'), { code: 'SERVER_FULL' })
  t.throws(() => domain.connect({ userId: 'dan' }), { code: 'SERVER_FULL' })
  t.strictSame(
    [...attached, ...others].map(({ transport }) => transport.closed), [undefined, undefined, undefined, undefined]
  )
  t.equal(domain.manager.totals.ended.quota + domain.manager.totals.ended.overloaded, 0)
})

t.test('P-54 on a full server a user\'s own detached session gives way first, then the longest detached', async t => {
  const domain = createDomain({ session: { maxSessions: 4 } })
  const bob = openAndClose(domain, 'bob')
  const cyd = openAndClose(domain, 'cyd')
  const ann = openAndClose(domain, 'ann')
  domain.connect({ userId: 'dan' })
  const state = (peer: Peer): string | undefined => domain.manager.tombstoneOf(peer.welcome.sessionId)?.reason
  domain.connect({ userId: 'ann' })
  t.strictSame([bob, cyd, ann].map(state), [undefined, undefined, 'overloaded'])
  domain.connect({ userId: 'ann' })
  t.strictSame([bob, cyd, ann].map(state), ['overloaded', undefined, 'overloaded'])
  t.equal(domain.manager.totals.ended.overloaded, 2)
})

t.test('P-54 a user without a quota displaces nobody until the server is full', async t => {
  const domain = createDomain({ session: { maxSessionsPerUser: 1 }, unlimitedUserId: 'ann' })
  for (let n = 0; n < 5; n++) openAndClose(domain)
  t.equal(domain.manager.countSessions().total, 5)
})

t.test('P-54 a session that the platform created and nobody has joined yet keeps its place', async t => {
  const domain = createDomain({ session: { maxSessionsPerUser: 1 } })
  const { id } = domain.manager.createSession('ann')
  t.throws(() => domain.manager.createSession('ann'), { code: 'USER_QUOTA' })
  t.ok(domain.manager.peekSession(id))
})

t.test('P-54 the orders agree with a naive model, whatever comes and goes', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  fc.assert(fc.property(fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 0, max: 11 })), { maxLength: 60 }), steps => {
    const records = Array.from({ length: 12 }, (_, n) => buildRecord({ id: `r${n}`, userId: `u${n % 3}` }))
    const detached = createDetachedSessions<SessionRecord>()
    let model: SessionRecord[] = []
    for (const [files, n] of steps) {
      const record = records[n] as SessionRecord
      if (!files) {
        detached.remove(record)
        model = model.filter(each => each !== record)
      } else if (!model.includes(record)) {
        detached.file(record)
        model.push(record)
      }
      if (detached.oldest() !== model[0]) return false
      for (const userId of ['u0', 'u1', 'u2']) {
        if (detached.oldestOf(userId) !== model.find(each => each.userId === userId)) return false
      }
    }
    return true
  }), { seed: FUZZ_SEED, numRuns: 500 })
})

t.test('P-36 a session its client may not know of is kept for 30 s; a known or used one for the window', async t => {
  const domain = createDomain()
  const silent = domain.connect({ userId: 'silent' })
  const heard = domain.connect({ userId: 'heard' })
  heard.send({ type: 'ack', seq: 0 })
  const holding = domain.connect({ userId: 'holding' })
  domain.manager.send({ sessionId: holding.welcome.sessionId }, 'e', 1)
  const peers = [silent, heard, holding]
  for (const peer of peers) peer.close(1006)
  const alive = (): boolean[] => peers.map(({ welcome }) => domain.manager.peekSession(welcome.sessionId) !== undefined)
  domain.clock.advance(30_000)
  domain.manager.purgeStaleSessions()
  t.strictSame(alive(), [true, true, true])
  domain.clock.advance(1)
  domain.manager.purgeStaleSessions()
  t.strictSame(alive(), [false, true, true])
  t.match(domain.manager.tombstoneOf(silent.welcome.sessionId), { reason: 'resume_window' })
  t.equal(domain.resume(heard.welcome, 0).take()[0]?.type, 'session_resumed')
})

/**
 * Sends three outputs of which the second has `size` bytes, acknowledges the first, and resumes
 * after each end.
 */
function refuseSecond (domain: Domain, size: number): { peer: Peer, end: (code: number, lastSeq?: number) => Peer } {
  let peer = domain.connect()
  const { sessionId } = peer.welcome
  for (const length of [1, size, 1]) domain.manager.send({ sessionId }, 'e', 'x'.repeat(length))
  domain.turn()
  return {
    peer,
    end (code, lastSeq = 1) {
      peer.close(code)
      peer = domain.resume(peer.welcome, lastSeq)
      return peer
    }
  }
}

t.test('P-51 an output with which its client closed three connections is given up; the next is reached', async t => {
  // A client with a limit of its own was replayed the same output at each resume and closed with
  // 1009, for ever.
  for (const code of [1009, 1007, 1003, 1002]) {
    const domain = createDomain()
    const { end } = refuseSecond(domain, 100)
    t.match(end(code).welcome, { replay: { from: 2, to: 3 }, gap: null })
    t.match(end(code).welcome, { replay: { from: 2, to: 3 }, gap: null })
    const heldBytes = domain.manager.countSessions().outboxBytes
    const peer = end(code)
    t.match(peer.welcome, { replay: { from: 3, to: 3 }, gap: { from: 2, to: 2 } })
    t.match(peer.takeOnly('message'), [{ seq: 3 }])
    t.equal(domain.manager.totals.outputsDropped, 1)
    t.ok(domain.manager.countSessions().outboxBytes < heldBytes)
    t.match(domain.log.lines.filter(({ level }) => level === 'warn'), [{
      fields: { seq: 2 },
      message: 'output given up: its client does not take it'
    }])
  }
})

t.test('P-51 a large output is given up after nine losses right after it was sent; a small one never is', async t => {
  const domain = createDomain()
  const { end } = refuseSecond(domain, 20_000)
  for (let loss = 1; loss <= 8; loss++) t.equal(end(1006).welcome.gap, null, `${loss}`)
  t.strictSame(end(1006).welcome.gap, { from: 2, to: 2 })
  const other = createDomain()
  const small = refuseSecond(other, 10_000)
  for (let loss = 1; loss <= 30; loss++) t.equal(small.end(1006).welcome.gap, null)
})

t.test('P-51 progress forgives: an ack between the closes starts the count anew', async t => {
  const domain = createDomain()
  const { end } = refuseSecond(domain, 100)
  end(1009, 0)
  end(1009, 0)
  for (let n = 0; n < 2; n++) t.equal(end(1009, 1).welcome.gap, null)
  t.strictSame(end(1009, 1).welcome.gap, { from: 2, to: 2 })
})

t.test('P-51 other ends do not count: not sent whole, sent long ago, or closed for another reason', async t => {
  const domain = createDomain()
  const { end } = refuseSecond(domain, 20_000)
  let peer = end(1001)
  for (let n = 0; n < 12; n++) peer = end(1001)
  for (let n = 0; n < 12; n++) {
    domain.clock.advance(10_001)
    peer = end(1006)
  }
  for (let n = 0; n < 12; n++) {
    peer.transport.bufferedBytes = 1
    peer = end(1006)
  }
  for (let n = 0; n < 12; n++) peer = domain.resume(peer.welcome, 1)
  t.strictSame([peer.welcome.gap, peer.welcome.replay], [null, { from: 2, to: 3 }])
  t.equal(domain.manager.totals.outputsDropped, 0)
})
