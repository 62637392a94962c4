// The Platform Core that the kit plays: an HTTP server to which the server under test posts each
// command (HOLDFAST_CORE_URL). It can hold an answer until a check opens its gate, fail in every
// way a core fails, send outputs along, and it counts executions, which is what proves at-most-once
// from outside. A server may ask again under the same webhook-id if it was told that the core
// remembers them: that is not an execution, and is given the first answer. It keeps no session
// state; what a command means is in its payload.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { Failure } from './expect.js'

export interface Execution {
  readonly sessionId: string
  readonly id: number | string | undefined
  readonly command: string
  readonly payload: any
  /** The webhook-id header: the idempotency key. */
  readonly key: string
  readonly startedAtMs: number
  /** How often it was asked for: once, unless the server repeated the key. */
  requests: number
}

interface Answer { status: number, body: unknown, drop?: boolean, cut?: boolean }

export interface Core {
  readonly executions: readonly Execution[]
  /** Requests that repeated the key of an earlier one. */
  readonly repeats: number
  /** Executions whose payload has this `tag`. */
  byTag(tag: string): Execution[]
  /** Settles once `count` executions with this tag have started. */
  started(tag: string, count?: number): Promise<void>
  /** Lets the commands held at this gate answer, now and later. */
  open(gate: string): void
  /** Called on every execution; for runs too long for a list. */
  onExecution(listener: (execution: Execution) => void): void
  /** Stops keeping a list of executions. */
  forget(): void
  close(): Promise<void>
}

interface Order {
  tag?: string
  /** Answers once this gate is open. */
  gate?: string
  delayMs?: number
  status?: number
  body?: unknown
  /** Cuts the connection in place of an answer. */
  drop?: boolean
  /** Cuts the connection in the middle of the answer. */
  cut?: boolean
  /** So often it is answered 503 with Retry-After, and not executed, before it is. */
  busy?: number
  messages?: { event: string, payload: unknown, behind?: boolean }[]
  /** Sends this many outputs of so many bytes along. */
  produce?: { count: number, bytes: number }
  /** What the command returns; without it the payload itself. */
  result?: unknown
}

export interface CoreOptions {
  /**
   * Executes a repeated webhook-id once more: a core of which nobody said that it is idempotent.
   */
  forgetful?: boolean
  /** A command that is executed like `kit`. */
  serialCommand?: string | undefined
}

/** Listens; rejects if it cannot. `timeoutMs` bounds `started`. */
export async function startCore (
  host: string, port: number, timeoutMs: number, { forgetful = false, serialCommand }: CoreOptions = {}
): Promise<Core> {
  let executions: Execution[] | undefined = []
  const gates = new Map<string, { promise: Promise<void>, open: () => void }>()
  const listeners: ((execution: Execution) => void)[] = []
  const answers = new Map<string, { execution: Execution | undefined, answer: Promise<Answer> }>()
  const turnedAway = new Map<string, number>()
  let repeats = 0

  function gate (name: string) {
    let found = gates.get(name)
    if (found === undefined) {
      let open = () => {}
      const promise = new Promise<void>((resolve) => { open = resolve })
      gates.set(name, found = { promise, open })
    }
    return found
  }
  async function handle (request: IncomingMessage, response: ServerResponse) {
    const body = JSON.parse(await readBody(request))
    const key = request.headers['webhook-id']
    if (typeof key !== 'string') return response.writeHead(400).end()
    const times = turnedAway.get(key) ?? 0
    if (times < (body.data?.payload?.busy ?? 0)) {
      turnedAway.set(key, times + 1)
      return response.writeHead(503, { 'retry-after': '0' }).end()
    }
    const known = answers.get(key)
    if (known !== undefined) {
      repeats++
      if (known.execution !== undefined) known.execution.requests++
    }
    const asked = known === undefined || forgetful ? start(body, key) : known
    answers.set(key, asked)
    const { status, body: told, drop, cut } = await asked.answer
    if (cut === true) return cutShort(response)
    if (drop === true) return request.socket.destroy()
    response.writeHead(status, { 'content-type': 'application/json' })
    response.end(told === undefined ? '' : JSON.stringify(told))
  }
  function start ({ type, data }: any, key: string): { execution: Execution | undefined, answer: Promise<Answer> } {
    if (type !== 'session.command') {
      return { execution: undefined, answer: Promise.resolve({ status: 204, body: undefined }) }
    }
    const { session, id, command, payload } = data
    const execution = { sessionId: session.id, id, command, payload, key, startedAtMs: performance.now(), requests: 1 }
    executions?.push(execution)
    for (const listener of [...listeners]) listener(execution)
    return { execution, answer: execute(execution) }
  }
  async function execute ({ command, payload }: Execution): Promise<Answer> {
    if (command === 'echo') return { status: 200, body: { payload } }
    if (command !== 'kit' && command !== serialCommand) {
      return { status: 404, body: { code: 'UNKNOWN_COMMAND', message: 'The core of the kit knows echo and kit.' } }
    }
    const order: Order = payload
    if (order.gate !== undefined) await gate(order.gate).promise
    if (order.delayMs !== undefined && order.delayMs > 0) {
      await new Promise((resolve) => setTimeout(resolve, order.delayMs))
    }
    if (order.cut === true) return { status: 200, body: undefined, cut: true }
    if (order.status !== undefined || order.drop === true) {
      return { status: order.status ?? 500, body: order.body, drop: order.drop ?? false }
    }
    const messages = order.messages ?? (order.produce === undefined ? undefined : produce(order.produce))
    return { status: 200, body: { payload: order.result ?? payload, ...(messages === undefined ? {} : { messages }) } }
  }
  const server = createServer((request, response) => {
    handle(request, response).catch(() => request.socket.destroy())
  })
  server.keepAliveTimeout = 60_000
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  })
  const byTag = (tag: string) => (executions ?? []).filter(({ payload }) => payload?.tag === tag)
  return {
    get executions () { return executions ?? [] },
    get repeats () { return repeats },
    byTag,
    started (tag, count = 1) {
      return new Promise((resolve, reject) => {
        const timer = setTimeout(
          () => finish(new Failure(
            `expected ${count} executions at the core, got ${byTag(tag).length} within ${timeoutMs} ms`
          )),
          timeoutMs
        )
        function finish (error?: Error) {
          clearTimeout(timer)
          listeners.splice(listeners.indexOf(check), 1)
          if (error === undefined) resolve()
          else reject(error)
        }
        function check () {
          if (byTag(tag).length >= count) finish()
        }
        listeners.push(check)
        check()
      })
    },
    open: (name) => gate(name).open(),
    onExecution: (listener) => { listeners.push(listener) },
    forget: () => { executions = undefined },
    close () {
      for (const { open } of gates.values()) open()
      return new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      })
    }
  }
}

function cutShort (response: ServerResponse): void {
  response.writeHead(200, { 'content-length': '1000' })
  response.write('{"payload":', () => response.destroy())
}

function produce ({ count, bytes }: { count: number, bytes: number }) {
  return Array.from({ length: count }, (_, n) => ({
    event: 'produced',
    payload: { n: n + 1, filler: 'x'.repeat(bytes) }
  }))
}

async function readBody (request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}
