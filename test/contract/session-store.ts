// The rules of src/io/session/store.ts, S-1 to S-8, for any store. A store's own test calls this with a way to make one; what a store does not claim in its traits
// is not asked of it, and what it claims is.

import fc from 'fast-check'
import type { Test } from 'tap'
import { HoldfastError } from '../../src/io/errors.js'
import type { SessionRecord } from '../../src/io/session/record.js'
import { append, createReplayLog } from '../../src/io/session/replay-log.js'
import type { SessionStore, StoreQuery, StoredTombstone } from '../../src/io/session/store.js'
import type { ManualClock } from '../helpers/clock.js'
import { buildOutput, buildRecord } from '../helpers/domain.js'

export interface StoreUnderTest {
  readonly store: SessionStore
  readonly clock: ManualClock
  readonly tombstoneTtlMs: number
  readonly maxTombstones: number
  readonly scanLimit: number
  /** Ends the process's hold on the data without warning and opens it again; wanted of every store that claims to survive something. */
  reopen?: () => Promise<SessionStore>
  /** Makes what lies under the store fail; wanted of every store that has something under it. */
  breakDown?: () => void
}

export type MakeStore = (t: Test) => StoreUnderTest | Promise<StoreUnderTest>

export const FUZZ_SEED = Number(process.env.FUZZ_SEED ?? 20260101)

export function buryingOf (record: SessionRecord, buriedAt: number, fields: Partial<StoredTombstone> = {}): StoredTombstone {
  return {
    id: record.id, userId: record.userId, reason: 'idle', endedAt: 1, lastCommand: 0, tokenHash: 'hash', previousTokenHash: null, buriedAt, ...fields
  }
}

function idsOf (records: Iterable<SessionRecord>): string[] {
  return Array.from(records, record => record.id)
}

/** Follows the cursor to the end; `between` runs after each page. */
export function walkAll (store: SessionStore, query: StoreQuery, between: (page: number) => void = () => {}): { ids: string[], pages: number[] } {
  const ids: string[] = []
  const pages: number[] = []
  let cursor: string | null = null
  do {
    const page = store.list(cursor === null ? query : { ...query, cursor })
    ids.push(...idsOf(page.records))
    pages.push(page.records.length)
    cursor = page.nextCursor
    between(pages.length)
  } while (cursor !== null && pages.length < 10_000)
  return { ids, pages }
}

async function fill (store: SessionStore, count: number, fields: (n: number) => Partial<SessionRecord> = () => ({})): Promise<SessionRecord[]> {
  const records = Array.from({ length: count }, (_, n) => buildRecord({ id: `r${n + 1}`, ...fields(n + 1) }))
  await Promise.all(records.map(record => store.add(record)))
  return records
}

export function sessionStoreContract (t: Test, makeStore: MakeStore): void {
  directoryRules(t, makeStore)
  journalRules(t, makeStore)
  tombstoneRules(t, makeStore)
  listingRules(t, makeStore)
  walkingRules(t, makeStore)
}

function directoryRules (t: Test, makeStore: MakeStore): void {
  t.test('S-1 an added record is found by id, by user, in listings and in the counts', async t => {
    const { store } = await makeStore(t)
    const [one, two, three] = await fill(store, 3, n => ({ userId: n === 2 ? 'bob' : 'ann' })) as [SessionRecord, SessionRecord, SessionRecord]
    t.equal(store.get('r1'), one)
    t.equal(store.get('r2'), two)
    t.equal(store.get('r4'), undefined)
    t.strictSame(idsOf(store.ofUser('ann')), ['r1', 'r3'])
    t.strictSame(idsOf(store.ofUser('bob')), ['r2'])
    t.strictSame(idsOf(store.ofUser('nobody')), [])
    t.strictSame([store.countOfUser('ann'), store.countOfUser('bob'), store.countOfUser('nobody'), store.count()], [2, 1, 0, 3])
    t.strictSame(idsOf(store.all()), ['r1', 'r2', 'r3'])
    t.ok(one.ordinal < two.ordinal && two.ordinal < three.ordinal, 'ordinals rise')
  })

  t.test('S-1 an ordinal is above all before it, also those of removed records', async t => {
    const { store, clock } = await makeStore(t)
    const [one] = await fill(store, 1) as [SessionRecord]
    await store.remove(one, buryingOf(one, clock.now()))
    const next = buildRecord({ id: 'next' })
    await store.add(next)
    t.ok(next.ordinal > one.ordinal)
  })

  t.test('S-1 names that live on Object.prototype are no ids and no users', async t => {
    const { store } = await makeStore(t)
    for (const name of ['__proto__', 'constructor', 'toString']) {
      t.equal(store.get(name), undefined)
      t.equal(store.tombstone(name), undefined)
      t.equal(store.countOfUser(name), 0)
    }
    const odd = buildRecord({ id: '__proto__', userId: '__proto__' })
    await store.add(odd)
    t.equal(store.get('__proto__'), odd)
    t.strictSame(idsOf(store.ofUser('__proto__')), ['__proto__'])
  })
}

