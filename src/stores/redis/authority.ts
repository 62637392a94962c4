// Who signs the certificate of a Redis that no public authority vouches for.

import { readFileSync } from 'node:fs'
import { HoldfastError } from '../../io/errors.js'

/**
 * The certificates in a file, as PEM.
 *
 * @throws CONFIG_INVALID  it cannot be read, or holds none
 */
export function readAuthority (path: string): string {
  let pem
  try {
    pem = readFileSync(path, 'utf8')
  } catch (cause) {
    throw unusable(`it cannot be read: ${(cause as Error).message}`, cause)
  }
  if (!pem.includes('-----BEGIN CERTIFICATE-----')) throw unusable('it holds no certificate in the form of PEM')
  return pem
}

function unusable (problem: string, cause?: unknown): HoldfastError {
  return new HoldfastError('CONFIG_INVALID', { message: `HOLDFAST_REDIS_CA_FILE: ${problem}.`, cause })
}
