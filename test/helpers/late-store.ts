// A store whose every write takes effect at once and is answered when the test says so, with what
// the test says: what a journal on a disk or across a network does to the runtime, without either.

import type {
  CommitBatch, CommitResult, CreateResult, EndResult, SessionStore, StoreHealth, StoredSession, StoredTombstone,
  StoreHooks
} from '../../src/io/session/store.js'
import type { SessionId } from '../../src/io/types.js'

type Write =
  | { kind: 'create', id: SessionId, session: StoredSession, answer: (result: CreateResult) => void }
  | { kind: 'commit', id: SessionId, batch: CommitBatch, answer: (result: CommitResult) => void }
  | { kind: 'end', id: SessionId, tombstone: StoredTombstone, answer: (result: EndResult) => void }

export interface LateStore extends SessionStore {
  /** Writes that were not answered. */
  readonly pending: readonly Write[]
  /** What `open` gives back. */
  contents: { sessions: StoredSession[], tombstones: StoredTombstone[] }
  /** Answers the write at `index` as a store that works does, or otherwise. */
  answer(index: number, result?: CommitResult): void
  answerAll(): void
  /** `health()` from now on; while it is not ok, every write is answered `unavailable` at once. */
  fail(health: StoreHealth): void
  readonly batches: CommitBatch[]
  isClosed: boolean
}

export const FENCE = 7

export function createLateStore (): LateStore {
  const pending: Write[] = []
  let health: StoreHealth = 'ok'
  let hooks: StoreHooks | undefined

  function later<T> (make: (answer: (result: T) => void) => Write): Promise<T> {
    return new Promise(resolve => { pending.push(make(resolve)) })
  }

  const store: LateStore = {
    traits: { survives: 'process', shared: false },
    pending,
    contents: { sessions: [], tombstones: [] },
    batches: [],
    isClosed: false,
    health: () => health,
    async open (given) {
      hooks = given
      for (const session of store.contents.sessions) given.restore(session, FENCE)
      for (const tombstone of store.contents.tombstones) given.bury(tombstone)
    },
    async close () { store.isClosed = true },
    create: session => health === 'ok'
      ? later(answer => ({ kind: 'create', id: session.id, session, answer }))
      : 'unavailable',
    async commit (batch) {
      store.batches.push(batch)
      return health === 'ok' ? await later(answer => ({ kind: 'commit', id: batch.id, batch, answer })) : 'unavailable'
    },
    end: (id, _fence, tombstone) => health === 'ok'
      ? later(answer => ({ kind: 'end', id, tombstone, answer }))
      : 'unavailable',
    answer (index, result) {
      const [write] = pending.splice(index, 1)
      if (write === undefined) throw new Error(`there is no write ${index}`)
      if (write.kind === 'commit') write.answer(result ?? 'kept')
      else if (write.kind === 'create') write.answer(result === 'unavailable' ? result : { fence: FENCE })
      else write.answer(result === 'unavailable' ? result : 'ended')
    },
    answerAll () { while (pending.length > 0) store.answer(0) },
    fail (now) {
      health = now
      hooks?.healthChanged(now)
    }
  }
  return store
}
