// What the body of a Platform Core's answer means. readAnswer is asked about a 2xx, readRefusal
// about a 4xx; nothing else parses what a core sends. A core is trusted to decide but not to be
// well-formed: text that is not UTF-8, what io/json.ts refuses, and wrong types end here as
// INVALID_RESULT, before anything of it can reach a session. Unknown members are ignored and not
// kept.

import { Type, type Static } from 'typebox'
import { Compile } from 'typebox/compile'
import type { CoreAnswer } from '../io/dispatcher/core.js'
import { COMMAND_ERROR_CODE, HoldfastError, commandError } from '../io/errors.js'
import { parseJson } from '../io/json.js'
import type { JsonObject, JsonValue } from '../io/types.js'

const MAX_MESSAGES = 1_000
/** Longest sentence of a refusal that is passed on, in UTF-16 units. */
const MAX_SENTENCE = 512

const AnswerSchema = Type.Object({
  payload: Type.Optional(Type.Unknown()),
  context: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  messages: Type.Optional(Type.Array(Type.Object({
    event: Type.String({ minLength: 1, maxLength: 128 }),
    payload: Type.Optional(Type.Unknown()),
    behind: Type.Optional(Type.Boolean())
  }), { maxItems: MAX_MESSAGES }))
})
const answerValidator = Compile(AnswerSchema)

/**
 * The answer in the body of a 2xx.
 *
 * Shape: an absent payload is null, absent messages are an empty list, an absent context stays
 * absent. A body that is empty, or `null` as frameworks print the answer of a function that returns
 * nothing, is an answer without members.
 *
 * @throws INVALID_RESULT  the cause says what is wrong and names the member, never a value
 */
export function readAnswer (body: Uint8Array): CoreAnswer {
  let value: unknown
  try {
    value = body.length === 0 ? {} : parseBody(body) ?? {}
  } catch (cause) {
    throw new HoldfastError('INVALID_RESULT', { cause })
  }
  if (!answerValidator.Check(value)) throw new HoldfastError('INVALID_RESULT', { cause: new TypeError(faultOf(value)) })
  const { payload, context, messages } = value as Static<typeof AnswerSchema>
  const answer: CoreAnswer = {
    payload: payload === undefined ? null : payload as JsonValue,
    messages: (messages ?? []).map(message => ({
      event: message.event,
      payload: (message.payload ?? null) as JsonValue,
      ...(message.behind === true ? { behind: true } : {})
    }))
  }
  if (context !== undefined) answer.context = context as JsonObject
  return answer
}

/**
 * The core's own error in the body of a 4xx: its code and its sentence, cut after 512 characters,
 * or a constant one if it gave none. Undefined if the body holds no code of the form that may be
 * shown to a client, as with the error page of a proxy.
 */
export function readRefusal (body: Uint8Array): Error | undefined {
  let value: unknown
  try {
    value = parseBody(body)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null) return undefined
  const { code, message } = value as { code?: unknown, message?: unknown }
  if (typeof code !== 'string' || !COMMAND_ERROR_CODE.test(code)) return undefined
  const sentence = typeof message === 'string' && message !== ''
    ? message.slice(0, MAX_SENTENCE)
    : 'The Platform Core refused the command.'
  return commandError(code, sentence)
}

/** What a client may not send, it is not sent either: the rules are those of P-6. */
function parseBody (body: Uint8Array): unknown {
  return parseJson(new TextDecoder('utf-8', { fatal: true }).decode(body))
}

function faultOf (value: unknown): string {
  const fault = answerValidator.Errors(value)[0]
  return fault === undefined
    ? 'the body has the wrong shape'
    : `${fault.instancePath === '' ? 'the body' : fault.instancePath} ${fault.message}`
}
