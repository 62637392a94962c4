// The ownership of sessions in a fleet, searched for histories that break its promises: the store
// as it is, over a model of Redis, with several nodes whose messages come late, in another order or
// not at all, that die between any two steps, stand still past their lease and are cut off. A
// failing seed is printed; SIMULATION_SEED runs it alone, and SIMULATIONS is how many are run.

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import t from 'tap'
import { FLAWS, type Flaw } from './world.js'
import { UNCOUNTED } from '../helpers/uncounted.js'

const SEED = Number(process.env.SIMULATION_SEED ?? 0)
const HISTORIES = SEED > 0 ? 1 : Number(process.env.SIMULATIONS ?? 300)
const FIRST_SEED = SEED > 0 ? SEED : 3900

interface Sum {
  histories: number
  outputs: number
  claims: number
  cpuMs: number
  failed: { seed: number, problems: string[] }[]
}

/** In a process of its own: the hooks of a test runner triple what a promise costs. */
async function run (flaw: Flaw): Promise<Sum> {
  const { PATH } = process.env
  const { stdout } = await promisify(execFile)(
    process.execPath, ['--import', 'tsx', 'test/simulation/run.ts', String(FIRST_SEED), String(HISTORIES), flaw],
    { env: { PATH, ...UNCOUNTED } }
  )
  return JSON.parse(stdout) as Sum
}

t.test(`no history of ${HISTORIES} breaks a promise`, async t => {
  const { histories, outputs, claims, cpuMs, failed } = await run('none')
  for (const { seed, problems } of failed) t.fail(`seed ${seed}: ${problems.join('; ')}`)
  t.equal(histories, HISTORIES)
  t.ok(outputs > HISTORIES * 20, `${outputs} outputs were seen`)
  t.ok(claims > HISTORIES * 3, `${claims} claims were made`)
  t.comment(`${histories} histories in ${cpuMs} ms of the processor`)
})

t.test('the same seeds find each flaw', { skip: SEED > 0 && 'one seed need not find every flaw' }, async t => {
  for (const flaw of FLAWS) {
    const { histories, failed } = await run(flaw)
    t.equal(failed.length, 1, `${flaw}: found by history ${histories}`)
  }
})
