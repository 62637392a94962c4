// What happens to a real file system under the store: full, read-only, deleted, torn, used by
// another process. Where a file system has to be mounted, the test needs root; elsewhere it says
// what it skipped, and keeper.test.ts covers the same on an injected journal.

import { execFileSync, fork } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync, closeSync, cpSync, mkdirSync, mkdtempSync, openSync, readdirSync, rmSync, statSync, truncateSync,
  writeFileSync, writeSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { StoredSession, StoreHealth, StoreHooks } from '../../../src/io/session/store.js'
import { createEmbeddedStore, type EmbeddedStore } from '../../../src/stores/embedded/store.js'
import { createRandom, randomBytes, upTo } from '../../../contract/random.js'
import { eventually } from '../../helpers/server.js'
import { buildBatch, buildStored, buildTombstone } from '../../helpers/stored.js'
import { UNCOUNTED } from '../../helpers/uncounted.js'

function makeDirectory (t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-faults-'))
  t.teardown(() => { rmSync(directory, { recursive: true, force: true }) })
  return directory
}

/** What a test passes as its option: mounting a small file system needs root. */
const MOUNTS = { skip: canMount() ? false : 'skipped: this user may not mount a file system' }

function canMount (): boolean {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-mount-'))
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', directory], { stdio: 'pipe' })
    execFileSync('umount', [directory])
    return true
  } catch {
    return false
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function mount (t: Test, options: string): string {
  const directory = makeDirectory(t)
  execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'none', directory])
  t.teardown(() => { execFileSync('umount', ['-l', directory]) })
  return directory
}

interface Opened {
  readonly store: EmbeddedStore
  readonly sessions: Map<string, StoredSession>
  readonly told: { health: StoreHealth, message: string | undefined }[]
  becomes(health: StoreHealth): Promise<void>
}

async function open (t: Test, directory: string, hooks: Partial<StoreHooks> = {}): Promise<Opened> {
  const store = createEmbeddedStore({ directory })
  const sessions = new Map<string, StoredSession>()
  const told: Opened['told'] = []
  const waiting: { health: StoreHealth, resolve: () => void }[] = []
  await store.open({
    restore (session) { sessions.set(session.id, session) },
    bury () {},
    healthChanged (health, error) {
      told.push({ health, message: error?.message })
      for (const entry of waiting) if (entry.health === health) entry.resolve()
    },
    ...hooks
  })
  // A timer of the store does not hold the process; a test that waits for it has to.
  const holding = setInterval(() => {}, 1000)
  t.teardown(async () => {
    clearInterval(holding)
    await store.close()
  })
  const becomes = (health: StoreHealth): Promise<void> => store.health() === health
    ? Promise.resolve()
    : new Promise(resolve => { waiting.push({ health, resolve }) })
  return { store, sessions, told, becomes }
}

async function fenceOf (store: EmbeddedStore, id: string): Promise<number> {
  const created = await store.create(buildStored({ id }))
  if (typeof created === 'string') throw new Error(created)
  return created.fence
}

t.test('a full disk: refused, told, and kept again when there is space', MOUNTS, async t => {
  const directory = mount(t, 'size=3m')
  const ballast = join(directory, 'ballast')
  writeFileSync(ballast, Buffer.alloc(2 * 1024 * 1024))
  const { store, told, becomes } = await open(t, join(directory, 'data'))
  const fence = await fenceOf(store, 'one')
  const random = createRandom(1)
  let seq = 0
  let result: unknown = 'kept'
  const write = () => {
    const tail = `${seq + 1} ${randomBytes(random, 10_000)}`
    return store.commit(buildBatch({ id: 'one', fence, prevSeq: seq }, tail))
  }
  while (result === 'kept' && seq < 1000) {
    result = await write()
    if (result === 'kept') seq++
  }
  t.equal(result, 'unavailable')
  t.equal(store.health(), 'degraded')
  t.match(told[0], {
    health: 'degraded', message: /^No space is left on the disk of .*data\. Free some\. The store tries again/
  })
  t.equal(await store.create(buildStored({ id: 'two' })), 'unavailable')
  rmSync(ballast)
  await becomes('ok')
  t.match(told.at(-1), { health: 'ok', message: undefined })
  const again = await write()
  t.ok(again === 'kept' || (again as { gap: number }).gap === seq + 1, 'the batch that was refused')
  t.match(await store.create(buildStored({ id: 'two' })), { fence })
  await store.close()
  const next = await open(t, join(directory, 'data'))
  const restored = next.sessions.get('one') as StoredSession
  t.ok(restored.progress.lastSeq >= seq, 'nothing kept is missing')
  t.same(restored.outputs.map(({ tail }) => parseInt(tail, 10)), Array.from(restored.outputs, (_, index) => index + 1))
})

