// What is counted of commands: outcomes and durations, as plain numbers that metrics read.

import type { Millis } from '../types.js'

export type CommandOutcome = 'ok' | 'error' | 'invalid' | 'timeout' | 'unknown'

/**
 * Counted per command name that the platform registered; what clients make up is counted under
 * `(unknown)`, the core's under `(core)`.
 */
export interface CommandStats {
  readonly name: string
  readonly outcomes: Record<CommandOutcome, number>
  /**
   * Answered commands by duration: one counter per bound of DURATION_BOUNDS_MS, and a last one for
   * all above.
   */
  readonly durations: number[]
  durationSumMs: Millis
}

export const DURATION_BOUNDS_MS = [1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000] as const

export function createCommandStats (name: string): CommandStats {
  return {
    name,
    outcomes: { ok: 0, error: 0, invalid: 0, timeout: 0, unknown: 0 },
    durations: new Array<number>(DURATION_BOUNDS_MS.length + 1).fill(0),
    durationSumMs: 0
  }
}

/** Counts an outcome with its duration, for a command that was started. */
export function countOutcome (stats: CommandStats, outcome: CommandOutcome, durationMs: Millis): void {
  const { outcomes, durations } = stats
  outcomes[outcome]++
  stats.durationSumMs += durationMs
  let bucket = 0
  while (bucket < DURATION_BOUNDS_MS.length && durationMs > (DURATION_BOUNDS_MS[bucket] as number)) bucket++
  durations[bucket] = (durations[bucket] as number) + 1
}
