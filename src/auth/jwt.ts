// Authentication by JSON Web Token (RFC 7519): a signature over a user id. createJwtAuthenticator
// checks its options once; the function it returns verifies one token per handshake. A secret
// verifies HS256, HS384 and HS512; a key set verifies the asymmetric algorithms. Both may be
// configured, as while moving from one to the other: the two lists share no algorithm, so a token's
// header chooses between keys that were meant for it and can never have a public key taken for a
// secret. `none` is on neither list. Revocation before a token's end is not decided here; operators
// terminate sessions.

import { errors, jwtVerify, type JWTPayload, type JWTVerifyGetKey, type JWTVerifyOptions } from 'jose'
import { HoldfastError } from '../io/errors.js'
import type { JsonValue, Log, Millis } from '../io/types.js'
import { checkPrincipal, type Authenticate, type AuthRequest, type Principal } from './authenticate.js'
import { createKeySet, type KeySetStats } from './key-set.js'

export interface JwtAuthenticatorOptions {
  /** Shared secret as text, 32 UTF-8 bytes at least (RFC 7518 section 3.2). */
  secret?: string | undefined
  /** Where the issuer publishes its public keys (RFC 7517): http or https. */
  jwksUrl?: string | undefined
  /** What `iss` must be; absent: anything, also none. */
  issuer?: string | undefined
  /** What `aud` must be or hold; absent: anything, also none. */
  audience?: string | undefined
  /** Claim that holds the user id. Default `sub`. */
  userClaim?: string | undefined
  /**
   * Claims that become labels of the same name, such as `['roles', 'tenant']`. One that a token
   * lacks is no label. Default: none.
   */
  labelClaims?: readonly string[] | undefined
  /** How far the clocks of issuer and server may differ. Default 10 s; 0 to 300. */
  clockToleranceSeconds?: number | undefined
  /** Milliseconds since 1970-01-01 UTC; replaced in tests. */
  wall?: (() => Millis) | undefined
  /** Monotonic milliseconds; replaced in tests. */
  now?: (() => Millis) | undefined
  /** Told when the key set cannot be fetched, once a minute at most. Default: nobody. */
  log?: Log | undefined
  /**
   * Keys are asked for again at most this often, for tokens signed with a key that is not known.
   * Default 30,000 ms.
   */
  jwksCooldownMs?: Millis | undefined
  /** How long keys are used without being asked for again. Default 600,000 ms. */
  jwksMaxAgeMs?: Millis | undefined
  /** How old keys may become while the key set cannot be fetched. Default 86,400,000 ms. */
  jwksMaxStaleMs?: Millis | undefined
  /** How long the key set may take to answer. Default 5,000 ms. */
  jwksTimeoutMs?: Millis | undefined
}

export interface JwtAuthenticator extends Authenticate {
  /** Of the key set, for metrics; undefined without one. */
  readonly keySet?: KeySetStats
}

const SECRET_ALGORITHMS = ['HS256', 'HS384', 'HS512']
const KEY_SET_ALGORITHMS = [
  'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'
]
const MIN_SECRET_BYTES = 32
const DEFAULT_TOLERANCE_SECONDS = 10
const MAX_TOLERANCE_SECONDS = 300

/**
 * An Authenticate function that takes JWTs.
 *
 * Shape: `userId` is the claim; `expiresAt` is `exp` plus the tolerance, absent if the token has no
 * `exp`; `labels` are the `labelClaims` that the token has.
 *
 * The function throws UNAUTHENTICATED for the token's faults and AUTH_UNAVAILABLE if the key set
 * cannot be had.
 *
 * @throws CONFIG_INVALID  neither secret nor jwksUrl, a secret under 32 bytes, a URL that is not
 *                         http(s), a tolerance out of range, labelClaims that are not an array of
 *                         names
 */
