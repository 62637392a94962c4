// A process is killed in the middle of its commits, again and again: whatever it had answered is
// there, and no batch is there in part.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t from 'tap'
import { createRandom, upTo } from '../../../contract/random.js'
import type { StoredSession } from '../../../src/io/session/store.js'
import { createEmbeddedStore } from '../../../src/stores/embedded/store.js'
import { UNCOUNTED } from '../../helpers/uncounted.js'

const KILLS = 20
const seed = Number(process.env.FUZZ_SEED ?? 20260101)

interface Kept { seq: number, watermark: number }

/** Runs the writer until it has said so many lines, and kills it; what it said, by session. */
async function writeAndKill (directory: string, life: number, lines: number): Promise<Map<string, Kept>> {
  const script = ['--import', 'tsx', 'test/helpers/killed-writer.ts', directory, String(life)]
  const writer = spawn(process.execPath, script, {
    env: { ...process.env, ...UNCOUNTED, NODE_OPTIONS: '' },
    stdio: ['ignore', 'pipe', 'inherit']
  })
  const exited = once(writer, 'exit')
  const kept = new Map<string, Kept>()
  let count = 0
  for await (const line of createInterface({ input: writer.stdout })) {
    const [, id, seq, watermark] = /^(\S+) (\d+) (\d+)$/.exec(line) ?? []
    // The last line may be cut.
    if (id !== undefined) kept.set(id, { seq: Number(seq), watermark: Number(watermark) })
    if (++count === lines) writer.kill('SIGKILL')
  }
  const [, signal] = await exited as [unknown, string]
  if (signal !== 'SIGKILL') throw new Error('the writer ended by itself')
  return kept
}

async function readAll (directory: string): Promise<Map<string, StoredSession>> {
  const sessions = new Map<string, StoredSession>()
  const store = createEmbeddedStore({ directory, onDamaged (problem) { throw new Error(problem) } })
  await store.open({ restore: session => { sessions.set(session.id, session) }, bury () {}, healthChanged () {} })
  await store.close()
  return sessions
}

t.test(`S-2 S-7 nothing kept is missing after ${KILLS} kills`, async t => {
  t.comment(`seed ${seed}`)
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-kill-'))
  t.teardown(() => { rmSync(directory, { recursive: true, force: true }) })
  const random = createRandom(seed)
  const all = new Map<string, Kept>()
  for (let life = 1; life <= KILLS; life++) {
    const said = await writeAndKill(directory, life, 500 + upTo(random, 5000))
    for (const [id, kept] of said) all.set(id, kept)
    const sessions = await readAll(directory)
    const missing: string[] = []
    for (const [id, { seq, watermark }] of all) {
      const progress = sessions.get(id)?.progress
      if (progress === undefined || progress.lastSeq < seq || progress.watermark < watermark) missing.push(id)
    }
    t.same(missing, [], `life ${life}: what was answered is there, of ${all.size} sessions`)
    t.same([...sessions.values()].filter(session => !isWhole(session)).map(({ id }) => id), [], 'and each is whole')
  }
})

/** As the writer left it after some batch. */
function isWhole ({ id, progress, outputs, context }: StoredSession): boolean {
  const { lastSeq, releasedSeq, watermark } = progress
  const first = releasedSeq + 1
  const fifth = watermark - watermark % 5
  return outputs.length === lastSeq - releasedSeq &&
    outputs.every(({ tail }, index) => tail === `${id} ${first + index}`) &&
    (context['watermark'] ?? 0) === fifth
}
