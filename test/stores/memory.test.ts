import t from 'tap'
import { sessionStoreContract } from '../../contract/index.js'
import { buildBatch, buildStored, buildTombstone } from '../helpers/stored.js'
import { createMemoryStore } from '../../src/stores/memory.js'

const seed = Number(process.env.FUZZ_SEED ?? 20260101)

t.test('memory store', async t => {
  await sessionStoreContract(t, () => ({ store: createMemoryStore() }), { seed })
})

t.test('S-1 S-4 creating and ending are answered at once: nothing is awaited', async t => {
  const store = createMemoryStore()
  t.same(store.create(buildStored({ id: 'a' })), { fence: 1 })
  t.equal(store.end('a', 1, buildTombstone('a')), 'ended')
})

t.test('S-1 no more than 10,000 ended sessions are remembered, and the oldest go first', async t => {
  const store = createMemoryStore()
  for (let index = 0; index <= 10_000; index++) {
    const { fence } = store.create(buildStored({ id: `s${index}` })) as { fence: number }
    await store.end(`s${index}`, fence, buildTombstone(`s${index}`))
  }
  t.equal(store.create(buildStored({ id: 's1' })), 'exists')
  t.same(store.create(buildStored({ id: 's0' })), { fence: 10_002 })
})

t.test('S-3 no two sessions have the same fence', async t => {
  const store = createMemoryStore()
  t.same(store.create(buildStored({ id: 'a' })), { fence: 1 })
  t.same(store.create(buildStored({ id: 'b' })), { fence: 2 })
  t.equal(await store.commit(buildBatch({ id: 'b', fence: 1 }, 'x')), 'fenced')
  t.equal(await store.commit(buildBatch({ id: 'b', fence: 2 }, 'x')), 'kept')
})
