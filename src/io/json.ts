// JSON text that came from outside to a value, and values of the platform to JSON text. What cannot be carried as it is, is refused here by name (P-6),
// since JavaScript would change it without a word: `JSON.parse` rounds 7238572949283749923, reads 1e400 as Infinity and keeps the last of two equal keys;
// `JSON.stringify` prints NaN and Infinity as null.
//
// Order: `parseJson` for every text of a client, a core or an operator; `printJson` for every value of a handler. Neither copies what it returns.
//
// Carrying the source text instead was measured: finding its slice costs the same single pass over the text. It was refused because handlers,
// contexts and the typed client hold numbers as doubles, so the change would only happen one step further on.

import { scan as refusePrototypeKeys } from 'secure-json-parse'

/**
 * Most bytes of JSON that are parsed or printed in one piece, so that no message, body, answer,
 * context or page holds the event loop for longer than 50 ms. A mebibyte of records takes about
 * 10 ms to read; of texts that are made to be slow, such as one object of a hundred thousand
 * members, about the whole. Limits of more stop the start: options are bounded by it.
 */
export const MAX_JSON_BYTES = 1_048_576
/** Arrays and objects inside one another, in what a peer sends (P-6). */
export const MAX_DEPTH = 32
/** Every double is told from its neighbours by so many significant digits. */
const MAX_FRACTION_DIGITS = 17
/**
 * How far a double may lie from the text that stands for it, in hundredths of that text's last digit. Half a unit is the nearest double. The rest is for
 * printers that miss the nearest 17th digit by a hair (Grisu2 in common C++ libraries, Java before 19); their text names the double all the same.
 */
const MAX_ROUNDING_PERCENT = 52n
const MAX_PATH_CHARACTERS = 120

/** What is wrong with a text. The message is a sentence without its full stop; it names a member and quotes no value. */
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
 * The value is exactly what the text says, but for the order of members and the sign of -0; a fraction or a number with an exponent arrives as the double that
 * its digits, 17 at most, stand for.
 *
 * @throws JsonError  no JSON; nested deeper than 32; a key that JavaScript programs trip over; a key twice in one object; a number that would change
 */
export function parseJson (text: string): unknown {
  const json = text.charCodeAt(0) === 0xFEFF ? text.slice(1) : text
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch {
    // The parser's own message quotes the text.
    throw new JsonError('', 'is not JSON')
  }
  if (typeof value !== 'object' || value === null) {
    if (countMembers(json) === CHANGED) throw faultOf(json)
    return value
  }
  const members = weigh(value, MAX_DEPTH)
  if (members < 0) throw new JsonError('', `is nested deeper than ${MAX_DEPTH}`)
  // Of two equal keys the parser kept one, so the text has more members than the value.
  if (countMembers(json) !== members) throw faultOf(json)
  // Neither key can be there, in whatever spelling, without one of these two strings; nearly every text is spared the walk.
  if (json.includes('proto') || json.includes('\\u')) {
    try {
      refusePrototypeKeys(value)
    } catch {
      throw new JsonError('', 'has a forbidden key')
    }
  }
  return value
}

/** How many members all objects of a value have together; below 0 if it is nested too deep. Looks no deeper, so it cannot exhaust the stack. */
function weigh (value: object, levels: number): number {
  if (levels === 0) return -Infinity
  let members = 0
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const member: unknown = value[i]
      if (typeof member === 'object' && member !== null) members += weigh(member, levels - 1)
    }
  } else {
    for (const key in value) {
      members++
      const member = (value as Record<string, unknown>)[key]
      if (typeof member === 'object' && member !== null) members += weigh(member, levels - 1)
    }
  }
  return members
}

const QUOTE = 0x22
const COLON = 0x3A
const BACKSLASH = 0x5C
/** A literal of so many characters has no more digits than every double keeps. */
const SAFE_LITERAL_LENGTH = 15
/** Of `countMembers`: a number of the text would change. */
const CHANGED = -1

