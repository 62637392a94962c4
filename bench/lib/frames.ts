// WebSocket framing for the load generator: client frames are written masked into a buffer, server
// frames are found in the bytes of one read. Only what a benchmark needs: no fragments, no
// extensions. The four bytes of the mask are equal, so that text can be masked once and copied to
// any offset; the server unmasks it like any other mask.

const MASK = 0x5a
const MASK_KEY = Buffer.alloc(4, MASK)

export const OPCODE_TEXT = 1
export const OPCODE_CLOSE = 8
export const OPCODE_PING = 9
export const OPCODE_PONG = 10

/** The bytes of `text` as they stand in a masked frame. */
export function masked (text: string): Buffer {
  const bytes = Buffer.from(text)
  for (let i = 0; i < bytes.length; i++) bytes[i]! ^= MASK
  return bytes
}

/** Writes a frame's header at `offset` of `target`; returns the offset of the payload. */
export function writeHeader (target: Buffer, offset: number, opcode: number, payloadBytes: number): number {
  target[offset++] = 0x80 | opcode
  if (payloadBytes < 126) {
    target[offset++] = 0x80 | payloadBytes
  } else if (payloadBytes < 65536) {
    target[offset++] = 0x80 | 126
    target[offset++] = payloadBytes >>> 8
    target[offset++] = payloadBytes & 0xff
  } else {
    throw new RangeError(`frames of the benchmark stay under 64 KiB, this one has ${payloadBytes} bytes`)
  }
  target.set(MASK_KEY, offset)
  return offset + 4
}

/** Writes a non-negative integer as masked decimal digits; returns the offset behind them. */
export function writeMaskedInteger (target: Buffer, offset: number, value: number, digits: number): number {
  for (let at = offset + digits - 1; at >= offset; at--) {
    const rest = Math.floor(value / 10)
    target[at] = (48 + value - rest * 10) ^ MASK
    value = rest
  }
  return offset + digits
}

export function countDigits (value: number): number {
  let digits = 1
  for (let limit = 10; value >= limit; limit *= 10) digits++
  return digits
}

/** One complete masked frame, in a buffer of its own. */
export function frame (opcode: number, payload: string | Buffer): Buffer {
  const body = typeof payload === 'string' ? masked(payload) : payload
  const target = Buffer.allocUnsafe(body.length + 8)
  const start = writeHeader(target, 0, opcode, body.length)
  body.copy(target, start)
  return target.subarray(0, start + body.length)
}

export function closeFrame (code: number): Buffer {
  return frame(OPCODE_CLOSE, Buffer.from([(code >>> 8) ^ MASK, (code & 0xff) ^ MASK]))
}

export type FrameListener = (opcode: number, bytes: Buffer, start: number, end: number) => void

/**
 * Finds the frames in bytes as they arrive, in any slices.
 *
 * The bytes handed to the listener are valid during the call only.
 */
export function createFrameReader (onFrame: FrameListener): (bytes: Buffer, length: number) => void {
  let rest: Buffer | undefined

  return function read (bytes, length) {
    if (rest !== undefined) {
      bytes = Buffer.concat([rest, bytes.subarray(0, length)])
      length = bytes.length
      rest = undefined
    }
    let at = 0
    while (length - at >= 2) {
      let payloadBytes = bytes[at + 1]! & 0x7f
      let start = at + 2
      if (payloadBytes === 126) {
        if (length - at < 4) break
        payloadBytes = bytes.readUInt16BE(at + 2)
        start = at + 4
      } else if (payloadBytes === 127) {
        if (length - at < 10) break
        payloadBytes = Number(bytes.readBigUInt64BE(at + 2))
        start = at + 10
      }
      const end = start + payloadBytes
      if (end > length) break
      onFrame(bytes[at]! & 0x0f, bytes, start, end)
      at = end
    }
    if (at < length) rest = Buffer.from(bytes.subarray(at, length))
  }
}
