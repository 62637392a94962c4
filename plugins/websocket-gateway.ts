// The socket route: checks the handshake before the upgrade (P-4), makes a Transport of the
// accepted socket, and passes what happens on it to the gateway (src/io/gateway), which decides.
// Ends connections when the instance closes.
//
// Its WebSocketServer is its own, so that the host's sockets and their options, with
// @fastify/websocket or without, are the host's. What becomes of sockets that are not, or not yet,
// WebSockets is decided in gateway/sockets.ts.

import type { ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import type { WebSocket, WebsocketPluginOptions } from '@fastify/websocket'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Authenticate } from '../src/auth/authenticate.js'
import { HoldfastError } from '../src/io/errors.js'
import type { Connection } from '../src/io/gateway/connection.js'
import { CLOSING_MS, drainConnections } from '../src/io/gateway/drain.js'
import { createGateway, type Gateway, type GatewayLimits } from '../src/io/gateway/gateway.js'
import { addressOfPeer, limitKeyOf } from '../src/io/names/address.js'
import { HEARTBEAT_GRACE_MS, SUBPROTOCOL } from '../src/io/protocol/frames.js'
import type { Clock, Millis } from '../src/io/types.js'
import { OPTIONS } from '../src/config-options.js'
import { completeConnectionLimits, likeOption, type Given } from '../src/limits.js'
import {
  aBoolean, aClock, aFunction, aPath, anObject, checkPluginOptions, milliseconds, type OptionCheck
} from '../src/option-checks.js'
import { systemClock } from '../src/system-clock.js'
import type {} from './dispatcher.js'
import { createHandshakeCheck, type Upgrade } from './gateway/handshake.js'
import { keepNextTickFast } from './gateway/next-tick.js'
import { ownSockets } from './gateway/sockets.js'
import { createTransport } from './gateway/transport.js'
import { createInjectWS, createWebSocketServer } from './gateway/web-socket-server.js'
import { answerError } from './schemas/error-answer.js'
import type {} from './session-manager.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** The live connections of this node. */
    gateway: GatewayDecorator
  }
  interface FastifyRequest {
    /** What the handshake of an upgrade was found to be; null for every other request. */
    upgrade: Upgrade | null
  }
}

export interface GatewayDecorator extends Gateway {
  /** True from the start of a drain: upgrades are refused, readiness is false. */
  readonly draining: boolean
  /**
   * Closes every connection, spread over half the time, and waits for commands and HTTP requests
   * that are under way. It resolves within `deadlineMs`, and within 500 ms for less, whatever
   * clients do (P-48). Close the instance then: what is left is ended at once.
   *
   * With `stopListening` it takes no further connections from the start, where other processes
   * listen to the same port and take them; else new ones are refused with a status.
   */
  drain(deadlineMs: Millis, options?: { stopListening?: boolean }): Promise<void>
}

export interface WebsocketGatewayOptions {
  /** Default `/ws`. */
  path?: string
  authenticate: Authenticate
  /**
   * Origins of pages that may connect, beside the server's own: `https://app.example`,
   * `capacitor://localhost`, `null`; `https://*.app.example` for every sub-domain, `*` for every
   * page. Default: none.
   */
  allowedOrigins?: readonly string[]
  /**
   * Browsers have to call the server by a loopback name, unless their origin is allowed by name;
   * for servers where nobody proves who he is. Default false.
   */
  loopbackHostOnly?: boolean
  /** Default: the server's, each of those that are not given. */
  limits?: Given<GatewayLimits>
  /**
   * Handshakes per address; takes effect where @fastify/rate-limit is registered. Default: the
   * server's.
   */
  upgradesPerMinute?: number
  /**
   * How long peers may take to answer a close, or to finish a request when the instance closes,
   * before their sockets are destroyed; default 3000.
   */
  closeTimeoutMs?: Millis
  /** How long `authenticate` may take; default 10,000. */
  authTimeoutMs?: Millis
  /** Prefix of the route, as with every Fastify plugin. */
  prefix?: string
  clock?: Clock
}

const MAX_TIMEOUT_MS = 600_000
const CHECKS: Record<keyof WebsocketGatewayOptions, OptionCheck> = {
  path: aPath,
  authenticate: { ...aFunction('that returns who the client is, such as placeholderAuthenticator()'), required: true },
  allowedOrigins: { ...likeOption('allowedOrigins'), expected: 'an array of origins such as https://app.example' },
  loopbackHostOnly: aBoolean,
  limits: anObject,
  upgradesPerMinute: likeOption('upgradesPerMinute'),
  closeTimeoutMs: milliseconds(1, MAX_TIMEOUT_MS),
  authTimeoutMs: milliseconds(1, MAX_TIMEOUT_MS),
  prefix: { is: value => typeof value === 'string', expected: 'a path' },
  clock: aClock
}

