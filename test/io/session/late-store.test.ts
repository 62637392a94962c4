// The runtime over a store whose answers come late, in another order, or say no: what S-2 promises
// to clients is kept here.

import t from 'tap'
import { createDomain, type Domain, type DomainOptions, type Frame, type Peer } from '../../helpers/domain.js'
import { createLateStore, type LateStore } from '../../helpers/late-store.js'

type LateDomain = Domain & { late: LateStore, join(options?: Parameters<Domain['connect']>[0]): Promise<Peer> }

/** `join` connects, with the store answering. */
function createLateDomain (options: DomainOptions = {}): LateDomain {
  const late = createLateStore()
  const domain = createDomain({ ...options, store: late })
  return Object.assign(domain, {
    late,
    async join (connectOptions: Parameters<Domain['connect']>[0] = {}) {
      const peer = domain.connectLate(connectOptions)
      for (let n = 0; n < 3; n++) {
        domain.turn()
        late.answerAll()
        await domain.settle()
      }
      const joined = await peer
      domain.turn()
      await answerEverything(domain, late)
      joined.take()
      return joined
    }
  })
}

async function answerEverything (domain: Domain, late: LateStore): Promise<void> {
  for (let n = 0; n < 3; n++) {
    domain.turn()
    late.answerAll()
    await domain.settle()
  }
}

function seqs (frames: Frame[]): (number | undefined)[] {
  return frames.filter(frame => frame.seq !== undefined).map(frame => frame.seq)
}

t.test('S-2 P-5 a client is told of its session when the store has it, not before', async t => {
  const { late, connectLate, settle, manager, turn } = createLateDomain()
  let joined = false
  const peer = connectLate().then(one => { joined = true; return one })
  await settle()
  t.strictSame([joined, late.pending.map(({ kind }) => kind), manager.countSessions().active], [false, ['create'], 0])
  late.answer(0)
  const one = await peer
  turn()
  t.equal(one.frames()[0]?.type, 'session_created')
  t.equal(manager.countSessions().active, 1)
})

t.test('P-16 a session that the store refuses is not made, and the handshake is told why', async t => {
  for (const [result, code, reason] of [
    ['unavailable', 'STORE_UNAVAILABLE', 'state_lost'], ['user_quota', 'USER_QUOTA', 'quota'],
    ['full', 'SERVER_FULL', 'state_lost']
  ] as const) {
    const late = createLateStore()
    late.create = async () => result
    const { connectLate, manager, gateway } = createDomain({ store: late })
    await t.rejects(connectLate(), { code })
    t.strictSame([manager.countSessions().total, manager.totals.ended[reason], gateway.connections], [0, 1, 0])
  }
})

t.test('P-16 while the store is away handshakes and commands are refused, and nothing runs', async t => {
  const domain = createLateDomain()
  const { late, join, connectLate, dispatcher, manager } = domain
  let runs = 0
  dispatcher.command('count', {}, () => ++runs)
  const peer = await join()
  late.fail('degraded')
  peer.send({ command: 'count', id: 1 })
  t.match(peer.take(), [{ type: 'error', id: 1, code: 'STORE_UNAVAILABLE', retryAfterMs: 1000 }])
  await t.rejects(async () => await connectLate(), { code: 'STORE_UNAVAILABLE', retryAfterMs: 1000 })
  t.throws(() => manager.createSession('ann'), { code: 'STORE_UNAVAILABLE' })
  t.equal(runs, 0)
  late.fail('ok')
  peer.send({ command: 'count', id: 1 })
  domain.sessions.committer.retry()
  await answerEverything(domain, late)
  t.strictSame([runs, peer.take()], [1, [{ seq: 1, type: 'result', id: 1, payload: 1 }]])
})

t.test('S-2 no output leaves before its commit is kept', async t => {
  const domain = createLateDomain()
  const { late, join, manager, settle, turn } = domain
  const peer = await join()
  manager.send({ sessionId: peer.welcome.sessionId }, 'e', 1)
  turn()
  await settle()
  t.strictSame(peer.take(), [])
  late.answer(0)
  await settle()
  t.strictSame(seqs(peer.take()), [1])
})

