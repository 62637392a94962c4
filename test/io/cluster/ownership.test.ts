// How a node gives sessions up and what it does when the store tells it of others: over the model
// of Redis, without time.

import t from 'tap'
import { createModelFleet, type ModelFleet, type ModelNode } from '../../helpers/model-fleet.js'
import type { Peer, Welcome } from '../../helpers/domain.js'

interface Scene { fleet: ModelFleet, a: ModelNode, b: ModelNode, peer: Peer, welcome: Welcome, id: string }

async function start (): Promise<Scene> {
  const fleet = createModelFleet()
  const a = await fleet.start('a')
  const b = await fleet.start('b')
  for (const node of [a, b]) {
    node.dispatcher.command('echo', {}, ({ payload }) => payload)
    node.dispatcher.command('hang', {}, () => new Promise(() => {}))
  }
  const peer = await a.connectLate()
  peer.send({ command: 'echo', payload: 1, id: 1 })
  await fleet.settle()
  peer.take()
  return { fleet, a, b, peer, welcome: peer.welcome, id: peer.welcome.sessionId }
}

const offerOf = ({ sessionId, resumeToken: token }: Welcome, lastSeq = 1) => ({ resume: { sessionId, token, lastSeq } })
const tailOf = (payload: unknown): string => `,"type":"message","event":"e","payload":${JSON.stringify(payload)}}`
const fenceOf = ({ a, id }: Scene): number => a.sessions.directory.get(id)?.journal?.fence as number

t.test('S-11 a session is handed over with what its connection is told, and leaves nothing behind', async t => {
  const scene = await start()
  const { a, fleet, peer, id } = scene
  await Promise.all([a.ownership.hooks.handOff(id, fenceOf(scene)), fleet.pass(300)])
  t.match(peer.transport.closed, { code: 4003 })
  t.strictSame([a.manager.peekSession(id), fleet.redis.sessions.get(id)?.fields.get('o')], [undefined, ''])
})

t.test('S-11 a command that runs is waited for 300 ms, and is open for the next node then', async t => {
  const scene = await start()
  const { a, fleet, peer, id } = scene
  peer.send({ command: 'hang', id: 2 })
  await fleet.settle()
  let released = false
  void a.ownership.hooks.handOff(id, fenceOf(scene)).then(() => { released = true })
  await fleet.pass(299)
  t.equal(released, false)
  await fleet.pass(1)
  await fleet.settle()
  t.equal(released, true)
  t.equal(fleet.redis.sessions.get(id)?.fields.get('op'), '2')
})

// They were answered OUTCOME_UNKNOWN by the next node, though no handler had been called.
t.test('S-11 commands that have not begun are executed by the next node, when they come again', async t => {
  const { a, b, fleet, peer, welcome } = await start()
  const executed: unknown[] = []
  for (const node of [a, b]) {
    node.dispatcher.command('note', { serial: true }, ({ payload }) => { executed.push(payload); return payload })
  }
  peer.send({ command: 'hang', id: 2 })
  peer.send({ command: 'note', payload: 'first', id: 3 })
  await fleet.settle()
  const [there] = await Promise.all([b.connectLate(offerOf(welcome)), fleet.pass(300)])
  t.match(there.take().filter(({ id }) => id === 2), [{ type: 'error', code: 'OUTCOME_UNKNOWN' }])
  t.equal(there.welcome.lastCommand, 2)
  there.send({ command: 'note', payload: 'first', id: 3 })
  await fleet.settle()
  t.match(there.take(), [{ type: 'result', id: 3, payload: 'first' }])
  t.strictSame(executed, ['first'])
})

t.test('S-11 an answer that the store could not be told goes with a session that is asked for', async t => {
  const { a, b, fleet, peer, welcome, id } = await start()
  let answer = (_: unknown): void => {}
  a.dispatcher.command('wait', {}, () => new Promise(resolve => { answer = resolve }))
  peer.send({ command: 'wait', id: 2 })
  await fleet.settle()
  t.equal(fleet.redis.sessions.get(id)?.fields.get('op'), '2')
  a.isCutOff = true
  answer('done')
  await fleet.settle()
  a.isCutOff = false
  // Nobody has tried again since: `retry` comes every second.
  const [there] = await Promise.all([b.connectLate(offerOf(welcome)), fleet.pass(1000)])
  t.match(there.take().filter(({ id }) => id === 2), [{ seq: 2, type: 'result', payload: 'done' }])
  t.match(b.store.stats.handOffs, { asked: 1, released: 1, taken: 0 })
})

