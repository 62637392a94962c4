#!/usr/bin/env node
// The process: command line and environment → configuration → application → listening → drain on a
// signal → exit. The only file that reads process.env, writes to the terminal, or ends the process.
//
// With HOLDFAST_WORKERS the process that was started serves nobody: it runs this program once more
// for each worker (workers.ts).
//
// Exit codes: 0 after a drain or an answered flag, 1 for a health check that failed, a
// configuration that cannot be, a port that is taken, or an unexpected error. The first SIGTERM or
// SIGINT drains; a second one ends the process at once. Other signals do what they do to every
// process of Node.

import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { parseEnv } from 'node:util'
import closeWithGrace from 'close-with-grace'
import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import type {} from '../plugins/websocket-gateway.js'
import type { Config } from './config.js'
import { holdHeap, letHeapGrow } from './heap-growth.js'
import { HoldfastError } from './io/errors.js'
import { createLogOutput, writerWithoutWaiting, type LogOutput } from './log-output.js'
import { systemClock } from './system-clock.js'
import { createSupervisor, forkWorker, workerNumber } from './workers.js'

/**
 * What closing the application may take beyond the drain: the core's last events, and peers that do
 * not answer a close.
 */
const CLOSE_MARGIN_MS = 5000
/** What the first process waits beyond the time that its workers have. */
const WORKERS_MARGIN_MS = 2000
const SIGNALS = ['SIGTERM', 'SIGINT'] as const

/**
 * What close-with-grace would take for a stop as well. SIGUSR2 is for heap snapshots, SIGHUP has to
 * stay ignored under nohup, and after the others a core dump says more than a drain.
 */
const OTHER_EVENTS = [
  'beforeExit', 'SIGHUP', 'SIGQUIT', 'SIGILL', 'SIGTRAP', 'SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGSEGV', 'SIGUSR2'
] as const

/**
 * Set for workers, and no option. Other supervisors of Node.js processes run programs under
 * node:cluster too.
 */
const SUPERVISOR_PID = 'SUPERVISOR_PID'
const workerId = process.env[SUPERVISOR_PID] === String(process.ppid) ? workerNumber : undefined

const { version } = createRequire(import.meta.url)('holdfast/package.json') as { version: string }

async function main (argv: string[]): Promise<void> {
  if (argv[0] === 'store') return await inspectStore(argv.slice(1))
  // What is large is loaded only from here on.
  holdHeap()
  const { loadConfig, readAction } = await import('./config.js')
  const { renderConfig, renderHelp } = await import('./config-help.js')
  const action = readAction(argv)
  if (action === 'help') return print(renderHelp())
  if (action === 'version') return print(`${version}\n`)
  // A worker has it in its environment, as it was when the first process started.
  const dotenv = workerId === undefined && existsSync('.env') ? readFileSync('.env', 'utf8') : undefined
  const config = loadConfig({ env: process.env, argv, dotenv })
  if (action === 'print-config') return print(renderConfig(config))
  // A configuration with problems has ended the process by now.
  if (action === 'check-config') return
  if (action === 'healthcheck') return await askServer(config)
  await (config.workers > 1 && workerId === undefined ? supervise(config, dotenv) : serve(config))
}

async function serve (config: Config): Promise<void> {
  // Loaded when it is needed: what only prints answers at once.
  const { buildApp } = await import('./app.js')
  const output = await openLogOutput(lines => { app.log.warn({ lines }, 'log lines lost') })
  const app = await buildApp(
    workerId === undefined ? config : { ...config, nodeName: `${config.nodeName}-${workerId}` },
    { version, logStream: output, ...(workerId === undefined ? {} : { worker: workerId }) }
  )
  drainOnSignal(app, config)
  await app.listen({ host: config.host, port: config.port })
  letHeapGrow()
  if (process.stdout.isTTY && workerId === undefined) print(banner(app.server.address() as AddressInfo, config))
}

/** Starts the workers, replaces those that die, and ends when they have ended. */
async function supervise (config: Config, dotenv = ''): Promise<void> {
  const { pino } = await import('pino')
  const output = await openLogOutput(lines => { log.warn({ lines }, 'log lines lost') })
  const log = pino({ level: config.logLevel }, output)
  const env = { ...parseEnv(dotenv), ...process.env, [SUPERVISOR_PID]: String(process.pid) }
  const drainMs = config.drainSeconds * 1000
  const supervisor = createSupervisor({
    count: config.workers,
    fork: () => forkWorker(env),
    log,
    clock: systemClock,
    after (ms, callback) {
      const timer = setTimeout(callback, ms)
      return () => { clearTimeout(timer) }
    },
    onListening ({ address, port, addressType }) {
      letHeapGrow()
      const family = addressType === 6 ? 'IPv6' : 'IPv4'
      if (process.stdout.isTTY) print(banner({ address, port, family }, config))
    },
    onGivenUp () { shutdown.close() }
  })
  const shutdown = installShutdown({
    log,
    delayMs: drainMs + CLOSE_MARGIN_MS + WORKERS_MARGIN_MS,
    async finish (signal) {
      log.info({ signal, drainMs }, 'stopping the workers')
      const isInOrder = await supervisor.stop()
      log.info({}, 'stopped')
      if (!isInOrder) process.exit(1)
    },
    abandon () { supervisor.kill() }
  })
  supervisor.start()
}

async function openLogOutput (onRecovered: (lines: number) => void): Promise<LogOutput> {
  const output = createLogOutput({
    writeSync: writerWithoutWaiting(1),
    ...(process.stdout.isTTY ? { format: await formatForPeople() } : {}),
    writeFatal: writeToStandardError,
    onRecovered
  })
  process.on('exit', output.flushSync)
  return output
}

