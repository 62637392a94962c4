// Quantiles of few figures (turns of a run) and of very many (latencies of a turn).

export interface Spread {
  lower: number
  median: number
  upper: number
}

/** The quantile `q` (0 to 1) of a list, between neighbours linearly; NaN for an empty list. */
export function quantile (values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (sorted.length - 1) * q
  const below = sorted[Math.floor(at)]
  const above = sorted[Math.ceil(at)]
  if (below === undefined || above === undefined) return NaN
  return below + (above - below) * (at - Math.floor(at))
}

export function median (values: readonly number[]): number {
  return quantile(values, 0.5)
}

/** Median and quartiles. */
export function spread (values: readonly number[]): Spread {
  return { lower: quantile(values, 0.25), median: median(values), upper: quantile(values, 0.75) }
}

export interface Histogram {
  /** Adds a duration in milliseconds. */
  add(durationMs: number): void
  /** The quantile in milliseconds, within 1 %; NaN without values. */
  quantileMs(q: number): number
  readonly count: number
}

const BUCKETS_PER_E = 100
const LOWEST_MS = 0.001
const BUCKETS = 2100

/**
 * Logarithmic buckets of 1 % from 1 µs to 20 minutes: constant memory, some nanoseconds per value.
 */
export function createHistogram (): Histogram {
  const buckets = new Uint32Array(BUCKETS)
  let count = 0
  return {
    add (durationMs) {
      const bucket = durationMs <= LOWEST_MS ? 0 : Math.round(Math.log(durationMs / LOWEST_MS) * BUCKETS_PER_E)
      buckets[Math.min(bucket, BUCKETS - 1)]!++
      count++
    },
    quantileMs (q) {
      let left = Math.ceil(count * q)
      if (count === 0) return NaN
      for (let bucket = 0; bucket < BUCKETS; bucket++) {
        left -= buckets[bucket]!
        if (left <= 0) return LOWEST_MS * Math.exp(bucket / BUCKETS_PER_E)
      }
      return NaN
    },
    get count () { return count }
  }
}
