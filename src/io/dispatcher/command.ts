// What a command is: its schemas, its policy and its handler, and the types that flow from there to
// the client (`connect<typeof commands>(url)`). Types and one identity function; execution.ts
// executes.

import type {
  JsonCompatible, Jsonify, JsonObject, JsonValue, MaybePromise, Millis, Sendable, SendOptions, SessionId, UserId
} from '../types.js'
import type { InputOf, OutputOf, Schema, WireOf } from './schema.js'

/**
 * What an application declares once, for the types of what is sent:
 *
 *     declare module 'holdfast' { interface Register { events: typeof events } }
 */
export interface Register {}

export type EventMap = Record<string, Schema>
/** The events of the application, as declared; without a declaration any name with any JSON. */
export type RegisteredEvents = Register extends { events: infer E extends EventMap } ? E : EventMap
export type EventName = keyof RegisteredEvents & string
/** What may be sent as the payload of an event: by its schema, else any JSON. */
export type EventPayload<K extends string, P> =
  string extends EventName
    ? JsonCompatible<P>
    : K extends keyof RegisteredEvents ? Sendable<InputOf<RegisteredEvents[K]>> : never

/**
 * Names the outputs of an application, for `events` of the dispatcher, which checks what is sent,
 * and for the client's `connect<typeof commands, typeof events>`.
 */
export function defineEvents<const E extends EventMap> (events: E): E {
  return events
}

/** The session as a handler sees it: live, where `Session` is a snapshot. */
export interface CommandSession {
  readonly id: SessionId
  readonly userId: UserId
  /**
   * Continuity of the session's numbering; part of idempotency keys, since ids start
   * anew in another one.
   */
  readonly generation: string
  readonly createdAt: Millis
  readonly lastActivityAt: Millis
  /** What the credentials of the latest handshake say of the user, such as roles. Frozen. */
  readonly labels: JsonObject
  /** The context as it is now. Frozen: change it through `updateContext`. */
  readonly context: JsonObject
  /**
   * Replaces the context by what `change` makes of the current one. Read and write are one step, so
   * concurrent commands lose no update.
   *
   * @throws CONTEXT_TOO_LARGE  the context stays as it was
   */
  updateContext(change: (context: JsonObject) => JsonObject): JsonObject
  /**
   * Sends an output to this session; returns its seq.
   *
   * Throws a TypeError for a payload that does not match the schema of the event.
   */
  send<K extends EventName, P>(event: K, payload: P & EventPayload<K, P>, options?: SendOptions): number
}

export interface CommandContext<P> {
  /** Its name. */
  readonly command: string
  readonly payload: P
  readonly session: CommandSession
  /** The id the client gave: a number, a string, or undefined. */
  readonly id: number | string | undefined
  /** Aborted when the command times out or its session ends. Made when first read. */
  readonly signal: AbortSignal
}

/**
 * Decides whether a command may run, by its session's user and labels, its name and its payload. To
 * refuse, throw: `commandError('NOT_ALLOWED', 'Only a chief may.')` is answered with exactly that.
 */
export type Before = (context: CommandContext<unknown>) => MaybePromise<void>

export interface CommandOptions {
  /** Checked before the handler runs; without it any JSON is taken. */
  payload?: Schema
  /** Checked after it; without it any JSON is sent. */
  result?: Schema
  /**
   * May this be done? Asked after the payload was checked; a throw is the answer, as of a handler.
   */
  before?: Before
  /** Waits for the commands before it and holds back those after it (P-18). Default false. */
  serial?: boolean
  /**
   * It may be executed again. A command of the core: what may have been executed is sent to the
   * core again, which recognises a repeat by its key (docs/core.md). With a store that survives the
   * process: it is executed at once, without being recorded first, and again if the server died
   * before its answer was kept; any other is answered OUTCOME_UNKNOWN then. Default false.
   */
  idempotent?: boolean
  /** 1 to 3,600,000 ms; default HOLDFAST_COMMAND_TIMEOUT_SECONDS. */
  timeoutMs?: Millis
}

type PayloadOfOptions<O> = O extends { payload: infer S extends Schema } ? OutputOf<S> : JsonValue
type ResultOfOptions<O> = O extends { result: infer S extends Schema } ? InputOf<S> : unknown

export type CommandHandler<O extends CommandOptions, R = ResultOfOptions<O>> =
  (context: CommandContext<PayloadOfOptions<O>>) => R | Promise<R>

export interface CommandDefinition<O extends CommandOptions = CommandOptions, R = unknown> {
  readonly options: O
  readonly handler: (context: CommandContext<PayloadOfOptions<O>>) => R | Promise<R>
}

/** A command that the Platform Core executes; its types are those of its schemas. */
export interface CoreCommandDefinition<O extends CommandOptions = CommandOptions> {
  readonly options: O
  readonly handler?: undefined
}

// A registry holds commands of many payloads; a handler takes only its own, so the element type is
// the one no caller can call.
export type CommandMap = Record<string, {
  readonly options: CommandOptions
  readonly handler?: ((context: never) => unknown) | undefined
}>

/**
 * Types a command on its own, for a registry that the client's types are taken from. Without a
 * handler it is one that the Platform Core executes.
 */
export function defineCommand<const O extends CommandOptions> (options: O): CoreCommandDefinition<O>
export function defineCommand<const O extends CommandOptions, R extends ResultOfOptions<O>> (
  options: O, handler: (context: CommandContext<PayloadOfOptions<O>>) => R | Promise<R>
): CommandDefinition<O, R>
export function defineCommand (options: CommandOptions, handler?: CommandDefinition['handler']): object {
  return handler === undefined ? { options } : { options, handler }
}

/** What a client sends with a command of a registry. */
export type PayloadOf<C> = C extends { options: infer O }
  ? O extends { payload: infer S extends Schema } ? InputOf<S> : JsonValue
  : JsonValue
/** What a client gets: by the result schema, else what JSON makes of what the handler returns. */
export type ResultOf<C> = C extends { options: { result: infer S extends Schema } }
  ? WireOf<S>
  : C extends { handler: (...args: never[]) => infer R } ? Jsonify<Awaited<R>> : JsonValue
