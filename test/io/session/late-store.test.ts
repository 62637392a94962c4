// The manager over a store whose writes settle late, out of order, or never: what S-2 promises to clients is kept by the manager.

import t from 'tap'
import { createMemoryStore } from '../../../src/stores/memory.js'
import { createDelayingStore, type DelayingStore } from '../../contract/delaying-store.js'
import { createDomain, type Domain, type DomainOptions, type Frame } from '../../helpers/domain.js'

function createLateDomain (options: DomainOptions = {}): Domain & { late: DelayingStore } {
  const late = createDelayingStore(createMemoryStore())
  return Object.assign(createDomain({ ...options, store: late }), { late })
}

function seqs (frames: Frame[]): (number | undefined)[] {
  return frames.filter(frame => frame.seq !== undefined).map(frame => frame.seq)
}

t.test('S-2 no output leaves before its commit settled', async t => {
  const { late, connect, dispatcher, settle } = createLateDomain()
  dispatcher.command('echo', {}, ({ payload }) => payload)
  const peer = connect()
  late.settleAll()
  peer.take()
  peer.send({ command: 'echo', id: 1, payload: 'x' })
  await settle()
  t.strictSame(peer.take(), [])
  late.settleAll()
  await settle()
  t.strictSame(peer.take(), [{ seq: 1, type: 'result', id: 1, payload: 'x' }])
})

t.test('S-2 a commit that settles first lets everything up to its seq go, in order; the earlier ones change nothing', async t => {
  const { late, connect, manager, settle } = createLateDomain()
  const peer = connect()
  late.settleAll()
  peer.take()
  for (let n = 1; n <= 4; n++) manager.send({ sessionId: peer.welcome.sessionId }, 'e', n)
  late.settle(2)
  await settle()
  t.strictSame(seqs(peer.take()), [1, 2, 3])
  late.settle(0)
  late.settle(0)
  await settle()
  t.strictSame(seqs(peer.take()), [])
  late.settle(0)
  await settle()
  t.strictSame(seqs(peer.take()), [4])
})

t.test('S-2 a rejected commit closes the connection with 4100, and nothing unkept was seen', async t => {
  const { late, connect, manager, settle, log } = createLateDomain()
  const peer = connect()
  late.settleAll()
  peer.take()
  manager.send({ sessionId: peer.welcome.sessionId }, 'e', 1)
  late.reject(0)
  await settle()
  t.strictSame(peer.take(), [{ type: 'goodbye', payload: { code: 4100, reason: 'internal', action: 'resume_later' } }])
  t.strictSame(peer.transport.closed, { code: 4100, reason: 'internal' })
  t.equal(manager.peekSession(peer.welcome.sessionId)?.state, 'detached')
  t.match(log.lines, [{ level: 'error', fields: { sid: peer.welcome.sessionId, err: { code: 'STORE_UNAVAILABLE' } } }])
})

t.test('S-2 S-8 a store that throws is a store that rejects: the caller does not hear it', async t => {
  const { late, connect, manager, settle } = createLateDomain()
  const peer = connect()
  late.settleAll()
  peer.take()
  late.throwOn('commit')
  t.doesNotThrow(() => manager.send({ sessionId: peer.welcome.sessionId }, 'e', 1))
  await settle()
  t.strictSame(peer.take().map(frame => frame.type), ['goodbye'])
  t.equal(peer.transport.closed?.code, 4100)
})

t.test('S-2 a client that comes back after a rejected commit gets what was not kept once it is', async t => {
  const { late, connect, resume, manager, settle } = createLateDomain()
  const peer = connect()
  late.settleAll()
  peer.take()
  manager.send({ sessionId: peer.welcome.sessionId }, 'e', 1)
  late.reject(0)
  await settle()
  const again = resume(peer.welcome, 0)
  t.strictSame(again.welcome.replay, { from: 1, to: 1 })
  t.strictSame(again.take().map(frame => frame.type), ['session_resumed'])
  late.settleAll()
  await settle()
  t.strictSame(again.take().map(frame => [frame.type, frame.seq]), [['message', 1], ['live', undefined]])
})

t.test('S-8 a store that stays broken closes every connection that comes back, and never shows what it did not keep', async t => {
  const { late, connect, resume, manager, settle } = createLateDomain()
  const peer = connect()
  late.settleAll()
  late.throwOn('commit')
  manager.send({ sessionId: peer.welcome.sessionId }, 'e', 1)
  await settle()
  const again = resume(peer.welcome, 0)
  await settle()
  t.strictSame(again.frames().map(frame => frame.type), ['session_resumed', 'goodbye'])
  t.equal(again.transport.closed?.code, 4100)
  late.throwOn(undefined)
  const healed = resume(again.welcome, 0)
  late.settleAll()
  await settle()
  t.strictSame(healed.frames().map(frame => frame.type), ['session_resumed', 'message', 'live'])
})

