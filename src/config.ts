// Turns flags, environment and .env into one frozen configuration, or into a list of everything
// that is wrong with them. Flags beat the environment, the environment beats .env, .env beats the
// defaults of config-options.ts.
//
// Invariants: a bad value stops the boot; none is clamped, converted or replaced by a default. An
// unknown HOLDFAST_ name is a bad value, since a typo would otherwise be silent. A secret appears
// in no message. Not here: reading files or process.env (server.ts does), and applying values.

import { parseArgs, parseEnv } from 'node:util'
import { Value } from 'typebox/value'
import type { Static } from 'typebox'
import { createAddressMatcher, proxyRangeProblem } from './io/names/address.js'
import { isLoopbackAddress, isLoopbackName } from './loopback.js'
import {
  flagOf, flagOfName, OPTION_KEYS, OPTIONS, optionOf, WITHDRAWN, type Option, type OptionKey
} from './config-options.js'
import { aListOf, anObject, checkOptions, refuseProblems, show, suggest, type OptionCheck } from './option-checks.js'

type Rows = typeof OPTIONS
type ValueOf<K extends OptionKey> = Rows[K] extends Option<infer S, infer D>
  ? (D extends undefined ? Static<S> | undefined : Static<S>)
  : never

/** Every option under its key, in the unit that its name says. Frozen. */
export type Config = Readonly<{ [K in Exclude<OptionKey, 'resumeWindowSeconds'>]: ValueOf<K> } & {
  resumeWindowSeconds: number
}>

export interface ConfigSources {
  /** Such as process.env. */
  env: Readonly<Record<string, string | undefined>>
  /** Arguments of the command line, without the program. */
  argv: readonly string[]
  /** Text of the .env file, if there is one. */
  dotenv?: string | undefined
}

const SOURCES: Record<keyof ConfigSources, OptionCheck> = {
  env: { ...anObject, required: true },
  argv: { ...aListOf(argument => typeof argument === 'string', 'arguments'), required: true },
  dotenv: { is: value => typeof value === 'string', expected: 'the text of a .env file', shown: () => 'what is given' }
}

/** What the command line asks for beside running. */
export type Action = 'serve' | 'help' | 'version' | 'print-config' | 'check-config' | 'healthcheck'

interface Given { text: string, place: string }
type Draft = { [K in OptionKey]?: unknown }

const ACTIONS: readonly Action[] = ['help', 'version', 'print-config', 'check-config', 'healthcheck']
const PREFIX = 'HOLDFAST_'

/** The first of `ACTIONS` whose flag is given, or `serve`. */
export function readAction (argv: readonly string[]): Action {
  return ACTIONS.find(action => argv.includes(`--${action}`)) ?? 'serve'
}

/**
 * The configuration.
 *
 * @throws CONFIG_INVALID  the message lists every problem, one a line
 */
export function loadConfig (sources: ConfigSources): Config {
  checkOptions('loadConfig', sources, SOURCES)
  const problems: string[] = []
  const given = gather(sources, problems)
  const draft: Draft = {}
  for (const key of OPTION_KEYS) {
    const entry = given.get(key)
    draft[key] = entry === undefined ? optionOf(key).default : readValue(key, entry, problems)
  }
  const config = complete(draft, given)
  checkTogether(config, given, problems)
  checkUsers(config, given, problems)
  refuseProblems(problems)
  return config
}

/**
 * The configuration with nothing set, changed in the members given: for tests and for applications
 * that have their own ways. A member that is undefined counts as absent.
 *
 * @throws CONFIG_INVALID  the message lists every problem, one a line
 */
