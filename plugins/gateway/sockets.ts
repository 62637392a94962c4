// Owns every socket of an HTTP server from its acceptance until it is closed or a WebSocket library
// has taken it. http-sockets.ts knows which answers are owed, upgrades.ts what becomes of a request
// with an Upgrade header, handshake-routes.ts which routes take one; here they are one owner for a
// server, which ends them all when the server stops.

import type { IncomingMessage } from 'node:http'
import type { Server } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Millis } from '../../src/io/types.js'
import { createHandshakeRoutes } from './handshake-routes.js'
import { createHttpSockets } from './http-sockets.js'
import { createUpgrades, type Upgrader } from './upgrades.js'

export interface Sockets {
  /** Connections with a request that has begun, by a single byte, and is not answered. */
  readonly busy: number
  /** From now on each answer ends its connection. */
  drain(): void
  /** Takes no further connections; those that are there go on. */
  stopListening(): void
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
  accept<S>(webSockets: Upgrader<S>, request: IncomingMessage, accepted: (socket: S) => void): void
}

/** What is needed of a WebSocketServer of ws. */
interface WithClients {
  clients: Iterable<{ terminate(): void }>
}

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
  const httpSockets = createHttpSockets()
  const routes = createHandshakeRoutes()
  httpSockets.watch(fastify.server)
  const upgrades = createUpgrades({ fastify, httpSockets, isOwnPath: routes.isOwnPath })
  /** Those that have not been ended. */
  const webSocketServers = new Set<WithClients>()
  const deadlines: NodeJS.Timeout[] = []

  fastify.addHook('onClose', async () => { for (const deadline of deadlines) clearTimeout(deadline) })
  // For a name with several addresses Fastify listens with further servers.
  fastify.addHook('onListen', async () => { for (const other of otherServers(fastify)) httpSockets.watch(other) })

  return {
    addHooks (scope) { routes.addHooks(scope, upgrades.isHandshake) },
    get busy () { return httpSockets.listBusy(upgrades.listSockets()).length },
    isHandshake: upgrades.isHandshake,
    drain: httpSockets.drain,
    stopListening () { for (const server of [fastify.server, ...otherServers(fastify)]) server.close() },
    adopt (webSockets) { webSocketServers.add(webSockets) },
    accept: upgrades.accept,

    end (webSockets, graceMs) {
      httpSockets.drain()
      webSocketServers.delete(webSockets)
      const isLast = webSocketServers.size === 0
      if (isLast) httpSockets.endIdle(upgrades.listSockets())
      const endAll = (): void => {
        for (const client of webSockets.clients) client.terminate()
        if (isLast) httpSockets.destroyAll()
      }
      if (graceMs <= 0) endAll()
      else deadlines.push(setTimeout(endAll, graceMs).unref())
    }
  }
}

/** Fastify keeps them to itself; without them, sockets on them are only not ended early. */
function otherServers (fastify: FastifyInstance): Server[] {
  const key = Object.getOwnPropertySymbols(fastify).find(symbol => symbol.description === 'fastify.serverBindings')
  return key === undefined ? [] : (fastify as unknown as Record<symbol, Server[]>)[key] ?? []
}
