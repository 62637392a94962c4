// The command line of the kit: one table, from which it is parsed and its help is printed. A bad
// value ends the run before anything is sent; nothing is guessed or clamped.

import { parseArgs } from 'node:util'
import { RULES } from './check.js'

export interface ChaosOptions {
  clients: number
  commands: number
  cuts: number
  seed: number
  /** A client that is not done by then counts as not finished. */
  limitSeconds: number
  /** The core loses answers, answers late and says 503, and remembers no command. */
  coreFaults: boolean
  /** How often the server is killed, and what kills it and starts it again at the same address. */
  kills?: number
  killCommand?: string
}

export interface KitOptions {
  url: string
  admin?: string
  adminToken?: string
  /** Where the kit listens as the server's core. */
  core?: { host: string, port: number }
  profiles: readonly ('basic' | 'full')[]
  only?: readonly string[]
  requireAll: boolean
  timeoutMs: number
  parallel: number
  verbose: boolean
  token?: string
  jwtSecret?: string
  jwtClaims: Record<string, unknown>
  commandTimeoutMs?: number
  serialCommand?: string
  /** A user whose valid token is refused. */
  forbiddenUser?: string
  /** A token that the server cannot check now. */
  uncheckedToken?: string
  /** What makes the server's process stand still and go on again. */
  standstillCommand?: string
  /** Half a minute is waited for what takes that long. */
  patient?: boolean
  drainCommand?: string
  chaos?: ChaosOptions
}

const TABLE: readonly (readonly [name: string, value: string | undefined, help: string])[] = [
  ['url', 'ws://host:port/ws', 'the same address, given as an option'],
  ['profile', 'full|basic|both', 'the profiles to test; default both'],
  ['only', 'P-12,P-13', 'test these rules'],
  ['admin', 'http://host:port', 'the operator API: outputs on demand, terminations, detaches'],
  ['admin-token', 'token', 'sent to it as bearer token'],
  ['core', 'host:port', 'listen here as the core; start the server with HOLDFAST_CORE_URL=http://host:port'],
  ['token', 'token', 'bearer token for every handshake'],
  ['jwt-secret', 'secret', 'the secret the server checks HS256 tokens with: the kit signs its own users'],
  ['jwt-claims', 'json', 'further claims of those tokens, such as {"aud":"holdfast"}'],
  ['command-timeout-ms', 'number', 'the time limit that the server gives commands, for P-19'],
  ['serial-command', 'name', 'a command that the server hands to the core and declares serial, for P-18'],
  ['forbidden-user', 'id', 'a user who may not connect, for 403 and 4403; needs --jwt-secret'],
  ['unchecked-token', 'token', 'a token that the server cannot check now, for 503 and 4105'],
  [
    'standstill-command',
    'shell',
    'what stops the server\'s process for longer than its silence and continues it, for P-43'
  ],
  ['drain-command', 'shell', 'what makes the server drain, such as "kill -TERM 4711"; runs last, for P-48'],
  ['timeout-ms', 'number', 'how long to wait for a frame that is due; default 5000'],
  ['parallel', 'number', 'checks that run at the same time; default 8'],
  ['patient', undefined, 'wait half a minute for what takes that long: P-36'],
  ['require-all', undefined, 'a rule that could not be tested fails the run'],
  ['verbose', undefined, 'one line for each check in place of one for each rule'],
  ['chaos', undefined, 'run the chaos run in place of the rules'],
  ['clients', 'number', 'chaos: clients; default 200'],
  ['commands', 'number', 'chaos: commands of all clients together; default 20000'],
  ['cuts', 'number', 'chaos: connections to break; default 5000'],
  ['seed', 'number', 'chaos: repeats the plan of an earlier run'],
  ['limit-seconds', 'number', 'chaos: when to give up; default 300'],
  ['core-faults', undefined, 'chaos: the core loses answers, answers late, says 503, and remembers no command'],
  [
    'kill-command',
    'shell',
    'chaos: what kills the server without warning, starts it again and waits for it; needs a store that survives'
  ],
  ['kills', 'number', 'chaos: how often; default 10 with a --kill-command'],
  ['help', undefined, 'print this']
]

export class UsageError extends Error {
  override readonly name = 'UsageError'
}

export function usage (): string {
  const rows = TABLE.map(([
    name, value, help
  ]) => `  ${`--${name}${value === undefined ? '' : ` <${value}>`}`.padEnd(34)} ${help}`)
  return `usage: holdfast-conformance <ws://host:port/ws> [options]\n\n${rows.join('\n')}\n`
}

