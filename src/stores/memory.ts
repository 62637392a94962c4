// The default store: one process, and nothing survives it. Sessions are in this node's directory
// anyway, so all that is kept here is what the rules of the port are about: which ids are taken, by
// which owner, and up to which seq.

import type { CommitBatch, CommitResult, SessionStore } from '../io/session/store.js'
import type { Seq, SessionId } from '../io/types.js'
import { meet } from './append.js'

interface Entry { readonly fence: number, lastSeq: Seq }

/** As many as the directory keeps tombstones; the oldest go first. */
const MAX_ENDED = 10_000

export function createMemoryStore (): SessionStore {
  const sessions = new Map<SessionId, Entry>()
  const ended = new Set<SessionId>()
  let lastFence = 0
  let isClosed = false

  function commitNow (batch: CommitBatch): CommitResult {
    if (isClosed) return 'unavailable'
    const entry = sessions.get(batch.id)
    if (entry === undefined) return 'missing'
    if (entry.fence !== batch.fence) return 'fenced'
    const meeting = meet(entry.lastSeq, batch)
    if (typeof meeting === 'object') return meeting
    if (meeting === 'append') entry.lastSeq = batch.progress.lastSeq
    return 'kept'
  }

  return {
    traits: { survives: 'nothing', shared: false },
    async open () {},
    async close () { isClosed = true },
    health: () => 'ok',
    create ({ id, progress }) {
      if (isClosed) return 'unavailable'
      if (sessions.has(id) || ended.has(id)) return 'exists'
      const fence = ++lastFence
      sessions.set(id, { fence, lastSeq: progress.lastSeq })
      return { fence }
    },
    commit: async batch => commitNow(batch),
    end (id, fence) {
      if (isClosed) return 'unavailable'
      const entry = sessions.get(id)
      if (entry === undefined) return 'missing'
      if (entry.fence !== fence) return 'fenced'
      sessions.delete(id)
      ended.add(id)
      if (ended.size > MAX_ENDED) ended.delete(ended.values().next().value as SessionId)
      return 'ended'
    }
  }
}
