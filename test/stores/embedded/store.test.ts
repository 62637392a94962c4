// The embedded store on a journal and timers that a test drives.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { StoredSession, StoredTombstone, StoreHealth } from '../../../src/io/session/store.js'
import { createJournal } from '../../../src/stores/embedded/journal.js'
import { openLayout } from '../../../src/stores/embedded/opening.js'
import { createEmbeddedStore, type EmbeddedStoreOptions } from '../../../src/stores/embedded/store.js'
import { createFaultyJournal } from '../../helpers/faulty-journal.js'
import { buildBatch, buildStored, buildTombstone } from '../../helpers/stored.js'

const FULL = new Error('IO error: x.log: No space left on device')

interface Timer { readonly ms: number, readonly callback: () => void }

function makeDirectory (t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-store-'))
  t.teardown(() => { rmSync(directory, { recursive: true, force: true }) })
  return directory
}

/** A store that is open; its timers run when the test says so. */
async function open (t: Test, options: Partial<EmbeddedStoreOptions> = {}) {
  const directory = options.directory ?? makeDirectory(t)
  const journal = createFaultyJournal(createJournal(directory))
  let timers: Timer[] = []
  const delays: number[] = []
  const after = (ms: number, callback: () => void): (() => void) => {
    const timer = { ms, callback }
    timers.push(timer)
    delays.push(ms)
    return () => { timers = timers.filter(each => each !== timer) }
  }
  const store = createEmbeddedStore({ directory, journal, after, stallMs: 7000, ...options })
  const restored: StoredSession[] = []
  const buried: StoredTombstone[] = []
  const told: string[] = []
  const waiting: { health: StoreHealth, resolve: () => void }[] = []
  await store.open({
    restore (session) { restored.push(session) },
    bury (tombstone) { buried.push(tombstone) },
    healthChanged (health, error) {
      told.push(error === undefined ? health : `${health}: ${error.message}`)
      for (const entry of waiting) if (entry.health === health) entry.resolve()
    }
  })
  t.teardown(() => store.close())
  return {
    store,
    directory,
    journal,
    restored,
    buried,
    told,
    delays,
    /** Runs what is due after this time. */
    due (ms: number) {
      const callbacks = timers.filter(timer => timer.ms === ms)
      timers = timers.filter(timer => timer.ms !== ms)
      for (const { callback } of callbacks) callback()
      return callbacks.length
    },
    becomes: (health: StoreHealth) => store.health() === health
      ? Promise.resolve()
      : new Promise<void>(resolve => { waiting.push({ health, resolve }) })
  }
}

type Opened = Awaited<ReturnType<typeof open>>

async function fenceOf ({ store }: Opened, id: string): Promise<number> {
  const created = await store.create(buildStored({ id }))
  if (typeof created === 'string') throw new Error(created)
  return created.fence
}

/** Resolves when a retry has been asked for; its timer is due then. */
async function retryAfter (opened: Opened, ms: number): Promise<void> {
  while (opened.due(ms) === 0) await new Promise<void>(resolve => { setImmediate(resolve) })
}

t.test('the writes of a turn are one group, and those that come meanwhile are the next', async t => {
  const opened = await open(t)
  const { store, journal } = opened
  const fence = await fenceOf(opened, 'a')
  await fenceOf(opened, 'b')
  const before = store.stats.groups
  journal.hold()
  const first = ['a', 'b'].map(id => store.commit(buildBatch({ id, fence }, 'x')))
  await new Promise<void>(resolve => { setImmediate(() => { setImmediate(resolve) }) })
  const second = [1, 2, 3].map(prevSeq => store.commit(buildBatch({ id: 'a', fence, prevSeq }, 'x')))
  await new Promise<void>(resolve => { setImmediate(resolve) })
  journal.release()
  t.same(await Promise.all([...first, ...second]), Array(5).fill('kept'))
  t.equal(store.stats.groups - before, 2)
})

