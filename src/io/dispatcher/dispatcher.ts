// The door between sessions and the Platform Core, both ways: a command goes through admission to its handler, or to the core behind it, and comes back
// as exactly one output (P-10); `send` goes the other way. Handlers throw, this file maps; nobody else turns failures into answers.
//
// A synchronous handler is answered in the same turn: no promise, no timer, no call record. Only a handler that gives a promise costs a Call,
// whose deadline lies in a timing wheel that `sweep` turns. A throwing, hanging or lying handler harms only its own command.

import type { Validator } from 'typebox/compile'
import { COMMAND_ERROR_CODE, ERRORS, HoldfastError } from '../errors.js'
import { errorOutput, firstProblem, resultOutput } from '../protocol/codec.js'
import { mergePatch } from '../session/context.js'
import type { SessionManager } from '../session/manager.js'
import type { SessionRecord } from '../session/record.js'
import { createTimingWheel, type WheelItem } from '../session/timing-wheel.js'
import type { Clock, JsonValue, Log, Millis, Seq, Target } from '../types.js'
import { admit, type AdmissionLimits, type Verdict } from './admission.js'
import { createSessionCalls, type Call, type SessionCalls } from './calls.js'
import type {
  Before, CommandContext, CommandHandler, CommandMap, CommandOptions, CommandSession, EventMap, EventName, EventPayload
} from './command.js'
import type { CoreMessage, PlatformCore } from './core.js'
import { compileSchema, verify, type Compiled, type Verified } from './validation.js'
import { handleOf } from './session-handle.js'

export interface DispatcherLimits extends AdmissionLimits {
  /** Time limit of a command that declares none (P-19). */
  commandTimeoutMs: Millis
}

export interface DispatcherOptions {
  manager: SessionManager
  clock: Clock
  log: Log
  limits: DispatcherLimits
  /** Runs a callback after the present turn: listeners of aborted signals are the platform's code, and hear when all is final. */
  defer: (callback: () => void) => void
  /** Executes what no handler here answers. */
  core?: PlatformCore
  /** Asked before every command, those of the core included, and before the command's own. */
  before?: Before
  /** Schemas of what is sent; an event without one may have any JSON. */
  events?: EventMap
}

export type CommandOutcome = 'ok' | 'error' | 'invalid' | 'timeout' | 'unknown'

/** Counted per command name that the platform registered; what clients make up is counted under `(unknown)`, the core's under `(core)`. */
export interface CommandStats {
  readonly name: string
  readonly outcomes: Record<CommandOutcome, number>
  /** Answered commands by duration: one counter per bound of DURATION_BOUNDS_MS, and a last one for all above. */
  readonly durations: number[]
  durationSumMs: Millis
}

export const DURATION_BOUNDS_MS = [1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000] as const

export interface Dispatcher {
  readonly limits: DispatcherLimits
  /**
   * Registers a command. `payload` is checked before the handler runs, `result` after it; the
   * handler's types follow from both. Without a handler it declares a command of the core: the
   * options hold there, and a command of the core that is not declared has none.
   *
   * @throws PLUGIN_MISUSED  a name that is taken, empty or longer than 128; a time limit out of its range;
   *                         no handler, and no core that could execute it
   */
  command<const O extends CommandOptions>(name: string, options: O, handler?: CommandHandler<O>): void
  /** Registers every command of a registry made with `defineCommand`. */
  commands(map: CommandMap): void
  hasCommand(name: string): boolean
  /**
   * Sends an output; see `SessionManager.send`.
   *
   * Throws a TypeError for a payload that does not match the schema of the event.
   */
  send<K extends EventName, P>(target: Target, event: K, payload: P & EventPayload<K, P>): { sessions: number, seq: Seq | null }

  // What follows is the gateway's and the process's side.
  /** Takes a command in. Undefined when it was accepted; it has been or will be answered. */
  submit(session: SessionRecord, command: string, payload: unknown, id: number | string | undefined, now: Millis): Verdict | undefined
  /** Answers the commands whose time is over. Returns how many. */
  sweep(): number
  /** From now on every command is refused `DRAINING` (P-48). */
  refuseCommands(): void
  /** Accepted and not yet answered, over all sessions. */
  readonly inFlight: number
  readonly stats: CommandStats[]
  /** Refusals by code. */
  readonly refusals: Record<string, number>
  readonly duplicates: number
}

interface Entry {
  readonly stats: CommandStats
  readonly payload: Validator | null
  readonly result: Validator | null
  readonly serial: boolean
  readonly timeoutMs: Millis
  readonly handler: (context: HandlerContext) => unknown
}

