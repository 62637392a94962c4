// What leaves ahead of its commit (P-55): tokens, cursors, progress, whose content may be lost with
// the node and whose place may not. The store is told beforehand up to which seq a session may be
// given outputs (S-22); up to there they leave at once, and they are kept with the next batch, or a
// little later with those of other sessions. An output that waits for the store holds up those
// behind it, so the order never changes.
//
// Invariants: nothing leaves above what the store has kept or reserved; a session that sends
// nothing of the kind reserves nothing and has no state; nobody is given anything without a
// connection, so nothing is reserved without one.

import { NOT_KEPT } from '../protocol/codec.js'
import { lastSeqOf, type AheadState, type JournalState, type SessionRecord } from './record.js'
import type { Seq } from '../types.js'
import type { StoredProgress } from './store.js'

export interface AheadOptions {
  limits: { readonly outboxMessages: number, readonly outboxBytes: number }
  /** At the end of this turn the session gives a batch. */
  add: (session: SessionRecord, journal: JournalState) => void
  /** Runs a callback after other events had their turn. */
  yieldTurn: (callback: () => void) => void
}

export interface Ahead {
  /** The newest output does not wait for the store, as far as the reservation goes. */
  give(session: SessionRecord, journal: JournalState): void
  /** What the batch that is made now reserves; 0 for nothing. */
  reserve(session: SessionRecord, journal: JournalState): Seq
  /** Has all of it be kept, a slice of the sessions per turn; called about once a second. */
  flush(): void
  /** The same at once; nothing comes afterwards. */
  flushLast(): void
}

/**
 * Seqs that are reserved at a time: as many `gap` outputs a client is told of at most, after a
 * crash.
 */
const BLOCK = 64
/** Sessions that give a batch in one turn. */
const SLICE = 256

export function createAhead ({ limits, add, yieldTurn }: AheadOptions): Ahead {
  const listed: SessionRecord[] = []

  function keepLater (session: SessionRecord, ahead: AheadState): void {
    if (ahead.isListed) return
    ahead.isListed = true
    listed.push(session)
  }

  function keepNow (session: SessionRecord, isLast: boolean): void {
    const journal = session.journal as JournalState
    const ahead = journal.ahead as AheadState
    ahead.isListed = false
    if (session.ended || journal.storedSeq >= lastSeqOf(session)) return
    // The batch under way may have it all; if not, there is another flush.
    if (journal.isRunning && !isLast) keepLater(session, ahead)
    else add(session, journal)
  }

  function flush (count: number): void {
    for (const session of listed.splice(0, Math.min(SLICE, count))) keepNow(session, false)
    if (count > SLICE) yieldTurn(() => { flush(count - SLICE) })
  }

  return {
    give (session, journal) {
      const seq = lastSeqOf(session)
      const ahead = journal.ahead ??= createAheadState()
      if (ahead.runTo !== seq - 1) ahead.runFrom = seq
      ahead.runTo = seq
      if (session.connection === null) {
        keepLater(session, ahead)
        return
      }
      if (session.sendableSeq !== seq - 1 || seq > ahead.reservedSeq) {
        add(session, journal)
        return
      }
      session.sendableSeq = seq
      session.connection.wake()
      keepLater(session, ahead)
      if (seq < ahead.raiseAt) return
      ahead.raiseAt = Infinity
      add(session, journal)
    },

    reserve (session, { ahead }) {
      if (ahead === null) return 0
      const lastSeq = lastSeqOf(session)
      const count = session.connection === null ? 0 : Math.min(BLOCK, roomFor(session, limits))
      ahead.raiseAt = lastSeq + (count >> 1) + 1
      // Should the answer be lost, the store may have less than before.
      ahead.reservedSeq = Math.min(ahead.reservedSeq, lastSeq + count)
      return lastSeq + count
    },

    flush: () => flush(listed.length),

    flushLast () {
      for (const session of listed.splice(0)) keepNow(session, true)
    }
  }
}

function createAheadState (): AheadState {
  return { reservedSeq: 0, raiseAt: 0, runFrom: 0, runTo: 0, isListed: false }
}

/** So many gaps can be filled in after a crash without an output going for them. */
function roomFor ({ log }: SessionRecord, limits: AheadOptions['limits']): number {
  if (log === null) return 0
  const messages = limits.outboxMessages - log.count
  return Math.max(0, Math.min(messages, Math.floor((limits.outboxBytes - log.bytes) / NOT_KEPT.bytes)))
}

/** A batch is kept: the outputs of it may leave, and those behind it that need not wait. */
export function keptThrough (
  session: SessionRecord, ahead: AheadState | null,
  { lastSeq, reservedSeq = lastSeq }: Pick<StoredProgress, 'lastSeq' | 'reservedSeq'>
): void {
  session.sendableSeq = Math.max(session.sendableSeq, lastSeq)
  if (ahead === null) return
  ahead.reservedSeq = reservedSeq
  if (ahead.runTo !== lastSeqOf(session) || ahead.runFrom > session.sendableSeq + 1) return
  session.sendableSeq = Math.max(session.sendableSeq, Math.min(ahead.runTo, reservedSeq))
}

/** The store has lost what it had: nothing is reserved until it has kept the next batch. */
export function forgotten (ahead: AheadState | null): void {
  if (ahead !== null) ahead.reservedSeq = 0
}