async function askServer (config: Config): Promise<void> {
  const { checkHealth } = await import('./health-check.js')
  const { isHealthy, sentence } = await checkHealth(config)
  const stream = isHealthy ? process.stdout : process.stderr
  stream.write(`${sentence}\n`)
  process.exitCode = isHealthy ? 0 : 1
}

/** What is printed may be longer than a pipe takes at once, and its reader may have seen enough. */
async function inspectStore (argv: string[]): Promise<void> {
  const { runStoreCommand } = await import('./store-command.js')
  const writeTo = (stream: NodeJS.WriteStream) => (text: string) => new Promise<void>((resolve, reject) => {
    stream.write(text, error => { error ? reject(error) : resolve() })
  })
  process.stdout.on('error', () => { process.exit(1) })
  process.exitCode = await runStoreCommand(argv, { out: writeTo(process.stdout), error: writeTo(process.stderr) })
}

function print (text: string): void {
  process.stdout.write(text)
}

/** Lines for people: one for each entry; only a stack takes more. */
async function formatForPeople (): Promise<(line: string) => string> {
  const { prettyFactory } = await import('pino-pretty')
  return prettyFactory({
    colorize: !process.env['NO_COLOR'], ignore: 'pid,hostname', singleLine: true, translateTime: 'HH:MM:ss.l'
  })
}

/** Perhaps its reader has stalled too; nothing waits for that. */
function writeToStandardError (text: string): void {
  try {
    writerWithoutWaiting(2)(text)
  } catch {}
}

function banner ({ address, family, port }: AddressInfo, { adminToken }: Config): string {
  const at = `${family === 'IPv6' ? `[${address}]` : address}:${port}`
  return [
    `Holdfast ${version}`,
    `  clients    ws://${at}/ws`,
    `  operators  http://${at}/sessions${adminToken === undefined ? '' : '  (with HOLDFAST_ADMIN_TOKEN)'}`,
    `  API        http://${at}/docs`
  ].join('\n') + '\n'
}

/**
 * Drains before the application closes: a drain inside `preClose` would be cut off by Fastify's
 * plugin timeout and leave sockets open.
 */
function drainOnSignal (app: FastifyInstance, { drainSeconds }: Config): void {
  const drainMs = drainSeconds * 1000
  let first: NodeJS.Signals | undefined
  const shutdown = installShutdown({
    log: app.log,
    delayMs: drainMs + CLOSE_MARGIN_MS,
    skip: workerId === undefined ? [] : SIGNALS,
    async finish (signal, err) {
      if (err === undefined) {
        app.log.info({ signal: signal ?? first, drainMs, connections: app.gateway.connections }, 'draining')
        await app.gateway.drain(drainMs)
      }
      await app.close()
      app.log.info({}, 'stopped')
    }
  })
  if (workerId === undefined) return
  // A terminal and systemd send a signal to the whole group, and the first process passes it on: a
  // second one is no request to hurry. That is for the first process to decide.
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      if (first !== undefined) return
      first = signal
      shutdown.close()
    })
  }
}

interface Shutdown {
  log: FastifyBaseLogger
  delayMs: number
  skip?: readonly (typeof SIGNALS)[number][]
  /** The error that ends the process has been logged. */
  finish: (signal: NodeJS.Signals | undefined, err: Error | undefined) => Promise<void>
  /** The process ends at once, whatever `finish` has left. */
  abandon?: () => void
}

/** Ends the process after the first signal, or error, and `finish`. */
function installShutdown ({ log, delayMs, skip = [], finish, abandon = () => {} }: Shutdown): { close (): void } {
  const { close } = closeWithGrace({
    delay: delayMs,
    logger: {
      error: (reason: unknown) => {
        log.error(
          { err: reason instanceof Error ? reason : undefined },
          reason instanceof Error ? 'shutdown failed' : String(reason)
        )
      }
    },
    onSecondSignal (signal) {
      log.warn({ signal }, 'second signal, exiting at once')
      abandon()
    },
    onTimeout (delayMs) {
      log.error({ delayMs }, 'shutdown took too long, exiting')
      abandon()
    },
    skip: [...OTHER_EVENTS, ...skip]
  }, async ({ signal, err }) => {
    if (err !== undefined) log.fatal({ err }, 'unexpected error, exiting')
    await finish(signal, err)
  })
  return { close () { void close() } }
}

/** One plain sentence where there is one; a stack only for what nobody expected. */
function explain (error: unknown): string {
  if (error instanceof HoldfastError && error.code === 'CONFIG_INVALID') {
    const problems = error.message.split('\n')
    return `The configuration is not valid:\n${problems.map(problem => `  - ${problem}`).join('\n')}\nSee --help, ` +
      'or docs/operations.md.'
  }
  if (error instanceof HoldfastError && error.code === 'STORE_UNAVAILABLE') return error.message
  const { code, address, port } = error as { code?: string, address?: string, port?: number }
  if (code === 'EADDRINUSE') {
    return `Port ${port} on ${address} is taken by another program; choose another one with PORT or --port.`
  }
  if (code === 'EACCES') {
    return `Port ${port} on ${address} may not be opened by this user; choose one above 1023 with PORT or --port.`
  }
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') {
    return `HOST ${address ?? ''} is not an address of this machine; choose another one with HOST or --host.`
  }
  return error instanceof Error ? error.stack ?? error.message : String(error)
}

main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`${explain(error)}\n`)
  process.exit(1)
})