/** Counts the members of all objects in a valid JSON text, in one pass; CHANGED if a number in it would not stay what it is. */
function countMembers (json: string): number {
  let members = 0
  for (let at = 0; at < json.length; at++) {
    const character = json.charCodeAt(at)
    if (character === QUOTE) {
      at = endOfText(json, at)
    } else if (character === COLON) {
      members++
    } else if (isDigit(character)) {
      // A sign was passed over already: it changes nothing.
      let hasExponent = false
      let end = at + 1
      for (; end < json.length; end++) {
        const next = json.charCodeAt(end)
        if (isExponent(next)) hasExponent = true
        else if (!isOfMantissa(next)) break
      }
      if ((hasExponent || end - at > SAFE_LITERAL_LENGTH) && !isKept(json.slice(at, end))) return CHANGED
      at = end - 1
    }
  }
  return members
}

/** Index of the quote that ends the string that starts at `start`. */
function endOfText (json: string, start: number): number {
  let end = start
  for (;;) {
    end = json.indexOf('"', end + 1)
    let before = end - 1
    while (json.charCodeAt(before) === BACKSLASH) before--
    if ((end - before) % 2 === 1) return end
  }
}

function isDigit (character: number): boolean {
  return character >= 0x30 && character <= 0x39
}

/** e and E, and the signs that only stand behind them in a number. */
function isExponent (character: number): boolean {
  return character === 0x65 || character === 0x45 || character === 0x2B || character === 0x2D
}

function isOfMantissa (character: number): boolean {
  return isDigit(character) || character === 0x2E
}

/**
 * Whether a number, carried as a double, is still the one that was written. An integer has to keep its value. A fraction, or what has an exponent, is taken for the
 * text of a double, so it has to name one: 0.1, 1e23, 0.30000000000000004 and C's 0.10000000000000001 do; 1e400, 1e-400, 0.12345678901234567890 and
 * 999999999999999.99 do not.
 */
function isKept (literal: string): boolean {
  const value = Number(literal)
  const printed = String(value)
  if (printed === literal) return true
  if (!Number.isFinite(value)) return false
  // The usual other spellings, without the cost of taking digits apart: up to 15 digits, however they
  // are written, name one double far from either end of the range; and C's %.17g.
  if (isFarFromEnds(value) && mantissaLength(literal) <= SAFE_LITERAL_LENGTH) return true
  if (literal.includes('.') && value.toPrecision(MAX_FRACTION_DIGITS) === literal) return true
  const wanted = readDecimal(literal)
  const carried = readDecimal(printed)
  if (wanted.digits === carried.digits && wanted.exponent === carried.exponent) return true
  if (!/[.eE]/.test(literal) || wanted.digits.length > MAX_FRACTION_DIGITS || value === 0) return false
  // The same double with three digits more than any text of one has.
  const exact = readDecimal(value.toPrecision(MAX_FRACTION_DIGITS + 3))
  const low = Math.min(wanted.exponent, exact.exponent)
  const unit = 10n ** BigInt(wanted.exponent - low)
  const distance = BigInt(wanted.digits) * unit - BigInt(exact.digits) * 10n ** BigInt(exact.exponent - low)
  return (distance < 0n ? -distance : distance) * 100n <= unit * MAX_ROUNDING_PERCENT
}

/** Whether doubles around it are as dense as they are anywhere. */
function isFarFromEnds (value: number): boolean {
  const magnitude = Math.abs(value)
  return magnitude > 1e-300 && magnitude < 1e300
}

/** Characters before the exponent. */
function mantissaLength (literal: string): number {
  const end = literal.search(/[eE]/)
  return end === -1 ? literal.length : end
}

