// Frames as strings of bytes: server frames are unmasked text (RFC 6455 section 5.2), so a frame is
// a few header characters in front of its payload, and a burst is one frame behind the other. The
// stream turns the whole into bytes while it writes, which spares every message a buffer of its own
// (docs/performance.md). Closing and everything inbound stay with the WebSocket library.
//
// A large output goes in fragments with a WebSocket ping between them: on a slow line its peer
// would otherwise be silent for as long as the whole takes, since kernels buffer megabytes and tell
// nobody how much has arrived (P-43c).

import type { ByteString, Output, Seq } from '../types.js'

const LENGTH_16 = 126
const LENGTH_64 = 127
const SEQ_MEMBER = '{"seq":'
/** Bits of the first byte: the last fragment of a message; and the opcodes. */
const FIN = 0x80
const TEXT = 0x1
const CONTINUATION = 0x0
/** An empty WebSocket ping; every WebSocket library answers it by itself. */
export const PROBE: ByteString = '\x89\x00'
/**
 * Bytes of output between two probes: four seconds at 2 kB/s, and one pong for fifty small answers.
 */
export const PROBE_BYTES = 8192
/** Nearly every frame is shorter than this; their headers are made once. */
const COMMON = 1024
const HEADERS = Array.from({ length: COMMON }, (_, payload) => writeHeader(payload))
const OUTPUT_HEADERS = HEADERS.map(header => header + SEQ_MEMBER)

/** The frame that carries an output under a seq. */
export function outputFrame (output: Output, seq: Seq): ByteString {
  const number = String(seq)
  const payload = SEQ_MEMBER.length + number.length + output.bytes
  if (payload > PROBE_BYTES) return inFragments(SEQ_MEMBER + number, output.tail)
  const header = payload < COMMON ? OUTPUT_HEADERS[payload] as string : writeHeader(payload) + SEQ_MEMBER
  return header + number + output.tail
}

/**
 * Cut out of the tail as it is held: of head and tail joined, the engine would make a copy to cut.
 */
function inFragments (head: ByteString, tail: ByteString): ByteString {
  let at = PROBE_BYTES - head.length
  let frames = writeHeader(PROBE_BYTES, TEXT) + head + tail.slice(0, at)
  for (; at < tail.length; at += PROBE_BYTES) {
    const fragment = tail.slice(at, at + PROBE_BYTES)
    const isLast = at + PROBE_BYTES >= tail.length
    frames += PROBE + writeHeader(fragment.length, CONTINUATION | (isLast ? FIN : 0)) + fragment
  }
  return frames
}

/** The frame that carries a text. */
export function textFrame (text: ByteString): ByteString {
  const payload = text.length
  return (payload < COMMON ? HEADERS[payload] as string : writeHeader(payload)) + text
}

function writeHeader (payload: number, first = FIN | TEXT): ByteString {
  if (payload < LENGTH_16) return String.fromCharCode(first, payload)
  if (payload < 65_536) return String.fromCharCode(first, LENGTH_16, payload >>> 8, payload & 0xff)
  // Strings are shorter than 2^32.
  const low = [payload >>> 24, (payload >>> 16) & 0xff, (payload >>> 8) & 0xff, payload & 0xff]
  return String.fromCharCode(first, LENGTH_64, 0, 0, 0, 0, ...low)
}
