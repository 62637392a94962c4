// The suite of all stores, on real files.

import { cpSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { sessionStoreContract, type StoreUnderTest } from '../../../contract/index.js'
import { createJournal } from '../../../src/stores/embedded/journal.js'
import { createEmbeddedStore, type Durability } from '../../../src/stores/embedded/store.js'
import { createFaultyJournal } from '../../helpers/faulty-journal.js'

const seed = Number(process.env.FUZZ_SEED ?? 20260101)
const root = mkdtempSync(join(tmpdir(), 'holdfast-embedded-'))
t.teardown(() => { rmSync(root, { recursive: true, force: true }) })

const noSpace = () => new Error('IO error: 000003.log: No space left on device')
let places = 0

function makeStore (durability: Durability): StoreUnderTest {
  let directory = join(root, String(places++))
  const journal = createFaultyJournal(createJournal(directory))
  // Retries are due at once; a write that takes long and the look at the files are not.
  const after = (ms: number, callback: () => void): (() => void) => {
    const immediate = ms < 5000 ? setImmediate(callback) : undefined
    return () => { clearImmediate(immediate) }
  }
  return {
    store: createEmbeddedStore({ directory, durability, journal, after }),
    next (how) {
      // What is in the files while the store before still runs is what a killed process leaves.
      if (how === 'killed') snapshot(directory, directory = join(root, String(places++)))
      return createEmbeddedStore({ directory, durability })
    },
    breakDown () { journal.fail(noSpace(), places % 2 === 0 ? 'before' : 'after') },
    mend () { journal.mend() }
  }
}

/**
 * Files as they were at one moment: LevelDB tidies up in a thread of its own, and a copy across
 * that is of no moment.
 */
function snapshot (from: string, to: string): void {
  const files = (): string => {
    const folder = join(from, 'journal')
    return JSON.stringify(readdirSync(folder).map(name => [
      name, statSync(join(folder, name), { throwIfNoEntry: false })?.size
    ]))
  }
  for (;;) {
    const before = files()
    try {
      cpSync(from, to, { recursive: true })
      if (files() === before) return
    } catch (error) {
      if ((error as { code?: string }).code !== 'ENOENT') throw error
    }
    rmSync(to, { recursive: true, force: true })
  }
}

for (const durability of ['process', 'disk'] as const) {
  t.test(`embedded store, durability ${durability}`, async t => {
    await sessionStoreContract(t, () => makeStore(durability), { seed, histories: durability === 'disk' ? 5 : 25 })
  })
}