t.test('a disk that is full again and again', MOUNTS, async t => {
  const directory = mount(t, 'size=3m')
  const ballast = join(directory, 'ballast')
  const { store, becomes } = await open(t, join(directory, 'data'))
  const fence = await fenceOf(store, 'one')
  const random = createRandom(2)
  let seq = 0
  for (let round = 0; round < 3; round++) {
    for (let writes = 0; ; writes++) {
      if (writes === 20) fill(ballast)
      const progress = { releasedSeq: Math.max(0, seq - 5) }
      const batch = buildBatch({ id: 'one', fence, prevSeq: seq, progress }, randomBytes(random, 3000))
      const result = await store.commit(batch)
      if (result === 'unavailable') break
      seq = typeof result === 'object' ? result.gap : seq + 1
    }
    t.ok(seq >= 20 * (round + 1), `${seq} kept in ${round + 1} rounds`)
    rmSync(ballast)
    await becomes('ok')
  }
  await store.close()
  const next = await open(t, join(directory, 'data'))
  t.ok((next.sessions.get('one')?.progress.lastSeq ?? -1) >= seq, `${seq} were kept`)
})

/** Takes all the space that is left. */
function fill (path: string): void {
  const file = openSync(path, 'w')
  try {
    for (;;) writeSync(file, Buffer.alloc(64 * 1024))
  } catch (error) {
    if ((error as { code?: string }).code !== 'ENOSPC') throw error
  } finally {
    closeSync(file)
  }
}

t.test('a read-only file system: the opening says so', MOUNTS, async t => {
  const directory = mount(t, 'size=16m')
  const { store } = await open(t, join(directory, 'data'))
  await fenceOf(store, 'one')
  await store.close()
  execFileSync('mount', ['-o', 'remount,ro', directory])
  await t.rejects(open(t, join(directory, 'data')), {
    code: 'STORE_UNAVAILABLE', message: /^The file system of .*data is read-only\. Mount it writable\.$/
  })
  execFileSync('mount', ['-o', 'remount,rw', directory])
  t.ok((await open(t, join(directory, 'data'))).sessions.has('one'))
})

t.test('a directory deleted underneath fences the store', async t => {
  const directory = join(makeDirectory(t), 'data')
  const { store, told } = await open(t, directory)
  const fence = await fenceOf(store, 'one')
  t.equal(await store.commit(buildBatch({ id: 'one', fence }, 'a')), 'kept')
  rmSync(directory, { recursive: true })
  const batch = buildBatch({ id: 'one', fence, prevSeq: 1 }, 'b')
  t.equal(await store.commit(batch), 'unavailable', 'a deleted file would have taken it')
  t.equal(store.health(), 'fenced')
  t.match(told, [{
    health: 'fenced', message: /data was removed or replaced while the server ran.*start the server again\.$/
  }])
  t.equal(await store.commit(batch), 'unavailable')
  t.equal(told.length, 1)
})

t.test('a directory replaced by a copy of itself fences the store', async t => {
  const directory = join(makeDirectory(t), 'data')
  const { store } = await open(t, directory)
  const fence = await fenceOf(store, 'one')
  cpSync(directory, `${directory}.copy`, { recursive: true })
  rmSync(directory, { recursive: true })
  cpSync(`${directory}.copy`, directory, { recursive: true })
  t.equal(await store.commit(buildBatch({ id: 'one', fence }, 'a')), 'unavailable')
  t.equal(store.health(), 'fenced')
})

t.test('a torn last write: what comes back is what some batch left', async t => {
  const root = makeDirectory(t)
  const { store } = await open(t, join(root, 'whole'))
  const fences = new Map<string, number>()
  for (const id of ['one', 'two']) fences.set(id, await fenceOf(store, id))
  for (let seq = 0; seq < 20; seq++) {
    for (const [id, fence] of fences) {
      const tails = [`${2 * seq + 1}`, `${2 * seq + 2}`]
      await store.commit(buildBatch({ id, fence, prevSeq: 2 * seq, context: { seq } }, ...tails))
    }
  }
  const log = lastLog(join(root, 'whole'))
  const size = statSync(join(root, 'whole/journal', log)).size
  const random = createRandom(3)
  for (let round = 0; round < 40; round++) {
    const torn = join(root, `torn-${round}`)
    cpSync(join(root, 'whole'), torn, { recursive: true })
    truncateSync(join(torn, 'journal', log), upTo(random, size))
    const next = await open(t, torn)
    for (const { progress, outputs, context } of next.sessions.values()) {
      const complete = progress.lastSeq % 2 === 0 && outputs.length === progress.lastSeq &&
        (progress.lastSeq === 0 || context['seq'] === progress.lastSeq / 2 - 1)
      if (!complete) t.fail(`round ${round}: a batch is there in part`)
    }
    const ids = [...next.sessions.keys()]
    t.same(ids, ['one', 'two'].slice(0, ids.length), 'a prefix of what was written')
    await next.store.close()
  }
})

