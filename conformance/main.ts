#!/usr/bin/env node
// Entry of the kit: reads the command line, runs the rules or the chaos run, prints the report.
// Exit codes: 0 all tested rules hold, 1 a rule is broken (or, with --require-all, untested), 2 the
// run could not be made.

import { runChaos } from './chaos/run.js'
import { UsageError, readOptions, usage } from './options.js'
import { runChecks } from './runner.js'

async function main (): Promise<number> {
  const options = readOptions(process.argv.slice(2))
  if (options === 'help') {
    process.stdout.write(usage())
    return 0
  }
  const { lines, exitCode } = options.chaos === undefined
    ? await runChecks(options)
    : await runChaos(options, options.chaos)
  process.stdout.write(`${lines.join('\n')}\n`)
  return exitCode
}

// Exits by itself rather than by an empty event loop, since a server that holds a socket open must
// not hold the kit.
main().then((code) => process.exit(code), (error: Error) => {
  process.stderr.write(`${error.message}\n${error instanceof UsageError ? `\n${usage()}` : ''}`)
  process.exit(2)
})
