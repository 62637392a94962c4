// The subprotocol list of an upgrade, read (P-2, P-3, P-27, P-50, P-53). Browsers cannot set
// headers on a WebSocket and URLs end up in logs, so this list carries the credentials, the resume
// token, and what a client asks of the connection. Nothing of it but the name of the protocol is
// ever echoed or logged. Entries that are not known are ignored, so that a client may offer what
// only a later server understands.

import { isSessionId } from '../names/ids.js'
import type { Profile, Seq, SessionId } from '../types.js'
import { MIN_OUTPUT_BYTES, SUBPROTOCOL } from './frames.js'

export interface ResumeOffer { readonly sessionId: SessionId, readonly token: string, readonly lastSeq: Seq }

export interface Handshake {
  readonly profile: Profile
  /** Credentials from the list; undefined if it has none. */
  readonly token: string | undefined
  /** The entry that counts for credentials is in neither form of P-3; `token` is undefined then. */
  readonly isTokenMalformed: boolean
  /**
   * `malformed`: a resume was asked for in a form that names no session; it is refused like an
   * unknown one (P-33).
   */
  readonly resume: ResumeOffer | 'malformed' | undefined
  /** Largest output that the client takes (P-50); Infinity if it does not say. */
  readonly maxOutputBytes: number
  /**
   * The client wants a refusal as `goodbye` and a close code, since it cannot read an HTTP status
   * (P-53).
   */
  readonly wantsGoodbye: boolean
}

/** P-2c. */
const MAX_ENTRIES = 8
/** RFC 9110, section 5.6.2. */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/

/**
 * Reads `Sec-WebSocket-Protocol`. Undefined when the offer has no protocol that is spoken here, or
 * is no list of up to eight different tokens.
 *
 * @param header the raw value; undefined offers nothing, which is the basic profile
 */
export function readHandshake (header: string | undefined): Handshake | undefined {
  if (header === undefined) return BASIC
  const entries = header.split(',').map(entry => entry.trim())
  // What is no list of tokens would be refused by the WebSocket library later, in its own words and
  // after the credentials were checked.
  const isList = entries.length <= MAX_ENTRIES && new Set(entries).size === entries.length &&
    entries.every(entry => TOKEN.test(entry))
  if (!isList || !entries.includes(SUBPROTOCOL)) return undefined
  let credentials: { readonly token: string | undefined } | undefined
  let resume: Handshake['resume']
  let maxOutputBytes = Infinity
  for (const entry of entries) {
    if (entry.startsWith('auth.')) credentials ??= { token: readToken(entry.slice('auth.'.length)) }
    else if (entry.startsWith('auth64.')) credentials ??= { token: fromBase64url(entry.slice('auth64.'.length)) }
    else if (entry.startsWith('resume.')) resume ??= readResume(entry.slice('resume.'.length))
    else if (entry.startsWith('output.')) {
      maxOutputBytes = Math.min(maxOutputBytes, readOutputBytes(entry.slice('output.'.length)))
    }
  }
  const token = credentials?.token
  const isTokenMalformed = credentials !== undefined && token === undefined
  const wantsGoodbye = entries.includes('refuse.goodbye')
  return { profile: 'full', token, isTokenMalformed, resume, maxOutputBytes, wantsGoodbye }
}

const BASIC: Handshake = {
  profile: 'basic',
  token: undefined,
  isTokenMalformed: false,
  resume: undefined,
  maxOutputBytes: Infinity,
  wantsGoodbye: false
}

/** A JWT stands for itself; its dots are what tells it from the base64url form. */
function readToken (value: string): string | undefined {
  return value.includes('.') ? value : fromBase64url(value)
}

/**
 * Undefined for what is not the one base64url form of a text: Node.js decodes anything, into
 * something else.
 */
function fromBase64url (value: string): string | undefined {
  const text = Buffer.from(value, 'base64url').toString()
  return Buffer.from(text).toString('base64url') === value ? text : undefined
}

/**
 * Less than the minimum is the minimum, and what is not a number asks for nothing: the first frame
 * tells what applies.
 */
function readOutputBytes (value: string): number {
  return /^\d{1,15}$/.test(value) ? Math.max(Number(value), MIN_OUTPUT_BYTES) : Infinity
}

function readResume (value: string): ResumeOffer | 'malformed' {
  const [sessionId = '', token = '', lastSeq = '', ...rest] = value.split('.')
  const seq = Number(lastSeq)
  const wellFormed = rest.length === 0 && isSessionId(sessionId) && token !== '' && token.length <= 128 &&
    /^\d{1,16}$/.test(lastSeq) && Number.isSafeInteger(seq)
  return wellFormed ? { sessionId, token, lastSeq: seq } : 'malformed'
}
