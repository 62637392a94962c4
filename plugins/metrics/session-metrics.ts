// What the session server does, as metrics. Everything is read from the plain counters of the
// session manager, the dispatcher and the gateway when somebody scrapes; the hot path never calls a
// metrics library. Labels are words of the tables in src/io and names that the platform gave its
// commands: never a session id, a user id, or anything a client made up, so their number is
// bounded.

import { Counter, Gauge, type Metric, type Registry } from 'prom-client'
import type { Dispatcher } from '../../src/io/dispatcher/dispatcher.js'
import { DURATION_BOUNDS_MS, type CommandStats } from '../../src/io/dispatcher/stats.js'
import type { Gateway } from '../../src/io/gateway/gateway.js'
import type { Committer } from '../../src/io/session/committer.js'
import type { SessionManager } from '../../src/io/session/manager.js'

/** What is counted of the public keys of a token issuer. */
export interface KeySetSource {
  /** Since the keys in use were fetched; undefined while there are none. */
  readonly ageMs: number | undefined
  readonly fetches: number
  readonly failures: number
}

/** What the embedded store counts. */
export interface JournalStats {
  readonly groups: number
  readonly failures: number
  readonly bytes: number
  readonly writeSeconds: number
}

export interface MetricSources {
  manager: SessionManager
  committer: Committer
  /** Of the embedded store. */
  journal: JournalStats | undefined
  dispatcher: Dispatcher
  gateway: Gateway
  keySet: KeySetSource | undefined
}

interface Sample { labels: Record<string, string | number>, value: number }

interface Row {
  name: string
  type: 'counter' | 'gauge'
  help: string
  labelNames?: string[]
  read(sources: MetricSources): Iterable<Sample>
}

const plain = (value: number): Sample[] => [{ labels: {}, value }]

const ROWS: Row[] = [
  {
    name: 'holdfast_sessions',
    type: 'gauge',
    help: 'Sessions now: active with a connection, detached without.',
    labelNames: ['state'],
    read ({ manager }) {
      const { active, detached } = manager.countSessions()
      return [{ labels: { state: 'active' }, value: active }, { labels: { state: 'detached' }, value: detached }]
    }
  },
  {
    name: 'holdfast_sessions_created_total',
    type: 'counter',
    help: 'Sessions created.',
    read: ({ manager }) => plain(manager.totals.created)
  },
  {
    name: 'holdfast_sessions_ended_total',
    type: 'counter',
    help: 'Sessions ended, by reason.',
    labelNames: ['reason'],
    read: ({ manager }) => Object.entries(manager.totals.ended).map(([reason, value]) => ({
      labels: { reason },
      value
    }))
  },
  {
    name: 'holdfast_sessions_attached_total',
    type: 'counter',
    help: 'Connections that joined a session.',
    read: ({ manager }) => plain(manager.totals.attached)
  },
  {
    name: 'holdfast_sessions_detached_total',
    type: 'counter',
    help: 'Connections that left a session.',
    read: ({ manager }) => plain(manager.totals.detached)
  },
  {
    name: 'holdfast_resumes_total',
    type: 'counter',
    help: 'Resumes asked for: ok, or refused with a new session instead (P-33).',
    labelNames: ['outcome'],
    read: ({ manager: { totals } }) => [
      { labels: { outcome: 'ok' }, value: totals.resumed },
      { labels: { outcome: 'refused' }, value: totals.resumeRefused }
    ]
  },
  {
    name: 'holdfast_outbox_bytes',
    type: 'gauge',
    help: 'Outputs held until acknowledged, over all sessions.',
    read: ({ manager }) => plain(manager.countSessions().outboxBytes)
  },
  {
    name: 'holdfast_outputs_total',
    type: 'counter',
    help: 'Outputs given a seq.',
    read: ({ manager }) => plain(manager.totals.outputs)
  },
  {
    name: 'holdfast_outputs_dropped_total',
    type: 'counter',
    help: 'Outputs dropped unacknowledged because an outbox was full (P-25).',
    read: ({ manager }) => plain(manager.totals.outputsDropped)
  },
  {
    name: 'holdfast_commands_total',
    type: 'counter',
    help: 'Commands answered, by name and outcome. Names that nobody registered are counted as (unknown), those of ' +
      'an HTTP core as (core).',
    labelNames: ['command', 'outcome'],
    * read ({ dispatcher }) {
      for (const { name: command, outcomes } of dispatcher.stats) {
        for (const [outcome, value] of Object.entries(outcomes)) yield { labels: { command, outcome }, value }
      }
    }
  },
  {
    name: 'holdfast_commands_refused_total',
    type: 'counter',
    help: 'Commands refused and not executed, by code (P-16).',
    labelNames: ['code'],
    read: ({ dispatcher }) => Object.entries(dispatcher.refusals).map(([code, value]) => ({ labels: { code }, value }))
  },
  {
    name: 'holdfast_commands_duplicate_total',
    type: 'counter',
    help: 'Commands recognised as repeats and not executed again (P-12).',
    read: ({ dispatcher }) => plain(dispatcher.duplicates)
  },
  {
    name: 'holdfast_commands_in_flight',
    type: 'gauge',
    help: 'Commands accepted and not yet answered.',
    read: ({ dispatcher }) => plain(dispatcher.inFlight)
  },
  {
    name: 'holdfast_connections',
    type: 'gauge',
    help: 'Open connections.',
    read: ({ gateway }) => plain(gateway.connections)
  },
  {
    name: 'holdfast_connections_closed_total',
    type: 'counter',
    help: 'Connections closed, by close code; 0 for codes that a client made up.',
    labelNames: ['code'],
    read: ({ gateway }) => Array.from(gateway.closes, ([code, value]) => ({ labels: { code }, value }))
  },
  {
    name: 'holdfast_jwks_age_seconds',
    type: 'gauge',
    help: 'Time since the keys of the token issuer were fetched; absent without keys.',
    read: ({ keySet }) => keySet?.ageMs === undefined ? [] : plain(keySet.ageMs / 1000)
  },
  {
    name: 'holdfast_jwks_fetches_total',
    type: 'counter',
    help: 'Attempts to fetch the keys of the token issuer.',
    labelNames: ['outcome'],
    read: ({ keySet }) => keySet === undefined
      ? []
      : [
          { labels: { outcome: 'ok' }, value: keySet.fetches },
          { labels: { outcome: 'failed' }, value: keySet.failures }
        ]
  },
  {
    name: 'holdfast_store_available',
    type: 'gauge',
    help: 'Whether the session store keeps what it is given: 1 or 0.',
    read: ({ committer }) => plain(committer.isAvailable ? 1 : 0)
  },
  {
    name: 'holdfast_store_commits_total',
    type: 'counter',
    help: 'Batches given to the session store, by its answer; none for the memory store.',
    labelNames: ['outcome'],
    read: ({ committer }) => Object.entries(committer.commits).map(([outcome, value]) => ({
      labels: { outcome },
      value
    }))
  },
  {
    name: 'holdfast_store_backlog',
    type: 'gauge',
    help: 'Writes that wait for the session store to come back.',
    read: ({ committer }) => plain(committer.backlog)
  },
  {
    name: 'holdfast_store_written_bytes_total',
    type: 'counter',
    help: 'Written to the journal of the embedded store.',
    read: ({ journal }) => journal === undefined ? [] : plain(journal.bytes)
  },
  {
    name: 'holdfast_store_writes_total',
    type: 'counter',
    help: 'Writes to the journal of the embedded store; each holds what came together.',
    labelNames: ['outcome'],
    read: ({ journal }) => journal === undefined
      ? []
      : [
          { labels: { outcome: 'ok' }, value: journal.groups },
          { labels: { outcome: 'failed' }, value: journal.failures }
        ]
  },
  {
    name: 'holdfast_store_write_seconds_total',
    type: 'counter',
    help: 'Time that those writes took.',
    read: ({ journal }) => journal === undefined ? [] : plain(journal.writeSeconds)
  },
  {
    name: 'holdfast_bad_frames_total',
    type: 'counter',
    help: 'Malformed frames (P-6).',
    read: ({ gateway }) => plain(gateway.badFrames)
  }
]

