// JSON text that came from outside to a value, and values of the platform to JSON text. What cannot
// be carried as it is, is refused here by name (P-6), since JavaScript would change it without a
// word: `JSON.parse` rounds 7238572949283749923, reads 1e400 as Infinity and keeps the last of two
// equal keys; `JSON.stringify` prints NaN and Infinity as null.
//
// Order: `parseJson` for every text of a client, a core or an operator; `printJson` for every value
// of a handler. Neither copies what it returns.
//
// Carrying the source text instead was measured: finding its slice costs the same single pass over
// the text. It was refused because handlers, contexts and the typed client hold numbers as doubles,
// so the change would only happen one step further on.

import { scan as refusePrototypeKeys } from 'secure-json-parse'
import { findFault } from './json-fault.js'
import { SAFE_LITERAL_LENGTH, isKept } from './json-number.js'

/**
 * Most bytes of JSON that are parsed or printed in one piece, so that no message, body, answer,
 * context or page holds the event loop for longer than 50 ms. A mebibyte of records takes about
 * 10 ms to read. Limits of more stop the start: options are bounded by it.
 */
export const MAX_JSON_BYTES = 1_048_576
/** Arrays and objects inside one another, in what a peer sends (P-6). */
export const MAX_DEPTH = 32
/**
 * Members, arrays and objects of one text, in what a peer sends (P-6). Plain elements of arrays are
 * not counted: a mebibyte of them is cheap. What takes time is to make objects whose keys were
 * never seen together.
 */
export const MAX_MEMBERS = 32_768
const MAX_PATH_CHARACTERS = 120

/**
 * What is wrong with a text. The message is a sentence without its full stop; it names a member and
 * quotes no value.
 */
export class JsonError extends Error {
  override readonly name = 'JsonError'
  /** JSON Pointer (RFC 6901) of the member at fault; empty for the whole. */
  readonly path: string

  constructor (path: string, problem: string) {
    super(`${path === '' ? 'the text' : path.slice(0, MAX_PATH_CHARACTERS)} ${problem}`)
    this.path = path
  }
}

/**
 * The value of a JSON text (RFC 8259). A byte order mark in front is skipped.
 *
 * The value is exactly what the text says, but for the order of members and the sign of -0; a
 * fraction or a number with an exponent arrives as the double that its digits, 17 at most, stand
 * for.
 *
 * @param bytes the same text in UTF-8, where the caller has it
 * @throws JsonError  no JSON; nested deeper than 32; too many members; a key that JavaScript
 *                    programs trip over; a key twice in one object; a number that would change
 */
export function parseJson (text: string, bytes: Buffer = Buffer.from(text)): unknown {
  return text.charCodeAt(0) === BYTE_ORDER_MARK
    ? parseUnmarked(text.slice(1), bytes.subarray(MARK_BYTES))
    : parseUnmarked(text, bytes)
}

/** A value within a text, and the index in its bytes behind it. */
export interface Part { readonly value: unknown, readonly end: number }

/**
 * The value of the array or object that begins at `start` in a text of which everything before is
 * ASCII: as `parseJson` reads it, one level deep.
 *
 * @throws JsonError  as `parseJson` does, with a path from the value on
 */
export function parsePart (text: string, bytes: Buffer, start: number): Part {
  const suspicions = scan(text, bytes, start, 1)
  const { end } = found
  const part = text.slice(start, end + text.length - bytes.length)
  return { value: parseScanned(part, suspicions), end }
}

function parseUnmarked (text: string, bytes: Buffer): unknown {
  return parseScanned(text, scan(text, bytes, 0, 0))
}

function parseScanned (text: string, suspicions: number): unknown {
  // Both before the parser, which would take its time.
  if ((suspicions & TOO_DEEP) !== 0) throw new JsonError('', `is nested deeper than ${MAX_DEPTH}`)
  if (found.members + found.containers > MAX_MEMBERS) throw new JsonError('', `has more than ${MAX_MEMBERS} ${COUNTED}`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    // The parser's own message quotes the text.
    throw new JsonError('', 'is not JSON')
  }
  if (suspicions !== 0) refuse(text, value, suspicions)
  return value
}

const COUNTED = 'members, arrays and objects'
const BYTE_ORDER_MARK = 0xFEFF
const MARK_BYTES = 3

/** Looks closely at a text that the scan could not clear. @throws JsonError */
function refuse (text: string, value: unknown, suspicions: number): void {
  if ((suspicions & NUMBER_CHANGED) !== 0) throw faultIn(text)
  if (typeof value !== 'object' || value === null) return
  // Of two equal keys the parser kept one, so the text has more members than the value.
  if ((suspicions & MAYBE_TWICE) !== 0 && found.members !== countMembers(value)) throw faultIn(text)
  // Neither key can be there, in whatever spelling, without one of these two strings.
  if ((suspicions & MAYBE_FORBIDDEN) !== 0 && (text.includes('proto') || text.includes('\\u'))) {
    try {
      refusePrototypeKeys(value)
    } catch {
      throw new JsonError('', 'has a forbidden key')
    }
  }
}

