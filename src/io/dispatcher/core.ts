// The port to a Platform Core: the code that executes commands which no handler in this process
// answers, and that may want to hear of the life of sessions. The dispatcher calls `execute` once
// per accepted command and owns its time limit; `notify` may come at any time; `close` comes last.
// A core decides nothing about numbering, acks or sessions, and never sees a connection. Types
// only: a driver such as src/cores/http.ts is handed in by the composition root.

import type { JsonObject, JsonValue, LifecycleEvent, Millis, Session } from '../types.js'

export interface CoreSession extends Session {
  /** What the credentials of the latest handshake say of the user, such as roles. */
  readonly labels: JsonObject
}

/** One accepted command on its way to the core. */
export interface CoreRequest {
  /**
   * Idempotency key: 1–256 printable ASCII characters without space, the same in every repeat of
   * this command and in no other command. For a numbered command `sessionId.epoch.id`. For a
   * command without a number (P-14) the last part is unique too, since a core that remembers keys
   * would otherwise answer one such command with the result of another.
   */
  key: string
  /** A snapshot; `context` is what the session held when the command started. */
  session: CoreSession
  /** As the client gave it; null if it gave none. */
  id: number | string | null
  /** 1–128 characters, chosen by the client. */
  command: string
  payload: JsonValue
  /** All the time there is for this command, attempts and pauses together; above 0. */
  timeoutMs: Millis
  /**
   * Declared with the command: the core recognises a repeat by its key, so an attempt that may have
   * been executed may be repeated. Otherwise it never is.
   */
  idempotent: boolean
  /**
   * Aborted when the command timed out or its session ended; nobody waits for the answer any more
   * (P-19).
   */
  signal: AbortSignal
}

/** An output that the core sends to the command's session beside the answer. */
export interface CoreMessage {
  /** 1–128 characters. */
  event: string
  payload: JsonValue
  /** It need not wait until it is kept (P-55). */
  behind?: boolean
}

export interface CoreAnswer {
  /** Payload of the `result`; null if the core gave none. */
  payload: JsonValue
  /**
   * RFC 7396 merge patch of the session's context: members replace, null removes, absent members
   * stay, so that concurrent commands lose no update of each other. Its size is checked by the
   * caller (CONTEXT_TOO_LARGE).
   */
  context?: JsonObject
  /** Sent before the `result`, in this order; empty if there are none. */
  messages: CoreMessage[]
}

export interface PlatformCore {
  /**
   * Has the command executed and returns its answer.
   *
   * After `signal` was aborted the promise rejects at once with the signal's reason, whatever the
   * core is doing.
   *
   * @throws (the core's own code)  an error of `commandError`: the core refused the command and
   *                                says why (P-15)
   * @throws CORE_REFUSED      the core refused the command without saying why in a form that can be
   *                           passed on
   * @throws CORE_UNAVAILABLE  it surely was not executed: unreachable or overloaded as long as
   *                           there was time
   * @throws OUTCOME_UNKNOWN   it may have been executed, and no answer will come; the sentence says
   *                           what is known
   * @throws INVALID_RESULT    it was executed, and the core answered with something that is not a
   *                           CoreAnswer
   * @throws RESULT_TOO_LARGE  it was executed, and the answer is larger than an outbox can hold
   */
  execute(request: CoreRequest): Promise<CoreAnswer>
  /**
   * Tells the core about a session, if it asked for this type of event. Never throws, never waits;
   * delivery is best effort.
   */
  notify(event: LifecycleEvent): void
  /**
   * Delivers what is still to be told for a short while, then gives every resource back. Later
   * `execute` calls reject CORE_UNAVAILABLE.
   */
  close(): Promise<void>
}
