// The rules of src/io/session/store.ts for any store. A store's own test calls this with a way to make one; what a store does not
// claim in its traits is not asked of it, and what it claims is.

import type { Test } from 'tap'
import { HoldfastError } from '../../src/io/errors.js'
import type { KeptTombstone } from '../../src/io/session/directory.js'
import type { SessionRecord } from '../../src/io/session/record.js'
import { append, createReplayLog } from '../../src/io/session/replay-log.js'
import type { SessionStore } from '../../src/io/session/former-store.js'
import { buildOutput, buildRecord } from '../helpers/domain.js'

export interface StoreUnderTest {
  readonly store: SessionStore
  /** Ends the process's hold on the data without warning and opens it again; wanted of every store that claims to survive. */
  reopen?: () => Promise<{ find(id: string): SessionRecord | undefined }>
  /** Makes what lies under the store fail; wanted of every store that has something under it. */
  breakDown?: () => void
}

export type MakeStore = (t: Test) => StoreUnderTest | Promise<StoreUnderTest>

export const FUZZ_SEED = Number(process.env.FUZZ_SEED ?? 20260101)

export function buryingOf (record: SessionRecord): KeptTombstone {
  const { id, userId } = record
  return { id, userId, reason: 'idle', endedAt: 1, lastCommand: 0, tokenHash: 'hash', previousTokenHash: null, buriedAt: 0 }
}

async function addOne (store: SessionStore): Promise<SessionRecord> {
  const record = buildRecord({ id: 'r1' })
  await store.add(record)
  return record
}

/** As the manager ends a session: the record is marked before the store hears of it. */
async function end (store: SessionStore, record: SessionRecord): Promise<void> {
  record.ended = true
  await store.remove(record, buryingOf(record))
}

export function sessionStoreContract (t: Test, makeStore: MakeStore): void {
  t.test('S-1 S-2 a session is added, and its commits settle', async t => {
    const { store } = await makeStore(t)
    const one = await addOne(store)
    one.log = createReplayLog()
    append(one.log, buildOutput())
    t.equal(await store.commit(one), undefined)
    t.equal(await store.commit(one), undefined, 'and once more without a change')
  })

  t.test('S-2 what was committed survives what the traits claim', async t => {
    const { store, reopen } = await makeStore(t)
    t.match(store.traits, { survives: /^(nothing|process|host|node)$/, shared: Boolean })
    if (store.traits.survives === 'nothing') {
      t.equal(reopen, undefined)
      return
    }
    const one = await addOne(store)
    one.log = createReplayLog()
    append(one.log, buildOutput(',"kept":true}', 1))
    one.log.watermark = 1
    one.context = { kept: true }
    await store.commit(one)
    const again = await reopen?.()
    t.match(again?.find(one.id), { context: { kept: true }, log: { lastSeq: 1, watermark: 1, count: 1 } })
  })

  t.test('S-3 commit of a session that has ended rejects with STORE_UNAVAILABLE', async t => {
    const { store } = await makeStore(t)
    const one = await addOne(store)
    await end(store, one)
    await t.rejects(async () => { await store.commit(one) }, { code: 'STORE_UNAVAILABLE' })
  })

  t.test('S-3 commit of an older life of the same id rejects, and the younger one goes on', async t => {
    const { store } = await makeStore(t)
    const older = await addOne(store)
    await end(store, older)
    const younger = buildRecord({ id: older.id, epoch: 'another' })
    await store.add(younger)
    await t.rejects(async () => { await store.commit(older) }, { code: 'STORE_UNAVAILABLE' })
    t.equal(await store.commit(younger), undefined)
    await store.remove(older, buryingOf(older))
    t.equal(await store.commit(younger), undefined, 'nor does the older one take the younger away')
  })

  t.test('S-4 a second remove does nothing', async t => {
    const { store } = await makeStore(t)
    const one = await addOne(store)
    await end(store, one)
    await t.resolves(async () => { await store.remove(one, buryingOf(one)) })
  })

  t.test('S-8 a store with something under it fails with a HoldfastError, never in silence', async t => {
    const { store, breakDown } = await makeStore(t)
    if (breakDown === undefined) {
      t.equal(store.traits.survives, 'nothing', 'only memory has nothing under it')
      return
    }
    const one = await addOne(store)
    breakDown()
    await t.rejects(async () => { await store.commit(one) }, HoldfastError)
  })
}