function lastLog (directory: string): string {
  return readdirSync(join(directory, 'journal')).filter(name => name.endsWith('.log')).sort().at(-1) as string
}

t.test('damaged data: the opening says what to do', async t => {
  const directory = join(makeDirectory(t), 'data')
  const { store } = await open(t, directory)
  await store.close()
  const manifest = readdirSync(join(directory, 'journal')).find(name => name.startsWith('MANIFEST')) as string
  truncateSync(join(directory, 'journal', manifest), 3)
  await t.rejects(open(t, directory), {
    code: 'STORE_UNAVAILABLE', message: /data is damaged\. Stop the server and restore the directory from a backup/
  })
})

t.test('a second store on the same directory is refused', async t => {
  const directory = join(makeDirectory(t), 'data')
  const { store } = await open(t, directory)
  const refusal = {
    code: 'STORE_UNAVAILABLE',
    message: /^The data directory .*data is used by another process\. Stop that one, or give each/
  }
  await t.rejects(open(t, directory), refusal)
  t.equal(store.health(), 'ok', 'and the first one goes on')
  await fenceOf(store, 'one')
})

t.test('also in another process', async t => {
  const directory = join(makeDirectory(t), 'data')
  const writer = fork('test/helpers/killed-writer.ts', [directory, '1'], {
    execArgv: ['--import', 'tsx'], env: { ...process.env, ...UNCOUNTED, NODE_OPTIONS: '' }, silent: true
  })
  await once(writer.stdout as NonNullable<typeof writer.stdout>, 'data')
  await t.rejects(open(t, directory), { message: /is used by another process/ })
  writer.kill('SIGKILL')
  await once(writer, 'exit')
  t.ok((await open(t, directory)).sessions.size > 0, 'the lock ends with its process')
})

t.test('a path that is not a directory, and one that may not be written', async t => {
  const root = makeDirectory(t)
  writeFileSync(join(root, 'file'), '')
  await t.rejects(open(t, join(root, 'file')), {
    message: /file is not a directory\. Choose another HOLDFAST_DATA_DIR\.$/
  })
  if (process.getuid?.() === 0) return t.comment('root may write everywhere')
  mkdirSync(join(root, 'closed'))
  chmodSync(join(root, 'closed'), 0o500)
  await t.rejects(open(t, join(root, 'closed/data')), { message: /may not be written by this user/ })
})

t.test('the directory stays small however much goes through it', async t => {
  const directory = join(makeDirectory(t), 'data')
  const store = createEmbeddedStore({ directory, maxTombstones: 100 })
  await store.open({ restore () {}, bury () {}, healthChanged () {} })
  const random = createRandom(4)
  const text = randomBytes(random, 20_000)
  for (let index = 0; index < 3000; index++) {
    const id = `s${index}`
    const fence = await fenceOf(store, id)
    await store.commit(buildBatch({ id, fence }, text))
    await store.end(id, fence, buildTombstone(id))
  }
  t.ok(store.stats.bytes > 60_000_000, `${store.stats.bytes} went through`)
  t.equal(store.stats.tombstones, 100)
  await store.close()
  // The next opening gives back what LevelDB has not come past yet; on a busy machine the one after
  // that, since nobody waits for it.
  const sizes: number[] = []
  await eventually('less than a megabyte is left', async () => {
    await (await open(t, directory)).store.close()
    sizes.push(readdirSync(join(directory, 'journal'))
      .reduce((sum, name) => sum + statSync(join(directory, 'journal', name)).size, 0))
    return (sizes.at(-1) as number) < 1_000_000
  })
  t.comment(`bytes left: ${sizes.join(', ')}`)
})

t.test('the data is for its owner alone', async t => {
  const directory = join(makeDirectory(t), 'data')
  await open(t, directory)
  t.equal(statSync(directory).mode & 0o077, 0)
})
