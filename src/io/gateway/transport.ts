// The port to a socket. Whoever implements it has the bytes of frames to carry, and nothing to
// decide.

import type { ByteString } from '../types.js'

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
