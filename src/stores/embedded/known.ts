// Which sessions and which ends the node knows of; they decide about a write, and run ahead of the
// disk by what is being written. When a group fails, what is known of its sessions is in doubt and
// is read from the journal.

import type { StoredSession, StoredTombstone, StoreHooks } from '../../io/session/store.js'
import type { Millis, SessionId } from '../../io/types.js'
import type { Group, Journal } from './journal.js'
import { tombstoneKey, type Place } from './layout.js'
import { readEverything, readSession } from './opening.js'

export interface KnownDeps {
  readonly journal: Journal
  readonly wall: () => Millis
  readonly tombstoneMs: Millis
  readonly maxTombstones: number
}

export interface ReadReports {
  readonly onProgress?: (restored: number) => void
  readonly onDamaged?: (problem: string) => void
}

export interface Known {
  readonly sessions: Map<SessionId, Place>
  /** When each ended, oldest first. */
  readonly ended: Map<SessionId, Millis>
  /** What is known of these may not be what the journal holds. */
  readonly doubtful: Set<SessionId>
  /** Reads the whole journal, and hands over what it holds. */
  read(fence: number, hooks: StoreHooks, reports: ReadReports): Promise<void>
  /** Reads the doubtful ones again. */
  reread(): Promise<void>
  /** Tombstones that have served their time go with this group. */
  forgetOld(group: Group): void
}

const PROGRESS_EVERY = 10_000

export function createKnown ({ journal, wall, tombstoneMs, maxTombstones }: KnownDeps): Known {
  const sessions = new Map<SessionId, Place>()
  const ended = new Map<SessionId, Millis>()
  const doubtful = new Set<SessionId>()

  return {
    sessions,
    ended,
    doubtful,
    async read (fence, hooks, { onProgress, onDamaged }) {
      await readEverything(journal, {
        restore (session: StoredSession, place: Place) {
          sessions.set(session.id, place)
          if (sessions.size % PROGRESS_EVERY === 0) onProgress?.(sessions.size)
          hooks.restore(session, fence)
        },
        bury (tombstone: StoredTombstone) {
          ended.set(tombstone.id, tombstone.endedAt)
          hooks.bury(tombstone)
        },
        damaged: problem => { onDamaged?.(problem) }
      }, { now: wall(), tombstoneMs, maxTombstones })
    },
    async reread () {
      for (const id of doubtful) {
        const { place, endedAt } = await readSession(journal, id)
        if (place === undefined) sessions.delete(id)
        else sessions.set(id, place)
        if (endedAt === undefined) ended.delete(id)
        else ended.set(id, endedAt)
      }
      doubtful.clear()
    },
    forgetOld (group) {
      const before = wall() - tombstoneMs
      for (const [id, endedAt] of ended) {
        if (ended.size <= maxTombstones && endedAt >= before) return
        ended.delete(id)
        doubtful.add(id)
        group.delete(tombstoneKey(id))
      }
    }
  }
}
