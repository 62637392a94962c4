// What a session is sent: numbered, bounded, kept by the store, and only then on its way. The one
// place that appends to a log or takes from it, so the bytes held by all sessions are counted in
// one place too.
//
// Order: make room → append → commit → wake the connection. An output that the store has not kept
// never leaves (S-2), but for one whose class allows it, up to where the store has reserved (S-22).
// Room is made by dropping the oldest outputs, but never one that an attached connection has yet to
// send: that connection is too slow, and goes first (P-26).

import { MAX_JSON_BYTES } from '../json.js'
import type { Log, Millis, Output, Seq, UserId } from '../types.js'
import { CLOSE, type CloseCode } from '../protocol/close-codes.js'
import { MAX_SEQ_BYTES, frameBytes, substituteOf } from '../protocol/codec.js'
import { createFanOuts } from './fan-out.js'
import { lastSeqOf, type SessionRecord } from './record.js'
import {
  acknowledge, append as hold, createReplayLog, dropOldest, firstSeq, outputAt, releaseThrough, replaceAt,
  type ReplayLog
} from './replay-log.js'
import { judgeOldest, suspect } from './undeliverable.js'

export interface DeliveryLimits {
  outboxMessages: number
  outboxBytes: number
  /** Over all sessions of this node. A session above it keeps at least its newest output. */
  outboxTotalBytes: number
}

/**
 * What a single output may hold at most: the outbox, or what is printed and parsed in one piece.
 */
export function largestOutputBytes ({ outboxBytes }: { readonly outboxBytes: number }): number {
  return Math.min(outboxBytes, MAX_JSON_BYTES)
}

export interface DeliveryOptions {
  /** Has the store keep the record, then wakes the connection. */
  commit: (session: SessionRecord) => void
  /** The same for an output that need not wait until it is kept (P-55). */
  commitBehind: (session: SessionRecord) => void
  log: Log
  limits: DeliveryLimits
  /** Ends the attached connection; the session is kept if it can be. */
  dismiss: (session: SessionRecord, code: CloseCode) => void
  /** Runs a callback after other events had their turn. */
  yieldTurn: (callback: () => void) => void
  now: () => Millis
}

export interface Delivery {
  /**
   * Appends an output and wakes the connection. False when it is larger than the session takes
   * (P-50); nothing happens then, nor for an ended session. With `behind` it need not wait until it
   * is kept (P-55).
   */
  append(session: SessionRecord, output: Output, now: Millis, behind?: boolean): boolean
  /** The same; where the output is too large, the session gets a `gap` in its place. */
  appendOrGap(session: SessionRecord, output: Output, now: Millis, behind?: boolean): void
  /** From now on the session takes outputs up to this size, also of those that are held (P-50). */
  limitOutputs(session: SessionRecord, maxOutputBytes: number): void
  /**
   * A connection has ended after it was sent everything up to `sentSeq`: with a code that refuses
   * what was sent, or by a loss right after sending. Which output that speaks against, the next
   * resume tells by its lastSeq.
   */
  suspect(session: SessionRecord, isRefusal: boolean, sentSeq: Seq): void
  /**
   * Gives the oldest output up if it ended a connection once too often; it is part of the gap then
   * (P-51).
   */
  judge(session: SessionRecord): void
  /**
   * Appends an output to each of many sessions, a slice of them per turn, as `appendOrGap` does.
   * See fan-out.ts.
   */
  fanOut(sessions: Iterable<SessionRecord>, userId: UserId | null, output: Output, behind?: boolean): void
  /** Number of the latest fan-out, from which a new session starts. */
  readonly latestFanOut: number
  /**
   * Appends what the session is to get of the fan-outs under way; for one that is about to part
   * from its connection.
   */
  catchUp(session: SessionRecord, now: Millis): void
  /** False for an ack of the future, which changes nothing (P-22). */
  acknowledge(session: SessionRecord, seq: Seq): boolean
  /** Lets go of what was written: the basic profile keeps nothing (P-24). */
  releaseSent(session: SessionRecord, seq: Seq): void
  /** The session ended: its outputs are no longer held. */
  discard(session: SessionRecord): void
  /** Counts what a session holds that the store gave back. */
  adopt(session: SessionRecord): void
  /** Bytes of outputs held over all sessions. */
  readonly heldBytes: number
  readonly outputs: number
  readonly dropped: number
}

/** Outboxes that may wait for the store to keep them: some milliseconds of output. */
const UNKEPT_FACTOR = 4

