// Bytes to a checked frame, and values to the text of frames; nothing else in the server parses or
// prints them.
//
// An output is kept as the tail behind `{"seq":<n>`, so it is printed once, whoever gets it under
// whatever number. Error sentences are the table's or the platform's own, never a library's.

import { Type, type Static, type TObject } from 'typebox'
import { Compile } from 'typebox/compile'
import { Errors } from 'typebox/value'
import { ERRORS, HoldfastError, type ErrorCode } from '../errors.js'
import { type JsonError, parseJson, printJson } from '../json.js'
import type { ByteString, Output, Seq } from '../types.js'
import type { CloseAction, CloseCode } from './close-codes.js'
import { closeAction } from './close-codes.js'
import { AckFrame, CommandFrame, CommandId, EndFrame, PingFrame, type ClientFrame } from './frames.js'
import { readPlainCommand } from './plain-command.js'

const isCommandFrame = compileClosed(CommandFrame)
const isAckFrame = compileClosed(AckFrame)
const isEndFrame = compileClosed(EndFrame)
const isPingFrame = compileClosed(PingFrame)
const commandId = Compile(CommandId)
/** Schemas of frames that have a `type`, for the sentence about one that does not match. */
const TYPED: Record<string, TObject> = { ack: AckFrame, end: EndFrame, ping: PingFrame }

/**
 * Checks an object and that it has no other members. TypeBox would ask a regular expression about
 * each name, which takes three times as long as all else.
 */
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
  const text = data.toString()
  const plain = readPlainCommand(text, data)
  if (plain !== undefined) return plain
  let value: unknown
  try {
    value = parseJson(text, data)
  } catch (error) {
    return `The frame is malformed: ${(error as JsonError).message}.`
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'The frame is not a JSON object.'
  if (isCommandFrame(value)) return value
  if (isAckFrame(value)) return value
  if (isEndFrame(value)) return value
  if (isPingFrame(value)) return value
  return explain(value)
}

/**
 * The command id of a message that is not a frame, so that its sender learns which command it was
 * (P-6); undefined if it has none. Never throws.
 *
 * Works on text that is not JSON as well: Python prints NaN, and a command that holds one must not
 * be a riddle. Only a member of the outermost object counts, and of two with that name neither does
 * where no parser has chosen.
 */
export function readFrameId (data: Buffer): number | string | undefined {
  const text = data.toString()
  let id: unknown
  try {
    const value: unknown = JSON.parse(text)
    id = typeof value === 'object' && value !== null && Object.hasOwn(value, 'id')
      ? (value as { id: unknown }).id
      : undefined
  } catch {
    id = scanForId(text)
  }
  return commandId.Check(id) ? id : undefined
}

/** A string, a bracket, a separator, or a run of anything else. */
const LEXEME = /\s*("[^"\\]*(?:\\.[^"\\]*)*"|[{}[\]:,]|[^\s"{}[\]:,]+)/y

function scanForId (text: string): unknown {
  const found: unknown[] = []
  let depth = 0
  // The lexemes before this one in the outermost object.
  let [start, name, colon] = ['', '', '']
  LEXEME.lastIndex = 0
  for (let match = LEXEME.exec(text); match !== null; match = LEXEME.exec(text)) {
    const lexeme = match[1] as string
    if (depth === 1 && (start === '{' || start === ',') && name === '"id"' && colon === ':') {
      try {
        found.push(JSON.parse(lexeme))
      } catch {
        return undefined
      }
    }
    if (lexeme === '{' || lexeme === '[') depth++
    else if (lexeme === '}' || lexeme === ']') depth--
    if (depth === 1) [start, name, colon] = [name, colon, lexeme]
  }
  return text.trimStart().startsWith('{') && found.length === 1 ? found[0] : undefined
}

function explain (value: object): string {
  const type = 'type' in value && typeof value.type === 'string' && Object.hasOwn(TYPED, value.type) ? value.type : ''
  const schema = TYPED[type] ?? CommandFrame
  return `The frame is malformed: ${firstProblem(Errors(schema, value))}.`
}

/** The first problem of a failed check, in words that name the member and nothing of its value. */
export function firstProblem (
  errors: Iterable<{ instancePath: string, message: string, keyword?: string, params?: object }>
): string {
  for (const { instancePath, message, params } of errors) {
    // An unknown member is reported twice; the first report, of a schema that is `false`, says
    // nothing.
    if (message === 'schema is false') continue
    const extra = params !== undefined && 'additionalProperties' in params
      ? ` (${String(params.additionalProperties).slice(0, 80)})`
      : ''
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

/**
 * Bytes of `{"seq":`, of the number, and of the tail: the text that is sent, which is what limits
 * judge (P-50).
 */
export function frameBytes (output: Output, seq: Seq): number {
  return SEQ_MEMBER_BYTES + String(seq).length + output.bytes
}

/** More than the text of an output can be longer than its tail. */
export const MAX_SEQ_BYTES = 7 + String(Number.MAX_SAFE_INTEGER).length
const SEQ_MEMBER_BYTES = 7

/**
 * What takes the place of an output that is too large for the connection (P-50): an error if it
 * answers a command, else a `gap`, which says that a message will never come.
 */
export function substituteOf (output: Output, seq: Seq): Output {
  const [, type, id] = OUTPUT_HEAD.exec(output.tail) as unknown as [string, string, string | undefined]
  if (type === 'message') {
    return outputOf(`,"type":"gap","payload":{"reason":"too_large","bytes":${frameBytes(output, seq)}}}`, 0)
  }
  const answered = id === undefined ? undefined : JSON.parse(Buffer.from(id, 'latin1').toString()) as number | string
  return errorOutput(answered, 'RESULT_TOO_LARGE', ERRORS.RESULT_TOO_LARGE.message)
}

/**
 * Type and id of an output, which stand in front of its payload. A resume may give up a whole
 * outbox, so what is given up is not parsed.
 */
const OUTPUT_HEAD = /^,"type":"(\w+)"(?:,"code":"[^"]*")?(?:,"id":(\d+|"(?:[^"\\]|\\.)*"))?/

/** In the place of an output that may have been lost with its node before it was kept (P-55). */
export const NOT_KEPT: Output = outputOf(',"type":"gap","payload":{"reason":"not_kept"}}', 0)

/** The answer to an accepted command that failed (P-15). */
export function errorOutput (id: number | string | undefined, code: string, message: string): Output {
  return outputOf(
    `,"type":"error","code":${JSON.stringify(code)}${idMember(id)},"payload":${JSON.stringify(message)}}`, numberOf(id)
  )
}

/** An unsequenced error: a malformed frame, or a refusal (P-16). */
export function errorFrame (
  code: ErrorCode,
  options: { id?: number | string | undefined, message?: string, expected?: number, retryAfterMs?: number } = {}
): string {
  const { id, message = ERRORS[code].message, expected, retryAfterMs } = options
  return `{"type":"error","code":"${code}"${idMember(id)}` +
    (expected === undefined ? '' : `,"expected":${expected}`) +
    (retryAfterMs === undefined ? '' : `,"retryAfterMs":${retryAfterMs}`) +
    `,"payload":${JSON.stringify(message)}}`
}

export const PING_FRAME = '{"type":"ping"}'
export const PONG_FRAME = '{"type":"pong"}'
export const LIVE_FRAME = '{"type":"live"}'

export function goodbyeFrame (
  close: CloseCode, retryAfterMs?: number, action: CloseAction = closeAction(close.code)
): string {
  return JSON.stringify({
    type: 'goodbye',
    payload: { code: close.code, reason: close.reason, action, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) }
  })
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
