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
