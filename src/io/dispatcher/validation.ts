// Validation against what schema.ts allows. Anything else is refused where it is registered: taken
// for a JSON Schema without a rule, it would switch validation off.
//
// TypeBox is compiled and answers at once. A Standard Schema may transform the value, and may
// answer with a promise; only then a command costs one.

import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { TSchema } from 'typebox'
import { Compile, type Validator } from 'typebox/compile'
import { HoldfastError } from '../errors.js'
import { firstProblem } from '../protocol/codec.js'
import type { MaybePromise } from '../types.js'

export type Compiled =
  | { readonly kind: 'typebox', readonly validator: Validator }
  | { readonly kind: 'standard', readonly validate: StandardSchemaV1.Props['validate'] }

/** Words of JSON Schema of which a schema has at least one, unless TypeBox made it. */
const KEYWORDS = ['type', 'properties', 'items', 'enum', 'const', 'anyOf', 'oneOf', 'allOf', 'not', 'if', '$ref']

/** @throws PLUGIN_MISUSED  for what is not a schema; `what` names it */
export function compileSchema (schema: unknown, what: string): Compiled {
  const standard = (schema as { '~standard'?: Partial<StandardSchemaV1.Props> } | null)?.['~standard']
  // arktype's schemas are functions.
  if (standard?.version === 1 && typeof standard.validate === 'function') {
    return { kind: 'standard', validate: standard.validate }
  }
  if (!isJsonSchema(schema)) {
    throw new HoldfastError('PLUGIN_MISUSED', {
      message: `${what} is not a schema. Give one of TypeBox, or of a library that implements Standard Schema v1, ` +
        'such as zod from 3.24 on.'
    })
  }
  return { kind: 'typebox', validator: Compile(schema as TSchema) }
}

function isJsonSchema (schema: unknown): boolean {
  if (typeof schema !== 'object' || schema === null || Array.isArray(schema)) return false
  if ('~kind' in schema) return true
  // An object of a class is another library's.
  const prototype: unknown = Object.getPrototypeOf(schema)
  return (prototype === Object.prototype || prototype === null) && KEYWORDS.some(word => word in schema)
}

/** The value that passed, or the first thing that is wrong with it. */
export type Verified = { readonly value: unknown } | { readonly problem: string }

export function verify (schema: Compiled, value: unknown): MaybePromise<Verified> {
  if (schema.kind === 'typebox') {
    const { validator } = schema
    return validator.Check(value) ? { value } : { problem: firstProblem(validator.Errors(value)) }
  }
  const result = schema.validate(value)
  return result instanceof Promise ? result.then(readResult) : readResult(result)
}

function readResult (result: StandardSchemaV1.Result<unknown>): Verified {
  if (result.issues === undefined) return { value: result.value }
  const [issue] = result.issues
  const path = issue?.path?.map(part => typeof part === 'object' ? part.key : part) ?? []
  const place = path.map(part => `/${String(part)}`).join('')
  return { problem: `${place} ${issue?.message ?? 'is not valid'}`.trim().slice(0, 512) }
}
