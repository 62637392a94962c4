// What may describe a payload, a result or an event, and the types that follow from it: a TypeBox
// schema (JSON Schema), or a schema of any library that speaks Standard Schema v1, such as zod,
// valibot and arktype. Types only: the client shares them.

import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { Static, TSchema } from 'typebox'
import type { Jsonify } from '../types.js'

export type Schema = TSchema | StandardSchemaV1

/** What a handler is given of a payload: after a transformation, if the schema has one. */
export type OutputOf<S> = S extends StandardSchemaV1
  ? StandardSchemaV1.InferOutput<S>
  : S extends TSchema ? Static<S> : never
/** What a client sends, and what a handler returns: before it. */
export type InputOf<S> = S extends StandardSchemaV1
  ? StandardSchemaV1.InferInput<S>
  : S extends TSchema ? Static<S> : never
/** What arrives at the other side of the wire. */
export type WireOf<S> = S extends StandardSchemaV1
  ? Jsonify<StandardSchemaV1.InferOutput<S>>
  : S extends TSchema ? Static<S> : never
