// Every option of the server, once: its environment name, schema, unit, default, and what an
// operator needs to know about it. The type of the configuration, its validation, the flags,
// `--help` and the table in docs/operations.md all follow from this table, and keep its order.
//
// The rows are in config-options/, by subject. Reading and judging values is config.ts; printing is
// config-help.ts. Nothing here reads the environment.

import { ACCESS_OPTIONS } from './config-options/access.js'
import { CORE_OPTIONS } from './config-options/core.js'
import type { Option } from './config-options/option.js'
import { SERVICE_OPTIONS } from './config-options/service.js'
import { SESSION_OPTIONS } from './config-options/sessions.js'
import { STORE_OPTIONS } from './config-options/stores.js'

export type { Option } from './config-options/option.js'

export const OPTIONS = {
  ...ACCESS_OPTIONS,
  ...CORE_OPTIONS,
  ...STORE_OPTIONS,
  ...SESSION_OPTIONS,
  ...SERVICE_OPTIONS
}

/**
 * Names of former options, and what to do in their place: a name that once had an effect is not
 * just unknown.
 */
export const WITHDRAWN: Readonly<Record<string, string>> = {
  HOLDFAST_CORE_RETRIES: 'commands that surely did not run are now repeated while their time limit lasts, and others ' +
    'not at all unless HOLDFAST_CORE_IDEMPOTENT is true; remove it'
}

export type OptionKey = keyof typeof OPTIONS
export const OPTION_KEYS = Object.keys(OPTIONS) as OptionKey[]

/** The row under a general type, for code that walks the table. */
export function optionOf (key: OptionKey): Option {
  return OPTIONS[key] as unknown as Option
}

/** `HOLDFAST_MAX_SESSIONS` is `max-sessions`. */
export function flagOf (key: OptionKey): string {
  return flagOfName(OPTIONS[key].env)
}

/** The same, for a name of the environment. */
export function flagOfName (env: string): string {
  return env.replace(/^HOLDFAST_/, '').toLowerCase().replaceAll('_', '-')
}
