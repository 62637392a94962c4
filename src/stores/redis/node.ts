// What the parts of the store share: the present life of this node, what it owns, and the way to
// the server.

import type { Clock, Millis, SessionId, UserId } from '../../io/types.js'
import type { Fence } from '../../io/session/store.js'
import type { NodeId, SharedStoreHooks } from '../../io/session/shared-store.js'
import type { Gate } from './gate.js'
import type { Layout } from './layout.js'
import type { Scheduler } from './redis-port.js'

/** Bounds of the deployment; the same on every node. */
export interface StoreLimits {
  readonly resumeWindowMs: Millis
  readonly idleTimeoutMs: Millis
  /** A session that its client may not know of is kept so long (P-36b). */
  readonly unheardWindowMs: Millis
  /** 0: no limit. */
  readonly maxSessionsPerUser: number
  readonly outboxMessages: number
  readonly outboxBytes: number
  readonly tombstoneMs: Millis
}

/** Totals since the start, for metrics. */
export interface StoreStats {
  commits: { kept: number, fenced: number, missing: number, gap: number, unavailable: number }
  claims: { claimed: number, ended: number, unknown: number, moved: number, unavailable: number }
  /** Of other nodes' sessions: how often their owner was asked, and whether it let go in time. */
  handOffs: { asked: number, released: number, taken: number }
  /** Of this node's sessions that others asked for: given up, kept, or not here any more. */
  requests: { given: number, kept: number, gone: number }
  pushes: { sequenced: number, queued: number, duplicate: number, full: number, missing: number, unavailable: number }
  outputs: number
  /** Entries that were read from inboxes. */
  inboxEntries: number
  evicted: number
  orphaned: number
  expired: number
  lives: number
}

export function createStats (): StoreStats {
  return {
    commits: { kept: 0, fenced: 0, missing: 0, gap: 0, unavailable: 0 },
    claims: { claimed: 0, ended: 0, unknown: 0, moved: 0, unavailable: 0 },
    handOffs: { asked: 0, released: 0, taken: 0 },
    requests: { given: 0, kept: 0, gone: 0 },
    pushes: { sequenced: 0, queued: 0, duplicate: 0, full: 0, missing: 0, unavailable: 0 },
    outputs: 0,
    inboxEntries: 0,
    evicted: 0,
    orphaned: 0,
    expired: 0,
    lives: 1
  }
}

export interface RedisNode {
  /** Changes when the node was taken for dead. */
  id: NodeId
  readonly hooks: SharedStoreHooks
  readonly gate: Gate
  readonly layout: Layout
  readonly limits: StoreLimits
  readonly clock: Clock
  readonly scheduler: Scheduler
  readonly stats: StoreStats
  /** Number of the latest call that gives a session to this node. */
  lastCall: number
  /** What this node owns, as far as it knows. */
  readonly owned: Map<SessionId, Fence>
  /**
   * Calls without an answer that may have given a session to this node, by their number. They are
   * undone for a while; else nobody would know of the session while this node lives. The number is
   * kept with the session, so that undoing one call, however late, never undoes the next one.
   */
  readonly doubtful: Map<number, { readonly id: SessionId, readonly until: Millis }>
  readonly unlimitedUserId: UserId | undefined
  /**
   * Whether the server was away a moment ago. Then a node that lives may not listen yet: each makes
   * its connections anew in its own time.
   */
  wasAway(): boolean
  /** Whether the lease of a node is not over, as far as is known. */
  isAlive(node: NodeId): boolean
  /** Nodes whose lease is not over. */
  alive(): NodeId[]
}

/** Above it the eldest are left to the burial of this node. */
const MAX_DOUBTFUL = 10_000
const DOUBTFUL_MS = 60_000

export function doubt (node: RedisNode, id: SessionId, call: number): void {
  node.doubtful.set(call, { id, until: node.clock.now() + DOUBTFUL_MS })
  if (node.doubtful.size > MAX_DOUBTFUL) node.doubtful.delete(node.doubtful.keys().next().value as number)
}

/** The node has lost a session, or has given it up. */
export function disown (node: RedisNode, id: SessionId, fence: Fence): void {
  if (node.owned.get(id) === fence) node.owned.delete(id)
}
