// The one file that knows LevelDB: a sorted list of keys on a disk, written in groups of which each
// is kept whole or not at all. `classic-level` is loaded when a journal is opened, so that a server
// without one does not load a native module.

import { mkdirSync, statSync } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { ClassicLevel } from 'classic-level'
import type { Parts } from './layout.js'

/** A write in the making. What is put into it lies outside the heap of JavaScript at once. */
export interface Group extends Parts {
  /** Characters of the keys and texts so far. */
  readonly size: number
  /** Puts and deletes so far. */
  readonly operations: number
  /** Keeps everything, or rejects. `sync`: also on the disk, not in the kernel alone. */
  write(sync: boolean): Promise<void>
}

export type Entries = [key: string, text: string][]

export interface Journal {
  /** `anew` makes the directory where there is none; `again` wants the files that were there. */
  open(how: 'anew' | 'again'): Promise<void>
  close(): Promise<void>
  group(): Group
  get(key: string): Promise<string | undefined>
  /** A range of keys, in order, some thousand at a time. */
  read(from: string, upTo: string): AsyncGenerator<Entries>
  /** Gives back the space of what was deleted. */
  compact(from: string, upTo: string): Promise<void>
  /** Bytes in the files of a range, about. */
  sizeOf(from: string, upTo: string): Promise<number>
  /** Bytes of all its files now; undefined where they cannot be seen. */
  size(): Promise<number | undefined>
  /**
   * Whether the files are still the ones that were opened; an open file can be written after it was
   * deleted.
   */
  isInPlace(): boolean
}

/** One read of a range brings no more than this. */
const READ_BYTES = 4 * 1024 * 1024
const READ_ENTRIES = 4096

const NONE = { size: 0 }

/** Files of the journal, in the data directory. */
export const JOURNAL_FOLDER = 'journal'

export function createJournal (directory: string): Journal {
  const location = join(directory, JOURNAL_FOLDER)
  let db: ClassicLevel | undefined
  let place: string | undefined

  function opened (): ClassicLevel {
    if (db === undefined) throw new Error('The journal is not open.')
    return db
  }

  /** Written anew at each opening, and by nobody while it is open. */
  function currentPlace (): string | undefined {
    const found = statSync(join(location, 'CURRENT'), { throwIfNoEntry: false })
    return found === undefined ? undefined : `${found.dev} ${found.ino}`
  }

  return {
    async open (how) {
      const { ClassicLevel } = await import('classic-level')
      // Contexts are nobody else's business.
      if (how === 'anew') mkdirSync(location, { recursive: true, mode: 0o700 })
      const next = new ClassicLevel(location, { createIfMissing: how === 'anew', writeBufferSize: 8 * 1024 * 1024 })
      await next.open()
      db = next
      place = currentPlace()
    },
    async close () {
      const last = db
      db = undefined
      await last?.close()
    },
    group: () => new LevelGroup(opened()),
    get: async key => await opened().get(key),
    async * read (from, upTo) {
      const iterator = opened().iterator({ gte: from, lt: upTo, highWaterMarkBytes: READ_BYTES })
      try {
        for (;;) {
          const entries = await iterator.nextv(READ_ENTRIES)
          if (entries.length === 0) return
          yield entries as Entries
        }
      } finally {
        await iterator.close()
      }
    },
    compact: (from, upTo) => opened().compactRange(from, upTo),
    sizeOf: (from, upTo) => opened().approximateSize(from, upTo),
    async size () {
      try {
        // Files come and go while the journal is written.
        const size = async (name: string): Promise<number> => (await stat(join(location, name)).catch(() => NONE)).size
        const sizes = await Promise.all((await readdir(location)).map(size))
        return sizes.reduce((sum, bytes) => sum + bytes, 0)
      } catch {
        return undefined
      }
    },
    isInPlace () {
      try {
        return place !== undefined && currentPlace() === place
      } catch {
        return false
      }
    }
  }
}

class LevelGroup implements Group {
  size = 0
  operations = 0
  readonly #batch

  constructor (db: ClassicLevel) {
    this.#batch = db.batch()
  }

  put (key: string, text: string): void {
    this.#batch.put(key, text)
    this.size += key.length + text.length
    this.operations++
  }

  delete (key: string): void {
    this.#batch.del(key)
    this.size += key.length
    this.operations++
  }

  async write (sync: boolean): Promise<void> {
    await this.#batch.write({ sync })
  }
}
