// Sessions that come to this node from another one, and go there while somebody here waits for
// them: two nodes over one store, every order of events on purpose.

import t from 'tap'
import type { ModelFleet, ModelNode } from '../../helpers/model-fleet.js'
import { createModelFleet } from '../../helpers/model-fleet.js'
import type { Peer, Welcome } from '../../helpers/domain.js'

/** A client whose first answer has come on node a. */
async function startTwo (): Promise<{ fleet: ModelFleet, a: ModelNode, b: ModelNode, peer: Peer, welcome: Welcome }> {
  const fleet = createModelFleet()
  const a = await fleet.start('a')
  const b = await fleet.start('b')
  for (const node of [a, b]) node.dispatcher.command('echo', {}, ({ payload }) => payload)
  const peer = await a.connectLate()
  peer.send({ command: 'echo', payload: 1, id: 1 })
  await fleet.settle()
  return { fleet, a, b, peer, welcome: peer.welcome }
}

const offerOf = ({ sessionId, resumeToken: token }: Welcome, lastSeq = 1) => ({ resume: { sessionId, token, lastSeq } })

t.test('P-35 a handshake whose session went to another node before it attached is told to resume', async t => {
  const { fleet, a, b, peer, welcome } = await startTwo()
  peer.close()
  await fleet.settle()
  const entry = await a.entrance.enter({ profile: 'full', userId: 'ann', ...offerOf(welcome) })
  // An earlier attempt of the same client, which only now gets through.
  const earlier = b.connectLate(offerOf(welcome))
  await fleet.pass(1000)
  t.equal((await earlier).welcome.sessionId, welcome.sessionId)
  t.match(a.entrance.obstacle(entry), { code: 4204 })
})

t.test('P-35 a handshake whose session ended before it attached is told so', async t => {
  const { fleet, a, peer, welcome } = await startTwo()
  peer.close()
  await fleet.settle()
  const entry = await a.entrance.enter({ profile: 'full', userId: 'ann', ...offerOf(welcome) })
  a.manager.terminateSession(welcome.sessionId)
  t.match(a.entrance.obstacle(entry), { code: 4301 })
})

t.test('S-11 a resume whose session goes to another node while it is kept follows it', async t => {
  const { fleet, a, b, peer, welcome } = await startTwo()
  a.isDeaf = true
  const taken = await Promise.all([b.connectLate(offerOf(welcome)), fleet.pass(1500)])
  t.equal(taken[0].welcome.sessionId, welcome.sessionId)
  // Node a has not heard of it, and believes that it owns the session.
  a.isDeaf = false
  const back = a.connectLate(offerOf(welcome))
  await fleet.pass(1500)
  t.match((await back).welcome, { sessionId: welcome.sessionId, lastCommand: 1 })
  t.match(peer.transport.closed, { code: 4003 })
})

t.test('S-11 a token that a record of a lost ownership does not know is put to the store', async t => {
  const { fleet, a, b, welcome } = await startTwo()
  a.isDeaf = true
  const [there] = await Promise.all([b.connectLate(offerOf(welcome)), fleet.pass(1500)])
  there.send({ command: 'echo', payload: 2, id: 2 })
  await fleet.settle()
  a.isDeaf = false
  const back = a.connectLate(offerOf(there.welcome, 2))
  await fleet.pass(1500)
  t.match((await back).frames()[0], {
    type: 'session_resumed',
    payload: { sessionId: welcome.sessionId, lastCommand: 2 }
  })
})

t.test('S-10 a claim that meets others all the time is given up after the third', async t => {
  const { fleet, b, peer, welcome } = await startTwo()
  peer.close()
  await fleet.settle()
  let claims = 0
  b.store.claim = async () => {
    claims++
    return 'moved'
  }
  await t.rejects(b.connectLate(offerOf(welcome)), { code: 'STORE_UNAVAILABLE', retryAfterMs: 200 })
  t.equal(claims, 3)
})

t.test('S-10 a claim that lost to another one is made again', async t => {
  const { fleet, b, peer, welcome } = await startTwo()
  peer.close()
  await fleet.settle()
  const { claim } = b.store
  let claims = 0
  b.store.claim = async request => ++claims === 1 ? 'moved' : await claim(request)
  t.equal((await b.connectLate(offerOf(welcome))).welcome.sessionId, welcome.sessionId)
})

