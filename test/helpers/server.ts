// Servers to test against: the plugins in this process, with a clock and limits of the test's own;
// and the built server as a child process, watched from outside as an operator would.

import { spawn, type ChildProcess } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import { placeholderAuthenticator } from '../../src/auth/authenticate.js'
import type { DispatcherLimits } from '../../src/io/dispatcher/dispatcher.js'
import type { GatewayLimits } from '../../src/io/gateway/gateway.js'
import type { SessionLimits } from '../../src/io/session/runtime.js'
import dispatcher from '../../plugins/dispatcher.js'
import sessionManager from '../../plugins/session-manager.js'
import websocketGateway, { type WebsocketGatewayOptions } from '../../plugins/websocket-gateway.js'
import { built } from './built.js'

export const SESSION_LIMITS: SessionLimits = {
  idleTimeoutMs: 3_600_000,
  resumeWindowMs: 3_600_000,
  maxSessions: 1000,
  maxSessionsPerUser: 64,
  outboxMessages: 1000,
  outboxBytes: 1_048_576,
  outboxTotalBytes: 268_435_456,
  maxContextBytes: 65_536
}
export const DISPATCHER_LIMITS: DispatcherLimits = {
  commandsPerSecond: 1000, maxInFlight: 32, commandTimeoutMs: 30_000
}
export const GATEWAY_LIMITS: GatewayLimits = {
  maxMessageBytes: 65_536, maxBufferedBytes: 262_144, heartbeatMs: 25_000
}

export interface PluginAppOptions {
  server?: FastifyServerOptions
  sessions?: Partial<SessionLimits>
  dispatcher?: Partial<DispatcherLimits>
  gateway?: Partial<GatewayLimits>
  options?: Partial<WebsocketGatewayOptions>
  unlimitedUserId?: string
  /** Runs before the plugins are registered. */
  before?: (app: FastifyInstance) => Promise<void> | void
}

/** A host application with the three plugins and nothing else. */
export async function createPluginApp (options: PluginAppOptions = {}): Promise<FastifyInstance> {
  const app = Fastify(options.server ?? {})
  await options.before?.(app)
  await app.register(sessionManager, {
    limits: { ...SESSION_LIMITS, ...options.sessions },
    ...(options.unlimitedUserId === undefined ? {} : { unlimitedUserId: options.unlimitedUserId }),
    ...(options.options?.clock === undefined ? {} : { clock: options.options.clock })
  })
  await app.register(dispatcher, {
    limits: { ...DISPATCHER_LIMITS, ...options.dispatcher },
    ...(options.options?.clock === undefined ? {} : { clock: options.options.clock })
  })
  await app.register(websocketGateway, {
    authenticate: placeholderAuthenticator(),
    allowedOrigins: [],
    upgradesPerMinute: 10_000,
    closeTimeoutMs: 300,
    ...options.options,
    limits: { ...GATEWAY_LIMITS, ...options.gateway }
  })
  return app
}

/** Listens on a free port of the loopback and returns it. */
export async function listen (app: FastifyInstance): Promise<number> {
  await app.listen({ port: 0, host: '127.0.0.1' })
  return (app.server.address() as AddressInfo).port
}

export interface LogLine { level: number, msg: string, [field: string]: unknown }
export interface Exit { code: number | null, signal: NodeJS.Signals | null }

export interface ServerProcess {
  readonly child: ChildProcess
  readonly pid: number
  readonly port: number
  readonly url: string
  readonly wsUrl: string
  /** Everything it wrote to stdout and stderr so far. */
  readonly output: string
  /** Its log lines so far. */
  readonly lines: LogLine[]
  /** Waits for a log line. */
  line (matches: (line: LogLine) => boolean): Promise<LogLine>
  readonly exit: Promise<Exit>
  /** Sends a signal and waits for the exit. */
  stop (signal?: NodeJS.Signals): Promise<Exit>
  openDescriptors (): number
  residentBytes (): number
}

const START_MS = 60_000

/** Starts the built server on a free port of the loopback and waits until it listens. */
export async function startServer (
  env: Record<string, string> = {}, nodeOptions: string[] = []
): Promise<ServerProcess> {
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('HOLDFAST_') &&
    !/^(TAP|NODE_OPTIONS|NODE_V8)/.test(name)))
  const child = spawn(process.execPath, [...nodeOptions, built('src/server.js')], {
    env: { ...inherited, HOST: '127.0.0.1', PORT: '0', LOG_LEVEL: 'info', ...env },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  let output = ''
  const lines: LogLine[] = []
  let rest = ''
  let wake: (() => void)[] = []
  function read (data: string): void {
    output += data
    rest += data
    const parts = rest.split('\n')
    rest = parts.pop() as string
    for (const part of parts) {
      try {
        lines.push(JSON.parse(part) as LogLine)
      } catch {
        // A line for people.
      }
    }
    wakeAll()
  }
  function wakeAll (): void {
    const waiting = wake
    wake = []
    for (const resolve of waiting) resolve()
  }
  child.stdout.setEncoding('utf8').on('data', read)
  child.stderr.setEncoding('utf8').on('data', read)
  // A test file that is ended by its time limit runs no teardown.
  const endWithParent = (): void => { child.kill('SIGKILL') }
  process.on('exit', endWithParent)
  let exited = false
  let wasAsked = false
  const exit = new Promise<Exit>(resolve => {
    child.on('close', (code, signal) => {
      exited = true
      process.off('exit', endWithParent)
      // What a test sees of it is a connection that is refused.
      if (!wasAsked && !child.killed && code !== 0) {
        console.error(
          `the server ended by itself, with ${signal ?? code}; the end of its output:\n${output.slice(-8000)}`
        )
      }
      wakeAll()
      resolve({ code, signal })
    })
  })

  async function until<T> (what: string, probe: () => T | undefined): Promise<T> {
    const deadline = Date.now() + START_MS
    for (;;) {
      const found = probe()
      if (found !== undefined) return found
      if (exited || Date.now() > deadline) {
        child.kill('SIGKILL')
        throw new Error(`the server ${exited ? 'ended' : 'ran'} without ${what}; its output:\n${output}`)
      }
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, deadline - Date.now())
        wake.push(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    }
  }

  const port = await until('a listening line', () => {
    const found = /http:\/\/127\.0\.0\.1:(\d+)/.exec(output)
    return found === null ? undefined : Number(found[1])
  })
  const pid = child.pid as number
  return {
    child,
    pid,
    port,
    url: `http://127.0.0.1:${port}`,
    wsUrl: `ws://127.0.0.1:${port}/ws`,
    get output () { return output },
    lines,
    line: async matches => await until('that log line', () => lines.find(matches)),
    exit,
    async stop (signal = 'SIGTERM') {
      wasAsked = true
      if (!exited) child.kill(signal)
      return await exit
    },
    openDescriptors: () => readdirSync(`/proc/${pid}/fd`).length,
    residentBytes: () => Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
  }
}

/**
 * The least of some measurements, and the first below the bound ends them: what makes a server slow
 * does so each time, a busy machine does not.
 */
export async function quickest (belowMs: number, measure: () => Promise<number>): Promise<number> {
  let least = Infinity
  for (let left = 5; left > 0 && least >= belowMs; left--) least = Math.min(least, await measure())
  return least
}

/** Waits until the probe is true; for what only the outside of a process shows. */
export async function eventually (
  what: string, probe: () => boolean | Promise<boolean>, withinMs = 30_000
): Promise<void> {
  const deadline = Date.now() + withinMs
  while (!(await probe())) {
    if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}
