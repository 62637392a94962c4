// What is left of a log that was cut is its end: the failures of the tests have to be there.

import { spawnSync } from 'node:child_process'
import t from 'tap'

/** What a run prints whose TAP is this. */
function summaryOf (tap: string): string {
  const { status, stdout, stderr } = spawnSync('scripts/tap-summary.js', { input: tap, encoding: 'utf8' })
  if (status !== 0) throw new Error(`${status}: ${stderr}`)
  return stdout
}

const PASSED = `TAP version 14
# Subtest: test/good.test.ts
    ok 1 - a thing works
    1..1
ok 1 - test/good.test.ts # time=12.3ms
`

t.test('a file that passes is one line', async t => {
  t.equal(summaryOf(`${PASSED}1..1\n`), 'ok test/good.test.ts 12 ms\n\n1 of 1 files passed; failures: 0\n')
})

t.test('an assertion that fails is printed last, with its tests and its diagnostics, once', async t => {
  const printed = summaryOf(`TAP version 14
# Subtest: test/bad.test.ts
    # Subtest: P-1 outer
        # Subtest: inner
            ok 1 - one thing
            not ok 2 - the other thing
              ---
              compare: ===
              at:
                lineNumber: 7
              ...
            1..2
        not ok 1 - inner # time=2ms
        1..1
    not ok 1 - P-1 outer # time=3ms
    1..1
not ok 1 - test/bad.test.ts # time=4ms
${PASSED.replace('TAP version 14\n', '').replace('ok 1 - test', 'ok 2 - test')}1..2
`)
  t.match(printed, /^FAILED test\/bad.test.ts 4 ms\nok test\/good.test.ts 12 ms\n/)
  t.match(printed, /\n\nFAILED test\/bad.test.ts > P-1 outer > inner > the other thing\n/)
  t.match(printed, /\n {2}at:\n {4}lineNumber: 7\n\n1 of 2 files passed; failures: 1\n$/)
})

t.test('a file that ended without a failed assertion is a failure by itself', async t => {
  const printed = summaryOf(`TAP version 14
# Subtest: test/died.test.ts
    ok 1 - a thing works
    1..1
not ok 1 - test/died.test.ts # time=4ms
  ---
  command: /usr/bin/node
  exitCode: 3
  ...
1..1
`)
  t.match(printed, /\n\nFAILED test\/died.test.ts\n {2}exitCode: 3\n\n0 of 1 files passed; failures: 1\n$/)
})

t.test('tests in parallel are told apart', async t => {
  const printed = summaryOf(`TAP version 14
not ok 1 - test/a.test.ts # time=1ms {
    not ok 1 - one
    1..1
}
not ok 2 - test/b.test.ts # time=1ms {
    not ok 1 - two
    1..1
}
1..2
`)
  t.match(
    printed, /\n\nFAILED test\/a.test.ts > one\n\nFAILED test\/b.test.ts > two\n\n0 of 2 files passed; failures: 2\n$/
  )
})

t.test('what is marked as to be done or skipped is no failure', async t => {
  const tap = 'TAP version 14\nnot ok 1 - later # TODO\nok 2 - elsewhere # SKIP\n1..2\n'
  t.match(summaryOf(tap), /failures: 0\n$/)
})

t.test('coverage that is too low is said at the end', async t => {
  const printed = summaryOf(`${PASSED}# ERROR: incomplete lines coverage (61.22%)\n1..1\n`)
  t.match(printed, /\n\nERROR: incomplete lines coverage \(61.22%\)\n\n1 of 1 files passed; failures: 0\n$/)
})
