// What session stores do, as metrics: what every store is asked for, and what the embedded and the
// Redis store count of themselves. A store of the application's own has the first part.

import type { Registry } from 'prom-client'
import type { Committer } from '../../src/io/session/committer.js'
import { COMMIT_BOUNDS_MS, COMMIT_BOUNDS_OUTPUTS } from '../../src/io/session/commit-stats.js'
import type { SessionTotals } from '../../src/io/session/runtime.js'
import type { SessionStore } from '../../src/io/session/store.js'
import type { EmbeddedStore } from '../../src/stores/embedded/store.js'
import type { RedisStore } from '../../src/stores/redis/store.js'
import { each, plain, registerHistogram, registerRows, type Row, type Sample } from './rows.js'

export interface StoreSources {
  store: SessionStore
  committer: Committer
  totals: SessionTotals
  /** Sessions whose inbox is being read; of a node whose store others share. */
  readInboxes: (() => number) | undefined
}

interface Sources extends StoreSources {
  embedded: EmbeddedStore | undefined
  redis: RedisStore | undefined
}

const HEALTHS = ['ok', 'degraded', 'fenced'] as const

/** Samples of a store that is in use, and none of one that is not. */
function of<T> (source: T | undefined, read: (source: T) => Sample[]): Sample[] {
  return source === undefined ? [] : read(source)
}

const COMMON: Row<Sources>[] = [
  {
    name: 'holdfast_store_available',
    type: 'gauge',
    help: 'Whether the session store keeps what it is given: 1 or 0.',
    read: ({ committer }) => plain(committer.isAvailable ? 1 : 0)
  },
  {
    name: 'holdfast_store_health',
    type: 'gauge',
    help: 'What the session store says of itself: 1 for the state it is in, 0 for the others.',
    labelNames: ['state'],
    read: ({ store }) => HEALTHS.map(state => ({ labels: { state }, value: store.health() === state ? 1 : 0 }))
  },
  {
    name: 'holdfast_store_commits_total',
    type: 'counter',
    help: 'Batches given to the session store, by its answer; none for the memory store.',
    labelNames: ['outcome'],
    read: ({ committer }) => each('outcome', committer.commits.outcomes)
  },
  {
    name: 'holdfast_store_backlog',
    type: 'gauge',
    help: 'Writes that wait for the session store to come back.',
    read: ({ committer }) => plain(committer.backlog)
  },
  {
    name: 'holdfast_sessions_lost_total',
    type: 'counter',
    help: 'Sessions that this node found to be in the hands of another (fenced), or of nobody (missing).',
    labelNames: ['reason'],
    read: ({ totals }) => each('reason', totals.lost)
  }
]

const EMBEDDED: Row<Sources>[] = [
  {
    name: 'holdfast_store_journal_bytes',
    type: 'gauge',
    help: 'Size of the files of the embedded store; absent where they cannot be seen.',
    async read ({ embedded }) {
      const bytes = await embedded?.size()
      return bytes === undefined ? [] : plain(bytes)
    }
  },
  {
    name: 'holdfast_store_written_bytes_total',
    type: 'counter',
    help: 'Written to the journal of the embedded store.',
    read: ({ embedded }) => of(embedded, ({ stats }) => plain(stats.bytes))
  },
  {
    name: 'holdfast_store_writes_total',
    type: 'counter',
    help: 'Writes to the journal of the embedded store; each holds what came together.',
    labelNames: ['outcome'],
    read: ({ embedded }) => of(embedded, ({ stats }) => each('outcome', { ok: stats.groups, failed: stats.failures }))
  }
]

