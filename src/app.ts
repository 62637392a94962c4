// The composition root: one Fastify instance out of one configuration, its plugins in one readable
// order. Nothing here listens, handles signals or reads the environment, so that tests and hosts
// build the same application as the server.
//
// The order matters; each line below says why it stands where it stands. No handlerTimeout and no
// onRequestAbort or onTimeout hook: with them injectWS fails, whose requests are plain objects.

import { hostname } from 'node:os'
import Fastify, { type FastifyInstance } from 'fastify'
import dispatcher from '../plugins/dispatcher.js'
import { ownSockets } from '../plugins/gateway/sockets.js'
import health from '../plugins/health.js'
import loadShedding from '../plugins/load-shedding.js'
import metrics from '../plugins/metrics.js'
import nodesApi from '../plugins/nodes-api.js'
import openapi from '../plugins/openapi.js'
import operatorAuth from '../plugins/operator-auth.js'
import rateLimit, { type RateLimitOptions } from '../plugins/rate-limit.js'
import { readBodies } from '../plugins/schemas/body.js'
import { answerError } from '../plugins/schemas/error-answer.js'
import securityHeaders from '../plugins/security-headers.js'
import sessionManager from '../plugins/session-manager.js'
import sessionsApi from '../plugins/sessions-api.js'
import startPage from '../plugins/start-page.js'
import usersApi from '../plugins/users-api.js'
import websocketGateway from '../plugins/websocket-gateway.js'
import { answerClientError, answerNotFound } from './app-errors.js'
import { placeholderAuthenticator, type Authenticate } from './auth/authenticate.js'
import type { JwtAuthenticator } from './auth/jwt.js'
import type { Config } from './config.js'
import type { PlatformCore } from './io/dispatcher/core.js'
import { createAddressMatcher } from './io/names/address.js'
import { largestOutputBytes } from './io/session/delivery.js'
import type { CreateStore, SessionStore } from './io/session/store.js'
import type { Clock } from './io/types.js'
import { limitsOf, toMs } from './limits.js'
import { isLoopbackName } from './loopback.js'
import {
  aBoolean, aClock, aCore, aFunction, anObjectWith, aSessionStore, aText, aWholeNumber, checkOptions, orFunction,
  type OptionCheck
} from './option-checks.js'
import { createRequestLog, describeRequest } from './request-log.js'
import { createStore, openRedisUrl, type StoreListeners } from './create-store.js'
import { systemClock } from './system-clock.js'

export interface AppOverrides {
  /** In place of what the configuration says about tokens. */
  authenticate?: Authenticate
  /** In place of HOLDFAST_CORE_URL. */
  core?: PlatformCore
  /** In place of HOLDFAST_STORE. */
  store?: SessionStore | CreateStore
  /** Whether ping, echo, context.get and context.set answer; default: only without a core. */
  builtinCommands?: boolean
  clock?: Clock
  /**
   * Where log lines go, one JSON object each; default: the standard output. `lostLines` is shown as
   * a metric.
   */
  logStream?: { write(line: string): void, readonly lostLines?: number }
  /** Number of this worker: in every log line, and a label of every metric. */
  worker?: number
  /** Shown in the description of the REST API. */
  version?: string
}

const OVERRIDES: Record<keyof AppOverrides, OptionCheck> = {
  authenticate: aFunction('that returns who the client is'),
  core: aCore,
  store: orFunction(aSessionStore, 'that makes one'),
  builtinCommands: aBoolean,
  clock: aClock,
  logStream: anObjectWith(['write'], 'a stream'),
  worker: aWholeNumber(0),
  version: aText('a version')
}

/** Everyone's name until authentication is configured. */
export const PLACEHOLDER_USER = 'human_reviewer_1'

/** From the first byte of a request to its last; a socket that was upgraded is not affected. */
const REQUEST_TIMEOUT_MS = 30_000
/**
 * How often Node looks for connections that overstay; its own default lets them stay 30 s longer.
 */
const TIMEOUT_CHECK_MS = 500
/** A million sessions are read in a quarter of it. */
const STORE_OPENING_MS = 300_000
/** Room for the members around the payload of a message sent over REST. */
const BODY_MARGIN_BYTES = 16 * 1024

/**
 * The application, loaded and not listening.
 *
 * @throws CONFIG_INVALID  an override that is wrong, or that there is none of; what only the
 *                         modules behind an option can judge
 */