/**
 * What is left of the budget would be told in an answer that an upgrade never sends. An option of
 * @fastify/rate-limit that its types give to the plugin alone.
 */
const NO_BUDGET_HEADERS = { addHeadersOnExceeding: {} }
const SWEEP_EVERY_MS = 250
/**
 * When a host closes the instance without a drain, as in tests: clients are told, and nothing is
 * spread.
 */
const CLOSE_DRAIN_MS = 1000

export default fp<WebsocketGatewayOptions>(async function websocketGateway (fastify, options) {
  if (fastify.hasDecorator('gateway')) {
    const message = 'The plugin holdfast/websocket-gateway is registered twice.'
    throw new HoldfastError('PLUGIN_MISUSED', { message })
  }
  checkPluginOptions('holdfast/websocket-gateway', options, CHECKS)
  const limits = completeConnectionLimits(options.limits)
  const { path = '/ws', clock = systemClock, closeTimeoutMs = 3000 } = options
  const { upgradesPerMinute = OPTIONS.upgradesPerMinute.default } = options
  let draining = false
  let drained = false
  const sockets = ownSockets(fastify)
  const { sessions, entrance } = fastify.sessionInternals
  keepNextTickFast()
  const handshake = createHandshakeCheck({
    entrance,
    maxContextBytes: sessions.limits.maxContextBytes,
    authenticate: options.authenticate,
    allowedOrigins: options.allowedOrigins ?? [],
    loopbackHostOnly: options.loopbackHostOnly ?? false,
    authTimeoutMs: options.authTimeoutMs ?? 10_000,
    deadPeerMs: limits.heartbeatMs + HEARTBEAT_GRACE_MS,
    clock,
    isDraining: () => draining,
    isHandshake: sockets.isHandshake
  })
  const gateway = createGateway({
    sessions,
    entrance,
    dispatcher: fastify.dispatcher,
    clock,
    log: fastify.log,
    limits,
    defer: process.nextTick,
    yieldTurn: setImmediate
  })
  const listeners = createListeners(gateway)

  async function drain (deadlineMs: Millis, { stopListening = false } = {}): Promise<void> {
    draining = true
    if (stopListening) sockets.stopListening()
    handshake.refusePending()
    fastify.dispatcher.refuseCommands()
    sockets.drain()
    // Not the clock of the options: what passes here is time of the process.
    await drainConnections({
      gateway,
      clock: systemClock,
      delay,
      random: Math.random,
      deadlineMs,
      busyRequests: () => sockets.busy
    })
    drained = true
  }

  const decorated: GatewayDecorator = Object.defineProperties({ drain } as GatewayDecorator, {
    ...Object.getOwnPropertyDescriptors(gateway),
    draining: { get: () => draining, enumerable: true }
  })
  fastify.decorate('gateway', decorated)
  fastify.decorateRequest('upgrade', null)

  const webSockets = createWebSocketServer(websocketOptions(limits.maxMessageBytes, closeTimeoutMs))
  sockets.adopt(webSockets)
  // The host's @fastify/websocket brings the same, wherever it is registered. A decorator would
  // make that impossible.
  fastify.addHook('onReady', async () => {
    if (!fastify.hasDecorator('injectWS')) Object.assign(fastify, { injectWS: createInjectWS(fastify.server) })
  })

  fastify.addHook('preClose', async () => {
    const startedAt = systemClock.now()
    const isSudden = !drained
    if (isSudden) await drain(Math.min(closeTimeoutMs, CLOSE_DRAIN_MS))
    const leftMs = Math.max(closeTimeoutMs, CLOSING_MS) - (systemClock.now() - startedAt)
    sockets.end(webSockets, isSudden ? leftMs : 0)
    await new Promise(resolve => { webSockets.close(resolve) })
  })

  const sweep = setInterval(() => gateway.sweep(SWEEP_EVERY_MS), SWEEP_EVERY_MS)
  sweep.unref()
  fastify.addHook('onClose', async () => {
    clearInterval(sweep)
  })

  await fastify.register(async function socketRoute (scope) {
    // Refusals have the form of docs/errors.md, and no stack in the log, whatever the host does
    // with errors. An error of the host's own hooks is the host's.
    scope.setErrorHandler((error, request, reply) => {
      if (!(error instanceof HoldfastError)) throw error
      answerError(error, request, reply)
    })
    scope.route({
      method: 'GET',
      url: path,
      exposeHeadRoute: false,
      config: {
        holdfastSocket: true,
        rateLimit: {
          max: upgradesPerMinute,
          timeWindow: 60_000,
          keyGenerator: limitKeyOfRequest,
          ...NO_BUDGET_HEADERS
        }
      },
      preValidation: handshake.check,
      // Not in the handler, which @fastify/websocket wraps where the host has registered it.
      preHandler: (request, reply) => {
        reply.hijack()
        // The upgrade and the first frame go out in one write. `connect` uncorks, and so does the
        // end of a socket that is refused after all.
        reply.raw.socket?.cork()
        sockets.accept(webSockets, request.raw, socket => { connect(gateway, listeners, clock, socket, request) })
      },
      // Never reached: what asks for no upgrade was refused above.
      handler: async () => { throw new HoldfastError('UPGRADE_REQUIRED') }
    })
  }, { prefix: options.prefix ?? '' })
}, {
  name: 'holdfast/websocket-gateway',
  fastify: '5.x',
  dependencies: ['holdfast/dispatcher'],
  decorators: { fastify: ['sessionManager', 'dispatcher'] }
})

