// Runs histories and prints what came of them as one line of JSON; a program of its own, since the
// hooks of a test runner triple what a promise costs.
// node --import tsx test/simulation/run.ts <first seed> <count> [flaw]

import { runHistory } from './history.js'
import type { Flaw } from './world.js'

const [first = 1000, count = 100] = process.argv.slice(2, 4).map(Number)
const flaw = (process.argv[4] ?? 'none') as Flaw
const sum = {
  histories: 0,
  outputs: 0,
  claims: 0,
  cpuMs: 0,
  failed: [] as { seed: number, problems: readonly string[] }[]
}
for (let seed = first; seed < first + count; seed++) {
  const { problems, outputs, claims } = await runHistory(seed, flaw)
  sum.histories++
  sum.outputs += outputs
  sum.claims += claims
  if (problems.length > 0) sum.failed.push({ seed, problems: problems.slice(0, 5) })
  // With a flaw the first history that shows it is enough.
  if (problems.length > 0 && flaw !== 'none') break
}
const { user, system } = process.cpuUsage()
sum.cpuMs = Math.round((user + system) / 1000)
console.log(JSON.stringify(sum))
