// The commands by name. What a registration brings is checked once, its schemas are compiled, and
// what has to be asked around its handler is put around it, so that executing is one lookup and one
// call.

import type { Validator } from 'typebox/compile'
import { HoldfastError } from '../errors.js'
import { then } from '../maybe-promise.js'
import type { Log, Millis } from '../types.js'
import type { Before, CommandMap, CommandOptions } from './command.js'
import type { PlatformCore } from './core.js'
import { createCoreHandlers } from './core-command.js'
import type { Handler } from './handler-context.js'
import { createCommandStats, type CommandStats } from './stats.js'
import { compileSchema, verify, type Compiled, type Verified } from './validation.js'

/** A command ready to be executed. */
export interface RegisteredCommand {
  readonly stats: CommandStats
  /** Answers at once, so it is asked before anything of the command is made; null if none does. */
  readonly payload: Validator | null
  readonly result: Validator | null
  readonly serial: boolean
  /** It may be executed again after its node has died. */
  readonly idempotent: boolean
  readonly timeoutMs: Millis
  readonly handler: Handler
}

export interface RegistryOptions {
  log: Log
  /** Time limit of a command that declares none. */
  commandTimeoutMs: Millis
  core: PlatformCore | undefined
  /** Asked before every command, and before the command's own. */
  before: Before | undefined
}

export interface Registry {
  /** @throws PLUGIN_MISUSED */
  register(name: string, options: CommandOptions, handler: unknown): void
  /**
   * @throws PLUGIN_MISUSED  nothing is registered unless every one was made with `defineCommand`
   */
  registerAll(map: CommandMap): void
  has(name: string): boolean
  /** The command of that name, else that of the core; undefined if there is no core. */
  find(name: string): RegisteredCommand | undefined
  readonly stats: CommandStats[]
  /** Those of names that nobody registered. */
  readonly unknown: CommandStats
}

const MAX_TIMEOUT_MS = 3_600_000

export function createRegistry (options: RegistryOptions): Registry {
  const { log, commandTimeoutMs, core } = options
  const commands = new Map<string, RegisteredCommand>()
  const stats: CommandStats[] = []
  const unknown = addStats('(unknown)')
  const createCoreHandler = core === undefined ? undefined : createCoreHandlers(core)
  const coreCommand = createCoreHandler === undefined
    ? undefined
    : build('(core)', {}, createCoreHandler({ idempotent: false, timeoutMs: commandTimeoutMs }))

  function addStats (name: string): CommandStats {
    const created = createCommandStats(name)
    stats.push(created)
    return created
  }

  function build (name: string, command: CommandOptions, handler: Handler): RegisteredCommand {
    const payload = compile(command.payload, `payload of the command ${JSON.stringify(name)}`)
    const result = compile(command.result, `result of the command ${JSON.stringify(name)}`)
    return {
      stats: addStats(name),
      payload: validatorOf(payload),
      result: validatorOf(result),
      serial: command.serial ?? false,
      idempotent: command.idempotent ?? false,
      timeoutMs: command.timeoutMs ?? commandTimeoutMs,
      handler: compose(handler, { name, payload, result, before: [options.before, command.before], log })
    }
  }

  function register (name: string, command: CommandOptions, handler: unknown): void {
    checkCommand(name, command, handler)
    if (commands.has(name)) throw misused(`The command ${JSON.stringify(name)} is registered already.`)
    const { idempotent = false, timeoutMs = commandTimeoutMs } = command
    const executed = handler as Handler | undefined ?? createCoreHandler?.({ idempotent, timeoutMs })
    if (executed === undefined) {
      throw misused(`The command ${JSON.stringify(name)} has no handler, and there is no core to execute it.`)
    }
    commands.set(name, build(name, command, executed))
  }

  return {
    stats,
    unknown,
    register,

    registerAll (map) {
      for (const [name, definition] of Object.entries(map)) {
        if (typeof definition?.options !== 'object') {
          throw misused(`The command ${JSON.stringify(name)} was not made with defineCommand.`)
        }
      }
      for (const [name, { options, handler }] of Object.entries(map)) register(name, options, handler)
    },

    has: name => commands.has(name),
    find: name => commands.get(name) ?? coreCommand
  }
}

const COMMAND_OPTIONS = ['payload', 'result', 'before', 'serial', 'idempotent', 'timeoutMs']

/** @throws PLUGIN_MISUSED */
function checkCommand (name: string, options: CommandOptions, handler: unknown): void {
  const shown = JSON.stringify(name)
  if (typeof name !== 'string' || name.length < 1 || name.length > 128) {
    throw misused(`A command name has 1 to 128 characters: ${shown}.`)
  }
  if (handler !== undefined && typeof handler !== 'function') {
    throw misused(`The handler of the command ${shown} is not a function.`)
  }
  const { timeoutMs, before, serial, idempotent } = options
  const unknown = Object.keys(options).find(option => !COMMAND_OPTIONS.includes(option))
  if (unknown !== undefined) {
    throw misused(`${unknown} of the command ${shown} is not an option; there are ${COMMAND_OPTIONS.join(', ')}.`)
  }
  if (timeoutMs !== undefined && (!Number.isSafeInteger(timeoutMs) || timeoutMs < 1 || timeoutMs > MAX_TIMEOUT_MS)) {
    throw misused(`timeoutMs of the command ${shown} is not an integer from 1 to ${MAX_TIMEOUT_MS}.`)
  }
  if (before !== undefined && typeof before !== 'function') {
    throw misused(`before of the command ${shown} is not a function.`)
  }
  for (const [option, value] of Object.entries({ serial, idempotent })) {
    if (value !== undefined && typeof value !== 'boolean') {
      throw misused(`${option} of the command ${shown} is not true or false.`)
    }
  }
}

function compile (schema: unknown, what: string): Compiled | null {
  return schema === undefined ? null : compileSchema(schema, what)
}

function validatorOf (schema: Compiled | null): Validator | null {
  return schema?.kind === 'typebox' ? schema.validator : null
}

interface Around {
  name: string
  payload: Compiled | null
  result: Compiled | null
  /** Asked in this order. */
  before: (Before | undefined)[]
  log: Log
}

/**
 * Adds what is asked before a handler and what comes after it; the handler itself where that is
 * nothing.
 */
function compose (handler: Handler, { name, payload, result, before, log }: Around): Handler {
  let composed = handler
  if (result?.kind === 'standard') composed = withResult(composed, result, name, log)
  for (const ask of before.toReversed()) if (ask !== undefined) composed = withBefore(composed, ask)
  if (payload?.kind === 'standard') composed = withPayload(composed, payload)
  return composed
}

function withBefore (handler: Handler, before: Before): Handler {
  return context => then(before(context), () => handler(context))
}

function withPayload (handler: Handler, schema: Compiled): Handler {
  return context => then(verify(schema, context.payload), verified => {
    if ('problem' in verified) {
      throw new HoldfastError('INVALID_PAYLOAD', { message: `The payload does not match: ${verified.problem}.` })
    }
    context.payload = verified.value
    return handler(context)
  })
}

function withResult (handler: Handler, schema: Compiled, name: string, log: Log): Handler {
  const read = (verified: Verified): unknown => {
    if ('value' in verified) return verified.value
    log.error({ command: name, err: new TypeError(verified.problem) }, 'command result failed validation')
    throw new HoldfastError('INVALID_RESULT')
  }
  return context => then(handler(context), value => then(verify(schema, value), read))
}

function misused (message: string): HoldfastError {
  return new HoldfastError('PLUGIN_MISUSED', { message })
}