const REDIS: Row<Sources>[] = [
  {
    name: 'holdfast_store_calls_waiting',
    type: 'gauge',
    help: 'Calls to Redis without an answer.',
    read: ({ redis }) => of(redis, ({ pending }) => plain(pending.calls))
  },
  {
    name: 'holdfast_store_calls_refused_total',
    type: 'counter',
    help: 'Calls that were not sent, since too many waited.',
    read: ({ redis }) => of(redis, ({ refused }) => plain(refused))
  },
  {
    name: 'holdfast_store_claims_total',
    type: 'counter',
    help: 'Sessions that this node asked the store for, since their client came here, by the answer.',
    labelNames: ['outcome'],
    read: ({ redis }) => of(redis, ({ stats }) => each('outcome', stats.claims))
  },
  {
    name: 'holdfast_store_hand_offs_total',
    type: 'counter',
    help: 'Sessions that another node was asked for: released by it, or taken since it did not answer in time.',
    labelNames: ['outcome'],
    read: ({ redis }) => of(redis, ({ stats: { handOffs: { released, taken } } }) => each('outcome', {
      released, taken
    }))
  },
  {
    name: 'holdfast_store_hand_off_requests_total',
    type: 'counter',
    help: 'Sessions that another node asked for: given to it, kept, or gone when it asked.',
    labelNames: ['outcome'],
    read: ({ redis }) => of(redis, ({ stats }) => each('outcome', stats.requests))
  },
  {
    name: 'holdfast_store_pushes_total',
    type: 'counter',
    help: 'Messages for sessions that this node does not own: sequenced, queued in an inbox, or refused.',
    labelNames: ['outcome'],
    read: ({ redis }) => of(redis, ({ stats }) => each('outcome', stats.pushes))
  },
  {
    name: 'holdfast_store_inboxes',
    type: 'gauge',
    help: 'Sessions of this node with something in their inbox that it was told of and has not read to the end.',
    read: ({ readInboxes }) => of(readInboxes, read => plain(read()))
  },
  {
    name: 'holdfast_store_inbox_entries_total',
    type: 'counter',
    help: 'Messages that this node read from the inboxes of its sessions.',
    read: ({ redis }) => of(redis, ({ stats }) => plain(stats.inboxEntries))
  },
  {
    name: 'holdfast_store_node_deaths_total',
    type: 'counter',
    help: 'How often the others took this node for dead.',
    read: ({ redis }) => of(redis, ({ stats }) => plain(stats.lives - 1))
  },
  {
    name: 'holdfast_store_sessions_orphaned_total',
    type: 'counter',
    help: 'Sessions of dead nodes that this node made ownerless.',
    read: ({ redis }) => of(redis, ({ stats }) => plain(stats.orphaned))
  },
  {
    name: 'holdfast_store_sessions_expired_total',
    type: 'counter',
    help: 'Sessions without an owner that this node ended.',
    read: ({ redis }) => of(redis, ({ stats }) => plain(stats.expired))
  }
]

export function collectStoreMetrics (registry: Registry, given: StoreSources): void {
  const { store, committer: { commits } } = given
  const sources: Sources = {
    ...given,
    embedded: isEmbedded(store) ? store : undefined,
    redis: isRedis(store) ? store : undefined
  }
  const { embedded } = sources
  registerRows(registry, [...COMMON, ...EMBEDDED, ...REDIS], sources)
  const keeps = store.traits.survives !== 'nothing'
  registerHistogram(registry, {
    name: 'holdfast_store_commit_duration_seconds',
    help: 'Time from giving a batch to the session store to its answer.',
    bounds: COMMIT_BOUNDS_MS.map(bound => bound / 1000),
    read: () => keeps ? [{ labels: {}, counts: commits.durations, sum: commits.durationSumMs / 1000 }] : []
  })
  registerHistogram(registry, {
    name: 'holdfast_store_commit_outputs',
    help: 'Outputs in a batch.',
    bounds: COMMIT_BOUNDS_OUTPUTS,
    read: () => keeps ? [{ labels: {}, counts: commits.sizes, sum: commits.outputs }] : []
  })
  registerHistogram(registry, {
    name: 'holdfast_store_write_duration_seconds',
    help: 'Time of a write to the journal of the embedded store.',
    bounds: embedded?.stats.writeBounds ?? [],
    read () {
      if (embedded === undefined) return []
      const { writeBuckets, writeSeconds } = embedded.stats
      return [{ labels: {}, counts: writeBuckets, sum: writeSeconds }]
    }
  })
}

/** A store of the application's own may count what it likes under the same name. */
function statsOf (store: SessionStore): object {
  const { stats } = store as { stats?: unknown }
  return typeof stats === 'object' && stats !== null ? stats : {}
}

function isEmbedded (store: SessionStore): store is EmbeddedStore {
  return 'writeBuckets' in statsOf(store)
}

function isRedis (store: SessionStore): store is RedisStore {
  return 'handOffs' in statsOf(store)
}
