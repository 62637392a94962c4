// What is counted of the batches that a store is given, as plain numbers that metrics read. Nothing
// here runs where nothing survives, since no batch is given then.

import type { Millis } from '../types.js'
import type { CommitResult } from './store.js'

export type CommitOutcome = 'kept' | 'fenced' | 'missing' | 'unavailable' | 'gap'

export interface CommitStats {
  readonly outcomes: Record<CommitOutcome, number>
  /**
   * Batches by the time until their answer, whatever it was: one counter per bound of
   * COMMIT_BOUNDS_MS, and a last one for all above.
   */
  readonly durations: number[]
  durationSumMs: Millis
  /** Batches by the outputs in them; in the same way, by COMMIT_BOUNDS_OUTPUTS. */
  readonly sizes: number[]
  outputs: number
}

export const COMMIT_BOUNDS_MS = [0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500] as const
export const COMMIT_BOUNDS_OUTPUTS = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] as const

export function createCommitStats (): CommitStats {
  return {
    outcomes: { kept: 0, fenced: 0, missing: 0, unavailable: 0, gap: 0 },
    durations: new Array<number>(COMMIT_BOUNDS_MS.length + 1).fill(0),
    durationSumMs: 0,
    sizes: new Array<number>(COMMIT_BOUNDS_OUTPUTS.length + 1).fill(0),
    outputs: 0
  }
}

export function countCommit (stats: CommitStats, outputs: number, durationMs: Millis, result: CommitResult): void {
  stats.outcomes[typeof result === 'object' ? 'gap' : result]++
  stats.durationSumMs += durationMs
  stats.outputs += outputs
  countIn(stats.durations, COMMIT_BOUNDS_MS, durationMs)
  countIn(stats.sizes, COMMIT_BOUNDS_OUTPUTS, outputs)
}

function countIn (counters: number[], bounds: readonly number[], value: number): void {
  let bucket = 0
  while (bucket < bounds.length && value > (bounds[bucket] as number)) bucket++
  counters[bucket] = (counters[bucket] as number) + 1
}