t.test('S-2 the outputs of a turn are one commit; those that come meanwhile are the next', async t => {
  const { late, join, manager, settle, turn } = createLateDomain()
  const peer = await join()
  const { sessionId } = peer.welcome
  for (let n = 1; n <= 3; n++) manager.send({ sessionId }, 'e', n)
  turn()
  t.match(late.pending, [{ kind: 'commit', batch: { prevSeq: 0, outputs: { length: 3 }, progress: { lastSeq: 3 } } }])
  for (let n = 4; n <= 5; n++) manager.send({ sessionId }, 'e', n)
  turn()
  t.equal(late.pending.length, 1, 'one batch of a session at a time')
  late.answer(0)
  await settle()
  t.strictSame(seqs(peer.take()), [1, 2, 3])
  t.match(late.pending, [{ kind: 'commit', batch: { prevSeq: 3, outputs: { length: 2 }, progress: { lastSeq: 5 } } }])
  late.answer(0)
  await settle()
  t.strictSame(seqs(peer.take()), [4, 5])
})

t.test('S-8 a commit whose answer was lost is tried again with what came since; nothing unkept is seen', async t => {
  const { late, join, manager, settle, turn, sessions } = createLateDomain()
  const peer = await join()
  const { sessionId } = peer.welcome
  manager.send({ sessionId }, 'e', 1)
  turn()
  late.answer(0, 'unavailable')
  await settle()
  manager.send({ sessionId }, 'e', 2)
  turn()
  t.equal(late.pending.length, 0, 'it waits for the next try')
  t.equal(sessions.committer.backlog, 1)
  sessions.committer.retry()
  t.match(late.pending, [{ kind: 'commit', batch: { prevSeq: 0, outputs: { length: 2 }, progress: { lastSeq: 2 } } }])
  t.strictSame(peer.take(), [])
  late.answer(0)
  await settle()
  t.strictSame(seqs(peer.take()), [1, 2])
  t.equal(peer.transport.closed, undefined, 'the connection is not disturbed')
})

t.test('S-8 while the store is away one session at a time tries whether it is back', async t => {
  const { late, join, manager, settle, turn, sessions } = createLateDomain()
  const peers = [await join(), await join(), await join()]
  late.fail('degraded')
  for (const { welcome: { sessionId } } of peers) manager.send({ sessionId }, 'e', 1)
  turn()
  await settle()
  t.equal(sessions.committer.backlog, 3)
  const before = late.batches.length
  sessions.committer.retry()
  await settle()
  t.equal(late.batches.length - before, 1)
  late.fail('ok')
  sessions.committer.retry()
  await settle()
  t.equal(late.batches.length - before, 4)
  late.answerAll()
  await settle()
  for (const peer of peers) t.strictSame(seqs(peer.take()), [1])
})

t.test('S-5 what the store has lost is sent again from memory', async t => {
  const { late, join, manager, settle, turn, log } = createLateDomain()
  const peer = await join()
  const { sessionId } = peer.welcome
  for (const n of [1, 2]) {
    manager.send({ sessionId }, 'e', n)
    turn()
    late.answer(0)
    await settle()
  }
  manager.send({ sessionId }, 'e', 3)
  turn()
  late.answer(0, { gap: 1 })
  await settle()
  t.match(late.pending, [{ kind: 'commit', batch: { prevSeq: 1, outputs: { length: 2 }, progress: { lastSeq: 3 } } }])
  late.answer(0)
  await settle()
  t.strictSame(seqs(peer.frames()), [1, 2, 3])
  t.match(log.lines, [{ level: 'warn', fields: { sid: sessionId, storedSeq: 1, prevSeq: 2 } }])
})

t.test('S-3 a session that another node has taken leaves this one: its connection is told, all goes', async t => {
  for (const [result, code] of [['fenced', 4204], ['missing', 4301]] as const) {
    const { late, join, manager, settle, turn, events } = createLateDomain()
    const peer = await join()
    const { sessionId } = peer.welcome
    manager.send({ sessionId }, 'e', 1)
    turn()
    late.answer(0, result)
    await settle()
    t.strictSame(seqs(peer.take()), [])
    t.equal(peer.transport.closed?.code, code)
    t.strictSame([manager.peekSession(sessionId), manager.tombstoneOf(sessionId)], [undefined, undefined])
    t.strictSame(manager.countSessions(), { active: 0, detached: 0, total: 0, outboxBytes: 0 })
    t.match(events.at(-1), { type: 'detached', sessionId, reason: 'moved' })
  }
})

t.test('P-28 a resume is answered when the store has the new token', async t => {
  const { late, join, connectLate, settle, turn } = createLateDomain()
  const peer = await join()
  peer.close(1006)
  turn()
  late.answerAll()
  await settle()
  const { sessionId, resumeToken: token } = peer.welcome
  let joined = false
  const again = connectLate({ resume: { sessionId, token, lastSeq: 0 } }).then(one => { joined = true; return one })
  await settle()
  t.equal(joined, false)
  t.match(late.pending, [{ kind: 'commit', batch: { access: { tokenHash: String, previousTokenHash: String } } }])
  late.answerAll()
  const two = await again
  turn()
  t.equal(two.frames()[0]?.type, 'session_resumed')
})