function faultIn (text: string): JsonError {
  const { path, problem } = findFault(text)
  return new JsonError(path, problem)
}

/** How many members all objects of a value have together. */
function countMembers (value: object): number {
  let members = 0
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const member: unknown = value[i]
      if (typeof member === 'object' && member !== null) members += countMembers(member)
    }
  } else {
    for (const key in value) {
      members++
      const member = (value as Record<string, unknown>)[key]
      if (typeof member === 'object' && member !== null) members += countMembers(member)
    }
  }
  return members
}

/**
 * Whether a value has more members, arrays and objects than `most`. It looks at no more of it than
 * that, and no deeper than a peer can reach, so a cycle is left to the printer. A `toJSON` is not
 * asked.
 */
export function hasMoreMembers (value: unknown, most: number): boolean {
  return countUpTo(value, most, MAX_DEPTH) > most
}

function countUpTo (value: unknown, most: number, levels: number): number {
  if (typeof value !== 'object' || value === null || levels === 0) return 0
  let count = 1
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length && count <= most; i++) count += countUpTo(value[i], most - count, levels - 1)
  } else {
    for (const key in value) {
      if (++count > most) break
      count += countUpTo((value as Record<string, unknown>)[key], most - count, levels - 1)
    }
  }
  return count
}

const QUOTE = 0x22
const POINT = 0x2E
const ZERO = 0x30
const NINE = 0x39
const COLON = 0x3A
const OPEN_ARRAY = 0x5B
const BACKSLASH = 0x5C
const CLOSE_ARRAY = 0x5D
const OPEN_OBJECT = 0x7B
const CLOSE_OBJECT = 0x7D
/**
 * Longer strings are searched for their end, which costs as much as looking at so many characters.
 */
const SHORT_STRING = 16

// What a scan suspects.
const TOO_DEEP = 1
const NUMBER_CHANGED = 2
const MAYBE_TWICE = 4
const MAYBE_FORBIDDEN = 8

/** What the latest scan counted: members, arrays and objects; and the index behind the value. */
const found = { members: 0, containers: 0, end: 0 }
/**
 * For each open array and object around the one that is scanned: a bit for each key so far, by
 * `traitOf`.
 */
const outerKeys = new Int32Array(MAX_DEPTH + 1)

/**
 * Looks once at a text, and tells what may be wrong with it. Nothing has to be valid; of a text
 * that is, nothing wrong is missed. A deep text is not scanned to its end.
 *
 * On bytes, which cost half of what characters cost. Every byte of a character beyond ASCII is
 * above all that matter here.
 *
 * @param bytes the same text, in UTF-8
 * @param from  where the value begins; it ends with the bracket that closes it
 * @param level how many arrays and objects are around it
 */
function scan (text: string, bytes: Buffer, from: number, level: number): number {
  const hasEscapes = text.includes('\\')
  // An escape may spell a key in another way.
  let suspicions = hasEscapes ? MAYBE_TWICE | MAYBE_FORBIDDEN : 0
  const isAscii = text.length === bytes.length
  const { length } = bytes
  let members = 0
  let containers = 0
  let depth = level
  let keys = 0
  let start = 0
  let end = 0
  let at = from
  for (; at < length; at++) {
    const byte = bytes[at] as number
    if (byte === QUOTE) {
      start = at + 1
      if (hasEscapes) {
        at = endOfEscaped(bytes, start)
      } else {
        const far = Math.min(start + SHORT_STRING, length)
        do at++; while (at < far && bytes[at] !== QUOTE)
        if (at >= far) at = isAscii ? text.indexOf('"', at) : bytes.indexOf(QUOTE, at)
        if (at === -1) break
      }
      end = at
    } else if (byte < ZERO) {
      // Commas, spaces, signs: the most frequent of what stands between strings.
    } else if (byte <= NINE) {
      // A sign was passed over already: it changes nothing.
      let next = at + 1
      while (isOfMantissa(bytes[next] as number)) next++
      let isSafe = next - at <= SAFE_LITERAL_LENGTH
      if (isExponent(bytes[next] as number)) {
        const end = endOfExponent(bytes, next)
        const digits = end - next - (isDigit(bytes[next + 1] as number) ? 1 : 2)
        if (digits > SAFE_EXPONENT_DIGITS) isSafe = false
        next = end
      }
      if (!isSafe && !isKept(bytes.toString('latin1', at, next))) suspicions |= NUMBER_CHANGED
      at = next - 1
    } else if (byte === COLON) {
      members++
      const trait = 1 << traitOf(bytes, start, end)
      if ((keys & trait) !== 0) suspicions |= MAYBE_TWICE
      keys |= trait
      if (end - start === FORBIDDEN_LENGTH) suspicions |= MAYBE_FORBIDDEN
    } else if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) {
      containers++
      outerKeys[depth++] = keys
      keys = 0
      if (depth > MAX_DEPTH) return TOO_DEEP
    } else if (byte === CLOSE_OBJECT || byte === CLOSE_ARRAY) {
      // What comes behind the whole value is none of it.
      if (depth <= level + 1) break
      keys = outerKeys[--depth] as number
    }
  }
  found.end = at === -1 ? length : at + 1
  found.members = members
  found.containers = containers
  return suspicions
}

