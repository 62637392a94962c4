// The one place that knows ws, and how a test opens a socket without a network.

import { EventEmitter } from 'node:events'
import type { Server } from 'node:http'
import { createRequire } from 'node:module'
import type websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'
import { WebSocketServer, type ServerOptions } from 'ws'

/** Accepts what `Sockets.accept` hands it; it listens to nothing itself. */
export function createWebSocketServer (options: ServerOptions): WebSocketServer {
  return new WebSocketServer({ ...options, noServer: true })
}

type InjectWS = FastifyInstance['injectWS']

/**
 * `injectWS` of @fastify/websocket, for hosts that have not registered it: on an instance that
 * serves nothing and hands its handshakes on. In the turn of the call, as there: tests rely on it
 * that `onInit` has run when it returns.
 */
export function createInjectWS (server: Pick<Server, 'emit'>): InjectWS {
  let carrier: FastifyInstance | undefined
  return (...args) => {
    carrier ??= createCarrier(server)
    return carrier.injectWS(...args)
  }
}

function createCarrier (server: Pick<Server, 'emit'>): FastifyInstance {
  // Loaded by the first test that asks, and in its turn: a server never needs it.
  const library = createRequire(import.meta.url)('@fastify/websocket') as typeof websocket
  const relay = new EventEmitter()
  const carrier = Fastify()
  // Called, and not registered: a registration is carried out later.
  void library(carrier, { options: { server: relay as Server } }, () => {})
  relay.removeAllListeners('upgrade')
  relay.on('upgrade', (...upgrade: unknown[]) => { server.emit('upgrade', ...upgrade) })
  return carrier
}
