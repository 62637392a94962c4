// What a store has to answer and to keep, as plainly as the rules say it: the whole session is
// written out anew with each batch.

import type {
  CommitBatch, CommitResult, EndResult, Fence, StoredSession, StoredTombstone
} from '../src/io/session/store.js'

interface Kept { session: StoredSession, fence: Fence | undefined }

export interface Model {
  readonly sessions: ReadonlyMap<string, { readonly session: StoredSession, readonly fence: Fence | undefined }>
  readonly tombstones: ReadonlyMap<string, StoredTombstone>
  create(session: StoredSession): 'created' | 'exists'
  /** The fence that the store gave to a session. */
  claimed(id: string, fence: Fence): void
  commit(batch: CommitBatch): CommitResult
  end(id: string, fence: Fence, tombstone: StoredTombstone): EndResult
}

export function createModel (): Model {
  const sessions = new Map<string, Kept>()
  const tombstones = new Map<string, StoredTombstone>()

  return {
    sessions,
    tombstones,
    create (session) {
      if (sessions.has(session.id) || tombstones.has(session.id)) return 'exists'
      sessions.set(session.id, { session, fence: undefined })
      return 'created'
    },
    claimed (id, fence) {
      const kept = sessions.get(id)
      if (kept !== undefined) kept.fence = fence
    },
    commit (batch) {
      const kept = sessions.get(batch.id)
      if (kept === undefined) return 'missing'
      if (kept.fence !== batch.fence) return 'fenced'
      const { lastSeq } = kept.session.progress
      const isRepeat = batch.progress.lastSeq === lastSeq
      if (!isRepeat && batch.prevSeq !== lastSeq) return { gap: lastSeq }
      kept.session = fold(kept.session, batch)
      return 'kept'
    },
    end (id, fence, tombstone) {
      const kept = sessions.get(id)
      if (kept === undefined) return 'missing'
      if (kept.fence !== fence) return 'fenced'
      sessions.delete(id)
      tombstones.set(id, tombstone)
      return 'ended'
    }
  }
}

/** The session after a batch that is kept. */
function fold (session: StoredSession, { progress, outputs, context, access }: CommitBatch): StoredSession {
  const bySeq = new Map(session.outputs.map((output, index) => [session.progress.releasedSeq + 1 + index, output]))
  for (const [index, output] of outputs.entries()) bySeq.set(progress.lastSeq - outputs.length + 1 + index, output)
  const held = [...bySeq].filter(([seq]) => seq > progress.releasedSeq).sort(([one], [other]) => one - other)
  return {
    ...session,
    progress,
    outputs: held.map(([, output]) => output),
    context: context ?? session.context,
    access: access ?? session.access
  }
}
