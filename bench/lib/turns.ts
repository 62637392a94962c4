// Paired turns: machines drift by tens of percent from minute to minute, so each short turn of a
// server follows one of the yardstick, and what counts is the ratio within the pair. Reported are
// the median and the quartiles of the ratios.

import type { Work } from '../load.js'
import type { Server } from './servers.js'
import { median, quantile, spread } from './stats.js'

export interface Measured {
  cpuUs: number
  /**
   * Shares of one core that the server and the generator used; a generator near 1 is the bottleneck
   * itself.
   */
  serverLoad: number
  generatorLoad: number
  perSecond: number
  p50Ms: number
  p99Ms: number
}

export interface Figures {
  [name: string]: number
}

export interface Row {
  server: string
  figures: Figures
}

/**
 * Runs work against a server and charges each count with the CPU time that the server's process
 * spent meanwhile.
 */
export async function measure (server: Server, work: () => Promise<Work>): Promise<Measured> {
  const before = await server.cpuUs()
  const generatorBefore = process.cpuUsage()
  const startedAtMs = performance.now()
  const { count, latency } = await work()
  const spentUs = await server.cpuUs() - before
  const elapsedMs = performance.now() - startedAtMs
  const generator = process.cpuUsage(generatorBefore)
  return {
    cpuUs: spentUs / count,
    serverLoad: spentUs / 1000 / elapsedMs,
    generatorLoad: (generator.user + generator.system) / 1000 / elapsedMs,
    perSecond: count / elapsedMs * 1000,
    p50Ms: latency.quantileMs(0.5),
    p99Ms: latency.quantileMs(0.99)
  }
}

export type Turn = () => Promise<Measured>

export interface Pairs {
  yardstick: Measured[]
  candidate: Measured[]
}

/** Alternates the two, yardstick first, after one turn of each that is not counted. */
export async function pairedTurns (turns: number, yardstick: Turn, candidate: Turn): Promise<Pairs> {
  const pairs: Pairs = { yardstick: [], candidate: [] }
  await yardstick()
  await candidate()
  for (let i = 0; i < turns; i++) {
    pairs.yardstick.push(await yardstick())
    pairs.candidate.push(await candidate())
  }
  return pairs
}

/**
 * `ratio` is the median of the ratios within pairs, `ratio q1` and `q3` their quartiles; `ratio lq`
 * is the ratio of the lower quartiles of both, which a disturbed turn moves least.
 */
export function summarise (measured: readonly Measured[], against: readonly Measured[]): Figures {
  const ratio = spread(measured.map(({ cpuUs }, i) => cpuUs / against[i]!.cpuUs))
  function of (member: keyof Measured): number {
    return median(measured.map(turn => turn[member]))
  }
  return {
    'cpu us': of('cpuUs'),
    'ratio q1': ratio.lower,
    ratio: ratio.median,
    'ratio q3': ratio.upper,
    'ratio lq': quantile(measured.map(turn => turn.cpuUs), 0.25) / quantile(against.map(turn => turn.cpuUs), 0.25),
    'per s': of('perSecond'),
    'p50 ms': of('p50Ms'),
    'p99 ms': of('p99Ms'),
    'server load': of('serverLoad'),
    'generator load': of('generatorLoad')
  }
}
