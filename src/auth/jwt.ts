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
import {
  aFunction, aListOf, aLog, aText, checkOptions, hidden, milliseconds, refuseProblems, type OptionCheck
} from '../option-checks.js'
import { checkPrincipal, type Authenticate, type AuthRequest, type Principal } from './authenticate.js'
import { createKeySet, type KeySetStats } from './key-set.js'

export interface JwtAuthenticatorOptions {
  /** Shared secret as text, 32 UTF-8 bytes at least (RFC 7518 section 3.2). */
  secret?: string | undefined
  /** Where the issuer publishes its public keys (RFC 7517): http or https, without credentials. */
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
   * Default 30,000 ms; 0 to 604,800,000, a week.
   */
  jwksCooldownMs?: Millis | undefined
  /** How long keys are used without being asked for again. Default 600,000 ms; 1 to a week. */
  jwksMaxAgeMs?: Millis | undefined
  /**
   * How old keys may become while the key set cannot be fetched. Default 86,400,000 ms; 0 to a
   * week.
   */
  jwksMaxStaleMs?: Millis | undefined
  /** How long the key set may take to answer. Default 5,000 ms; 1 to 600,000. */
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
const WEEK_MS = 604_800_000

// No token has an empty issuer or audience: an empty text, such as that of a variable that is not
// set, would refuse everybody.
const CHECKS: Record<keyof JwtAuthenticatorOptions, OptionCheck> = {
  secret: hidden({ is: isSecret, expected: `a text of ${MIN_SECRET_BYTES} bytes or more` }),
  // Fetch refuses credentials.
  jwksUrl: hidden({ is: isKeySetUrl, expected: 'an http or https URL without credentials, as a text' }),
  issuer: aText('what iss must be, as a text that is not empty'),
  audience: aText('what aud must be or hold, as a text that is not empty'),
  userClaim: aText('the name of a claim'),
  labelClaims: aListOf(name => typeof name === 'string' && name !== '', 'names of claims'),
  clockToleranceSeconds: { is: isTolerance, expected: `a number of seconds from 0 to ${MAX_TOLERANCE_SECONDS}` },
  wall: aFunction('that tells the time'),
  now: aFunction('that tells the time'),
  log: aLog,
  jwksCooldownMs: milliseconds(0, WEEK_MS),
  jwksMaxAgeMs: milliseconds(1, WEEK_MS),
  jwksMaxStaleMs: milliseconds(0, WEEK_MS),
  jwksTimeoutMs: milliseconds(1, 600_000)
}

/**
 * An Authenticate function that takes JWTs.
 *
 * Shape: `userId` is the claim; `expiresAt` is `exp` plus the tolerance, absent if the token has no
 * `exp`; `labels` are the `labelClaims` that the token has.
 *
 * The function throws UNAUTHENTICATED for the token's faults and AUTH_UNAVAILABLE if the key set
 * cannot be had.
 *
 * @throws CONFIG_INVALID  an option that is not as described above, or that there is none of;
 *                         neither secret nor jwksUrl. The message lists every problem, one a line
 */
export function createJwtAuthenticator (options: JwtAuthenticatorOptions): JwtAuthenticator {
  checkOptions('createJwtAuthenticator', options, CHECKS)
  if (options.secret === undefined && options.jwksUrl === undefined) {
    refuseProblems(['createJwtAuthenticator needs a secret or a jwksUrl: without one no token can be verified.'])
  }
  const {
    issuer, audience, userClaim = 'sub', labelClaims = [], clockToleranceSeconds = DEFAULT_TOLERANCE_SECONDS,
    wall = Date.now
  } = options
  const secret = options.secret === undefined ? undefined : new TextEncoder().encode(options.secret)
  const keySet = options.jwksUrl === undefined
    ? undefined
    : createKeySet({
      url: new URL(options.jwksUrl),
      maxAgeMs: options.jwksMaxAgeMs ?? 600_000,
      maxStaleMs: options.jwksMaxStaleMs ?? 86_400_000,
      cooldownMs: options.jwksCooldownMs ?? 30_000,
      timeoutMs: options.jwksTimeoutMs ?? 5_000,
      now: options.now ?? (() => performance.now()),
      log: options.log
    })
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

function isSecret (value: unknown): boolean {
  return typeof value === 'string' && Buffer.byteLength(value) >= MIN_SECRET_BYTES
}

function isKeySetUrl (value: unknown): boolean {
  if (typeof value !== 'string' || !URL.canParse(value)) return false
  const { protocol, username, password } = new URL(value)
  return (protocol === 'http:' || protocol === 'https:') && username === '' && password === ''
}

function isTolerance (value: unknown): boolean {
  return typeof value === 'number' && value >= 0 && value <= MAX_TOLERANCE_SECONDS
}
