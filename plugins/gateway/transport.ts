// A Transport (src/io/gateway/transport.ts) out of a ws socket and the stream below it. Frames are
// written to the stream as the sender made them; closing and pings go through ws. Both write whole
// frames only, so they cannot cut each other in two.
//
// A class: a literal with a getter would get a hidden class of its own for each connection, and
// with five closures cost each as much as its session does.

import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { WebSocket } from '@fastify/websocket'
import type { Transport } from '../../src/io/gateway/transport.js'
import type { ByteString } from '../../src/io/types.js'

/** RFC 6455's state, as ws numbers it. */
const OPEN = 1

class SocketTransport implements Transport {
  private readonly socket: WebSocket
  private readonly stream: Duplex & Partial<Pick<Socket, 'bytesRead' | 'bytesWritten'>>

  constructor (socket: WebSocket, stream: Duplex) {
    this.socket = socket
    this.stream = stream
  }

  write (frames: ByteString): boolean {
    if (this.socket.readyState !== OPEN) return true
    // What the kernel does not take now waits outside of the heap, which peers that do not read
    // could fill otherwise. What waits for the end of a handshake is written in the same turn.
    return this.stream.writableLength === 0 || this.stream.writableCorked > 0
      ? this.stream.write(frames, 'latin1')
      : this.stream.write(Buffer.from(frames, 'latin1'))
  }

  get bufferedBytes (): number { return this.stream.writableLength }

  // A stream without a network, as of injectWS, does not count. What it is given it has taken, and
  // pings tell that it lives.
  get takenBytes (): number { return (this.stream.bytesWritten ?? 0) - this.stream.writableLength }
  get receivedBytes (): number { return this.stream.bytesRead ?? 0 }

  onceDrained (callback: () => void): void {
    // A stream that was never told to wait does not say when it is done.
    if (this.stream.writableNeedDrain) this.stream.once('drain', callback)
    else setImmediate(callback)
  }

  ping (): void {
    if (this.socket.readyState === OPEN) this.socket.ping()
  }

  close (code: number, reason: string): void {
    this.socket.close(code, reason)
  }
}

export function createTransport (socket: WebSocket, stream: Duplex): Transport {
  return new SocketTransport(socket, stream)
}
