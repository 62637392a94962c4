// Commands as nearly every client writes them, read in one pass: the envelope by hand, the payload
// by the parser. It takes two thirds of the time of parsing the whole and checking it by its schema
// (docs/performance.md).
//
// Every other spelling is left to the codec, and so is whatever may be wrong: this file knows no
// error. What it does read, the codec would read as the same; a property test compares the two.

import { MAX_MEMBERS, parsePart } from '../json.js'
import { MAX_NAME_LENGTH, type CommandFrame } from './frames.js'

const SPACE = 0x20
const QUOTE = 0x22
const COMMA = 0x2C
const ZERO = 0x30
const NINE = 0x39
const OPEN_ARRAY = 0x5B
const BACKSLASH = 0x5C
const OPEN_OBJECT = 0x7B
const CLOSE_OBJECT = 0x7D
const TILDE = 0x7E
/** Numbers of so many digits are safe integers. */
const SAFE_DIGITS = 15
/** Too few for as many members as a text may have, so nobody has to count them (P-6). */
const MAX_PLAIN_BYTES = MAX_MEMBERS * 2

/** The members of a command by the first letter of their name, as they are written. */
const MEMBERS: (Buffer | undefined)[] = []
for (const name of ['sessionId', 'command', 'payload', 'id', 'ack']) {
  MEMBERS[name.charCodeAt(0)] = Buffer.from(`"${name}":`)
}
const [SESSION_ID, COMMAND, PAYLOAD, ID, ACK] = ['s', 'c', 'p', 'i', 'a'].map(letter => MEMBERS[letter.charCodeAt(0)])

/** The command in a text; undefined for every other text, which says nothing about it. */
export function readPlainCommand (text: string, bytes: Buffer): CommandFrame | undefined {
  if (bytes.length > MAX_PLAIN_BYTES || bytes[0] !== OPEN_OBJECT) return undefined
  let sessionId: string | undefined
  let command: string | undefined
  let payload: unknown
  let id: number | string | undefined
  let ack: number | undefined
  // From an index in the bytes to the one in the text: all that stands around the payload is ASCII.
  let shift = 0
  let at = 0
  do {
    at = skipSpace(bytes, at + 1)
    const member = MEMBERS[bytes[at + 1] as number]
    if (member === undefined || !isAt(bytes, at, member)) return undefined
    at = skipSpace(bytes, at + member.length)
    const first = bytes[at] as number
    if (member === PAYLOAD) {
      if (payload !== undefined || (first !== OPEN_OBJECT && first !== OPEN_ARRAY)) return undefined
      try {
        ({ value: payload, end: at } = parsePart(text, bytes, at))
      } catch {
        return undefined
      }
      shift = text.length - bytes.length
    } else if (first === QUOTE) {
      const start = at + 1
      at = endOfPlain(bytes, start)
      const value = text.slice(start + shift, at + shift)
      if (bytes[at++] !== QUOTE) return undefined
      if (member === SESSION_ID && sessionId === undefined) sessionId = value
      else if (value.length === 0 || value.length > MAX_NAME_LENGTH) return undefined
      else if (member === COMMAND && command === undefined) command = value
      else if (member === ID && id === undefined) id = value
      else return undefined
    } else {
      const start = at
      let value = 0
      while (isDigit(bytes[at] as number)) value = value * 10 + (bytes[at++] as number) - ZERO
      if (at === start || at - start > SAFE_DIGITS || (first === ZERO && at - start > 1)) return undefined
      if (member === ACK && ack === undefined) ack = value
      else if (member === ID && id === undefined && value > 0) id = value
      else return undefined
    }
    at = skipSpace(bytes, at)
  } while (bytes[at] === COMMA)
  if (command === undefined || bytes[at] !== CLOSE_OBJECT || at + 1 !== bytes.length) return undefined
  return { sessionId, command, payload, id, ack }
}

function skipSpace (bytes: Buffer, at: number): number {
  return bytes[at] === SPACE ? at + 1 : at
}

function isAt (bytes: Buffer, at: number, expected: Buffer): boolean {
  for (let i = 0; i < expected.length; i++) if (bytes[at + i] !== expected[i]) return false
  return true
}

/** Index of the first that is no printable ASCII, or that ends or escapes a string. */
function endOfPlain (bytes: Buffer, start: number): number {
  let at = start
  for (;;) {
    const byte = bytes[at] as number
    // Behind the last byte there is none, which is not between the two either.
    if (!(byte >= SPACE && byte <= TILDE) || byte === QUOTE || byte === BACKSLASH) return at
    at++
  }
}

function isDigit (byte: number): boolean {
  return byte >= ZERO && byte <= NINE
}
