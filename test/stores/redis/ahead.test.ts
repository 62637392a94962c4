// What an owner may have told its client ahead of its batches (S-22), on a real server: whoever has
// the session next finds a gap in each place before anything else is numbered.

import t from 'tap'
import type { Test } from 'tap'
import { NOT_KEPT } from '../../../src/io/protocol/codec.js'
import type { ClaimedSession, ClaimRequest } from '../../../src/io/session/shared-store.js'
import { needsRedis, startRedis, type RedisServer } from '../../helpers/redis.js'
import { batchOf, createdIn, startNode, TEST_LIMITS, type TestNode } from '../../helpers/redis-node.js'

const DEADLINE = { keepForMs: 60_000, reason: 'resume_window' } as const
const GAP = NOT_KEPT.tail

t.test('redis store', needsRedis(), async t => {
  const server: RedisServer = await startRedis(t as Test)
  let prefixes = 0
  async function fleet (t: Test, options: object = {}): Promise<[TestNode, TestNode]> {
    const prefix = `ahead${++prefixes}`
    const [a, b] = await Promise.all([1, 2].map(() => startNode(t, server.url, { prefix, handOffMs: 50, ...options })))
    return [a as TestNode, b as TestNode]
  }

  async function claim (node: TestNode, id: string, changes: Partial<ClaimRequest> = {}): Promise<ClaimedSession> {
    const request = { id, userId: 'ann', tokenHash: 'hash-1', nextTokenHash: 'hash-2', lastSeen: 0, labels: {} }
    const result = await node.store.claim({ ...request, ...changes })
    if (typeof result === 'string' || !('session' in result)) throw new Error(`claim: ${JSON.stringify(result)}`)
    return result
  }
  const tailsOf = ({ session }: ClaimedSession): string[] => session.outputs.map(({ tail }) => tail)

  t.test('S-22 S-16 a claim from an owner that does not answer fills the gaps, then takes the inbox', async t => {
    const [a, b] = await fleet(t as Test)
    a.onHandOff = () => new Promise(() => {})
    const { session: { id }, fence } = await createdIn(a)
    await a.store.commit(batchOf(id, fence, 0, ['a'], { reservedSeq: 4 }))
    await b.store.push(id, { pushId: null, tail: 'pushed' })
    const taken = await claim(b, id, { lastSeen: 3 })
    t.strictSame(tailsOf(taken), ['a', GAP, GAP, GAP, 'pushed'])
    t.match(taken.session.progress, { lastSeq: 5, releasedSeq: 0 })
    t.notOk('reservedSeq' in taken.session.progress)
    t.equal(await b.store.commit(batchOf(id, taken.fence, 5, ['next'])), 'kept')
  })

  t.test('S-12 S-22 a client that has seen more than was reserved ends the session', async t => {
    const [a, b] = await fleet(t as Test)
    a.onHandOff = () => new Promise(() => {})
    const { session: { id }, fence } = await createdIn(a)
    await a.store.commit(batchOf(id, fence, 0, ['a'], { reservedSeq: 4 }))
    const request = { id, userId: 'ann', tokenHash: 'hash-1', nextTokenHash: 'hash-2', lastSeen: 5, labels: {} }
    t.match(await b.store.claim(request), { ended: { reason: 'state_lost' } })
  })

  t.test('S-18 S-22 what is pushed after the burial of a node is numbered behind the gaps', async t => {
    const [a, b] = await fleet(t as Test, { leaseMs: 300 })
    const { session: { id }, fence } = await createdIn(a)
    await a.store.commit(batchOf(id, fence, 0, ['a'], { reservedSeq: 3 }))
    // Only b renews its lease.
    while (b.store.stats.orphaned === 0) {
      await b.store.tick()
      await new Promise(resolve => setTimeout(resolve, 20))
    }
    t.strictSame(await b.store.push(id, { pushId: null, tail: 'pushed' }), { seq: 4 })
    t.strictSame(tailsOf(await claim(b, id)), ['a', GAP, GAP, 'pushed'])
  })

  t.test('S-13 S-22 a session that was released has no gaps', async t => {
    const [a, b] = await fleet(t as Test)
    const { session: { id }, fence } = await createdIn(a)
    await a.store.commit(batchOf(id, fence, 0, ['a'], { reservedSeq: 50 }))
    await a.store.release(batchOf(id, fence, 1, ['b']), DEADLINE)
    t.strictSame(await b.store.push(id, { pushId: null, tail: 'pushed' }), { seq: 3 })
    const taken = await claim(b, id)
    t.strictSame(tailsOf(taken), ['a', 'b', 'pushed'])
    await b.store.commit(batchOf(id, taken.fence, 3, [], { reservedSeq: 5 }))
    t.strictSame(tailsOf(await claim(a, id, { tokenHash: 'hash-2' })), ['a', 'b', 'pushed', GAP, GAP])
  })

  t.test('S-22 an older batch that comes late does not take the reservation back', async t => {
    const [a, b] = await fleet(t as Test)
    a.onHandOff = () => new Promise(() => {})
    const { session: { id }, fence } = await createdIn(a)
    const older = batchOf(id, fence, 0, ['a'])
    await a.store.commit(older)
    await a.store.commit(batchOf(id, fence, 1, [], { reservedSeq: 3 }))
    t.equal(await a.store.commit(older), 'kept')
    t.strictSame(tailsOf(await claim(b, id)), ['a', GAP, GAP])
  })

  t.test('S-21 S-22 a session that is given again keeps its reservation', async t => {
    const [a, b] = await fleet(t as Test)
    a.onHandOff = () => new Promise(() => {})
    const { progress } = batchOf('', 0, 0, ['a'], { reservedSeq: 2 })
    const { session: { id } } = await createdIn(a, { progress, outputs: [{ tail: 'a', commandId: 0 }] })
    t.strictSame(tailsOf(await claim(b, id)), ['a', GAP])
  })

  t.test('S-22 the gaps are within the bounds of the outbox', async t => {
    const [a, b] = await fleet(t as Test)
    a.onHandOff = () => new Promise(() => {})
    const { session: { id }, fence } = await createdIn(a)
    const reservedSeq = TEST_LIMITS.outboxMessages + 10
    await a.store.commit(batchOf(id, fence, 0, ['a'], { reservedSeq }))
    const { session } = await claim(b, id)
    t.match(session.progress, { lastSeq: reservedSeq, releasedSeq: 10, dropped: 10 })
    t.equal(session.outputs.length, TEST_LIMITS.outboxMessages)
  })
})
