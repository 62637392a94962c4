// How long the largest texts hold the event loop: every one that the limits allow is parsed,
// printed and kept in less than 50 ms. CPU time, and the best of several attempts, since other
// processes and the first collection of garbage say nothing about the code; usual values are a
// fifth of the bound. On a machine that is slower, or shares its core, the bound is as much larger
// as a plain JSON.parse takes longer there.

import t from 'tap'
import { MAX_JSON_BYTES, parseJson, printJson } from '../../src/io/json.js'
import { readContext } from '../../src/io/session/context.js'

/** Code that is counted for coverage takes up to twice as long. */
const BOUND_MS = process.env._TAPJS_PROCESSINFO_COVERAGE_ === '0' ? 50 : 100
/** What the yardstick takes on a core of its own of the machine of docs/performance.md. */
const YARDSTICK_MS = 4.5

function cpuMs (run: () => void): number {
  let best = Infinity
  for (let attempt = 0; attempt < 7; attempt++) {
    const before = process.cpuUsage()
    run()
    const { user, system } = process.cpuUsage(before)
    best = Math.min(best, (user + system) / 1000)
  }
  return best
}

/** An array of one member again and again, as long as may be. */
function fill (member: string): string {
  return `[${Array<string>(Math.floor((MAX_JSON_BYTES - 2) / (member.length + 1))).fill(member).join()}]`
}

const YARDSTICK = `[${Array<string>(200_000).fill('1E0').join()}]`

const TEXTS: Record<string, string> = {
  'one text': JSON.stringify('x'.repeat(MAX_JSON_BYTES - 2)),
  'a text of escapes': JSON.stringify('"'.repeat(MAX_JSON_BYTES / 2 - 1)),
  // As many members as a context may have.
  records: fill(
    `{"id":12345,"title":"Review of contract 12345","author":"Alice Example","note":"${'x'.repeat(100)}","score":0.5}`
  ),
  'small texts': fill('"a"'),
  integers: fill('0'),
  doubles: fill('0.30000000000000004'),
  // These took 120 to 140 ms a MiB: each was taken apart digit by digit.
  'doubles as C prints them': fill('0.10000000000000001'),
  'powers of ten': fill('1e22'),
  'exponents of zero': fill('1E0'),
  nulls: fill('null')
}

for (const [name, text] of Object.entries(TEXTS)) {
  t.test(`a mebibyte of ${name} is parsed, printed and kept in time`, async t => {
    let value: unknown
    const bound = BOUND_MS * Math.max(1, cpuMs(() => { JSON.parse(YARDSTICK) }) / YARDSTICK_MS)
    const parsed = cpuMs(() => { value = parseJson(text) })
    t.ok(parsed < bound, `parsed in ${parsed.toFixed(1)} ms`)
    const printed = cpuMs(() => { printJson(value) })
    t.ok(printed < bound, `printed in ${printed.toFixed(1)} ms`)
    const kept = cpuMs(() => { readContext({ value }, 2 * MAX_JSON_BYTES) })
    t.ok(kept < bound, `kept in ${kept.toFixed(1)} ms`)
  })
}