const DURATION_NAME = 'holdfast_command_duration_seconds'

export function collectSessionMetrics (registry: Registry, sources: MetricSources): void {
  for (const { name, type, help, labelNames = [], read } of ROWS) {
    const options = { name, help, labelNames, registers: [registry] }
    if (type === 'gauge') {
      const gauge: Gauge = new Gauge({
        ...options,
        collect () { for (const { labels, value } of read(sources)) gauge.set(labels, value) }
      })
    } else {
      const counter: Counter = new Counter({
        ...options,
        collect () {
          // The total is kept elsewhere; here it is only shown.
          counter.reset()
          for (const { labels, value } of read(sources)) counter.inc(labels, value)
        }
      })
    }
  }
  registry.registerMetric(durationHistogram(sources.dispatcher) as unknown as Metric)
}

/**
 * A histogram of counts that are there already. prom-client's own can only observe one value after
 * the other; the registry asks no more than this of a metric.
 */
function durationHistogram (dispatcher: Dispatcher) {
  const help = 'Time from taking a command in to its answer, by name.'
  return {
    name: DURATION_NAME,
    help,
    reset () {},
    get: async () => ({
      name: DURATION_NAME,
      help,
      type: 'histogram',
      aggregator: 'sum',
      values: dispatcher.stats.flatMap(durationSamples)
    })
  }
}

function durationSamples ({
  name: command, durations, durationSumMs
}: CommandStats): Array<Sample & { metricName: string }> {
  let count = 0
  const samples = durations.map((inBucket, i) => {
    count += inBucket
    const bound = DURATION_BOUNDS_MS[i]
    return {
      metricName: `${DURATION_NAME}_bucket`,
      labels: { command, le: bound === undefined ? '+Inf' : bound / 1000 },
      value: count
    }
  })
  return [
    ...samples,
    { metricName: `${DURATION_NAME}_sum`, labels: { command }, value: durationSumMs / 1000 },
    { metricName: `${DURATION_NAME}_count`, labels: { command }, value: count }
  ]
}