/**
 * The options of ws that the protocol needs.
 *
 * Fragments and chunks are bounded far below the library's defaults, since each costs memory before
 * a message is whole; compression is off, since a few bytes of it can unfold to megabytes.
 */
export function websocketOptions (
  maxMessageBytes: number, closeTimeoutMs: Millis
): NonNullable<WebsocketPluginOptions['options']> {
  return {
    maxPayload: maxMessageBytes,
    perMessageDeflate: false,
    clientTracking: true,
    handleProtocols: protocols => protocols.has(SUBPROTOCOL) ? SUBPROTOCOL : false,
    ...{ closeTimeout: closeTimeoutMs, maxFragments: 128, maxBufferedChunks: 1024 }
  }
}

/**
 * Where a socket has its connection, so that the listeners are the same functions for every socket.
 */
const CONNECTION = Symbol('holdfast.connection')
interface ConnectedSocket extends WebSocket { [CONNECTION]?: Connection }

interface Listeners {
  message(this: ConnectedSocket, data: Buffer, isBinary: boolean): void
  heard(this: ConnectedSocket): void
  close(this: ConnectedSocket, code: number): void
  error(this: ConnectedSocket, error: Error): void
}

/**
 * What happens on sockets, passed on. A closure of each socket for each event would be a tenth of
 * what a connection holds.
 */
function createListeners (gateway: Gateway): Listeners {
  return {
    message (data, isBinary) { gateway.receive(this[CONNECTION] as Connection, data, isBinary) },
    heard () { gateway.heard(this[CONNECTION] as Connection) },
    close (code) { gateway.closed(this[CONNECTION] as Connection, code) },
    error (error) {
      const code = violationOf(error)
      if (code !== undefined) gateway.violated(this[CONNECTION] as Connection, code)
    }
  }
}

function connect (
  gateway: Gateway, listeners: Listeners, clock: Clock, socket: ConnectedSocket, request: FastifyRequest
): void {
  const { handshake, identity, entry, response } = request.upgrade as Upgrade
  const stream = response.socket as Duplex
  // Request and reply would otherwise live as long as the socket, on which the response hangs.
  response.detachSocket(response.socket as NonNullable<ServerResponse['socket']>)
  request.upgrade = null

  const transport = createTransport(socket, stream)
  if (identity instanceof HoldfastError || entry === undefined) {
    // The close that follows ends it all the same.
    socket.on('error', () => {})
    gateway.refuse(transport, identity as HoldfastError)
    stream.uncork()
    return
  }
  const connection = gateway.accept({
    transport,
    entry,
    maxOutputBytes: handshake.maxOutputBytes,
    ...(identity.expiresAt === undefined
      ? {}
      : { credentialsExpireAt: clock.now() + identity.expiresAt - clock.wall() })
  })
  connection.flush()
  stream.uncork()
  socket[CONNECTION] = connection
  socket.on('message', listeners.message)
  socket.on('ping', listeners.heard)
  socket.on('pong', listeners.heard)
  socket.on('close', listeners.close)
  socket.on('error', listeners.error)
}

/** Also where the host registered @fastify/rate-limit with a key of its own. */
function limitKeyOfRequest (request: FastifyRequest): string {
  return limitKeyOf(addressOfPeer(request))
}

/**
 * The code with which ws closes for an error of its own; undefined for those of the network, whose
 * close tells all.
 */
function violationOf (error: Error & { code?: string }): number | undefined {
  if (error.code?.startsWith('WS_ERR_') !== true) return undefined
  return VIOLATIONS[error.code] ?? 1002
}

const VIOLATIONS: Readonly<Record<string, number>> = {
  WS_ERR_UNSUPPORTED_MESSAGE_LENGTH: 1009,
  WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH: 1009,
  WS_ERR_INVALID_UTF8: 1007,
  WS_ERR_TOO_MANY_BUFFERED_PARTS: 1008
}