t.test('S-11 nor is it lost where the node has let the session go, and could not tell the store', async t => {
  const { a, b, fleet, peer, welcome, id } = await start()
  let answer = (_: unknown): void => {}
  a.dispatcher.command('wait', {}, () => new Promise(resolve => { answer = resolve }))
  peer.send({ command: 'wait', id: 2 })
  await fleet.settle()
  peer.close()
  a.isCutOff = true
  answer('done')
  await fleet.settle()
  a.isCutOff = false
  t.strictSame([a.manager.peekSession(id), fleet.redis.sessions.get(id)?.fields.get('op')], [undefined, '2'])
  const [there] = await Promise.all([b.connectLate(offerOf(welcome)), fleet.pass(1000)])
  t.match(there.take().filter(({ id }) => id === 2), [{ seq: 2, type: 'result', payload: 'done' }])
  t.match(b.store.stats.handOffs, { asked: 1, released: 1, taken: 0 })
})

t.test('S-11 an owner that does not listen yet, since Redis was away, is asked again', async t => {
  const { a, b, fleet, peer, welcome } = await start()
  let answer = (_: unknown): void => {}
  a.dispatcher.command('wait', {}, () => new Promise(resolve => { answer = resolve }))
  for (const node of [a, b]) {
    node.isCutOff = node.isUnheard = true
    await node.store.tick()
    t.equal(node.store.health(), 'degraded')
    node.isCutOff = false
    await node.store.tick()
  }
  peer.send({ command: 'wait', id: 2 })
  await fleet.settle()
  peer.close()
  const back = b.connectLate(offerOf(welcome))
  await fleet.pass(400)
  answer('done')
  a.isUnheard = b.isUnheard = false
  await fleet.pass(200)
  t.match((await back).take().filter(({ id }) => id === 2), [{ seq: 2, type: 'result', payload: 'done' }])
  t.match(b.store.stats.handOffs, { asked: 1, released: 1, taken: 0 })
})

t.test('S-11 a session whose owner has died is taken at once, but for a second where Redis was away', async t => {
  for (const [wasAway, afterMs] of [[false, 0], [true, 1000]] as const) {
    const { a, b, fleet, welcome } = await start()
    a.isUnheard = true
    b.isCutOff = wasAway
    await fleet.pass(5000)
    await b.store.tick()
    b.isCutOff = false
    await b.store.tick()
    let isThere = false
    void b.connectLate(offerOf(welcome)).then(() => { isThere = true })
    await fleet.pass(Math.max(0, afterMs - 1))
    t.equal(isThere, !wasAway)
    await fleet.pass(1)
    t.equal(isThere, true)
  }
})

t.test('S-11 whoever asks while a session parts waits until the store has its last batch', async t => {
  const scene = await start()
  const { a, fleet, peer, welcome, id } = scene
  peer.close()
  await fleet.settle()
  const silent = await a.connectLate(offerOf(welcome))
  let isDone = false
  // The client is listened to, and breaks off meanwhile.
  void a.ownership.hooks.handOff(id, fenceOf(scene)).then(() => { isDone = true })
  await fleet.settle()
  a.isCutOff = true
  silent.close()
  await fleet.pass(100)
  t.strictSame([isDone, a.manager.peekSession(id)], [false, undefined])
  a.isCutOff = false
  await fleet.pass(300)
  t.strictSame([isDone, fleet.redis.sessions.get(id)?.fields.get('o')], [true, ''])
})

t.test('S-11 commands of a client that comes back while its session is asked for have their time too', async t => {
  const { a, b, fleet, peer, welcome, id } = await start()
  const c = await fleet.start('c')
  let answer = (_: unknown): void => {}
  a.dispatcher.command('wait', {}, () => new Promise(resolve => { answer = resolve }))
  peer.send({ command: 'hang', id: 2 })
  peer.close()
  await fleet.settle()
  // Handshakes of the client: earlier ones have reached nodes b and c, which ask for the session.
  void b.connectLate(offerOf(welcome))
  void c.connectLate(offerOf(welcome))
  await fleet.pass(100)
  const [later] = await Promise.all([a.connectLate(offerOf(welcome)), fleet.settle()])
  later.send({ command: 'wait', id: 3 })
  await fleet.pass(20)
  later.close()
  await fleet.pass(100)
  answer('done')
  await fleet.settle()
  t.equal(fleet.redis.sessions.get(id)?.fields.get('op'), '2')
  const [there] = await Promise.all([b.connectLate(offerOf(later.welcome)), fleet.pass(1500)])
  t.match(there.take().filter(({ id }) => id === 3), [{ type: 'result', payload: 'done' }])
})

