// One accepted socket: its record, the port to its socket, and the sender that gives it what is
// due. At the end of a turn a connection writes, in this order, its unsequenced frames, and in a
// second write the session's outputs from `sentSeq` on; a replay is nothing else than a `sentSeq`
// that starts low, so "replay, then live" needs no buffering and cannot be got wrong.
//
// Kept true: outputs leave in order of seq, each once per connection; nothing above the session's
// `keptSeq` leaves; no more than `maxBufferedBytes` and one write wait in a socket that does not
// drain (P-44).

import type { CloseCode } from '../protocol/close-codes.js'
import { LIVE_FRAME, PING_FRAME, PONG_FRAME, goodbyeFrame, toBytes } from '../protocol/codec.js'
import type { AttachedConnection, SessionRecord } from '../session/record.js'
import { firstSeq, outputAt, type ReplayLog } from '../session/replay-log.js'
import type { ByteString, Millis, Output, Profile, Seq } from '../types.js'
import { PROBE, PROBE_BYTES, outputFrame, textFrame } from './frame-writer.js'

/** What the domain needs of a socket. Every call is safe on a socket that is closing or closed. */
export interface Transport {
  /**
   * Hands whole frames to the socket; they are sent in order of the calls. False when it holds so
   * much that `bufferedBytes` is worth a look.
   */
  write(frames: ByteString): boolean
  /** Bytes handed over that the kernel has not taken yet. */
  readonly bufferedBytes: number
  /** Bytes handed over that the kernel has taken, over the life of the socket. */
  readonly takenBytes: number
  /**
   * Bytes that have arrived, over the life of the socket; those of a message that is not whole yet
   * as well.
   */
  readonly receivedBytes: number
  /** Calls back once, when what was handed over has been taken. */
  onceDrained(callback: () => void): void
  /** A WebSocket ping: the heartbeat of the basic profile. */
  ping(): void
  /** Starts the closing handshake; the library ends the socket when the peer does not answer. */
  close(code: number, reason: string): void
}

/**
 * The record of one connection. A class for the sake of its three methods: on a prototype they cost
 * a connection nothing. What happens to it is decided in gateway.ts; here it is only told where to
 * turn.
 */
export class Connection implements AttachedConnection {
  // What each message touches comes first.
  /** Null once it has left its session, or not yet joined one. */
  session: SessionRecord | null = null
  readonly profile: Profile
  readonly transport: Transport
  sentSeq: Seq = 0
  /** `live` is due when this seq has been sent (P-30); -1 when it is not due. */
  liveAfterSeq: Seq = -1
  /** Unsequenced frames waiting; null when there are none. */
  texts: ByteString[] | null = null
  /** In the sender's list for this turn. */
  queued = false
  /** Waits for the socket to drain. */
  blocked = false
  /** It has had its share of the turn, and goes on by itself after other events. */
  paused = false
  /** The last write left something in the socket. */
  crowded = false
  /** Said goodbye, or closed by the peer: nothing is read or written any more. */
  closed = false
  /** No frame has arrived yet on this connection (P-28). */
  unheard = true
  /** Monotonic, whole ms. */
  receivedAt: Millis
  sentAt: Millis
  private readonly owner: ConnectionOwner
  /** Bytes of `texts`. */
  textBytes = 0
  badFrames = 0
  /** Bytes of output since the last ack or probe (P-43c). */
  unprobedBytes = 0
  /**
   * What the heartbeat found at its last visit: bytes that had arrived; and bytes taken, or -1 when
   * nothing waited.
   */
  receivedBytes = 0
  takenBytes = -1
  /** Whole bytes; Infinity would be an object of its own in each connection. */
  readonly maxOutputBytes: number
  /** Monotonic; Infinity for credentials that do not expire. */
  readonly credentialsExpireAt: Millis
  /** Position in the hub's list; -1 when it is not in it. */
  place = -1

  constructor (
    owner: ConnectionOwner, transport: Transport, profile: Profile, now: Millis, credentialsExpireAt: Millis,
    maxOutputBytes: number
  ) {
    this.owner = owner
    this.maxOutputBytes = maxOutputBytes
    this.transport = transport
    this.profile = profile
    this.receivedAt = this.sentAt = now
    this.credentialsExpireAt = credentialsExpireAt
  }

  wake (): void { this.owner.wake(this) }
  flush (): void { this.owner.flush(this) }
  dismiss (code: CloseCode): void { this.owner.dismiss(this, code) }
}

/** Who acts for a connection. */
export interface ConnectionOwner {
  wake(connection: Connection): void
  flush(connection: Connection): void
  dismiss(connection: Connection, code: CloseCode): void
}

