// A WebSocket client for tests: keeps every frame from the very first one on, and hands them out
// one at a time. The queue is attached before the socket opens, because the server speaks first.
// Waiting is bounded, and what did arrive is in the error.

import { setImmediate as turn } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import type {} from '@fastify/websocket'
import { WebSocket } from 'ws'
import type { Frame } from './frame.js'

export type { Frame }

export interface Close { code: number, reason: string }

export interface TestSocket {
  readonly ws: WebSocket
  /** The next frame. */
  next (): Promise<Frame>
  /** The next frame of that type; those before it are dropped. */
  nextOf (type: string): Promise<Frame>
  /** The next `count` frames. */
  take (count: number): Promise<Frame[]>
  /** Frames that arrived and were not asked for yet. */
  readonly waiting: Frame[]
  /** The end of the socket; frames before it stay in `waiting`. */
  nextClose (): Promise<Close>
  /** Rejects if a frame or the close arrives within so many turns of the event loop. */
  nothingWithin (turns: number): Promise<void>
  /** Objects are printed as JSON; strings and buffers go as they are. */
  send (frame: object | string | Buffer): void
}

const WAIT_MS = 30_000

export function watch (ws: WebSocket): TestSocket {
  const waiting: Frame[] = []
  let close: Close | undefined
  let wake: (() => void) | undefined
  ws.on('message', data => {
    waiting.push(JSON.parse(String(data)) as Frame)
    wake?.()
  })
  ws.on('close', (code, reason) => {
    close = { code, reason: reason.toString() }
    wake?.()
  })
  ws.on('error', () => {})

  async function until<T> (what: string, probe: () => T | undefined): Promise<T> {
    const deadline = Date.now() + WAIT_MS
    for (;;) {
      const found = probe()
      if (found !== undefined) return found
      const left = deadline - Date.now()
      if (left <= 0) {
        throw new Error(
          `no ${what} within ${WAIT_MS} ms; waiting: ${JSON.stringify(waiting)}, close: ${JSON.stringify(close)}`
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

  async function next (): Promise<Frame> {
    return await until('frame', () => {
      const frame = waiting.shift()
      if (frame === undefined && close !== undefined) {
        throw new Error(`closed with ${close.code} (${close.reason}) instead of a frame`)
      }
      return frame
    })
  }

  return {
    ws,
    waiting,
    next,
    async nextOf (type) {
      for (;;) {
        const frame = await next()
        if (frame.type === type) return frame
      }
    },
    async take (count) {
      const frames: Frame[] = []
      while (frames.length < count) frames.push(await next())
      return frames
    },
    nextClose: async () => await until('close', () => close),
    async nothingWithin (turns) {
      for (let i = 0; i < turns; i++) {
        await turn()
        if (waiting.length > 0 || close !== undefined) {
          throw new Error(`expected silence, got ${JSON.stringify(waiting)} ${JSON.stringify(close)}`)
        }
      }
    },
    send (frame) {
      ws.send(typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame))
    }
  }
}

export interface ConnectOptions {
  protocols?: string[]
  headers?: Record<string, string>
}

/** Opens a socket without a network. */
export async function injectSocket (
  app: FastifyInstance, options: ConnectOptions & { path?: string } = {}
): Promise<TestSocket> {
  const { path = '/ws', protocols, headers = {} } = options
  await app.ready()
  let socket: TestSocket | undefined
  await app.injectWS(path, {
    headers: {
      host: 'localhost',
      ...headers,
      ...(protocols === undefined ? {} : { 'sec-websocket-protocol': protocols.join(', ') })
    },
    socket: { remoteAddress: '127.0.0.1' }
  } as object, { onInit: ws => { socket = watch(ws as unknown as WebSocket) } })
  return socket as TestSocket
}

/** Opens a socket to a listening server; resolves when it is open. */
export async function connectSocket (url: string, options: ConnectOptions = {}): Promise<TestSocket> {
  const ws = new WebSocket(url, options.protocols ?? [], { headers: options.headers ?? {}, perMessageDeflate: false })
  const socket = watch(ws)
  await new Promise<void>((resolve, reject) => {
    ws.once('open', resolve)
    ws.once('error', reject)
  })
  return socket
}

/**
 * Opens a socket of the full profile and reads its first frame, which must be `session_created` or
 * `session_resumed`.
 */
export async function connectFull (
  url: string, extra: string[] = [], headers: Record<string, string> = {}
): Promise<{ socket: TestSocket, hello: Frame }> {
  const socket = await connectSocket(url, { protocols: ['holdfast.v1', ...extra], headers })
  return { socket, hello: await socket.next() }
}

/** The entry with which the session of a first frame is resumed. */
export function resumeEntry (hello: Frame, lastSeq = 0): string {
  return `resume.${hello.payload.sessionId}.${hello.payload.resumeToken}.${lastSeq}`
}