t.test('S-8 a session that the store refuses late is ended, and its connection told', async t => {
  const { late, connect, manager, settle, log } = createLateDomain()
  const peer = connect()
  late.reject(0)
  await settle()
  t.equal(peer.transport.closed?.code, 4302)
  t.equal(manager.countSessions().total, 0)
  t.match(log.lines, [{ level: 'error', fields: { sid: peer.welcome.sessionId } }])
})

t.test('S-8 a session that the store refuses at once is not made', async t => {
  const { late, connect, manager, gateway } = createLateDomain()
  late.throwOn('add')
  t.throws(() => manager.createSession('ann'), { code: 'STORE_UNAVAILABLE' })
  const peer = connect()
  t.strictSame(peer.frames().map(frame => frame.type), ['goodbye'])
  t.equal(peer.transport.closed?.code, 4104)
  peer.close()
  t.strictSame([manager.countSessions().total, manager.totals.created, gateway.connections], [0, 0, 0])
})

t.test('S-8 a removal that fails, early or late, is logged and nothing else', async t => {
  const { late, manager, settle, log } = createLateDomain()
  const [a, b] = [manager.createSession('ann'), manager.createSession('ann')]
  late.settleAll()
  t.equal(manager.terminateSession(a.id), true)
  late.reject(0)
  late.throwOn('remove')
  t.equal(manager.terminateSession(b.id), true)
  await settle()
  t.strictSame(log.lines.map(line => [line.level, line.fields.sid]).sort(), [['error', a.id], ['error', b.id]])
})

t.test('S-2 a commit that settles after the session ended, or after its connection went, harms nobody', async t => {
  const { late, connect, manager, settle, log } = createLateDomain()
  const [gone, ended] = [connect(), connect()]
  late.settleAll()
  for (const peer of [gone, ended]) manager.send({ sessionId: peer.welcome.sessionId }, 'e', 1)
  gone.close(1006)
  manager.terminateSession(ended.welcome.sessionId)
  late.settleAll()
  await settle()
  t.strictSame([...gone.frames(), ...ended.frames()].map(frame => frame.type), ['session_created', 'session_created', 'goodbye'])
  t.strictSame(log.lines, [])
})

t.test('P-30 outputs that are kept during a replay come in order, with live right behind the replay', async t => {
  const { late, connect, resume, manager, settle } = createLateDomain()
  const peer = connect()
  peer.close(1006)
  const { sessionId } = peer.welcome
  for (let n = 1; n <= 2; n++) manager.send({ sessionId }, 'e', n)
  const again = resume(peer.welcome, 0)
  manager.send({ sessionId }, 'e', 3)
  t.strictSame(again.take().map(frame => frame.type), ['session_resumed'])
  late.settleAll()
  await settle()
  t.strictSame(again.take().map(frame => frame.seq ?? frame.type), [1, 2, 'live', 3])
})

t.test('P-24 the basic profile waits for the store as well, and keeps nothing after it', async t => {
  const { late, connect, manager, settle } = createLateDomain()
  const peer = connect({ profile: 'basic' })
  late.settleAll()
  peer.take()
  const { sessionId } = peer.welcome
  manager.send({ sessionId }, 'e', 1)
  manager.send({ sessionId }, 'e', 2)
  t.strictSame(peer.take(), [])
  t.equal(manager.peekSession(sessionId)?.outboxMessages, 2)
  late.settle(0)
  await settle()
  t.strictSame(seqs(peer.take()), [1])
  t.equal(manager.peekSession(sessionId)?.outboxMessages, 1)
  late.settleAll()
  await settle()
  t.strictSame(seqs(peer.take()), [2])
  t.equal(manager.countSessions().outboxBytes, 0)
})

t.test('P-12 a duplicate whose answer is not kept yet gets nothing now, and the answer once', async t => {
  const { late, connect, dispatcher, settle } = createLateDomain()
  let runs = 0
  dispatcher.command('count', {}, () => ++runs)
  const peer = connect()
  late.settleAll()
  peer.take()
  peer.send({ command: 'count', id: 1 })
  peer.send({ command: 'count', id: 1 })
  await settle()
  t.strictSame(peer.take(), [])
  late.settleAll()
  await settle()
  t.strictSame(peer.take(), [{ seq: 1, type: 'result', id: 1, payload: 1 }])
})

t.test('P-25 outputs that overflow before the store kept them are a gap, never a surprise', async t => {
  const { late, connect, resume, manager, settle } = createLateDomain({ session: { outboxMessages: 2 } })
  const peer = connect()
  peer.close(1006)
  const { sessionId } = peer.welcome
  for (let n = 1; n <= 5; n++) manager.send({ sessionId }, 'e', n)
  late.settleAll()
  await settle()
  const again = resume(peer.welcome, 0)
  t.strictSame([again.welcome.gap, again.welcome.replay], [{ from: 1, to: 3 }, { from: 4, to: 5 }])
  late.settleAll()
  await settle()
  t.strictSame(seqs(again.frames()), [4, 5])
})
