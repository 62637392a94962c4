// A stand-in for the AI platform behind the desk: drafts that wait for a human, and the record of
// what was decided. It lives in memory and knows neither sockets nor sessions, so it outlives a
// restart of the server in front of it, as a real platform does.
//
// Kept true: a draft is decided once; whoever comes second is told ALREADY_DECIDED. `calls` lists
// every execution, also those, with the number of its command, so that it can be proved that
// nothing ran twice. `feed` adds one draft; when to feed is decided by the caller.

import { commandError } from '../../src/io/errors.js'
import type { Decision, Desk, Draft, Verdict } from './commands.js'
import { DRAFTS } from './drafts.js'

export interface Order {
  readonly draft: number
  readonly verdict: Verdict
  readonly reason: string | null
  readonly reviewer: string
  readonly sessionId: string
  /** Number of the command in its session; null for one without a number. */
  readonly command: number | null
}

export type PlatformEvent =
  | { readonly type: 'draft.added', readonly payload: Draft }
  | { readonly type: 'draft.decided', readonly payload: Decision }

export interface PlatformOptions {
  /** What a decision takes before it is recorded; default: nothing. */
  work?: () => Promise<void>
  /** Drafts that wait at most; `feed` adds none beyond. Default 40. */
  maxWaiting?: number
  /** Milliseconds since 1970-01-01 UTC. */
  now?: () => number
}

export interface Platform {
  /** Every execution of a decision in its order, the refused ones too. */
  readonly calls: readonly Order[]
  /** Oldest first, one for each draft. */
  readonly decisions: readonly Decision[]
  /** The next draft of the catalogue; undefined while as many wait as may. */
  feed(): Draft | undefined
  view(): Desk
  /**
   * Records a decision and tells everyone.
   *
   * @throws NO_SUCH_DRAFT, ALREADY_DECIDED
   */
  decide(order: Order): Promise<Decision>
  subscribe(listener: (event: PlatformEvent) => void): () => void
}

/** Decisions that `view` tells of. */
const RECENT = 50

export function createPlatform ({
  work = async () => {}, maxWaiting = 40, now = Date.now
}: PlatformOptions = {}): Platform {
  const waiting = new Map<number, Draft>()
  const decided = new Map<number, Decision>()
  const calls: Order[] = []
  const listeners = new Set<(event: PlatformEvent) => void>()
  let fed = 0

  function tell (event: PlatformEvent): void {
    for (const listener of listeners) listener(event)
  }

  return {
    calls,
    get decisions () { return [...decided.values()] },

    feed () {
      const text = DRAFTS[fed % DRAFTS.length]
      if (text === undefined || waiting.size >= maxWaiting) return undefined
      const draft: Draft = { id: ++fed, at: now(), ...text }
      waiting.set(draft.id, draft)
      tell({ type: 'draft.added', payload: draft })
      return draft
    },

    view: () => ({
      waiting: [...waiting.values()],
      decided: [...decided.values()].slice(-RECENT),
      total: decided.size
    }),

    async decide (order) {
      calls.push(order)
      await work()
      const draft = waiting.get(order.draft)
      if (draft === undefined) {
        const earlier = decided.get(order.draft)
        if (earlier === undefined) throw commandError('NO_SUCH_DRAFT', `There is no draft ${order.draft}.`)
        throw commandError('ALREADY_DECIDED', `Draft ${order.draft} was ${earlier.verdict} before.`)
      }
      const decision: Decision = { ...order, topic: draft.topic, at: now() }
      waiting.delete(order.draft)
      decided.set(order.draft, decision)
      tell({ type: 'draft.decided', payload: decision })
      return decision
    },

    subscribe (listener) {
      listeners.add(listener)
      return () => { listeners.delete(listener) }
    }
  }
}
