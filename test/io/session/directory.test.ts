// The rules of src/io/session/directory.ts, D-1 to D-5.

import fc from 'fast-check'
import t from 'tap'
import {
  createDirectory, type Directory, type DirectoryQuery, type KeptTombstone
} from '../../../src/io/session/directory.js'
import type { SessionRecord } from '../../../src/io/session/record.js'
import { createManualClock, type ManualClock } from '../../helpers/clock.js'
import { buildRecord } from '../../helpers/domain.js'
import { FUZZ_SEED } from '../../helpers/fuzz-seed.js'

const BOUNDS = { tombstoneTtlMs: 5000, maxTombstones: 20, scanLimit: 30 }

function createWorld (): { directory: Directory, clock: ManualClock } & typeof BOUNDS {
  const clock = createManualClock()
  return { directory: createDirectory({ clock, ...BOUNDS }), clock, ...BOUNDS }
}

function buryingOf (record: SessionRecord, buriedAt: number, fields: Partial<KeptTombstone> = {}): KeptTombstone {
  return {
    id: record.id,
    userId: record.userId,
    reason: 'idle',
    endedAt: 1,
    lastCommand: 0,
    tokenHash: 'hash',
    previousTokenHash: null,
    buriedAt,
    ...fields
  }
}

function idsOf (records: Iterable<SessionRecord>): string[] {
  return Array.from(records, record => record.id)
}

/** Follows the cursor to the end; `between` runs after each page. */
function walkAll (
  directory: Directory, query: DirectoryQuery, between: (page: number) => void = () => {}
): { ids: string[], pages: number[] } {
  const ids: string[] = []
  const pages: number[] = []
  let cursor: string | null = null
  do {
    const page = directory.list(cursor === null ? query : { ...query, cursor })
    ids.push(...idsOf(page.records))
    pages.push(page.records.length)
    cursor = page.nextCursor
    between(pages.length)
  } while (cursor !== null && pages.length < 10_000)
  return { ids, pages }
}

function fill (
  directory: Directory, count: number, fields: (n: number) => Partial<SessionRecord> = () => ({})
): SessionRecord[] {
  const records = Array.from({ length: count }, (_, n) => buildRecord({ id: `r${n + 1}`, ...fields(n + 1) }))
  for (const record of records) directory.add(record)
  return records
}

t.test('D-1 an added record is found by id, by user, in listings and in the counts', async t => {
  const { directory } = createWorld()
  const [one, two, three] = fill(directory, 3, n => ({
    userId: n === 2 ? 'bob' : 'ann'
  })) as [SessionRecord, SessionRecord, SessionRecord]
  t.equal(directory.get('r1'), one)
  t.equal(directory.get('r2'), two)
  t.equal(directory.get('r4'), undefined)
  t.strictSame(idsOf(directory.ofUser('ann')), ['r1', 'r3'])
  t.strictSame(idsOf(directory.ofUser('bob')), ['r2'])
  t.strictSame(idsOf(directory.ofUser('nobody')), [])
  t.strictSame(
    [directory.countOfUser('ann'), directory.countOfUser('bob'), directory.countOfUser('nobody'), directory.count()],
    [2, 1, 0, 3]
  )
  t.strictSame(idsOf(directory.all()), ['r1', 'r2', 'r3'])
  t.ok(one.ordinal < two.ordinal && two.ordinal < three.ordinal, 'ordinals rise')
})

t.test('D-1 an ordinal is above all before it, also those of removed records', async t => {
  const { directory, clock } = createWorld()
  const [one] = fill(directory, 1) as [SessionRecord]
  directory.remove(one, buryingOf(one, clock.now()))
  const next = buildRecord({ id: 'next' })
  directory.add(next)
  t.ok(next.ordinal > one.ordinal)
})

