// The embedded store by itself, without a server: commits per second in both durabilities, bytes a
// session takes on the disk, and how long an opening takes.
// Run: npm run build && node dist/bench/embedded-store.js [sessions] [writers]

import { randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { StoredSession, StoreHooks } from '../src/io/session/store.js'
import { createEmbeddedStore, type Durability } from '../src/stores/embedded/store.js'

const SESSIONS = Number(process.argv[2] ?? 200_000)
const WRITERS = Number(process.argv[3] ?? 256)
const COMMITS = 200_000
/**
 * As answers of commands are: 300 bytes, which hardly get smaller, acknowledged with the next
 * command.
 */
const TAILS = Array.from({ length: 997 }, () =>
  `,"type":"result","id":1234,"payload":"${randomBytes(195).toString('base64')}"}`)
const HOOKS: StoreHooks = { restore () {}, bury () {}, healthChanged () {} }

const root = mkdtempSync(join(process.env['BENCH_DIR'] ?? tmpdir(), 'holdfast-bench-'))

function tailOf (index: number): string {
  return TAILS[index % TAILS.length] as string
}

function sessionOf (id: string): StoredSession {
  return {
    id,
    userId: 'ann',
    profile: 'full',
    createdAt: Date.now(),
    generation: 'g1234567',
    context: { draft: 7, stage: 'review' },
    access: { labels: { roles: ['reviewer'] }, tokenHash: 'a'.repeat(43), previousTokenHash: null },
    progress: progressOf(0),
    outputs: []
  }
}

function progressOf (lastSeq: number, releasedSeq = Math.max(0, lastSeq - 1)) {
  return {
    lastSeq,
    releasedSeq,
    ackedSeq: releasedSeq,
    dropped: 0,
    watermark: lastSeq,
    open: [],
    revision: 3,
    lastActiveAt: Date.now(),
    detachedAt: null,
    heard: true
  }
}

function bytesIn (directory: string): number {
  const journal = join(directory, 'journal')
  return readdirSync(journal).reduce((sum, name) => sum + statSync(join(journal, name)).size, 0)
}

async function commits (durability: Durability): Promise<void> {
  const directory = join(root, durability)
  const store = createEmbeddedStore({ directory, durability })
  await store.open(HOOKS)
  const took: number[] = []
  let left = COMMITS
  const started = performance.now()
  const cpu = process.cpuUsage()
  await Promise.all(Array.from({ length: WRITERS }, async (_, index) => {
    const id = `writer-${index}`
    const created = await store.create(sessionOf(id))
    if (typeof created === 'string') throw new Error(created)
    for (let seq = 1; left-- > 0; seq++) {
      const from = performance.now()
      const result = await store.commit({
        id,
        fence: created.fence,
        prevSeq: seq - 1,
        outputs: [{ tail: tailOf(index + seq), commandId: seq }],
        progress: progressOf(seq)
      })
      if (result !== 'kept') throw new Error(JSON.stringify(result))
      took.push(performance.now() - from)
    }
  }))
  const seconds = (performance.now() - started) / 1000
  const { user, system } = process.cpuUsage(cpu)
  took.sort((one, other) => one - other)
  const at = (share: number): string => (took[Math.floor(took.length * share)] as number).toFixed(2)
  const { groups } = store.stats
  const largest = bytesIn(directory)
  await store.close()
  console.log(`${durability}: ${Math.round(took.length / seconds)} commits/s of ${WRITERS} writers, ` +
    `${((user + system) / took.length).toFixed(1)} µs of CPU each, p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, ` +
    `${Math.round(took.length / groups)} in a group, ${(largest / 1e6).toFixed(0)} MB of files`)
}

async function opening (): Promise<void> {
  const directory = join(root, 'opening')
  const store = createEmbeddedStore({ directory })
  await store.open(HOOKS)
  for (let index = 0; index < SESSIONS; index += 1000) {
    await Promise.all(Array.from({ length: Math.min(1000, SESSIONS - index) }, async (_, offset) => {
      const id = `${(index + offset).toString(36).padStart(8, '0')}-1234-4567-89ab`
      const created = await store.create(sessionOf(id))
      if (typeof created === 'string') throw new Error(created)
      const outputs = [1, 2, 3].map(commandId => ({ tail: tailOf(index + 3 * offset + commandId), commandId }))
      await store.commit({ id, fence: created.fence, prevSeq: 0, outputs, progress: progressOf(3, 0) })
    }))
  }
  await store.close()
  const bytes = bytesIn(directory)
  let outputs = 0
  const started = performance.now()
  const next = createEmbeddedStore({ directory })
  await next.open({ ...HOOKS, restore: session => { outputs += session.outputs.length } })
  const seconds = (performance.now() - started) / 1000
  await next.close()
  console.log(`opening: ${SESSIONS} sessions with ${outputs} outputs of ${tailOf(0).length} bytes ` +
    `in ${seconds.toFixed(1)} s, ${Math.round(bytes / SESSIONS)} bytes a session on the disk`)
}

try {
  for (const durability of ['process', 'disk'] as const) await commits(durability)
  await opening()
} finally {
  rmSync(root, { recursive: true, force: true })
}