t.test('stats count answers, groups and the time they took', async t => {
  const opened = await open(t)
  const { store } = opened
  const fence = await fenceOf(opened, 'a')
  await store.create(buildStored({ id: 'a' }))
  await store.commit(buildBatch({ id: 'a', fence }, 'x'))
  await store.commit(buildBatch({ id: 'a', fence, prevSeq: 9 }, 'x'))
  await store.commit(buildBatch({ id: 'a', fence: fence + 1 }, 'x'))
  await store.commit(buildBatch({ id: 'none', fence }, 'x'))
  await store.end('a', fence, buildTombstone('a'))
  const { answers, groups, writes, operations, bytes, failures, ...more } = store.stats
  const { writeBounds, writeBuckets, writeSeconds, ...now } = more
  t.same(answers, { kept: 1, created: 1, ended: 1, exists: 1, fenced: 1, missing: 1, gap: 1, unavailable: 0 })
  t.same({ groups, writes, failures }, { groups: 4, writes: 4, failures: 0 })
  t.ok(operations > 4 && bytes > 100 && writeSeconds > 0)
  t.equal(writeBuckets.length, writeBounds.length + 1)
  t.equal(writeBuckets.reduce((sum, count) => sum + count), 4)
  t.same(now, { sessions: 0, tombstones: 1 })
})

t.test('durability says whether a group goes to the disk itself', async t => {
  for (const [durability, sync] of [['process', false], ['disk', true]] as const) {
    const opened = await open(t, { durability })
    await fenceOf(opened, 'a')
    t.equal(opened.journal.syncs.at(-1), sync, durability)
  }
})

t.test('a clean end goes to the disk in either durability', async t => {
  const { store, journal } = await open(t)
  await store.close()
  t.equal(journal.syncs.at(-1), true)
})

t.test('S-8 a disk that does not answer: nobody waits, and the store goes on when it does', async t => {
  const opened = await open(t)
  const { store, journal, told } = opened
  const fence = await fenceOf(opened, 'a')
  journal.hold()
  const batch = buildBatch({ id: 'a', fence }, 'x')
  const waiting = store.commit(batch)
  await retryAfter(opened, 7000)
  t.equal(await waiting, 'unavailable')
  t.match(told, [/^degraded: The disk of .* has not answered a write for 7 s\. The store goes on by itself when/])
  t.equal(await store.commit(batch), 'unavailable')
  journal.release()
  await opened.becomes('ok')
  t.equal(await store.commit(batch), 'kept', 'it was kept all the same')
  t.same(await store.commit(buildBatch({ id: 'a', fence, prevSeq: 0 }, 'x', 'y')), { gap: 1 })
})

t.test('S-8 a disk that does not answer, and then fails', async t => {
  const opened = await open(t)
  const { store, journal, told } = opened
  const fence = await fenceOf(opened, 'a')
  journal.hold()
  const batch = buildBatch({ id: 'a', fence }, 'x')
  const waiting = store.commit(batch)
  await retryAfter(opened, 7000)
  t.equal(await waiting, 'unavailable')
  journal.fail(FULL)
  journal.release()
  while (told.length < 2) await new Promise<void>(resolve => { setImmediate(resolve) })
  t.match(told[1], /^degraded: No space is left/)
  journal.mend()
  await retryAfter(opened, 100)
  await opened.becomes('ok')
  t.equal(await store.commit(batch), 'kept')
})

t.test('S-8 it tries again after ever longer times, and says the same thing once', async t => {
  const opened = await open(t)
  const { store, journal, told, delays } = opened
  const fence = await fenceOf(opened, 'a')
  journal.fail(FULL)
  t.equal(await store.commit(buildBatch({ id: 'a', fence }, 'x')), 'unavailable')
  const expected = [100, 200, 400, 800, 1600, 2000, 2000]
  for (const ms of expected) await retryAfter(opened, ms)
  t.same(delays.filter(ms => ms <= 2000).slice(0, expected.length), expected)
  t.equal(told.length, 1)
  journal.mend()
  await retryAfter(opened, 2000)
  await opened.becomes('ok')
  t.equal(await store.commit(buildBatch({ id: 'a', fence }, 'x')), 'kept')
})