t.test('D-1 names that live on Object.prototype are no ids and no users', async t => {
  const { directory } = createWorld()
  for (const name of ['__proto__', 'constructor', 'toString']) {
    t.equal(directory.get(name), undefined)
    t.equal(directory.tombstone(name), undefined)
    t.equal(directory.countOfUser(name), 0)
  }
  const odd = buildRecord({ id: '__proto__', userId: '__proto__' })
  directory.add(odd)
  t.equal(directory.get('__proto__'), odd)
  t.strictSame(idsOf(directory.ofUser('__proto__')), ['__proto__'])
})
t.test('D-2 remove takes the record out of every index and leaves its tombstone', async t => {
  const { directory, clock } = createWorld()
  const [one, two] = fill(directory, 2) as [SessionRecord, SessionRecord]
  const tombstone = buryingOf(one, clock.now(), { reason: 'ended_by_operator', note: 'moved', lastCommand: 7 })
  directory.remove(one, tombstone)
  t.equal(directory.get('r1'), undefined)
  t.strictSame(idsOf(directory.ofUser('ann')), ['r2'])
  t.strictSame(idsOf(directory.all()), ['r2'])
  t.strictSame(walkAll(directory, { newestFirst: false, limit: 10 }).ids, ['r2'])
  t.strictSame([directory.count(), directory.countOfUser('ann')], [1, 1])
  t.strictSame(directory.tombstone('r1'), tombstone)
  t.equal(directory.tombstone('r2'), undefined)
  directory.remove(two, buryingOf(two, clock.now()))
  t.strictSame([directory.count(), directory.countOfUser('ann')], [0, 0])
  t.strictSame(idsOf(directory.ofUser('ann')), [])
})

t.test('D-2 a second remove does nothing: the first tombstone stays', async t => {
  const { directory, clock } = createWorld()
  const [one] = fill(directory, 2) as [SessionRecord]
  directory.remove(one, buryingOf(one, clock.now(), { reason: 'idle' }))
  directory.remove(one, buryingOf(one, clock.now(), { reason: 'shutdown' }))
  t.equal(directory.tombstone('r1')?.reason, 'idle')
  t.equal(directory.count(), 1)
})

t.test('D-3 a tombstone lives for its time to the millisecond', async t => {
  const { directory, clock, tombstoneTtlMs } = createWorld()
  const [one] = fill(directory, 1) as [SessionRecord]
  directory.remove(one, buryingOf(one, clock.now()))
  clock.advance(tombstoneTtlMs)
  t.equal(directory.tombstone('r1')?.id, 'r1')
  clock.advance(1)
  t.equal(directory.tombstone('r1'), undefined)
})

t.test('D-3 the wall clock has no say in it', async t => {
  const { directory, clock } = createWorld()
  const [one] = fill(directory, 1) as [SessionRecord]
  directory.remove(one, buryingOf(one, clock.now()))
  clock.setWall(clock.wall() + 1e12)
  t.equal(directory.tombstone('r1')?.id, 'r1')
  clock.setWall(0)
  t.equal(directory.tombstone('r1')?.id, 'r1')
})

t.test('D-3 no more than maxTombstones are kept, the oldest go first', async t => {
  const { directory, clock, maxTombstones } = createWorld()
  const records = fill(directory, maxTombstones + 2)
  for (const record of records) directory.remove(record, buryingOf(record, clock.now()))
  const left = records.filter(record => directory.tombstone(record.id) !== undefined)
  t.strictSame(idsOf(left), idsOf(records.slice(2)))
})

t.test('D-3 tombstones past their time make room when the next one comes', async t => {
  const { directory, clock, tombstoneTtlMs } = createWorld()
  const [one, two] = fill(directory, 2) as [SessionRecord, SessionRecord]
  directory.remove(one, buryingOf(one, clock.now()))
  clock.advance(tombstoneTtlMs + 1)
  directory.remove(two, buryingOf(two, clock.now()))
  t.equal(directory.tombstone('r1'), undefined)
  t.equal(directory.tombstone('r2')?.id, 'r2')
})
t.test('D-4 pages follow one another in order of creation, both ways', async t => {
  const { directory } = createWorld()
  fill(directory, 7)
  const oldest = ['r1', 'r2', 'r3', 'r4', 'r5', 'r6', 'r7']
  t.strictSame(walkAll(directory, { newestFirst: false, limit: 3 }), { ids: oldest, pages: [3, 3, 1] })
  t.strictSame(walkAll(directory, { newestFirst: true, limit: 3 }), { ids: [...oldest].reverse(), pages: [3, 3, 1] })
  t.strictSame(
    walkAll(directory, { newestFirst: false, limit: 7 }).pages, [7], 'a page that takes the last one is the last'
  )
  t.strictSame(walkAll(directory, { newestFirst: true, limit: 1 }).ids, [...oldest].reverse())
})

