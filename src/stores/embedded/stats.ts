// What an embedded store has done, for metrics: plain numbers that only rise.

/** Upper bounds of the buckets, in seconds; the last bucket is everything above. */
export const WRITE_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5] as const

export type Outcome = 'kept' | 'created' | 'ended' | 'exists' | 'fenced' | 'missing' | 'gap' | 'unavailable'

export interface EmbeddedStats {
  /** Answers to create, commit and end. */
  readonly answers: Record<Outcome, number>
  /** Groups that went to the journal, and the writes, puts and deletes, and characters in them. */
  groups: number
  writes: number
  operations: number
  bytes: number
  /** Groups that were not kept. */
  failures: number
  /** WRITE_SECONDS. */
  readonly writeBounds: readonly number[]
  /** Groups by the time their write took; one more than there are bounds. */
  readonly writeBuckets: number[]
  writeSeconds: number
  /** Sessions and tombstones at the moment. */
  readonly sessions: number
  readonly tombstones: number
}

export type StatsCounters = Omit<EmbeddedStats, 'sessions' | 'tombstones'>

export function createStats (): StatsCounters {
  return {
    answers: { kept: 0, created: 0, ended: 0, exists: 0, fenced: 0, missing: 0, gap: 0, unavailable: 0 },
    groups: 0,
    writes: 0,
    operations: 0,
    bytes: 0,
    failures: 0,
    writeBounds: WRITE_SECONDS,
    writeBuckets: Array.from({ length: WRITE_SECONDS.length + 1 }, () => 0),
    writeSeconds: 0
  }
}

export function countWrite (stats: StatsCounters, group: { operations: number, size: number }, seconds: number): void {
  stats.groups++
  stats.operations += group.operations
  stats.bytes += group.size
  stats.writeSeconds += seconds
  const bucket = WRITE_SECONDS.findIndex(bound => seconds <= bound)
  const at = bucket === -1 ? WRITE_SECONDS.length : bucket
  stats.writeBuckets[at] = (stats.writeBuckets[at] ?? 0) + 1
}
