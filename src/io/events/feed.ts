// The feed of lifecycle events. The manager appends while it changes state; subscribers are told at
// the end of the turn, when every change of the turn is final. So a subscriber may call whatever it
// likes, and no code below has to expect that its own caller's state moved underneath it.
//
// Invariants: every subscriber hears each event that was appended after it subscribed, once, in the
// order of the appends. A turn's events are bounded by the turn's changes; what ends or closes many
// sessions does so in slices.

import type { LifecycleEvent, Log } from '../types.js'

export interface FeedOptions {
  log: Log
  /** Runs a callback after the present turn and before other events. */
  defer: (callback: () => void) => void
}

export interface Feed {
  /** False while nobody subscribes: an event need not be made then. */
  readonly isHeard: boolean
  append(event: LifecycleEvent): void
  /**
   * Calls back for every event from now on; returns a function that unsubscribes. A subscriber that
   * throws is logged.
   */
  subscribe(subscriber: (event: LifecycleEvent) => void): () => void
}

export function createFeed ({ log, defer }: FeedOptions): Feed {
  const subscribers = new Set<(event: LifecycleEvent) => void>()
  let pending: LifecycleEvent[] = []

  function flush (): void {
    const events = pending
    pending = []
    for (const event of events) {
      for (const subscriber of subscribers) tell(subscriber, event)
    }
  }

  function tell (subscriber: (event: LifecycleEvent) => void, event: LifecycleEvent): void {
    try {
      subscriber(event)
    } catch (error) {
      log.error({ err: error, sid: event.sessionId, event: event.type }, 'lifecycle listener failed')
    }
  }

  return {
    get isHeard () { return subscribers.size > 0 },

    append (event) {
      if (pending.push(event) === 1) defer(flush)
    },

    subscribe (subscriber) {
      // Wrapped, so that a function that subscribes twice hears twice and leaves once.
      const own = (event: LifecycleEvent): void => subscriber(event)
      subscribers.add(own)
      return () => { subscribers.delete(own) }
    }
  }
}