function journalRules (t: Test, makeStore: MakeStore): void {
  t.test('S-2 commit of an owned record settles', async t => {
    const { store } = await makeStore(t)
    const [one] = await fill(store, 1) as [SessionRecord]
    one.log = createReplayLog()
    append(one.log, buildOutput())
    t.equal(await store.commit(one), undefined)
    t.equal(await store.commit(one), undefined, 'and once more without a change')
  })

  t.test('S-2 what was committed survives what the traits claim', async t => {
    const under = await makeStore(t)
    const { traits } = under.store
    t.match(traits, { survives: /^(nothing|process|host|node)$/, shared: Boolean })
    if (traits.survives === 'nothing') {
      t.equal(under.reopen, undefined)
      return
    }
    const [one] = await fill(under.store, 1) as [SessionRecord]
    one.log = createReplayLog()
    append(one.log, buildOutput(',"kept":true}', 1))
    one.log.watermark = 1
    one.context = { kept: true }
    await under.store.commit(one)
    const again = (await under.reopen?.())?.get(one.id)
    t.match(again, { context: { kept: true }, log: { lastSeq: 1, watermark: 1, count: 1 } })
  })

  t.test('S-3 commit of a removed record rejects with STORE_UNAVAILABLE', async t => {
    const { store, clock } = await makeStore(t)
    const [one] = await fill(store, 1) as [SessionRecord]
    await store.remove(one, buryingOf(one, clock.now()))
    await t.rejects(async () => { await store.commit(one) }, { code: 'STORE_UNAVAILABLE' })
    t.equal(store.get(one.id), undefined)
    t.equal(store.count(), 0)
  })

  t.test('S-3 commit of a record that was never added rejects with STORE_UNAVAILABLE', async t => {
    const { store } = await makeStore(t)
    await t.rejects(async () => { await store.commit(buildRecord({ id: 'stranger' })) }, { code: 'STORE_UNAVAILABLE' })
    t.equal(store.count(), 0)
  })

  t.test('S-3 commit of an older life of the same id rejects and the younger one is untouched', async t => {
    const { store, clock } = await makeStore(t)
    const [older] = await fill(store, 1) as [SessionRecord]
    await store.remove(older, buryingOf(older, clock.now()))
    const younger = buildRecord({ id: older.id, epoch: 'another' })
    await store.add(younger)
    await t.rejects(async () => { await store.commit(older) }, { code: 'STORE_UNAVAILABLE' })
    t.equal(await store.commit(younger), undefined)
    t.equal(store.get(older.id), younger)
    await store.remove(older, buryingOf(older, clock.now()))
    t.equal(store.get(older.id), younger, 'nor does the older one take the younger away')
  })

  t.test('S-8 a store with something under it fails with a HoldfastError, never in silence', async t => {
    const under = await makeStore(t)
    if (under.breakDown === undefined) {
      t.equal(under.store.traits.survives, 'nothing', 'only memory has nothing under it')
      return
    }
    const [one] = await fill(under.store, 1) as [SessionRecord]
    under.breakDown()
    await t.rejects(async () => { await under.store.commit(one) }, HoldfastError)
  })

  t.test('S-2 a closed store holds nothing', async t => {
    const { store } = await makeStore(t)
    await fill(store, 2)
    await store.close()
    t.equal(store.count(), 0)
    t.strictSame(idsOf(store.all()), [])
  })
}

