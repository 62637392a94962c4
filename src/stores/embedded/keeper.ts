// Whether the journal can be written, and what is done when it cannot: closed, opened again after a
// while, and proved by a write. LevelDB goes on behind a record that it could only write in part,
// and what it writes there can be lost, so a journal that has failed once is never written on.

import { HoldfastError } from '../../io/errors.js'
import type { StoreHealth } from '../../io/session/store.js'
import type { Millis } from '../../io/types.js'
import { describeFault, goneMessage, stalledMessage, takenMessage, type Fault } from './faults.js'
import type { Group, Journal } from './journal.js'
import { prove, wasOpenedBy } from './opening.js'
import { countWrite, type StatsCounters } from './stats.js'

/** Calls back after a while; the returned function prevents that. */
export type After = (ms: Millis, callback: () => void) => () => void

export interface KeeperDeps {
  readonly journal: Journal
  readonly directory: string
  /** Whether each group goes to the disk itself. */
  readonly sync: boolean
  readonly stallMs: Millis
  readonly after: After
  readonly stats: StatsCounters
  healthChanged(health: StoreHealth, error?: Error): void
  /** A write takes too long; nobody should wait for it. */
  stalled(): void
  /**
   * The journal is open again, and what was being written when it failed has to be read from it.
   */
  reread(): Promise<void>
}

export interface Keeper {
  health(): StoreHealth
  /** The journal was opened for the n-th time, by this process. */
  start(openings: number): void
  write(group: Group): Promise<void>
  failed(error: unknown): void
  /** Nothing is tried any more. */
  stop(): void
}

const RETRY_FIRST_MS = 100
const RETRY_MOST_MS = 2000
/** How often it is looked whether the files are still there. */
const WATCH_MS = 5000

export function createKeeper (deps: KeeperDeps): Keeper {
  const { journal, directory, sync, stallMs, after, stats } = deps
  let health: StoreHealth = 'ok'
  let said: string | undefined
  let openings = 0
  let isStalled = false
  let isRecovering = false
  let isStopped = false
  let cancel = (): void => {}
  let stopWatching = (): void => {}

  function become (next: StoreHealth, message?: string): void {
    if (next === health && message === said) return
    health = next
    said = message
    const error = message === undefined ? undefined : new HoldfastError('STORE_UNAVAILABLE', { message })
    deps.healthChanged(next, error)
  }

  function meet ({ kind, message }: Fault): void {
    isStalled = false
    if (!journal.isInPlace()) become('fenced', goneMessage(directory))
    else if (kind === 'ends') become('fenced', message)
    else {
      become('degraded', message)
      if (!isRecovering) void recover()
    }
  }

  async function recover (): Promise<void> {
    isRecovering = true
    await journal.close().catch(() => {})
    for (let delay = RETRY_FIRST_MS; ; delay = Math.min(delay * 2, RETRY_MOST_MS)) {
      await pause(delay)
      if (isStopped) break
      const fault = await tryAgain().catch((error: unknown) => describeFault(error, directory))
      if (fault === undefined) {
        become('ok')
        break
      }
      await journal.close().catch(() => {})
      become(fault.kind === 'ends' ? 'fenced' : 'degraded', fault.message)
      if (fault.kind === 'ends') break
    }
    isRecovering = false
  }

  function pause (ms: Millis): Promise<void> {
    return new Promise(resolve => {
      const stopTimer = after(ms, resolve)
      cancel = () => {
        stopTimer()
        resolve()
      }
    })
  }

  async function tryAgain (): Promise<Fault | undefined> {
    await journal.open('again')
    if (!await wasOpenedBy(journal, openings)) return { kind: 'ends', message: takenMessage(directory) }
    await deps.reread()
    await prove(journal)
    return undefined
  }

  function watch (): void {
    stopWatching = after(WATCH_MS, () => {
      if (health === 'ok' && !journal.isInPlace()) become('fenced', goneMessage(directory))
      if (!isStopped) watch()
    })
  }

  return {
    health: () => health,
    start (given) {
      openings = given
      watch()
    },
    async write (group) {
      const started = performance.now()
      const stopTimer = after(stallMs, () => {
        isStalled = true
        become('degraded', stalledMessage(directory, stallMs / 1000))
        deps.stalled()
      })
      try {
        await group.write(sync)
      } finally {
        stopTimer()
        countWrite(stats, group, (performance.now() - started) / 1000)
      }
      // A file that was deleted takes writes that nobody can read again.
      if (!journal.isInPlace()) throw new Error(goneMessage(directory))
      if (!isStalled) return
      isStalled = false
      become('ok')
    },
    failed (error) {
      stats.failures++
      meet(describeFault(error, directory))
    },
    stop () {
      isStopped = true
      stopWatching()
      cancel()
    }
  }
}
