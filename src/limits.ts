// The limits of the domain, each tied to the option of the server that it is. Defaults and ranges
// come from there (config-options.ts), so that a limit means the same in the environment and in
// code.
//
// `limitsOf` gives what a configuration says. The `complete…` functions take what an application
// gives in code: partial means the server's defaults for the rest; whatever is wrong is refused.

import { Value } from 'typebox/value'
import { optionOf, type OptionKey } from './config-options.js'
import { rangeOf, type Config } from './config.js'
import type { DispatcherLimits } from './io/dispatcher/dispatcher.js'
import type { GatewayLimits } from './io/gateway/gateway.js'
import type { OperatorLimits } from './io/operators/idempotency-keys.js'
import type { SessionLimits } from './io/session/runtime.js'
import type { Millis } from './io/types.js'
import { hidden, milliseconds, refuseProblems, show, suggest, type OptionCheck } from './option-checks.js'

export interface Limits {
  /** For the plugin session-manager. */
  sessions: SessionLimits
  /** For the plugin dispatcher. */
  commands: DispatcherLimits
  /** For the plugin websocket-gateway. */
  connections: GatewayLimits
  /** For the plugin operator-auth. */
  operators: OperatorLimits
}

const SESSIONS = {
  idleTimeoutMs: 'sessionTimeoutSeconds',
  resumeWindowMs: 'resumeWindowSeconds',
  maxSessions: 'maxSessions',
  maxSessionsPerUser: 'maxSessionsPerUser',
  outboxMessages: 'outboxMessages',
  outboxBytes: 'outboxBytes',
  outboxTotalBytes: 'outboxTotalBytes',
  maxContextBytes: 'maxContextBytes'
} as const satisfies Record<keyof SessionLimits, OptionKey>

const COMMANDS = {
  commandsPerSecond: 'commandsPerSecond',
  maxInFlight: 'maxInFlight',
  commandTimeoutMs: 'commandTimeoutSeconds'
} as const satisfies Record<keyof DispatcherLimits, OptionKey>

const CONNECTIONS = {
  maxMessageBytes: 'maxMessageBytes',
  maxBufferedBytes: 'maxBufferedBytes',
  heartbeatMs: 'heartbeatSeconds'
} as const satisfies Record<keyof GatewayLimits, OptionKey>

const OPERATORS = {
  idempotencyKeyMs: 'idempotencyKeySeconds',
  maxIdempotencyKeys: 'maxIdempotencyKeys'
} as const satisfies Record<keyof OperatorLimits, OptionKey>

/** Every limit, in the order of the plugins. */
export const OPTION_OF_LIMIT = { ...SESSIONS, ...COMMANDS, ...CONNECTIONS, ...OPERATORS } as const

type Table<L> = Record<keyof L & string, OptionKey>
/** Partial, and undefined counts as absent. */
export type Given<L> = { [K in keyof L]?: L[K] | undefined }

/** The limits that a configuration says; `limitsOf(configWith())` are the server's defaults. */
export function limitsOf (config: Config): Limits {
  return {
    sessions: readFrom<SessionLimits>(SESSIONS, config),
    commands: readFrom<DispatcherLimits>(COMMANDS, config),
    connections: readFrom<GatewayLimits>(CONNECTIONS, config),
    operators: readFrom<OperatorLimits>(OPERATORS, config)
  }
}

/** @throws CONFIG_INVALID */
export function completeSessionLimits (given: Given<SessionLimits> = {}): SessionLimits {
  return complete<SessionLimits>('holdfast/session-manager', SESSIONS, given)
}

/** @throws CONFIG_INVALID */
export function completeCommandLimits (given: Given<DispatcherLimits> = {}): DispatcherLimits {
  return complete<DispatcherLimits>('holdfast/dispatcher', COMMANDS, given)
}

/** @throws CONFIG_INVALID */
export function completeConnectionLimits (given: Given<GatewayLimits> = {}): GatewayLimits {
  return complete<GatewayLimits>('holdfast/websocket-gateway', CONNECTIONS, given)
}

/** @throws CONFIG_INVALID */
export function completeOperatorLimits (given: Given<OperatorLimits> = {}): OperatorLimits {
  return complete<OperatorLimits>('holdfast/operator-auth', OPERATORS, given)
}

/** All limits under one roof, for an application that registers everything at once. */
export type AllLimits = SessionLimits & DispatcherLimits & GatewayLimits & OperatorLimits