/** @throws UsageError with a sentence for the first value that cannot be used */
export function readOptions (args: readonly string[]): KitOptions | 'help' {
  const { values, positionals } = parse(args)
  if (values['help'] === true) return 'help'
  const text = (name: string) => typeof values[name] === 'string' ? values[name] : undefined
  const count = (name: string, fallback: number, low: number) => {
    const given = text(name)
    if (given === undefined) return fallback
    if (!/^\d+$/.test(given) || Number(given) < low || !Number.isSafeInteger(Number(given))) {
      throw new UsageError(`--${name} takes a whole number from ${low}, not ${given}`)
    }
    return Number(given)
  }
  const options: KitOptions = {
    url: readUrl('url', readTarget(positionals, text('url')), ['ws:', 'wss:']),
    profiles: readProfiles(text('profile') ?? 'both'),
    requireAll: values['require-all'] === true,
    patient: values['patient'] === true,
    verbose: values['verbose'] === true,
    timeoutMs: count('timeout-ms', 5000, 1),
    parallel: count('parallel', 8, 1),
    jwtClaims: readClaims(text('jwt-claims') ?? '{}')
  }
  const admin = text('admin')
  if (admin !== undefined) options.admin = readUrl('admin', admin, ['http:', 'https:'])
  const core = text('core')
  if (core !== undefined) options.core = readAddress(core)
  const only = text('only')
  if (only !== undefined) options.only = readRules(only)
  const copied = {
    adminToken: 'admin-token',
    token: 'token',
    jwtSecret: 'jwt-secret',
    serialCommand: 'serial-command',
    forbiddenUser: 'forbidden-user',
    uncheckedToken: 'unchecked-token',
    standstillCommand: 'standstill-command',
    drainCommand: 'drain-command'
  } as const
  for (const [key, name] of Object.entries(copied) as [keyof typeof copied, string][]) {
    const value = text(name)
    if (value !== undefined) options[key] = value
  }
  if (text('command-timeout-ms') !== undefined) options.commandTimeoutMs = count('command-timeout-ms', 0, 1)
  if (values['chaos'] === true) {
    const killCommand = text('kill-command')
    options.chaos = {
      clients: count('clients', 200, 1),
      commands: count('commands', 20_000, 1),
      cuts: count('cuts', 5000, 0),
      seed: count('seed', Math.floor(Math.random() * 1_000_000_000), 0),
      limitSeconds: count('limit-seconds', 300, 1),
      coreFaults: values['core-faults'] === true,
      ...(killCommand === undefined ? {} : { killCommand, kills: count('kills', 10, 1) })
    }
  }
  return options
}

interface CommandLine {
  values: Record<string, string | boolean | undefined>
  positionals: readonly string[]
}

function parse (args: readonly string[]): CommandLine {
  try {
    const known = Object.fromEntries(TABLE.map(([name, value]) => [
      name, { type: value === undefined ? 'boolean' as const : 'string' as const }
    ]))
    return parseArgs({ args: [...args], options: known, strict: true, allowPositionals: true }) as CommandLine
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

/** The address under test, which is given once: by itself or as --url. */
function readTarget (positionals: readonly string[], option: string | undefined): string {
  const given = [...positionals, ...(option === undefined ? [] : [option])]
  if (given.length > 1) throw new UsageError(`one server is tested at a time, not ${given.join(' and ')}`)
  return given[0] ?? ''
}

function readUrl (name: string, given: string, schemes: readonly string[]): string {
  if (!URL.canParse(given) || !schemes.includes(new URL(given).protocol)) {
    throw new UsageError(
      `--${name} takes an address that starts with ${schemes.join('// or ')}//, not ${given === '' ? 'nothing' : given}`
    )
  }
  return given
}

function readAddress (given: string): { host: string, port: number } {
  const parts = /^(.+):(\d{1,5})$/.exec(given)
  if (parts === null || Number(parts[2]) > 65535) throw new UsageError(`--core takes host:port, not ${given}`)
  return { host: parts[1]!, port: Number(parts[2]) }
}

function readProfiles (given: string): ('basic' | 'full')[] {
  if (given === 'both') return ['basic', 'full']
  if (given === 'basic' || given === 'full') return [given]
  throw new UsageError(`--profile takes full, basic or both, not ${given}`)
}

/** Without it a misspelt rule would be a run that tests nothing and fails nothing. */
function readRules (given: string): string[] {
  const rules = given.split(',').map((rule) => rule.trim())
  const unknown = rules.find((rule) => !Object.hasOwn(RULES, rule))
  if (unknown === undefined) return rules
  throw new UsageError(`--only takes rules of docs/protocol.md, such as P-12, not ${unknown || 'nothing'}`)
}

function readClaims (given: string): Record<string, unknown> {
  try {
    const claims: unknown = JSON.parse(given)
    if (typeof claims === 'object' && claims !== null) return claims as Record<string, unknown>
  } catch {}
  throw new UsageError(`--jwt-claims takes a JSON object, not ${given}`)
}