t.test('S-11 a request for an ownership that was lost long ago does nothing', async t => {
  const scene = await start()
  await scene.a.ownership.hooks.handOff(scene.id, fenceOf(scene) - 1)
  await scene.a.ownership.hooks.handOff('aaaaaaaaaaaaaaaaaaaaaaaaaaaa', fenceOf(scene))
  t.equal(scene.a.manager.peekSession(scene.id)?.state, 'active')
})

t.test('S-11 a session of the basic profile is not handed over', async t => {
  const { a, fleet } = await start()
  const peer = await a.connectLate({ profile: 'basic' })
  const { sessionId } = peer.welcome
  await a.ownership.hooks.handOff(sessionId, a.sessions.directory.get(sessionId)?.journal?.fence as number)
  await fleet.settle()
  t.equal(a.manager.peekSession(sessionId)?.state, 'active')
})

t.test('S-16 what is pushed from another node is numbered by the owner, once', async t => {
  const { a, b, fleet, peer, id } = await start()
  for (const n of [1, 2]) await b.store.push(id, { pushId: null, tail: tailOf(n) })
  await fleet.settle()
  a.ownership.hooks.doorbell(id)
  await fleet.settle()
  t.strictSame(peer.take().map(({ seq, payload }) => [seq, payload]), [[2, 1], [3, 2]])
  t.equal(fleet.redis.sessions.get(id)?.inbox.length, 0)
})

t.test('S-16 a bell that rings while the inbox is read is heard', async t => {
  const { a, b, fleet, peer, id } = await start()
  const { inbox } = a.store
  let rings = 0
  a.store.inbox = async (...args) => {
    const entries = await inbox(...args)
    if (++rings === 1) {
      await b.store.push(id, { pushId: null, tail: tailOf('late') })
      a.ownership.hooks.doorbell(id)
    }
    return entries
  }
  a.ownership.hooks.doorbell(id)
  await fleet.settle()
  t.match(peer.take(), [{ seq: 2, payload: 'late' }])
})

t.test('S-16 an inbox of more than a page is read to its end', async t => {
  const { a, b, fleet, peer, id } = await start()
  a.isDeaf = true
  for (let n = 0; n < 230; n++) await b.store.push(id, { pushId: null, tail: tailOf(n) })
  a.isDeaf = false
  a.ownership.hooks.doorbell(id)
  await fleet.settle()
  t.equal(peer.take().length, 230)
})

t.test('S-16 a session that ends while its inbox is read takes nothing in', async t => {
  const { a, b, fleet, id } = await start()
  const { inbox } = a.store
  a.store.inbox = async (...args) => {
    const entries = await inbox(...args)
    a.manager.terminateSession(id)
    return entries
  }
  await b.store.push(id, { pushId: null, tail: tailOf(1) })
  await fleet.settle()
  t.equal(a.manager.tombstoneOf(id)?.reason, 'ended_by_operator')
  t.equal(fleet.redis.history.get(id)?.length, 2)
})

t.test('S-16 while the store is away the inbox waits', async t => {
  const { a, b, fleet, peer, id } = await start()
  a.isDeaf = true
  await b.store.push(id, { pushId: null, tail: tailOf(1) })
  a.isCutOff = true
  a.ownership.hooks.doorbell(id)
  await fleet.settle()
  t.strictSame(peer.take(), [])
  a.isCutOff = false
  a.ownership.hooks.doorbell(id)
  await fleet.settle()
  t.match(peer.take(), [{ seq: 2 }])
})

t.test('S-3 a bell for a session of another node tells that it is lost', async t => {
  const { a, b, fleet, peer, welcome, id } = await start()
  a.isDeaf = true
  await Promise.all([b.connectLate(offerOf(welcome)), fleet.pass(1500)])
  a.ownership.hooks.doorbell(id)
  await fleet.settle()
  t.match(peer.transport.closed, { code: 4204 })
  t.equal(a.manager.peekSession(id), undefined)
})

t.test('a bell for a session that is not here rings for nothing', async t => {
  const { a, fleet } = await start()
  a.ownership.hooks.doorbell('aaaaaaaaaaaaaaaaaaaaaaaaaaaa')
  await fleet.settle()
  t.equal(a.manager.countSessions().total, 1)
})

