// Values that may be promises: what is there at once goes on in the same turn.

import type { MaybePromise } from './types.js'

export function isPromise<T> (value: MaybePromise<T>): value is Promise<T> {
  return isThenable(value)
}

export function isThenable (value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
}

/** Goes on at once with a value, or when its promise settles. */
export function then<T, R> (value: T | PromiseLike<T>, next: (value: T) => R): R | Promise<Awaited<R>> {
  if (!isThenable(value)) return next(value as T)
  return Promise.resolve(value as PromiseLike<T>).then(next) as Promise<Awaited<R>>
}