export function createJwtAuthenticator (options: JwtAuthenticatorOptions): JwtAuthenticator {
  const {
    issuer, audience, userClaim = 'sub', clockToleranceSeconds = DEFAULT_TOLERANCE_SECONDS, wall = Date.now
  } = options
  if (!(clockToleranceSeconds >= 0 && clockToleranceSeconds <= MAX_TOLERANCE_SECONDS)) {
    throw new HoldfastError(
      'CONFIG_INVALID',
      { message: `The clock tolerance for tokens is not between 0 and ${MAX_TOLERANCE_SECONDS} seconds.` }
    )
  }
  const labelClaims = readLabelClaims(options.labelClaims)
  const secret = options.secret === undefined ? undefined : readSecret(options.secret)
  const keySet = options.jwksUrl === undefined
    ? undefined
    : createKeySet({
      url: readUrl(options.jwksUrl),
      maxAgeMs: options.jwksMaxAgeMs ?? 600_000,
      maxStaleMs: options.jwksMaxStaleMs ?? 86_400_000,
      cooldownMs: options.jwksCooldownMs ?? 30_000,
      timeoutMs: options.jwksTimeoutMs ?? 5_000,
      now: options.now ?? (() => performance.now()),
      log: options.log
    })
  if (secret === undefined && keySet === undefined) {
    throw new HoldfastError(
      'CONFIG_INVALID', { message: 'Tokens can be verified neither by a secret nor by a key set: none is given.' }
    )
  }
  const algorithms = [
    ...secret === undefined ? [] : SECRET_ALGORITHMS, ...keySet === undefined ? [] : KEY_SET_ALGORITHMS
  ]

  // jose refuses every algorithm that is not on the list before it asks here, so each key only
  // meets the algorithms it is for.
  const keyOf: JWTVerifyGetKey = (header, token) => {
    const key = SECRET_ALGORITHMS.includes(header.alg) ? secret : keySet?.keyOf(header, token)
    if (key === undefined) throw new errors.JOSEAlgNotAllowed('no key is configured for the algorithm')
    return key
  }

  function verifyOptions (): JWTVerifyOptions {
    return {
      algorithms,
      clockTolerance: clockToleranceSeconds,
      currentDate: new Date(wall()),
      requiredClaims: [userClaim],
      ...(issuer === undefined ? {} : { issuer }),
      ...(audience === undefined ? {} : { audience })
    }
  }

  async function authenticate ({ token }: AuthRequest): Promise<Principal> {
    if (token === undefined) throw new HoldfastError('UNAUTHENTICATED')
    let claims: JWTPayload
    try {
      claims = (await jwtVerify(token, keyOf, verifyOptions())).payload
    } catch (cause) {
      if (cause instanceof HoldfastError) throw cause
      throw new HoldfastError('UNAUTHENTICATED', { cause: withoutClaims(cause) })
    }
    const principal: Principal = { userId: claims[userClaim] as string }
    if (claims.exp !== undefined) principal.expiresAt = (claims.exp + clockToleranceSeconds) * 1000
    const labels = labelClaims.filter(name => Object.hasOwn(claims, name)).map(name => [
      name, claims[name] as JsonValue
    ] as const)
    if (labels.length > 0) principal.labels = Object.fromEntries(labels)
    return checkPrincipal(principal)
  }
  return keySet === undefined ? authenticate : Object.assign(authenticate, { keySet: keySet.stats })
}

// jose's claim errors carry the whole payload of the token, which is personal and does not belong
// in a log.
function withoutClaims (cause: unknown): unknown {
  if (cause instanceof errors.JWTExpired || cause instanceof errors.JWTClaimValidationFailed) {
    return Object.assign(new Error(`${cause.code}: ${cause.claim} ${cause.reason}`), { code: cause.code })
  }
  return cause
}

function readLabelClaims (names: readonly string[] = []): readonly string[] {
  if (!Array.isArray(names) || names.some(name => typeof name !== 'string' || name === '')) {
    throw new HoldfastError('CONFIG_INVALID', { message: 'labelClaims: an array of names of claims is expected.' })
  }
  return names
}

function readSecret (secret: string): Uint8Array {
  const key = new TextEncoder().encode(secret)
  if (key.length < MIN_SECRET_BYTES) {
    throw new HoldfastError(
      'CONFIG_INVALID',
      { message: `The secret for tokens has ${key.length} bytes; at least ${MIN_SECRET_BYTES} are needed.` }
    )
  }
  return key
}

function readUrl (text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new HoldfastError('CONFIG_INVALID', { message: 'The URL of the key set is not an http or https URL.' })
  }
  if (url.username !== '' || url.password !== '') {
    throw new HoldfastError(
      'CONFIG_INVALID', { message: 'The URL of the key set has credentials in it, with which it cannot be fetched.' }
    )
  }
  return url
}
