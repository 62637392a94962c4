// What a shared store tells this node about its sessions, and how the node gives them up: to a node
// that has their client, or to nobody before it stops.
//
// Invariants: what is taken from an inbox goes into one batch with the note that it was taken
// (S-16); an inbox is read by one call at a time; a record with a higher fence than the one that is
// meant is left alone.

import { CLOSE } from '../protocol/close-codes.js'
import { type JournalState, type SessionRecord } from '../session/record.js'
import type { SessionRuntime } from '../session/runtime.js'
import type { InboxEntry, SharedSessionStore, SharedStoreHooks } from '../session/shared-store.js'
import type { Fence } from '../session/store.js'
import type { Log, Millis, SessionId } from '../types.js'

export interface OwnershipOptions {
  sessions: SessionRuntime
  store: SharedSessionStore
  log: Log
  delay: (ms: Millis) => Promise<unknown>
  yieldTurn: () => Promise<unknown>
}

export interface Ownership {
  /** Sessions whose inbox has something that is not read yet, as far as this node was told. */
  readonly inboxes: number
  readonly hooks: Pick<SharedStoreHooks, 'doorbell' | 'handOff' | 'evicted' | 'ended'>
  /**
   * Drops every connection, so that clients come back to another node; for one that cannot keep
   * anything. Returns how many there were.
   */
  dismissAll(): Promise<number>
  /** Gives up every session; resolves when the store has answered, or after that time. */
  partFromAll(deadlineMs: Millis): Promise<void>
}

/** What a command that runs may take until its session is handed to another node. */
const FINISH_MS = 300
/** Whoever asks for a session does not wait for longer (S-11). */
const ASKED_MS = 1000
/** Between two looks at whether a client has spoken. */
const LOOK_MS = 20
const SLICE = 500

export function createOwnership ({ sessions, store, log, delay, yieldTurn }: OwnershipOptions): Ownership {
  const { directory, committer, delivery, totals, feed } = sessions
  const { partOne, handOver } = createPartings(sessions, delay)
  /** Inboxes that are being read; true when the bell has rung again meanwhile. */
  const reading = new Map<SessionId, boolean>()

  /** The session if this node has it under that fence, or under an earlier one. */
  function owned (id: SessionId, fence: Fence): SessionRecord | undefined {
    const session = directory.get(id)
    return session?.journal != null && session.journal.fence <= fence ? session : undefined
  }

  function takeIn (session: SessionRecord, journal: JournalState, entries: readonly InboxEntry[]): void {
    const at = sessions.now()
    for (const { number, tail } of entries) {
      if (number <= journal.inboxTo || session.ended) continue
      journal.inboxTo = number
      delivery.appendOrGap(session, { tail, bytes: tail.length, commandId: 0 }, at)
    }
  }

  async function read (id: SessionId): Promise<void> {
    for (;;) {
      reading.set(id, false)
      const session = directory.get(id)
      if (session?.journal == null || session.journal.fence < 0) return
      const { journal } = session
      const { fence } = journal
      const entries = await store.inbox(id, fence, journal.inboxTo)
      // It may have ended, or been given up, while the store was asked.
      if (session.ended || directory.get(id) !== session) return
      if (typeof entries === 'string') {
        // Where the store is away, the next batch rings again.
        if (entries === 'fenced') sessions.lose(session, entries)
        else if (entries === 'missing') await sessions.lookFor(session)
        return
      }
      takeIn(session, journal, entries)
      if (entries.length === 0 && reading.get(id) !== true) return
    }
  }

  return {
    get inboxes () { return reading.size },

    hooks: {
      doorbell (id) {
        if (reading.has(id)) reading.set(id, true)
        else void read(id).finally(() => reading.delete(id))
      },

      async handOff (id, fence) {
        const session = owned(id, fence)
        // It has parted, and the store may not have been told yet: what it has not is still here.
        if (session === undefined) await committer.whenParted(id, fence)
        else if (session.profile === 'full') await handOver(session)
      },

      evicted (id, fence, tombstone) {
        const session = owned(id, fence)
        if (session === undefined) return
        if (tombstone === null) sessions.lose(session, 'fenced')
        else sessions.endedElsewhere(session, tombstone)
      },

      ended ({ id, userId, reason, endedAt, ...rest }, _profile, revision) {
        const distance = -sessions.toWall(0)
        directory.bury({ id, userId, reason, endedAt, ...rest, buriedAt: Math.min(sessions.now(), endedAt + distance) })
        totals.ended[reason]++
        feed.append({ type: 'ended', sessionId: id, userId, revision: revision + 1, at: endedAt, reason })
      }
    },

    async dismissAll () {
      let dismissed = 0
      let looked = 0
      for (const session of directory.all()) {
        if (++looked % SLICE === 0) await yieldTurn()
        if (sessions.dismiss(session, CLOSE.moved)) dismissed++
      }
      return dismissed
    },

    async partFromAll (deadlineMs) {
      const all = [...directory.all()]
      const parted = Promise.all(all.map(async session => {
        if (session.profile === 'basic') await sessions.end(session, 'shutdown')
        else if (!await partOne(session)) await committer.part(session, 'now')
      }))
      await Promise.race([parted, delay(deadlineMs)])
      const left = all.filter(({ ended }) => !ended).length
      log.info({ sessions: all.length, left }, 'sessions given up for other nodes')
    }
  }
}

function createPartings (sessions: SessionRuntime, delay: OwnershipOptions['delay']) {
  const { committer } = sessions

  /**
   * Of two handshakes of one client on two nodes the earlier may ask for the session when the later
   * one has it: then a frame is due of a client that has read its token, and with it the token of
   * the earlier one dies (P-28a). Resolves with whether it came.
   */
  async function hearClient (session: SessionRecord): Promise<boolean> {
    if (session.previousTokenHash === null) return false
    for (let waited = 0; waited < FINISH_MS && session.connection !== null; waited += LOOK_MS) {
      await delay(LOOK_MS)
      if (session.previousTokenHash !== null) continue
      await committer.whenKept(session)
      return true
    }
    return false
  }

  /**
   * Whether the session has parted; false where it is kept, since its client has come back here.
   * What that client sends has its time too, so nothing may be left that parts with it later.
   */
  async function partOne (session: SessionRecord): Promise<boolean> {
    const parted = committer.part(session, 'idle')
    const parting = session.journal?.parting
    await Promise.race([parted, delay(FINISH_MS)])
    // Another one may have begun by then, for another node that asks, and has its own time.
    if (session.journal?.parting !== parting) return false
    await committer.part(session, 'now')
    await parted
    return session.ended
  }

  async function handOver (session: SessionRecord): Promise<void> {
    const until = sessions.now() + ASKED_MS
    do {
      // Its client has another connection, as in P-29; or else it is here, and comes back with the
      // only token that is left.
      const isHeard = session.connection !== null && await hearClient(session)
      sessions.dismiss(session, isHeard ? CLOSE.moved : CLOSE.replaced)
    } while (!await partOne(session) && sessions.now() < until)
  }

  return { partOne, handOver }
}
