// What a command is on the wire: the frame that carries it, and what the frame that answers it
// says.

import { MAX_NAME_LENGTH, MAX_PAYLOAD_DEPTH } from './bounds.js'
import { CommandError } from './api.js'

export interface AnswerFrame { readonly type?: string, readonly code?: string, readonly payload?: unknown }

/** How a command ended. */
export interface Outcome { readonly error?: CommandError, readonly payload?: unknown }

/** Keys that P-6 forbids would make the frame malformed. */
function isSendable (value: unknown, depth: number): boolean {
  if (typeof value !== 'object' || value === null) return true
  return depth > 0 && Object.entries(value).every(([key, member]) => key !== '__proto__' &&
    !(key === 'constructor' && Object.hasOwn(Object(member), 'prototype')) && isSendable(member, depth - 1))
}

/** What JSON would change without a word is refused: NaN becomes null, and a function nothing. */
function checked (_key: string, value: unknown): unknown {
  const isLost = typeof value === 'function' || typeof value === 'symbol' ||
    (typeof value === 'number' && !Number.isFinite(value))
  if (isLost) throw new TypeError(`${String(value)} is not JSON.`)
  return value
}

/**
 * The frame up to its id. What is judged is the text that is sent, and not the object behind it,
 * whose `toJSON` and getters may say something else each time they are asked.
 *
 * Throws what the payload throws, or a TypeError.
 */
export function bodyOf (command: unknown, payload: unknown): string {
  const text = JSON.stringify({ command, payload }, checked)
  const { command: name, payload: value } = JSON.parse(text) as { command: unknown, payload: unknown }
  const isFrame = typeof name === 'string' && name.length > 0 && name.length <= MAX_NAME_LENGTH &&
    isSendable(value, MAX_PAYLOAD_DEPTH)
  if (!isFrame) throw new TypeError('P-6 does not allow it.')
  return text.slice(0, -1)
}

/** What a `result`, or an `error` that answers a command, says of it. */
export function outcomeOf ({ type, code = '', payload }: AnswerFrame, command: string): Outcome {
  return type === 'error' ? { error: new CommandError(code, String(payload), command) } : { payload }
}

/**
 * Whether a text has more bytes than that. A character takes three at most, so most need no
 * counting.
 */
export function isLonger (text: string, bytes: number): boolean {
  return text.length * 3 > bytes && new TextEncoder().encode(text).length > bytes
}