t.test('S-17 an evicted session is dropped, and one of a higher fence is not meant', async t => {
  const scene = await start()
  const { a, peer, id } = scene
  a.ownership.hooks.evicted(id, fenceOf(scene) - 1, null)
  t.equal(a.manager.peekSession(id)?.state, 'active')
  a.ownership.hooks.evicted(id, fenceOf(scene), null)
  peer.take()
  t.match(peer.transport.closed, { code: 4204 })
  t.equal(a.manager.peekSession(id), undefined)
})

t.test('S-17 an evicted session that has ended has its tombstone here', async t => {
  const { a, b, fleet, peer, id } = await start()
  await b.store.terminate(id, 'ended_by_operator', 'a note')
  await fleet.settle()
  t.match(peer.transport.closed, { code: 4001 })
  t.match(a.manager.tombstoneOf(id), { reason: 'ended_by_operator' })
})

t.test('S-17 a node that has nothing to write learns with its next tick that the store is back', async t => {
  const { b, id } = await start()
  b.isCutOff = true
  await b.store.find(id)
  t.equal(b.store.health(), 'degraded')
  b.isCutOff = false
  await b.store.tick()
  t.equal(b.store.health(), 'ok')
})

t.test('S-19 what the store has ended is counted, told to subscribers and remembered', async t => {
  const { a, b, fleet, peer, id } = await start()
  await b.store.close()
  peer.close()
  await fleet.pass(600_001)
  await a.store.tick()
  await fleet.settle()
  t.equal(a.manager.totals.ended.resume_window, 1)
  t.match(a.manager.tombstoneOf(id), { reason: 'resume_window' })
  t.match(a.events.at(-1), { type: 'ended', sessionId: id, reason: 'resume_window' })
})

t.test('P-39 a node that cannot keep anything sends its clients elsewhere', async t => {
  const { a, fleet, peer } = await start()
  const others = await Promise.all([a.connectLate(), a.connectLate()])
  t.equal(await a.ownership.dismissAll(), 3)
  await fleet.settle()
  t.strictSame([peer, ...others].map(({ transport }) => transport.closed?.code), [4204, 4204, 4204])
  t.equal(await a.ownership.dismissAll(), 0)
})

t.test('a node that stops gives up every session, and ends those that nobody can resume', async t => {
  const { a, fleet, peer, id } = await start()
  const basic = await a.connectLate({ profile: 'basic' })
  peer.send({ command: 'hang', id: 2 })
  peer.close()
  await Promise.all([a.ownership.partFromAll(5000), fleet.pass(5000)])
  t.strictSame(
    [fleet.redis.sessions.get(id)?.fields.get('o'), fleet.redis.sessions.has(basic.welcome.sessionId)], ['', false]
  )
  t.match(a.log.lines.at(-1), { message: 'sessions given up for other nodes', fields: { sessions: 2, left: 0 } })
})

t.test('a node that stops without its store says what it could not give up', async t => {
  const { a, fleet } = await start()
  a.isCutOff = true
  await Promise.all([a.ownership.partFromAll(5000), fleet.pass(5000)])
  t.match(a.log.lines.at(-1), { message: 'sessions given up for other nodes', fields: { sessions: 1 } })
})

t.test(
  'P-28a a client that has just read its token keeps its session, though an earlier handshake of it asks',
  async t => {
    const { a, b, fleet, peer, welcome, id } = await start()
    peer.close()
    await fleet.settle()
    const later = await a.connectLate(offerOf(welcome))
    const earlier = b.connectLate(offerOf(welcome))
    await fleet.pass(100)
    later.send({ command: 'echo', payload: 2, id: 2 })
    await fleet.pass(1500)
    t.match((await earlier).welcome, { previous: { sessionId: id, reason: 'unknown' } })
    t.match(later.transport.closed, { code: 4204 })
    const back = await b.connectLate(offerOf(later.welcome, 2))
    t.match(back.welcome, { sessionId: id, lastCommand: 2 })
  }
)

t.test('P-29 a client that is silent after its handshake gives way to the one that asks', async t => {
  const { a, b, fleet, peer, welcome, id } = await start()
  peer.close()
  await fleet.settle()
  const silent = await a.connectLate(offerOf(welcome))
  const [there] = await Promise.all([b.connectLate(offerOf(welcome)), fleet.pass(1500)])
  t.match(silent.transport.closed, { code: 4003 })
  t.match(there.welcome, { sessionId: id, lastCommand: 1 })
})
