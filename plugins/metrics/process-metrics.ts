// What the process costs, under the names that dashboards for Node.js expect. prom-client's own
// collection is not used: it starts an event loop histogram and an observer of the garbage
// collector that cannot be stopped, and what starts here stops here.

import { monitorEventLoopDelay, performance } from 'node:perf_hooks'
import { Counter, Gauge, type Registry } from 'prom-client'

const NS_PER_SECOND = 1e9
const MICROSECONDS_PER_SECOND = 1e6
const LAG_RESOLUTION_MS = 10
const LAG_QUANTILES = [0.5, 0.9, 0.99] as const

/** Registers the metrics of the process; returns what stops their collection. */
export function collectProcessMetrics (
  registry: Registry, { readLostLogLines }: { readLostLogLines: () => number }
): () => void {
  const registers = [registry]
  const lag = monitorEventLoopDelay({ resolution: LAG_RESOLUTION_MS })
  lag.enable()
  let utilizationBefore = performance.eventLoopUtilization()

  const cpu = new Counter({
    name: 'process_cpu_seconds_total',
    help: 'CPU time of the process, user and system.',
    registers,
    collect () {
      const { user, system } = process.cpuUsage()
      cpu.reset()
      cpu.inc((user + system) / MICROSECONDS_PER_SECOND)
    }
  })
  const lostLogLines = new Counter({
    name: 'holdfast_log_lines_lost_total',
    help: 'Log lines that were lost, since what reads them has stalled.',
    registers,
    collect () {
      lostLogLines.reset()
      lostLogLines.inc(readLostLogLines())
    }
  })
  const started = new Gauge({
    name: 'process_start_time_seconds',
    help: 'Start of the process, in seconds since 1970-01-01 UTC.',
    registers
  })
  started.set(Math.round(performance.timeOrigin / 1000))

  const resident = new Gauge({
    name: 'process_resident_memory_bytes',
    help: 'Memory of the process that is in RAM.',
    registers,
    collect () {
      const { rss, heapTotal, heapUsed, external } = process.memoryUsage()
      resident.set(rss)
      heapSize.set(heapTotal)
      heapInUse.set(heapUsed)
      externalBytes.set(external)
    }
  })
  const heapSize = new Gauge({ name: 'nodejs_heap_size_total_bytes', help: 'Heap that V8 has reserved.', registers })
  const heapInUse = new Gauge({ name: 'nodejs_heap_size_used_bytes', help: 'Heap in use.', registers })
  const externalBytes = new Gauge({
    name: 'nodejs_external_memory_bytes',
    help: 'Memory outside of the heap that is bound to objects in it.',
    registers
  })

  const lagSeconds = new Gauge({
    name: 'nodejs_eventloop_lag_seconds',
    help: 'Delay of the event loop since the last scrape, by quantile; 1 is the longest.',
    labelNames: ['quantile'],
    registers,
    collect () {
      for (const quantile of LAG_QUANTILES) lagSeconds.set({ quantile }, delayOf(lag.percentile(quantile * 100)))
      lagSeconds.set({ quantile: 1 }, delayOf(lag.max))
      lag.reset()
    }
  })
  const utilization = new Gauge({
    name: 'nodejs_eventloop_utilization',
    help: 'Share of time since the last scrape in which the event loop was busy, 0 to 1.',
    registers,
    collect () {
      const now = performance.eventLoopUtilization()
      utilization.set(performance.eventLoopUtilization(now, utilizationBefore).utilization)
      utilizationBefore = now
    }
  })
  const version = new Gauge({
    name: 'nodejs_version_info', help: 'Version of Node.js; always 1.', labelNames: ['version'], registers
  })
  version.set({ version: process.version }, 1)

  return () => { lag.disable() }
}

/** The histogram holds the time between two looks; what is above their distance is delay. */
function delayOf (betweenNs: number): number {
  return Math.max(0, betweenNs / NS_PER_SECOND - LAG_RESOLUTION_MS / 1000)
}
