// One process against two and four workers over one Redis: commands a second, CPU of all of their
// processes, and how even the workers' parts are. With --share each worker gets that part of a core
// and no more, so that two cores, which also carry Redis and the generator, can show what more
// cores would give. All servers live at once and take turns.
//
// Needs a Redis of its own at BENCH_REDIS_URL, and Linux; --share needs root as well.

import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { SMALL_PAYLOAD } from './lib/context.js'
import { table } from './lib/report.js'
import { KINDS, startServer } from './lib/servers.js'
import { median } from './lib/stats.js'
import { checkCrowd, closedLoop, dropCrowd, openCrowd } from './load.js'

const { values: flags } = parseArgs({
  options: {
    turns: { type: 'string', default: '9' },
    counts: { type: 'string', default: '1,2,4' },
    share: { type: 'string' }
  }
})
const CONNECTIONS = 64
const DEPTH = 4
const TURN_MS = 1500
/** Of a period so short that a worker which has used its part is not away for long. */
const PERIOD_US = 10_000
const CGROUPS = existsSync('/sys/fs/cgroup/cgroup.controllers') ? '/sys/fs/cgroup' : '/sys/fs/cgroup/cpu'

const isSecond = CGROUPS === '/sys/fs/cgroup'
const groups: string[] = []

function holdToShare (pid: number, share: number): void {
  const group = `${CGROUPS}/holdfast-bench-${pid}`
  const quotaUs = Math.round(share * PERIOD_US)
  mkdirSync(group)
  groups.push(group)
  if (isSecond) writeFileSync(`${group}/cpu.max`, `${quotaUs} ${PERIOD_US}`)
  else {
    writeFileSync(`${group}/cpu.cfs_period_us`, String(PERIOD_US))
    writeFileSync(`${group}/cpu.cfs_quota_us`, String(quotaUs))
  }
  writeFileSync(`${group}/cgroup.procs`, String(pid))
}

const childrenOf = (pid: number): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number)

/** Of all threads that live; in nanoseconds, where the usual counter has steps of 10 ms. */
function cpuUsOf (pid: number): number {
  let sumNs = 0
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    sumNs += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0])
  }
  return sumNs / 1000
}

async function prepare (workers: number) {
  const name = `holdfast-workers-${workers}`
  const kind = { ...KINDS.find(one => one.name === 'holdfast-redis')!, name, isPinned: false }
  const server = await startServer(kind, {
    HOLDFAST_WORKERS: String(workers),
    HOLDFAST_REDIS_PREFIX: `${name}-${process.pid}`,
    // The generator answers no pings, and waits for its turn.
    HOLDFAST_HEARTBEAT_SECONDS: '3600'
  })
  const serving = (): number[] => workers === 1 ? [server.pid] : childrenOf(server.pid)
  while (serving().length < workers) await delay(100)
  // From its start to its listening.
  await delay(5000)
  const pids = serving()
  const crowd = await openCrowd(server, CONNECTIONS, { payload: SMALL_PAYLOAD })
  await checkCrowd(crowd, SMALL_PAYLOAD)
  if (flags.share !== undefined) for (const pid of pids) holdToShare(pid, Number(flags.share))
  const rates: number[] = []
  const costsUs: number[] = []
  const evenness: number[] = []
  return {
    name,
    server,
    crowd,
    rates,
    costsUs,
    evenness,
    async turn () {
      const all = [...new Set([server.pid, ...pids])]
      const before = all.map(cpuUsOf)
      const startedAt = performance.now()
      const { count } = await closedLoop(crowd, DEPTH, TURN_MS)
      rates.push(count / (performance.now() - startedAt) * 1000)
      const usedUs = all.map((pid, i) => cpuUsOf(pid) - before[i]!)
      costsUs.push(usedUs.reduce((sum, us) => sum + us, 0) / count)
      const ofWorkers = usedUs.slice(-pids.length)
      evenness.push(Math.min(...ofWorkers) / Math.max(...ofWorkers))
    }
  }
}

const runners: Awaited<ReturnType<typeof prepare>>[] = []
for (const count of flags.counts.split(',')) runners.push(await prepare(Number(count)))
for (const { turn, rates, costsUs, evenness } of runners) {
  await turn()
  for (const figures of [rates, costsUs, evenness]) figures.length = 0
}
for (let i = 0; i < Number(flags.turns); i++) for (const { turn } of runners) await turn()
const first = runners[0]!
process.stdout.write(`${table(runners.map(({ name, rates, costsUs, evenness }) => ({
  server: name,
  figures: {
    'commands/s': median(rates),
    'ratio of rates': median(rates.map((rate, i) => rate / first.rates[i]!)),
    'CPU us': median(costsUs),
    'ratio of CPU': median(costsUs.map((us, i) => us / first.costsUs[i]!)),
    'least / most busy worker': median(evenness)
  }
})))}\n`)
for (const { crowd, server } of runners) {
  await dropCrowd(crowd)
  await server.stop()
}
await delay(1000)
for (const group of groups) rmdirSync(group)
process.exit()
