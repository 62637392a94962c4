// Outputs that leave ahead of their commit: what goes at once, what waits, what is written when,
// and what is left to the next owner.

import t from 'tap'
import { createLocalOperations } from '../../../src/io/operators/local.js'
import { createDomain, type Domain, type DomainOptions, type Peer } from '../../helpers/domain.js'
import { createLateStore, type LateStore } from '../../helpers/late-store.js'

type Scene = Domain & {
  late: LateStore
  peer: Peer
  id: string
  ahead (payload: unknown): void
  kept (payload: unknown): void
  /** The store answers all it has been asked. */
  answer (): Promise<void>
  /** Payloads that the client got since the last call. */
  got (): unknown[]
}

async function start (options: DomainOptions = {}): Promise<Scene> {
  const late = createLateStore()
  const domain = createDomain({ ...options, store: late })
  async function answer (): Promise<void> {
    for (let n = 0; n < 3; n++) {
      domain.turn()
      late.answerAll()
      await domain.settle()
    }
  }
  const joining = domain.connectLate()
  await answer()
  const peer = await joining
  await answer()
  peer.take()
  late.batches.length = 0
  const id = peer.welcome.sessionId
  return Object.assign(domain, {
    late,
    peer,
    id,
    answer,
    ahead (payload: unknown) { domain.manager.send({ sessionId: id }, 'token', payload as string, { behind: true }) },
    kept (payload: unknown) { domain.manager.send({ sessionId: id }, 'kept', payload as string) },
    got: () => peer.take().map(frame => frame.payload)
  })
}

/** The session has reserved what it may give ahead. */
async function startAhead (options: DomainOptions = {}): Promise<Scene> {
  const scene = await start(options)
  scene.ahead('first')
  await scene.answer()
  scene.got()
  scene.late.batches.length = 0
  return scene
}

t.test('P-55 the first output of the kind waits for the reservation, which its commit brings', async t => {
  const { late, ahead, got, answer, turn } = await start()
  ahead(1)
  turn()
  t.strictSame(got(), [], 'the store has reserved nothing')
  t.match(late.batches, [{ prevSeq: 0, progress: { lastSeq: 1, reservedSeq: 65 } }])
  await answer()
  t.strictSame(got(), [1])
  ahead(2)
  t.strictSame(got(), [2], 'at once')
  t.equal(late.batches.length, 1)
})

t.test('P-55 S-22 a session that sends nothing ahead reserves nothing', async t => {
  const { late, kept, answer, got } = await start()
  kept(1)
  await answer()
  t.strictSame(got(), [1])
  t.equal(late.batches.length, 1)
  t.notOk('reservedSeq' in (late.batches[0]?.progress ?? {}))
})

t.test('P-55 the outputs of a second cost one commit', async t => {
  const { late, ahead, got, answer, sessions } = await startAhead()
  for (let n = 0; n < 20; n++) {
    ahead(n)
    t.strictSame(got(), [n])
    await answer()
  }
  t.equal(late.batches.length, 0)
  sessions.committer.flush()
  await answer()
  t.match(late.batches, [{ prevSeq: 1, progress: { lastSeq: 21, reservedSeq: 85 } }])
  t.equal(late.batches[0]?.outputs.length, 20)
  sessions.committer.flush()
  await answer()
  t.equal(late.batches.length, 1, 'and a second without any costs none')
})

t.test('P-55 what the client has acknowledged by then is not written', async t => {
  const { late, ahead, peer, answer, sessions } = await startAhead()
  for (let n = 0; n < 10; n++) ahead(n)
  peer.take()
  peer.send({ type: 'ack', seq: 11 })
  sessions.committer.flush()
  await answer()
  t.match(late.batches, [{ outputs: [], progress: { lastSeq: 11, releasedSeq: 11 } }])
})

t.test('P-20 P-55 an output that waits holds up those behind it, and takes along those before it', async t => {
  const { late, ahead, kept, got, answer, turn } = await startAhead()
  ahead(1)
  kept(2)
  ahead(3)
  turn()
  t.strictSame(got(), [1])
  t.match(late.batches, [{ prevSeq: 1, progress: { lastSeq: 4 } }])
  await answer()
  t.strictSame(got(), [2, 3])
})

t.test('P-55 what comes while a commit is under way leaves with its answer', async t => {
  // A busy sender never left the state in which each output waits for the batch before it.
  const { late, ahead, got, settle, turn } = await start()
  ahead(1)
  turn()
  for (const n of [2, 3, 4]) ahead(n)
  late.answer(0)
  await settle()
  t.strictSame(got(), [1, 2, 3, 4])
})

t.test('S-22 nothing leaves above what is reserved, and half of it is left when more is asked for', async t => {
  const { late, ahead, got, answer } = await startAhead()
  for (let n = 2; n <= 100; n++) ahead(n)
  t.equal(got().length, 64, 'seqs 2 to 65')
  t.match(late.batches, [{ prevSeq: 1, progress: { lastSeq: 100, reservedSeq: 164 } }], 'one batch, in the turn')
  await answer()
  t.equal(got().length, 35)
})

t.test('S-22 a further reservation is asked for once', async t => {
  const { late, ahead, got } = await startAhead()
  for (let n = 2; n <= 60; n++) {
    ahead(n)
    t.strictSame(got(), [n])
  }
  t.match(late.batches.map(({ progress }) => progress), [{ lastSeq: 34, reservedSeq: 98 }])
})

