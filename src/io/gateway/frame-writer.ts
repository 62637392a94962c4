// Frames as strings of bytes: server frames are unmasked, unfragmented text (RFC 6455 section 5.2), so a frame is a few header characters in front of its payload, and a
// burst is one frame behind the other. The stream turns the whole into bytes while it writes, which spares every message a buffer of its own
// (docs/performance.md). Closing, pings and everything inbound stay with the WebSocket library.

import type { ByteString, Output, Seq } from '../types.js'

const TEXT_FRAME = 0x81
const LENGTH_16 = 126
const LENGTH_64 = 127
const SEQ_MEMBER = '{"seq":'
/** Nearly every frame is shorter than this; their headers are made once. */
const COMMON = 1024
const HEADERS = Array.from({ length: COMMON }, (_, payload) => writeHeader(payload))
const OUTPUT_HEADERS = HEADERS.map(header => header + SEQ_MEMBER)

/** The frame that carries an output under a seq. */
export function outputFrame (output: Output, seq: Seq): ByteString {
  const number = String(seq)
  const payload = SEQ_MEMBER.length + number.length + output.bytes
  return (payload < COMMON ? OUTPUT_HEADERS[payload] as string : writeHeader(payload) + SEQ_MEMBER) + number + output.tail
}

/** The frame that carries a text. */
export function textFrame (text: ByteString): ByteString {
  const payload = text.length
  return (payload < COMMON ? HEADERS[payload] as string : writeHeader(payload)) + text
}

function writeHeader (payload: number): ByteString {
  if (payload < LENGTH_16) return String.fromCharCode(TEXT_FRAME, payload)
  if (payload < 65_536) return String.fromCharCode(TEXT_FRAME, LENGTH_16, payload >>> 8, payload & 0xff)
  // Strings are shorter than 2^32.
  return String.fromCharCode(TEXT_FRAME, LENGTH_64, 0, 0, 0, 0, payload >>> 24, (payload >>> 16) & 0xff, (payload >>> 8) & 0xff, payload & 0xff)
}
