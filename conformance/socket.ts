// A WebSocket client on a bare TCP (or TLS) socket: the HTTP exchange, then frames. It exists
// because rules have to send handshakes, bytes and closes that a polite library refuses to send,
// and have to see what a library hides: masked frames, extensions, reserved bits. upgrade() settles
// once the server has answered; with 101 its result has a link, otherwise status and body say why
// not. It answers WebSocket pings and closes by itself unless told otherwise, and never reconnects.

import { createHash, randomBytes } from 'node:crypto'
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { OPCODE, createFrameReader, encodeClose, encodeFrame, type WireFrame } from './frames.js'

const ACCEPT_SUFFIX = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
const CLOSE_ANSWER_MS = 3000

export interface HttpAnswer {
  readonly status: number
  /** Names in lower case; repeated headers joined by a comma. */
  readonly headers: ReadonlyMap<string, string>
  readonly body: string
}

export interface LinkEnd {
  /** Code of the server's close frame; 1005 for one without a code, 1006 if there was none. */
  readonly code: number
  readonly reason: string
  /** True if the server sent its close frame before the client sent one. */
  readonly byServer: boolean
}

export interface LinkHandlers {
  text(text: string): void
  ping?(): void
  /** Something the server may not do at all, such as a masked frame; a sentence. */
  breach?(sentence: string): void
  end(end: LinkEnd): void
}

/** An upgraded connection. */
export interface Link {
  readonly localPort: number
  /**
   * Set once, in the same tick in which upgrade() settled; frames that came with the 101 are handed
   * over then.
   */
  handle(handlers: LinkHandlers): void
  sendText(text: string): void
  sendFrame(opcode: number, payload: Uint8Array): void
  sendBytes(bytes: Uint8Array): void
  /** Bytes written and not yet taken by the kernel. */
  pendingBytes(): number
  /** Sends a close frame; without a code one without status. */
  close(code?: number, reason?: string): void
  /** Ends the TCP connection at once, without a close frame. */
  destroy(): void
  pauseReading(): void
  resumeReading(): void
  /** False stops the answers to WebSocket pings. */
  answerPings(on: boolean): void
}

export interface UpgradeOptions {
  protocols?: readonly string[]
  headers?: Readonly<Record<string, string | readonly string[]>>
  /** Headers of the handshake to leave out, in lower case. */
  without?: readonly string[]
  method?: string
  httpVersion?: string
  /** Path and query in place of the URL's. */
  target?: string
  timeoutMs?: number
}

export interface UpgradeResult {
  readonly answer: HttpAnswer
  readonly link: Link | undefined
}

/**
 * Opens a connection and asks for the upgrade. Rejects if no complete HTTP answer comes within
 * `timeoutMs` (default 5000).
 */
export function upgrade (url: URL, options: UpgradeOptions = {}): Promise<UpgradeResult> {
  const key = randomBytes(16).toString('base64')
  const secure = url.protocol === 'wss:' || url.protocol === 'https:'
  const port = Number(url.port === '' ? (secure ? 443 : 80) : url.port)
  const host = url.hostname.replace(/^\[|\]$/g, '')
  return new Promise((resolve, reject) => {
    const socket: Socket = secure ? connectTls({ host, port, servername: host }) : connectTcp({ host, port })
    socket.setNoDelay(true)
    const timer = setTimeout(() => fail(new Error('no answer to the handshake in time')), options.timeoutMs ?? 5000)
    let held = Buffer.alloc(0)
    function fail (error: Error) {
      clearTimeout(timer)
      socket.destroy()
      reject(error)
    }
    function settle (answer: HttpAnswer, link: Link | undefined) {
      clearTimeout(timer)
      socket.off('data', onData)
      socket.off('end', onEnd)
      socket.off('error', fail)
      socket.on('error', () => {})
      if (link === undefined) socket.destroy()
      resolve({ answer, link })
    }
    function onData (bytes: Buffer) {
      held = Buffer.concat([held, bytes])
      const read = readAnswer(held, false)
      if (read === undefined) return
      if (read.answer.status !== 101) return settle(read.answer, undefined)
      const expected = createHash('sha1').update(key + ACCEPT_SUFFIX).digest('base64')
      if (read.answer.headers.get('sec-websocket-accept') !== expected) {
        return fail(new Error('wrong Sec-WebSocket-Accept'))
      }
      socket.pause()
      settle(read.answer, createLink(socket, held.subarray(read.usedBytes)))
    }
    function onEnd () {
      const read = readAnswer(held, true)
      if (read === undefined) fail(new Error('the connection ended without an answer'))
      else settle(read.answer, undefined)
    }
    socket.on('data', onData)
    socket.on('end', onEnd)
    socket.on('error', fail)
    socket.on(secure ? 'secureConnect' : 'connect', () => socket.write(writeHandshake(url, key, options)))
  })
}

function writeHandshake (url: URL, key: string, options: UpgradeOptions): string {
  const target = options.target ?? url.pathname + url.search
  const headers: [string, string][] = [
    ['Host', url.host], ['Connection', 'Upgrade'], ['Upgrade', 'websocket'], ['Sec-WebSocket-Version', '13'],
    ['Sec-WebSocket-Key', key]
  ]
  if (options.protocols !== undefined && options.protocols.length > 0) {
    headers.push(['Sec-WebSocket-Protocol', options.protocols.join(', ')])
  }
  const left = headers.filter(([name]) => options.without?.includes(name.toLowerCase()) !== true)
  for (const [name, value] of Object.entries(options.headers ?? {})) {
    for (const one of typeof value === 'string' ? [value] : value) left.push([name, one])
  }
  const lines = left.map(([name, value]) => `${name}: ${value}\r\n`).join('')
  return `${options.method ?? 'GET'} ${target} HTTP/${options.httpVersion ?? '1.1'}\r\n${lines}\r\n`
}

