// The frames of one burst in one buffer, so that a turn of the event loop costs a socket one write (docs/performance.md: the write is half of what a
// message costs). Server frames are unmasked, unfragmented text (RFC 6455 section 5.2), which is all that is framed here; closing, pings and
// everything inbound stay with the WebSocket library.

import type { Output, Seq } from '../types.js'

const TEXT_FRAME = 0x81
const LENGTH_16 = 126
const LENGTH_64 = 127
const SEQ_MEMBER = '{"seq":'

/** Bytes of the frame that carries an output under a seq. */
export function outputFrameBytes (output: Output, seq: Seq): number {
  const payload = SEQ_MEMBER.length + digits(seq) + output.bytes
  return headerBytes(payload) + payload
}

/** Bytes of the frame that carries a text. */
export function textFrameBytes (textBytes: number): number {
  return headerBytes(textBytes) + textBytes
}

/** Writes the frame at `offset` and returns where the next one goes. */
export function writeOutputFrame (target: Buffer, offset: number, output: Output, seq: Seq): number {
  const { tail, bytes } = output
  const at = writeHeader(target, offset, SEQ_MEMBER.length + digits(seq) + bytes)
  const text = SEQ_MEMBER + seq + tail
  return at + target.write(text, at, bytes === tail.length ? 'latin1' : 'utf8')
}

/** Writes the frame at `offset` and returns where the next one goes. */
export function writeTextFrame (target: Buffer, offset: number, text: string, textBytes: number): number {
  const at = writeHeader(target, offset, textBytes)
  return at + target.write(text, at)
}

function headerBytes (payload: number): number {
  return payload < LENGTH_16 ? 2 : payload < 65_536 ? 4 : 10
}

function writeHeader (target: Buffer, offset: number, payload: number): number {
  target[offset] = TEXT_FRAME
  if (payload < LENGTH_16) {
    target[offset + 1] = payload
    return offset + 2
  }
  if (payload < 65_536) {
    target[offset + 1] = LENGTH_16
    target[offset + 2] = payload >>> 8
    target[offset + 3] = payload & 0xff
    return offset + 4
  }
  target[offset + 1] = LENGTH_64
  target.writeUInt32BE(Math.floor(payload / 0x1_0000_0000), offset + 2)
  target.writeUInt32BE(payload >>> 0, offset + 6)
  return offset + 10
}

function digits (seq: Seq): number {
  let count = 1
  for (let bound = 10; seq >= bound; bound *= 10) count++
  return count
}
