// Owns every socket of an HTTP server from its acceptance until it is closed or a WebSocket library
// has taken it: which answers a connection still owes, what becomes of a request with an Upgrade
// header, and how the sockets end when the server stops. It works on the server itself and not by
// hooks, so it does not matter which plugin refused a request, or in which order plugins were
// registered. Handshakes for routes of ours go to the router and to nobody else; all others go to
// whoever listens for upgrades (@fastify/websocket, socket.io, ws), as if we were not there.
//
// Why Node's own closing is not enough: `server.close()` waits for connections that never sent a
// byte, or half a request, and stops the timers that would end them. And an upgrade is answered
// outside of Node's bookkeeping: nobody ends the socket of a handshake that was refused.
//
// Invariants: once `end` was called every socket closes, idle ones at once, the others when they
// are answered, and what is left at the deadline; a refused upgrade leaves no socket open; an
// upgrade waits for the answers before it, and once somebody has answered or accepted it, nobody
// else is asked.

import { Server as HttpServer, ServerResponse, type IncomingMessage } from 'node:http'
import { Socket, type Server } from 'node:net'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { HoldfastError } from '../../src/io/errors.js'
import type { Millis } from '../../src/io/types.js'
import { withoutUpgrade } from './plain-request.js'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** A route of ours that answers handshakes, by `Sockets.accept`. */
    holdfastSocket?: true
  }
}

export interface Sockets {
  /** Connections with a request that has begun, by a single byte, and is not answered. */
  readonly busy: number
  /** From now on each answer ends its connection. */
  drain(): void
  /**
   * Ends what this server has accepted after `graceMs`. With the last of those that were adopted it
   * ends everything else too: what is idle now, what is busy once it is answered, and whatever is
   * left after `graceMs`.
   */
  end(webSockets: WithClients, graceMs: Millis): void
  /** Whether a request is a WebSocket handshake that nobody has accepted yet. */
  isHandshake(request: IncomingMessage): boolean
  /** Leaves the sockets that this WebSocket server accepts to it, and ends them at the deadline. */
  adopt(webSockets: WithClients): void
  /** Upgrades a handshake that came to a route of ours. */
  accept<S>(webSockets: WebSocketServer<S>, request: IncomingMessage, accepted: (socket: S) => void): void
}

/** What is needed of a WebSocketServer of ws. */
interface WithClients {
  clients: Iterable<{ terminate(): void }>
}
interface WebSocketServer<S> extends WithClients {
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer, accepted: (socket: S) => void): void
}

/** Node keeps the answer that is being written to a socket there. */
interface AnsweringSocket extends Duplex {
  _httpMessage?: ServerResponse | null
  destroySoon?: () => void
  bytesRead?: number
  bytesWritten?: number
}
interface Upgrading { readonly socket: AnsweringSocket, readonly head: Buffer }
type UpgradeListener = (request: IncomingMessage, socket: Duplex, head: Buffer) => void

const owners = new WeakMap<Server, Owner>()
/** Marks the scopes that have our hooks, and those in them. */
const HOOKED = Symbol('holdfast.sockets')

interface Owner extends Sockets {
  addHooks(scope: FastifyInstance): void
}

/**
 * The owner of the sockets of an instance's server: one for a server, however often and from
 * wherever it is asked for. Routes that are declared after the first call can refuse handshakes
 * that are not meant for them.
 */
export function ownSockets (fastify: FastifyInstance): Sockets {
  const owner = owners.get(fastify.server) ?? createOwner(fastify)
  owners.set(fastify.server, owner)
  // Hooks of one scope say nothing to the scope beside it.
  if (!fastify.hasDecorator(HOOKED as never)) {
    fastify.decorate(HOOKED, true)
    owner.addHooks(fastify)
  }
  return owner
}