function readAnswer (held: Buffer, ended: boolean): { answer: HttpAnswer, usedBytes: number } | undefined {
  const headEnd = held.indexOf('\r\n\r\n')
  if (headEnd < 0) return undefined
  const lines = held.toString('latin1', 0, headEnd).split('\r\n')
  const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(lines[0] ?? '')?.[1])
  const headers = new Map<string, string>()
  for (const line of lines.slice(1)) {
    const colon = line.indexOf(':')
    const name = line.slice(0, colon).toLowerCase()
    const value = line.slice(colon + 1).trim()
    headers.set(name, headers.has(name) ? `${headers.get(name)}, ${value}` : value)
  }
  const rest = held.subarray(headEnd + 4)
  const length = headers.get('content-length')
  if (status === 101) return { answer: { status, headers, body: '' }, usedBytes: headEnd + 4 }
  if (length !== undefined && rest.length < Number(length) && !ended) return undefined
  if (headers.get('transfer-encoding') === 'chunked' && !rest.includes('0\r\n\r\n') && !ended) return undefined
  if (length === undefined && !headers.has('transfer-encoding') && !ended) return undefined
  const body = headers.get('transfer-encoding') === 'chunked' ? joinChunks(rest) : rest.toString()
  return { answer: { status, headers, body }, usedBytes: held.length }
}

function joinChunks (bytes: Buffer): string {
  let body = ''
  let at = 0
  for (;;) {
    const lineEnd = bytes.indexOf('\r\n', at)
    const size = lineEnd < 0 ? 0 : parseInt(bytes.toString('latin1', at, lineEnd), 16)
    if (!(size > 0)) return body
    body += bytes.toString('utf8', lineEnd + 2, lineEnd + 2 + size)
    at = lineEnd + 4 + size
  }
}

function createLink (socket: Socket, first: Buffer): Link {
  let handlers: LinkHandlers | undefined
  let answersPings = true
  let sentClose = false
  let received: { code: number, reason: string } | undefined
  let byServer = false
  let ended = false
  let parts: Buffer[] = []
  const utf8 = new TextDecoder('utf-8', { fatal: true })

  function end () {
    if (ended) return
    ended = true
    handlers?.end({ code: received?.code ?? 1006, reason: received?.reason ?? '', byServer })
  }
  function write (bytes: Uint8Array) {
    if (!socket.destroyed && socket.writable) socket.write(bytes)
  }
  function onFrame (frame: WireFrame) {
    if (received !== undefined) return handlers?.breach?.(`a frame with opcode ${frame.opcode} after the close frame`)
    if (frame.masked) handlers?.breach?.('a masked frame')
    if (frame.rsv !== 0) handlers?.breach?.(`reserved bits ${frame.rsv} without an extension`)
    switch (frame.opcode) {
      case OPCODE.close: return onClose(frame.payload)
      case OPCODE.ping:
        handlers?.ping?.()
        if (answersPings) write(encodeFrame(OPCODE.pong, frame.payload))
        return
      case OPCODE.pong: return
      case OPCODE.text: parts = [frame.payload]; break
      case OPCODE.continuation: parts.push(frame.payload); break
      default: return handlers?.breach?.(`a frame with opcode ${frame.opcode}`)
    }
    if (!frame.fin) return
    const whole = parts.length === 1 ? parts[0]! : Buffer.concat(parts)
    parts = []
    let text: string
    try {
      text = utf8.decode(whole)
    } catch {
      return handlers?.breach?.('a text message that is not UTF-8')
    }
    handlers?.text(text)
  }
  function onClose (payload: Buffer) {
    byServer = !sentClose
    received = { code: payload.length < 2 ? 1005 : payload.readUInt16BE(0), reason: payload.toString('utf8', 2) }
    if (!sentClose) write(encodeFrame(OPCODE.close, payload.subarray(0, 2)))
    sentClose = true
    socket.end()
    setTimeout(() => socket.destroy(), CLOSE_ANSWER_MS).unref()
  }
  const read = createFrameReader(onFrame)
  return {
    localPort: socket.localPort ?? 0,
    handle (given) {
      handlers = given
      socket.on('data', read)
      socket.on('end', () => socket.end())
      socket.on('close', end)
      if (first.length > 0) read(first)
      socket.resume()
    },
    sendText: (text) => write(encodeFrame(OPCODE.text, Buffer.from(text))),
    sendFrame: (opcode, payload) => write(encodeFrame(opcode, payload)),
    sendBytes: write,
    pendingBytes: () => socket.writableLength,
    close (code, reason) {
      if (sentClose) return
      sentClose = true
      write(encodeFrame(OPCODE.close, encodeClose(code, reason)))
      setTimeout(() => socket.destroy(), CLOSE_ANSWER_MS).unref()
    },
    destroy: () => { socket.destroy() },
    pauseReading: () => { socket.pause() },
    resumeReading: () => { socket.resume() },
    answerPings: (on) => { answersPings = on }
  }
}
