// A shared store that came back empty is given the sessions again that nodes have in memory.

import t from 'tap'
import { createModelFleet, type ModelFleet, type ModelNode } from '../../helpers/model-fleet.js'
import type { Peer, Welcome } from '../../helpers/domain.js'

interface Scene { fleet: ModelFleet, a: ModelNode, b: ModelNode, peer: Peer, welcome: Welcome, id: string }

/** A client on node a that has acknowledged nothing of two answers. */
async function start (): Promise<Scene> {
  const fleet = createModelFleet()
  const a = await fleet.start('a')
  const b = await fleet.start('b')
  for (const node of [a, b]) node.dispatcher.command('echo', {}, ({ payload }) => payload)
  const peer = await a.connectLate({ context: { step: 1 } })
  for (const id of [1, 2]) peer.send({ command: 'echo', payload: id, id })
  await fleet.settle()
  peer.take()
  return { fleet, a, b, peer, welcome: peer.welcome, id: peer.welcome.sessionId }
}

const offerOf = ({ sessionId, resumeToken: token }: Welcome, lastSeq: number) => ({
  resume: { sessionId, token, lastSeq }
})

t.test('S-21 an attached session is there again with its next batch, and no output is lost or doubled', async t => {
  const { fleet, b, peer, welcome, id } = await start()
  fleet.redis.empty()
  peer.send({ command: 'echo', payload: 3, id: 3 })
  await fleet.settle()
  t.match(peer.take(), [{ seq: 3, id: 3 }])
  t.equal(peer.transport.closed, undefined)
  const [there] = await Promise.all([b.connectLate(offerOf(welcome, 1)), fleet.pass(1000)])
  t.match(there.welcome, { sessionId: id, lastCommand: 3, replay: { from: 2, to: 3 }, gap: null })
  t.strictSame(b.manager.peekSession(id)?.context, { step: 1 })
})

t.test('S-21 a session that has nothing to write is found missing and given again', async t => {
  const { fleet, a, peer, id } = await start()
  await fleet.pass(1000)
  fleet.redis.empty()
  for (let n = 0; n < 14; n++) {
    await a.store.tick()
    await fleet.pass(5000)
  }
  t.equal(fleet.redis.sessions.get(id)?.fields.get('ls'), '2')
  peer.send({ command: 'echo', payload: 3, id: 3 })
  await fleet.settle()
  t.match(peer.take(), [{ seq: 3, id: 3 }])
})

t.test('S-21 what is sent while the session is given again follows it', async t => {
  const { fleet, a, peer, id } = await start()
  fleet.redis.empty()
  peer.send({ command: 'echo', payload: 3, id: 3 })
  peer.send({ command: 'echo', payload: 4, id: 4 })
  a.manager.send({ sessionId: id }, 'news', 1)
  await fleet.settle()
  t.strictSame(peer.take().map(({ seq }) => seq), [3, 4, 5])
  t.equal(fleet.redis.sessions.get(id)?.fields.get('ls'), '5')
})

t.test('S-21 a push after that is numbered once, though the inbox begins anew', async t => {
  const { fleet, b, peer, id } = await start()
  await b.store.push(id, { pushId: null, tail: ',"type":"message","event":"e","payload":"before"}' })
  await fleet.settle()
  fleet.redis.empty()
  peer.send({ command: 'echo', payload: 3, id: 3 })
  await fleet.settle()
  await b.store.push(id, { pushId: null, tail: ',"type":"message","event":"e","payload":"after"}' })
  await fleet.settle()
  t.strictSame(peer.take().map(({ seq, payload }) => [seq, payload]), [[3, 'before'], [4, 3], [5, 'after']])
})

t.test('S-21 a store that is away again meanwhile is told later', async t => {
  const { fleet, a, peer, id } = await start()
  const { find } = a.store
  fleet.redis.empty()
  a.store.find = async wanted => {
    const found = await find(wanted)
    a.isCutOff = true
    return found
  }
  peer.send({ command: 'echo', payload: 3, id: 3 })
  await fleet.settle()
  t.strictSame([peer.take(), a.sessions.committer.backlog], [[], 1])
  a.isCutOff = false
  a.sessions.committer.retry()
  await fleet.settle()
  t.match(peer.take(), [{ seq: 3, id: 3 }])
  t.strictSame([a.sessions.committer.backlog, fleet.redis.sessions.get(id)?.fields.get('ls')], [0, '3'])
})

t.test('S-21 a session that ends before it could be given again leaves its tombstone', async t => {
  const { fleet, a, peer, id } = await start()
  const { find } = a.store
  fleet.redis.empty()
  a.store.find = async wanted => {
    const found = await find(wanted)
    a.isCutOff = true
    return found
  }
  peer.send({ command: 'echo', payload: 3, id: 3 })
  await fleet.settle()
  peer.send({ type: 'end' })
  a.isCutOff = false
  a.sessions.committer.retry()
  await fleet.settle()
  t.strictSame([fleet.redis.sessions.has(id), fleet.redis.tombstones.has(id)], [false, true])
  t.match(peer.transport.closed, { code: 4000 })
})

t.test('S-21 a node whose session another one has given first has lost it', async t => {
  const { fleet, a, b, peer, welcome, id } = await start()
  // It stood still while another node took the session, and has not noticed.
  a.isDeaf = true
  const [there] = await Promise.all([b.connectLate(offerOf(welcome, 2)), fleet.pass(1500)])
  fleet.redis.empty()
  there.send({ command: 'echo', payload: 3, id: 3 })
  await fleet.settle()
  peer.send({ command: 'echo', payload: 'late', id: 3 })
  await fleet.settle()
  t.match(there.takeOnly('result'), [{ seq: 3, payload: 3 }])
  t.match(peer.transport.closed, { code: 4204 })
  t.equal(a.manager.peekSession(id), undefined)
})

t.test('S-21 a session that an operator ended stays ended', async t => {
  const { fleet, a, b, peer, id } = await start()
  a.isDeaf = true
  await b.store.terminate(id, 'ended_by_operator')
  peer.send({ command: 'echo', payload: 3, id: 3 })
  await fleet.settle()
  t.match(peer.transport.closed, { code: 4001 })
  t.equal(fleet.redis.sessions.has(id), false)
})
