// Four nodes and thirty-two workers on twenty sessions of a real server, with whatever operations
// come up: commits, batches whose answer was lost, claims by other nodes, releases, pushes and
// repeated pushes. Afterwards every invariant of the keys holds, and what was acknowledged is what
// is there.

import t from 'tap'
import type { Test } from 'tap'
import { createLayout } from '../../../src/stores/redis/layout.js'
import { createRandom } from '../../../contract/random.js'
import { needsRedis, startRedis } from '../../helpers/redis.js'
import { batchOf, createdIn, startNode, TEST_LIMITS, type TestNode } from '../../helpers/redis-node.js'

const SEED = Number(process.env.FUZZ_SEED ?? 20260101)
const WORKERS = 32
const OPERATIONS = 250
const SESSIONS = 20
const DEADLINE = { keepForMs: 60_000, reason: 'resume_window' } as const

/** What a node knows of a session that it owns. */
interface Ownership { fence: number, lastSeq: number, inboxTo: number, isBusy: boolean }

t.test('any interleaving leaves the keys whole', needsRedis(), async t => {
  t.comment(`seed ${SEED}`)
  const random = createRandom(SEED)
  const server = await startRedis(t as Test)
  const limits = { ...TEST_LIMITS, outboxMessages: 1e6, outboxBytes: 1e9 }
  const nodes = await Promise.all(Array.from({ length: 4 }, () => {
    return startNode(t as Test, server.url, { limits, handOffMs: 5 })
  }))
  const layout = createLayout('holdfast', 16, undefined)
  const owned = nodes.map(() => new Map<string, Ownership>())
  const ids: string[] = []
  const pushed = new Map<string, string[]>()
  /**
   * By session, what each ownership wrote: acknowledgements of two nodes may cross, so the fence
   * says which came first.
   */
  const own = new Map<string, Map<number, string[]>>()
  let counter = 0
  let fenced = 0
  const oneOf = <T> (items: readonly T[]): T => items[Math.floor(random() * items.length)] as T

  for (let i = 0; i < SESSIONS; i++) {
    const at = i % nodes.length
    const { session, fence } = await createdIn(nodes[at] as TestNode)
    ids.push(session.id)
    owned[at]?.set(session.id, { fence, lastSeq: 0, inboxTo: 0, isBusy: false })
    pushed.set(session.id, [])
    own.set(session.id, new Map())
  }

  async function commit (at: number, id: string, ownership: Ownership, isLast: boolean): Promise<void> {
    const { store } = nodes[at] as TestNode
    const { fence, lastSeq, inboxTo } = ownership
    const entries = random() < 0.5 ? await store.inbox(id, fence, inboxTo) : []
    const taken = typeof entries === 'string' ? [] : entries
    const fresh = Array.from({ length: Math.floor(random() * 4) }, () => `own ${++counter}`)
    const batch = {
      ...batchOf(id, fence, lastSeq, [...taken.map(({ tail }) => tail), ...fresh]),
      inboxTo: taken.at(-1)?.number ?? inboxTo
    }
    const answers = await Promise.all(Array.from({ length: random() < 0.3 ? 2 : 1 }, () => {
      return isLast ? store.release(batch, DEADLINE) : store.commit(batch)
    }))
    if (answers[0] === 'kept') {
      const written = own.get(id)
      written?.set(fence, [...written.get(fence) ?? [], ...fresh])
      ownership.lastSeq = batch.progress.lastSeq
      ownership.inboxTo = batch.inboxTo
    } else {
      fenced++
      if (answers[0] !== 'fenced') t.fail(`a commit was answered ${JSON.stringify(answers[0])}`)
    }
    if (isLast || answers[0] !== 'kept') owned[at]?.delete(id)
  }

  async function claim (at: number, id: string): Promise<void> {
    const token = { tokenHash: 'hash-1', nextTokenHash: 'hash-1' }
    const result = await (nodes[at] as TestNode).store.claim({ id, userId: 'ann', lastSeen: 0, labels: {}, ...token })
    if (typeof result === 'string') return
    if ('ended' in result) throw new Error(`ended as ${result.ended.reason}`)
    const { fence, session } = result
    owned[at]?.set(id, { fence, lastSeq: session.progress.lastSeq, inboxTo: 0, isBusy: false })
  }

  async function push (at: number, id: string): Promise<void> {
    const content = `push ${++counter}`
    const { store } = nodes[at] as TestNode
    const answers = await Promise.all([1, 2, 3].slice(0, 1 + Math.floor(random() * 3)).map(() => {
      return store.push(id, { pushId: content, tail: content })
    }))
    if (answers.some(answer => typeof answer === 'object')) pushed.get(id)?.push(content)
  }

  await Promise.all(Array.from({ length: WORKERS }, async () => {
    for (let i = 0; i < OPERATIONS; i++) {
      const at = Math.floor(random() * nodes.length)
      const id = oneOf(ids)
      const ownership = owned[at]?.get(id)
      const kind = random()
      if (kind < 0.25) await push(at, id)
      else if (ownership === undefined) {
        if (kind < 0.45) await claim(at, id)
      } else if (!ownership.isBusy) {
        ownership.isBusy = true
        await commit(at, id, ownership, kind > 0.9)
        ownership.isBusy = false
      }
    }
  }))
  t.ok(fenced > 20, `${fenced} stale writes were refused`)

  // Nobody owns anything at the end, so all that was kept is an output.
  await Promise.all(ids.map(async id => {
    await claim(0, id)
    const ownership = owned[0]?.get(id)
    if (ownership === undefined) throw new Error(`${id} cannot be claimed`)
    ownership.isBusy = true
    const released = await nodes[0]?.store.release(batchOf(id, ownership.fence, ownership.lastSeq, []), DEADLINE)
    // What this node has owned all the time may have an inbox, which its release makes outputs.
    t.equal(released, 'kept')
  }))
  for (const id of ids) {
    const [head, , outputs, inbox] = layout.commitKeys(id) as [string, string, string, string]
    const kept = (await server.client.lrange(outputs, 0, -1)).map(entry => entry.slice(entry.indexOf(':') + 1))
    const fields = await server.client.hgetall(head)
    t.equal(Number(fields['ls']), kept.length, 'contiguous')
    t.equal(Number(fields['ob']), kept.reduce((sum, tail) => sum + tail.length + 2, 0), 'bytes are counted')
    t.equal(await server.client.llen(inbox), 0)
    t.same(kept.filter(tail => tail.startsWith('push')).sort(), [...pushed.get(id) ?? []].sort(), 'each push once')
    t.same(kept.filter(tail => tail.startsWith('own')), inOrder(own.get(id)), 'what was acknowledged, in its order')
    t.equal(await server.client.zscore(layout.deadlines(layout.partitionOf(id)), id), fields['dl'])
    for (const { store } of nodes) {
      t.equal(await server.client.sismember(layout.ofNode(layout.partitionOf(id), store.nodeId), id), 0)
    }
  }
  t.match(await nodes[0]?.store.count(), { total: SESSIONS, ownerless: SESSIONS })
})

function inOrder (written: ReadonlyMap<number, string[]> | undefined): string[] {
  return [...written ?? []].sort(([one], [other]) => one - other).flatMap(([, tails]) => tails)
}
