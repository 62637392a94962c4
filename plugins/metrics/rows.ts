// Metrics whose values are counted elsewhere, as plain numbers, and only shown here. prom-client's
// own metrics are told of each event; these are read when somebody scrapes.

import { Counter, Gauge, type Metric, type Registry } from 'prom-client'

export interface Sample { labels: Record<string, string | number>, value: number }

export interface Row<Sources> {
  name: string
  type: 'counter' | 'gauge'
  help: string
  labelNames?: string[]
  read(sources: Sources): Iterable<Sample> | Promise<Iterable<Sample>>
}

export const plain = (value: number): Sample[] => [{ labels: {}, value }]

/** One sample for each member. */
export function each (label: string, values: Readonly<Record<string, number>>): Sample[] {
  return Object.entries(values).map(([word, value]) => ({ labels: { [label]: word }, value }))
}

export function registerRows<Sources> (registry: Registry, rows: readonly Row<Sources>[], sources: Sources): void {
  for (const { name, type, help, labelNames = [], read } of rows) {
    const options = { name, help, labelNames, registers: [registry] }
    if (type === 'gauge') {
      const gauge: Gauge = new Gauge({
        ...options,
        async collect () {
          const samples = await read(sources)
          clear(gauge, labelNames)
          for (const { labels, value } of samples) gauge.set(labels, value)
        }
      })
    } else {
      const counter: Counter = new Counter({
        ...options,
        async collect () {
          const samples = await read(sources)
          // The total is kept elsewhere; here it is only shown. Nothing comes between: another
          // scrape would add the same once more.
          clear(counter, labelNames)
          for (const { labels, value } of samples) counter.inc(labels, value)
        }
      })
    }
  }
}

/** A metric without labels is 0 for prom-client when nothing was said of it; here it is absent. */
function clear (metric: Gauge | Counter, labelNames: readonly string[]): void {
  if (labelNames.length > 0) metric.reset()
  else metric.remove()
}

export interface Distribution {
  readonly labels: Record<string, string>
  /** One more than there are bounds: the last one counts what is above all of them. */
  readonly counts: readonly number[]
  readonly sum: number
}

export interface HistogramRow {
  name: string
  help: string
  /** Upper bounds of the buckets, included. */
  bounds: readonly number[]
  read(): readonly Distribution[]
}

/**
 * A histogram of counts that are there already. prom-client's own can only observe one value after
 * the other; the registry asks no more than this of a metric.
 */
export function registerHistogram (registry: Registry, { name, help, bounds, read }: HistogramRow): void {
  registry.registerMetric({
    name,
    help,
    reset () {},
    get: async () => ({
      name,
      help,
      type: 'histogram',
      aggregator: 'sum',
      values: read().flatMap(distribution => samplesOf(name, bounds, distribution))
    })
  } as unknown as Metric)
}

function samplesOf (
  name: string, bounds: readonly number[], { labels, counts, sum }: Distribution
): Array<Sample & { metricName: string }> {
  let count = 0
  const samples = counts.map((inBucket, i) => {
    count += inBucket
    return { metricName: `${name}_bucket`, labels: { ...labels, le: bounds[i] ?? '+Inf' }, value: count }
  })
  return [
    ...samples,
    { metricName: `${name}_sum`, labels, value: sum },
    { metricName: `${name}_count`, labels, value: count }
  ]
}
