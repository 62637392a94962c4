// The session as command handlers see it: live values, and the only way to change the context. A
// private class, not a closure per session: the accessors live once on the prototype, and a session
// that sends commands costs three words more.

import type { Committer } from '../session/committer.js'
import type { Delivery } from '../session/delivery.js'
import type { SessionManager } from '../session/manager.js'
import type { SessionRecord } from '../session/record.js'
import type { JsonObject, JsonValue, Millis, SendOptions } from '../types.js'
import type { CommandSession } from './command.js'

/** What commands need of sessions. */
export interface CommandSessions {
  readonly delivery: Delivery
  readonly committer: Committer
  readonly send: SessionManager['send']
  /** @throws SESSION_ENDED, CONTEXT_TOO_LARGE */
  changeContext(session: SessionRecord, change: (context: JsonObject) => JsonObject): JsonObject
  toWall(monotonic: Millis): Millis
}

export interface HandlePorts {
  sessions: CommandSessions
  /** The dispatcher's, which checks the payloads of events. */
  send: SessionManager['send']
}

class SessionHandle implements CommandSession {
  readonly #session: SessionRecord
  readonly #ports: HandlePorts

  constructor (session: SessionRecord, ports: HandlePorts) {
    this.#session = session
    this.#ports = ports
  }

  get id (): string { return this.#session.id }
  get userId (): string { return this.#session.userId }
  get generation (): string { return this.#session.generation }
  get createdAt (): Millis { return this.#session.createdAt }
  get lastActivityAt (): Millis { return this.#ports.sessions.toWall(this.#session.lastActiveAt) }
  get labels (): JsonObject { return this.#session.labels }
  get context (): JsonObject { return this.#session.context }

  updateContext (change: (context: JsonObject) => JsonObject): JsonObject {
    return this.#ports.sessions.changeContext(this.#session, change)
  }

  send (event: string, payload: unknown, options?: SendOptions): number {
    return this.#ports.send({ sessionId: this.#session.id }, event, payload as JsonValue, options).seq ?? 0
  }
}

/** The handle of a session, the same one each time. */
export function handleOf (session: SessionRecord, ports: HandlePorts): CommandSession {
  return (session.handle ??= new SessionHandle(session, ports)) as CommandSession
}
