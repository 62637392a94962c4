// The owner of a session as a node is one: it gives seqs, holds outputs, and tells the store what
// the store may not have yet.

import type { CommitBatch, StoredOutput, StoredSession } from '../src/io/session/store.js'
import { randomAccess, randomJson, randomOutput } from './forms.js'
import { upTo, type Random } from './random.js'

/** What the owner of a session has in memory. */
export interface Owner {
  session: StoredSession
  fence: number
  /** As far as the owner knows, the store has everything up to here. */
  keptSeq: number
  lastBatch: CommitBatch | undefined
  /** What the store may not have yet. */
  changed: { context: boolean, access: boolean }
}

/** The owner's session goes on; the batch says everything that the store may not have. */
export function advance (owner: Owner, random: Random): CommitBatch {
  const { session } = owner
  const count = random() < 0.3 ? 0 : upTo(random, 4)
  const fresh: StoredOutput[] = Array.from({ length: count }, () => randomOutput(random))
  const lastSeq = session.progress.lastSeq + fresh.length
  const acked = random() < 0.3
  const dropped = !acked && random() < 0.1
  const { releasedSeq } = session.progress
  const nextReleased = acked || dropped ? releasedSeq + upTo(random, lastSeq - releasedSeq) : releasedSeq
  if (random() < 0.1) owner.changed.context = true
  if (random() < 0.1) owner.changed.access = true
  // Never less than before: a store may keep the higher one.
  const { reservedSeq = 0, ...unreserved } = session.progress
  const reserved = Math.max(reservedSeq, random() < 0.2 ? lastSeq + upTo(random, 5) : 0)
  const progress = {
    ...unreserved,
    lastSeq,
    ...(reserved > lastSeq ? { reservedSeq: reserved } : {}),
    releasedSeq: nextReleased,
    ackedSeq: acked ? nextReleased : session.progress.ackedSeq,
    dropped: session.progress.dropped + (dropped ? nextReleased - releasedSeq : 0),
    watermark: session.progress.watermark + upTo(random, 2),
    open: Array.from({ length: upTo(random, 2) }, () => ({ id: upTo(random, 1e6), idempotent: random() < 0.5 })),
    revision: session.progress.revision + 1,
    lastActiveAt: session.progress.lastActiveAt + upTo(random, 1000),
    detachedAt: random() < 0.5 ? null : session.progress.lastActiveAt,
    heard: random() < 0.5
  }
  const held = [...session.outputs, ...fresh].slice(nextReleased - releasedSeq)
  const context = owner.changed.context ? randomJson(random) : session.context
  const access = owner.changed.access ? randomAccess(random) : session.access
  owner.session = { ...session, progress, outputs: held, context, access }
  return batchOf(owner)
}

export function batchOf ({ session, fence, keptSeq, changed }: Owner): CommitBatch {
  const { lastSeq, releasedSeq } = session.progress
  const from = Math.max(keptSeq, releasedSeq)
  return {
    id: session.id,
    fence,
    prevSeq: keptSeq,
    outputs: from >= lastSeq ? [] : session.outputs.slice(from - lastSeq),
    progress: session.progress,
    ...(changed.context ? { context: session.context } : {}),
    ...(changed.access ? { access: session.access } : {})
  }
}