export function configWith (changes: { [K in keyof Config]?: Config[K] | undefined } = {}): Config {
  const problems: string[] = []
  const given = new Map<OptionKey, Given>()
  const draft: Draft = {}
  for (const name of Object.keys(changes)) {
    if (OPTION_KEYS.includes(name as OptionKey)) continue
    problems.push(`${name} is not an option${suggest(name, OPTION_KEYS)}.`)
  }
  for (const key of OPTION_KEYS) {
    const value = changes[key] ?? optionOf(key).default
    draft[key] = value
    if (changes[key] === undefined) continue
    given.set(key, { text: String(value), place: key })
    const row = optionOf(key)
    const fault = faultOf(row, value)
    if (fault !== undefined) problems.push(`${key}: ${row.secret ? 'the value' : show(value)} is not valid${fault}.`)
    else if (row.canonical !== undefined) draft[key] = row.canonical(value as never)
  }
  const config = complete(draft, given)
  if (problems.length === 0) checkTogether(config, given, problems)
  refuseProblems(problems)
  return config
}

function complete (draft: Draft, given: Map<OptionKey, Given>): Config {
  const implied = draft.redisUrl !== undefined ? 'redis' : draft.dataDir !== undefined ? 'embedded' : draft.store
  return Object.freeze({
    ...draft,
    store: given.has('store') ? draft.store : implied,
    resumeWindowSeconds: draft.resumeWindowSeconds ?? draft.sessionTimeoutSeconds
  }) as Config
}

/** What is set, by option; the place that wins comes last. */
function gather ({ env, argv, dotenv }: ConfigSources, problems: string[]): Map<OptionKey, Given> {
  const given = new Map<OptionKey, Given>()
  const names = OPTION_KEYS.map(key => OPTIONS[key].env)
  const file = dotenv === undefined ? {} : parseEnv(dotenv)
  for (const [place, values] of [['.env', file], ['environment', env]] as const) {
    for (const [name, text] of Object.entries(values)) {
      const key = OPTION_KEYS.find(each => OPTIONS[each].env === name)
      if (key !== undefined && text !== undefined) given.set(key, { text, place: `${name} (${place})` })
      else if (Object.hasOwn(WITHDRAWN, name)) {
        problems.push(`${name} (${place}) has been withdrawn: ${WITHDRAWN[name]}.`)
      } else if (key === undefined && name.startsWith(PREFIX)) {
        problems.push(`${name} (${place}) is not an option${suggest(name, names)}.`)
      }
    }
  }
  gatherFlags(argv, given, problems)
  return given
}

function gatherFlags (argv: readonly string[], given: Map<OptionKey, Given>, problems: string[]): void {
  const options = Object.fromEntries([
    ...OPTION_KEYS.map(key => [flagOf(key), { type: 'string' as const }]),
    ...ACTIONS.map(action => [action, { type: 'boolean' as const }])
  ])
  // Not strict, since parseArgs would stop at the first problem; the tokens tell all of them.
  const { tokens } = parseArgs({ args: [...argv], options, strict: false, allowPositionals: true, tokens: true })
  let afterUnknown = false
  for (const token of tokens) {
    // What follows an unknown flag was meant as its value.
    if (token.kind === 'positional' && !afterUnknown) {
      problems.push(`"${token.value}" on the command line is not a flag.`)
    }
    afterUnknown = false
    if (token.kind !== 'option' || ACTIONS.includes(token.name as Action)) continue
    const key = OPTION_KEYS.find(each => flagOf(each) === token.name)
    const withdrawn = Object.keys(WITHDRAWN).find(name => flagOfName(name) === token.name)
    if (withdrawn !== undefined) {
      problems.push(`${token.rawName} has been withdrawn: ${WITHDRAWN[withdrawn]}.`)
      afterUnknown = true
    } else if (key === undefined) {
      const near = suggest(token.rawName, Object.keys(options).map(name => `--${name}`))
      problems.push(`${token.rawName} is not a flag${near}.`)
      afterUnknown = true
    } else if (optionOf(key).secret) {
      problems.push(`${token.rawName} is not taken, since every user of the machine can read a command line; ` +
        `set ${OPTIONS[key].env}.`)
    } else if (typeof token.value !== 'string' || (token.inlineValue !== true && token.value.startsWith('--'))) {
      problems.push(`${token.rawName} needs a value.`)
    } else given.set(key, { text: token.value, place: token.rawName })
  }
}

