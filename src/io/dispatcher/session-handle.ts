// The session as command handlers see it: live values, and the only way to change the context. A private class, not a closure per session: the
// accessors live once on the prototype, and a session that sends commands costs three words more.

import { HoldfastError } from '../errors.js'
import { printJson } from '../json.js'
import type { SessionManager } from '../session/manager.js'
import type { SessionRecord } from '../session/record.js'
import type { JsonObject, JsonValue, Millis } from '../types.js'
import type { CommandSession } from './command.js'

export interface HandlePorts {
  manager: SessionManager
  maxContextBytes: number
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
  get epoch (): string { return this.#session.epoch }
  get createdAt (): Millis { return this.#session.createdAt }
  get lastActivityAt (): Millis { return this.#ports.manager.snapshot(this.#session).lastActivityAt }
  get context (): JsonObject { return this.#session.context }

  updateContext (change: (context: JsonObject) => JsonObject): JsonObject {
    const text = printJson(change(this.#session.context))
    if (text[0] !== '{') throw new TypeError('a session context is a plain object')
    if (Buffer.byteLength(text) > this.#ports.maxContextBytes) {
      throw new HoldfastError('CONTEXT_TOO_LARGE', { message: `The session context would exceed ${this.#ports.maxContextBytes} bytes.` })
    }
    // Printed and read again: what the caller still holds cannot change the context behind the store's back.
    const context = freeze(JSON.parse(text) as JsonObject)
    this.#ports.manager.setContext(this.#session, context)
    return context
  }

  send (event: string, payload: JsonValue): number {
    return this.#ports.manager.send({ sessionId: this.#session.id }, event, payload).seq ?? 0
  }
}

/** The handle of a session, the same one each time. */
export function handleOf (session: SessionRecord, ports: HandlePorts): CommandSession {
  return (session.handle ??= new SessionHandle(session, ports)) as CommandSession
}

function freeze<T extends JsonValue> (value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const member of Object.values(value)) freeze(member)
    Object.freeze(value)
  }
  return value
}

/**
 * RFC 7396: members of `patch` replace those of `context`, null removes. Two commands that change different members lose nothing, which is why a
 * core that answers later, from a context it read earlier, sends a patch and not a whole.
 */
export function mergePatch (context: JsonObject, patch: JsonObject): JsonObject {
  const merged: JsonObject = { ...context }
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key]
    else if (typeof value === 'object' && !Array.isArray(value)) {
      const present = merged[key]
      merged[key] = mergePatch(typeof present === 'object' && present !== null && !Array.isArray(present) ? present : {}, value)
    } else merged[key] = value
  }
  return merged
}
