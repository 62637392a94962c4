// The rules of src/io/session/store.ts for any store. A store's own test calls this with a way to
// make one; what a store does not claim in its traits is not asked of it, and what it claims is.
// Each test runs twice: with the store as it is, and behind a wrapper that delays and reorders what
// happens to different sessions.

import type { StoredSession } from '../src/io/session/store.js'
import { aWholeNumber, checkOptions, type OptionCheck } from '../src/option-checks.js'
import { delayed } from './delayed-store.js'
import { print } from './forms.js'
import { createHistory } from './histories.js'
import { follow, start, type ContractTest, type MakeStore, type StoreUnderTest, type Successor } from './life.js'
import { FAULTS, LIVES } from './lives.js'
import type { Model } from './model.js'
import { createRandom } from './random.js'
import { WRITES } from './writes.js'

export interface ContractOptions {
  /** Of the random histories; default 20260101. */
  seed?: number
  /** How many of them; default 25. */
  histories?: number
}

// A misspelt name, or NaN, would run other tests than were asked for, or none of the random ones.
const CHECKS: Record<keyof ContractOptions, OptionCheck> = { seed: aWholeNumber(0), histories: aWholeNumber(0) }

/**
 * Resolves when every test has run.
 *
 * @throws CONFIG_INVALID  an option that is no whole number, or that there is none of
 */
export async function sessionStoreContract (
  t: ContractTest, makeStore: MakeStore, options: ContractOptions = {}
): Promise<void> {
  checkOptions('sessionStoreContract', options, CHECKS)
  const { seed = 20260101, histories = 25 } = options
  await t.test('as it is', (t: ContractTest) => runContract(t, makeStore, seed, histories))
  const random = createRandom(seed)
  await t.test('behind late and reordered answers', (t: ContractTest) => runContract(t, async t => {
    const { store, next, ...rest } = await makeStore(t)
    return {
      ...rest,
      store: delayed(store, random),
      ...(next === undefined ? {} : { next: async (how: Successor) => delayed(await next(how), random) })
    }
  }, seed, histories))
}

async function runContract (t: ContractTest, makeStore: MakeStore, seed: number, histories: number): Promise<void> {
  for (const [name, run] of Object.entries({ ...WRITES, ...LIVES, ...FAULTS })) {
    await t.test(name, async (t: ContractTest) => {
      const under = await makeStore(t)
      await run(t, under, await start(t, under.store))
    })
  }
  for (let index = 0; index < histories; index++) {
    await t.test(`S-1 to S-7 in random history ${index} of seed ${seed}`, async (t: ContractTest) => {
      await runHistory(t, await makeStore(t), seed * 1000 + index)
    })
  }
}

async function runHistory (t: ContractTest, under: StoreUnderTest, seed: number): Promise<void> {
  const random = createRandom(seed)
  const { model, burst, claimed } = createHistory(random, `h${seed % 1000}`)
  let life = await start(t, under.store)
  for (let bursts = 12; bursts > 0; bursts--) {
    const writes = await burst(life.store)
    const answers = await Promise.all(writes.map(async ({ what, answer }) => `${what}: ${await answer}`))
    t.same(answers, writes.map(({ what, expected }) => `${what}: ${expected}`))
    if (random() < 0.6) continue
    const next = await follow(t, under, life, random() < 0.5 ? 'closed' : 'killed')
    if (next === undefined) continue
    life = next
    t.equal(print(Object.fromEntries(life.restored)), print(sessionsOf(model)), 'each as its last batch left it')
    t.equal(print(Object.fromEntries(life.buried)), print(Object.fromEntries(model.tombstones)), 'and every tombstone')
    claimed(life.fences)
  }
}

function sessionsOf ({ sessions }: Model): Record<string, StoredSession> {
  return Object.fromEntries([...sessions].map(([id, { session }]) => [id, session]))
}
