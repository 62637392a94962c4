// Owns every socket of an HTTP server from its acceptance until it is closed or a WebSocket library has taken it: which
// answers a connection still owes, what becomes of a request with an Upgrade header, and how the sockets end when the
// server stops. It works on the server itself and not by hooks, so it does not matter which plugin refused a request, or
// in which order plugins were registered.
//
// Why Node's own closing is not enough: `server.close()` waits for connections that never sent a byte, or half a
// request, and stops the timers that would end them. And an upgrade is answered outside of Node's bookkeeping: nobody
// ends the socket of a handshake that was refused.
//
// Invariants: once `end` was called every socket closes, idle ones at once, the others when they are answered, and what
// is left at the deadline; a refused upgrade leaves no socket open; an upgrade waits for the answers before it.

import { Server as HttpServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { Socket, type Server } from 'node:net'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { HoldfastError } from '../../src/io/errors.js'
import type { Millis } from '../../src/io/types.js'
import { withoutUpgrade } from './plain-request.js'

export interface Sockets {
  /** Connections with a request that has begun, by a single byte, and is not answered. */
  readonly busy: number
  /** From now on each answer ends its connection. */
  drain(): void
  /** Ends what is idle now, what is busy once it is answered, and whatever is left after `graceMs`. */
  end(graceMs: Millis): void
  /** Leaves the sockets that this WebSocket server accepts to it, and ends them at the deadline. */
  adopt(webSockets: WebSocketServer): void
}

/** What is needed of a WebSocketServer of ws. */
interface WebSocketServer {
  clients: Iterable<{ terminate(): void }>
  on(event: 'connection', listener: (socket: unknown, request: IncomingMessage) => void): unknown
}

/** Node keeps the answer that is being written to a socket there. */
type AnsweringSocket = Duplex & { _httpMessage?: ServerResponse | null, destroySoon?: () => void, bytesRead?: number }
type UpgradeListener = (request: IncomingMessage, socket: Duplex, head: Buffer) => void

const owners = new WeakMap<Server, Sockets>()

/**
 * The owner of the sockets of an instance's server: one for a server, however often and from wherever it is asked for.
 * Routes that are declared after the first call can refuse handshakes that are not meant for them.
 */
export function ownSockets (fastify: FastifyInstance): Sockets {
  const known = owners.get(fastify.server)
  if (known !== undefined) return known
  const owner = createOwner(fastify)
  owners.set(fastify.server, owner)
  return owner
}

function createOwner (fastify: FastifyInstance): Sockets {
  const { server } = fastify
  /** Sockets that are HTTP's, with the bytes that had been read from each when its last answer was done. */
  const sockets = new Map<AnsweringSocket, number>()
  const answers = new Set<ServerResponse>()
  /** Handshakes on their way through the router. */
  const upgrading = new Map<IncomingMessage, AnsweringSocket>()
  const webSocketServers: WebSocketServer[] = []
  let state: 'serving' | 'draining' | 'ending' | 'ended' = 'serving'
  let deadline: NodeJS.Timeout | undefined

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

  /** Below TLS and HTTP/2 requests cannot be told apart: only the deadline ends such a socket. */
  function trackCarrier (socket: AnsweringSocket): void {
    track(socket)
    if (sockets.has(socket)) sockets.set(socket, Infinity)
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

  function isBusy (socket: AnsweringSocket, bytesBefore: number, answeringNow: Set<unknown>): boolean {
    return answeringNow.has(socket) || (bytesBefore !== Infinity && (socket.bytesRead ?? 0) > bytesBefore)
  }

  function listBusy (): AnsweringSocket[] {
    const answeringNow = new Set<unknown>(upgrading.values())
    for (const { req } of answers) answeringNow.add(req.socket)
    return Array.from(sockets).filter(([socket, bytesBefore]) => isBusy(socket, bytesBefore, answeringNow)).map(([socket]) => socket)
  }

  function upgrade (listeners: UpgradeListener[], request: IncomingMessage, socket: AnsweringSocket, head: Buffer): void {
    track(socket)
    // Node took its own listener off; without one a reset would end the process.
    if (!socket.listeners('error').includes(destroySocket)) socket.on('error', destroySocket)
    // The answer to a pipelined request before this one is still on the socket; two at a time would get stuck.
    const earlier = socket._httpMessage
    if (earlier != null) {
      earlier.once('close', () => { upgrade(listeners, request, socket, head) })
      return
    }
    if (socket.destroyed) return
    if (request.headers.upgrade?.trim().toLowerCase() === 'websocket') handshake(listeners, request, socket, head)
    else giveBack(request, socket, head)
  }

  function handshake (listeners: UpgradeListener[], request: IncomingMessage, socket: AnsweringSocket, head: Buffer): void {
    // Streams that tests inject do not close by themselves when both sides have ended.
    if (!(socket instanceof Socket)) socket.once('end', destroySocket)
    upgrading.set(request, socket)
    for (const listener of listeners) if (!socket.destroyed) listener.call(server, request, socket, head)
    const response = socket._httpMessage
    // Whoever took it without an answer, or has upgraded it by now, closes it; the deadline is for all.
    if (response == null || !upgrading.has(request)) {
      upgrading.delete(request)
      if (sockets.has(socket)) sockets.set(socket, Infinity)
      return
    }
    // An answer on a socket that was to be upgraded is a refusal, and nobody reads a request from it again.
    const refused = (): void => {
      upgrading.delete(request)
      finish(socket)
    }
    if (response.writableFinished) refused()
    else response.once('finish', refused)
    response.once('close', () => { upgrading.delete(request) })
  }

  /**
   * Node has stopped reading this connection as HTTP. It gets it back as it came, without the Upgrade (RFC 9110 section
   * 7.8 lets a server ignore it), so that bodies, further requests and time limits are Node's again.
   */
  function giveBack (request: IncomingMessage, socket: AnsweringSocket, head: Buffer): void {
    socket.unshift(Buffer.concat([withoutUpgrade(request), head]))
    server.emit('connection', socket)
  }

  function watch (watched: Server): void {
    if (watched instanceof HttpServer) {
      watched.prependListener('connection', track)
    } else {
      watched.prependListener('connection', trackCarrier)
      watched.prependListener('secureConnection', (socket: TLSSocket) => { socket.alpnProtocol === 'h2' ? trackCarrier(socket) : track(socket) })
    }
    watched.prependListener('request', answering)
  }

  /** Puts one listener in place of those that take every upgrade for a handshake: Node would call them all. */
  function takeUpgrades (): void {
    const listeners = server.listeners('upgrade') as UpgradeListener[]
    server.removeAllListeners('upgrade')
    server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => { upgrade(listeners, request, socket, head) })
  }

  watch(server)
  fastify.addHook('onRequest', leaveTheGone)
  refuseMistaken(fastify)
  fastify.addHook('onReady', async () => { takeUpgrades() })
  fastify.addHook('onClose', async () => { clearTimeout(deadline) })
  // For a name with several addresses Fastify listens with further servers.
  fastify.addHook('onListen', async () => { for (const other of otherServers(fastify)) watch(other) })

  return {
    get busy () { return listBusy().length },

    drain () {
      if (state !== 'serving') return
      state = 'draining'
      for (const response of answers) if (!response.headersSent) response.setHeader('connection', 'close')
    },

    adopt (webSockets) {
      webSocketServers.push(webSockets)
      webSockets.on('connection', (_webSocket, request) => {
        const socket = upgrading.get(request)
        if (socket === undefined) return
        upgrading.delete(request)
        socket.off('close', forget)
        sockets.delete(socket)
      })
    },

    end (graceMs) {
      this.drain()
      state = 'ending'
      const busy = new Set(listBusy())
      for (const [socket, bytesBefore] of sockets) if (bytesBefore !== Infinity && !busy.has(socket)) finish(socket)
      const endAll = (): void => {
        state = 'ended'
        for (const { clients } of webSocketServers) for (const client of clients) client.terminate()
        for (const socket of sockets.keys()) socket.destroy()
      }
      if (graceMs <= 0) endAll()
      else deadline = setTimeout(endAll, graceMs).unref()
    }
  }
}

function destroySocket (this: Duplex): void {
  this.destroy()
}

/** Ends it once what was written has been taken. */
function finish (socket: AnsweringSocket): void {
  if (socket.destroySoon === undefined) socket.end()
  else socket.destroySoon()
}

/** A peer that has reset its connection has no address to count it by any more, and waits for no answer. */
function leaveTheGone ({ raw }: FastifyRequest, reply: FastifyReply, done: () => void): void {
  // injectWS has no socket at all.
  const socket = raw.socket as typeof raw.socket | undefined
  // Neither have Unix sockets a remote address, but then no local one either.
  const isGone = socket !== undefined && (socket.destroyed || (socket.remoteAddress === undefined && socket.localAddress !== undefined))
  if (!isGone) {
    done()
    return
  }
  reply.hijack()
  socket.destroy()
}

/** Left to @fastify/websocket, each GET route would accept a handshake. After the onRequest hooks: they decide first who may ask. */
function refuseMistaken (fastify: FastifyInstance): void {
  const plainRoutes = new Set<string>()
  fastify.addHook('onRoute', route => {
    if (![route.method].flat().includes('GET')) return
    if (route.websocket === true || route.wsHandler !== undefined) plainRoutes.delete(route.url)
    else plainRoutes.add(route.url)
  })
  fastify.addHook('preValidation', (request, _reply, done) => {
    const isMistaken = request.ws && !request.is404 && plainRoutes.has(request.routeOptions.url ?? '')
    done(isMistaken ? new HoldfastError('BAD_HANDSHAKE', { message: 'This address does not speak WebSocket.' }) : undefined)
  })
}

/** Fastify keeps them to itself; without them, sockets on them are only not ended early. */
function otherServers (fastify: FastifyInstance): Server[] {
  const key = Object.getOwnPropertySymbols(fastify).find(symbol => symbol.description === 'fastify.serverBindings')
  return key === undefined ? [] : (fastify as unknown as Record<symbol, Server[]>)[key] ?? []
}
