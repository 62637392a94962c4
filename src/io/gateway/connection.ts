// The record of one accepted socket: what it is due, what it was sent, and what it was heard of.

import type { CloseCode } from '../protocol/close-codes.js'
import type { AttachedConnection, SessionRecord } from '../session/record.js'
import type { ByteString, Millis, Profile, Seq } from '../types.js'
import type { Transport } from './transport.js'

/**
 * A class for the sake of its three methods: on a prototype they cost a connection nothing. It
 * decides nothing; it only knows where to turn.
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
  hasBacklog = false
  /** Said goodbye, or closed by the peer: nothing is read or written any more. */
  closed = false
  /** No frame has arrived yet on this connection (P-28). */
  unconfirmed = true
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
  hubIndex = -1

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