t.test('S-8 what was being written when it failed is in doubt, and is read again', async t => {
  for (const when of ['before', 'after'] as const) {
    const opened = await open(t)
    const { store, journal } = opened
    const fence = await fenceOf(opened, 'a')
    await fenceOf(opened, 'gone')
    await store.commit(buildBatch({ id: 'a', fence }, '1', '2'))
    journal.fail(FULL, when)
    const lost = [
      store.commit(buildBatch({ id: 'a', fence, prevSeq: 2 }, '3')),
      store.create(buildStored({ id: 'new' })),
      store.end('gone', fence, buildTombstone('gone'))
    ]
    t.same(await Promise.all(lost), ['unavailable', 'unavailable', 'unavailable'])
    journal.mend()
    await retryAfter(opened, 100)
    await opened.becomes('ok')
    const wasKept = when === 'after'
    t.same(await store.commit(buildBatch({ id: 'a', fence, prevSeq: 8 }, '9')), { gap: wasKept ? 3 : 2 }, when)
    t.same(await store.create(buildStored({ id: 'new' })), wasKept ? 'exists' : { fence })
    t.equal(await store.end('gone', fence, buildTombstone('gone')), wasKept ? 'missing' : 'ended')
  }
})

t.test('S-8 another process that took the directory meanwhile ends this one', async t => {
  const opened = await open(t)
  const { store, journal, directory } = opened
  const fence = await fenceOf(opened, 'a')
  journal.fail(FULL)
  t.equal(await store.commit(buildBatch({ id: 'a', fence }, 'x')), 'unavailable')
  await retryAfter(opened, 100)
  const other = await open(t, { directory })
  t.equal(other.restored.length, 1)
  await other.store.close()
  journal.mend()
  await retryAfter(opened, 200)
  await opened.becomes('fenced')
  t.match(opened.told.at(-1), /^fenced: Another process has used the data directory .*End one of the two/)
  t.equal(await store.commit(buildBatch({ id: 'a', fence }, 'x')), 'unavailable')
})

t.test('S-8 one that still has the directory ends this one as well', async t => {
  const opened = await open(t)
  const fence = await fenceOf(opened, 'a')
  opened.journal.fail(FULL)
  t.equal(await opened.store.commit(buildBatch({ id: 'a', fence }, 'x')), 'unavailable')
  await retryAfter(opened, 100)
  await open(t, { directory: opened.directory })
  opened.journal.mend()
  await retryAfter(opened, 200)
  await opened.becomes('fenced')
  t.match(opened.told.at(-1), /is used by another process/)
})

t.test('S-9 close does not wait for a disk that heals some day', async t => {
  const opened = await open(t)
  const fence = await fenceOf(opened, 'a')
  opened.journal.fail(FULL)
  t.equal(await opened.store.commit(buildBatch({ id: 'a', fence }, 'x')), 'unavailable')
  await opened.store.close()
  opened.journal.mend()
  const next = await open(t, { directory: opened.directory })
  t.equal(next.restored.length, 1, 'and leaves the directory free')
})

t.test('an idle store notices that its files are gone', async t => {
  const opened = await open(t)
  rmSync(opened.directory, { recursive: true })
  t.equal(opened.due(5000), 1)
  t.equal(opened.store.health(), 'fenced')
  t.match(opened.told, [/^fenced: The data directory .* was removed or replaced/])
  t.equal(opened.due(5000), 1, 'and says it once')
  t.equal(opened.told.length, 1)
})

/** Too large to lie with the progress. */
const LARGE = 'x'.repeat(2100)

t.test('S-7 a damaged session is buried, and the others come back', async t => {
  const first = await open(t)
  const fence = await fenceOf(first, 'whole')
  const access = { labels: {}, tokenHash: 'mine', previousTokenHash: null }
  for (const id of ['holed', 'headless']) {
    await first.store.create(buildStored({ id, userId: 'bob', access }))
    await first.store.commit(buildBatch({ id, fence, progress: { watermark: 4 } }, LARGE, LARGE, LARGE))
  }
  const group = first.journal.group()
  group.delete('s!holed!o!00000000000002')
  group.delete('s!headless!h')
  await group.write(false)
  await first.store.close()

  const problems: string[] = []
  const onDamaged = (problem: string): void => { problems.push(problem) }
  const options = { directory: first.directory, wall: () => 5000, onDamaged }
  const next = await open(t, options)
  t.same(next.restored.map(({ id }) => id), ['whole'])
  const buried = { reason: 'state_lost', endedAt: 5000, lastCommand: 4, tokenHash: 'mine', previousTokenHash: null }
  t.same(next.buried, [{ id: 'headless', userId: '', ...buried }, { id: 'holed', userId: 'bob', ...buried }])
  t.same(problems, [
    'session headless: who it belongs to is missing',
    'session holed: it should hold the outputs 1 to 3, and holds 1, 3'
  ])
  t.equal(await next.store.create(buildStored({ id: 'holed' })), 'exists')
  await next.store.close()
  const last = await open(t, options)
  t.equal(problems.length, 2, 'once')
  t.equal(last.buried.length, 2)
})

