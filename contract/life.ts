// What the suite is given, and a store from its opening to its close.

import type { SessionStore, StoredSession, StoredTombstone, StoreHealth, StoreHooks } from '../src/io/session/store.js'

/**
 * What the suite needs of a test runner. The `t` of tap is one; for node:test there is
 * `onNodeTest`.
 */
export interface ContractTest {
  // The parameter is a ContractTest; `any` lets runners be passed whose own type has more.
  test(name: string, run: (t: any) => Promise<void>): unknown
  /** Fails unless both are the same value, by `Object.is` or `===`. */
  equal(actual: unknown, expected: unknown, ...message: [] | [string]): unknown
  /** Fails unless both are equal by their members. */
  same(actual: unknown, expected: unknown, ...message: [] | [string]): unknown
  /** Runs when the test is over. */
  teardown(callback: () => void | Promise<void>): unknown
}

/**
 * How the store before it ended: `closed` by `close()`, or `killed`, as by the death of its process
 * while no write was under way.
 */
export type Successor = 'closed' | 'killed'

export interface StoreUnderTest {
  /** With nothing in it, and not open yet. */
  readonly store: SessionStore
  /**
   * Another store over the same data, not open yet, as the next process would make it. Needed by
   * every store that survives something.
   */
  next?: (how: Successor) => SessionStore | Promise<SessionStore>
  /**
   * From now on what lies under the store fails; needed by every store that has something under it.
   */
  breakDown?: () => void | Promise<void>
  /** It works again. */
  mend?: () => void | Promise<void>
}

export type MakeStore = (t: ContractTest) => StoreUnderTest | Promise<StoreUnderTest>

export interface Life {
  readonly store: SessionStore
  readonly restored: Map<string, StoredSession>
  readonly fences: Map<string, number>
  readonly buried: Map<string, StoredTombstone>
  readonly health: { health: StoreHealth, error: Error | undefined }[]
  /** Resolves when the store has said so. */
  becomes(health: StoreHealth): Promise<void>
}

export type Cases = Record<string, (t: ContractTest, under: StoreUnderTest, life: Life) => Promise<void>>

export async function start (t: ContractTest, store: SessionStore): Promise<Life> {
  const waiting: { health: StoreHealth, resolve: () => void }[] = []
  const life: Life = {
    store,
    restored: new Map(),
    fences: new Map(),
    buried: new Map(),
    health: [],
    becomes: health => store.health() === health
      ? Promise.resolve()
      : new Promise(resolve => { waiting.push({ health, resolve }) })
  }
  const hooks: StoreHooks = {
    restore (session, fence) {
      life.restored.set(session.id, session)
      life.fences.set(session.id, fence)
    },
    bury (tombstone) { life.buried.set(tombstone.id, tombstone) },
    healthChanged (health, error) {
      life.health.push({ health, error })
      for (const entry of waiting) if (entry.health === health) entry.resolve()
    }
  }
  await store.open(hooks)
  t.teardown(() => store.close())
  return life
}

export async function create (store: SessionStore, session: StoredSession): Promise<number> {
  const result = await store.create(session)
  if (typeof result === 'string') throw new Error(`create ${session.id}: ${result}`)
  return result.fence
}

/** The store that follows; undefined for one that nothing survives. */
export async function follow (
  t: ContractTest, under: StoreUnderTest, life: Life, how: Successor
): Promise<Life | undefined> {
  if (life.store.traits.survives === 'nothing') return undefined
  if (under.next === undefined) throw new Error('A store whose sessions survive something needs `next` in its test.')
  if (how === 'closed') await life.store.close()
  return await start(t, await under.next(how))
}
