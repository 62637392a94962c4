// `holdfast store …`: looks into the data directory of an embedded store whose server is stopped.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describeFault, withoutRetries } from './stores/embedded/faults.js'
import { inspect, lineOf, measure, type JournalFigures } from './stores/embedded/inspect.js'
import { createJournal, JOURNAL_FOLDER, type Journal } from './stores/embedded/journal.js'

export const STORE_USAGE = `Usage: holdfast store check|stats|export <directory>

Looks into the data directory of an embedded store (HOLDFAST_DATA_DIR); its server is stopped.

  check    read everything and print what is wrong with it; the exit code is 1 if anything is
  stats    print how many sessions, outputs and tombstones there are, and their bytes
  export   print each session and tombstone as one line of JSON
`

/** Where the command prints. Each call resolves when more may come. */
export interface Terminal {
  out(text: string): Promise<void>
  error(text: string): Promise<void>
}

type Run = (journal: Journal, terminal: Terminal) => Promise<number>

const COMMANDS: Readonly<Record<string, Run>> = { check, stats, export: exportAll }

/** Runs what follows `holdfast store` on the command line. Returns the exit code. */
export async function runStoreCommand (argv: readonly string[], terminal: Terminal): Promise<number> {
  const [name = '', directory, ...rest] = argv
  if (argv.includes('--help')) {
    await terminal.out(STORE_USAGE)
    return 0
  }
  const run = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (run === undefined || directory === undefined || rest.length > 0) {
    await terminal.error(STORE_USAGE)
    return 1
  }
  if (!existsSync(join(directory, JOURNAL_FOLDER, 'CURRENT'))) {
    await terminal.error(`${directory} holds no data of an embedded store.\n`)
    return 1
  }
  const journal = createJournal(directory)
  try {
    await journal.open('again')
    return await run(journal, terminal)
  } catch (error) {
    await terminal.error(`${withoutRetries(describeFault(error, directory).message)}\n`)
    return 1
  } finally {
    await journal.close()
  }
}

async function check (journal: Journal, { out }: Terminal): Promise<number> {
  let sessions = 0
  let tombstones = 0
  let problems = 0
  for await (const finding of inspect(journal)) {
    if ('session' in finding) sessions++
    else if ('tombstone' in finding) tombstones++
    else {
      problems++
      await out(`${finding.problem}\n`)
    }
  }
  await out(`${sessions} sessions and ${tombstones} tombstones are whole; ` +
    `${problems === 0 ? 'there are no problems' : `problems: ${problems}`}.\n`)
  return problems === 0 ? 0 : 1
}

async function stats (journal: Journal, { out }: Terminal): Promise<number> {
  const figures: JournalFigures = await measure(journal)
  const { largest } = figures
  const rows: [string, string | number][] = [
    ['format', figures.format],
    ['openings', figures.openings],
    ['sessions', figures.sessions],
    ['  without a connection', figures.detached],
    ['outputs', figures.outputs],
    ['  bytes', figures.outputBytes],
    ['  most of one session', largest === undefined ? 0 : `${largest.outputBytes} (${largest.id})`],
    ['bytes of contexts', figures.contextBytes],
    ['tombstones', figures.tombstones],
    ['bytes in files, about', figures.fileBytes],
    ['problems', figures.problems]
  ]
  await out(rows.map(([name, value]) => `${name.padEnd(24)} ${value}\n`).join(''))
  return 0
}

async function exportAll (journal: Journal, { out, error }: Terminal): Promise<number> {
  let problems = 0
  for await (const finding of inspect(journal)) {
    if ('problem' in finding) {
      problems++
      await error(`${finding.problem}\n`)
    } else await out(`${lineOf(finding)}\n`)
  }
  return problems === 0 ? 0 : 1
}