t.test('D-4 an empty directory has one empty page', async t => {
  const { directory } = createWorld()
  const EMPTY_PAGE = { records: [], nextCursor: null, contextBytes: 0, isFull: false }
  t.strictSame(directory.list({ newestFirst: false, limit: 1 }), EMPTY_PAGE)
  t.strictSame(directory.list({ newestFirst: true, limit: 1 }), EMPTY_PAGE)
})

t.test('D-4 filters select by state, user, creation and activity', async t => {
  const { directory } = createWorld()
  const connection = { sentSeq: 0, maxOutputBytes: 1_048_576, wake () {}, flush () {}, dismiss () {} }
  fill(directory, 4, n => ({
    createdAt: n * 100, lastActiveAt: n * 10, userId: n > 2 ? 'bob' : 'ann', connection: n % 2 === 0 ? connection : null
  }))
  const ids = (query: Partial<DirectoryQuery>): string[] => walkAll(
    directory, { newestFirst: false, limit: 2, ...query }
  ).ids
  t.strictSame(ids({ state: 'active' }), ['r2', 'r4'])
  t.strictSame(ids({ state: 'detached' }), ['r1', 'r3'])
  t.strictSame(ids({ userId: 'bob' }), ['r3', 'r4'])
  t.strictSame(ids({ userId: 'nobody' }), [])
  t.strictSame(ids({ createdBefore: 200 }), ['r1'], 'createdBefore is exclusive')
  t.strictSame(ids({ createdAfter: 200 }), ['r3', 'r4'], 'createdAfter is exclusive')
  t.strictSame(ids({ activeBefore: 30 }), ['r1', 'r2'], 'activeBefore is exclusive')
  t.strictSame(
    ids({ userId: 'bob', state: 'active', createdAfter: 100, createdBefore: 500, activeBefore: 99, newestFirst: true }),
    ['r4']
  )
})

t.test('D-4 a cursor that no list gave is refused', async t => {
  const { directory } = createWorld()
  fill(directory, 5)
  const { nextCursor } = directory.list({ newestFirst: false, limit: 2 })
  const bad = ['', 'x', '%%%', Buffer.from('o').toString('base64url'), Buffer.from('o-1').toString('base64url'),
    Buffer.from('o1.5').toString('base64url'), Buffer.from('o1e3').toString('base64url'),
    Buffer.from(`o${'9'.repeat(20)}`).toString('base64url'), 'A'.repeat(10_000)]
  for (const cursor of bad) {
    t.throws(
      () => directory.list({ newestFirst: false, limit: 2, cursor }),
      { code: 'INVALID_CURSOR' },
      cursor.slice(0, 20)
    )
  }
  t.throws(
    () => directory.list({ newestFirst: true, limit: 2, cursor: nextCursor as string }),
    { code: 'INVALID_CURSOR' },
    'of the other direction'
  )
})

// A page of 500 contexts of 64 KiB was printed in one turn, which took a third of a second.
t.test('D-6 a page ends before its contexts exceed a mebibyte, and the walk sees every session once', async t => {
  const { directory } = createWorld()
  fill(directory, 7, n => ({ contextBytes: n === 4 ? 2_000_000 : 400_000 }))
  for (const newestFirst of [false, true]) {
    const { ids, pages } = walkAll(directory, { newestFirst, limit: 500 })
    t.strictSame(ids.toSorted(), ['r1', 'r2', 'r3', 'r4', 'r5', 'r6', 'r7'])
    t.strictSame(pages, [2, 1, 1, 2, 1], 'a context that alone is larger has a page of its own')
  }
  t.match(directory.list({ newestFirst: false, limit: 500 }), { contextBytes: 800_000, isFull: true })
  t.match(directory.list({ newestFirst: false, limit: 500, maxContextBytes: 400_000 }).records.length, 1)
})