/** The signals of commands: 3 µs each to make on Node 20, so made when a handler looks or a command is aborted. Not in the context, where each command would pay for the field. */
const controllers = new WeakMap<object, AbortController>()

function controllerOf (context: HandlerContext): AbortController {
  let controller = controllers.get(context)
  if (controller === undefined) controllers.set(context, controller = new AbortController())
  return controller
}

/** What a handler is given. */
class HandlerContext implements CommandContext<unknown> {
  readonly command: string
  /** What a schema that transforms made of it, once it was checked. */
  payload: unknown
  readonly session: CommandSession
  readonly id: number | string | undefined

  constructor (command: string, payload: unknown, session: CommandSession, id: number | string | undefined) {
    this.command = command
    this.payload = payload
    this.session = session
    this.id = id
  }

  get signal (): AbortSignal { return controllerOf(this).signal }
}

const MAX_TIMEOUT_MS = 3_600_000

export function createDispatcher (options: DispatcherOptions): Dispatcher {
  const { manager, clock, log, limits, defer, core } = options
  const ports = { manager, send }
  const events = new Map(Object.entries(options.events ?? {}).map(([event, schema]) => {
    return [event, compileSchema(schema, `The schema of the event ${JSON.stringify(event)}`)]
  }))
  const registry = new Map<string, Entry>()
  const stats: CommandStats[] = []
  const refusals: Record<string, number> = {}
  const unknown = createStats('(unknown)')
  // Commands without a number get a key that no other has, so that a core never takes one for a
  // repeat of another.
  let unnumbered = 0
  const coreEntry: Entry | undefined = core === undefined
    ? undefined
    : {
        stats: createStats('(core)'),
        payload: null,
        result: null,
        serial: false,
        timeoutMs: limits.commandTimeoutMs,
        handler: compose('(core)', createCoreHandler(core, false, limits.commandTimeoutMs, () => ++unnumbered), null, null, undefined)
      }
  const deadlines = createTimingWheel<Call>({ deadlineOf: call => call.deadlineAt, tickMs: 100, buckets: 1024, now: clock.now() })
  let inFlight = 0
  let duplicates = 0
  let refusing = false

  function createStats (name: string): CommandStats {
    const created: CommandStats = {
      name,
      outcomes: { ok: 0, error: 0, invalid: 0, timeout: 0, unknown: 0 },
      durations: new Array<number>(DURATION_BOUNDS_MS.length + 1).fill(0),
      durationSumMs: 0
    }
    stats.push(created)
    return created
  }

  function count (entry: Entry, outcome: CommandOutcome, duration: Millis): void {
    const { outcomes, durations } = entry.stats
    outcomes[outcome]++
    entry.stats.durationSumMs += duration
    let bucket = 0
    while (bucket < DURATION_BOUNDS_MS.length && duration > (DURATION_BOUNDS_MS[bucket] as number)) bucket++
    durations[bucket] = (durations[bucket] as number) + 1
  }

  function send (target: Target, event: string, payload: JsonValue): { sessions: number, seq: Seq | null } {
    const schema = events.get(event)
    return manager.send(target, event, schema === undefined ? payload : checkEvent(event, schema, payload))
  }

  /** Adds what is asked before a handler and what comes after it; the handler itself where that is nothing. */
  function compose (
    name: string, handler: Entry['handler'], payload: Compiled | null, result: Compiled | null, before: Before | undefined
  ): Entry['handler'] {
    const asked = [options.before, before].filter(each => each !== undefined)
    let composed = handler
    if (result?.kind === 'standard') composed = withResult(name, composed, result)
    for (const ask of asked.reverse()) composed = withBefore(composed, ask)
    if (payload?.kind === 'standard') composed = withPayload(composed, payload)
    return composed
  }

  function withResult (name: string, handler: Entry['handler'], schema: Compiled): Entry['handler'] {
    const read = (verified: Verified): unknown => {
      if ('value' in verified) return verified.value
      log.error({ command: name, err: new TypeError(verified.problem) }, 'command result failed validation')
      throw new HoldfastError('INVALID_RESULT')
    }
    return context => then(handler(context), value => then(verify(schema, value), read))
  }

  function answerError (session: SessionRecord, id: number | string | undefined, code: string, message: string): void {
    const now = Math.floor(clock.now())
    if (manager.delivery.append(session, errorOutput(id, code, message), now)) return
    // The sentence is the platform's own, and may be longer than what the client takes. The code is what counts.
    manager.delivery.append(session, errorOutput(id, code, ERRORS.RESULT_TOO_LARGE.message), now)
  }

  /** Answers with a value, or with the error that it is none. Counts it. */
  function answer (session: SessionRecord, entry: Entry, id: number | string | undefined, payload: unknown, startedAt: Millis): void {
    const now = clock.now()
    count(entry, answerValue(session, entry, id, payload, Math.floor(now)) ? 'ok' : 'error', now - startedAt)
  }

  function answerValue (session: SessionRecord, entry: Entry, id: number | string | undefined, payload: unknown, now: Millis): boolean {
    let output
    try {
      // A getter of the value may throw in the check as well as in the printing.
      if (entry.result !== null && !entry.result.Check(payload)) throw new TypeError(firstProblem(entry.result.Errors(payload)))
      output = resultOutput(id, payload)
    } catch (error) {
      log.error({ err: error, sid: session.id, command: entry.stats.name }, 'command result is not what it should be')
      answerError(session, id, 'INVALID_RESULT', ERRORS.INVALID_RESULT.message)
      return false
    }
    if (manager.delivery.append(session, output, now)) return true
    answerError(session, id, 'RESULT_TOO_LARGE', ERRORS.RESULT_TOO_LARGE.message)
    return false
  }

  function answerFailure (session: SessionRecord, entry: Entry, id: number | string | undefined, error: unknown, startedAt: Millis): void {
    const shown = readShownError(error)
    if (shown === undefined) log.error({ err: asError(error), sid: session.id, command: entry.stats.name }, 'command handler failed')
    answerError(session, id, shown?.code ?? 'INTERNAL', shown?.message ?? ERRORS.INTERNAL.message)
    count(entry, shown?.code === 'INVALID_PAYLOAD' ? 'invalid' : 'error', clock.now() - startedAt)
  }

  /** Answers a handler that gave a value, or follows one that gave a promise. Undefined when the command is answered. */
  function run (session: SessionRecord, entry: Entry, context: HandlerContext, startedAt: Millis): Promise<unknown> | undefined {
    let outcome: unknown
    try {
      outcome = entry.handler(context)
      if (isThenable(outcome)) return Promise.resolve(outcome)
    } catch (error) {
      answerFailure(session, entry, context.id, error, startedAt)
      return undefined
    }
    answer(session, entry, context.id, outcome, startedAt)
    return undefined
  }

  function abortLater (context: HandlerContext, code: 'COMMAND_TIMEOUT' | 'SESSION_ENDED'): void {
    defer(() => controllerOf(context).abort(new HoldfastError(code)))
  }

  function createCall (session: SessionRecord, calls: SessionCalls, entry: Entry, context: HandlerContext, startedAt: Millis): Call & { follow(outcome: Promise<unknown>): void } {
    function settle (): boolean {
      if (call.settled) return false
      call.settled = true
      deadlines.remove(call)
      inFlight--
      return true
    }
    function finish (): void {
      calls.settled(call)
      if (calls.inFlight === 0 && session.calls === calls) session.calls = null
    }
    const call: WheelItem & Call & { follow(outcome: Promise<unknown>): void } = {
      number: typeof context.id === 'number' ? context.id : 0,
      serial: entry.serial,
      deadlineAt: Math.floor(startedAt) + entry.timeoutMs,
      settled: false,
      wheelNext: null,
      wheelPrevious: null,
      wheelBucket: -1,
      start () {
        const outcome = run(session, entry, context, startedAt)
        if (outcome !== undefined) call.follow(outcome)
        else if (settle()) finish()
      },
      follow (outcome) {
        outcome.then(value => {
          if (!settle()) return
          answer(session, entry, context.id, value, startedAt)
          finish()
        }, error => {
          if (!settle()) return
          answerFailure(session, entry, context.id, error, startedAt)
          finish()
        })
      },
      expire () {
        if (!settle()) return
        abortLater(context, 'COMMAND_TIMEOUT')
        answerError(session, context.id, 'COMMAND_TIMEOUT', ERRORS.COMMAND_TIMEOUT.message)
        count(entry, 'timeout', clock.now() - startedAt)
        finish()
      },
      abandon () {
        if (settle()) abortLater(context, 'SESSION_ENDED')
      }
    }
    inFlight++
    deadlines.file(call)
    return call
  }

  function execute (session: SessionRecord, command: string, payload: unknown, id: number | string | undefined, startedAt: Millis): void {
    const entry = registry.get(command) ?? coreEntry
    if (entry === undefined) {
      unknown.outcomes.unknown++
      answerError(session, id, 'UNKNOWN_COMMAND', `No command is named ${JSON.stringify(command)}.`)
      return
    }
    if (entry.payload !== null && !entry.payload.Check(payload)) {
      entry.stats.outcomes.invalid++
      answerError(session, id, 'INVALID_PAYLOAD', `The payload does not match: ${firstProblem(entry.payload.Errors(payload))}.`)
      return
    }
    const context = new HandlerContext(command, payload, handleOf(session, ports), id)
    if (session.calls === null) {
      const outcome = run(session, entry, context, startedAt)
      if (outcome === undefined) return
      // The handler may have ended its own session before it gave the promise.
      if (session.ended) {
        abortLater(context, 'SESSION_ENDED')
        outcome.catch(() => {})
        return
      }
      const calls = callsOf(session)
      const call = createCall(session, calls, entry, context, startedAt)
      calls.adopt(call)
      call.follow(outcome)
    } else {
      const calls = callsOf(session)
      calls.submit(createCall(session, calls, entry, context, startedAt))
    }
  }

  return {
    limits,
    stats,
    refusals,
    get inFlight () { return inFlight },
    get duplicates () { return duplicates },
    send: send as Dispatcher['send'],

    command (name, commandOptions, handler) {
      checkCommand(name, commandOptions, handler)
      const { timeoutMs = limits.commandTimeoutMs } = commandOptions
      if (registry.has(name)) throw misused(`The command ${JSON.stringify(name)} is registered already.`)
      if (handler === undefined && core === undefined) {
        throw misused(`The command ${JSON.stringify(name)} has no handler, and there is no core to execute it.`)
      }
      const payload = compile(commandOptions.payload, `payload of the command ${JSON.stringify(name)}`)
      const result = compile(commandOptions.result, `result of the command ${JSON.stringify(name)}`)
      registry.set(name, {
        stats: createStats(name),
        payload: payload?.kind === 'typebox' ? payload.validator : null,
        result: result?.kind === 'typebox' ? result.validator : null,
        serial: commandOptions.serial ?? false,
        timeoutMs,
        handler: compose(name, handler === undefined
          ? createCoreHandler(core as PlatformCore, commandOptions.idempotent ?? false, timeoutMs, () => ++unnumbered)
          : handler as unknown as Entry['handler'], payload, result, commandOptions.before)
      })
    },

    commands (map) {
      for (const [name, definition] of Object.entries(map)) {
        if (typeof definition?.options !== 'object') throw misused(`The command ${JSON.stringify(name)} was not made with defineCommand.`)
      }
      for (const [name, { options, handler }] of Object.entries(map)) {
        this.command(name, options, handler as CommandHandler<CommandOptions> | undefined)
      }
    },

    hasCommand: name => registry.has(name),

    submit (session, command, payload, id, now) {
      const verdict = refusing ? DRAINING : admit(session, id, Math.floor(now), limits)
      if (verdict === undefined) {
        execute(session, command, payload ?? null, id, now)
        return undefined
      }
      if (verdict.kind === 'duplicate') duplicates++
      else refusals[verdict.refusal.code] = (refusals[verdict.refusal.code] ?? 0) + 1
      return verdict
    },

    sweep: () => deadlines.sweep(clock.now(), Infinity, call => call.expire()),

    refuseCommands () {
      refusing = true
    }
  }
}

