// What becomes of a request with an Upgrade header. Handshakes for routes of ours go to the router
// and to nobody else; all others go to whoever listens for upgrades (@fastify/websocket, socket.io,
// ws), as if we were not there. It works on the server itself and not by hooks, so it does not
// matter which plugin refused a request, or in which order plugins were registered.
//
// An upgrade is answered outside of Node's bookkeeping: nobody else ends the socket of a handshake
// that was refused.
//
// Invariants: a refused upgrade leaves no socket open; an upgrade waits for the answers before it,
// and once somebody has answered or accepted it, nobody else is asked.

import { ServerResponse, type IncomingMessage } from 'node:http'
import { Socket, type Server } from 'node:net'
import type { Duplex } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import { finish, type AnsweringSocket, type HttpSockets } from './http-sockets.js'
import { withoutUpgrade } from './plain-request.js'
import { isRead, replaceUpgradeListeners } from './upgrade-listeners.js'

export interface Upgrades {
  /** Whether a request is a WebSocket handshake that nobody has accepted yet. */
  isHandshake(request: IncomingMessage): boolean
  /** Sockets of the handshakes that are on their way through the router. */
  listSockets(): AnsweringSocket[]
  /** Upgrades a handshake that came to a route of ours. */
  accept<S>(webSockets: Upgrader<S>, request: IncomingMessage, accepted: (socket: S) => void): void
}

/** What is needed of a WebSocketServer of ws. */
export interface Upgrader<S> {
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer, accepted: (socket: S) => void): void
}

export interface UpgradesOptions {
  fastify: Pick<FastifyInstance, 'log' | 'routing' | 'server'>
  httpSockets: Pick<HttpSockets, 'exempt' | 'release' | 'track'>
  /** Whether a path is that of a route of ours. */
  isOwnPath: (path: string) => boolean
}

interface Handshake {
  readonly socket: AnsweringSocket
  readonly head: Buffer
  readonly request: IncomingMessage
  /** Its place in the list of those under way. */
  index: number
}

/**
 * Where a request has its handshake while that is under way, and a socket that a reset of it is
 * listened to. Maps would cost each handshake a microsecond.
 */
const HANDSHAKE = Symbol('holdfast.handshake')
const GUARDED = Symbol('holdfast.guarded')
interface UpgradeRequest extends IncomingMessage { [HANDSHAKE]?: Handshake | undefined }
interface GuardedSocket extends AnsweringSocket { [GUARDED]?: true }

export function createUpgrades ({ fastify, httpSockets, isOwnPath }: UpgradesOptions): Upgrades {
  const { server } = fastify
  /** On their way through the router. */
  const handshakes: Handshake[] = []
  const others = replaceUpgradeListeners(server, upgrade)

  function upgrade (request: IncomingMessage, socket: GuardedSocket, head: Buffer): void {
    httpSockets.track(socket)
    // Node took its own listener off; without one a reset would end the process.
    if (socket[GUARDED] !== true) {
      socket[GUARDED] = true
      socket.on('error', destroySocket)
    }
    // The answer to a pipelined request before this one is still on the socket; two at a time would
    // get stuck.
    const earlier = socket._httpMessage
    if (earlier != null) {
      earlier.once('close', () => { upgrade(request, socket, head) })
      return
    }
    if (socket.destroyed) return
    if (request.headers.upgrade?.trim().toLowerCase() === 'websocket') handshake(request, socket, head)
    else giveBack(server, request, socket, head)
  }

  function begin (request: UpgradeRequest, socket: AnsweringSocket, head: Buffer): void {
    const begun = { socket, head, request, index: handshakes.length }
    request[HANDSHAKE] = begun
    handshakes.push(begun)
  }

  /** It is under way no more. Returns what it was. */
  function end (request: UpgradeRequest): Handshake | undefined {
    const ended = request[HANDSHAKE]
    if (ended === undefined) return undefined
    request[HANDSHAKE] = undefined
    const last = handshakes.pop() as Handshake
    if (last !== ended) {
      handshakes[ended.index] = last
      last.index = ended.index
    }
    return ended
  }

  function handshake (request: IncomingMessage, socket: AnsweringSocket, head: Buffer): void {
    // Streams that tests inject do not close by themselves when both sides have ended.
    if (!(socket instanceof Socket)) socket.once('end', destroySocket)
    begin(request, socket, head)
    const [path = ''] = (request.url ?? '').split('?', 1)
    if (others.count === 0 || isOwnPath(path)) route(request, socket)
    else others.ask(request, socket, head)
    const response = socket._httpMessage
    // Whoever took it without an answer, or has upgraded it by now, closes it; the deadline is for
    // all.
    if (response == null || !isHandshake(request) || isRead(socket)) {
      leaveToOthers(request, socket)
      return
    }
    if (response.writableFinished) refused.call(response)
    else response.on('finish', refused)
    response.on('close', forget)
  }

  function route (request: IncomingMessage, socket: AnsweringSocket): void {
    const response = new ServerResponse(request)
    response.assignSocket(socket as Socket)
    try {
      fastify.routing(request, response)
    } catch (err) {
      // A hook of the host that throws outside of its promise. From this event it would end the
      // process.
      fastify.log.error({ err }, 'handshake failed')
      socket.destroy()
    }
  }

  /**
   * An answer on a socket that was to be upgraded is a refusal, and nobody reads a request from it
   * again.
   */
  function refused (this: ServerResponse): void {
    // A request of injectWS has no socket of its own.
    finish(end(this.req)?.socket ?? this.req.socket)
  }

  function forget (this: ServerResponse): void {
    end(this.req)
  }

  function leaveToOthers (request: IncomingMessage, socket: AnsweringSocket): void {
    end(request)
    httpSockets.exempt(socket)
  }

  return {
    isHandshake,

    listSockets () {
      for (const { request, socket } of [...handshakes]) if (isRead(socket)) leaveToOthers(request, socket)
      return handshakes.map(({ socket }) => socket)
    },

    accept (webSockets, request, accepted) {
      const { socket, head } = (request as UpgradeRequest)[HANDSHAKE] as Handshake
      webSockets.handleUpgrade(request, socket, head, webSocket => {
        end(request)
        httpSockets.release(socket)
        accepted(webSocket)
      })
    }
  }
}

/** Whether nobody has accepted or answered it yet. */
function isHandshake (request: UpgradeRequest): boolean {
  return request[HANDSHAKE] !== undefined
}

/**
 * Node has stopped reading this connection as HTTP. It gets it back as it came, without the Upgrade
 * (RFC 9110 section 7.8 lets a server ignore it), so that bodies, further requests and time limits
 * are Node's again.
 */
function giveBack (server: Server, request: IncomingMessage, socket: AnsweringSocket, head: Buffer): void {
  socket.unshift(Buffer.concat([withoutUpgrade(request), head]))
  server.emit('connection', socket)
}

function destroySocket (this: Duplex): void {
  this.destroy()
}