export interface SenderOptions {
  /** Bytes that may wait in one socket before it is left alone until it drains. */
  maxBufferedBytes: number
  /** Runs a callback after the present turn and its microtasks. */
  defer: (callback: () => void) => void
  /** Runs a callback after other events had their turn. */
  yieldTurn: (callback: () => void) => void
  now: () => Millis
  /** Basic profile: what was written is not kept (P-24). */
  onSent: (session: SessionRecord, seq: Seq) => void
  /** A connection whose unsequenced frames pile up because it does not read. */
  onOverflow: (connection: Connection) => void
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
/** Unsequenced frames that may wait for one socket. */
const MAX_TEXTS = 64
const LIVE = textFrame(LIVE_FRAME)
const PING = textFrame(PING_FRAME)
const PONG = textFrame(PONG_FRAME)

export function createSender (options: SenderOptions): Sender {
  const { maxBufferedBytes, defer, yieldTurn, now, onSent, onOverflow } = options
  let due: Connection[] = []
  let deferred = false

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
      const room = connection.crowded ? maxBufferedBytes - connection.transport.bufferedBytes : maxBufferedBytes
      if (room <= 0) {
        block(connection)
        return
      }
      const written = writeBatch(connection, Math.min(room, WRITE_BYTES))
      if (written === 0 || !hasMore(connection)) return
      left -= written
      if (left <= 0) {
        pause(connection)
        return
      }
    }
  }

  function hasMore ({ texts, session, sentSeq, liveAfterSeq }: Connection): boolean {
    return texts !== null || liveAfterSeq !== -1 || (session !== null && sentSeq < session.keptSeq)
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

  /**
   * Writes the frames that are due, up to about `maxBytes` (always at least one). Returns their
   * bytes; 0 when there were none.
   */
  function writeBatch (connection: Connection, maxBytes: number): number {
    if (connection.texts !== null) return writeTexts(connection, connection.texts, maxBytes)
    const { session } = connection
    const frames = session === null || session.log === null
      ? writeLive(connection)
      : writeOutputs(connection, session, session.log, maxBytes)
    if (frames === '') return 0
    connection.sentAt = now()
    connection.crowded = !connection.transport.write(frames)
    if (connection.profile === 'basic' && session !== null) onSent(session, connection.sentSeq)
    return frames.length
  }

  function writeOutputs (connection: Connection, session: SessionRecord, log: ReplayLog, maxBytes: number): ByteString {
    // What overflow dropped was either sent, or closed this connection (P-26), or fell into the gap
    // the client was told of.
    let seq = Math.max(connection.sentSeq, firstSeq(log) - 1)
    connection.sentSeq = seq
    // `live` goes right behind the last output of the replay, or first if that was all sent before,
    // however much is newer already (P-30).
    let frames = writeLive(connection)
    let bytes = 0
    while (seq < session.keptSeq && bytes < maxBytes) {
      const output = outputAt(log, seq + 1)
      if (output === undefined) break
      connection.sentSeq = ++seq
      bytes += output.bytes
      frames += outputFrame(output, seq) + probe(connection, output.bytes)
      if (connection.liveAfterSeq !== -1) frames += writeLive(connection)
    }
    return frames
  }

  /**
   * A WebSocket ping behind so many bytes of output, so that a slow line and a dead one do not look
   * the same (P-43c).
   */
  function probe (connection: Connection, bytes: number): ByteString {
    connection.unprobedBytes += bytes
    if (connection.unprobedBytes < PROBE_BYTES) return ''
    connection.unprobedBytes = 0
    return PROBE
  }

  function writeLive (connection: Connection): ByteString {
    const { liveAfterSeq, sentSeq } = connection
    if (liveAfterSeq === -1 || sentSeq < liveAfterSeq) return ''
    connection.liveAfterSeq = -1
    return LIVE
  }

  /** Unsequenced frames go first, as many as fit and at least one. */
  function writeTexts (connection: Connection, texts: ByteString[], maxBytes: number): number {
    let frames = ''
    let count = 0
    for (; count < texts.length && frames.length < maxBytes; count++) frames += texts[count] as ByteString
    connection.texts = count === texts.length ? null : texts.slice(count)
    connection.textBytes -= frames.length
    connection.sentAt = now()
    connection.crowded = !connection.transport.write(frames)
    return frames.length
  }

  function wake (connection: Connection): void {
    if (connection.queued || connection.blocked || connection.paused || connection.closed) return
    connection.queued = true
    due.push(connection)
    if (!deferred) {
      deferred = true
      defer(flushDue)
    }
  }

  function isCrowded (connection: Connection, bytes: number): boolean {
    return connection.texts !== null &&
      (connection.texts.length >= MAX_TEXTS || connection.textBytes + bytes > maxBufferedBytes)
  }

  function queue (connection: Connection, frame: ByteString): void {
    // Many in one turn are no fault of a healthy socket; what it does not take then is.
    if (isCrowded(connection, frame.length)) flush(connection)
    if (isCrowded(connection, frame.length)) {
      onOverflow(connection)
      return
    }
    if (connection.texts === null) connection.texts = [frame]
    else connection.texts.push(frame)
    connection.textBytes += frame.length
    wake(connection)
  }

  function queueOnce (connection: Connection, frame: ByteString): void {
    if (!connection.closed && connection.texts?.includes(frame) !== true) queue(connection, frame)
  }

  return {
    flush,
    wake,

    sendText (connection, text) {
      if (!connection.closed) queue(connection, textFrame(toBytes(text)))
    },

    sendPing: connection => { queueOnce(connection, PING) },
    sendPong: connection => { queueOnce(connection, PONG) },

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