function tombstoneRules (t: Test, makeStore: MakeStore): void {
  t.test('S-4 remove takes the record out of every index and leaves its tombstone', async t => {
    const { store, clock } = await makeStore(t)
    const [one, two] = await fill(store, 2) as [SessionRecord, SessionRecord]
    const tombstone = buryingOf(one, clock.now(), { reason: 'ended_by_operator', note: 'moved', lastCommand: 7 })
    await store.remove(one, tombstone)
    t.equal(store.get('r1'), undefined)
    t.strictSame(idsOf(store.ofUser('ann')), ['r2'])
    t.strictSame(idsOf(store.all()), ['r2'])
    t.strictSame(walkAll(store, { newestFirst: false, limit: 10 }).ids, ['r2'])
    t.strictSame([store.count(), store.countOfUser('ann')], [1, 1])
    t.strictSame(store.tombstone('r1'), tombstone)
    t.equal(store.tombstone('r2'), undefined)
    await store.remove(two, buryingOf(two, clock.now()))
    t.strictSame([store.count(), store.countOfUser('ann')], [0, 0])
    t.strictSame(idsOf(store.ofUser('ann')), [])
  })

  t.test('S-4 a second remove does nothing: the first tombstone stays', async t => {
    const { store, clock } = await makeStore(t)
    const [one] = await fill(store, 2) as [SessionRecord]
    await store.remove(one, buryingOf(one, clock.now(), { reason: 'idle' }))
    await store.remove(one, buryingOf(one, clock.now(), { reason: 'shutdown' }))
    t.equal(store.tombstone('r1')?.reason, 'idle')
    t.equal(store.count(), 1)
  })

  t.test('S-5 a tombstone lives for its time to the millisecond', async t => {
    const { store, clock, tombstoneTtlMs } = await makeStore(t)
    const [one] = await fill(store, 1) as [SessionRecord]
    await store.remove(one, buryingOf(one, clock.now()))
    clock.advance(tombstoneTtlMs)
    t.equal(store.tombstone('r1')?.id, 'r1')
    clock.advance(1)
    t.equal(store.tombstone('r1'), undefined)
  })

  t.test('S-5 the wall clock has no say in it', async t => {
    const { store, clock } = await makeStore(t)
    const [one] = await fill(store, 1) as [SessionRecord]
    await store.remove(one, buryingOf(one, clock.now()))
    clock.setWall(clock.wall() + 1e12)
    t.equal(store.tombstone('r1')?.id, 'r1')
    clock.setWall(0)
    t.equal(store.tombstone('r1')?.id, 'r1')
  })

  t.test('S-5 no more than maxTombstones are kept, the oldest go first', async t => {
    const { store, clock, maxTombstones } = await makeStore(t)
    const records = await fill(store, maxTombstones + 2)
    for (const record of records) await store.remove(record, buryingOf(record, clock.now()))
    const left = records.filter(record => store.tombstone(record.id) !== undefined)
    t.strictSame(idsOf(left), idsOf(records.slice(2)))
  })

  t.test('S-5 tombstones past their time make room when the next one comes', async t => {
    const { store, clock, tombstoneTtlMs } = await makeStore(t)
    const [one, two] = await fill(store, 2) as [SessionRecord, SessionRecord]
    await store.remove(one, buryingOf(one, clock.now()))
    clock.advance(tombstoneTtlMs + 1)
    await store.remove(two, buryingOf(two, clock.now()))
    t.equal(store.tombstone('r1'), undefined)
    t.equal(store.tombstone('r2')?.id, 'r2')
  })
}

