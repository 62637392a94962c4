// The subprotocol list of an upgrade, read (P-2, P-3, P-27). Browsers can set no headers on a WebSocket and URLs end up in logs, so this list carries
// the credentials and the resume token. Nothing of it is ever echoed but the name of the protocol, nor logged.

import { isSessionId } from '../names/ids.js'
import type { Profile, Seq, SessionId } from '../types.js'
import { SUBPROTOCOL } from './frames.js'

export interface ResumeOffer { readonly sessionId: SessionId, readonly token: string, readonly lastSeq: Seq }

export interface Handshake {
  readonly profile: Profile
  /** Credentials from the list; undefined if it has none. */
  readonly token: string | undefined
  /** `malformed`: a resume was asked for in a form that names no session; it is refused like an unknown one (P-33). */
  readonly resume: ResumeOffer | 'malformed' | undefined
}

const MAX_ENTRIES = 8
/** RFC 9110, section 5.6.2. */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/

/**
 * Reads `Sec-WebSocket-Protocol`. Undefined when the offer has no protocol that is spoken here, or is no list of up to eight
 * different tokens.
 *
 * @param header the raw value; undefined offers nothing, which is the basic profile
 */
export function readHandshake (header: string | undefined): Handshake | undefined {
  if (header === undefined) return { profile: 'basic', token: undefined, resume: undefined }
  const entries = header.split(',').map(entry => entry.trim())
  // What is no list of tokens would be refused by the WebSocket library later, in its own words and after the credentials were checked.
  const isList = entries.length <= MAX_ENTRIES && new Set(entries).size === entries.length && entries.every(entry => TOKEN.test(entry))
  if (!isList || !entries.includes(SUBPROTOCOL)) return undefined
  let token: string | undefined
  let resume: Handshake['resume']
  for (const entry of entries) {
    if (entry.startsWith('auth.')) token ??= readToken(entry.slice('auth.'.length))
    else if (entry.startsWith('resume.')) resume ??= readResume(entry.slice('resume.'.length))
  }
  return { profile: 'full', token, resume }
}

/** A JWT stands for itself; its dots are what tells it from the base64url form. */
function readToken (value: string): string {
  return value.includes('.') ? value : Buffer.from(value, 'base64url').toString()
}

function readResume (value: string): ResumeOffer | 'malformed' {
  const [sessionId = '', token = '', lastSeq = '', ...rest] = value.split('.')
  const seq = Number(lastSeq)
  const wellFormed = rest.length === 0 && isSessionId(sessionId) && token !== '' && token.length <= 128 &&
    /^\d{1,16}$/.test(lastSeq) && Number.isSafeInteger(seq)
  return wellFormed ? { sessionId, token, lastSeq: seq } : 'malformed'
}
