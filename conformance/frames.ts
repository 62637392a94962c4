// RFC 6455 framing for the kit: its client, its proxy and its raw checks share this file. It
// decides where a frame starts and ends and how one is written; it deliberately can write frames
// that the standard forbids, since the rules have to send some. Not a WebSocket implementation:
// fragments are joined in socket.ts, and nothing is compressed, since P-1 negotiates no extension.

import { randomBytes } from 'node:crypto'

export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const

export interface WireFrame {
  readonly fin: boolean
  /** The three reserved bits, 0–7. */
  readonly rsv: number
  readonly opcode: number
  readonly masked: boolean
  readonly payload: Buffer
}

export interface EncodeOptions {
  fin?: boolean
  rsv?: number
  mask?: boolean
}

/** One frame as bytes. Masked by default, as a client has to. */
export function encodeFrame (opcode: number, payload: Uint8Array, options: EncodeOptions = {}): Buffer {
  const { fin = true, rsv = 0, mask = true } = options
  const size = payload.length
  const lengthBytes = size < 126 ? 0 : size < 65536 ? 2 : 8
  const frame = Buffer.allocUnsafe(2 + lengthBytes + (mask ? 4 : 0) + size)
  frame[0] = (fin ? 0x80 : 0) | (rsv << 4) | opcode
  frame[1] = (mask ? 0x80 : 0) | (lengthBytes === 0 ? size : lengthBytes === 2 ? 126 : 127)
  if (lengthBytes === 2) frame.writeUInt16BE(size, 2)
  if (lengthBytes === 8) frame.writeBigUInt64BE(BigInt(size), 2)
  let at = 2 + lengthBytes
  if (!mask) {
    frame.set(payload, at)
    return frame
  }
  const key = randomBytes(4)
  frame.set(key, at)
  at += 4
  for (let i = 0; i < size; i++) frame[at + i] = payload[i]! ^ key[i & 3]!
  return frame
}

/** The payload of a close frame; empty for a close without status. */
export function encodeClose (code: number | undefined, reason = ''): Buffer {
  if (code === undefined) return Buffer.alloc(0)
  const text = Buffer.from(reason)
  const payload = Buffer.allocUnsafe(2 + text.length)
  payload.writeUInt16BE(code, 0)
  payload.set(text, 2)
  return payload
}

/**
 * Bytes of the header and of the whole frame starting at `offset`; undefined while the header is
 * incomplete.
 */
export function measureFrame (bytes: Buffer, offset: number): { headerBytes: number, totalBytes: number } | undefined {
  if (bytes.length - offset < 2) return undefined
  const second = bytes[offset + 1]!
  const short = second & 0x7f
  const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0
  const headerBytes = 2 + lengthBytes + ((second & 0x80) === 0 ? 0 : 4)
  if (bytes.length - offset < 2 + lengthBytes) return undefined
  const size = lengthBytes === 0
    ? short
    : lengthBytes === 2 ? bytes.readUInt16BE(offset + 2) : Number(bytes.readBigUInt64BE(offset + 2))
  return { headerBytes, totalBytes: headerBytes + size }
}

/** Takes bytes in any cut and calls `onFrame` for each complete frame, in order. */
export function createFrameReader (onFrame: (frame: WireFrame) => void): (bytes: Buffer) => void {
  let chunks: Buffer[] = []
  let heldBytes = 0
  let wantedBytes = 2
  return function read (bytes: Buffer) {
    chunks.push(bytes)
    heldBytes += bytes.length
    // Joining only once a whole frame can be there keeps a large frame in many pieces linear.
    if (heldBytes < wantedBytes) return
    let held = chunks.length === 1 ? bytes : Buffer.concat(chunks, heldBytes)
    for (;;) {
      const size = measureFrame(held, 0)
      wantedBytes = size?.totalBytes ?? Math.min(10, held.length + 1)
      if (size === undefined || held.length < size.totalBytes) break
      const frame = held.subarray(0, size.totalBytes)
      held = held.subarray(size.totalBytes)
      onFrame(decodeFrame(frame, size.headerBytes))
    }
    chunks = held.length === 0 ? [] : [held]
    heldBytes = held.length
    if (heldBytes === 0) wantedBytes = 2
  }
}

function decodeFrame (frame: Buffer, headerBytes: number): WireFrame {
  const masked = (frame[1]! & 0x80) !== 0
  let payload = frame.subarray(headerBytes)
  if (masked) {
    const key = frame.subarray(headerBytes - 4, headerBytes)
    const clear = Buffer.allocUnsafe(payload.length)
    for (let i = 0; i < payload.length; i++) clear[i] = payload[i]! ^ key[i & 3]!
    payload = clear
  }
  const first = frame[0]!
  return { fin: (first & 0x80) !== 0, rsv: (first >> 4) & 7, opcode: first & 15, masked, payload }
}