t.test('D-5 a page looks at no more than scanLimit records', async t => {
  const { directory, scanLimit } = createWorld()
  fill(directory, scanLimit * 2 + 1, n => ({ userId: n === scanLimit * 2 + 1 ? 'last' : 'ann' }))
  const first = directory.list({ newestFirst: false, limit: 500, userId: 'last' })
  t.strictSame(first.records, [])
  t.type(first.nextCursor, 'string')
  t.strictSame(walkAll(directory, { newestFirst: false, limit: 500, userId: 'last' }), {
    ids: [`r${scanLimit * 2 + 1}`], pages: [0, 0, 1]
  })
  t.strictSame(walkAll(directory, { newestFirst: true, limit: 500, userId: 'last' }).pages, [1, 0, 0])
})
t.test('D-4 a session that exists during the whole walk is seen once, whatever comes and goes', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  const { directory, clock } = createWorld()
  let made = 0
  fc.assert(fc.property(
    fc.integer({ min: 0, max: 60 }), fc.integer({ min: 1, max: 9 }), fc.boolean(),
    fc.array(fc.tuple(fc.boolean(), fc.nat(1000)), { maxLength: 60 }), fc.integer({ min: 1, max: 8 }),
    (size, limit, newestFirst, changes, perPage) => {
      const standing: SessionRecord[] = []
      for (let n = 0; n < size; n++) {
        const record = buildRecord({ id: `walk${++made}` })
        directory.add(record)
        standing.push(record)
      }
      const whole = new Set(idsOf(standing))
      const everything = [...standing]
      const { ids } = walkAll(directory, { newestFirst, limit }, () => {
        for (const [isAdd, pick] of changes.splice(0, perPage)) {
          if (isAdd || standing.length === 0) {
            const record = buildRecord({ id: `walk${++made}` })
            directory.add(record)
            everything.push(record)
            continue
          }
          const [gone] = standing.splice(pick % standing.length, 1) as [SessionRecord]
          whole.delete(gone.id)
          directory.remove(gone, buryingOf(gone, clock.now()))
        }
      })
      const seenOnce = ids.length === new Set(ids).size
      const sawAll = [...whole].every(id => ids.includes(id))
      const order = ids.map(id => everything.find(record => record.id === id)?.ordinal ?? NaN)
      const inOrder = order.every((ordinal, i) => i === 0 ||
        (newestFirst ? ordinal < (order[i - 1] as number) : ordinal > (order[i - 1] as number)))
      for (const record of [...directory.all()]) directory.remove(record, buryingOf(record, clock.now()))
      return seenOnce && sawAll && inOrder && directory.count() === 0
    }), { seed: FUZZ_SEED, numRuns: 60 })
})

t.test('D-3 an hour and ten thousand tombstones are the defaults', async t => {
  const clock = createManualClock()
  const directory = createDirectory({ clock })
  const records = Array.from({ length: 10_001 }, (_, n) => buildRecord({ id: `r${n}` }))
  for (const record of records) {
    directory.add(record)
    directory.remove(record, buryingOf(record, clock.now()))
  }
  t.equal(directory.tombstone('r0'), undefined)
  t.equal(directory.tombstone('r1')?.id, 'r1')
  clock.advance(3_600_000)
  t.equal(directory.tombstone('r10000')?.id, 'r10000')
  clock.advance(1)
  t.equal(directory.tombstone('r10000'), undefined)
})

t.test('D-5 a page of a large directory reads no more records than it gives', async t => {
  const directory = createDirectory({ clock: createManualClock() })
  let reads = 0
  const records: SessionRecord[] = []
  for (let n = 0; n < 20_000; n++) {
    const record = buildRecord({ id: `r${n}` })
    Object.defineProperty(record, 'userId', { get () { reads++; return 'ann' } })
    records.push(record)
    directory.add(record)
  }
  // A third goes, from everywhere, so that blocks are of all lengths.
  for (const record of records.filter((_, n) => n % 3 === 0)) directory.remove(record, buryingOf(record, 0))
  reads = 0
  const { nextCursor } = directory.list({ newestFirst: true, limit: 500, userId: 'ann' })
  t.equal(reads, 500)
  directory.list({ newestFirst: true, limit: 10, userId: 'ann', cursor: nextCursor as string })
  t.equal(reads, 510, 'the second page does not walk the first again')
  const expected = records.filter((_, n) => n % 3 !== 0).map(record => record.id)
  t.strictSame(walkAll(directory, { newestFirst: false, limit: 499 }).ids, expected)
  t.strictSame(walkAll(directory, { newestFirst: true, limit: 500 }).ids, expected.reverse())
})
