// What the application hears. News wait until everything that belongs to an event has been done, so
// a handler finds the final state, may call whatever it likes, and hears of that afterwards.

import type { SessionEvents } from './api.js'

export type Handler = (...args: never[]) => void

export interface News {
  /** Returns a function that unsubscribes. */
  on (key: string, handler: Handler): () => void
  tell<K extends keyof SessionEvents> (type: K, event: SessionEvents[K]): void
  /** Adds to what is to be told: any step, such as what follows the handlers of an output. */
  post (step: () => void): void
  /**
   * Calls the handlers of a key. One that throws keeps neither the others nor the session from
   * going on.
   */
  call (key: string, ...args: unknown[]): void
  /** Tells all there is, and what is added meanwhile. */
  publish (): void
}

export function createNews (): News {
  const handlers = new Map<string, Set<Handler>>()
  const steps: Array<() => void> = []
  let isTelling = false

  const news: News = {
    on (key, handler) {
      // Wrapped, so that a handler registered twice is called twice and removed once.
      const own: Handler = (...args) => handler(...args)
      const set = handlers.get(key) ?? new Set()
      handlers.set(key, set.add(own))
      return () => { set.delete(own) }
    },
    tell: (type, event) => news.post(() => news.call(`on ${type}`, event)),
    post: step => { steps.push(step) },
    call (key, ...args) {
      for (const handler of [...handlers.get(key) ?? []]) {
        try {
          handler(...args as never[])
        } catch (cause) {
          if (key !== 'on error') {
            news.tell('error', { code: 'HANDLER_FAILED', message: `A handler failed: ${key}`, cause })
          }
        }
      }
    },
    publish () {
      if (isTelling) return
      isTelling = true
      for (let step = steps.shift(); step !== undefined; step = steps.shift()) step()
      isTelling = false
    }
  }
  return news
}
