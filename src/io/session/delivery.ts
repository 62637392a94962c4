// What a session is sent: numbered, bounded, kept by the store, and only then on its way. The one place that appends to a log or takes from it, so the
// bytes held by all sessions are counted in one place too.
//
// Order: make room → append → commit → wake the connection. An output that the store has not kept never leaves (S-2). Room is made by dropping
// the oldest outputs, but never one that an attached connection has yet to send: that connection is too slow, and goes first (P-26).

import type { Log, MaybePromise, Millis, Output, Seq } from '../types.js'
import { CLOSE, type CloseCode } from '../protocol/close-codes.js'
import { lastSeqOf, type SessionRecord } from './record.js'
import { acknowledge, append, createReplayLog, dropOldest, firstSeq, releaseThrough, type ReplayLog } from './replay-log.js'
import type { SessionStore } from './store.js'

export interface DeliveryLimits {
  outboxMessages: number
  outboxBytes: number
  /** Over all sessions of this node. A session above it keeps at least its newest output. */
  outboxTotalBytes: number
}

export interface DeliveryOptions {
  store: SessionStore
  log: Log
  limits: DeliveryLimits
  /** Ends the attached connection; the session is kept if it can be. */
  dismiss: (session: SessionRecord, code: CloseCode) => void
}

export interface Delivery {
  /** Appends an output and wakes the connection. False when it is larger than an outbox; nothing happens then, nor for an ended session. */
  append(session: SessionRecord, output: Output, bulk: boolean, now: Millis): boolean
  /** False for an ack of the future, which changes nothing (P-22). */
  acknowledge(session: SessionRecord, seq: Seq): boolean
  /** Lets go of what was written: the basic profile keeps nothing (P-24). */
  releaseSent(session: SessionRecord, seq: Seq): void
  /** The session ended: its outputs are no longer held. */
  discard(session: SessionRecord): void
  /** Has the store keep the record as it is now, then wakes the connection. */
  commit(session: SessionRecord, bulk: boolean): void
  /** Bytes of outputs held over all sessions. */
  readonly heldBytes: number
  readonly outputs: number
  readonly dropped: number
}

export function createDelivery (options: DeliveryOptions): Delivery {
  const { store, log, limits, dismiss } = options
  let heldBytes = 0
  let outputs = 0
  let dropped = 0

  function isFull (held: ReplayLog, bytes: number): boolean {
    return held.count > 0 && (held.count >= limits.outboxMessages || held.bytes + bytes > limits.outboxBytes ||
      heldBytes + bytes > limits.outboxTotalBytes)
  }

  function makeRoom (session: SessionRecord, held: ReplayLog, bytes: number): void {
    while (isFull(held, bytes)) {
      const { connection } = session
      if (connection === null || firstSeq(held) <= connection.sentSeq) {
        heldBytes -= dropOldest(held)
        dropped++
        continue
      }
      // Not sent yet, perhaps only because the turn is not over. If the socket takes it, all is well; if not, the peer is too slow.
      connection.flush()
      if (session.connection === connection && held.count > 0 && firstSeq(held) > connection.sentSeq) dismiss(session, CLOSE.slowConsumer)
      if (session.ended) return
    }
  }

  function commit (session: SessionRecord, bulk: boolean): void {
    let kept: MaybePromise<void>
    try {
      kept = store.commit(session)
    } catch (error) {
      // A store that throws is a store that rejects (S-8).
      kept = Promise.reject(error)
    }
    if (kept === undefined) {
      session.keptSeq = lastSeqOf(session)
      session.connection?.wake(bulk)
    } else {
      sendWhenKept(session, kept, bulk)
    }
  }

  function sendWhenKept (session: SessionRecord, kept: Promise<void>, bulk: boolean): void {
    const seq = lastSeqOf(session)
    kept.then(() => {
      if (session.keptSeq < seq) session.keptSeq = seq
      session.connection?.wake(bulk)
    }, error => {
      // What was not kept must not be seen. The client comes back and is told what there is.
      log.error({ err: error, sid: session.id }, 'session store refused a commit')
      dismiss(session, CLOSE.internal)
    })
  }

  return {
    get heldBytes () { return heldBytes },
    get outputs () { return outputs },
    get dropped () { return dropped },
    commit,

    append (session, output, bulk, now) {
      if (output.bytes > limits.outboxBytes) return false
      if (session.ended) return true
      const held = session.log ??= createReplayLog()
      if (isFull(held, output.bytes)) {
        makeRoom(session, held, output.bytes)
        if (session.ended) return true
      }
      append(held, output)
      heldBytes += output.bytes
      outputs++
      session.lastActiveAt = now
      commit(session, bulk)
      return true
    },

    acknowledge (session, seq) {
      if (session.log === null) return seq === 0
      const freed = acknowledge(session.log, seq)
      if (freed < 0) return false
      heldBytes -= freed
      return true
    },

    releaseSent (session, seq) {
      if (session.log !== null) heldBytes -= releaseThrough(session.log, seq)
    },

    discard (session) {
      if (session.log !== null) heldBytes -= session.log.bytes
    }
  }
}
