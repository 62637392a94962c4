// docs/protocol.md is held to the code: rule numbers, close codes, constants; and every rule to a
// test that cites it.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { RULES } from '../../conformance/check.js'
import { REASONS } from '../../conformance/peer.js'
import { ERRORS } from '../../src/io/errors.js'
import { MAX_DEPTH } from '../../src/io/json.js'
import { CLOSE, closeAction } from '../../src/io/protocol/close-codes.js'
import { PROBE_BYTES } from '../../src/io/gateway/frame-writer.js'
import {
  CommandFrame, HEARTBEAT_GRACE_MS, LARGE_OUTPUT_BYTES, MAX_BAD_FRAMES, MAX_LOST_DELIVERIES, MAX_RATE_REFUSALS,
  MAX_REFUSED_DELIVERIES, MIN_OUTPUT_BYTES, SUBPROTOCOL, UNHEARD_WINDOW_MS
} from '../../src/io/protocol/frames.js'
import type { EndReason } from '../../src/io/types.js'
import { readTables, tableUnder } from '../helpers/markdown.js'
import { readSources } from '../helpers/sources.js'

const doc = readFileSync('docs/protocol.md', 'utf8')
const rules = new Map([...doc.matchAll(/^- \*\*(P-\d+)\*\* (.*(?:\n {2}.*)*)/gm)].map(([, rule, text]) => [
  rule as string, (text as string).replace(/\s+/g, ' ')
]))
const numbers = [...doc.matchAll(/^- \*\*P-(\d+)\*\*/gm)].map(([, number]) => Number(number))

t.test('rules are numbered from 1 without a gap or a repeat, in order', async t => {
  t.same(numbers, Array.from(numbers, (_, i) => i + 1))
  t.ok(numbers.length >= 54)
})

t.test('rules that any text cites exist', async t => {
  const texts = [
    ...['protocol', 'api', 'errors', 'architecture', 'decisions', 'stores'].map(name => ({
      path: `docs/${name}.md`,
      text: readFileSync(`docs/${name}.md`, 'utf8')
    })),
    ...readSources('src', 'plugins', 'test', 'conformance')
  ]
  for (const { path, text } of texts) {
    const unknown = [...text.matchAll(/\bP-(\d+)\b(?!-)/g)].map(([, number]) => Number(number)).filter(
      number => !numbers.includes(number)
    )
    // P-256 is an elliptic curve.
    t.same(unknown.filter(number => number !== 256), [], path)
  }
})

