// The one register: `await app.register(holdfast, { commands })` gives an application sessions,
// commands and the socket route, and where it asks for them the operators' REST and health. It
// hands each plugin its part of the options, so that no value is given twice, and decides nothing
// itself.
//
// The order of the plugins below is that of docs/api.md; this file is why a host does not have to
// know it. Whatever is wrong with the options stops the registration before anything is registered.

import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { placeholderAuthenticator, type Authenticate } from '../src/auth/authenticate.js'
import { HoldfastError } from '../src/io/errors.js'
import type { Before, CommandMap, EventMap } from '../src/io/dispatcher/command.js'
import type { PlatformCore } from '../src/io/dispatcher/core.js'
import type { CreateStore, SessionStore } from '../src/io/session/store.js'
import type { Clock, Millis } from '../src/io/types.js'
import { completeLimits, likeOption, millisecondsLike, type AllLimits, type Given } from '../src/limits.js'
import { isLoopbackAddress } from '../src/loopback.js'
import {
  aBoolean, aClock, aCore, aFunction, aPath, aSessionStore, aText, anObject, checkOptions, checkPluginOptions,
  milliseconds, orFunction, type OptionCheck
} from '../src/option-checks.js'
import dispatcher from './dispatcher.js'
import health from './health.js'
import nodesApi from './nodes-api.js'
import operatorAuth from './operator-auth.js'
import sessionManager from './session-manager.js'
import sessionsApi from './sessions-api.js'
import usersApi from './users-api.js'
import websocketGateway from './websocket-gateway.js'

export interface HoldfastOptions {
  /**
   * A registry of commands made with `defineCommand`. Without it, and without a core, the built-in
   * ones answer.
   */
  commands?: CommandMap
  /** Schemas of what the application sends, made with `defineEvents`. */
  events?: EventMap
  /** Decides whether a command may run. */
  before?: Before
  /**
   * Who is at the other end; see docs/api.md. Without it everybody is the user `human_reviewer_1`,
   * and only this machine may connect.
   */
  authenticate?: Authenticate
  /** In part: the rest are the server's defaults. */
  limits?: Given<AllLimits>
  /** Where clients connect; default `/ws`. */
  path?: string
  /**
   * Origins of browsers that may connect, beside the server's own; `*` allows every one. Default:
   * none.
   */
  allowedOrigins?: string[]
  /** Handshakes per address; takes effect where @fastify/rate-limit is registered. */
  upgradesPerMinute?: number
  /** Executes the commands that no handler answers. */
  core?: PlatformCore
  /** Default: the memory store. For a fleet: `redisStore({ url })`. */
  store?: SessionStore | CreateStore
  /**
   * Serves `/sessions`, `/users`, `/nodes` and the other routes of the operators, with the token
   * that they send; without a token to this machine only. `drainMs` is what `POST /nodes/:id/drain`
   * gives a node to end its connections: default 10,000, 0 to 600,000. Default: not served.
   */
  operators?: { adminToken?: string, prefix?: string, drainMs?: Millis }
  /** Serves `/health/live` and `/health/ready`. Default false. */
  health?: boolean
  /** How long peers may take to answer a close; default 3000. */
  closeTimeoutMs?: Millis
  /** How long `authenticate` may take; default 10,000. */
  authTimeoutMs?: Millis
  /** Before `path`, and before the routes of operators and health. */
  prefix?: string
  clock?: Clock
}

const CHECKS: Record<keyof HoldfastOptions, OptionCheck> = {
  commands: anObject,
  events: anObject,
  before: aFunction('that throws to refuse a command'),
  authenticate: aFunction('that returns who the client is'),
  limits: anObject,
  path: aPath,
  allowedOrigins: { ...likeOption('allowedOrigins'), expected: 'an array of origins such as https://app.example' },
  upgradesPerMinute: likeOption('upgradesPerMinute'),
  core: aCore,
  store: orFunction(aSessionStore, 'that makes one'),
  operators: anObject,
  health: aBoolean,
  closeTimeoutMs: milliseconds(1, 600_000),
  authTimeoutMs: milliseconds(1, 600_000),
  prefix: { is: value => typeof value === 'string', expected: 'a path' },
  clock: aClock
}
const OPERATOR_CHECKS: Record<keyof NonNullable<HoldfastOptions['operators']>, OptionCheck> = {
  adminToken: { ...likeOption('adminToken'), expected: 'a text of 16 to 512 visible ASCII characters' },
  prefix: aText('a path'),
  drainMs: millisecondsLike('drainSeconds')
}
const PLACEHOLDER_USER = 'human_reviewer_1'

