// Prints the options: `--help`, `--print-config` (secrets masked), and the table of
// docs/operations.md, which a test holds to this output.

import type { Config } from './config.js'
import { rangeOf } from './config.js'
import { flagOf, OPTION_KEYS, optionOf, type OptionKey } from './config-options.js'

const USAGE = `Usage: holdfast [flags]
       holdfast store check|stats|export <directory>

Runs a Holdfast server. Flags beat the environment, the environment beats .env in the
working directory, .env beats the defaults. Lists are separated by commas.

  --help           print this; \`holdfast store --help\`: the commands on data directories
  --version        print the version
  --print-config   print the configuration that would be used, secrets masked
  --check-config   print what is wrong with the configuration, and exit 1; else print nothing
  --healthcheck    ask the server of this configuration for /health/live; exit 1 if it does not
                   answer 200. Give it the same flags, environment and .env as the server.
`

/** Text of `--help`. */
export function renderHelp (): string {
  return `${USAGE}\n${OPTION_KEYS.map(helpOf).join('\n')}\n`
}

function helpOf (key: OptionKey): string {
  const row = optionOf(key)
  const name = row.secret ? row.env : `--${flagOf(key)}, ${row.env}`
  const values = `Takes ${rangeOf(row)}. Default: ${plain(defaultOf(key))}.`
  const lines = [`  ${name}`, ...wrap(plain(row.what)), ...wrap(values)]
  if (row.hit !== undefined) lines.push(...wrap(`When hit: ${plain(row.hit)}.`))
  if (row.tune !== undefined) lines.push(...wrap(plain(row.tune)))
  return `${lines.join('\n')}\n`
}

/** Text of `--print-config`: `NAME=value` each line, fit for .env but for the masked secrets. */
export function renderConfig (config: Config): string {
  return OPTION_KEYS.map(key => {
    const { env, secret } = optionOf(key)
    const value = config[key]
    if (value === undefined) return `# ${env} is not set`
    return `${env}=${secret ? '********' : String(value)}`
  }).join('\n') + '\n'
}

/** The option table of docs/operations.md. */
export function renderTable (): string {
  const rows = OPTION_KEYS.map(key => {
    const row = optionOf(key)
    const cells = [`\`${row.env}\``, defaultOf(key), boundsOf(key), row.what, row.hit ?? '–', row.tune ?? '–']
    return `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`
  })
  return [
    '| name | default | range | what it decides or bounds | when it is hit | raise or lower |',
    '| --- | --- | --- | --- | --- | --- |',
    ...rows
  ].join('\n')
}

function defaultOf (key: OptionKey): string {
  const row = optionOf(key)
  if (key === 'resumeWindowSeconds') return 'HOLDFAST_SESSION_TIMEOUT_SECONDS'
  if (row.default === undefined) return 'not set'
  if (Array.isArray(row.default)) return row.default.length === 0 ? 'empty' : row.default.join(',')
  if (typeof row.default !== 'number') return `\`${row.default}\``
  return row.unit === undefined ? `${row.default}` : `${row.default} ${row.unit}`
}

function boundsOf (key: OptionKey): string {
  const row = optionOf(key)
  const { minimum, maximum, type } = row.schema as { minimum?: number, maximum?: number, type?: string }
  if (minimum !== undefined) return `${minimum} to ${maximum}`
  return type === 'array' ? 'a list' : row.secret ? 'a secret' : rangeOf(row)
}

function plain (markdown: string): string {
  return markdown.replaceAll('`', '')
}

function wrap (text: string): string[] {
  const lines: string[] = []
  let line = '     '
  for (const word of text.split(' ')) {
    if (line.length + word.length > 90) {
      lines.push(line)
      line = '     '
    }
    line += ` ${word}`
  }
  return [...lines, line]
}
