// A Platform Core that does what a test tells it, and an HTTP core that talks to it with time held
// still.

import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import { createServer as createTcpServer, type AddressInfo } from 'node:net'
import type { Test } from 'tap'
import { createHttpCore, type HttpCoreOptions } from '../../src/cores/http.js'
import type { CoreRequest, PlatformCore } from '../../src/io/dispatcher/core.js'
import type { LifecycleEvent, Log } from '../../src/io/types.js'
import { freePort } from '../helpers/free-port.js'

export const SECRET = 'a secret of at least 24 bytes'

export interface Call { id: string, headers: IncomingMessage['headers'], text: string, body: any, socket: object }
type Answer = (call: Call, response: ServerResponse, count: number) => void

export function json (
  response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))
}

/**
 * A core, on a port of its own unless one is given, that keeps what it was asked; torn down with
 * the test, open connections included.
 */
export async function startCore (t: Test, answer: Answer, port = 0): Promise<{ url: string, calls: Call[] }> {
  const calls: Call[] = []
  const listener: RequestListener = (request, response) => {
    const chunks: Buffer[] = []
    request.on('error', () => {})
    request.on('data', chunk => chunks.push(chunk))
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString()
      const call = {
        id: String(request.headers['webhook-id']),
        headers: request.headers,
        text,
        body: JSON.parse(text),
        socket: request.socket
      }
      calls.push(call)
      answer(call, response, calls.length)
    })
  }
  const server = createServer(listener)
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(async () => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook?x=1`, calls }
}

/** A TCP server whose every connection is handed to `serve` when its first bytes arrive. */
export async function startRaw (t: Test, serve: (socket: import('node:net').Socket) => void): Promise<string> {
  const sockets = new Set<import('node:net').Socket>()
  const server = createTcpServer(socket => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('data', () => serve(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy()
    server.close()
    await once(server, 'close')
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
}

export function recordingLog (): Log & { lines: Array<{ level: string, fields: any, message: string }> } {
  const lines: Array<{ level: string, fields: any, message: string }> = []
  const at = (level: string) => (fields: object, message: string) => { lines.push({ level, fields, message }) }
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

/** Pauses that take no time but move the clock, and chance that always says a half. */
export function heldTime () {
  let nowMs = 0
  const pauses: number[] = []
  return {
    pauses,
    clock: { now: () => nowMs, wall: () => 1_700_000_000_000 + nowMs },
    timing: { sleep: async (ms: number) => { pauses.push(ms); nowMs += ms }, random: () => 0.5 }
  }
}

export function connect (t: Test, url: string, options: Partial<HttpCoreOptions> = {}) {
  const log = recordingLog()
  const time = heldTime()
  const core = createHttpCore({
    url,
    secret: SECRET,
    timeoutMs: 5_000,
    lifecycleEvents: [],
    maxAnswerBytes: 65_536,
    log,
    clock: time.clock,
    timing: time.timing,
    ...options
  })
  t.teardown(() => core.close())
  return { core, log, ...time }
}

export function command (over: Partial<CoreRequest> = {}): CoreRequest {
  return {
    key: 's1.e1.1',
    session: {
      id: 's1',
      userId: 'ada',
      createdAt: 1,
      lastActivityAt: 2,
      context: { step: 1 },
      labels: { roles: ['reviewer'] }
    },
    id: 1,
    command: 'review.approve',
    payload: { item: 'é' },
    timeoutMs: 60_000,
    idempotent: false,
    signal: new AbortController().signal,
    ...over
  }
}

export function event (revision: number, over: Partial<LifecycleEvent> = {}): LifecycleEvent {
  return { type: 'attached', sessionId: 's1', userId: 'ada', revision, at: 1_700_000_000_000, ...over }
}

export const codeOf = (core: PlatformCore, request = command()): Promise<unknown> => core.execute(request).then(
  answer => answer, (error: { code?: string }) => error.code
)

/** An address at which nobody listens. */
export async function unusedUrl (): Promise<string> {
  return `http://127.0.0.1:${await freePort()}/`
}