const DRAINING: Verdict = { kind: 'refused', refusal: new HoldfastError('DRAINING'), abusive: false }

const COMMAND_OPTIONS = ['payload', 'result', 'before', 'serial', 'idempotent', 'timeoutMs']

/** @throws PLUGIN_MISUSED */
function checkCommand (name: string, options: CommandOptions, handler: unknown): void {
  const shown = JSON.stringify(name)
  if (typeof name !== 'string' || name.length < 1 || name.length > 128) throw misused(`A command name has 1 to 128 characters: ${shown}.`)
  if (handler !== undefined && typeof handler !== 'function') throw misused(`The handler of the command ${shown} is not a function.`)
  const { timeoutMs, before, serial, idempotent } = options
  const unknown = Object.keys(options).find(option => !COMMAND_OPTIONS.includes(option))
  if (unknown !== undefined) throw misused(`${unknown} of the command ${shown} is not an option; there are ${COMMAND_OPTIONS.join(', ')}.`)
  if (timeoutMs !== undefined && (!Number.isSafeInteger(timeoutMs) || timeoutMs < 1 || timeoutMs > MAX_TIMEOUT_MS)) {
    throw misused(`timeoutMs of the command ${shown} is not an integer from 1 to ${MAX_TIMEOUT_MS}.`)
  }
  if (before !== undefined && typeof before !== 'function') throw misused(`before of the command ${shown} is not a function.`)
  for (const [option, value] of Object.entries({ serial, idempotent })) {
    if (value !== undefined && typeof value !== 'boolean') throw misused(`${option} of the command ${shown} is not true or false.`)
  }
}

