// The Redis store on a real server: what each call needs, does and answers (rules S-n of
// src/io/session/store.ts and shared-store.ts).

import { Redis } from 'ioredis'
import { Valkey } from 'iovalkey'
import t from 'tap'
import type { Test } from 'tap'
import type { ClaimedSession, ClaimRequest } from '../../../src/io/session/shared-store.js'
import { adoptRedis, connectRedis } from '../../../src/stores/redis/ioredis.js'
import type { RedisPort } from '../../../src/stores/redis/redis-port.js'
import { needsRedis, startRedis, type RedisServer } from '../../helpers/redis.js'
import {
  addressOf, batchOf, createdIn, PROGRESS, sessionOf, startNode, TEST_LIMITS, type TestNode
} from '../../helpers/redis-node.js'

const DEADLINE = { keepForMs: 60_000, reason: 'resume_window' } as const

function claimOf (id: string, changes: Partial<ClaimRequest> = {}): ClaimRequest {
  return { id, userId: 'ann', tokenHash: 'hash-1', nextTokenHash: 'hash-2', lastSeen: 0, labels: {}, ...changes }
}

async function claimed (node: TestNode, request: ClaimRequest): Promise<ClaimedSession> {
  const result = await node.store.claim(request)
  if (typeof result === 'string' || !('session' in result)) throw new Error(`claim: ${JSON.stringify(result)}`)
  return result
}

