// Resume tokens: 256 random bits, base64url, of which the server keeps only the SHA-256 (P-28). The
// one file of src/io that touches node:crypto. A token is never logged and is no part of any view.

import { hash, randomFillSync, timingSafeEqual } from 'node:crypto'

const TOKEN_BYTES = 32
// One system call for many tokens: filling 32 bytes at a time costs ten times as much per token.
const pool = Buffer.alloc(TOKEN_BYTES * 128)
let used = pool.length

/** A new token: 43 characters of base64url. */
export function createResumeToken (): string {
  if (used === pool.length) {
    randomFillSync(pool)
    used = 0
  }
  const token = pool.toString('base64url', used, used + TOKEN_BYTES)
  pool.fill(0, used, used + TOKEN_BYTES)
  used += TOKEN_BYTES
  return token
}

export function hashResumeToken (token: string): string {
  return hash('sha256', token, 'base64url')
}

/** Whether the hashes are equal, in time that does not depend on where they differ. */
export function sameHash (a: string, b: string | null): boolean {
  return b !== null && a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b))
}

/** A session with fewer handshakes between two frames of its client forgets none of its tokens. */
const MOST_PREVIOUS = 4

/** Whether `hash` is one of those in `previous`: hashes with spaces between them (P-28). */
export function isPrevious (hash: string, previous: string | null): boolean {
  return previous !== null && previous.split(' ').some(one => sameHash(hash, one))
}

/**
 * What stays valid beside the next token when `hash` was presented. Whoever presents the latest
 * token has read it, and those before it are dead. Whoever presents another one may be an earlier
 * handshake that arrives late, whose client has read a later token meanwhile (P-28c).
 */
export function previousAfter (hash: string, latest: string | null, previous: string | null): string {
  if (latest === null || previous === null || sameHash(hash, latest)) return hash
  return [hash, latest, ...previous.split(' ').filter(one => one !== hash)].slice(0, MOST_PREVIOUS).join(' ')
}
