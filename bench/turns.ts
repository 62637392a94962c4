// How long do the worst texts hold the event loop that the options allow? `node
// dist/bench/turns.js`. Each shape fills a text up to the bound it meets first; the slowest of some
// attempts counts, since one slow turn is what others feel.

import { MAX_DEPTH, MAX_JSON_BYTES, MAX_MEMBERS, parseJson, printJson } from '../src/io/json.js'
import { MAX_CONTEXT_MEMBERS, readContext } from '../src/io/session/context.js'
import { table } from './lib/report.js'
import type { Row } from './lib/turns.js'

const ATTEMPTS = 5
/** A prime, so that keys come in no order. */
const STEP = 7919

function keyOf (n: number): string {
  return `${(n * STEP % 1_000_003).toString(36)}x`
}

/** An array of one member again and again, as often as is asked for and as long as may be. */
function fill (member: string, times = Infinity): string {
  const most = Math.floor((MAX_JSON_BYTES - 2) / (member.length + 1))
  return `[${Array<string>(Math.floor(Math.min(times, most))).fill(member).join()}]`
}

/** Each: a text with about so many members, arrays and objects. */
const SHAPES: Record<string, (members: number) => string> = {
  'one object': count => `{${Array.from({ length: count - 1 }, (_, n) => `"${keyOf(n)}":0`).join()}}`,
  'one object, numbers as keys': count => `{${Array.from({ length: count - 1 }, (_, n) => `"${n *
    104_729 % 4_294_967_291}":0`).join()}}`,
  'objects of a key of their own': count => `[${Array.from({ length: (count - 1) / 2 }, (_, n) =>
    `{"${keyOf(n)}":0}`).join()}]`,
  'objects of eight keys of their own': count => {
    const member = (n: number): string => `"${keyOf(n)}":0`
    return `[${Array.from({ length: (count - 1) / 9 }, (_, n) =>
      `{${Array.from({ length: 8 }, (_, i) => member(8 * n + i)).join()}}`).join()}]`
  },
  'empty arrays': count => `[${Array.from({ length: count - 1 }, () => '[]').join()}]`,
  'arrays as deep as may be': count => {
    const deep = '['.repeat(MAX_DEPTH - 1) + ']'.repeat(MAX_DEPTH - 1)
    return `[${Array.from({ length: (count - 1) / (MAX_DEPTH - 1) }, () => deep).join()}]`
  },
  records: count => fill(`{"id":12345,"title":"A review","note":"${'x'.repeat(130)}","score":0.5}`, (count - 1) / 5),
  'one text': () => JSON.stringify('x'.repeat(MAX_JSON_BYTES - 2)),
  'a text of escapes': () => JSON.stringify('"'.repeat(MAX_JSON_BYTES / 2 - 1)),
  'small texts': () => fill('"a"'),
  integers: () => fill('0'),
  doubles: () => fill('0.30000000000000004'),
  // These took 120 to 140 ms a MiB: each was taken apart digit by digit.
  'doubles as C prints them': () => fill('0.10000000000000001'),
  'powers of ten': () => fill('1e22'),
  'exponents of zero': () => fill('1E0'),
  nulls: () => fill('null')
}

function slowestMs (run: () => void): number {
  let slowest = 0
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const start = performance.now()
    run()
    slowest = Math.max(slowest, performance.now() - start)
  }
  return slowest
}

function measure (name: string, shape: (members: number) => string): Row {
  const text = shape(MAX_MEMBERS)
  const value = parseJson(text)
  const context = { all: parseJson(shape(MAX_CONTEXT_MEMBERS - 2)) }
  return {
    server: name,
    figures: {
      KiB: text.length / 1024,
      'parse ms': slowestMs(() => { parseJson(text) }),
      'print ms': slowestMs(() => { printJson(value) }),
      'keep as context ms': slowestMs(() => { readContext(context, 2 * MAX_JSON_BYTES) })
    }
  }
}

process.stdout.write(`${table(Object.entries(SHAPES).map(([name, shape]) => measure(name, shape)), 'text')}\n`)
