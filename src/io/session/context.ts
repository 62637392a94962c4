// What a platform keeps with a session: its context, which commands change, and its labels, which
// the credentials of the latest handshake say. Both are plain JSON, bounded, and frozen.
//
// Printed and read again on the way in: what the caller still holds cannot change it behind the
// store's back, and what is kept is what a store would give back.

import { HoldfastError } from '../errors.js'
import { hasMoreMembers, printJson } from '../json.js'
import type { JsonObject, JsonValue } from '../types.js'

export const NOTHING: JsonObject = Object.freeze({})
export const EMPTY: KeptContext = { context: NOTHING, bytes: 2 }
/**
 * They are read with every command and shown in every listing: roles and a tenant, not documents.
 */
export const MAX_LABELS_BYTES = 4096

/**
 * Members, arrays and objects of a context. It is printed, read again and frozen in one turn, so it
 * has half of what a text may have that is only read.
 */
export const MAX_CONTEXT_MEMBERS = 16_384

/** A context with what it takes as JSON. */
export interface KeptContext { readonly context: JsonObject, readonly bytes: number }

/**
 * A context as it is kept.
 *
 * @throws CONTEXT_TOO_LARGE  and TypeError for what is not a plain object of JSON
 */
export function readContext (value: unknown, maxBytes: number): KeptContext {
  if (hasMoreMembers(value, MAX_CONTEXT_MEMBERS)) {
    throw new HoldfastError('CONTEXT_TOO_LARGE', {
      message: `The session context would have more than ${MAX_CONTEXT_MEMBERS} members, arrays and objects.`
    })
  }
  return readObject(value, 'a session context', maxBytes, () => new HoldfastError('CONTEXT_TOO_LARGE', {
    message: `The session context would exceed ${maxBytes} bytes.`
  }))
}

/** Labels as they are kept. Throws a TypeError for what cannot be. */
export function readLabels (value: unknown): JsonObject {
  return readObject(value, 'labels', MAX_LABELS_BYTES, () => new TypeError(
    `labels have at most ${MAX_LABELS_BYTES} bytes`
  )).context
}

function readObject (value: unknown, what: string, maxBytes: number, tooLarge: () => Error): KeptContext {
  const text = printJson(value)
  if (text[0] !== '{') throw new TypeError(`${what}: not a plain object of JSON`)
  if (text === '{}') return EMPTY
  const bytes = Buffer.byteLength(text)
  if (bytes > maxBytes) throw tooLarge()
  return { context: freeze(JSON.parse(text) as JsonObject), bytes }
}

function freeze<T extends JsonObject | readonly JsonValue[]> (value: T): T {
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) freezeMember(value[i])
  } else {
    // Written out, since a list of the members would cost more than freezing them.
    for (const name in value) freezeMember((value as JsonObject)[name])
  }
  return Object.freeze(value)
}

function freezeMember (member: JsonValue | undefined): void {
  if (typeof member === 'object' && member !== null) freeze(member)
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