export async function buildApp (config: Config, overrides: AppOverrides = {}): Promise<FastifyInstance> {
  checkOptions('buildApp', overrides, OVERRIDES)
  const app = createInstance(config, overrides)
  const clock = overrides.clock ?? systemClock
  const limits = limitsOf(config)

  // First, so that every scope made below inherits it.
  app.setErrorHandler(answerError)
  readBodies(app)

  // These look at routes when they are declared, so they come before the first one.
  ownSockets(app)
  const { version = '0.0.0' } = overrides
  await app.register(rateLimit, { requestsPerMinute: config.requestsPerMinute, ...createRateStore(config, overrides) })
  await app.register(openapi, { version })
  await app.register(startPage, { version })

  // The domain, each on the one before. The store closes last, since onClose hooks run in reverse.
  const placeholder = overrides.authenticate === undefined && config.jwtSecret === undefined &&
    config.jwksUrl === undefined
  await app.register(sessionManager, {
    limits: limits.sessions,
    clock,
    store: overrides.store ?? createStore(config, { ...storeListeners(app), info: { version } }),
    ...(placeholder ? { unlimitedUserId: PLACEHOLDER_USER } : {})
  })
  const core = overrides.core ?? await createCore(config, app, clock)
  await app.register(dispatcher, {
    limits: limits.commands,
    clock,
    ...(core === undefined ? {} : { core }),
    ...(overrides.builtinCommands === undefined ? {} : { builtinCommands: overrides.builtinCommands })
  })
  const authenticate: JwtAuthenticator = overrides.authenticate ?? await createAuthenticate(config, app, clock)
  // It registers @fastify/websocket, once.
  await app.register(websocketGateway, {
    authenticate,
    allowedOrigins: config.allowedOrigins,
    loopbackHostOnly: placeholder && isLoopbackName(config.host),
    limits: limits.connections,
    upgradesPerMinute: config.upgradesPerMinute,
    clock
  })

  await app.register(securityHeaders)
  await app.register(loadShedding, { maxEventLoopDelayMs: toMs(config.maxEventLoopDelaySeconds), clock })

  // Operators. Measuring comes before the routes that are measured, the decision who is an operator
  // before those that ask for it.
  const { adminToken, host, requestsPerMinute } = config
  await app.register(operatorAuth, {
    host, requestsPerMinute, limits: limits.operators, clock, ...(adminToken === undefined ? {} : { adminToken })
  })
  await app.register(metrics, {
    readLostLogLines: () => overrides.logStream?.lostLines ?? 0,
    ...(overrides.worker === undefined ? {} : { worker: overrides.worker }),
    ...(authenticate.keySet === undefined ? {} : { keySet: authenticate.keySet })
  })
  await app.register(health)
  await app.register(sessionsApi)
  await app.register(usersApi)
  await app.register(nodesApi, { drainMs: toMs(config.drainSeconds), sharesPort: overrides.worker !== undefined })

  // Last: its preHandler is the budget of addresses that guess URLs.
  app.setNotFoundHandler({ preHandler: app.rateLimit() }, answerNotFound)
  if (placeholder) {
    app.log.warn({ userId: PLACEHOLDER_USER }, 'no authentication configured: everybody is the placeholder user')
  }
  return app
}

function createInstance (config: Config, { logStream, worker }: AppOverrides): FastifyInstance {
  return Fastify({
    logger: {
      level: config.logLevel,
      redact: [
        'req.headers.authorization', 'req.headers.cookie', 'req.headers["sec-websocket-protocol"]',
        'headers.authorization', 'headers.cookie', 'headers["sec-websocket-protocol"]'
      ],
      ...(worker === undefined ? {} : { base: { pid: process.pid, hostname: hostname(), worker } }),
      serializers: { req: describeRequest as never },
      ...(logStream === undefined ? {} : { stream: logStream })
    },
    logController: createRequestLog(),
    trustProxy: config.trustProxy.length === 0 ? false : createAddressMatcher(config.trustProxy),
    // A large journal takes seconds to read, and a store that is away gives up by itself.
    pluginTimeout: STORE_OPENING_MS,
    bodyLimit: largestOutputBytes(config) + BODY_MARGIN_BYTES,
    requestTimeout: REQUEST_TIMEOUT_MS,
    http: { headersTimeout: toMs(config.handshakeSeconds), connectionsCheckingInterval: TIMEOUT_CHECK_MS },
    // User ids have up to 128 characters, and may stand in a path.
    routerOptions: { maxParamLength: 128 },
    clientErrorHandler: answerClientError,
    frameworkErrors: (error, request, reply) => { void answerError(error, request, reply) }
  })
}

/** What a start with many sessions says, and what one finds that cannot be read. */
function storeListeners ({ log }: FastifyInstance): StoreListeners {
  return {
    onProgress: sessions => { log.info({ sessions }, 'session store is being read') },
    onDamaged: problem => { log.error({ err: new Error(problem) }, 'session store has a session that cannot be read') }
  }
}

async function createAuthenticate (config: Config, { log }: FastifyInstance, clock: Clock): Promise<JwtAuthenticator> {
  const { jwtSecret, jwksUrl, jwtIssuer, jwtAudience, jwtClockToleranceSeconds, jwksMaxStaleSeconds } = config
  if (jwtSecret === undefined && jwksUrl === undefined) return placeholderAuthenticator(PLACEHOLDER_USER)
  // Loaded when it is needed.
  const { createJwtAuthenticator } = await import('./auth/jwt.js')
  return createJwtAuthenticator({
    secret: jwtSecret,
    jwksUrl,
    issuer: jwtIssuer,
    audience: jwtAudience,
    clockToleranceSeconds: jwtClockToleranceSeconds,
    jwksMaxStaleMs: toMs(jwksMaxStaleSeconds),
    wall: clock.wall,
    now: clock.now,
    log
  })
}

/** Nodes that share a Redis count requests there together. */
function createRateStore (
  config: Config, overrides: AppOverrides
): Pick<RateLimitOptions, 'redis' | 'prefix'> {
  const { store, redisUrl, redisPrefix } = config
  if (store !== 'redis' || redisUrl === undefined || overrides.store !== undefined) return {}
  return { redis: openRedisUrl(redisUrl, config), prefix: `${redisPrefix}:rate:` }
}

async function createCore (config: Config, app: FastifyInstance, clock: Clock): Promise<PlatformCore | undefined> {
  if (config.coreUrl === undefined) return undefined
  // With its HTTP client it takes 4 MB, which a server without a core need not have.
  const { createHttpCore } = await import('./cores/http.js')
  return createHttpCore({
    url: config.coreUrl,
    secret: config.coreSecret,
    timeoutMs: toMs(config.coreTimeoutSeconds),
    idempotent: config.coreIdempotent,
    lifecycleEvents: config.lifecycleEvents,
    maxAnswerBytes: largestOutputBytes(config),
    log: app.log,
    clock
  })
}
