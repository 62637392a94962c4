// Which frames a connection is due, in which order: first its unsequenced frames, then the
// session's outputs from `sentSeq` on. A replay is nothing else than a `sentSeq` that starts low,
// so "replay, then live" needs no buffering and cannot be got wrong. Who is written to, and when,
// is the sender's to say.
//
// Invariants: outputs leave in order of seq, each once per connection; nothing above the session's
// `sendableSeq` leaves.

import { LIVE_FRAME } from '../protocol/codec.js'
import type { SessionRecord } from '../session/record.js'
import { firstSeq, outputAt, type ReplayLog } from '../session/replay-log.js'
import type { ByteString } from '../types.js'
import type { Connection } from './connection.js'
import { PROBE, PROBE_BYTES, outputFrame, textFrame } from './frame-writer.js'

/** Unsequenced frames that may wait for one socket. */
const MAX_TEXTS = 64
const LIVE = textFrame(LIVE_FRAME)

export function hasDueFrames ({ texts, session, sentSeq, liveAfterSeq }: Connection): boolean {
  return texts !== null || liveAfterSeq !== -1 || (session !== null && sentSeq < session.sendableSeq)
}

/** Whether a further unsequenced frame of so many bytes would be more than may wait. */
export function isTextQueueFull ({ texts, textBytes }: Connection, bytes: number, maxBytes: number): boolean {
  return texts !== null && (texts.length >= MAX_TEXTS || textBytes + bytes > maxBytes)
}

export function queueText (connection: Connection, frame: ByteString): void {
  if (connection.texts === null) connection.texts = [frame]
  else connection.texts.push(frame)
  connection.textBytes += frame.length
}

/** Takes unsequenced frames off their queue: as many as fit into `maxBytes`, and at least one. */
export function takeTexts (connection: Connection, texts: ByteString[], maxBytes: number): ByteString {
  let frames = ''
  let count = 0
  for (; count < texts.length && frames.length < maxBytes; count++) frames += texts[count] as ByteString
  connection.texts = count === texts.length ? null : texts.slice(count)
  connection.textBytes -= frames.length
  return frames
}

/**
 * Takes what is due of the session, up to about `maxBytes` and at least one output; '' for nothing.
 */
export function takeOutputs (connection: Connection, session: SessionRecord | null, maxBytes: number): ByteString {
  return session === null || session.log === null
    ? takeLive(connection)
    : takeHeld(connection, session, session.log, maxBytes)
}

function takeHeld (connection: Connection, session: SessionRecord, log: ReplayLog, maxBytes: number): ByteString {
  // What overflow dropped was either sent, or closed this connection (P-26), or fell into the gap
  // the client was told of.
  let seq = Math.max(connection.sentSeq, firstSeq(log) - 1)
  connection.sentSeq = seq
  // `live` goes right behind the last output of the replay, or first if that was all sent before,
  // however much is newer already (P-30).
  let frames = takeLive(connection)
  let bytes = 0
  while (seq < session.sendableSeq && bytes < maxBytes) {
    const output = outputAt(log, seq + 1)
    if (output === undefined) break
    connection.sentSeq = ++seq
    bytes += output.bytes
    frames += outputFrame(output, seq) + probeBehind(connection, output.bytes)
    if (connection.liveAfterSeq !== -1) frames += takeLive(connection)
  }
  return frames
}

/**
 * A WebSocket ping behind so many bytes of output, so that a slow line and a dead one do not look
 * the same (P-43c).
 */
function probeBehind (connection: Connection, bytes: number): ByteString {
  connection.unprobedBytes += bytes
  if (connection.unprobedBytes < PROBE_BYTES) return ''
  connection.unprobedBytes = 0
  return PROBE
}

function takeLive (connection: Connection): ByteString {
  const { liveAfterSeq, sentSeq } = connection
  if (liveAfterSeq === -1 || sentSeq < liveAfterSeq) return ''
  connection.liveAfterSeq = -1
  return LIVE
}