export function createDelivery (options: DeliveryOptions): Delivery {
  const { commit, commitBehind, log, limits, dismiss, yieldTurn, now } = options
  const fanOuts = createFanOuts({ append: offer, yieldTurn, now })
  let heldBytes = 0
  let outputs = 0
  let dropped = 0

  function makeRoom (session: SessionRecord, held: ReplayLog, bytes: number): void {
    while (isFull(limits, held, heldBytes, bytes)) {
      const { connection } = session
      if (connection === null || firstSeq(held) <= connection.sentSeq) {
        heldBytes -= dropOldest(held)
        dropped++
        continue
      }
      if (firstSeq(held) > session.sendableSeq && !isFarOver(limits, held, heldBytes, bytes)) return
      // Not sent yet, perhaps only because the turn is not over. If the socket takes it, all is
      // well; if not, the peer is too slow.
      connection.flush()
      if (session.connection === connection && held.count > 0 && firstSeq(held) > connection.sentSeq) {
        dismiss(session, CLOSE.slowConsumer)
      }
      if (session.ended) return
    }
  }

  function offer (session: SessionRecord, output: Output, at: Millis, behind: boolean): void {
    if (append(session, output, at, behind)) return
    dropped++
    append(session, substituteOf(output, lastSeqOf(session) + 1), at, behind)
  }

  function append (session: SessionRecord, output: Output, at: Millis, behind: boolean): boolean {
    if (isTooLarge(session, output, lastSeqOf(session) + 1)) return false
    if (session.ended) return true
    const held = session.log ??= createReplayLog()
    if (isFull(limits, held, heldBytes, output.bytes)) {
      makeRoom(session, held, output.bytes)
      if (session.ended) return true
    }
    hold(held, output)
    heldBytes += output.bytes
    outputs++
    session.lastActiveAt = at
    if (behind) commitBehind(session)
    else commit(session)
    return true
  }

  return {
    get heldBytes () { return heldBytes },
    get outputs () { return outputs },
    get dropped () { return dropped },

    append (session, output, at, behind = false) {
      fanOuts.catchUp(session, at)
      return append(session, output, at, behind)
    },

    appendOrGap (session, output, at, behind = false) {
      fanOuts.catchUp(session, at)
      offer(session, output, at, behind)
    },

    limitOutputs (session, maxOutputBytes) {
      const before = session.maxOutputBytes
      session.maxOutputBytes = Math.min(maxOutputBytes, largestOutputBytes(limits))
      const { log: held } = session
      if (held === null || session.maxOutputBytes >= before) return
      for (let seq = firstSeq(held); seq <= held.lastSeq; seq++) {
        const output = outputAt(held, seq) as Output
        if (!isTooLarge(session, output, seq)) continue
        heldBytes -= replaceAt(held, seq, substituteOf(output, seq))
        dropped++
      }
    },

    suspect (session, isRefusal, sentSeq) {
      if (session.log !== null) suspect(session.log, isRefusal, sentSeq)
    },

    judge (session) {
      const held = session.log
      const output = held === null ? undefined : judgeOldest(held)
      if (held === null || output === undefined) return
      const { bytes } = output
      log.warn({ sid: session.id, seq: firstSeq(held), bytes }, 'output given up: its client does not take it')
      heldBytes -= dropOldest(held)
      dropped++
    },

    fanOut: fanOuts.start,
    get latestFanOut () { return fanOuts.latestNumber },
    catchUp: fanOuts.catchUp,

    acknowledge (session, seq) {
      if (session.log === null) return seq === 0
      const freed = acknowledge(session.log, seq)
      if (freed === undefined) return false
      heldBytes -= freed
      return true
    },

    releaseSent (session, seq) {
      if (session.log !== null) heldBytes -= releaseThrough(session.log, seq)
    },

    adopt (session) {
      if (session.log !== null) heldBytes += session.log.bytes
    },

    discard (session) {
      if (session.log !== null) heldBytes -= session.log.bytes
    }
  }
}

function isFull (limits: DeliveryLimits, held: ReplayLog, heldBytes: number, bytes: number): boolean {
  return held.count > 0 && (held.count >= limits.outboxMessages || held.bytes + bytes > limits.outboxBytes ||
    heldBytes + bytes > limits.outboxTotalBytes)
}

/** What waits for the store is no fault of the peer; it may be more than the outbox for as long. */
function isFarOver (limits: DeliveryLimits, held: ReplayLog, heldBytes: number, bytes: number): boolean {
  return held.count >= limits.outboxMessages * UNKEPT_FACTOR ||
    held.bytes + bytes > limits.outboxBytes * UNKEPT_FACTOR ||
    heldBytes + bytes > limits.outboxTotalBytes
}

function isTooLarge ({ maxOutputBytes }: SessionRecord, output: Output, seq: Seq): boolean {
  return output.bytes + MAX_SEQ_BYTES > maxOutputBytes && frameBytes(output, seq) > maxOutputBytes
}
