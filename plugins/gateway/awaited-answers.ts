// Answers that a handshake waits for: those of `authenticate` and of the store. The socket is open
// meanwhile, and nobody owns it, so no wait is longer than a limit, and a close ends them all.

import { HoldfastError } from '../../src/io/errors.js'
import type { Millis } from '../../src/io/types.js'

export interface AwaitedAnswers {
  /**
   * The answer, or a rejection with `late` when it takes too long. Lets go of the wait once it is
   * decided, whether the answer ever comes or not.
   */
  withinTime<T>(answer: PromiseLike<T>, late: 'AUTH_UNAVAILABLE' | 'STORE_UNAVAILABLE'): Promise<T>
  /** Rejects whatever is waited for. */
  refuseAll(reason: HoldfastError): void
}

export function createAwaitedAnswers (timeoutMs: Millis): AwaitedAnswers {
  const pending = new Set<(reason: HoldfastError) => void>()
  return {
    withinTime<T> (answer: PromiseLike<T>, late: 'AUTH_UNAVAILABLE' | 'STORE_UNAVAILABLE') {
      const { promise, resolve, reject } = withResolvers<T>()
      const timer = setTimeout(() => reject(new HoldfastError(late, { retryAfterMs: 1000 })), timeoutMs)
      const release = (): void => {
        clearTimeout(timer)
        pending.delete(reject)
      }
      pending.add(reject)
      promise.then(release, release)
      answer.then(resolve, reject)
      return promise
    },

    refuseAll (reason) {
      for (const reject of pending) reject(reason)
    }
  }
}

/** `Promise.withResolvers`, which Node has from version 22 on. */
function withResolvers<T> (): { promise: Promise<T>, resolve: (value: T) => void, reject: (reason: unknown) => void } {
  let resolve: (value: T) => void = () => {}
  let reject: (reason: unknown) => void = () => {}
  const promise = new Promise<T>((_resolve, _reject) => {
    resolve = _resolve
    reject = _reject
  })
  return { promise, resolve, reject }
}