t.test('tombstones go when they are old or too many', async t => {
  let now = 1_000_000
  const options = { wall: () => now, tombstoneMs: 1000, maxTombstones: 3 }
  const first = await open(t, options)
  const end = async (opened: Opened, id: string): Promise<void> => {
    const fence = await fenceOf(opened, id)
    t.equal(await opened.store.end(id, fence, buildTombstone(id, { endedAt: now })), 'ended')
  }
  for (const id of ['1', '2', '3', '4']) {
    await end(first, id)
    now += 100
  }
  t.equal(first.store.stats.tombstones, 3)
  await fenceOf(first, '1')
  t.equal(await first.store.create(buildStored({ id: '2' })), 'exists')
  now = 1_001_150
  await end(first, '5')
  t.equal(first.store.stats.tombstones, 3)
  await first.store.close()
  now = 1_001_250
  const next = await open(t, { ...options, directory: first.directory })
  t.same(next.buried.map(({ id }) => id), ['4', '5'], 'oldest first')
  await next.store.close()
  const last = await open(t, { ...options, maxTombstones: 1, directory: first.directory })
  t.same(last.buried.map(({ id }) => id), ['5'])
})

t.test('an opening says how far it is', async t => {
  const first = await open(t)
  await Promise.all(Array.from({ length: 20_500 }, (_, index) => first.store.create(buildStored({ id: `s${index}` }))))
  await first.store.close()
  const progress: number[] = []
  const next = await open(t, { directory: first.directory, onProgress: restored => { progress.push(restored) } })
  t.same(progress, [10_000, 20_000])
  t.equal(next.store.stats.sessions, 20_500)
})

t.test('each life has a fence of its own', async t => {
  const first = await open(t)
  t.equal(await fenceOf(first, 'a'), 1)
  await first.store.close()
  const next = await open(t, { directory: first.directory })
  t.equal(await fenceOf(next, 'b'), 2)
  t.equal(await next.store.commit(buildBatch({ id: 'a', fence: 1 }, 'x')), 'fenced')
  t.equal(await next.store.commit(buildBatch({ id: 'a', fence: 2 }, 'x')), 'kept')
})

t.test('a format of a later version is refused, and nothing is changed', async t => {
  const { store, directory } = await open(t)
  await store.close()
  const journal = createJournal(directory)
  await journal.open('again')
  const group = journal.group()
  group.put('m!format', '2')
  await group.write(false)
  await journal.close()
  await t.rejects(open(t, { directory }), {
    code: 'STORE_UNAVAILABLE',
    message: /has format 2, and this version reads formats up to 1\. Start the version that wrote it, or choose another/
  })
  await journal.open('again')
  t.equal(await journal.get('m!openings'), '1')
  await journal.close()
})

t.test('an earlier format is brought up step by step, and a step that failed is taken again', async t => {
  const { store, directory } = await open(t)
  await store.close()
  const journal = createJournal(directory)
  await journal.open('again')
  const steps: string[] = []
  let fails = true
  const upgrades = new Map([
    [1, async () => { steps.push('1 to 2') }],
    [2, async () => {
      steps.push('2 to 3')
      if (fails) throw FULL
    }]
  ])
  await t.rejects(openLayout(journal, directory, 3, upgrades), FULL)
  t.equal(await journal.get('m!format'), '2')
  fails = false
  t.equal(await openLayout(journal, directory, 3, upgrades), 2)
  t.equal(await journal.get('m!format'), '3')
  t.same(steps, ['1 to 2', '2 to 3', '2 to 3'])
  await t.rejects(openLayout(journal, directory, 5, upgrades), { message: /has format 3, and this version reads/ })
  await journal.close()
})
