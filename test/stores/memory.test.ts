import t from 'tap'
import type { Test } from 'tap'
import { createMemoryStore } from '../../src/stores/memory.js'
import { createDelayingStore } from '../contract/delaying-store.js'
import { buryingOf, FUZZ_SEED, sessionStoreContract } from '../contract/session-store.js'
import { buildRecord, createRandom } from '../helpers/domain.js'

t.test('memory store', t => {
  sessionStoreContract(t as Test, () => ({ store: createMemoryStore() }))
  t.end()
})

t.test('memory store behind late and reordered settlement', t => {
  t.comment(`seed ${FUZZ_SEED}`)
  const random = createRandom(FUZZ_SEED)
  sessionStoreContract(t as Test, () => ({ store: createDelayingStore(createMemoryStore(), { random }) }))
  t.end()
})

t.test('S-2 memory keeps everything on return: nothing is awaited', async t => {
  const store = createMemoryStore()
  const record = buildRecord({ id: 'a' })
  t.equal(store.add(record), undefined)
  t.equal(store.commit(record), undefined)
  t.equal(store.remove(record, buryingOf(record)), undefined)
  t.equal(await store.close(), undefined)
})
