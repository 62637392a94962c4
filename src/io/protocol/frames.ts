// What may arrive from a client, as schemas (docs/protocol.md section 3.2), and the names that both
// sides must agree on. Envelopes are closed: an unknown member is a malformed frame (P-6), so that
// a misspelt `ack` is noticed instead of being lost.

import { Type, type Static } from 'typebox'
import type { Seq } from '../types.js'

/** The one subprotocol (P-2). */
export const SUBPROTOCOL = 'holdfast.v1'
/**
 * Of the text of docs/protocol.md; told in the first frame, so that a client knows what it may
 * send.
 */
export const REVISION = '1.1'
/**
 * A client cannot ask for outputs smaller than this: each error that answers a command fits (P-50).
 */
export const MIN_OUTPUT_BYTES = 1024
/** Malformed frames a connection may send (P-45). */
export const MAX_BAD_FRAMES = 10
/** Refusals for rate in a row before the connection is closed (P-46). */
export const MAX_RATE_REFUSALS = 100
/**
 * Closes with 1009, 1007, 1002 or 1003 with which a client refuses an output before that is given
 * up (P-51).
 */
export const MAX_REFUSED_DELIVERIES = 3
/** Losses of the connection right after a large output before that is given up (P-51). */
export const MAX_LOST_DELIVERIES = 9
/** What is smaller is not blamed for a loss: no gateway has a limit below it. */
export const LARGE_OUTPUT_BYTES = 16_384
/**
 * How long a session is kept whose client has never sent a frame and that holds nothing (P-36b).
 */
export const UNHEARD_WINDOW_MS = 30_000
/** How long a peer may be silent beyond `heartbeatMs` (P-43). */
export const HEARTBEAT_GRACE_MS = 10_000

const Numbered = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
// Any type: a value that is no string names no session, and is told so (P-9), as the founding note
// has it.
const NamedSession = Type.Optional(Type.Unknown())

/** Of commands, and of ids that are texts. */
export const MAX_NAME_LENGTH = 128

export const CommandId = Type.Union([
  Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
  Type.String({ minLength: 1, maxLength: MAX_NAME_LENGTH })
])

export const CommandFrame = Type.Object({
  sessionId: NamedSession,
  command: Type.String({ minLength: 1, maxLength: MAX_NAME_LENGTH }),
  payload: Type.Optional(Type.Unknown()),
  id: Type.Optional(CommandId),
  ack: Type.Optional(Numbered)
}, { additionalProperties: false })

export const AckFrame = Type.Object({
  type: Type.Literal('ack'),
  sessionId: NamedSession,
  seq: Numbered
}, { additionalProperties: false })

export const EndFrame = Type.Object({
  type: Type.Literal('end'),
  sessionId: NamedSession,
  ack: Type.Optional(Numbered)
}, { additionalProperties: false })

/** Asks whether the line lives (P-52). */
export const PingFrame = Type.Object({
  type: Type.Literal('ping'),
  sessionId: NamedSession
}, { additionalProperties: false })

/** As it is read: a member that was left out is undefined, or is not there. */
export interface CommandFrame {
  readonly sessionId?: unknown
  readonly command: string
  readonly payload?: unknown
  readonly id?: number | string | undefined
  readonly ack?: Seq | undefined
}
export type AckFrame = Static<typeof AckFrame>
export type EndFrame = Static<typeof EndFrame>
export type PingFrame = Static<typeof PingFrame>
export type ClientFrame = CommandFrame | AckFrame | EndFrame | PingFrame