t.test('S-22 without a connection nothing is reserved, and nothing leaves', async t => {
  const { late, ahead, got, settle, answer, peer, sessions } = await startAhead()
  peer.close()
  await answer()
  t.notOk('reservedSeq' in (late.batches.at(-1)?.progress ?? {}), 'the batch of the detach')
  t.equal(sessions.directory.get(peer.welcome.sessionId)?.journal?.ahead?.reservedSeq, 1)
  ahead('away')
  await settle()
  t.strictSame(got(), [])
})

t.test('P-55 what is sent while the client is away is kept with others, and comes with the resume', async t => {
  const { late, ahead, answer, peer, connectLate, sessions } = await startAhead()
  peer.close()
  await answer()
  late.batches.length = 0
  for (const n of [1, 2, 3]) ahead(n)
  await answer()
  t.equal(late.batches.length, 0)
  sessions.committer.flush()
  await answer()
  t.match(late.batches, [{ progress: { lastSeq: 4 } }])
  ahead(4)
  const { sessionId, resumeToken: token } = peer.welcome
  const joining = connectLate({ resume: { sessionId, token, lastSeq: 1 } })
  await answer()
  const again = await joining
  await answer()
  t.strictSame(again.takeOnly('message').map(({ payload }) => payload), [1, 2, 3, 4])
})

t.test('S-22 a full outbox reserves nothing: no gap may push out what was kept', async t => {
  const { late, ahead, got, answer } = await start({ session: { outboxMessages: 8 } })
  for (let n = 1; n <= 6; n++) ahead(n)
  await answer()
  t.match(late.batches.at(-1)?.progress, { lastSeq: 6, reservedSeq: 8 })
  for (let n = 7; n <= 9; n++) {
    ahead(n)
    await answer()
  }
  t.notOk('reservedSeq' in (late.batches.at(-1)?.progress ?? {}))
  t.equal(got().length, 9)
})

t.test('S-22 a store that has lost outputs has lost the reservation too', async t => {
  const { late, ahead, kept, got, turn, settle, answer } = await startAhead()
  kept('a')
  turn()
  late.answer(0, { gap: 0 })
  await settle()
  ahead('b')
  t.strictSame(got(), [])
  await answer()
  t.strictSame(got(), ['a', 'b'])
})

t.test('P-55 an answer is told when everything before it is kept', async t => {
  const { late, ahead, sessions, id, answer, turn } = await startAhead()
  ahead(1)
  const kept = sessions.committer.whenKept(sessions.directory.get(id) as never)
  turn()
  t.equal(late.pending.length, 1, 'whoever waits does not wait for the flush')
  await answer()
  t.equal(await kept, true)
})

t.test('P-55 a stop keeps what has left', async t => {
  const { late, ahead, sessions, answer } = await startAhead()
  ahead(1)
  const idle = sessions.committer.whenIdle()
  await answer()
  await idle
  t.match(late.batches, [{ progress: { lastSeq: 2 } }])
})

t.test('P-55 many sessions are kept a slice per turn', async t => {
  const domain = createDomain({ store: createLateStore(), session: { maxSessions: 2000, maxSessionsPerUser: 2000 } })
  const late = domain.store as LateStore
  for (let n = 0; n < 600; n++) {
    const session = domain.sessions.open('ann', 'full')
    void domain.sessions.committer.create(session)
  }
  late.answerAll()
  await domain.settle()
  domain.manager.send({ all: true }, 'news', 1, { behind: true })
  while (domain.slice() > 0);
  t.equal(late.batches.length, 0, 'a broadcast costs no commit')
  domain.sessions.committer.flush()
  domain.turn()
  t.equal(late.batches.length, 256)
  while (domain.slice() > 0);
  t.equal(late.batches.length, 600)
})

t.test('P-55 where nothing is kept, nothing changes', async t => {
  const { connect, manager } = createDomain()
  const peer = connect()
  for (const behind of [true, false, true]) manager.send({ userId: 'ann' }, 'news', 1, { behind })
  t.strictSame(peer.take().map(({ seq }) => seq), [undefined, 1, 2, 3])
})

t.test('P-55 what a command sends along leaves before its answer, which waits', async t => {
  const { late, dispatcher, peer, got, answer, turn } = await startAhead()
  dispatcher.command('count', { idempotent: true }, ({ session }) => {
    for (const n of [1, 2]) session.send('token', n, { behind: true })
    return 'done'
  })
  peer.send({ command: 'count', id: 1 })
  turn()
  t.strictSame(got(), [1, 2])
  t.match(late.batches, [{ prevSeq: 1, progress: { lastSeq: 4, watermark: 1 } }], 'with them in its commit')
  await answer()
  t.strictSame(got(), ['done'])
})

t.test('P-55 an operator is answered before the store has it, and not where it has to be kept', async t => {
  const scene = await startAhead()
  const { sessions, manager, late, id, answer, got } = scene
  const operations = createLocalOperations({
    sessions, manager, delay: () => new Promise(() => {}), yieldTurn: async () => {}
  })
  t.match(await operations.send({ sessionId: id }, 'token', 1, { behind: true }), { seq: 2 })
  t.equal(late.pending.length, 0)
  t.strictSame(got(), [1])
  const waits = operations.send({ sessionId: id }, 'note', 2)
  await answer()
  t.match(await waits, { seq: 3 })
})