t.test('P-28a a claim without an answer leaves the token valid', async t => {
  const { fleet, a, b, peer, welcome } = await startTwo()
  peer.close()
  await fleet.settle()
  b.isCutOff = true
  await t.rejects(Promise.resolve(b.store.claim({
    id: welcome.sessionId, userId: 'ann', tokenHash: 'x', nextTokenHash: 'y', lastSeen: 0, labels: {}
  })).then(result => { if (result === 'unavailable') throw new Error(result) }), { message: 'unavailable' })
  await t.rejects(async () => await b.connectLate(offerOf(welcome)), { code: 'STORE_UNAVAILABLE' })
  t.equal((await a.connectLate(offerOf(welcome))).welcome.sessionId, welcome.sessionId)
})

t.test('P-29 of two handshakes on one node the later one finds what the first has claimed', async t => {
  const { fleet, b, peer, welcome } = await startTwo()
  peer.close()
  await fleet.settle()
  const { claim } = b.store
  let claims = 0
  b.store.claim = async request => {
    claims++
    return await claim(request)
  }
  const [first, second] = await Promise.all([b.connectLate(offerOf(welcome)), b.connectLate(offerOf(welcome))])
  t.equal(claims, 1)
  t.strictSame([first, second].map(({ transport }) => transport.closed?.code), [4003, undefined])
})

t.test('P-29 a handshake whose forerunner failed claims for itself', async t => {
  const { fleet, b, peer, welcome } = await startTwo()
  peer.close()
  await fleet.settle()
  const { claim } = b.store
  let claims = 0
  b.store.claim = async request => ++claims === 1 ? 'unavailable' : await claim(request)
  const [first, second] = await Promise.allSettled([b.connectLate(offerOf(welcome)), b.connectLate(offerOf(welcome))])
  t.match([first, second], [{ status: 'rejected', reason: { code: 'STORE_UNAVAILABLE' } }, { status: 'fulfilled' }])
})

t.test('P-33 a claim of a session that ended tells its holder why', async t => {
  const { fleet, a, b, peer, welcome } = await startTwo()
  peer.send({ type: 'end' })
  await fleet.settle()
  t.match((await b.connectLate(offerOf(welcome))).welcome, { previous: { reason: 'ended_by_client', lastCommand: 1 } })
  t.match((await b.connectLate(offerOf({ ...welcome, resumeToken: 'wrong' }))).welcome, {
    previous: { reason: 'unknown' }
  })
  t.equal(a.manager.tombstoneOf(welcome.sessionId)?.reason, 'ended_by_client')
})

t.test('P-34 a claim by a client that has seen more than the store has ends the session', async t => {
  const { fleet, b, peer, welcome } = await startTwo()
  peer.close()
  await fleet.settle()
  t.match((await b.connectLate(offerOf(welcome, 9))).welcome, { previous: { reason: 'state_lost' } })
})

t.test('P-54 a node that is full claims nothing', async t => {
  const fleet = createModelFleet()
  const a = await fleet.start('a')
  const b = await fleet.start('b', { session: { maxSessions: 1 } })
  const peer = await a.connectLate()
  peer.close()
  await fleet.settle()
  await b.connectLate()
  await t.rejects(b.connectLate(offerOf(peer.welcome, 0)), { code: 'SERVER_FULL' })
})

t.test('P-10 a command that was open when its node died is answered OUTCOME_UNKNOWN', async t => {
  const { fleet, a, b, peer, welcome } = await startTwo()
  a.dispatcher.command('hang', { idempotent: false }, () => new Promise(() => {}))
  peer.send({ command: 'hang', id: 2 })
  await fleet.settle()
  a.isDeaf = true
  const [there] = await Promise.all([b.connectLate(offerOf(welcome)), fleet.pass(1500)])
  await fleet.settle()
  t.match(there.takeOnly('error'), [{ seq: 2, id: 2, code: 'OUTCOME_UNKNOWN' }])
})