t.test('P-35 of two handshakes that resume at once, the later one gets the session', async t => {
  const { late, join, connectLate, settle, turn, manager } = createLateDomain()
  const peer = await join()
  const { sessionId, resumeToken: token } = peer.welcome
  const resume = { sessionId, token, lastSeq: 0 }
  const [first, second] = [connectLate({ resume }), connectLate({ resume })]
  for (let n = 0; n < 3; n++) {
    turn()
    late.answerAll()
    await settle()
  }
  const peers = await Promise.all([first, second])
  turn()
  t.strictSame(peers.map(one => one.transport.closed?.code), [4003, undefined])
  t.equal(peers[1]?.frames()[0]?.type, 'session_resumed')
  t.equal(manager.countSessions().active, 1)
})

t.test('P-33 a session that ends while its resume waits for the store: a new one, and the reason', async t => {
  const { late, join, connectLate, settle, turn, manager } = createLateDomain()
  const peer = await join()
  const { sessionId, resumeToken: token } = peer.welcome
  const again = connectLate({ resume: { sessionId, token, lastSeq: 0 } })
  manager.terminateSession(sessionId)
  for (let n = 0; n < 4; n++) {
    turn()
    late.answerAll()
    await settle()
  }
  const other = await again
  turn()
  t.match(other.welcome, { previous: { sessionId, reason: 'ended_by_operator' } })
})

t.test('the end of a session is told to its client when the store has it', async t => {
  const { late, join, manager, settle } = createLateDomain()
  const peer = await join()
  t.equal(manager.terminateSession(peer.welcome.sessionId), true)
  t.match(late.pending, [{ kind: 'end', tombstone: { reason: 'ended_by_operator', lastCommand: 0 } }])
  await settle()
  t.equal(peer.transport.closed, undefined)
  late.answer(0)
  await settle()
  t.equal(peer.transport.closed?.code, 4001)
})

t.test('S-8 an end that the store could not keep is tried again until it is', async t => {
  const { late, join, manager, settle, sessions, log } = createLateDomain()
  const peer = await join()
  manager.terminateSession(peer.welcome.sessionId)
  late.answer(0, 'unavailable')
  await settle()
  t.equal(peer.transport.closed?.code, 4001)
  t.match(log.lines, [{ level: 'warn', fields: { sid: peer.welcome.sessionId, reason: 'ended_by_operator' } }])
  sessions.committer.retry()
  t.match(late.pending, [{ kind: 'end' }])
  late.answer(0)
  await settle()
  t.equal(sessions.committer.backlog, 0)
})

t.test('a session that ends before the store has answered that it knows it is ended there as well', async t => {
  const { late, manager, settle } = createLateDomain()
  const { id } = manager.createSession('ann')
  t.equal(manager.terminateSession(id), true)
  t.strictSame(late.pending.map(({ kind }) => kind), ['create'])
  late.answer(0)
  await settle()
  t.match(late.pending, [{ kind: 'end', id }])
})

t.test('S-8 a session made in code that the store refuses late ends with state_lost', async t => {
  const { late, manager, settle } = createLateDomain()
  const { id } = manager.createSession('ann')
  late.answer(0, 'unavailable')
  await settle()
  t.equal(manager.tombstoneOf(id)?.reason, 'state_lost')
})

t.test('P-11 a command that may not run twice is recorded before it is executed', async t => {
  const { late, join, dispatcher, settle, turn } = createLateDomain()
  let runs = 0
  dispatcher.command('count', {}, () => ++runs)
  const peer = await join()
  peer.send({ command: 'count', id: 1 })
  turn()
  t.equal(runs, 0)
  t.match(late.pending, [{ batch: { progress: { watermark: 1, open: [{ id: 1, idempotent: false }] }, outputs: [] } }])
  late.answer(0)
  await settle()
  t.equal(runs, 1)
  t.match(late.pending, [{ batch: { progress: { watermark: 1, open: [] }, outputs: { length: 1 } } }])
  late.answer(0)
  await settle()
  t.strictSame(peer.take(), [{ seq: 1, type: 'result', id: 1, payload: 1 }])
})