function listingRules (t: Test, makeStore: MakeStore): void {
  t.test('S-6 pages follow one another in order of creation, both ways', async t => {
    const { store } = await makeStore(t)
    await fill(store, 7)
    const oldest = ['r1', 'r2', 'r3', 'r4', 'r5', 'r6', 'r7']
    t.strictSame(walkAll(store, { newestFirst: false, limit: 3 }), { ids: oldest, pages: [3, 3, 1] })
    t.strictSame(walkAll(store, { newestFirst: true, limit: 3 }), { ids: [...oldest].reverse(), pages: [3, 3, 1] })
    t.strictSame(walkAll(store, { newestFirst: false, limit: 7 }).pages, [7], 'a page that takes the last one is the last')
    t.strictSame(walkAll(store, { newestFirst: true, limit: 1 }).ids, [...oldest].reverse())
  })

  t.test('S-6 an empty store has one empty page', async t => {
    const { store } = await makeStore(t)
    t.strictSame(store.list({ newestFirst: false, limit: 1 }), { records: [], nextCursor: null })
    t.strictSame(store.list({ newestFirst: true, limit: 1 }), { records: [], nextCursor: null })
  })

  t.test('S-6 filters select by state, user, creation and activity', async t => {
    const { store } = await makeStore(t)
    const connection = { sentSeq: 0, wake () {}, flush () {}, dismiss () {} }
    await fill(store, 4, n => ({ createdAt: n * 100, lastActiveAt: n * 10, userId: n > 2 ? 'bob' : 'ann', connection: n % 2 === 0 ? connection : null }))
    const ids = (query: Partial<StoreQuery>): string[] => walkAll(store, { newestFirst: false, limit: 2, ...query }).ids
    t.strictSame(ids({ state: 'active' }), ['r2', 'r4'])
    t.strictSame(ids({ state: 'detached' }), ['r1', 'r3'])
    t.strictSame(ids({ userId: 'bob' }), ['r3', 'r4'])
    t.strictSame(ids({ userId: 'nobody' }), [])
    t.strictSame(ids({ createdBefore: 200 }), ['r1'], 'createdBefore is exclusive')
    t.strictSame(ids({ createdAfter: 200 }), ['r3', 'r4'], 'createdAfter is exclusive')
    t.strictSame(ids({ activeBefore: 30 }), ['r1', 'r2'], 'activeBefore is exclusive')
    t.strictSame(ids({ userId: 'bob', state: 'active', createdAfter: 100, createdBefore: 500, activeBefore: 99, newestFirst: true }), ['r4'])
  })

  t.test('S-6 a cursor that no list gave is refused', async t => {
    const { store } = await makeStore(t)
    await fill(store, 5)
    const { nextCursor } = store.list({ newestFirst: false, limit: 2 })
    const bad = ['', 'x', '%%%', Buffer.from('o').toString('base64url'), Buffer.from('o-1').toString('base64url'),
      Buffer.from('o1.5').toString('base64url'), Buffer.from('o1e3').toString('base64url'), Buffer.from(`o${'9'.repeat(20)}`).toString('base64url'), 'A'.repeat(10_000)]
    for (const cursor of bad) t.throws(() => store.list({ newestFirst: false, limit: 2, cursor }), { code: 'INVALID_CURSOR' }, cursor.slice(0, 20))
    t.throws(() => store.list({ newestFirst: true, limit: 2, cursor: nextCursor as string }), { code: 'INVALID_CURSOR' }, 'of the other direction')
  })

  t.test('S-7 a page looks at no more than scanLimit records', async t => {
    const { store, scanLimit } = await makeStore(t)
    await fill(store, scanLimit * 2 + 1, n => ({ userId: n === scanLimit * 2 + 1 ? 'last' : 'ann' }))
    const first = store.list({ newestFirst: false, limit: 500, userId: 'last' })
    t.strictSame(first.records, [])
    t.type(first.nextCursor, 'string')
    t.strictSame(walkAll(store, { newestFirst: false, limit: 500, userId: 'last' }), { ids: [`r${scanLimit * 2 + 1}`], pages: [0, 0, 1] })
    t.strictSame(walkAll(store, { newestFirst: true, limit: 500, userId: 'last' }).pages, [1, 0, 0])
  })
}

function walkingRules (t: Test, makeStore: MakeStore): void {
  t.test('S-6 a session that exists during the whole walk is seen once, whatever comes and goes', async t => {
    t.comment(`seed ${FUZZ_SEED}`)
    const under = await makeStore(t)
    const { store, clock } = under
    let made = 0
    await fc.assert(fc.asyncProperty(
      fc.integer({ min: 0, max: 60 }), fc.integer({ min: 1, max: 9 }), fc.boolean(), fc.array(fc.tuple(fc.boolean(), fc.nat(1000)), { maxLength: 60 }), fc.integer({ min: 1, max: 8 }),
      async (size, limit, newestFirst, changes, perPage) => {
        const standing: SessionRecord[] = []
        for (let n = 0; n < size; n++) {
          const record = buildRecord({ id: `walk${++made}` })
          await store.add(record)
          standing.push(record)
        }
        const whole = new Set(idsOf(standing))
        const everything = [...standing]
        const writes: (void | Promise<void>)[] = []
        const { ids } = walkAll(store, { newestFirst, limit }, () => {
          for (const [isAdd, pick] of changes.splice(0, perPage)) {
            if (isAdd || standing.length === 0) {
              const record = buildRecord({ id: `walk${++made}` })
              writes.push(store.add(record))
              everything.push(record)
              continue
            }
            const [gone] = standing.splice(pick % standing.length, 1) as [SessionRecord]
            whole.delete(gone.id)
            writes.push(store.remove(gone, buryingOf(gone, clock.now())))
          }
        })
        await Promise.all(writes)
        const seenOnce = ids.length === new Set(ids).size
        const sawAll = [...whole].every(id => ids.includes(id))
        const order = ids.map(id => everything.find(record => record.id === id)?.ordinal ?? NaN)
        const inOrder = order.every((ordinal, i) => i === 0 || (newestFirst ? ordinal < (order[i - 1] as number) : ordinal > (order[i - 1] as number)))
        for (const record of [...store.all()]) await store.remove(record, buryingOf(record, clock.now()))
        return seenOnce && sawAll && inOrder && store.count() === 0
      }), { seed: FUZZ_SEED, numRuns: 60 })
  })
}
