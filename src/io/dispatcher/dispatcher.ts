// The door between sessions and the Platform Core, both ways: a command goes through admission to
// its execution and comes back as exactly one output (P-10); `send` goes the other way.

import { HoldfastError } from '../errors.js'
import { isThenable } from '../maybe-promise.js'
import type { SessionRecord } from '../session/record.js'
import type { Clock, JsonValue, Log, Millis, SendOptions, Seq, Target } from '../types.js'
import { admit, type AdmissionLimits, type Verdict } from './admission.js'
import { createAnswers, type CommandId } from './answers.js'
import type {
  Before, CommandHandler, CommandMap, CommandOptions, EventMap, EventName, EventPayload
} from './command.js'
import type { PlatformCore } from './core.js'
import { createExecution } from './execution.js'
import { createRegistry } from './registry.js'
import type { CommandSessions } from './session-handle.js'
import type { CommandStats } from './stats.js'
import { compileSchema, verify, type Compiled } from './validation.js'

export interface DispatcherLimits extends AdmissionLimits {
  /** Time limit of a command that declares none (P-19). */
  commandTimeoutMs: Millis
}

export interface DispatcherOptions {
  sessions: CommandSessions
  /** Sends to sessions wherever they are, and resolves when it is kept. */
  deliver: Deliver
  clock: Clock
  log: Log
  limits: DispatcherLimits
  /** Runs a callback after the present turn. */
  defer: (callback: () => void) => void
  /** Executes what no handler here answers. */
  core?: PlatformCore
  /** Asked before every command, those of the core included, and before the command's own. */
  before?: Before
  /** Schemas of what is sent; an event without one may have any JSON. */
  events?: EventMap
}

export interface Sent { sessions: number, seq: Seq | null }

export type Deliver = (target: Target, event: string, payload: JsonValue, options?: SendOptions) => Promise<Sent>

export interface Dispatcher {
  readonly limits: DispatcherLimits
  /**
   * Registers a command. `payload` is checked before the handler runs, `result` after it; the
   * handler's types follow from both. Without a handler it declares a command of the core: the
   * options hold there, and a command of the core that is not declared has none.
   *
   * @throws PLUGIN_MISUSED  a name that is taken, empty or longer than 128; a time limit out of its
   *                         range; no handler, and no core that could execute it
   */
  command<const O extends CommandOptions>(name: string, options: O, handler?: CommandHandler<O>): void
  /** Registers every command of a registry made with `defineCommand`. */
  commands(map: CommandMap): void
  hasCommand(name: string): boolean
  /**
   * Sends an output at once, to sessions of this node alone; see `SessionManager.send`. Of several
   * nodes the others are reached by `deliver`.
   *
   * Throws a TypeError for a payload that does not match the schema of the event.
   */
  send<K extends EventName, P>(
    target: Target, event: K, payload: P & EventPayload<K, P>, options?: SendOptions
  ): Sent
  /**
   * Sends an output to sessions on whichever node they are, those without a connection included.
   * Resolves when it is kept; the seq is null where another node numbers it. With one node it is
   * `send` that waits for the store.
   *
   * Rejects with SESSION_NOT_FOUND and SESSION_ENDED for an unknown sessionId, PAYLOAD_TOO_LARGE,
   * STORE_UNAVAILABLE where it is not kept so far and may arrive all the same when the store is
   * back, and with a TypeError for a payload that does not match the schema of the event.
   */
  deliver<K extends EventName, P>(
    target: Target, event: K, payload: P & EventPayload<K, P>, options?: SendOptions
  ): Promise<Sent>

  // What follows is the gateway's and the process's side.
  /** Takes a command in. Undefined when it was accepted; it has been or will be answered. */
  submit(session: SessionRecord, command: string, payload: unknown, id: CommandId, now: Millis): Verdict | undefined
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

export function createDispatcher (options: DispatcherOptions): Dispatcher {
  const { sessions, clock, log, limits, defer, core, before } = options
  const registry = createRegistry({ log, commandTimeoutMs: limits.commandTimeoutMs, core, before })
  const answers = createAnswers({ delivery: sessions.delivery, clock, log })
  const execution = createExecution({
    registry, answers, clock, defer, committer: sessions.committer, handles: { sessions, send }
  })
  const events = compileEvents(options.events ?? {})
  const refusals: Record<string, number> = {}
  let duplicates = 0
  let refusing = false

  function checked (event: string, payload: JsonValue): JsonValue {
    const schema = events.get(event)
    return schema === undefined ? payload : checkEvent(event, schema, payload)
  }

  function send (target: Target, event: string, payload: JsonValue, options?: SendOptions): Sent {
    return sessions.send(target, event, checked(event, payload), options)
  }

  const deliver: Deliver = async (target, event, payload, given) => {
    return await options.deliver(target, event, checked(event, payload), given)
  }

  return {
    limits,
    stats: registry.stats,
    refusals,
    get inFlight () { return execution.inFlight },
    get duplicates () { return duplicates },
    command: registry.register,
    commands: registry.registerAll,
    hasCommand: registry.has,
    send: send as Dispatcher['send'],
    deliver: deliver as Dispatcher['deliver'],

    submit (session, command, payload, id, now) {
      const verdict = refusing
        ? DRAINING
        : !sessions.committer.isAvailable ? STORE_AWAY : admit(session, id, Math.floor(now), limits)
      if (verdict === undefined) {
        execution.execute(session, command, payload ?? null, id, now)
        return undefined
      }
      if (verdict.kind === 'duplicate') duplicates++
      else refusals[verdict.refusal.code] = (refusals[verdict.refusal.code] ?? 0) + 1
      return verdict
    },

    sweep: execution.sweep,

    refuseCommands () {
      refusing = true
    }
  }
}

/** Not accepted, since neither that it was nor its answer could be kept (P-16). */
const STORE_AWAY: Verdict = {
  kind: 'refused', refusal: new HoldfastError('STORE_UNAVAILABLE', { retryAfterMs: 1000 }), abusive: false
}
const DRAINING: Verdict = { kind: 'refused', refusal: new HoldfastError('DRAINING'), abusive: false }

function compileEvents (events: EventMap): Map<string, Compiled> {
  return new Map(Object.entries(events).map(([event, schema]) => {
    return [event, compileSchema(schema, `The schema of the event ${JSON.stringify(event)}`)]
  }))
}

/** The payload as its schema has it. Throws a TypeError, since the fault is the application's. */
function checkEvent (event: string, schema: Compiled, payload: unknown): JsonValue {
  const verified = verify(schema, payload)
  const name = JSON.stringify(event)
  if (isThenable(verified)) {
    throw new TypeError(`the schema of the event ${name} answers with a promise, and sending does not wait`)
  }
  if ('problem' in verified) throw new TypeError(`the payload of the event ${name} does not match: ${verified.problem}`)
  return verified.value as JsonValue
}