t.test('an idempotent command is executed at once, and is one commit', async t => {
  const { late, join, dispatcher, settle, turn } = createLateDomain()
  dispatcher.command('echo', { idempotent: true }, ({ payload }) => payload)
  const peer = await join()
  peer.send({ command: 'echo', id: 1, payload: 'x' })
  turn()
  t.match(late.pending, [{ batch: { progress: { watermark: 1, open: [] }, outputs: { length: 1 } } }])
  late.answer(0)
  await settle()
  t.strictSame(peer.take(), [{ seq: 1, type: 'result', id: 1, payload: 'x' }])
})

t.test('P-17 an idempotent command behind one that waits for its record starts after it', async t => {
  const { late, join, dispatcher, settle, turn } = createLateDomain()
  const started: string[] = []
  dispatcher.command('once', {}, () => { started.push('once') })
  dispatcher.command('again', { idempotent: true }, () => { started.push('again') })
  const peer = await join()
  peer.send({ command: 'once', id: 1 })
  peer.send({ command: 'again', id: 2 })
  turn()
  t.strictSame(started, [])
  late.answer(0)
  await settle()
  t.strictSame(started, ['once', 'again'])
})

t.test('P-12 a duplicate of a command that waits for its record gets nothing now, and the answer once', async t => {
  const domain = createLateDomain()
  const { late, join, dispatcher } = domain
  let runs = 0
  dispatcher.command('count', {}, () => ++runs)
  const peer = await join()
  peer.send({ command: 'count', id: 1 })
  peer.send({ command: 'count', id: 1 })
  await answerEverything(domain, late)
  t.strictSame(peer.take(), [{ seq: 1, type: 'result', id: 1, payload: 1 }])
})

t.test('P-41 a command whose session ends while it waits for its record is never executed', async t => {
  const { late, join, dispatcher, manager, settle, turn } = createLateDomain()
  let runs = 0
  dispatcher.command('count', {}, () => ++runs)
  const peer = await join()
  peer.send({ command: 'count', id: 1 })
  turn()
  manager.terminateSession(peer.welcome.sessionId)
  late.answerAll()
  await settle()
  t.strictSame([runs, dispatcher.inFlight], [0, 0])
})

t.test('P-37 the basic profile asks nothing of a store of one node: nobody can resume it', async t => {
  const { late, connect, manager } = createLateDomain()
  const peer = connect({ profile: 'basic' })
  manager.send({ sessionId: peer.welcome.sessionId }, 'e', 1)
  t.strictSame(seqs(peer.take()), [1])
  manager.terminateSession(peer.welcome.sessionId)
  t.equal(late.pending.length, 0)
})

t.test('P-25 outputs that overflow before the store kept them are a gap, never a surprise', async t => {
  const domain = createLateDomain({ session: { outboxMessages: 2 } })
  const { late, join, connectLate, manager, turn, settle } = domain
  const peer = await join()
  peer.close(1006)
  const { sessionId, resumeToken: token } = peer.welcome
  for (let n = 1; n <= 5; n++) manager.send({ sessionId }, 'e', n)
  await answerEverything(domain, late)
  const again = connectLate({ resume: { sessionId, token, lastSeq: 0 } })
  for (let n = 0; n < 3; n++) {
    turn()
    late.answerAll()
    await settle()
  }
  const { welcome, frames } = await again
  turn()
  t.strictSame([welcome.gap, welcome.replay], [{ from: 1, to: 3 }, { from: 4, to: 5 }])
  await answerEverything(domain, late)
  t.strictSame(seqs(frames()), [4, 5])
})

t.test('P-26 a burst beyond the outbox that waits for the store is not the peer\'s fault, who gets it all', async t => {
  const domain = createLateDomain({ session: { outboxMessages: 2 } })
  const { late, join, manager, settle, turn } = domain
  const peer = await join()
  const { sessionId } = peer.welcome
  for (let n = 1; n <= 7; n++) manager.send({ sessionId }, 'e', n)
  turn()
  t.equal(peer.transport.closed, undefined)
  late.answerAll()
  await settle()
  t.strictSame(seqs(peer.take()), [1, 2, 3, 4, 5, 6, 7])
  manager.send({ sessionId }, 'e', 8)
  t.equal(manager.peekSession(sessionId)?.outboxMessages, 2, 'and the outbox is as small again as it has to be')
})

t.test('P-26 more than four outboxes do not wait for a store that does not answer', async t => {
  const { join, manager } = createLateDomain({ session: { outboxMessages: 2 } })
  const peer = await join()
  const { sessionId } = peer.welcome
  for (let n = 1; n <= 9; n++) manager.send({ sessionId }, 'e', n)
  t.equal(peer.transport.closed?.code, 4101)
  t.equal(manager.peekSession(sessionId)?.outboxMessages, 2)
})
