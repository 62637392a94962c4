// What a server does with requests that carry an Upgrade header (server only). @fastify/websocket takes every one of them for a handshake and lets every
// GET route accept it. Here a request for another protocol, such as the `Upgrade: h2c` of Java's HTTP client, is served as the plain request it
// also is (RFC 9110 section 7.8 lets a server ignore an Upgrade), and a WebSocket handshake on a route without a socket is refused with a code.
//
// Register it before the socket route, whose declaration it watches; it takes over the server's upgrade listeners when everything is loaded.
// Kept true: no refused upgrade leaves a socket open. Not here: judging handshakes on the socket route (websocket-gateway.ts).

import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { HoldfastError } from '../src/io/errors.js'

type UpgradeListener = (request: IncomingMessage, socket: Socket, head: Buffer) => void

/** Hop-by-hop headers of another protocol's upgrade; `connection` loses the same names. */
const UPGRADE_HEADERS = ['upgrade', 'http2-settings']

export default fp(async function upgradeGuard (fastify) {
  const socketRoutes = new Set<string>()
  fastify.addHook('onRoute', route => {
    if (route.websocket === true || route.wsHandler !== undefined) socketRoutes.add(route.url)
  })

  // After every onRequest hook: by then @fastify/websocket has marked the request and ends its socket after the answer.
  fastify.addHook('preValidation', (request, _reply, done) => {
    const isMistaken = request.ws && !request.is404 && !socketRoutes.has(request.routeOptions.url ?? '')
    done(isMistaken ? new HoldfastError('BAD_HANDSHAKE', { message: 'This address does not speak WebSocket.' }) : undefined)
  })

  // A refusal by a hook that runs before @fastify/websocket's own would leave the socket open for ever.
  fastify.addHook('onResponse', (request, _reply, done) => {
    if (request.headers.upgrade !== undefined && !request.ws) request.raw.socket?.destroySoon?.()
    done()
  })

  fastify.addHook('onReady', async () => { takeOver(fastify) })
}, { name: 'holdfast/upgrade-guard', fastify: '5.x' })

/** Puts one listener before those that take every upgrade for a handshake: Node calls all listeners, so they are called from here. */
function takeOver ({ server }: FastifyInstance): void {
  const handshakeListeners = server.listeners('upgrade') as UpgradeListener[]
  server.removeAllListeners('upgrade')
  server.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
    if (request.headers.upgrade?.trim().toLowerCase() === 'websocket') {
      // The gateway ends a handshake that is pipelined behind an unanswered request; the library would only log that it cannot take it.
      for (const listener of handshakeListeners) if (!socket.destroyed) listener.call(server, request, socket, head)
      return
    }
    giveBack(server, request, socket, head)
  })
}

/**
 * Node has stopped reading this connection as HTTP. It gets it back as it came, without the Upgrade, so that bodies, further requests and time
 * limits are Node's again.
 */
function giveBack (server: Server, request: IncomingMessage, socket: Socket & { _httpMessage?: ServerResponse | null }, head: Buffer): void {
  // Node took its own listener off; without one a reset while no parser is attached would end the process.
  if (!socket.listeners('error').includes(destroySocket)) socket.on('error', destroySocket)
  // The answer to a pipelined request before this one is still on the socket; two at a time would get stuck.
  const earlier = socket._httpMessage
  if (earlier != null) {
    earlier.once('close', () => { giveBack(server, request, socket, head) })
    return
  }
  if (socket.destroyed) return
  socket.unshift(Buffer.concat([plainHead(request), head]))
  server.emit('connection', socket)
}

function destroySocket (this: Socket): void {
  this.destroy()
}

/** The request's own bytes, but for its wish to upgrade. */
function plainHead ({ method, url, httpVersion, rawHeaders }: IncomingMessage): Buffer {
  const lines = [`${method} ${url} HTTP/${httpVersion}`]
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const [name, value] = [rawHeaders[i] as string, rawHeaders[i + 1] as string]
    const kept = name.toLowerCase() === 'connection' ? withoutUpgrade(value) : value
    if (!UPGRADE_HEADERS.includes(name.toLowerCase()) && kept !== undefined) lines.push(`${name}: ${kept}`)
  }
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
}

function withoutUpgrade (connection: string): string | undefined {
  const kept = connection.split(',').map(token => token.trim()).filter(token => !UPGRADE_HEADERS.includes(token.toLowerCase()))
  return kept.length === 0 ? undefined : kept.join(', ')
}
