// A node's part in a fleet: joins what the domain does with a shared store (src/io/cluster) to the
// timers of this process. It turns the store's ticks, and sends the clients of a node that cannot
// keep anything to others.

import { randomUUID } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import { createAsking, type Asking } from '../../src/io/cluster/asking.js'
import { createOwnership } from '../../src/io/cluster/ownership.js'
import type { SessionRuntime } from '../../src/io/session/runtime.js'
import type { SharedSessionStore, SharedStoreHooks } from '../../src/io/session/shared-store.js'
import type { Clock, Millis } from '../../src/io/types.js'

export interface MembershipOptions {
  sessions: SessionRuntime
  store: SharedSessionStore
  clock: Clock
  log: FastifyBaseLogger
  delay: (ms: Millis) => Promise<unknown>
  yieldTurn: () => Promise<unknown>
}

export interface Membership {
  readonly hooks: Omit<SharedStoreHooks, 'restore' | 'bury' | 'healthChanged'>
  readonly asking: Asking
  readonly store: SharedSessionStore
  /** Sessions whose inbox is being read. */
  readonly inboxes: number
  /** Gives up every session of this node, and stops the ticks. */
  leave(): Promise<void>
}

const TICK_MS = 1000
/**
 * A store that is away for longer sends the clients of this node elsewhere: others may reach it.
 * Above a failover, which should cost nobody his connection; below the life of a lease.
 */
const AWAY_MS = 10_000
/** What the store may take to answer that sessions were given up. */
const LEAVE_MS = 5000

export function createMembership ({ sessions, store, clock, log, delay, yieldTurn }: MembershipOptions): Membership {
  const ownership = createOwnership({ sessions, store, log, delay, yieldTurn })
  const asking = createAsking({ tell: store.tell, log, delay, createId: randomUUID })
  let keptAt = clock.now()
  let isTold = false

  async function watch (): Promise<void> {
    if (store.health() === 'ok') {
      keptAt = clock.now()
      isTold = false
    } else if (!isTold && clock.now() - keptAt > AWAY_MS) {
      isTold = true
      const connections = await ownership.dismissAll()
      log.error({ connections }, 'session store is away, clients are sent to other nodes')
    }
  }

  const ticks = setInterval(() => {
    void store.tick()
    void watch()
  }, TICK_MS)
  ticks.unref()

  return {
    hooks: { ...ownership.hooks, told: asking.told },
    asking,
    store,
    get inboxes () { return ownership.inboxes },
    async leave () {
      await ownership.partFromAll(LEAVE_MS)
      clearInterval(ticks)
    }
  }
}
