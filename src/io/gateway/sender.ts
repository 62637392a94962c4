// Gives connections what they are due (due-frames.ts): at the end of a turn, all frames of a socket
// in one write, or in two where unsequenced frames go before outputs. Not here: who is given what,
// and who has to go.
//
// Invariant: no more than `maxBufferedBytes` and one write wait in a socket that does not drain
// (P-44).

import type { CloseCode } from '../protocol/close-codes.js'
import { PING_FRAME, PONG_FRAME, goodbyeFrame, toBytes } from '../protocol/codec.js'
import type { SessionRecord } from '../session/record.js'
import type { ByteString, Millis, Output, Seq } from '../types.js'
import type { Connection } from './connection.js'
import { hasDueFrames, isTextQueueFull, queueText, takeOutputs, takeTexts } from './due-frames.js'
import { outputFrame, textFrame } from './frame-writer.js'

export interface SenderOptions {
  /** Bytes that may wait in one socket before it is left alone until it drains. */
  maxBufferedBytes: number
  /** Runs a callback after the present turn and its microtasks. */
  defer: (callback: () => void) => void
  /** Runs a callback after other events had their turn. */
  yieldTurn: (callback: () => void) => void
  /** Heartbeats ask for no more, and it spares each write a look at the clock. */
  lastEvent: Readonly<LastEvent>
  /** Basic profile: what was written is not kept (P-24). */
  onSent: (session: SessionRecord, seq: Seq) => void
  /** A connection whose unsequenced frames pile up because it does not read. */
  onOverflow: (connection: Connection) => void
}

/** When something last came from a socket or the sweep. One record, changed in place. */
export interface LastEvent {
  /** Monotonic, whole ms: a fraction would be an object of its own in each connection. */
  at: Millis
}

export interface Sender {
  /** Puts the connection on the list for the end of this turn. */
  wake(connection: Connection): void
  flush(connection: Connection): void
  /** Queues an unsequenced frame. */
  sendText(connection: Connection, text: string): void
  /**
   * Queues `ping` or, for the client's, `pong` (P-43, P-52); while one waits, there is no second
   * one.
   */
  sendPing(connection: Connection): void
  sendPong(connection: Connection): void
  /** Queues an output that was sent before, for a command that came again (P-12). */
  sendAgain(connection: Connection, output: Output, seq: Seq): void
  /** Writes what the socket takes, then `goodbye`, then closes (P-42). */
  sayGoodbye(connection: Connection, close: CloseCode, retryAfterMs?: number): void
}

/** Largest single write; a replay goes out in steps of this, and other connections in between. */
const WRITE_BYTES = 65_536
/**
 * Most that one connection is written in a turn, give or take a frame. A peer on a fast line takes
 * a whole outbox as quickly as it is written, and nobody else would be served meanwhile.
 */
const TURN_BYTES = 2 * 1_048_576
const PING = textFrame(PING_FRAME)
const PONG = textFrame(PONG_FRAME)

export function createSender (options: SenderOptions): Sender {
  const { maxBufferedBytes, defer, yieldTurn, lastEvent, onSent, onOverflow } = options
  let due: Connection[] = []
  let deferred = false

  function wake (connection: Connection): void {
    if (connection.queued || connection.blocked || connection.paused || connection.closed) return
    connection.queued = true
    due.push(connection)
    if (!deferred) {
      deferred = true
      defer(flushDue)
    }
  }

  function flushDue (): void {
    deferred = false
    const batch = due
    due = []
    for (const connection of batch) {
      connection.queued = false
      flush(connection)
    }
  }

  function flush (connection: Connection): void {
    if (connection.blocked || connection.closed) return
    for (let left = TURN_BYTES; ;) {
      const room = connection.hasBacklog ? maxBufferedBytes - connection.transport.bufferedBytes : maxBufferedBytes
      if (room <= 0) {
        block(connection)
        return
      }
      const written = writeBatch(connection, Math.min(room, WRITE_BYTES))
      if (written === 0 || !hasDueFrames(connection)) return
      left -= written
      if (left <= 0) {
        pause(connection)
        return
      }
    }
  }

  function block (connection: Connection): void {
    connection.blocked = true
    connection.transport.onceDrained(() => {
      connection.blocked = false
      flush(connection)
    })
  }

  /**
   * Unlike a socket that is blocked, a paused one can be flushed: when its outbox needs room, or
   * before its goodbye.
   */
  function pause (connection: Connection): void {
    if (connection.paused) return
    connection.paused = true
    yieldTurn(() => {
      connection.paused = false
      flush(connection)
    })
  }

  /** One write of the frames that are due. Returns their bytes; 0 when there were none. */
  function writeBatch (connection: Connection, maxBytes: number): number {
    const { texts, session } = connection
    const frames = texts === null
      ? takeOutputs(connection, session, maxBytes)
      : takeTexts(connection, texts, maxBytes)
    if (frames === '') return 0
    connection.sentAt = lastEvent.at
    connection.hasBacklog = !connection.transport.write(frames)
    if (texts === null && connection.profile === 'basic' && session !== null) onSent(session, connection.sentSeq)
    return frames.length
  }

  function queue (connection: Connection, frame: ByteString): void {
    // Many in one turn are no fault of a healthy socket; what it does not take then is.
    if (isTextQueueFull(connection, frame.length, maxBufferedBytes)) flush(connection)
    if (isTextQueueFull(connection, frame.length, maxBufferedBytes)) {
      onOverflow(connection)
      return
    }
    queueText(connection, frame)
    wake(connection)
  }

  function queueOnce (connection: Connection, frame: ByteString): void {
    if (!connection.closed && connection.texts?.includes(frame) !== true) queue(connection, frame)
  }

  return {
    wake,
    flush,

    sendText (connection, text) {
      if (!connection.closed) queue(connection, textFrame(toBytes(text)))
    },

    sendPing (connection) { queueOnce(connection, PING) },
    sendPong (connection) { queueOnce(connection, PONG) },

    sendAgain (connection, output, seq) {
      if (!connection.closed) queue(connection, outputFrame(output, seq))
    },

    sayGoodbye (connection, close, retryAfterMs) {
      if (connection.closed) return
      flush(connection)
      connection.closed = true
      connection.texts = null
      connection.textBytes = 0
      connection.transport.write(textFrame(toBytes(goodbyeFrame(close, retryAfterMs))))
      connection.transport.close(close.code, close.reason)
    }
  }
}