/** @throws CONFIG_INVALID */
export function completeLimits (given: Given<AllLimits> = {}): Limits {
  const all = complete<AllLimits>('holdfast', OPTION_OF_LIMIT, given)
  return {
    sessions: pick<SessionLimits>(SESSIONS, all),
    commands: pick<DispatcherLimits>(COMMANDS, all),
    connections: pick<GatewayLimits>(CONNECTIONS, all),
    operators: pick<OperatorLimits>(OPERATORS, all)
  }
}

/** What the server's option of that name takes, for an option in code. */
export function likeOption (key: OptionKey): OptionCheck {
  const row = optionOf(key)
  const check: OptionCheck = {
    is: value => Value.Check(row.schema, value) && row.problem?.(value as never) === undefined,
    expected: rangeOf(row)
  }
  return row.secret ? hidden(check) : check
}

/** The same for an option in milliseconds, where the server's is in seconds. */
export function millisecondsLike (key: OptionKey): OptionCheck {
  const { minimum, maximum } = optionOf(key).schema as { minimum?: number, maximum?: number }
  return milliseconds(toMs(minimum ?? 0), toMs(maximum ?? Number.MAX_SAFE_INTEGER / 1000))
}

/** What a drain may take where nobody says otherwise. */
export const defaultDrainMs = (): Millis => toMs(optionOf('drainSeconds').default as number)

/** Rounded, since 1.001 × 1000 is not 1001. */
export function toMs (seconds: number): Millis {
  return Math.round(seconds * 1000)
}

function inUnitOf (name: string, value: number): number {
  return name.endsWith('Ms') ? toMs(value) : value
}

function readFrom<L extends object> (table: Table<L>, config: Config): L {
  const entries = Object.entries<OptionKey>(table)
  return Object.fromEntries(entries.map(([name, key]) => [name, inUnitOf(name, config[key] as number)])) as L
}

function pick<L extends object> (table: Table<L>, all: L): L {
  return Object.fromEntries(Object.keys(table).map(name => [name, all[name as keyof L]])) as L
}

function complete<L extends object> (plugin: string, table: Table<L>, given: Given<L>): L {
  const problems: string[] = []
  if (typeof given !== 'object' || given === null) {
    refuseProblems([`limits of ${plugin}: ${show(given)} is not valid. Expected an object.`])
  }
  for (const name of Object.keys(given)) {
    if (name in table) continue
    problems.push(`limits.${name} is not a limit of ${plugin}${homeOf(name) ?? suggest(name, Object.keys(table))}.`)
  }
  const limits: Record<string, number> = {}
  for (const [name, key] of Object.entries<OptionKey>(table)) {
    const value: unknown = (given as Record<string, unknown>)[name]
    const { minimum, maximum } = optionOf(key).schema as { minimum?: number, maximum?: number }
    const [least, most] = [inUnitOf(name, minimum ?? 0), inUnitOf(name, maximum ?? Number.MAX_SAFE_INTEGER)]
    if (value === undefined) {
      // Only the resume window has no default of its own: it is as long as the session.
      limits[name] = inUnitOf(name, (optionOf(key).default ?? NaN) as number)
    } else if (Number.isInteger(value) && (value as number) >= least && (value as number) <= most) {
      limits[name] = value as number
    } else {
      problems.push(`limits.${name} of ${plugin}: ${show(value)} is not valid. ` +
        `Expected an integer from ${least} to ${most}.`)
    }
  }
  if (Number.isNaN(limits['resumeWindowMs'])) limits['resumeWindowMs'] = limits['idleTimeoutMs'] as number
  const { outboxBytes, outboxTotalBytes } = limits
  if (outboxBytes !== undefined && outboxTotalBytes !== undefined && outboxBytes > outboxTotalBytes) {
    problems.push(`limits.outboxBytes is ${outboxBytes}, more than limits.outboxTotalBytes, ${outboxTotalBytes}, ` +
      'allows for all sessions together.')
  }
  refuseProblems(problems)
  return limits as L
}

/** Where a limit belongs that was given to the wrong plugin. */
function homeOf (name: string): string | undefined {
  if (name in SESSIONS) return '; it belongs to holdfast/session-manager'
  if (name in COMMANDS) return '; it belongs to holdfast/dispatcher'
  if (name in CONNECTIONS) return '; it belongs to holdfast/websocket-gateway'
  return undefined
}