/** `digits` × 10^`exponent`, without a zero at either end; zero is '' and 0. The sign is left out. */
function readDecimal (literal: string): { digits: string, exponent: number } {
  const [mantissa = '', power = '0'] = (literal.startsWith('-') ? literal.slice(1) : literal).toLowerCase().split('e')
  const [whole = '', fraction = ''] = mantissa.split('.')
  const all = whole + fraction
  let start = 0
  while (all[start] === '0') start++
  let end = all.length
  while (end > start && all[end - 1] === '0') end--
  if (start === end) return { digits: '', exponent: 0 }
  return { digits: all.slice(start, end), exponent: Number(power) - fraction.length + all.length - end }
}

const CHANGED_NUMBER = 'is a number that would be changed on its way; send it as a string'

/** Where the first number is that would change, or the first key that is there twice. Only asked about a text that has one. */
function faultOf (json: string): JsonError {
  interface Level { readonly keys: Set<string> | null, key: string | number }
  const levels: Level[] = []
  const path = (): string => levels.map(({ key }) => `/${String(key).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')
  const numbers = /[\d.eE+-]+/y
  let isKey = false
  for (let at = 0; at < json.length; at++) {
    const character = json.charAt(at)
    const level = levels.at(-1)
    if (character === '"') {
      const end = endOfText(json, at)
      if (isKey && level !== undefined && level.keys !== null) {
        level.key = JSON.parse(json.slice(at, end + 1)) as string
        if (level.keys.has(level.key)) return new JsonError(path(), 'is there twice')
        level.keys.add(level.key)
        isKey = false
      }
      at = end
    } else if (character === '{' || character === '[') {
      isKey = character === '{'
      levels.push(isKey ? { keys: new Set(), key: '' } : { keys: null, key: 0 })
    } else if (character === '}' || character === ']') {
      levels.pop()
      isKey = false
    } else if (character === ',' && level !== undefined) {
      if (level.keys === null) level.key = Number(level.key) + 1
      else isKey = true
    } else if (isDigit(character.charCodeAt(0))) {
      numbers.lastIndex = at
      const [literal] = numbers.exec(json) as RegExpExecArray
      if (!isKept(literal)) return new JsonError(path(), CHANGED_NUMBER)
      at += literal.length - 1
    }
  }
  return new JsonError('', CHANGED_NUMBER)
}

/**
 * A value as JSON text. undefined is null where a value has to stand and is left out as a member; what has a `toJSON` is what that returns.
 *
 * @throws TypeError  for what JSON cannot carry: NaN, Infinity, an invalid Date, a BigInt, a function, a cycle. The message names the member.
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
  if (text.includes('null') && !isPrintable(value, '')) refuseUnprintable(value, '', '')
  return text
}

/** Whether JSON can carry a value. Walks it as `JSON.stringify` does, and builds no path: nearly every value can be printed. */
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
  return typeof member === 'number' ? !Number.isFinite(member) : (typeof member === 'object' && member !== null) || typeof member === 'bigint'
}

/** Walks a value as `JSON.stringify` does. @throws TypeError */
function refuseUnprintable (given: unknown, key: string, path: string): void {
  const value = toPlain(given, key)
  if (typeof value === 'number' && !Number.isFinite(value)) throw unprintable(path, `is ${value}`)
  if (typeof value === 'bigint') throw unprintable(path, 'is a BigInt')
  if (value === null && given instanceof Date) throw unprintable(path, 'is an invalid Date')
  if (typeof value !== 'object' || value === null) return
  for (const [name, member] of Object.entries(value)) {
    if (typeof member === 'object' || typeof member === 'number' || typeof member === 'bigint') refuseUnprintable(member, name, `${path}/${name}`)
  }
}

function toPlain (value: unknown, key: string): unknown {
  if (value === null || value === undefined) return value
  const { toJSON } = value as { toJSON?: unknown }
  const told: unknown = typeof toJSON === 'function' ? toJSON.call(value, key) : value
  return told instanceof Number || told instanceof BigInt ? told.valueOf() : told
}

function unprintable (path: string, problem: string): TypeError {
  return new TypeError(`${path === '' ? 'the value' : path.slice(0, MAX_PATH_CHARACTERS)} ${problem}, which JSON cannot carry`)
}
