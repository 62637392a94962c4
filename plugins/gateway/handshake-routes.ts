// The hooks of a scope by which its routes say whether handshakes are for them: those of ours are
// known to the sockets' owner, those of @fastify/websocket to itself, and all others refuse them.

import type { IncomingMessage } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { HoldfastError } from '../../src/io/errors.js'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** A route of ours that answers handshakes, by `Sockets.accept`. */
    holdfastSocket?: true
  }
}

export interface HandshakeRoutes {
  /** To every scope once; hooks of one say nothing to the scope beside it. */
  addHooks(scope: FastifyInstance, isHandshake: (request: IncomingMessage) => boolean): void
  /** Whether a path may be that of a route of ours; whether it is, is the router's to say. */
  isOwnPath(path: string): boolean
}

export function createHandshakeRoutes (): HandshakeRoutes {
  const ownPaths: RegExp[] = []
  return {
    addHooks (scope, isHandshake) {
      scope.addHook('onRequest', dropDisconnected)
      scope.addHook('onRoute', ({ url, config }) => {
        if (config?.holdfastSocket === true) ownPaths.push(patternOf(url))
      })
      refuseMistaken(scope, isHandshake)
    },

    isOwnPath (path) { return ownPaths.some(pattern => pattern.test(path)) }
  }
}

/**
 * A peer that has reset its connection has no address to count it by any more, and waits for no
 * answer.
 */
function dropDisconnected ({ raw }: FastifyRequest, reply: FastifyReply, done: () => void): void {
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
