#!/usr/bin/env node
// What a run of the tests prints: a line for each file as it ends, and then every failure with its
// diagnostics. They come last, after the coverage, since a log that is cut keeps its end. Reads TAP
// from the standard input; tap runs it as its reporter.

import { Parser } from 'tap-parser'
import { stringify } from 'yaml'

/** Of a test that timed out, tap lists every handle of the process. */
const MAX_DIAGNOSTIC_LINES = 60
/** How tap ran a file that failed: the same for all of them. */
const OF_THE_RUNNER = ['args', 'command', 'cwd', 'env', 'externalID', 'jobId', 'stdio']

const failures = []
const remarks = []

/** Follows a test and those within it; one whose own tests have failed is no failure of its own. */
function follow (parser, path) {
  let known = failures.length
  parser.on('child', test => {
    known = failures.length
    follow(test, [...path, test.name])
  })
  parser.on('assert', ({ ok, todo, skip, name, diag, time }) => {
    if (path.length === 0) console.log(`${ok ? 'ok' : 'FAILED'} ${name} ${Math.round(time ?? 0)} ms`)
    const isExplained = failures.length > known
    known = failures.length
    if (ok || todo || skip || isExplained) return
    failures.push({ path: [...path, name], diag })
    known = failures.length
  })
}

function print ({ path, diag }) {
  console.log(`\nFAILED ${path.join(' > ')}`)
  const told = Object.entries(diag ?? {}).filter(([name]) => !OF_THE_RUNNER.includes(name))
  if (told.length === 0) return
  const lines = stringify(Object.fromEntries(told), { lineWidth: 0 }).trimEnd().split('\n')
  for (const line of lines.slice(0, MAX_DIAGNOSTIC_LINES)) console.log(`  ${line}`)
  if (lines.length > MAX_DIAGNOSTIC_LINES) console.log(`  (${lines.length - MAX_DIAGNOSTIC_LINES} lines more)`)
}

const root = new Parser(({ pass, count, bailout }) => {
  if (bailout) failures.push({ path: [`bailed out: ${bailout}`] })
  for (const failure of failures) print(failure)
  for (const remark of remarks) console.log(`\n${remark}`)
  console.log(`\n${pass} of ${count} files passed; failures: ${failures.length}`)
})
follow(root, [])
// Coverage that is too low is a comment of tap's.
root.on('comment', comment => {
  if (comment.startsWith('# ERROR')) remarks.push(comment.slice(2).trim())
})
process.stdin.pipe(root)
