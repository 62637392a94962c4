import t from 'tap'
import type { Test } from 'tap'
import type { SessionRecord } from '../../src/io/session/record.js'
import { createMemoryStore } from '../../src/stores/memory.js'
import { createDelayingStore } from '../contract/delaying-store.js'
import { buryingOf, FUZZ_SEED, sessionStoreContract, walkAll, type StoreUnderTest } from '../contract/session-store.js'
import { createManualClock } from '../helpers/clock.js'
import { buildRecord, createRandom } from '../helpers/domain.js'

const BOUNDS = { tombstoneTtlMs: 5000, maxTombstones: 20, scanLimit: 30 }

function makeMemory (): StoreUnderTest {
  const clock = createManualClock()
  return { store: createMemoryStore({ clock, ...BOUNDS }), clock, ...BOUNDS }
}

t.test('memory store', t => {
  sessionStoreContract(t as Test, makeMemory)
  t.end()
})

t.test('memory store behind late and reordered settlement', t => {
  t.comment(`seed ${FUZZ_SEED}`)
  const random = createRandom(FUZZ_SEED)
  sessionStoreContract(t as Test, () => {
    const under = makeMemory()
    return { ...under, store: createDelayingStore(under.store, { random }) }
  })
  t.end()
})

t.test('S-2 memory keeps a commit on return: nothing is awaited', async t => {
  const { store } = makeMemory()
  const record = buildRecord({ id: 'a' })
  t.equal(store.add(record), undefined)
  t.equal(store.commit(record), undefined)
  t.equal(store.remove(record, buryingOf(record, 0)), undefined)
})

t.test('S-5 an hour and ten thousand tombstones are the defaults', async t => {
  const clock = createManualClock()
  const store = createMemoryStore({ clock })
  const records = Array.from({ length: 10_001 }, (_, n) => buildRecord({ id: `r${n}` }))
  for (const record of records) {
    void store.add(record)
    void store.remove(record, buryingOf(record, clock.now()))
  }
  t.equal(store.tombstone('r0'), undefined)
  t.equal(store.tombstone('r1')?.id, 'r1')
  clock.advance(3_600_000)
  t.equal(store.tombstone('r10000')?.id, 'r10000')
  clock.advance(1)
  t.equal(store.tombstone('r10000'), undefined)
})

t.test('S-7 a page of a large store reads no more records than it gives', async t => {
  const store = createMemoryStore({ clock: createManualClock() })
  let reads = 0
  const records: SessionRecord[] = []
  for (let n = 0; n < 20_000; n++) {
    const record = buildRecord({ id: `r${n}` })
    Object.defineProperty(record, 'userId', { get () { reads++; return 'ann' } })
    records.push(record)
    void store.add(record)
  }
  // A third goes, from everywhere, so that blocks are of all lengths.
  for (const record of records.filter((_, n) => n % 3 === 0)) void store.remove(record, buryingOf(record, 0))
  reads = 0
  const { nextCursor } = store.list({ newestFirst: true, limit: 500, userId: 'ann' })
  t.equal(reads, 500)
  store.list({ newestFirst: true, limit: 10, userId: 'ann', cursor: nextCursor as string })
  t.equal(reads, 510, 'the second page does not walk the first again')
  const expected = records.filter((_, n) => n % 3 !== 0).map(record => record.id)
  t.strictSame(walkAll(store, { newestFirst: false, limit: 499 }).ids, expected)
  t.strictSame(walkAll(store, { newestFirst: true, limit: 500 }).ids, expected.reverse())
})