/** With so many, a number of 15 digits is far from either end of what a double can be. */
const SAFE_EXPONENT_DIGITS = 2

/** Of `__proto__` and of `prototype`, without which a `constructor` is harmless. */
const FORBIDDEN_LENGTH = 9

/**
 * Equal keys have the same; most others another one. The shift that it is for takes the lowest five
 * bits.
 */
function traitOf (bytes: Buffer, start: number, end: number): number {
  return (bytes[start] as number) * 31 + (bytes[end - 1] as number) * 7 + end - start
}

/** Index of the quote that ends a string, or of the end of the text. */
function endOfEscaped (bytes: Buffer, start: number): number {
  let at = start
  while (at < bytes.length && bytes[at] !== QUOTE) at += bytes[at] === BACKSLASH ? 2 : 1
  return at
}

/** Index behind an exponent that starts at `start`. */
function endOfExponent (bytes: Buffer, start: number): number {
  let end = start + 1
  while (isExponent(bytes[end] as number) || isDigit(bytes[end] as number)) end++
  return end
}

function isDigit (character: number): boolean {
  return character >= ZERO && character <= NINE
}

/** e and E, and the signs that only stand behind them in a number. */
function isExponent (character: number): boolean {
  return character === 0x65 || character === 0x45 || character === 0x2B || character === 0x2D
}

function isOfMantissa (character: number): boolean {
  return isDigit(character) || character === POINT
}

/**
 * A value as JSON text. undefined is null where a value has to stand and is left out as a member;
 * what has a `toJSON` is what that returns.
 *
 * @throws TypeError  for what JSON cannot carry: NaN, Infinity, an invalid Date, a BigInt, a
 *                    function, a cycle. The message names the member.
 */
export function printJson (value: unknown): string {
  if (value === undefined) return 'null'
  let text: string | undefined
  try {
    text = JSON.stringify(value)
  } catch (error) {
    // The engine says where a cycle is, but not where a BigInt.
    if (error instanceof TypeError && error.message.includes('BigInt')) refuseUnprintable(value, '', '')
    throw error
  }
  if (text === undefined) throw new TypeError('the value has no form in JSON')
  // What became null without being it left this word behind.
  if (!isFlat(value) && text.includes('null') && !isPrintable(value, '')) refuseUnprintable(value, '', '')
  return text
}

/**
 * Whether a value is a plain object of texts, finite numbers and the like, as most answers are; all
 * of it can be printed. A look at its members is cheaper than one at its text.
 */
function isFlat (value: unknown): boolean {
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) return false
  const object = value as Record<string, unknown>
  if (object.toJSON !== undefined) return false
  for (const name in object) if (isSuspect(object[name])) return false
  return true
}

/**
 * Whether JSON can carry a value. Walks it as `JSON.stringify` does, and builds no path: nearly
 * every value can be printed.
 */
function isPrintable (given: unknown, key: string): boolean {
  const value = toPlain(given, key)
  if (typeof value === 'number') return Number.isFinite(value)
  if (value === null) return !(given instanceof Date)
  if (typeof value !== 'object') return typeof value !== 'bigint'
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const member: unknown = value[i]
      if (isSuspect(member) && !isPrintable(member, String(i))) return false
    }
    return true
  }
  for (const name of Object.keys(value)) {
    const member = (value as Record<string, unknown>)[name]
    if (isSuspect(member) && !isPrintable(member, name)) return false
  }
  return true
}

function isSuspect (member: unknown): boolean {
  return typeof member === 'number'
    ? !Number.isFinite(member)
    : (typeof member === 'object' && member !== null) || typeof member === 'bigint'
}

/** Walks a value as `JSON.stringify` does. @throws TypeError */
function refuseUnprintable (given: unknown, key: string, path: string): void {
  const value = toPlain(given, key)
  if (typeof value === 'number' && !Number.isFinite(value)) throw unprintable(path, `is ${value}`)
  if (typeof value === 'bigint') throw unprintable(path, 'is a BigInt')
  if (value === null && given instanceof Date) throw unprintable(path, 'is an invalid Date')
  if (typeof value !== 'object' || value === null) return
  for (const [name, member] of Object.entries(value)) {
    if (typeof member === 'object' || typeof member === 'number' || typeof member === 'bigint') {
      refuseUnprintable(member, name, `${path}/${name}`)
    }
  }
}

function toPlain (value: unknown, key: string): unknown {
  if (value === null || value === undefined) return value
  const { toJSON } = value as { toJSON?: unknown }
  const told: unknown = typeof toJSON === 'function' ? toJSON.call(value, key) : value
  return told instanceof Number || told instanceof BigInt ? told.valueOf() : told
}

function unprintable (path: string, problem: string): TypeError {
  return new TypeError(
    `${path === '' ? 'the value' : path.slice(0, MAX_PATH_CHARACTERS)} ${problem}, which JSON cannot carry`
  )
}
