// npm run build && npm run bench: starts the servers, loads them in paired turns and prints one
// table per question. docs/performance.md says how to read it.

import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import type { Context, Load } from './lib/context.js'
import { GENERATOR_CPU, pin } from './lib/pin.js'
import { table } from './lib/report.js'
import { KINDS, isBuilt } from './lib/servers.js'
import type { Row } from './lib/turns.js'
import { LOADS } from './loads/all.js'

const USAGE = `npm run build && npm run bench -- [options]

  --only a,b      loads with these names, or whose names start so (default: all)
  --servers a,b   servers to compare with ws (default: all that a load makes sense for)
  --turns n       paired turns per server (default 7)
  --quick         everything short: shows that it runs, not how fast
  --profile dir   also takes a CPU profile of each server under the paired loads
  --json file     also writes the rows as JSON
  --list          names the loads and servers

`

const { values: flags } = parseArgs({
  options: {
    only: { type: 'string' },
    servers: { type: 'string' },
    turns: { type: 'string' },
    quick: { type: 'boolean', default: false },
    profile: { type: 'string' },
    json: { type: 'string' },
    list: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false }
  }
})

function say (text: string): void {
  process.stdout.write(`${text}\n`)
}

/** Loads with exactly this name, else those whose names start with it. */
function loadsNamed (wanted: string): readonly Load[] {
  const exact = LOADS.filter(({ name }) => name === wanted)
  const found = exact.length > 0 ? exact : LOADS.filter(({ name }) => name.startsWith(wanted))
  if (found.length === 0) {
    throw new Error(`no load is named ${wanted}; there are ${LOADS.map(({ name }) => name).join(', ')}`)
  }
  return found
}

function contextFor (load: Load): Context {
  const named = flags.servers?.split(',')
  const candidates = KINDS.filter(({ name }) => load.servers.includes(name) &&
    (named === undefined || named.includes(name)))
  for (const kind of candidates.filter(kind => !isBuilt(kind))) say(`skipped ${kind.name}: ${kind.script} is not built`)
  return {
    candidates: candidates.filter(isBuilt),
    yardstick: KINDS.find(({ name }) => name === 'ws')!,
    turns: Number(flags.turns ?? (flags.quick ? 2 : 7)),
    isQuick: flags.quick,
    profileDir: flags.profile,
    say
  }
}

async function main (): Promise<void> {
  if (flags.help) return say(USAGE)
  const loads = flags.only === undefined ? LOADS : flags.only.split(',').flatMap(loadsNamed)
  if (flags.list) {
    for (const { name, question, servers } of loads) say(`${name}: ${question} (${servers.join(', ')})`)
    return
  }
  if (flags.profile !== undefined) mkdirSync(flags.profile, { recursive: true })
  const isPinned = pin(process.pid, GENERATOR_CPU)
  say(
    `Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model}, ` +
      `${isPinned ? 'server and generator on a core each' : 'not pinned to cores'}`
  )
  const results: Record<string, Row[]> = {}
  for (const load of loads) {
    say(`\n## ${load.name}: ${load.question}\n`)
    const rows = await load.run(contextFor(load))
    results[load.name] = rows
    say(rows.length === 0 ? 'nothing to compare' : table(rows))
  }
  if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(results, null, 2)}\n`)
}

await main()
process.exit()
