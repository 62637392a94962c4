// Outputs of a session, in order and once each, their acknowledgement, and the refusals of
// commands.

import type { Seq } from '../io/types.js'
import type { Gap } from './api.js'
import { ACK_DELAY_MS, ACK_OUTPUTS, REFUSAL_DELAY_MS } from './bounds.js'
import { drop } from './session-loss.js'
import { act, clamp, tell, type Draft, type ServerFrame } from './session-state.js'

/** Errors of frames that will be accepted later (P-16). Any other one is for good. */
const REFUSALS = ['RATE_LIMITED', 'TOO_MANY_IN_FLIGHT', 'COMMAND_GAP', 'STORE_UNAVAILABLE', 'DRAINING']

export function output (s: Draft, frame: ServerFrame, seq: Seq): void {
  const { type } = frame
  if (seq > s.lastSeq + 1) return drop(s, 'seq_jump')
  const isNew = seq > s.lastSeq
  if (type !== 'message') act(s, 'answer', frame, isNew)
  if (!isNew) return
  if (type === 'message') return act(s, 'deliver', frame.event!, frame.payload, seq)
  // In the place of an output that is too large for this client (P-50d), or that was lost with its
  // server (P-55). One that is given up is in the `gap` of a resume (P-51).
  if (type === 'gap') tell(s, 'gap', { from: seq, to: seq, reason: (frame.payload as Gap | null)?.reason })
  handled(s, seq)
}

export function handled (s: Draft, seq: Seq): void {
  if (seq !== s.lastSeq + 1) return
  s.lastSeq = seq
  if (!s.isAttached || s.phase === 'detached') return
  if (seq - s.ackedSeq >= ACK_OUTPUTS) acknowledge(s)
  else if (seq - s.ackedSeq === 1) act(s, 'arm', 'ack', ACK_DELAY_MS)
}

/** An error outside the numbering: the frame it is about was not accepted. */
export function refusal (s: Draft, frame: ServerFrame): void {
  const { id, code = '', expected, retryAfterMs } = frame
  if (id === undefined) {
    tell(s, 'error', { code, message: String(frame.payload) })
    if (code === 'BAD_FRAME') act(s, 'blame')
  } else if (code === 'RESULT_EXPIRED') act(s, 'answer', frame, false)
  else if (REFUSALS.includes(code) || retryAfterMs !== undefined) {
    act(s, 'refuse', id, clamp(retryAfterMs, expected === undefined ? REFUSAL_DELAY_MS : 0), expected)
  } else act(s, 'reject', id, frame)
}

/** The tail of a frame that takes the ack along. */
export function takeAck (s: Draft): string {
  const tail = s.lastSeq > s.ackedSeq ? `,"ack":${s.lastSeq}}` : '}'
  s.ackedSeq = s.lastSeq
  act(s, 'disarm', 'ack')
  return tail
}

export function acknowledge (s: Draft): void {
  act(s, 'save')
  takeAck(s)
  act(s, 'send', `{"type":"ack","seq":${s.lastSeq}}`)
}
