// What a user id and a session id may be. Every way in asks here: tokens and applications
// (src/auth), handshakes, and the paths and queries of the REST API. An id is taken as it is or
// refused; it is never changed, since two ids that become one would give one person the sessions of
// another.
//
// A user id ends up in URLs, in terminals and on pages, so it must be what it looks like in all
// three. Letters that merely look alike (Latin a, Cyrillic а) are not told apart here: that is for
// whoever gives ids out.

import type { SessionId, UserId } from '../types.js'

/**
 * UTF-16 code units, which JavaScript counts; the longest id is 1,152 characters of a
 * percent-encoded path.
 */
export const MAX_USER_ID = 128

/**
 * Controls, formats (direction overrides, zero-width marks), surrogate halves, private and
 * unassigned code points; line and paragraph separators; and what is drawn as nothing. Unassigned
 * ones are refused so that a newer Unicode only ever adds ids.
 */
const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/u
/** Spaces other than U+0020 look like it. */
const FOREIGN_SPACE = /[^\P{Zs} ]/u
const OUTER_SPACE = /^ | $/
/**
 * Every URL client removes such a segment, also percent-encoded; proxies do so after they decoded
 * the path, and then `/` and `\` count as well.
 */
const DOT_SEGMENT = /(?:^|[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:$|[/\\]|%2f|%5c)/i

/** Most ids; nothing that is looked for below can be in one. */
const PLAIN = /^[A-Za-z0-9_@-]+$/

/** Why a value cannot be a user id, to be read after its name; undefined if it can. */
export function userIdProblem (value: unknown): string | undefined {
  if (typeof value !== 'string') return 'is not a text'
  if (value === '') return 'is empty'
  if (value.length > MAX_USER_ID) return `is longer than ${MAX_USER_ID} characters`
  if (PLAIN.test(value)) return undefined
  if (INVISIBLE.test(value)) return 'has a character that cannot be seen'
  if (FOREIGN_SPACE.test(value)) return 'has a space other than U+0020'
  if (OUTER_SPACE.test(value)) return 'begins or ends with a space'
  if (DOT_SEGMENT.test(value)) return 'has a path segment of dots, which URL clients remove'
  if (value.normalize('NFC') !== value) return 'is not in Unicode normalization form C'
  return undefined
}

export function isUserId (value: unknown): value is UserId {
  return userIdProblem(value) === undefined
}

/**
 * No dot, which separates the members of a `resume` entry (P-27), and nothing that a URL, a log or
 * a shell gives a meaning.
 */
const SESSION_ID = /^[A-Za-z0-9_-]{1,64}$/

export function isSessionId (value: string): value is SessionId {
  return SESSION_ID.test(value)
}
