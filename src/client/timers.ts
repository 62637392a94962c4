// Timers of one client, by name.

import type { Millis } from '../io/types.js'
import { MAX_DELAY_MS } from './bounds.js'
import type { Timing } from './environment.js'

/** Arming a name again moves it, and `disarm()` without names leaves none behind. */
export interface Timers {
  arm (name: unknown, ms: Millis, run: () => void): void
  has (name: unknown): boolean
  disarm (...names: unknown[]): void
  /** The value, or a rejection after `ms`; nothing at all if the timers are disarmed before. */
  within<T> (ms: Millis, value: () => T | Promise<T>): Promise<T>
}

export function createTimers ({ setTimeout, clearTimeout }: Timing): Timers {
  const armed = new Map<unknown, unknown>()
  function disarm (...names: unknown[]): void {
    for (const name of names.length > 0 ? names : [...armed.keys()]) {
      clearTimeout(armed.get(name))
      armed.delete(name)
    }
  }
  function arm (name: unknown, ms: Millis, run: () => void): void {
    if (armed.has(name)) disarm(name)
    armed.set(name, setTimeout(() => { armed.delete(name); run() }, Math.min(ms, MAX_DELAY_MS)))
  }
  return {
    arm,
    has: name => armed.has(name),
    disarm,
    within: (ms, value) => new Promise((resolve, reject) => {
      const name = {}
      // In the executor, so that what throws at once rejects as well.
      Promise.resolve(value()).finally(() => disarm(name)).then(resolve, reject)
      arm(name, ms, () => reject(new Error(`No answer within ${ms} ms.`)))
    })
  }
}
