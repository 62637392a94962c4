// Bytes on a TCP connection, for what no WebSocket library would send: malformed handshakes, frames
// cut anywhere, peers that fall silent.

import { randomBytes } from 'node:crypto'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

export interface HttpAnswer {
  status: number
  /** Lower-case names; of a repeated header the last. */
  headers: Record<string, string>
  body: string
}

export interface WireFrame { opcode: number, isFinal: boolean, payload: Buffer }

export interface RawSocket {
  readonly tcp: Socket
  write (data: string | Buffer): void
  /** The HTTP answer; what follows the head of a 101 is left to `nextFrame`. */
  answer (): Promise<HttpAnswer>
  nextFrame (): Promise<WireFrame>
  /** The next text message, put together from its fragments; pings between them are passed over. */
  nextText (): Promise<string>
  /** Waits for a close frame, dropping others; its code, or 1005. */
  closeCode (): Promise<number>
  /** Resolves when the connection has ended, in whatever way. */
  readonly ended: Promise<void>
  readonly isEnded: boolean
  readonly received: Buffer
  /** Sends RST. */
  reset (): void
}

const WAIT_MS = 30_000

export async function rawConnect (port: number): Promise<RawSocket> {
  const tcp = connect({ port, host: '127.0.0.1', allowHalfOpen: false })
  let received = Buffer.alloc(0)
  let isEnded = false
  let wake: (() => void) | undefined
  const ended = new Promise<void>(resolve => {
    tcp.on('close', () => {
      isEnded = true
      wake?.()
      resolve()
    })
  })
  tcp.on('data', data => {
    received = Buffer.concat([received, data])
    wake?.()
  })
  tcp.on('error', () => {})
  tcp.setNoDelay(true)
  await new Promise<void>((resolve, reject) => {
    tcp.once('connect', resolve)
    tcp.once('error', reject)
  })

  async function until<T> (what: string, probe: () => T | undefined): Promise<T> {
    const deadline = Date.now() + WAIT_MS
    for (;;) {
      const found = probe()
      if (found !== undefined) return found
      if (isEnded) {
        throw new Error(
          `connection ended before ${what}; received ${JSON.stringify(received.toString('latin1').slice(0, 500))}`
        )
      }
      const left = deadline - Date.now()
      if (left <= 0) {
        throw new Error(
          `no ${what} within ${WAIT_MS} ms; received ${JSON.stringify(received.toString('latin1').slice(0, 500))}`
        )
      }
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, left)
        wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }

  function readAnswer (): HttpAnswer | undefined {
    const end = received.indexOf('\r\n\r\n')
    if (end === -1) return undefined
    const [statusLine = '', ...lines] = received.subarray(0, end).toString('latin1').split('\r\n')
    const headers = Object.fromEntries(lines.map(line => [
      line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()
    ]))
    const status = Number(statusLine.split(' ')[1])
    if (status === 101) {
      received = received.subarray(end + 4)
      return { status, headers, body: '' }
    }
    const length = Number(headers['content-length'] ?? (isEnded ? received.length - end - 4 : Infinity))
    if (received.length - end - 4 < length) return undefined
    const body = received.subarray(end + 4, end + 4 + length).toString()
    received = received.subarray(end + 4 + length)
    return { status, headers, body }
  }

  function readFrame (): WireFrame | undefined {
    if (received.length < 2) return undefined
    let length = (received[1] as number) & 0x7f
    let at = 2
    if (length === 126) {
      if (received.length < 4) return undefined
      length = received.readUInt16BE(2)
      at = 4
    } else if (length === 127) {
      if (received.length < 10) return undefined
      length = Number(received.readBigUInt64BE(2))
      at = 10
    }
    if (received.length < at + length) return undefined
    const first = received[0] as number
    const frame = {
      opcode: first & 0x0f,
      isFinal: (first & 0x80) !== 0,
      payload: Buffer.from(received.subarray(at, at + length))
    }
    received = received.subarray(at + length)
    return frame
  }

  const nextFrame = async (): Promise<WireFrame> => await until('frame', readFrame)

  return {
    tcp,
    ended,
    get isEnded () { return isEnded },
    get received () { return received },
    write (data) {
      if (!tcp.destroyed) tcp.write(data)
    },
    answer: async () => await until('answer', readAnswer),
    nextFrame,
    async nextText () {
      const parts: Buffer[] = []
      for (;;) {
        const { opcode, isFinal, payload } = await nextFrame()
        if (opcode === OPCODE.close) throw new Error('a close frame came in the place of a message')
        if (opcode !== OPCODE.text && opcode !== OPCODE.continuation) continue
        parts.push(payload)
        if (isFinal) return Buffer.concat(parts).toString()
      }
    },
    async closeCode () {
      for (;;) {
        const { opcode, payload } = await nextFrame()
        if (opcode === OPCODE.close) return payload.length < 2 ? 1005 : payload.readUInt16BE(0)
      }
    },
    reset () {
      // After an end() of its own, Node's reset waits for ever.
      if (tcp.writableEnded) tcp.destroy()
      else tcp.resetAndDestroy()
    }
  }
}

