// A journal whose disk fails when a test says so: before a group is written, or after it, when only
// the answer is lost.

import type { Group, Journal } from '../../src/stores/embedded/journal.js'

export interface FaultyJournal extends Journal {
  /** From now on writes and openings fail with this error. */
  fail(error: Error, when?: 'before' | 'after'): void
  mend(): void
  /** Writes wait until `release`. */
  hold(): void
  release(): void
  /** Times that it was opened. */
  readonly openings: number
  /** Whether each write so far was to go to the disk itself. */
  readonly syncs: readonly boolean[]
}

export function createFaultyJournal (inner: Journal): FaultyJournal {
  let failing: { error: Error, when: 'before' | 'after' } | undefined
  let held: Promise<void> | undefined
  let release = (): void => {}
  let openings = 0
  const syncs: boolean[] = []

  function check (when: 'before' | 'after'): void {
    if (failing?.when === when) throw failing.error
  }

  function wrap (group: Group): Group {
    return {
      get size () { return group.size },
      get operations () { return group.operations },
      put: (key, text) => group.put(key, text),
      delete: key => group.delete(key),
      async write (sync) {
        syncs.push(sync)
        await held
        check('before')
        await group.write(sync)
        check('after')
      }
    }
  }

  return {
    ...inner,
    syncs,
    get openings () { return openings },
    fail (error, when = 'before') { failing = { error, when } },
    mend () { failing = undefined },
    hold () { held = new Promise(resolve => { release = resolve }) },
    release () {
      held = undefined
      release()
    },
    async open (how) {
      if (failing !== undefined) throw failing.error
      openings++
      await inner.open(how)
    },
    group: () => wrap(inner.group())
  }
}