function compile (schema: unknown, what: string): Compiled | null {
  return schema === undefined ? null : compileSchema(schema, what)
}

/** Goes on at once with a value, or when its promise settles. */
function then<T, R> (value: T | PromiseLike<T>, next: (value: T) => R): R | Promise<Awaited<R>> {
  return isThenable(value) ? Promise.resolve(value as PromiseLike<T>).then(next) as Promise<Awaited<R>> : next(value as T)
}

function withBefore (handler: Entry['handler'], before: Before): Entry['handler'] {
  return context => then(before(context), () => handler(context))
}

function withPayload (handler: Entry['handler'], schema: Compiled): Entry['handler'] {
  return context => then(verify(schema, context.payload), verified => {
    if ('problem' in verified) {
      throw new HoldfastError('INVALID_PAYLOAD', { message: `The payload does not match: ${verified.problem}.` })
    }
    context.payload = verified.value
    return handler(context)
  })
}

/** The payload as its schema has it. Throws a TypeError, since the fault is the application's. */
function checkEvent (event: string, schema: Compiled, payload: unknown): JsonValue {
  const verified = verify(schema, payload)
  const name = JSON.stringify(event)
  if (isThenable(verified)) throw new TypeError(`the schema of the event ${name} answers with a promise, and sending does not wait`)
  if ('problem' in verified) throw new TypeError(`the payload of the event ${name} does not match: ${verified.problem}`)
  return verified.value as JsonValue
}

