// `holdfast store …` on data directories as they are, and as they should not be.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runStoreCommand, STORE_USAGE } from '../src/store-command.js'
import { createJournal } from '../src/stores/embedded/journal.js'
import { createEmbeddedStore } from '../src/stores/embedded/store.js'
import { buildBatch, buildStored, buildTombstone } from './helpers/stored.js'

async function run (...argv: string[]): Promise<{ code: number, out: string, error: string }> {
  const printed = { out: '', error: '' }
  const code = await runStoreCommand(argv, {
    out: async text => { printed.out += text },
    error: async text => { printed.error += text }
  })
  return { code, ...printed }
}

/** Too large to lie with the progress, so both outputs have keys of their own. */
const LARGE = `,"text":"${'b'.repeat(2100)}"}`

/** Two sessions and a tombstone. */
async function makeData (t: Test): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-command-'))
  t.teardown(() => { rmSync(directory, { recursive: true, force: true }) })
  const store = createEmbeddedStore({ directory })
  await store.open({ restore () {}, bury () {}, healthChanged () {} })
  const fences: number[] = []
  for (const id of ['one', 'two', 'gone']) {
    const created = await store.create(buildStored({ id, context: { id } }))
    if (typeof created === 'string') throw new Error(created)
    fences.push(created.fence)
  }
  const fence = fences[0] as number
  const outputs = [{ tail: ',"text":"\u00c3\u00a4"}', commandId: 0 }, { tail: LARGE, commandId: 7 }]
  await store.commit(buildBatch({ id: 'one', fence, outputs, progress: { lastSeq: 5, releasedSeq: 3, detachedAt: 1 } }))
  await store.end('gone', fence, buildTombstone('gone', { note: 'why' }))
  await store.close()
  return directory
}

async function damage (directory: string, changes: Record<string, string | null>): Promise<void> {
  const journal = createJournal(directory)
  await journal.open('again')
  const group = journal.group()
  for (const [key, text] of Object.entries(changes)) {
    if (text === null) group.delete(key)
    else group.put(key, text)
  }
  await group.write(false)
  await journal.close()
}

t.test('check finds nothing wrong with what a store has written', async t => {
  const directory = await makeData(t)
  t.same(await run('check', directory), {
    code: 0, out: '2 sessions and 1 tombstones are whole; there are no problems.\n', error: ''
  })
  await damage(directory, { 'x!another': 'kind of record' })
  t.equal((await run('check', directory)).code, 0, 'records of other kinds are left alone')
})

t.test('S-7 check names each thing that is wrong', async t => {
  const directory = await makeData(t)
  await damage(directory, {
    's!one!o!00000000000004': null,
    's!two!p': '{"lastSeq":1',
    's!three!p': '{}',
    's!four!z': '',
    't!two': JSON.stringify(buildTombstone('two')),
    't!five': JSON.stringify(buildTombstone('six')),
    't!seven': '{'
  })
  const { code, out } = await run('check', directory)
  t.equal(code, 1)
  const lines = out.trim().split('\n')
  t.match(lines.shift(), 'session four: an unknown part "z"')
  t.match(lines.shift(), 'session one: it should hold the outputs 4 to 5, and holds 5')
  t.match(lines.shift(), 'session three: who it belongs to is missing')
  t.match(lines.shift(), /^session two: .*JSON/)
  t.match(lines.shift(), 'session two: it has a tombstone as well')
  t.match(lines.shift(), 'tombstone five: it is of session six')
  t.match(lines.shift(), /^tombstone seven: .*JSON/)
  t.same(lines, ['0 sessions and 2 tombstones are whole; problems: 7.'])
})

t.test('check names seqs that are out of order, and an output without its command', async t => {
  const directory = await makeData(t)
  await damage(directory, {
    's!two!p': JSON.stringify({ ackedSeq: 2, releasedSeq: 1, lastSeq: 1 }),
    's!one!o!00000000000004': ',"text":"a"}'
  })
  const { out } = await run('check', directory)
  t.match(out, 'session one: an output has no command id')
  t.match(out, 'session two: seqs out of order: acked 2, released 1, last 1')
})

t.test('stats counts', async t => {
  const { code, out } = await run('stats', await makeData(t))
  t.equal(code, 0)
  const rows = out.trimEnd().split('\n').map(line => [line.slice(0, 24).trim(), line.slice(24).trim()])
  const figures = Object.fromEntries(rows) as object
  t.match(figures, {
    format: '1', openings: '1', sessions: '2', outputs: '2', bytes: '2124', 'without a connection': '1', tombstones: '1'
  })
  t.match(out, /most of one session +2124 \(one\)/)
})

t.test('export prints one line of JSON each', async t => {
  const { code, out } = await run('export', await makeData(t))
  t.equal(code, 0)
  const lines = out.trim().split('\n').map(line => JSON.parse(line))
  t.equal(lines.length, 3)
  t.match(lines[0].session, {
    id: 'one',
    userId: 'ann',
    context: { id: 'one' },
    outputs: [{ seq: 4, commandId: 0, tail: ',"text":"ä"}' }, { seq: 5, commandId: 7, tail: LARGE }]
  })
  t.match(lines[2], { tombstone: { id: 'gone', note: 'why' } })
})

t.test('export goes on behind what is damaged, and says so', async t => {
  const directory = await makeData(t)
  await damage(directory, { 's!one!h': null })
  const { code, out, error } = await run('export', directory)
  t.equal(code, 1)
  t.equal(out.trim().split('\n').length, 2)
  t.equal(error, 'session one: who it belongs to is missing\n')
})

t.test('a format of another version', async t => {
  const directory = await makeData(t)
  await damage(directory, { 'm!format': '2' })
  t.match(await run('check', directory), { code: 1, out: /^format 2: this version reads format 1\n/ })
})

t.test('no data, no such command, a directory in use', async t => {
  const directory = await makeData(t)
  const nothing = await run('check', join(directory, 'none'))
  t.match(nothing, { code: 1, error: /none holds no data of an embedded store\.\n$/ })
  for (const argv of [[], ['check'], ['look', directory], ['check', directory, directory], ['toString', directory]]) {
    t.match(await run(...argv), { code: 1, out: '', error: STORE_USAGE })
  }
  t.match(await run('--help'), { code: 0, out: STORE_USAGE })
  const store = createEmbeddedStore({ directory })
  await store.open({ restore () {}, bury () {}, healthChanged () {} })
  t.match(await run('stats', directory), { code: 1, error: /is used by another process\. Stop that one/ })
  await store.close()
})