/**
 * The text of a handshake. `headers` are added; one of the given defaults is left out with null.
 */
export function handshake (headers: Record<string, string | null> = {}, requestLine = 'GET /ws HTTP/1.1'): string {
  const all: Record<string, string | null> = {
    Host: 'localhost',
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
    ...headers
  }
  const lines = Object.entries(all)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name}: ${value}\r\n`)
  return `${requestLine}\r\n${lines.join('')}\r\n`
}

export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const

export interface FrameOptions {
  opcode?: number
  fin?: boolean
  masked?: boolean
  /** Claims this length in the header, whatever the payload's is. */
  claim?: number
}

/** A client's frame, masked with zeros so that tests can read it. */
export function wireFrame (payload: string | Buffer, options: FrameOptions = {}): Buffer {
  const { opcode = OPCODE.text, fin = true, masked = true } = options
  const body = Buffer.from(payload)
  const length = options.claim ?? body.length
  const mask = masked ? 0x80 : 0
  const first = (fin ? 0x80 : 0) | opcode
  let head: Buffer
  if (length < 126) {
    head = Buffer.from([first, mask | length])
  } else if (length < 65_536) {
    head = Buffer.from([first, mask | 126, 0, 0])
    head.writeUInt16BE(length, 2)
  } else {
    head = Buffer.from([first, mask | 127, 0, 0, 0, 0, 0, 0, 0, 0])
    head.writeBigUInt64BE(BigInt(length), 2)
  }
  return Buffer.concat([head, masked ? Buffer.alloc(4) : Buffer.alloc(0), body])
}

/** Sends a handshake of its own and returns the answer and the socket. */
export async function rawUpgrade (
  port: number, headers: Record<string, string | null> = {}, requestLine?: string
): Promise<{ raw: RawSocket, answer: HttpAnswer }> {
  const raw = await rawConnect(port)
  raw.write(handshake(headers, requestLine))
  return { raw, answer: await raw.answer() }
}

export interface CuttingProxy {
  readonly port: number
  /** Connections reset so far. */
  readonly cuts: number
  close (): void
}

/**
 * A TCP proxy that resets each connection once the server has sent so many bytes on it; the last of
 * them may be half a frame.
 */
export async function cuttingProxy (port: number, cutAfter: () => number): Promise<CuttingProxy> {
  const sockets = new Set<Socket>()
  let cuts = 0
  const listener = createServer(client => {
    const upstream = connect(port, '127.0.0.1')
    let left = cutAfter()
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('error', () => {}).on('close', () => {
        sockets.delete(socket)
        client.destroy()
        upstream.destroy()
      })
    }
    client.pipe(upstream)
    upstream.on('data', data => {
      left -= data.length
      client.write(left < 0 ? data.subarray(0, data.length + left) : data)
      if (left >= 0) return
      cuts++
      client.resetAndDestroy()
      upstream.resetAndDestroy()
    })
  })
  await new Promise<void>(resolve => { listener.listen(0, '127.0.0.1', resolve) })
  return {
    port: (listener.address() as AddressInfo).port,
    get cuts () { return cuts },
    close () {
      for (const socket of sockets) socket.destroy()
      listener.close()
    }
  }
}
