// What a platform keeps with a session: its context, which commands change, and its labels, which the
// credentials of the latest handshake say. Both are plain JSON, bounded, and frozen.
//
// Printed and read again on the way in: what the caller still holds cannot change it behind the
// store's back, and what is kept is what a store would give back.

import { HoldfastError } from '../errors.js'
import { printJson } from '../json.js'
import type { JsonObject, JsonValue } from '../types.js'

export const NOTHING: JsonObject = Object.freeze({})
/** They are read with every command and shown in every listing: roles and a tenant, not documents. */
export const MAX_LABELS_BYTES = 4096

/**
 * A context as it is kept.
 *
 * @throws CONTEXT_TOO_LARGE  and TypeError for what is not a plain object of JSON
 */
export function readContext (value: unknown, maxBytes: number): JsonObject {
  return readObject(value, 'a session context', maxBytes, () => new HoldfastError('CONTEXT_TOO_LARGE', {
    message: `The session context would exceed ${maxBytes} bytes.`
  }))
}

/** Labels as they are kept. Throws a TypeError for what cannot be. */
export function readLabels (value: unknown): JsonObject {
  return readObject(value, 'labels', MAX_LABELS_BYTES, () => new TypeError(`labels have at most ${MAX_LABELS_BYTES} bytes`))
}

function readObject (value: unknown, what: string, maxBytes: number, tooLarge: () => Error): JsonObject {
  const text = printJson(value)
  if (text[0] !== '{') throw new TypeError(`${what}: not a plain object of JSON`)
  if (text === '{}') return NOTHING
  if (Buffer.byteLength(text) > maxBytes) throw tooLarge()
  return freeze(JSON.parse(text) as JsonObject)
}

function freeze<T extends JsonValue> (value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const member of Object.values(value)) freeze(member)
    Object.freeze(value)
  }
  return value
}

/**
 * RFC 7396: members of `patch` replace those of `context`, null removes. Two commands that change
 * different members lose nothing, which is why a core that answers later, from a context it read
 * earlier, sends a patch and not a whole.
 */
export function mergePatch (context: JsonObject, patch: JsonObject): JsonObject {
  const merged: JsonObject = { ...context }
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key]
    else if (typeof value === 'object' && !Array.isArray(value)) {
      const present = merged[key]
      const isObject = typeof present === 'object' && present !== null && !Array.isArray(present)
      merged[key] = mergePatch(isObject ? present : NOTHING, value)
    } else merged[key] = value
  }
  return merged
}
