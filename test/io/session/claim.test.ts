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
