// The public keys of a token issuer (RFC 7517), fetched from a URL and kept. jose fetches, parses,
// imports and chooses keys. Decided here is when to fetch, and what it means that a fetch failed or
// that a key is not there. jose's own rule is that keys beyond their age are not used: an outage of
// the key server would be an outage of every handshake.
//
//   keys younger than maxAge              used
//   older                                 fetched anew; while that fails used on, up to maxStale
//   older than maxStale, or none yet      AUTH_UNAVAILABLE, with a time to come back
//   a token names a key that is missing   fetched anew, once per cooldown; only if a set that was
//                                         fetched after the token came lacks the key is the token
//                                         refused, until then AUTH_UNAVAILABLE
//
// Invariants: one fetch at a time, however many wait for it. After a failed one the next begins
// after a pause that doubles, so that an outage costs the key server a few requests a minute. While
// fetches are known to fail, nobody waits for one whom the keys at hand can serve. A set without
// keys counts as a failure: it would refuse everybody.

import { createRemoteJWKSet, errors, type JWTVerifyGetKey } from 'jose'
import { HoldfastError } from '../io/errors.js'
import type { Log, Millis } from '../io/types.js'

export interface KeySetOptions {
  url: URL
  maxAgeMs: Millis
  maxStaleMs: Millis
  cooldownMs: Millis
  timeoutMs: Millis
  /** Monotonic. */
  now: () => Millis
  log: Log | undefined
}

/** For metrics. */
export interface KeySetStats {
  /** Since the keys in use were fetched; undefined while there are none. */
  readonly ageMs: Millis | undefined
  readonly fetches: number
  readonly failures: number
}

export interface KeySet {
  /**
   * The key for a token.
   *
   * @throws AUTH_UNAVAILABLE  it cannot be known now which key that is
   * @throws errors of jose    the token names a key that the issuer does not have, or none that can
   *                           be told apart
   */
  readonly keyOf: JWTVerifyGetKey
  readonly stats: KeySetStats
}

const FIRST_PAUSE_MS = 1_000
const LONGEST_PAUSE_MS = 30_000
/** Between two warnings of one outage. */
const WARN_EVERY_MS = 60_000
/** Names of missing keys that are remembered; a name that falls out is asked for again. */
const MAX_MISSING = 256

export function createKeySet ({ url, maxAgeMs, maxStaleMs, cooldownMs, timeoutMs, now, log }: KeySetOptions): KeySet {
  let keys: JWTVerifyGetKey | undefined
  /** When the fetch of these keys began: what the issuer published later may be missing. */
  let fetchedAt = -Infinity
  let attemptedAt = -Infinity
  let pending: Promise<void> | undefined
  let failuresInARow = 0
  let lastFailure: unknown
  let warnedAt = -Infinity
  let fetches = 0
  let failures = 0
  /** When a key was first asked for and missing, by name. */
  const missing = new Map<string, Millis>()

  const age = (): Millis => now() - fetchedAt
  const isUsable = (): boolean => age() <= Math.max(maxAgeMs, maxStaleMs)

  /** Settles when an attempt has ended, well or not; joins one that is under way. */
  function fetchKeys (): Promise<void> {
    pending ??= attempt().finally(() => { pending = undefined })
    return pending
  }

  async function attempt (): Promise<void> {
    const startedAt = attemptedAt = now()
    try {
      // A new set each time, which never fetches by itself; the keys at hand serve until it is
      // there.
      const fresh = createRemoteJWKSet(url, {
        timeoutDuration: timeoutMs, cooldownDuration: Infinity, cacheMaxAge: Infinity
      })
      await fresh.reload()
      if (fresh.jwks()?.keys.length === 0) throw new errors.JWKSInvalid('The key set has no keys')
      keys = fresh
    } catch (error) {
      failures++
      failuresInARow++
      lastFailure = error
      warn(error)
      return
    }
    fetches++
    fetchedAt = startedAt
    if (failuresInARow > 0) log?.info({ url: url.origin, failures: failuresInARow }, 'key set fetched again')
    failuresInARow = 0
    warnedAt = -Infinity
  }

  /** One line when an outage is noticed and then one a minute, not one for each handshake. */
  function warn (error: unknown): void {
    if (now() - warnedAt < WARN_EVERY_MS) return
    warnedAt = now()
    const fields = { err: error, url: url.origin, failures: failuresInARow }
    if (isUsable()) {
      log?.warn({ ...fields, ageSeconds: Math.round(age() / 1000) }, 'key set not fetched, older keys are used')
    } else {
      log?.error(fields, 'key set not fetched, tokens cannot be checked')
    }
  }

  /** How long no fetch may begin after one that failed; 0 if one may now. */
  function pauseLeft (): Millis {
    if (failuresInARow === 0) return 0
    const pause = Math.min(FIRST_PAUSE_MS * 2 ** (failuresInARow - 1), LONGEST_PAUSE_MS)
    return Math.max(0, attemptedAt + pause - now())
  }

  async function refreshByAge (): Promise<void> {
    if (age() <= maxAgeMs) return
    const mayFetch = pending !== undefined || pauseLeft() === 0
    if (isUsable() && failuresInARow > 0) {
      if (mayFetch) void fetchKeys()
      return
    }
    if (mayFetch) await fetchKeys()
    if (!isUsable()) throw unavailable(pauseLeft(), lastFailure)
  }

  /** After a token at `askedAt` named a key that is missing. */
  async function refreshFor (askedAt: Millis, cause: unknown): Promise<void> {
    const wait = Math.max(attemptedAt + cooldownMs - now(), pauseLeft())
    if (pending === undefined && wait > 0) throw unavailable(wait, cause)
    await fetchKeys()
    if (askedAt > fetchedAt) throw unavailable(Math.max(attemptedAt + cooldownMs - now(), pauseLeft()), cause)
  }

  function remember (name: string, askedAt: Millis): Millis {
    const earlier = missing.get(name)
    if (earlier !== undefined) return earlier
    if (missing.size === MAX_MISSING) missing.delete(missing.keys().next().value as string)
    missing.set(name, askedAt)
    return askedAt
  }

  return {
    async keyOf (header, token) {
      const askedAt = now()
      await refreshByAge()
      const name = header.kid ?? `(${header.alg})`
      try {
        return await (keys as JWTVerifyGetKey)(header, token)
      } catch (error) {
        if (!(error instanceof errors.JWKSNoMatchingKey)) throw error
        const firstAskedAt = remember(name, askedAt)
        if (firstAskedAt <= fetchedAt) throw error
        await refreshFor(firstAskedAt, error)
      }
      const key = await (keys as JWTVerifyGetKey)(header, token)
      missing.delete(name)
      return key
    },
    stats: {
      get ageMs () { return keys === undefined ? undefined : age() },
      get fetches () { return fetches },
      get failures () { return failures }
    }
  }
}

function unavailable (retryAfterMs: Millis, cause: unknown): HoldfastError {
  return new HoldfastError('AUTH_UNAVAILABLE', { cause, retryAfterMs: Math.max(1000, retryAfterMs) })
}
