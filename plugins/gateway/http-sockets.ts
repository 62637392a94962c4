// The sockets of an HTTP server that are HTTP's: which answers each still owes, and how they end
// when the server stops.
//
// Why Node's own closing is not enough: `server.close()` waits for connections that never sent a
// byte, or half a request, and stops the timers that would end them.
//
// Invariant: once `endIdle` was called every socket closes, idle ones at once, the others when they
// are answered, and what is left at `destroyAll`.

import { Server as HttpServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Server } from 'node:net'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'

/** Node keeps the answer that is being written to a socket there. */
export interface AnsweringSocket extends Duplex {
  _httpMessage?: ServerResponse | null
  destroySoon?: () => void
  bytesRead?: number
  bytesWritten?: number
}

export interface HttpSockets {
  /** Tracks what a server accepts from now on, and the answers to it. */
  watch(server: Server): void
  track(socket: AnsweringSocket): void
  /** Leaves a tracked socket to somebody else: until its close only `destroyAll` ends it. */
  exempt(socket: AnsweringSocket): void
  /** A WebSocket library has taken the socket, and ends it. */
  release(socket: AnsweringSocket): void
  /** Sockets with a request that has begun and is not answered; those of `upgrading` are. */
  listBusy(upgrading: readonly AnsweringSocket[]): AnsweringSocket[]
  /** From now on each answer ends its connection. */
  drain(): void
  /** Ends what is idle now, and what is busy once it is answered. */
  endIdle(upgrading: readonly AnsweringSocket[]): void
  /** Ends everything, also what is accepted later. */
  destroyAll(): void
}

export function createHttpSockets (): HttpSockets {
  /** With the bytes that had been read from each when its last answer was done. */
  const sockets = new Map<AnsweringSocket, number>()
  const answers = new Set<ServerResponse>()
  let state: 'serving' | 'draining' | 'ending' | 'ended' = 'serving'

  function track (socket: AnsweringSocket): void {
    if (state === 'ended') {
      socket.destroy()
      return
    }
    if (sockets.has(socket)) return
    sockets.set(socket, 0)
    socket.on('close', forget)
  }

  function forget (this: AnsweringSocket): void {
    sockets.delete(this)
  }

  function exempt (socket: AnsweringSocket): void {
    if (sockets.has(socket)) sockets.set(socket, Infinity)
  }

  /** Below TLS and HTTP/2 requests cannot be told apart. */
  function trackCarrier (socket: AnsweringSocket): void {
    track(socket)
    exempt(socket)
  }

  function answering (_request: IncomingMessage, response: ServerResponse): void {
    answers.add(response)
    response.once('close', answered)
    if (state !== 'serving') response.setHeader('connection', 'close')
  }

  function answered (this: ServerResponse): void {
    answers.delete(this)
    const socket = this.req.socket as AnsweringSocket | undefined
    if (socket === undefined || !sockets.has(socket)) return
    sockets.set(socket, socket.bytesRead ?? 0)
    // Its head was written before the drain, with a promise to keep the connection.
    if (state === 'ending') finish(socket)
  }

  function listBusy (upgrading: readonly AnsweringSocket[]): AnsweringSocket[] {
    const answeringNow = new Set<unknown>(upgrading)
    for (const { req } of answers) answeringNow.add(req.socket)
    return Array.from(sockets)
      .filter(([socket, bytesBefore]) => answeringNow.has(socket) || hasBegun(socket, bytesBefore))
      .map(([socket]) => socket)
  }

  return {
    watch (server) {
      if (server instanceof HttpServer) {
        server.prependListener('connection', track)
      } else {
        server.prependListener('connection', trackCarrier)
        server.prependListener('secureConnection', (socket: TLSSocket) => {
          socket.alpnProtocol === 'h2' ? trackCarrier(socket) : track(socket)
        })
      }
      server.prependListener('request', answering)
    },

    track,
    exempt,

    // Left there, it would make a list of two listeners, 180 bytes for each connection.
    release (socket) {
      socket.off('close', forget)
      sockets.delete(socket)
    },

    listBusy,

    drain () {
      if (state !== 'serving') return
      state = 'draining'
      for (const response of answers) if (!response.headersSent) response.setHeader('connection', 'close')
    },

    endIdle (upgrading) {
      state = 'ending'
      const busy = new Set(listBusy(upgrading))
      for (const [socket, bytesBefore] of sockets) if (bytesBefore !== Infinity && !busy.has(socket)) finish(socket)
    },

    destroyAll () {
      state = 'ended'
      for (const socket of sockets.keys()) socket.destroy()
    }
  }
}

/** A single byte begins a request. */
function hasBegun (socket: AnsweringSocket, bytesBefore: number): boolean {
  return bytesBefore !== Infinity && (socket.bytesRead ?? 0) > bytesBefore
}

/** Ends it once what was written has been taken. */
export function finish (socket: AnsweringSocket): void {
  if (socket.destroySoon === undefined) socket.end()
  else socket.destroySoon()
}