function readValue (key: OptionKey, { text, place }: Given, problems: string[]): unknown {
  const row = optionOf(key)
  const shown = row.secret ? 'the value' : JSON.stringify(text)
  const value = parseValue(row, text)
  const fault = faultOf(row, value)
  if (fault === undefined) return row.canonical === undefined ? value : row.canonical(value as never)
  problems.push(`${place}: ${shown} is not valid${fault}.`)
  return Value.Check(row.schema, value) ? value : row.default
}

/** What follows "is not valid" for a value; undefined for one that is. */
function faultOf (row: Option, value: unknown): string | undefined {
  if (!Value.Check(row.schema, value)) return `. Expected ${rangeOf(row)}`
  const problem = row.problem?.(value as never)
  return problem === undefined ? undefined : `: ${problem}`
}

/** Undefined for a text that is not written as the schema's type. */
function parseValue (row: Option, text: string): unknown {
  const { type } = row.schema as { type?: string }
  if (type === 'integer') return /^\d{1,15}$/.test(text) ? Number(text) : undefined
  if (type === 'number') return /^\d{1,12}(\.\d{1,3})?$/.test(text) ? Number(text) : undefined
  if (type === 'boolean') return text === 'true' ? true : text === 'false' ? false : undefined
  if (type === 'array') return text === '' ? [] : text.split(',').map(item => item.trim())
  return text
}

interface SchemaFacts {
  type?: string
  minimum?: number
  maximum?: number
  enum?: string[]
  minLength?: number
  maxLength?: number
  items?: { enum?: string[] }
}

/** What an option takes, in words. */
export function rangeOf (row: Option): string {
  const schema = row.schema as SchemaFacts
  const between = `from ${schema.minimum} to ${schema.maximum}`
  if (schema.enum?.length === 1) return `${schema.enum[0]}`
  if (schema.enum !== undefined) return `one of ${schema.enum.join(', ')}`
  if (schema.type === 'integer') return `a whole number ${between}`
  if (schema.type === 'number') return `a number ${between}, with up to three decimals`
  if (schema.type === 'boolean') return 'true or false'
  if (schema.type === 'array') {
    const items = schema.items?.enum
    return items === undefined ? 'a list, separated by commas' : `a list, separated by commas, of ${items.join(', ')}`
  }
  return `${schema.minLength} to ${schema.maxLength} characters`
}

