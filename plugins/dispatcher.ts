// Builds the dispatcher over the session manager and decorates the instance with it, so that
// applications register their commands. Without any core the built-in commands answer. Turns the
// sweep of command deadlines and closes the core.

import fp from 'fastify-plugin'
import { BUILTIN_COMMANDS } from '../src/io/dispatcher/builtin.js'
import type { Before, EventMap } from '../src/io/dispatcher/command.js'
import type { PlatformCore } from '../src/io/dispatcher/core.js'
import { createDispatcher, type Dispatcher, type DispatcherLimits } from '../src/io/dispatcher/dispatcher.js'
import { HoldfastError } from '../src/io/errors.js'
import type { Clock } from '../src/io/types.js'
import { completeCommandLimits, type Given } from '../src/limits.js'
import {
  aBoolean, aClock, aCore, aFunction, anObject, checkPluginOptions, type OptionCheck
} from '../src/option-checks.js'
import { systemClock } from '../src/system-clock.js'
import type {} from './session-manager.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** Registers commands, and sends output to sessions, users or everybody. */
    dispatcher: Dispatcher
  }
}

export interface DispatcherPluginOptions {
  /** Default: the server's, each of those that are not given. */
  limits?: Given<DispatcherLimits>
  /** Executes the commands that no handler of this process answers. */
  core?: PlatformCore
  /** Whether ping, echo, context.get and context.set answer; default: only without a core. */
  builtinCommands?: boolean
  /**
   * Decides whether a command may run; asked before every one, by its session's user and labels,
   * its name and its payload. A throw refuses it, as in a handler.
   */
  before?: Before
  /** Schemas of the events that the application sends, made with `defineEvents`. */
  events?: EventMap
  clock?: Clock
}

/** How late a COMMAND_TIMEOUT may be. */
const SWEEP_EVERY_MS = 100

const CHECKS: Record<keyof DispatcherPluginOptions, OptionCheck> = {
  limits: anObject,
  core: aCore,
  builtinCommands: aBoolean,
  before: aFunction('that throws to refuse a command'),
  events: anObject,
  clock: aClock
}

export default fp<DispatcherPluginOptions>(async function dispatcher (fastify, options) {
  if (fastify.hasDecorator('dispatcher')) {
    throw new HoldfastError('PLUGIN_MISUSED', { message: 'The plugin holdfast/dispatcher is registered twice.' })
  }
  checkPluginOptions('holdfast/dispatcher', options, CHECKS)
  const limits = completeCommandLimits(options.limits)
  const { core, before, events, clock = systemClock } = options
  const { delivery, changeContext, toWall, committer } = fastify.sessionInternals.sessions
  const created = createDispatcher({
    sessions: { delivery, committer, changeContext, toWall, send: fastify.sessionManager.send },
    deliver: fastify.sessionInternals.operations.send,
    clock,
    log: fastify.log,
    limits,
    defer: process.nextTick,
    ...(core === undefined ? {} : { core }),
    ...(before === undefined ? {} : { before }),
    ...(events === undefined ? {} : { events })
  })
  if (options.builtinCommands ?? core === undefined) created.commands(BUILTIN_COMMANDS)
  if (core !== undefined) fastify.sessionManager.subscribe(event => core.notify(event))

  const sweep = setInterval(() => created.sweep(), SWEEP_EVERY_MS)
  sweep.unref()
  fastify.decorate('dispatcher', created)
  fastify.addHook('onClose', async () => {
    clearInterval(sweep)
    await core?.close()
  })
}, {
  name: 'holdfast/dispatcher',
  fastify: '5.x',
  dependencies: ['holdfast/session-manager'],
  decorators: { fastify: ['sessionManager'] }
})
