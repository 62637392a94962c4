// Takes in what the store has kept of this node's former life: sessions become live again,
// detached; what had begun and may not be executed a second time is answered (P-10); what nobody
// can take up any more ends. Before the port opens, so that the first client that comes back finds
// everything there.

import { ERRORS } from '../errors.js'
import { errorOutput } from '../protocol/codec.js'
import type { Millis } from '../types.js'
import { largestOutputBytes } from './delivery.js'
import type { SessionRecord } from './record.js'
import type { SessionRuntime } from './runtime.js'
import { revive } from './stored.js'
import type { Fence, SessionStore, StoredSession, StoredTombstone, StoreHooks } from './store.js'

export interface Restored {
  readonly sessions: number
  /** Commands that were answered OUTCOME_UNKNOWN. */
  readonly unknownOutcomes: number
}

interface Found { readonly stored: StoredSession, readonly fence: Fence }

/** Opens the store. Rejects where it cannot be used at all. */
export async function restoreSessions (
  runtime: SessionRuntime, store: SessionStore, hooks: Omit<StoreHooks, 'restore' | 'bury'>
): Promise<Restored> {
  const found: Found[] = []
  const tombstones: StoredTombstone[] = []
  await store.open({
    ...hooks,
    restore: (stored, fence) => { found.push({ stored, fence }) },
    bury: tombstone => { tombstones.push(tombstone) }
  })
  const fromWall = fromWallOf(runtime)
  tombstones.sort((a, b) => a.endedAt - b.endedAt)
  for (const tombstone of tombstones) runtime.directory.bury({ ...tombstone, buriedAt: fromWall(tombstone.endedAt) })

  // Listings go by creation, and whoever has been detached longest gives way first.
  found.sort((a, b) => a.stored.createdAt - b.stored.createdAt)
  const records = found.map(({ stored, fence }) => ({ stored, session: reviveOne(runtime, stored, fence) }))
  for (const { session } of records) runtime.directory.add(session)
  records.sort((a, b) => a.session.detachedAt - b.session.detachedAt)
  let unknownOutcomes = 0
  for (const { stored, session } of records) {
    runtime.adopt(session)
    if (stored.profile === 'basic') void runtime.end(session, 'disconnected')
    else if (runtime.expiry.isStale(session)) void runtime.end(session, runtime.expiry.staleReason(session))
    else unknownOutcomes += answerOpenCommands(runtime, stored, session)
  }
  return { sessions: runtime.directory.count(), unknownOutcomes }
}

function fromWallOf (runtime: SessionRuntime): (time: Millis) => Millis {
  const distance = -runtime.toWall(0)
  return time => time + distance
}

/** The record of a session that this node owns from now on; it is in no index yet. */
export function reviveOne (runtime: SessionRuntime, stored: StoredSession, fence: Fence): SessionRecord {
  return revive(stored, fence, {
    fromWall: fromWallOf(runtime),
    now: runtime.now(),
    fanOut: runtime.delivery.latestFanOut,
    maxOutputBytes: largestOutputBytes(runtime.limits),
    contextBytes: context => Buffer.byteLength(JSON.stringify(context)),
    journal: (owned, storedSeq) => runtime.committer.journalFor(stored.profile, owned, storedSeq)
  })
}

/** Its node died while they ran, or gave them up, and nobody knows how far they came. */
export function answerOpenCommands (
  runtime: SessionRuntime, { progress }: StoredSession, session: SessionRecord
): number {
  const lost = progress.open.filter(({ idempotent }) => !idempotent)
  const { lastActiveAt } = session
  for (const { id } of lost) {
    runtime.delivery.append(session, errorOutput(id, 'OUTCOME_UNKNOWN', ERRORS.OUTCOME_UNKNOWN.message), lastActiveAt)
  }
  return lost.length
}
