// Several servers, or several builds of one, side by side: all run at once and take turns round and
// round, so that a machine that drifts does so for all of them. Finer than the pairs of run.ts, and
// shows how far two processes of the same build are apart, since a server may be named twice.

import { parseArgs } from 'node:util'
import type { Ready } from './lib/context.js'
import type { Measured } from './lib/turns.js'
import { GENERATOR_CPU, pin } from './lib/pin.js'
import { table } from './lib/report.js'
import { KINDS, type ServerKind } from './lib/servers.js'
import { median, quantile } from './lib/stats.js'
import { LOADS } from './loads/all.js'

const USAGE = `node dist/bench/compare.js <load> <server>... [options]

  <load>        echo50, echo500, pipe50x16, kb50, paced50, push5000 or connect
  <server>      a name of run.js --list, or name=script for another build of it; the others are compared
                with the first one
  --turns n     turns of each server (default 30)
  --quick       short turns and small crowds

`

const { values: flags, positionals: [loadName, ...serverNames] } = parseArgs({
  allowPositionals: true,
  options: { turns: { type: 'string', default: '30' }, quick: { type: 'boolean', default: false } }
})

function kindOf (argument: string): ServerKind {
  const [name, script] = argument.split('=')
  const kind = KINDS.find(kind => kind.name === name)
  if (kind === undefined) {
    throw new Error(`no server is named ${name}; there are ${KINDS.map(({ name }) => name).join(', ')}`)
  }
  return script === undefined ? kind : { ...kind, name: argument, script }
}

async function main (): Promise<void> {
  const load = LOADS.find(({ name }) => name === loadName)
  if (load?.prepare === undefined || serverNames.length === 0) {
    process.stderr.write(USAGE)
    process.exitCode = 1
    return
  }
  const kinds = serverNames.map(kindOf)
  pin(process.pid, GENERATOR_CPU)
  const runners: { name: string, ready: Ready, turns: Measured[] }[] = []
  for (const kind of kinds) {
    const ready = await load.prepare(kind, flags.quick)
    await ready.turn()
    runners.push({ name: kind.name, ready, turns: [] })
  }
  for (let turn = 0; turn < Number(flags.turns); turn++) {
    for (const { ready, turns } of runners) turns.push(await ready.turn())
  }
  const first = runners[0]!.turns.map(({ cpuUs }) => cpuUs)
  const measured = runners.map(({ name, turns }) => ({ name, turns, cpuUs: turns.map(({ cpuUs }) => cpuUs) }))
  process.stdout.write(`${table(measured.map(({ name, turns, cpuUs }) => ({
    server: name,
    figures: {
      'lowest us': Math.min(...cpuUs),
      'lowest tenth us': quantile(cpuUs, 0.1),
      'median us': median(cpuUs),
      'ratio of lowest tenths': quantile(cpuUs, 0.1) / quantile(first, 0.1),
      'median of ratios': median(cpuUs.map((us, turn) => us / first[turn]!)),
      'median p50 ms': median(turns.map(({ p50Ms }) => p50Ms)),
      'median p99 ms': median(turns.map(({ p99Ms }) => p99Ms))
    }
  })))}\n`)
  for (const { ready } of runners) await ready.finish()
}

await main()
process.exit()
