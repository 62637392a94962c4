// A Transport (src/io/gateway/sender.ts) out of a ws socket and the stream below it. Frames are written to the stream as the sender made them; closing and pings
// go through ws. Both write whole frames only, so they cannot cut each other in two.

import type { Duplex } from 'node:stream'
import type { WebSocket } from '@fastify/websocket'
import type { Transport } from '../../src/io/gateway/sender.js'

/** RFC 6455's state, as ws numbers it. */
const OPEN = 1

export function createTransport (socket: WebSocket, stream: Duplex): Transport {
  return {
    write (frames) {
      return socket.readyState !== OPEN || stream.write(frames)
    },
    get bufferedBytes () { return stream.writableLength },
    onceDrained (callback) {
      // A stream that was never told to wait does not say when it is done.
      if (stream.writableNeedDrain) stream.once('drain', callback)
      else setImmediate(callback)
    },
    ping () {
      if (socket.readyState === OPEN) socket.ping()
    },
    close (code, reason) {
      socket.close(code, reason)
    }
  }
}
