// Checks options that are given in code, as config.ts checks those of the environment: whatever is
// wrong is found when the application starts, all of it at once, and named.
//
// Invariants: a bad value is never replaced by a default; an unknown name is a bad value, since a
// typo would otherwise be silent; an option that is undefined counts as absent; no message quotes a
// secret.

import { HoldfastError } from './io/errors.js'

export interface OptionCheck {
  readonly is: (value: unknown) => boolean
  /** Completes "Expected …". */
  readonly expected: string
  readonly required?: true
  /** The wrong value in the message, where `show` would say too much or too little. */
  readonly shown?: (value: unknown) => string
}

/**
 * What every Fastify plugin may be given beside its own options; the last by fastify-cli's test
 * helper.
 */
const OPTIONS_OF_FASTIFY: readonly string[] = ['prefix', 'logLevel', 'logSerializers', 'skipOverride']

type Checks = Readonly<Record<string, OptionCheck>>

/**
 * For what is no Fastify plugin, such as a factory; `owner` is what has the options.
 *
 * @throws CONFIG_INVALID  the message lists every problem, one a line
 */
export function checkOptions (owner: string, options: unknown, checks: Checks): void {
  refuseProblems(problemsOf(owner, options, checks, []))
}

/** @throws CONFIG_INVALID  the message lists every problem, one a line */
export function checkPluginOptions (plugin: string, options: unknown, checks: Checks): void {
  refuseProblems(problemsOf(plugin, options, checks, OPTIONS_OF_FASTIFY))
}

function problemsOf (owner: string, options: unknown, checks: Checks, alsoKnown: readonly string[]): string[] {
  if (!isObject(options)) return [`The options of ${owner}: ${show(options)} is not valid. Expected an object.`]
  const problems: string[] = []
  for (const name of Object.keys(options)) {
    if (Object.hasOwn(checks, name) || alsoKnown.includes(name)) continue
    problems.push(`${name} is not an option of ${owner}${suggest(name, Object.keys(checks))}.`)
  }
  for (const [name, { is, expected, required, shown = show }] of Object.entries(checks)) {
    const value = (options as Record<string, unknown>)[name]
    if (value === undefined && required) problems.push(`${name} of ${owner} is missing. Expected ${expected}.`)
    if (value !== undefined && !is(value)) {
      problems.push(`${name} of ${owner}: ${shown(value)} is not valid. Expected ${expected}.`)
    }
  }
  return problems
}

/** @throws CONFIG_INVALID  if there are any */
export function refuseProblems (problems: readonly string[]): void {
  if (problems.length > 0) throw new HoldfastError('CONFIG_INVALID', { message: problems.join('\n') })
}

export const aBoolean: OptionCheck = { is: value => typeof value === 'boolean', expected: 'true or false' }
export const anObject: OptionCheck = { is: isObject, expected: 'an object' }
export const aFunction = (what: string): OptionCheck => ({ is: isFunction, expected: `a function ${what}` })
export const aText = (what: string): OptionCheck => ({ is: isText, expected: what })
export const aPath: OptionCheck = {
  is: value => typeof value === 'string' && value.startsWith('/'), expected: 'a path that begins with /'
}

export function aWholeNumber (minimum: number, maximum = Number.MAX_SAFE_INTEGER): OptionCheck {
  const range = maximum === Number.MAX_SAFE_INTEGER ? `, ${minimum} or more` : ` from ${minimum} to ${maximum}`
  return { is: value => isWithin(value, minimum, maximum), expected: `a whole number${range}` }
}

/** Of a list the first item that is wrong is shown. */
export function aListOf (is: (item: unknown) => boolean, what: string): OptionCheck {
  return {
    is: value => Array.isArray(value) && value.every(is),
    expected: `an array of ${what}`,
    shown: value => show(Array.isArray(value) ? value.find(item => !is(item)) : value)
  }
}

/** For an option whose value may be a secret, or hold one: only its kind is shown. */
export function hidden (check: OptionCheck): OptionCheck {
  return {
    ...check,
    shown: value => typeof value === 'string'
      ? `a text of ${Buffer.byteLength(value)} bytes`
      : isObject(value) || isFunction(value) ? show(value) : `a value of the type ${typeof value}`
  }
}

/** Something with these methods, such as a store. */
export function anObjectWith (methods: readonly string[], what: string): OptionCheck {
  return {
    is: value => isObject(value) && methods.every(name => isFunction((value as Record<string, unknown>)[name])),
    expected: `${what}, with the methods ${methods.join(', ')}`
  }
}

export function milliseconds (minimum: number, maximum: number): OptionCheck {
  return {
    is: value => isWithin(value, minimum, maximum),
    expected: `${minimum} to ${maximum} milliseconds`
  }
}

export const aClock = anObjectWith(['now', 'wall'], 'a clock')
export const aLog = anObjectWith(['debug', 'info', 'warn', 'error'], 'a log')
export const aCore = anObjectWith(['execute', 'notify', 'close'], 'a Platform Core')
export const aSessionStore = anObjectWith(['open', 'close', 'health', 'create', 'commit', 'end'], 'a session store')

export function orFunction ({ is, expected }: OptionCheck, what: string): OptionCheck {
  return { is: value => isFunction(value) || is(value), expected: `${expected}, or a function ${what}` }
}

/** `; did you mean …?`, where one of the known names is near. */
export function suggest (name: string, known: readonly string[]): string {
  const [nearest] = known.map(each => ({ each, distance: editDistance(name, each) }))
    .sort((a, b) => a.distance - b.distance)
  const isNear = nearest !== undefined && nearest.distance <= Math.max(3, name.length / 2)
  return isNear ? `; did you mean ${nearest.each}?` : ''
}

/** A value in a message; bounded, since somebody may have handed in a document. */
export function show (value: unknown): string {
  if (typeof value === 'function') return 'a function'
  if (typeof value === 'number' || typeof value === 'bigint') return String(value)
  if (isObject(value)) return Array.isArray(value) ? 'an array' : 'an object'
  return (JSON.stringify(value) ?? String(value)).slice(0, 80)
}

function isObject (value: unknown): value is object {
  return typeof value === 'object' && value !== null
}

function isFunction (value: unknown): boolean {
  return typeof value === 'function'
}

function isWithin (value: unknown, minimum: number, maximum: number): boolean {
  return Number.isInteger(value) && (value as number) >= minimum && (value as number) <= maximum
}

function isText (value: unknown): boolean {
  return typeof value === 'string' && value !== ''
}

/** Levenshtein's: letters to insert, remove or replace. */
function editDistance (a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1))
    }
    row = next
  }
  return row[b.length] as number
}
