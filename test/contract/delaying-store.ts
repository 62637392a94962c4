// A store whose every write is done at once and settles late, in an order of the test's choosing, or is refused. What a journal on a disk or a network does to the
// manager, without either.

import { HoldfastError } from '../../src/io/errors.js'
import type { SessionRecord } from '../../src/io/session/record.js'
import type { SessionStore } from '../../src/io/session/former-store.js'

interface Pending { kind: 'add' | 'commit' | 'remove', record: SessionRecord, lastSeq: number, resolve: () => void, reject: (error: unknown) => void }

export interface DelayingStore extends SessionStore {
  /** Writes that have not settled. */
  readonly pending: readonly Pending[]
  /** Settles the one at `index`. */
  settle(index: number): void
  reject(index: number): void
  settleAll(): void
  /** The next write of this kind throws instead of answering. */
  throwOn(kind: Pending['kind'] | undefined): void
}

export interface DelayingStoreOptions {
  /** Settles by itself after each turn, in an order drawn from here; without it the test settles. */
  random?: () => number
}

export function createDelayingStore (inner: SessionStore, { random }: DelayingStoreOptions = {}): DelayingStore {
  const pending: Pending[] = []
  let throwing: Pending['kind'] | undefined
  let scheduled = false

  function settleShuffled (): void {
    scheduled = false
    while (pending.length > 0) pending.splice(Math.floor((random?.() ?? 0) * pending.length), 1)[0]?.resolve()
  }

  async function later (kind: Pending['kind'], record: SessionRecord, done: void | Promise<void>): Promise<void> {
    const lastSeq = record.log?.lastSeq ?? 0
    await Promise.all([done, new Promise<void>((resolve, reject) => {
      pending.push({ kind, record, lastSeq, resolve, reject })
      if (random !== undefined && !scheduled) {
        scheduled = true
        setImmediate(settleShuffled)
      }
    })])
  }

  function guarded (kind: Pending['kind'], record: SessionRecord, write: () => void | Promise<void>): Promise<void> {
    if (throwing === kind) throw new HoldfastError('STORE_UNAVAILABLE')
    return later(kind, record, write())
  }

  return {
    ...inner,
    pending,
    add: record => guarded('add', record, () => inner.add(record)),
    commit: record => guarded('commit', record, () => inner.commit(record)),
    remove: (record, tombstone) => guarded('remove', record, () => inner.remove(record, tombstone)),
    settle: index => { pending.splice(index, 1)[0]?.resolve() },
    reject: index => { pending.splice(index, 1)[0]?.reject(new HoldfastError('STORE_UNAVAILABLE')) },
    settleAll () { for (const write of pending.splice(0)) write.resolve() },
    throwOn (kind) { throwing = kind }
  }
}