function createOwner (fastify: FastifyInstance): Owner {
  const { server } = fastify
  /**
   * Sockets that are HTTP's, with the bytes that had been read from each when its last answer was
   * done.
   */
  const sockets = new Map<AnsweringSocket, number>()
  const answers = new Set<ServerResponse>()
  /** Handshakes on their way through the router. */
  const upgrading = new Map<IncomingMessage, Upgrading>()
  /** Those that have not been ended. */
  const webSocketServers = new Set<WithClients>()
  /** Whoever else takes upgrades on this server. */
  const others: UpgradeListener[] = []
  const ownPaths: RegExp[] = []
  let state: 'serving' | 'draining' | 'ending' | 'ended' = 'serving'
  const deadlines: NodeJS.Timeout[] = []

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
    for (const [request, { socket }] of upgrading) if (isRead(socket)) leaveToOthers(request, socket)
    const answeringNow = new Set<unknown>(Array.from(upgrading.values(), ({ socket }) => socket))
    for (const { req } of answers) answeringNow.add(req.socket)
    return Array.from(sockets)
      .filter(([socket, bytesBefore]) => isBusy(socket, bytesBefore, answeringNow))
      .map(([socket]) => socket)
  }

  function upgrade (request: IncomingMessage, socket: AnsweringSocket, head: Buffer): void {
    track(socket)
    // Node took its own listener off; without one a reset would end the process.
    if (socket.listenerCount('error', destroySocket) === 0) socket.on('error', destroySocket)
    // The answer to a pipelined request before this one is still on the socket; two at a time would
    // get stuck.
    const earlier = socket._httpMessage
    if (earlier != null) {
      earlier.once('close', () => { upgrade(request, socket, head) })
      return
    }
    if (socket.destroyed) return
    if (request.headers.upgrade?.trim().toLowerCase() === 'websocket') handshake(request, socket, head)
    else giveBack(request, socket, head)
  }

  function handshake (request: IncomingMessage, socket: AnsweringSocket, head: Buffer): void {
    // Streams that tests inject do not close by themselves when both sides have ended.
    if (!(socket instanceof Socket)) socket.once('end', destroySocket)
    upgrading.set(request, { socket, head })
    if (others.length === 0 || isOwn(request.url ?? '')) route(request, socket)
    else askOthers(request, socket, head)
    const response = socket._httpMessage
    // Whoever took it without an answer, or has upgraded it by now, closes it; the deadline is for
    // all.
    if (response == null || !upgrading.has(request) || isRead(socket)) {
      leaveToOthers(request, socket)
      return
    }
    if (response.writableFinished) refused.call(response)
    else response.on('finish', refused)
    response.on('close', forgetUpgrade)
  }

  /**
   * An answer on a socket that was to be upgraded is a refusal, and nobody reads a request from it
   * again.
   */
  function refused (this: ServerResponse): void {
    // A request of injectWS has no socket of its own.
    const socket = upgrading.get(this.req)?.socket ?? this.req.socket
    upgrading.delete(this.req)
    finish(socket)
  }

  function forgetUpgrade (this: ServerResponse): void {
    upgrading.delete(this.req)
  }

  function leaveToOthers (request: IncomingMessage, socket: AnsweringSocket): void {
    upgrading.delete(request)
    if (sockets.has(socket)) sockets.set(socket, Infinity)
  }

  function isOwn (url: string): boolean {
    const [path = ''] = url.split('?', 1)
    return ownPaths.some(pattern => pattern.test(path))
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
   * In their order, until one has taken it: two that both know the path would write into each
   * other's answer.
   */
  function askOthers (request: IncomingMessage, socket: AnsweringSocket, head: Buffer): void {
    const writtenBefore = socket.bytesWritten
    for (const listener of [...others]) {
      listener.call(server, request, socket, head)
      const isAnswered = socket._httpMessage != null || socket.bytesWritten !== writtenBefore
      if (isAnswered || isRead(socket) || socket.destroyed) return
    }
  }

  /**
   * Node has stopped reading this connection as HTTP. It gets it back as it came, without the
   * Upgrade (RFC 9110 section 7.8 lets a server ignore it), so that bodies, further requests and
   * time limits are Node's again.
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
      watched.prependListener('secureConnection', (socket: TLSSocket) => {
        socket.alpnProtocol === 'h2' ? trackCarrier(socket) : track(socket)
      })
    }
    watched.prependListener('request', answering)
  }

  /**
   * Puts one listener in place of all, also of those that come later: Node would call every one of
   * them.
   */
  function takeUpgrades (): void {
    others.push(...server.listeners('upgrade') as UpgradeListener[])
    server.removeAllListeners('upgrade')
    server.on('upgrade', upgrade)
    server.on('newListener', (event: string | symbol, listener: UpgradeListener) => {
      if (event !== 'upgrade') return
      others.push(listener)
      // It is added only after this event.
      queueMicrotask(() => { server.off('upgrade', listener) })
    })
  }

  watch(server)
  takeUpgrades()
  fastify.addHook('onClose', async () => { for (const deadline of deadlines) clearTimeout(deadline) })
  // For a name with several addresses Fastify listens with further servers.
  fastify.addHook('onListen', async () => { for (const other of otherServers(fastify)) watch(other) })

  return {
    addHooks (scope) {
      scope.addHook('onRequest', leaveTheGone)
      scope.addHook('onRoute', ({ url, config }) => {
        if (config?.holdfastSocket === true) ownPaths.push(patternOf(url))
      })
      refuseMistaken(scope, request => upgrading.has(request))
    },

    get busy () { return listBusy().length },

    isHandshake (request) { return upgrading.has(request) },

    drain () {
      if (state !== 'serving') return
      state = 'draining'
      for (const response of answers) if (!response.headersSent) response.setHeader('connection', 'close')
    },

    adopt (webSockets) { webSocketServers.add(webSockets) },

    accept (webSockets, request, accepted) {
      const { socket, head } = upgrading.get(request) as Upgrading
      webSockets.handleUpgrade(request, socket, head, webSocket => {
        upgrading.delete(request)
        socket.off('close', forget)
        sockets.delete(socket)
        accepted(webSocket)
      })
    },

    end (webSockets, graceMs) {
      this.drain()
      webSocketServers.delete(webSockets)
      const isLast = webSocketServers.size === 0
      if (isLast) {
        state = 'ending'
        const busy = new Set(listBusy())
        for (const [socket, bytesBefore] of sockets) if (bytesBefore !== Infinity && !busy.has(socket)) finish(socket)
      }
      const endAll = (): void => {
        for (const client of webSockets.clients) client.terminate()
        if (!isLast) return
        state = 'ended'
        for (const socket of sockets.keys()) socket.destroy()
      }
      if (graceMs <= 0) endAll()
      else deadlines.push(setTimeout(endAll, graceMs).unref())
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

/**
 * A peer that has reset its connection has no address to count it by any more, and waits for no
 * answer.
 */
function leaveTheGone ({ raw }: FastifyRequest, reply: FastifyReply, done: () => void): void {
  // injectWS has no socket at all.
  const socket = raw.socket as typeof raw.socket | undefined
  // Neither have Unix sockets a remote address, but then no local one either.
  const isGone = socket !== undefined &&
    (socket.destroyed || (socket.remoteAddress === undefined && socket.localAddress !== undefined))
  if (!isGone) {
    done()
    return
  }
  reply.hijack()
  socket.destroy()
}

/**
 * Somebody reads it who is not HTTP: Node has let go of a socket whose request wants an upgrade.
 */
function isRead (socket: Duplex): boolean {
  return socket.listenerCount('data') > 0
}

/** The addresses that may reach a route; which of them do is the router's to say. */
function patternOf (url: string): RegExp {
  const segments = url.split('/').map(segment => {
    if (segment.includes('*')) return '.*'
    return segment.includes(':') ? '[^/]+' : segment.replace(/[^\w-]/g, '\\$&')
  })
  return new RegExp(`^${segments.join('/')}/?$`, 'i')
}

/**
 * Handshakes on routes that are not for them: @fastify/websocket would accept each, and without it
 * each would be answered as a plain request. After the onRequest hooks: they decide first who may
 * ask.
 */
function refuseMistaken (scope: FastifyInstance, isHandshake: (request: IncomingMessage) => boolean): void {
  const plainRoutes = new Set<string>()
  scope.addHook('onRoute', function ({ method, url, websocket, wsHandler, config }) {
    if (![method].flat().includes('GET')) return
    const isOfLibrary = websocket === true || wsHandler !== undefined
    if (isOfLibrary && !this.hasRequestDecorator('ws')) {
      throw new HoldfastError('PLUGIN_MISUSED', {
        message: `The route ${url} needs @fastify/websocket. Register @fastify/websocket before it: Holdfast does not.`
      })
    }
    if (isOfLibrary || config?.holdfastSocket === true) plainRoutes.delete(url)
    else plainRoutes.add(url)
  })
  scope.addHook('preValidation', ({ raw, is404, routeOptions }, _reply, done) => {
    const isMistaken = isHandshake(raw) && !is404 && plainRoutes.has(routeOptions.url ?? '')
    const message = 'This address does not speak WebSocket.'
    done(isMistaken ? new HoldfastError('BAD_HANDSHAKE', { message }) : undefined)
  })
}

/** Fastify keeps them to itself; without them, sockets on them are only not ended early. */
function otherServers (fastify: FastifyInstance): Server[] {
  const key = Object.getOwnPropertySymbols(fastify).find(symbol => symbol.description === 'fastify.serverBindings')
  return key === undefined ? [] : (fastify as unknown as Record<symbol, Server[]>)[key] ?? []
}
