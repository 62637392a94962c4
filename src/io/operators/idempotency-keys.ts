// What a request of an operator that carries an Idempotency-Key came to, so that its repeat does
// nothing and gets the first answer. After the IETF's draft
// (draft-ietf-httpapi-idempotency-key-header): another body under a key in use is refused, and so
// is a repeat while the first is under way.
//
// Invariants: an answer is kept for its whole time from when it was given, never shorter; memory is
// bounded by `maxIdempotencyKeys`, beyond which a new key is refused, since to forget an old one
// early would let its repeat be executed. What failed had no effect, so it is not kept, and the
// same key may be tried again. Nothing here survives the process.

import { HoldfastError } from '../errors.js'
import type { Clock, MaybePromise, Millis } from '../types.js'

export interface OperatorLimits {
  /** How long an answer is kept. */
  idempotencyKeyMs: Millis
  /** Keys remembered at the same time, those under way included. */
  maxIdempotencyKeys: number
}

export interface IdempotencyKeysOptions {
  clock: Clock
  limits: OperatorLimits
}

export interface KeyedRequest {
  /**
   * What the request is for: equal keys of different targets have nothing to do with each other.
   */
  readonly target: string
  readonly key: string
  /** Equal for equal bodies. */
  readonly fingerprint: string
}

export interface KeyedAnswer<A> {
  readonly answer: A
  /** Whether it is the answer of an earlier request. */
  readonly repeated: boolean
}

export interface IdempotencyKeys {
  /**
   * Executes `run` unless a request with this key has been executed; then its answer is given.
   *
   * @throws IDEMPOTENCY_KEY_REUSED  the key was used with another body
   * @throws IDEMPOTENCY_KEY_IN_USE  the first request is under way
   * @throws TOO_MANY_KEYS           as many keys as allowed are remembered
   */
  once<A>(request: KeyedRequest, run: () => MaybePromise<A>): MaybePromise<KeyedAnswer<A>>
  /** Keys remembered. */
  readonly size: number
}

interface Entry {
  readonly fingerprint: string
  /** Undefined while the request is under way. */
  kept: { readonly answer: unknown, readonly until: Millis } | undefined
}

/**
 * When a client that repeats a request under way may ask again; most take a turn of the event loop.
 */
const RETRY_AFTER_MS = 1000

export function createIdempotencyKeys ({ clock, limits }: IdempotencyKeysOptions): IdempotencyKeys {
  const { idempotencyKeyMs: keepMs, maxIdempotencyKeys: maxKeys } = limits
  /** In order of `until`: an entry goes to the end when it is answered. */
  const entries = new Map<string, Entry>()

  function forgetOld (now: Millis): void {
    for (const [name, { kept }] of entries) {
      if (kept === undefined) continue
      if (kept.until > now) return
      entries.delete(name)
    }
  }

  function earliestEnd (): Millis | undefined {
    for (const { kept } of entries.values()) if (kept !== undefined) return kept.until
    return undefined
  }

  function keep<A> (name: string, entry: Entry, answer: A): KeyedAnswer<A> {
    entry.kept = { answer, until: clock.now() + keepMs }
    entries.delete(name)
    entries.set(name, entry)
    return { answer, repeated: false }
  }

  function fail (name: string, error: unknown): never {
    entries.delete(name)
    throw error
  }

  return {
    get size () { return entries.size },

    once<A> ({ target, key, fingerprint }: KeyedRequest, run: () => MaybePromise<A>): MaybePromise<KeyedAnswer<A>> {
      const now = clock.now()
      forgetOld(now)
      // A target holds no line break, so that no two requests share a name by accident.
      const name = `${target}\n${key}`
      const known = entries.get(name)
      if (known !== undefined) {
        if (known.fingerprint !== fingerprint) throw new HoldfastError('IDEMPOTENCY_KEY_REUSED')
        if (known.kept === undefined) {
          throw new HoldfastError('IDEMPOTENCY_KEY_IN_USE', { retryAfterMs: RETRY_AFTER_MS })
        }
        return { answer: known.kept.answer as A, repeated: true }
      }
      if (entries.size >= maxKeys) {
        throw new HoldfastError('TOO_MANY_KEYS', { retryAfterMs: (earliestEnd() ?? now + RETRY_AFTER_MS) - now })
      }
      const entry: Entry = { fingerprint, kept: undefined }
      entries.set(name, entry)
      let answer
      try {
        answer = run()
      } catch (error) {
        fail(name, error)
      }
      if (!(answer instanceof Promise)) return keep(name, entry, answer)
      return answer.then(value => keep(name, entry, value), error => fail(name, error))
    }
  }
}
