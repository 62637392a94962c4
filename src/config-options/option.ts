// One row's shape, and what rows of several subjects need to state and judge their values.

import { Type, type Static, type TSchema } from 'typebox'

export interface Option<S extends TSchema = TSchema, D = unknown> {
  /**
   * Name in the environment and in `.env`; the flag is `--` and the same in kebab-case, without the
   * prefix.
   */
  readonly env: string
  /** Of the value once it is read: bounds and alternatives are part of it. */
  readonly schema: S
  /** Undefined: not set. */
  readonly default: D
  /** For numbers. */
  readonly unit?: 'seconds' | 'bytes' | 'messages' | 'commands' | 'sessions' | 'keys' | 'partitions' | 'processes' |
    'per second' | 'per minute'
  /**
   * Masked wherever configuration is printed, and not taken from the command line, which every user
   * of the machine can read.
   */
  readonly secret?: true
  /** What it decides, or which failure or attack it bounds. */
  readonly what: string
  /** What the peer sees when the limit is hit. */
  readonly hit?: string
  /** When to raise and when to lower it. */
  readonly tune?: string
  /** What is wrong with a value that its schema allows; undefined when nothing is. */
  readonly problem?: (value: never) => string | undefined
  /**
   * The one way of writing a value without a problem: what is compared with, and what
   * --print-config shows.
   */
  readonly canonical?: (value: never) => unknown
}

/** Keeps the type of the default, which Option alone would widen. */
export function option<S extends TSchema, const D extends Static<S> | undefined> (row: Option<S, D>): Option<S, D> {
  return row
}

/** Decimals down to a millisecond are taken. */
export function seconds (minimum: number, maximum: number) {
  return Type.Number({ minimum, maximum })
}

export function whole (minimum: number, maximum: number) {
  return Type.Integer({ minimum, maximum })
}

export function list () {
  return Type.Array(Type.String({ minLength: 1 }))
}

export function text (maxLength = 2048) {
  return Type.String({ minLength: 1, maxLength })
}

/** What keeps a value from being an address to send requests to; undefined when nothing does. */
export function urlProblem (value: string): string | undefined {
  if (!URL.canParse(value) || !/^https?:$/.test(new URL(value).protocol)) return 'it is not an http or https URL'
  const url = new URL(value)
  if (url.username !== '' || url.password !== '' || url.hash !== '') return 'it carries credentials or a fragment'
  return undefined
}