t.test('redis store', needsRedis(), async t => {
  const server: RedisServer = await startRedis(t as Test)
  let prefixes = 0
  /** Nodes that see the same keys, and no others of this file. */
  const fleet = async (t: Test, count: number, options: object = {}): Promise<TestNode[]> => {
    const prefix = `test${++prefixes}`
    return Promise.all(Array.from({ length: count }, () => startNode(t, server.url, { prefix, ...options })))
  }
  const keysOf = async (): Promise<string[]> => {
    return (await server.client.keys(`test${prefixes}:*`)).filter((key: string) => !/nodes|meta/.test(key))
  }

  t.test('S-1 create keeps a session once, with everything that it has', async t => {
    const [a] = await fleet(t as Test, 1) as [TestNode]
    const context = { text: 'é'.repeat(200), nested: [1, null] }
    const bytes = String.fromCharCode(...Array.from({ length: 256 }, (_, i) => i))
    const session = sessionOf(a.store, {
      userId: `${'ü'.repeat(60)}`,
      context,
      access: { labels: { role: 'x'.repeat(100) }, tokenHash: 'hash-1', previousTokenHash: 'hash-0' },
      progress: {
        ...PROGRESS,
        lastSeq: 3,
        releasedSeq: 1,
        ackedSeq: 1,
        watermark: 2 ** 53 - 1,
        dropped: 1,
        detachedAt: 5,
        heard: false,
        open: Array.from({ length: 40 }, (_, i) => ({ id: i + 1, idempotent: i % 2 === 0 }))
      },
      outputs: [{ tail: bytes, commandId: 7 }, { tail: '', commandId: 0 }]
    })
    const result = await a.store.create(session)
    t.ok(typeof result !== 'string' && result.fence > 1_700_000_000_000)
    t.equal(await a.store.create(session), 'exists')
    const { fence } = result as { fence: number }
    const batch = { id: session.id, fence, prevSeq: 3, outputs: [], progress: session.progress }
    t.equal(await a.store.release(batch, DEADLINE), 'kept')
    const back = await claimed(a, claimOf(session.id, { userId: session.userId, labels: { role: 'x'.repeat(100) } }))
    t.same(back.session, {
      ...session,
      access: { labels: { role: 'x'.repeat(100) }, tokenHash: 'hash-2', previousTokenHash: 'hash-1' },
      progress: { ...session.progress, detachedAt: null }
    })
    t.equal(back.from, null)
  })

  t.test('S-2 S-5 a batch is appended once: a repeated one is kept, any other is a gap', async t => {
    const [a] = await fleet(t as Test, 1) as [TestNode]
    const { session: { id }, fence } = await createdIn(a)
    const first = batchOf(id, fence, 0, ['a', 'b'])
    t.equal(await a.store.commit(first), 'kept')
    t.equal(await a.store.commit(first), 'kept')
    t.same(await a.store.commit(batchOf(id, fence, 1, ['x', 'y'])), { gap: 2 })
    t.same(await a.store.commit(batchOf(id, fence, 5, ['x'])), { gap: 2 })
    t.equal(await a.store.commit(batchOf(id, fence, 2, ['c', 'd', 'e'], { releasedSeq: 1, ackedSeq: 1 })), 'kept')
    t.equal(await a.store.commit(batchOf(id, fence, 5, [], { releasedSeq: 3, watermark: 4 })), 'kept', 'progress alone')
    await a.store.release(batchOf(id, fence, 5, ['f'], { releasedSeq: 3 }), DEADLINE)
    const { session } = await claimed(a, claimOf(id))
    t.same(session.outputs.map(({ tail }) => tail), ['d', 'e', 'f'])
    t.match(session.progress, { lastSeq: 6, releasedSeq: 3 })
  })

  t.test('S-5 outputs dropped since the last batch leave no hole', async t => {
    const [a] = await fleet(t as Test, 1) as [TestNode]
    const { session: { id }, fence } = await createdIn(a)
    await a.store.commit(batchOf(id, fence, 0, ['a', 'b']))
    const batch = { ...batchOf(id, fence, 2, ['g']), progress: { ...PROGRESS, lastSeq: 7, releasedSeq: 6, dropped: 6 } }
    t.equal(await a.store.commit(batch), 'kept')
    t.equal(await a.store.commit(batch), 'kept')
    const progress = { lastSeq: 7, releasedSeq: 6, dropped: 6 }
    t.match(await a.store.find(id), { outboxMessages: 1, outboxBytes: 3, progress })
    await a.store.release(batchOf(id, fence, 7, [], { releasedSeq: 6 }), DEADLINE)
    t.same((await claimed(a, claimOf(id))).session.outputs, [{ tail: 'g', commandId: 0 }])
  })

  t.test('a batch of three thousand outputs is one step', async t => {
    const [a] = await fleet(t as Test, 1) as [TestNode]
    const { session: { id }, fence } = await createdIn(a)
    const tails = Array.from({ length: 3000 }, (_, i) => `t${i}`)
    t.equal(await a.store.commit(batchOf(id, fence, 0, tails)), 'kept')
    t.equal(await a.store.commit(batchOf(id, fence, 3000, [], { releasedSeq: 2998 })), 'kept')
    t.match(await a.store.find(id), { outboxMessages: 2, outboxBytes: 'N:tXXXX'.length * 2 - 2 + 2 })
  })

  t.test('values go to the long ones and come back', async t => {
    const [a] = await fleet(t as Test, 1) as [TestNode]
    const { session: { id }, fence } = await createdIn(a)
    const long = { text: 'x'.repeat(500) }
    const batch = batchOf(id, fence, 0, [])
    await a.store.commit({ ...batch, context: long })
    t.match(await a.store.find(id), { context: long })
    await a.store.commit({ ...batch, context: { text: 'y'.repeat(600) } })
    t.match(await a.store.find(id), { context: { text: 'y'.repeat(600) } })
    await a.store.commit({ ...batch, context: { short: true } })
    t.strictSame((await a.store.find(id) as { context: object }).context, { short: true })
    t.equal((await keysOf()).filter(key => key.includes(':v:')).length, 0, 'nothing is left of the long value')
  })

  t.test('S-3 S-4 a wrong fence writes nothing; an end leaves the tombstone alone', async t => {
    const [a, b] = await fleet(t as Test, 2) as [TestNode, TestNode]
    const { session: { id }, fence } = await createdIn(a)
    await a.store.commit(batchOf(id, fence, 0, ['a']))
    t.equal(await a.store.commit(batchOf(id, fence - 1, 1, ['b'])), 'fenced')
    t.equal(await b.store.commit(batchOf(id, fence, 1, ['b'])), 'fenced')
    const tombstone = {
      id,
      userId: 'ann',
      reason: 'ended_by_client',
      endedAt: 77,
      lastCommand: 9,
      note: 'bye',
      tokenHash: 'h',
      previousTokenHash: null
    } as const
    t.equal(await b.store.end(id, fence, tombstone), 'fenced')
    t.equal(await a.store.end(id, fence, tombstone), 'ended')
    t.equal(await a.store.end(id, fence, tombstone), 'missing')
    t.equal(await a.store.commit(batchOf(id, fence, 1, ['b'])), 'missing')
    t.strictSame(await b.store.find(id), tombstone)
    t.same((await keysOf()).map(key => key.split(':')[2]), ['t'])
    t.equal(await a.store.create(sessionOf(a.store, { id })), 'exists')
  })

  t.test('S-10 claim takes an ownerless session, rotates its token and fences the former owner', async t => {
    const [a, b] = await fleet(t as Test, 2) as [TestNode, TestNode]
    const { session: { id }, fence } = await createdIn(a)
    t.equal(await a.store.release(batchOf(id, fence, 0, ['a', 'b']), DEADLINE), 'kept')
    t.equal(await b.store.claim(claimOf(id, { tokenHash: 'wrong' })), 'unknown')
    t.equal(await b.store.claim(claimOf(id, { userId: 'bob' })), 'unknown')
    t.equal(await b.store.claim(claimOf('nobody')), 'unknown')
    const { session, fence: next } = await claimed(b, claimOf(id))
    t.ok(next > fence)
    t.same(session.outputs.map(({ tail }) => tail), ['a', 'b'])
    t.equal(await a.store.commit(batchOf(id, fence, 2, ['x'])), 'fenced')
    t.equal(await b.store.commit(batchOf(id, next, 2, ['c'])), 'kept')
    await b.store.release(batchOf(id, next, 3, []), DEADLINE)
    const again = await a.store.claim(claimOf(id, { tokenHash: 'hash-1', nextTokenHash: 'hash-3' }))
    t.equal(typeof again, 'object', 'the presented token is still valid')
  })

  t.test('S-10 P-28c a claim leaves the tokens that were issued since alone, up to four', async t => {
    const [a] = await fleet(t as Test, 1) as [TestNode]
    // As long as a SHA-256 is: several are no short value any more.
    const hash = (n: number): string => String(n).padStart(43, 'hash')
    const access = { labels: {}, tokenHash: hash(1), previousTokenHash: null }
    const { session: { id }, fence } = await createdIn(a, { access })
    const claimBy = (n: number, next: number): ClaimRequest => claimOf(id, {
      tokenHash: hash(n), nextTokenHash: hash(next)
    })
    await a.store.release(batchOf(id, fence, 0, []), DEADLINE)
    for (let n = 2; n <= 6; n++) {
      const { session, fence: next } = await claimed(a, claimBy(1, n))
      const issued = Array.from({ length: Math.min(n - 2, 3) }, (_, i) => hash(n - 1 - i))
      t.match(session.access, { tokenHash: hash(n), previousTokenHash: [hash(1), ...issued].join(' ') })
      await a.store.release(batchOf(id, next, 0, []), DEADLINE)
    }
    t.equal(await a.store.claim(claimBy(2, 9)), 'unknown')
    t.equal(await a.store.claim(claimOf(id, { tokenHash: 'hash' })), 'unknown')
    const read = await claimed(a, claimBy(4, 7))
    t.match(read.session.access, { tokenHash: hash(7), previousTokenHash: [4, 6, 1, 5].map(hash).join(' ') })
    await a.store.release(batchOf(id, read.fence, 0, []), DEADLINE)
    t.match(await a.store.terminate(id, 'ended_by_operator'), { ended: { reason: 'ended_by_operator' } })
    t.match(await a.store.claim(claimBy(5, 9)), { ended: { reason: 'ended_by_operator' } }, 'its holder is told')
    t.equal(await a.store.claim(claimBy(2, 9)), 'unknown')
  })

  t.test('S-10 P-28 whoever presents the latest token has read it, and those before it are dead', async t => {
    const [a] = await fleet(t as Test, 1) as [TestNode]
    const { session: { id }, fence } = await createdIn(a)
    await a.store.release(batchOf(id, fence, 0, []), DEADLINE)
    const first = await claimed(a, claimOf(id))
    await a.store.release(batchOf(id, first.fence, 0, []), DEADLINE)
    const second = await claimed(a, claimOf(id, { tokenHash: 'hash-2', nextTokenHash: 'hash-3' }))
    t.match(second.session.access, { tokenHash: 'hash-3', previousTokenHash: 'hash-2' })
    await a.store.release(batchOf(id, second.fence, 0, []), DEADLINE)
    t.equal(await a.store.claim(claimOf(id)), 'unknown')
  })

  t.test('S-10 of many claims at once one wins', async t => {
    const nodes = await fleet(t as Test, 4, { handOffMs: 50 })
    const { session: { id }, fence } = await createdIn(nodes[0] as TestNode)
    await nodes[0]?.store.release(batchOf(id, fence, 0, ['a']), DEADLINE)
    for (const node of nodes) node.onHandOff = () => new Promise(() => {})
    const results = await Promise.all(nodes.map(({ store }) => store.claim(claimOf(id))))
    const winners = results.filter(result => typeof result === 'object' && 'session' in result)
    t.ok(winners.length >= 1)
    const fences = winners.map(result => (result as ClaimedSession).fence)
    t.equal(new Set(fences).size, fences.length)
    const kept = await Promise.all(results.map((result, i) => typeof result === 'object' && 'session' in result
      ? (nodes[i] as TestNode).store.commit(batchOf(id, result.fence, 1, [`by ${i}`]))
      : null))
    t.equal(kept.filter(result => result === 'kept').length, 1)
  })

  t.test('S-11 the owner is asked first, and has its outputs kept', async t => {
    const [a, b] = await fleet(t as Test, 2) as [TestNode, TestNode]
    const { session: { id }, fence } = await createdIn(a)
    a.onHandOff = async (asked, of) => {
      t.same([asked, of], [id, fence])
      await a.store.release(batchOf(id, fence, 0, ['late']), DEADLINE)
    }
    const { session, from } = await claimed(b, claimOf(id))
    t.same(session.outputs.map(({ tail }) => tail), ['late'])
    t.equal(from, null, 'it was released')
    t.same(b.store.stats.handOffs, { asked: 1, released: 1, taken: 0 })
  })

  t.test('S-11 nobody is asked for a wrong token, and an owner that does not answer is not waited for', async t => {
    const [a, b] = await fleet(t as Test, 2, { handOffMs: 50 }) as [TestNode, TestNode]
    const { session: { id }, fence } = await createdIn(a)
    let asked = 0
    a.onHandOff = () => {
      asked++
      return new Promise(() => {})
    }
    t.equal(await b.store.claim(claimOf(id, { tokenHash: 'wrong' })), 'unknown')
    t.equal(asked, 0)
    const { from } = await claimed(b, claimOf(id))
    t.equal(from, a.store.nodeId)
    t.equal(asked, 1)
    t.equal(await a.store.commit(batchOf(id, fence, 0, ['x'])), 'fenced')
  })

  t.test('S-12 a client that has seen more than the store ends the session', async t => {
    const [a, b] = await fleet(t as Test, 2) as [TestNode, TestNode]
    const { session: { id }, fence } = await createdIn(a)
    await a.store.release(batchOf(id, fence, 0, ['a'], { watermark: 3 }), DEADLINE)
    t.match(await b.store.claim(claimOf(id, { lastSeen: 2 })), { ended: { reason: 'state_lost', lastCommand: 3 } })
    t.match(b.ended, [{ tombstone: { id, reason: 'state_lost' }, profile: 'full', revision: 1 }])
    t.match(await b.store.claim(claimOf(id)), { ended: { reason: 'state_lost' } })
    t.equal(await b.store.claim(claimOf(id, { tokenHash: 'wrong' })), 'unknown', 'told to a holder of the token alone')
    t.equal(b.ended.length, 1)
  })

  t.test('S-13 a release whose answer was lost may be repeated', async t => {
    const [a] = await fleet(t as Test, 1) as [TestNode]
    const { session: { id }, fence } = await createdIn(a)
    const batch = batchOf(id, fence, 0, ['a'])
    t.equal(await a.store.release(batch, DEADLINE), 'kept')
    t.equal(await a.store.release(batch, DEADLINE), 'fenced')
    t.match(await a.store.find(id), { owner: null, outboxMessages: 1 })
  })

  t.test('S-14 S-19 an ownerless session ends at its deadline, told once', async t => {
    const nodes = await fleet(t as Test, 3)
    const [a, b] = nodes as [TestNode, TestNode]
    const one = await createdIn(a)
    const two = await createdIn(a)
    await a.store.release(batchOf(one.session.id, one.fence, 0, []), { keepForMs: 0, reason: 'idle' })
    await a.store.release(batchOf(two.session.id, two.fence, 0, []), { keepForMs: 0, reason: 'resume_window' })
    t.match(await b.store.claim(claimOf(one.session.id)), { ended: { reason: 'idle' } }, 'before anybody has swept')
    t.equal(await b.store.push(two.session.id, { pushId: null, tail: 'x' }), 'missing')
    await Promise.all(nodes.map(({ store }) => store.nodes()))
    await Promise.all(nodes.map(({ store }) => store.tick()))
    await Promise.all(nodes.map(({ store }) => store.tick()))
    const ended = nodes.flatMap(node => node.ended.map(({ tombstone }) => `${tombstone.id} ${tombstone.reason}`))
    t.same(ended.sort(), [`${one.session.id} idle`, `${two.session.id} resume_window`].sort())
  })

  t.test('a claim without an answer is undone, and however late that is, not the next one', async t => {
    const [a] = await fleet(t as Test, 1) as [TestNode]
    const losing = connectRedis(addressOf(server.url))
    let losses = 1
    const port: RedisPort = {
      ...losing,
      run: (script, keys, args) => losing.run(script, keys, args).then(reply => {
        if (script.name === 'claim' && losses-- > 0) throw new Error('Connection is closed.')
        return reply
      })
    }
    const b = await startNode(t as Test, server.url, { prefix: `test${prefixes}`, port })
    const one = await createdIn(a)
    const two = await createdIn(a)
    for (const { session, fence } of [one, two]) await a.store.release(batchOf(session.id, fence, 0, []), DEADLINE)
    t.equal(await b.store.claim(claimOf(one.session.id)), 'unavailable')
    t.match(await a.store.find(one.session.id), { owner: b.store.nodeId }, 'it took effect')
    losses = 1
    t.equal(await b.store.claim(claimOf(two.session.id)), 'unavailable')
    const { fence } = await claimed(b, claimOf(two.session.id))
    await b.store.tick()
    t.match(await a.store.find(one.session.id), { owner: null })
    t.equal(await b.store.commit(batchOf(two.session.id, fence, 0, ['a'])), 'kept')
  })

  t.test('a node that has not noticed a loss drops its record before it has the session again', async t => {
    const [a, b] = await fleet(t as Test, 2, { handOffMs: 20 }) as [TestNode, TestNode]
    const { session: { id }, fence } = await createdIn(a)
    const second = await claimed(b, claimOf(id))
    await b.store.release(batchOf(id, second.fence, 0, []), DEADLINE)
    a.evicted.length = 0
    const third = await claimed(a, claimOf(id, { tokenHash: 'hash-2', nextTokenHash: 'hash-3' }))
    t.ok(third.fence > fence)
    t.ok(a.evicted.every(each => each.id === id && each.fence === fence))
    t.equal(await a.store.commit(batchOf(id, third.fence, 0, ['a'])), 'kept')
  })

  t.test('S-15 a push is an output of an ownerless session, bounded as its outbox is', async t => {
    const [a, b] = await fleet(t as Test, 2) as [TestNode, TestNode]
    const { session: { id }, fence } = await createdIn(a)
    await a.store.release(batchOf(id, fence, 0, ['a']), DEADLINE)
    t.same(await b.store.push(id, { pushId: 'p', tail: 'b' }), { seq: 2 })
    t.equal(await b.store.push(id, { pushId: 'p', tail: 'b' }), 'duplicate')
    t.equal(await b.store.push('nobody', { pushId: 'p', tail: 'b' }), 'missing')
    await Promise.all(Array.from({ length: 120 }, (_, i) => b.store.push(id, { pushId: null, tail: `n${i}` })))
    const { session } = await claimed(b, claimOf(id))
    t.equal(session.outputs.length, 100)
    t.match(session.progress, { lastSeq: 122, releasedSeq: 22, dropped: 22 })
    t.equal(session.outputs.at(-1)?.tail, 'n119')
  })

  t.test('S-16 a push to an owned session waits in its inbox until a batch takes it', async t => {
    const [a, b] = await fleet(t as Test, 2) as [TestNode, TestNode]
    const { session: { id }, fence } = await createdIn(a)
    for (const tail of ['p', 'q', 'r']) {
      t.same(await b.store.push(id, { pushId: tail, tail }), { owner: a.store.nodeId })
    }
    await waitFor(() => a.doorbells.length >= 3)
    const waiting = [{ number: 1, tail: 'p' }, { number: 2, tail: 'q' }, { number: 3, tail: 'r' }]
    t.same(await a.store.inbox(id, fence, 0), waiting)
    const batch = { ...batchOf(id, fence, 0, ['p', 'own', 'q']), inboxTo: 2 }
    a.doorbells.length = 0
    t.equal(await a.store.commit(batch), 'kept')
    t.same(a.doorbells, [id], 'the answer says that there is more')
    t.equal(await a.store.commit(batch), 'kept')
    t.same(await a.store.inbox(id, fence, 2), [{ number: 3, tail: 'r' }])
    t.same(await a.store.inbox(id, fence, 3), [])
    t.equal(await b.store.inbox(id, fence, 0), 'fenced')
    t.equal(await b.store.push(id, { pushId: 'p', tail: 'p' }), 'duplicate')
    t.equal(await a.store.release(batchOf(id, fence, 3, []), DEADLINE), 'kept')
    const { session } = await claimed(b, claimOf(id))
    t.same(session.outputs.map(({ tail }) => tail), ['p', 'own', 'q', 'r'], 'what waits is not lost')
  })

  t.test('the context of an ownerless session is replaced where it is still the one that was read', async t => {
    const [a, b] = await fleet(t as Test, 2) as [TestNode, TestNode]
    const { session: { id }, fence } = await createdIn(a, { context: { n: 1 } })
    t.equal(await b.store.replaceContext(id, { n: 1 }, { n: 2 }), 'owned')
    await a.store.release(batchOf(id, fence, 0, []), DEADLINE)
    t.equal(await b.store.replaceContext(id, { n: 2 }, { n: 3 }), 'changed')
    const long = { 'a key': 'x'.repeat(100), 7: ['\u2028', -0.5, null] }
    for (const [former, next] of [[{ n: 1 }, { n: 2 }], [{ n: 2 }, long], [long, { ...long, n: 4 }], [{
      ...long, n: 4
    }, {}]] as const) {
      t.equal(await b.store.replaceContext(id, former, next), 'kept')
      t.same((await b.store.find(id) as { context: object }).context, next)
    }
    const { session } = await claimed(a, claimOf(id))
    t.same(session.context, {})
    t.equal(await b.store.replaceContext('nobody', {}, {}), 'missing')
  })

  t.test('S-15 an inbox that nobody empties is full', async t => {
    const [a, b] = await fleet(t as Test, 2) as [TestNode, TestNode]
    const { session: { id } } = await createdIn(a)
    const results = await Promise.all(Array.from({ length: 1001 }, () => b.store.push(id, { pushId: null, tail: 'x' })))
    t.equal(results.filter(result => result === 'full').length, 1)
  })

  t.test('S-18 sessions of a dead node become ownerless, and those of the basic profile end', async t => {
    const options = { leaseMs: 300 }
    const [a, b] = await fleet(t as Test, 2, options) as [TestNode, TestNode]
    const one = await createdIn(a)
    await a.store.commit(batchOf(one.session.id, one.fence, 0, ['a']))
    await b.store.push(one.session.id, { pushId: null, tail: 'pushed' })
    const basic = await createdIn(a, { profile: 'basic', userId: 'basic' })
    // Only b renews its lease from now on.
    await waitFor(async () => {
      await b.store.tick()
      return b.ended.length > 0 && b.store.stats.orphaned > 0
    })
    t.match(b.ended, [{ tombstone: { id: basic.session.id, reason: 'disconnected' }, profile: 'basic' }])
    t.match(await b.store.find(one.session.id), { owner: null, outboxMessages: 2 })
    t.equal(a.store.health(), 'degraded', 'S-17')
    const former = a.store.nodeId
    await a.store.tick()
    t.not(a.store.nodeId, former)
    const lost = [one.session.id, basic.session.id].map(id => [id, null]).sort()
    t.same(a.evicted.map(({ id, tombstone }) => [id, tombstone]).sort(), lost)
    await becomesOk(a)
    t.equal(await a.store.commit(batchOf(one.session.id, one.fence, 1, ['x'])), 'fenced')
    const { session } = await claimed(a, claimOf(one.session.id))
    t.same(session.outputs.map(({ tail }) => tail), ['a', 'pushed'])
  })

  t.test('a store that was away is no reason to take anybody for dead', async t => {
    const [a, b] = await fleet(t as Test, 2, { leaseMs: 200 }) as [TestNode, TestNode]
    await waitFor(() => a.store.health() === 'degraded' && b.store.health() === 'degraded')
    await b.store.tick()
    const names = [a.store.nodeId, b.store.nodeId]
    await a.store.tick()
    t.same([a.store.nodeId, b.store.nodeId], names)
    await becomesOk(a)
  })

  t.test('a node that closes leaves its sessions to the others at once', async t => {
    // Redis may hear of the end of the connection, on which the node listened, a little later.
    const [a, b] = await fleet(t as Test, 2, { handOffMs: 50 }) as [TestNode, TestNode]
    const { session: { id } } = await createdIn(a)
    await a.store.close()
    t.equal(typeof await b.store.claim(claimOf(id)), 'object')
    t.same((await b.store.nodes() as readonly { nodeId: string }[]).map(({ nodeId }) => nodeId), [b.store.nodeId])
  })

  t.test('terminate ends a session wherever it is, and its owner is told', async t => {
    const [a, b] = await fleet(t as Test, 2) as [TestNode, TestNode]
    const owned = await createdIn(a)
    const tombstone = { reason: 'ended_by_operator', note: 'spam' }
    t.match(await b.store.terminate(owned.session.id, 'ended_by_operator', 'spam'), { ended: tombstone })
    await waitFor(() => a.evicted.length > 0)
    t.match(a.evicted, [{ id: owned.session.id, fence: owned.fence, tombstone }])
    t.equal(await b.store.terminate(owned.session.id, 'ended_by_operator'), 'missing')
    t.equal(await a.store.commit(batchOf(owned.session.id, owned.fence, 0, ['x'])), 'missing')
    const free = await createdIn(a)
    await a.store.release(batchOf(free.session.id, free.fence, 0, []), DEADLINE)
    t.match(await b.store.terminate(free.session.id, 'ended_by_operator'), { ended: { id: free.session.id } })
    t.match(b.ended, [{ tombstone: { id: free.session.id } }])
    const own = await createdIn(b)
    await b.store.terminate(own.session.id, 'ended_by_operator')
    t.match(b.evicted, [{ id: own.session.id }])
  })

  t.test('what a lost message should have told is found by looking after sessions', async t => {
    const [a, b] = await fleet(t as Test, 2, { touchMs: 1 }) as [TestNode, TestNode]
    const [gone, moved, pushed] = [await createdIn(a), await createdIn(a), await createdIn(a)]
    const prefix = `test${prefixes}`
    await server.client.del(...(await keysOf()).filter(key => key.includes(gone.session.id)))
    const head = (await keysOf()).find(key => key.includes(`:s:${moved.session.id}`)) as string
    await server.client.hset(head, 'o', b.store.nodeId)
    const entry = (await keysOf()).find(key => key.includes(`:s:${pushed.session.id}`)) as string
    await server.client.hset(entry, 'iy', '3')
    t.ok(head.startsWith(prefix))
    await waitFor(async () => {
      await a.store.tick()
      return a.evicted.length === 1 && new Set(a.doorbells).size === 2
    })
    t.equal(a.evicted[0]?.id, moved.session.id)
    // Whoever reads the inbox of the one that is gone gives the session again (S-21).
    t.same([...new Set(a.doorbells)].sort(), [gone.session.id, pushed.session.id].sort())
  })

  t.test('a user who has as many sessions as he may loses the one that was ownerless the longest', async t => {
    const limits = { ...TEST_LIMITS, maxSessionsPerUser: 2 }
    const [a] = await fleet(t as Test, 1, { limits, unlimitedUserId: 'everybody' }) as [TestNode]
    const [one, two] = [await createdIn(a), await createdIn(a)]
    t.equal(await a.store.create(sessionOf(a.store)), 'user_quota')
    await a.store.release(batchOf(two.session.id, two.fence, 0, []), DEADLINE)
    await a.store.release(batchOf(one.session.id, one.fence, 0, []), { ...DEADLINE, keepForMs: 70_000 })
    await createdIn(a)
    t.match(a.ended, [{ tombstone: { id: two.session.id, reason: 'quota' } }])
    await createdIn(a, { userId: 'ann2' })
    for (let i = 0; i < 3; i++) await createdIn(a, { userId: 'everybody' })
  })

  t.test('listing walks every session once, in order, with filters', async t => {
    const [a, b] = await fleet(t as Test, 2) as [TestNode, TestNode]
    const made = await Promise.all(Array.from({ length: 150 }, (_, i) => createdIn(i % 3 === 0 ? b : a, {
      userId: `user${i % 7}`, createdAt: 1_790_000_000_000 + Math.floor(i / 40)
    })))
    for (const { session, fence } of made.slice(0, 30)) {
      const owner = await a.store.find(session.id) as { owner: string }
      await (owner.owner === a.store.nodeId ? a : b).store.release(batchOf(session.id, fence, 0, []), DEADLINE)
    }
    const walk = async (query: object, limit = 13): Promise<string[]> => {
      const ids: string[] = []
      let cursor: string | undefined
      do {
        const from = cursor === undefined ? {} : { cursor }
        const page = await a.store.list({ newestFirst: true, limit, ...query, ...from })
        if (page === 'unavailable') throw new Error(page)
        ids.push(...page.sessions.map(({ id }) => id))
        cursor = page.nextCursor ?? undefined
      } while (cursor !== undefined)
      return ids
    }
    const inOrder = made.map(({ session }) => session)
      .sort((x, y) => x.createdAt - y.createdAt || (x.id < y.id ? -1 : 1))
    const idsOf = (sessions: typeof inOrder): string[] => sessions.map(({ id }) => id)
    t.same(await walk({ newestFirst: false }), idsOf(inOrder))
    t.same(await walk({}), idsOf(inOrder.toReversed()))
    t.same(await walk({}, 1), idsOf(inOrder.toReversed()))
    const ofUser3 = idsOf(inOrder.filter(({ userId }) => userId === 'user3'))
    t.same(await walk({ userId: 'user3', newestFirst: false }, 4), ofUser3)
    const released = new Set(made.slice(0, 30).map(({ session }) => session.id))
    t.same(await walk({ state: 'detached', newestFirst: false }), idsOf(inOrder.filter(({ id }) => released.has(id))))
    t.equal((await walk({ state: 'active' })).length, 120)
    t.same(await walk({ createdAfter: 1_790_000_000_000, createdBefore: 1_790_000_000_003, newestFirst: false }),
      idsOf(inOrder.filter(({ createdAt }) => createdAt > 1_790_000_000_000 && createdAt < 1_790_000_000_003)))
    t.equal((await walk({ nodeId: b.store.nodeId })).length, 40)
    t.same(await walk({ activeBefore: 5 }), [])
    t.match(await b.store.count(), { total: 150, ownerless: 30, byNode: { [b.store.nodeId]: 40 } })
    await t.rejects(a.store.list({ newestFirst: true, limit: 5, cursor: 'bm8' }), { code: 'INVALID_CURSOR' })
  })

  t.test('nodes tell each other things', async t => {
    const [a, b] = await fleet(t as Test, 2) as [TestNode, TestNode]
    t.equal(await a.store.tell(b.store.nodeId, 'drain', { at: 5 }), true)
    await waitFor(() => b.told.length > 0)
    t.same(b.told, [{ topic: 'drain', body: { at: 5 }, from: a.store.nodeId }])
    t.equal(await a.store.tell('nobody', 'drain', null), false)
  })

  t.test('another layout or number of partitions is refused at the start', async t => {
    await fleet(t as Test, 1)
    const prefix = `test${prefixes}`
    await t.rejects(startNode(t as Test, server.url, { prefix, partitions: 32 }), /16 partitions, not in 32/)
    await server.client.hset(`${prefix}:meta`, 'layout', '9')
    await t.rejects(startNode(t as Test, server.url, { prefix }), /layout 9/)
  })

  t.test('a policy that evicts is warned of', async t => {
    const [a] = await fleet(t as Test, 1) as [TestNode]
    t.same(a.warnings, [])
    await server.client.config('SET', 'maxmemory-policy', 'allkeys-lru')
    const [b] = await fleet(t as Test, 1) as [TestNode]
    t.match(b.warnings, [/noeviction/])
    await server.client.config('SET', 'maxmemory-policy', 'noeviction')
  })

  const options = { keyPrefix: 'mine:', stringNumbers: true }
  const clients = { ioredis: () => new Redis(server.port, options), iovalkey: () => new Valkey(server.port, options) }
  for (const [name, create] of Object.entries(clients)) {
    t.test(`a client of ${name} shows the way, and is left as it is`, async t => {
      const client = create()
      t.teardown(() => { client.disconnect() })
      const prefix = `test${++prefixes}`
      const a = await startNode(t as Test, server.url, { prefix, port: adoptRedis(client) })
      const b = await startNode(t as Test, server.url, { prefix })
      const { session: { id }, fence } = await createdIn(a)
      t.equal(await a.store.commit(batchOf(id, fence, 0, ['a'])), 'kept')
      t.match(await b.store.find(id), { outboxMessages: 1 }, 'a node with a URL sees the same keys')
      t.equal(await b.store.tell(a.store.nodeId, 'ping', null), true)
      await waitFor(() => a.told.length > 0)
      await a.store.close()
      t.equal(await client.ping(), 'PONG')
    })
  }

  t.test('scripts that the server has forgotten are sent again', async t => {
    const [a] = await fleet(t as Test, 1) as [TestNode]
    const { session: { id }, fence } = await createdIn(a)
    await server.client.script('FLUSH')
    const results = await Promise.all([1, 2, 3].map(n => a.store.commit(batchOf(id, fence, n - 1, [`${n}`]))))
    t.same(results, ['kept', 'kept', 'kept'], 'S-6 in their order')
  })
})

/** A lease of a test is over soon after its renewal, so one look after a tick may come too late. */
async function becomesOk ({ store }: TestNode): Promise<void> {
  await waitFor(async () => {
    await store.tick()
    return store.health() === 'ok'
  })
}

/** Waits for what another process does. */
async function waitFor (condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + 60_000
  while (!await condition()) {
    if (Date.now() > end) throw new Error('waited a minute in vain')
    await new Promise(resolve => setImmediate(resolve))
  }
}