t.test('every rule is cited by the title of a test', async t => {
  const cited = new Set<string>()
  for (const { text } of readSources('test')) {
    for (const [, title] of text.matchAll(/['"`](P-\d+(?:(?:,| and| to) P-\d+)* [^\n]*)/g)) {
      for (const [rule] of (title as string).matchAll(/P-\d+/g)) cited.add(rule)
    }
  }
  for (const { text } of readSources('conformance/rules')) {
    for (const [, rule] of text.matchAll(/check\('(P-\d+)'/g)) cited.add(rule as string)
  }
  t.same([...rules.keys()].filter(rule => !cited.has(rule)), [])
})

t.test('every rule is cited by the code that keeps it', async t => {
  const sources = readSources('src', 'plugins').map(({ text }) => text).join('\n')
  const cited = new Set([...sources.matchAll(/\bP-\d+\b/g)].map(([rule]) => rule))
  for (const [, from, to] of sources.matchAll(/\bP-(\d+) to P-(\d+)/g)) {
    for (let n = Number(from); n <= Number(to); n++) cited.add(`P-${n}`)
  }
  t.same([...rules.keys()].filter(rule => !cited.has(rule)), [])
})

t.test('the conformance suite names the same rules', async t => {
  t.same(Object.keys(RULES), [...rules.keys()])
})

t.test('the conformance suite names the same close codes and reasons', async t => {
  t.same(REASONS, Object.fromEntries(Object.values(CLOSE).map(({ code, reason }) => [code, reason])))
})

t.test('section 10 lists every close code with its reason and action, and nothing else', async t => {
  const { header, rows } = tableUnder(doc, '10 Close codes')
  t.same(header, ['code', 'reason', 'action', 'when'])
  const expected = Object.values(CLOSE).map(({ code, reason }) => [String(code), reason, closeAction(code)])
  t.same(rows.map(row => row.slice(0, 3)), expected.sort(([a], [b]) => Number(a) - Number(b)))
})

t.test('close codes marked reserved are sent nowhere, and the others are sent somewhere', async t => {
  const { rows } = tableUnder(doc, '10 Close codes')
  const sources = readSources('src/io', 'plugins').map(({ text }) => text).join('\n')
  for (const [name, { code }] of Object.entries(CLOSE)) {
    const reserved = rows.find(([listed]) => listed === String(code))?.[3]?.startsWith('reserved')
    t.equal(sources.includes(`CLOSE.${name}`), !reserved, `${code} ${name}`)
  }
})

t.test('P-42 close reasons are ASCII and short enough for a close frame', async t => {
  for (const { reason } of Object.values(CLOSE)) t.match(reason, /^[a-z_]{1,123}$/)
})

t.test('P-49 the table of instructions is what closeAction does', async t => {
  const actions = Object.fromEntries([
    4000, 4099, 4100, 4199, 4200, 4299, 4300, 4399, 4400, 4499, 1000, 1001, 1006, 1011, 4500, 3000
  ].map(code => [code, closeAction(code)]))
  t.same(actions, {
    1000: 'resume_later',
    1001: 'resume_later',
    1006: 'resume_later',
    1011: 'resume_later',
    3000: 'resume_later',
    4000: 'stop',
    4099: 'stop',
    4100: 'resume_later',
    4199: 'resume_later',
    4200: 'resume',
    4299: 'resume',
    4300: 'new',
    4399: 'new',
    4400: 'stop',
    4499: 'stop',
    4500: 'resume_later'
  })
})

t.test('the numbers in the rules are those of the code', async t => {
  const ordinal = (n: number): string => `${n}th`
  const numeral = (n: number): string => ({ 3: 'three', 9: 'nine' })[n] ?? 'no word for it'
  const expected: Array<[string, string]> = [
    ['P-2', SUBPROTOCOL],
    ['P-6', `nesting deeper than ${MAX_DEPTH}`],
    ['P-9', JSON.stringify(ERRORS.SESSION_INVALID.message)],
    ['P-11', Number.MAX_SAFE_INTEGER === 2 ** 53 - 1 ? '2^53−1' : ''],
    ['P-14', '(1–128 characters)'],
    ['P-43', `\`heartbeatMs\` + ${HEARTBEAT_GRACE_MS / 1000} s`],
    ['P-36', `kept for ${UNHEARD_WINDOW_MS / 1000} s at most`],
    ['P-43', `every ${PROBE_BYTES / 1024} KiB`],
    ['P-50', `${MIN_OUTPUT_BYTES} is the least`],
    ['P-51', `one of ${LARGE_OUTPUT_BYTES / 1024} KiB or more after ${numeral(MAX_LOST_DELIVERIES)} connections`],
    ['P-51', `closed ${numeral(MAX_REFUSED_DELIVERIES)} connections`],
    ['P-51', `one close counts for ${numeral(MAX_LOST_DELIVERIES / MAX_REFUSED_DELIVERIES)} losses`],
    ['P-45', `the ${ordinal(MAX_BAD_FRAMES + 1)} closes`],
    ['P-46', `for ${MAX_RATE_REFUSALS} of these refusals`]
  ]
  for (const [rule, words] of expected) t.ok(rules.get(rule)?.includes(words), `${rule}: ${words}`)
  t.match(CommandFrame.properties.command, { minLength: 1, maxLength: 128 })
  t.match(
    readTables(doc).find(({ heading }) => heading === '3.2 From the client')?.rows[0]?.[1], 'command (1–128 characters)'
  )
})

t.test('error codes in the rules are errors of the table', async t => {
  const codes = [...doc.matchAll(/`([A-Z]+(?:_[A-Z]+)+|DRAINING|INTERNAL)`/g)].map(([, code]) => code as string)
  t.ok(codes.length > 15)
  for (const code of codes) t.ok(code in ERRORS, code)
})

t.test('P-33 lists the reasons for which a resume is refused', async t => {
  const told: Record<EndReason, boolean> = {
    idle: true,
    ended_by_client: true,
    ended_by_operator: true,
    resume_window: true,
    quota: true,
    overloaded: true,
    state_lost: true,
    shutdown: true,
    disconnected: false
  }
  for (const [reason, isTold] of Object.entries(told)) {
    t.equal(rules.get('P-33')?.includes(`\`${reason}\``), isTold, reason)
  }
})
