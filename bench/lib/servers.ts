// The servers that are compared, each in a process of its own: how it is started, spoken to, asked
// for its CPU time and told to broadcast.

import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { connect, createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { CpuAnswer, MemoryAnswer, ProbeQuestion } from '../probe.js'
import { basic, full, mute, socketIo, type Dialect } from './dialects.js'
import { SERVER_CPU, pin } from './pin.js'

export interface ServerKind {
  readonly name: string
  readonly script: string
  readonly dialect: Dialect
  readonly env?: Readonly<Record<string, string>>
  /** It keeps its sessions in a directory, which is made for each run. */
  readonly keepsSessions?: boolean
  /** Broadcasts to every session and asks each client for an acknowledgement. */
  readonly asksForAcks?: boolean
  /** Default: to a core that the generator does not use. */
  readonly isPinned?: boolean
  /** Sessions survive their connection. */
  readonly canResume?: boolean
  readonly broadcast: (server: Server, payload: string) => Promise<void>
}

export interface Server {
  readonly kind: ServerKind
  readonly port: number
  readonly pid: number
  cpuUs(): Promise<number>
  /** Memory after a forced garbage collection. */
  memory(): Promise<MemoryAnswer>
  startProfile(): Promise<void>
  stopProfile(file: string): Promise<void>
  /** Sends one message to all sessions. */
  broadcast(payload: string): Promise<void>
  tell(message: object): void
  stop(): Promise<void>
}

function script (path: string): string {
  return fileURLToPath(new URL(path, import.meta.url))
}

const HOLDFAST = script('../../src/server.js')

/**
 * Limits that a load generator on one address would run into; everything else stays at its default.
 */
const UNLIMITED = {
  LOG_LEVEL: 'warn',
  HOLDFAST_COMMANDS_PER_SECOND: '1000000',
  HOLDFAST_UPGRADES_PER_MINUTE: '1000000',
  HOLDFAST_REQUESTS_PER_MINUTE: '1000000',
  HOLDFAST_MAX_IN_FLIGHT: '1000',
  HOLDFAST_MAX_SESSIONS: '100000'
}

const agent = new Agent({ keepAlive: true })

/** The user that every session has while no authentication is configured. */
const PLACEHOLDER_USER = 'human_reviewer_1'

/** To every session of the one user that there is. */
const TO_USER = `/users/${PLACEHOLDER_USER}/messages`

function overRest (path: string, behind = false): ServerKind['broadcast'] {
  return (server, payload) => post(server, path, `{"event":"review.assigned","payload":${payload},"behind":${behind}}`)
}

async function post (server: Server, path: string, body: string): Promise<void> {
  const posted = request({
    agent,
    port: server.port,
    host: '127.0.0.1',
    method: 'POST',
    path,
    headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }
  })
  posted.end(body)
  const [response] = await once(posted, 'response')
  response.setEncoding('utf8')
  let text = ''
  for await (const part of response) text += part
  if (response.statusCode >= 300) throw new Error(`the broadcast was answered ${response.statusCode} ${text}`)
}

async function broadcastOverIpc (server: Server, payload: string): Promise<void> {
  server.tell({ broadcast: payload, asksForAcks: server.kind.asksForAcks === true })
}

function peer (name: string, file: string, dialect: Dialect, more: Partial<ServerKind> = {}): ServerKind {
  return { name, script: script(`../servers/${file}.js`), dialect, broadcast: broadcastOverIpc, ...more }
}

function holdfast (name: string, dialect: Dialect, env: Record<string, string> = {}): ServerKind {
  return {
    name,
    script: HOLDFAST,
    dialect,
    canResume: dialect.subprotocol !== undefined,
    env: { ...UNLIMITED, ...env },
    broadcast: overRest(TO_USER)
  }
}

const REDIS = { HOLDFAST_REDIS_URL: process.env.BENCH_REDIS_URL ?? 'redis://127.0.0.1:6379' }

export const KINDS: readonly ServerKind[] = [
  peer('ws', 'ws', full),
  peer('fastify', 'fastify', full),
  peer('socketio', 'socketio', socketIo),
  peer('socketio-acks', 'socketio', socketIo, { asksForAcks: true }),
  peer('socketio-recovery', 'socketio', socketIo, { env: { RECOVERY: '1' } }),
  holdfast('holdfast', full),
  holdfast('holdfast-basic', basic),
  { ...holdfast('holdfast-embedded', full), keepsSessions: true },
  { ...holdfast('holdfast-embedded-behind', full), keepsSessions: true, broadcast: overRest(TO_USER, true) },
  { ...holdfast('holdfast-embedded-disk', full, { HOLDFAST_DURABILITY: 'disk' }), keepsSessions: true },
  // On a server of its own at BENCH_REDIS_URL, whose keys are left behind.
  // A broadcast, since what is for a user goes through the inboxes of a fleet.
  { ...holdfast('holdfast-redis', full, REDIS), broadcast: overRest('/broadcast') },
  { ...holdfast('holdfast-redis-behind', full, REDIS), broadcast: overRest('/broadcast', true) },
  // An outbox small enough to be full within a second, so that each output drops an older one.
  holdfast('holdfast-mute', mute, { HOLDFAST_OUTBOX_MESSAGES: '32' })
]

export function isBuilt (kind: ServerKind): boolean {
  return existsSync(kind.script)
}

async function freePort (): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

const START_TIMEOUT_MS = 15_000

function canConnect (port: number): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => { socket.destroy(); resolve(true) })
    socket.once('error', () => resolve(false))
  })
}

async function untilListening (port: number, child: ChildProcess): Promise<void> {
  const start = performance.now()
  while (!await canConnect(port)) {
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode} before it listened`)
    if (performance.now() - start > START_TIMEOUT_MS) throw new Error('the server does not listen')
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

/** Starts a server on a free port, on a core of its own. `env` is added to what the kind sets. */
export async function startServer (kind: ServerKind, env: Readonly<Record<string, string>> = {}): Promise<Server> {
  const port = await freePort()
  const directory = kind.keepsSessions === true ? mkdtempSync(join(tmpdir(), 'holdfast-bench-')) : undefined
  const store = directory === undefined ? {} : { HOLDFAST_DATA_DIR: directory }
  const child = fork(kind.script, [], {
    execArgv: ['--expose-gc', '--import', new URL('../probe.js', import.meta.url).href],
    env: {
      PATH: process.env.PATH,
      NODE_ENV: 'production',
      HOST: '127.0.0.1',
      PORT: String(port),
      ...kind.env,
      ...store,
      ...env
    },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc']
  })
  if (kind.isPinned !== false) pin(child.pid!, SERVER_CPU)

  async function ask<T> (question: ProbeQuestion): Promise<T> {
    child.send(question)
    for (;;) {
      const [answer] = await once(child, 'message')
      if (answer.probe === question.probe) return answer as T
    }
  }

  await untilListening(port, child)
  const server: Server = {
    kind,
    port,
    pid: child.pid!,
    cpuUs: async () => (await ask<CpuAnswer>({ probe: 'cpu' })).cpuUs,
    memory: () => ask<MemoryAnswer>({ probe: 'memory' }),
    startProfile: () => ask({ probe: 'profileStart' }),
    stopProfile: file => ask({ probe: 'profileStop', file }),
    broadcast: payload => kind.broadcast(server, payload),
    tell: message => { child.send(message) },
    async stop () {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill('SIGKILL')
      await once(child, 'exit')
      if (directory !== undefined) rmSync(directory, { recursive: true, force: true })
    }
  }
  return server
}
