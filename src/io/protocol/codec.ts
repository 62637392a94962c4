// Bytes to a checked frame, and values to the text of frames; nothing else in the server parses or prints them.
//
// An output is kept as the tail behind `{"seq":<n>`, so it is printed once, whoever gets it under whatever number. Error sentences are the table's
// or the platform's own, never a library's.

import { Type, type Static, type TObject } from 'typebox'
import { Compile } from 'typebox/compile'
import { Errors } from 'typebox/value'
import { ERRORS, HoldfastError, type ErrorCode } from '../errors.js'
import { type JsonError, parseJson, printJson } from '../json.js'
import type { ByteString, Output } from '../types.js'
import type { CloseAction, CloseCode } from './close-codes.js'
import { closeAction } from './close-codes.js'
import { AckFrame, CommandFrame, EndFrame, type ClientFrame } from './frames.js'

const isCommandFrame = compileClosed(CommandFrame)
const isAckFrame = compileClosed(AckFrame)
const isEndFrame = compileClosed(EndFrame)

/** Checks an object and that it has no other members. TypeBox would ask a regular expression about each name, which takes three times as long as all else. */
function compileClosed<T extends TObject> (schema: T): (value: object) => value is Static<T> & object {
  const members = Compile(Type.Object(schema.properties))
  const names = new Set(Object.keys(schema.properties))
  return (value): value is Static<T> & object => {
    if (!members.Check(value)) return false
    for (const name in value) if (!names.has(name)) return false
    return true
  }
}

/** The frame in a text message, or a sentence that says why there is none (P-6). Never throws. */
export function readClientFrame (data: Buffer): ClientFrame | string {
  let value: unknown
  try {
    value = parseJson(data.toString())
  } catch (error) {
    return `The frame is malformed: ${(error as JsonError).message}.`
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'The frame is not a JSON object.'
  if (isCommandFrame(value)) return value
  if (isAckFrame(value)) return value
  if (isEndFrame(value)) return value
  return explain(value)
}

function explain (value: object): string {
  const schema = 'type' in value && value.type === 'ack' ? AckFrame : 'type' in value && value.type === 'end' ? EndFrame : CommandFrame
  return `The frame is malformed: ${firstProblem(Errors(schema, value))}.`
}

/** The first problem of a failed check, in words that name the member and nothing of its value. */
export function firstProblem (errors: Iterable<{ instancePath: string, message: string, keyword?: string, params?: object }>): string {
  for (const { instancePath, message, params } of errors) {
    // An unknown member is reported twice; the first report, of a schema that is `false`, says nothing.
    if (message === 'schema is false') continue
    const extra = params !== undefined && 'additionalProperties' in params ? ` (${String(params.additionalProperties).slice(0, 80)})` : ''
    return `${instancePath === '' ? 'the top level' : instancePath.slice(0, 120)} ${message}${extra}`
  }
  return 'it has a member that is not allowed'
}

/** The bytes of a text. Nearly every text is ASCII, and stays what it is. */
export function toBytes (text: string): ByteString {
  return Buffer.byteLength(text) === text.length ? text : Buffer.from(text).toString('latin1')
}

function outputOf (text: string, commandId: number): Output {
  const tail = toBytes(text)
  return { tail, bytes: tail.length, commandId }
}

function idMember (id: number | string | undefined): string {
  return id === undefined ? '' : typeof id === 'number' ? `,"id":${id}` : `,"id":${JSON.stringify(id)}`
}

/** Numbered ids are remembered for their answers (P-12); others are not. */
function numberOf (id: number | string | undefined): number {
  return typeof id === 'number' ? id : 0
}

/** @throws TypeError  for what JSON cannot carry (P-6) */
export function messageOutput (event: string, payload: unknown): Output {
  return outputOf(`,"type":"message","event":${JSON.stringify(event)},"payload":${printJson(payload)}}`, 0)
}

/** @throws TypeError  for what JSON cannot carry (P-6) */
export function resultOutput (id: number | string | undefined, payload: unknown): Output {
  return outputOf(`,"type":"result"${idMember(id)},"payload":${printJson(payload)}}`, numberOf(id))
}

/** The answer to an accepted command that failed (P-15). */
export function errorOutput (id: number | string | undefined, code: string, message: string): Output {
  return outputOf(`,"type":"error","code":${JSON.stringify(code)}${idMember(id)},"payload":${JSON.stringify(message)}}`, numberOf(id))
}

/** An unsequenced error: a malformed frame, or a refusal (P-16). */
export function errorFrame (code: ErrorCode, options: { id?: number | string | undefined, message?: string, expected?: number, retryAfterMs?: number } = {}): string {
  const { id, message = ERRORS[code].message, expected, retryAfterMs } = options
  return `{"type":"error","code":"${code}"${idMember(id)}` +
    (expected === undefined ? '' : `,"expected":${expected}`) +
    (retryAfterMs === undefined ? '' : `,"retryAfterMs":${retryAfterMs}`) +
    `,"payload":${JSON.stringify(message)}}`
}

export const PING_FRAME = '{"type":"ping"}'
export const LIVE_FRAME = '{"type":"live"}'

export function goodbyeFrame (close: CloseCode, retryAfterMs?: number): string {
  const action: CloseAction = closeAction(close.code)
  return JSON.stringify({ type: 'goodbye', payload: { code: close.code, reason: close.reason, action, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) } })
}

/** The frame of a command's refusal, from the error that says why. */
export function refusalFrame (id: number | string | undefined, refusal: HoldfastError): string {
  const expected = refusal.details?.expected
  return errorFrame(refusal.code as ErrorCode, {
    id,
    message: refusal.message,
    ...(typeof expected === 'number' ? { expected } : {}),
    ...(refusal.retryAfterMs === undefined ? {} : { retryAfterMs: refusal.retryAfterMs })
  })
}