export default fp<HoldfastOptions>(async function holdfast (fastify, options) {
  checkPluginOptions('holdfast', options, CHECKS)
  if (options.operators !== undefined) checkOptions('operators of holdfast', options.operators, OPERATOR_CHECKS)
  const limits = completeLimits(options.limits)
  if (fastify.hasDecorator('sessionManager')) {
    throw new HoldfastError('PLUGIN_MISUSED', {
      message: 'The plugin holdfast is registered twice, or beside plugins that it registers itself. Register it once.'
    })
  }
  const { authenticate, commands, prefix = '' } = options
  const clock = defined('clock', options.clock)

  await fastify.register(sessionManager, {
    limits: limits.sessions,
    ...clock,
    ...defined('store', options.store),
    ...(authenticate === undefined ? { unlimitedUserId: PLACEHOLDER_USER } : {})
  })
  await fastify.register(dispatcher, {
    limits: limits.commands,
    builtinCommands: commands === undefined && options.core === undefined,
    ...clock,
    ...defined('core', options.core),
    ...defined('before', options.before),
    ...defined('events', options.events)
  })
  if (commands !== undefined) fastify.dispatcher.commands(commands)
  await fastify.register(websocketGateway, {
    limits: limits.connections,
    authenticate: authenticate ?? thisMachineOnly(),
    loopbackHostOnly: authenticate === undefined,
    prefix,
    ...clock,
    ...defined('path', options.path),
    ...defined('allowedOrigins', options.allowedOrigins),
    ...defined('upgradesPerMinute', options.upgradesPerMinute),
    ...defined('closeTimeoutMs', options.closeTimeoutMs),
    ...defined('authTimeoutMs', options.authTimeoutMs)
  })
  if (options.health === true) await fastify.register(health, { prefix } as object)
  if (options.operators !== undefined) {
    const under = { prefix: prefix + (options.operators.prefix ?? '') }
    await fastify.register(operatorAuth, { host: '127.0.0.1', ...defined('adminToken', options.operators.adminToken) })
    await fastify.register(sessionsApi, under)
    await fastify.register(usersApi, under)
    await fastify.register(nodesApi, { ...under, ...defined('drainMs', options.operators.drainMs) })
  }
  if (authenticate === undefined) {
    fastify.log.warn(
      { userId: PLACEHOLDER_USER }, 'no authentication: everybody on this machine is the placeholder user'
    )
  }
}, { name: 'holdfast/holdfast', fastify: '5.x' })

/** A member that is absent where there is no value, as the plugins expect it. */
function defined<K extends string, V> (name: K, value: V | undefined): { [N in K]?: V } {
  return (value === undefined ? {} : { [name]: value }) as { [N in K]?: V }
}

/** A forgotten `authenticate` must not open an application to everybody who can reach it. */
function thisMachineOnly (): Authenticate {
  const everybody = placeholderAuthenticator(PLACEHOLDER_USER)
  return asked => {
    if (isOfThisMachine(asked.request)) return everybody(asked)
    throw new HoldfastError(
      'FORBIDDEN', { message: 'Only this machine may connect until the application authenticates its users.' }
    )
  }
}

/** A proxy on this machine makes everybody local, so whatever one has forwarded is refused. */
function isOfThisMachine ({ headers, raw }: FastifyRequest): boolean {
  // A request that a test injects comes over no network.
  const address = (raw.socket as typeof raw.socket | undefined)?.remoteAddress ?? '127.0.0.1'
  return isLoopbackAddress(address) && headers['x-forwarded-for'] === undefined && headers.forwarded === undefined
}
