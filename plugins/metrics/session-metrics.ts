// What the session server does, as metrics. Everything is read from the plain counters of the
// session manager, the dispatcher and the gateway when somebody scrapes; the hot path never calls a
// metrics library. Labels are words of the tables in src/io and names that the platform gave its
// commands: never a session id, a user id, or anything a client made up, so their number is
// bounded.

import type { Registry } from 'prom-client'
import type { Dispatcher } from '../../src/io/dispatcher/dispatcher.js'
import { DURATION_BOUNDS_MS } from '../../src/io/dispatcher/stats.js'
import type { Gateway } from '../../src/io/gateway/gateway.js'
import type { SessionManager } from '../../src/io/session/manager.js'
import { plain, registerHistogram, registerRows, type Row } from './rows.js'

/** What is counted of the public keys of a token issuer. */
export interface KeySetSource {
  /** Since the keys in use were fetched; undefined while there are none. */
  readonly ageMs: number | undefined
  readonly fetches: number
  readonly failures: number
}

export interface MetricSources {
  manager: SessionManager
  dispatcher: Dispatcher
  gateway: Gateway
  keySet: KeySetSource | undefined
}

const ROWS: Row<MetricSources>[] = [
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
    name: 'holdfast_bad_frames_total',
    type: 'counter',
    help: 'Malformed frames (P-6).',
    read: ({ gateway }) => plain(gateway.badFrames)
  }
]

export function collectSessionMetrics (registry: Registry, sources: MetricSources): void {
  registerRows(registry, ROWS, sources)
  registerHistogram(registry, {
    name: 'holdfast_command_duration_seconds',
    help: 'Time from taking a command in to its answer, by name.',
    bounds: DURATION_BOUNDS_MS.map(bound => bound / 1000),
    read: () => sources.dispatcher.stats.map(({ name: command, durations, durationSumMs }) => ({
      labels: { command }, counts: durations, sum: durationSumMs / 1000
    }))
  })
}
