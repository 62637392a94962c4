// What a command is: its schemas, its policy and its handler, and the types that flow from there to the client
// (`connect<typeof commands>(url)`). Types and one identity function; execution is dispatcher.ts.

import type { Static, TSchema } from 'typebox'
import type { JsonObject, JsonValue, Millis, SessionId, UserId } from '../types.js'

/** The session as a handler sees it: live, where `Session` is a snapshot. */
export interface CommandSession {
  readonly id: SessionId
  readonly userId: UserId
  /** Identity of this life of the session's numbering; part of idempotency keys, since ids start anew in another one. */
  readonly epoch: string
  readonly createdAt: Millis
  readonly lastActivityAt: Millis
  /** The context as it is now. Frozen: change it through `updateContext`. */
  readonly context: JsonObject
  /**
   * Replaces the context by what `change` makes of the current one. Read and write are one step, so concurrent commands lose no update.
   *
   * @throws CONTEXT_TOO_LARGE  the context stays as it was
   */
  updateContext(change: (context: JsonObject) => JsonObject): JsonObject
  /** Sends an output to this session; returns its seq. */
  send(event: string, payload: JsonValue): number
}

export interface CommandContext<P> {
  readonly payload: P
  readonly session: CommandSession
  /** The id the client gave: a number, a string, or undefined. */
  readonly id: number | string | undefined
  /** Aborted when the command times out or its session ends. Made when first read. */
  readonly signal: AbortSignal
}

export interface CommandOptions {
  /** Checked before the handler runs; without it any JSON is taken. */
  payload?: TSchema
  /** Checked after it; without it any JSON is sent. */
  result?: TSchema
  /** Waits for the commands before it and holds back those after it (P-18). Default false. */
  serial?: boolean
  /**
   * For a command of the core: it recognises a repeat by its key, so what may have been executed
   * may be sent to it again (docs/core.md). Default false. A handler of this process is never
   * called twice.
   */
  idempotent?: boolean
  /** 1 to 3,600,000 ms; default HOLDFAST_COMMAND_TIMEOUT_SECONDS. */
  timeoutMs?: Millis
}

type PayloadOfOptions<O> = O extends { payload: infer S extends TSchema } ? Static<S> : JsonValue
type ResultOfOptions<O> = O extends { result: infer S extends TSchema } ? Static<S> : unknown

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

// A registry holds commands of many payloads; a handler takes only its own, so the element type is the one no caller can call.
export type CommandMap = Record<string, {
  readonly options: CommandOptions
  readonly handler?: ((context: never) => unknown) | undefined
}>
export type EventMap = Record<string, TSchema>

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

/** Payload type of a command in a registry. */
export type PayloadOf<C> = C extends { options: infer O } ? PayloadOfOptions<O> : JsonValue
/** Result type of a command in a registry: its result schema, else what its handler returns. */
export type ResultOf<C> = C extends { options: { result: infer S extends TSchema } }
  ? Static<S>
  : C extends { handler: (...args: never[]) => infer R } ? Awaited<R> : JsonValue