function misused (message: string): HoldfastError {
  return new HoldfastError('PLUGIN_MISUSED', { message })
}

function isThenable (value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
}

function callsOf (session: SessionRecord): SessionCalls {
  return (session.calls ??= createSessionCalls()) as SessionCalls
}

/** For the log: the error itself, unless it is none or breaks when it is looked at. */
function asError (error: unknown): Error {
  try {
    if (error instanceof Error) return error
  } catch {}
  return new TypeError('the handler threw something that is no error')
}

/** Code and sentence of an error that its thrower meant to be seen; undefined for every other, and for what throws when it is looked at. */
function readShownError (error: unknown): { code: string, message: string } | undefined {
  if (typeof error !== 'object' || error === null) return undefined
  try {
    if (error instanceof HoldfastError) return { code: error.code, message: error.message }
    const { code, expose, message } = error as { code?: unknown, expose?: unknown, message?: unknown }
    if (expose !== true || typeof code !== 'string' || !COMMAND_ERROR_CODE.test(code)) return undefined
    return { code, message: String(message).slice(0, 1024) }
  } catch {
    return undefined
  }
}

/**
 * Has the core execute commands, and applies its answer. `number` gives one that no command had
 * before.
 */
function createCoreHandler (
  core: PlatformCore, idempotent: boolean, timeoutMs: Millis, number: () => number
): Entry['handler'] {
  return async ({ session, id, command, payload, signal }) => {
    const { userId, createdAt, lastActivityAt, labels, context } = session
    const answer = await core.execute({
      key: `${session.id}.${session.epoch}.${typeof id === 'number' ? id : `u${number()}`}`,
      session: { id: session.id, userId, createdAt, lastActivityAt, labels, context },
      id: id ?? null,
      command,
      payload: payload as JsonValue,
      timeoutMs,
      idempotent,
      signal
    })
    // Answered COMMAND_TIMEOUT by now, or the session is gone: what comes late has no effect (P-19).
    signal.throwIfAborted()
    const patch = answer.context
    if (patch !== undefined) session.updateContext(current => mergePatch(current, patch))
    for (const message of answer.messages) sendFromCore(session, message)
    return answer.payload
  }
}

/** @throws RESULT_TOO_LARGE  for the client the messages are part of the answer */
function sendFromCore (session: CommandSession, { event, payload }: CoreMessage): void {
  try {
    session.send(event, payload)
  } catch (error) {
    const isTooLarge = error instanceof HoldfastError && error.code === 'PAYLOAD_TOO_LARGE'
    throw isTooLarge ? new HoldfastError('RESULT_TOO_LARGE', { cause: error }) : error
  }
}