/** What no option can know by itself. */
function checkTogether (config: Config, given: Map<OptionKey, Given>, problems: string[]): void {
  const { host, adminToken, trustProxy, jwtSecret, jwksUrl, coreUrl } = config
  const { maxSessions, maxSessionsPerUser, outboxBytes, outboxTotalBytes } = config
  if (!isLoopbackName(host) && adminToken === undefined && !given.has('adminToken')) {
    problems.push(`HOST ${JSON.stringify(host)} can be reached from other machines, and then anybody could read ` +
      'and end sessions: set HOLDFAST_ADMIN_TOKEN, or listen on 127.0.0.1.')
  }
  const needs = (keys: OptionKey[], present: boolean, what: string): void => {
    for (const key of keys) {
      if (isChanged(config, given, key) && !present) problems.push(`${OPTIONS[key].env} has no effect without ${what}.`)
    }
  }
  const ofTokens: OptionKey[] = ['jwtIssuer', 'jwtAudience', 'jwtClockToleranceSeconds']
  needs(ofTokens, jwtSecret !== undefined || jwksUrl !== undefined, 'HOLDFAST_JWT_SECRET or HOLDFAST_JWKS_URL')
  needs(['jwksMaxStaleSeconds'], jwksUrl !== undefined, 'HOLDFAST_JWKS_URL')
  const ofCore: OptionKey[] = ['coreSecret', 'coreTimeoutSeconds', 'coreIdempotent', 'lifecycleEvents']
  needs(ofCore, coreUrl !== undefined, 'HOLDFAST_CORE_URL')
  needs(['dataDir', 'durability'], config.store === 'embedded', 'HOLDFAST_STORE=embedded')
  needs(['redisCaFile'], config.redisUrl?.startsWith('rediss') === true, 'HOLDFAST_REDIS_URL=rediss://…')
  const ofRedis: OptionKey[] = ['redisUrl', 'redisPrefix', 'redisPartitions', 'nodeName']
  needs(ofRedis, config.store === 'redis', 'HOLDFAST_STORE=redis')
  if (config.store === 'redis' && config.redisUrl === undefined) {
    problems.push('HOLDFAST_STORE is redis, which keeps sessions in a Redis or Valkey: set HOLDFAST_REDIS_URL.')
  }
  if (config.store === 'embedded' && config.dataDir === undefined) {
    problems.push('HOLDFAST_STORE is embedded, which keeps sessions in a directory: set HOLDFAST_DATA_DIR.')
  }
  if (config.workers > 1 && config.store !== 'redis') {
    problems.push(`HOLDFAST_WORKERS is ${config.workers}, but the ${config.store} store belongs to a single process: ` +
      'set HOLDFAST_REDIS_URL, so that the workers share their sessions, or leave HOLDFAST_WORKERS at 1.')
  }
  if (isChanged(config, given, 'maxSessionsPerUser') && maxSessionsPerUser > maxSessions) {
    problems.push(`HOLDFAST_MAX_SESSIONS_PER_USER is ${maxSessionsPerUser} and has no effect: ` +
      `HOLDFAST_MAX_SESSIONS, ${maxSessions}, is reached before it.`)
  }
  if (isLoopbackName(host) && trustProxy.length > 0 && !reachLoopback(trustProxy)) {
    problems.push(`HOLDFAST_TRUST_PROXY has no effect: HOST ${JSON.stringify(host)} is reached from this machine ` +
      'alone, and none of its addresses is in the list.')
  }
  if (outboxBytes > outboxTotalBytes) {
    problems.push(`HOLDFAST_OUTBOX_BYTES is ${outboxBytes}, more than HOLDFAST_OUTBOX_TOTAL_BYTES, ` +
      `${outboxTotalBytes}, allows for all sessions together.`)
  }
}

/**
 * Whether an option was set to something else than its default; the output of --print-config sets
 * every one.
 */
function isChanged (config: Config, given: Map<OptionKey, Given>, key: OptionKey): boolean {
  return given.has(key) && String(config[key]) !== String(optionOf(key).default)
}

/**
 * Whether a connection from this machine can come from one of these proxies. True for a list with
 * another problem, which is told already.
 */
function reachLoopback (proxies: readonly string[]): boolean {
  const isBadOrLoopback = (proxy: string): boolean =>
    proxyRangeProblem(proxy) !== undefined || isLoopbackAddress(proxy.split('/', 1)[0] as string)
  if (proxies.some(isBadOrLoopback)) return true
  return ['127.0.0.1', '::1'].some(createAddressMatcher(proxies))
}

/** For the server alone: an application tells its users apart by a function of its own. */
function checkUsers (config: Config, given: Map<OptionKey, Given>, problems: string[]): void {
  if (config.jwtSecret !== undefined || config.jwksUrl !== undefined) return
  if (!isChanged(config, given, 'maxSessionsPerUser')) return
  problems.push('HOLDFAST_MAX_SESSIONS_PER_USER has no effect without HOLDFAST_JWT_SECRET or HOLDFAST_JWKS_URL: ' +
    'everybody is the placeholder user, who has no limit.')
}
