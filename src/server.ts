#!/usr/bin/env node
// The process: command line and environment → configuration → application → listening → drain on a signal → exit. The only file that reads
// process.env, writes to the terminal, or ends the process.
//
// Exit codes: 0 after a drain or an answered flag, 1 for a health check that failed, a configuration that cannot be, a port that is taken, or an unexpected error. The first
// SIGTERM or SIGINT drains; a second one ends the process at once. Other signals do what they do to every process of Node.

import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import closeWithGrace from 'close-with-grace'
import type { FastifyInstance } from 'fastify'
import type {} from '../plugins/websocket-gateway.js'
import type { Config } from './config.js'
import { holdHeap, letHeapGrow } from './heap-growth.js'
import { HoldfastError } from './io/errors.js'
import { createLogOutput, writerWithoutWaiting } from './log-output.js'

/** What closing the application may take beyond the drain: the core's last events, and peers that do not answer a close. */
const CLOSE_MARGIN_MS = 5000

/**
 * What close-with-grace would take for a stop as well. SIGUSR2 is for heap snapshots, SIGHUP has to stay ignored under nohup, and after the others
 * a core dump says more than a drain.
 */
const OTHER_EVENTS = ['beforeExit', 'SIGHUP', 'SIGQUIT', 'SIGILL', 'SIGTRAP', 'SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGSEGV', 'SIGUSR2'] as const

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
  const dotenv = existsSync('.env') ? readFileSync('.env', 'utf8') : undefined
  const config = loadConfig({ env: process.env, argv, dotenv })
  if (action === 'print-config') return print(renderConfig(config))
  // A configuration with problems has ended the process by now.
  if (action === 'check-config') return
  if (action === 'healthcheck') return await askServer(config)

  // Loaded when it is needed: what only prints answers at once.
  const { buildApp } = await import('./app.js')
  const onTerminal = process.stdout.isTTY === true
  const output = createLogOutput({
    writeSync: writerWithoutWaiting(1),
    ...(onTerminal ? { format: await formatForPeople() } : {}),
    writeFatal: writeToStandardError,
    onRecovered: lines => { app.log.warn({ lines }, 'log lines lost') }
  })
  process.on('exit', output.flushSync)
  const app = await buildApp(config, { version, logStream: output })
  installShutdown(app, config)
  await app.listen({ host: config.host, port: config.port })
  letHeapGrow()
  if (onTerminal) print(banner(app.server.address() as AddressInfo, config))
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

/** Drains before the application closes: a drain inside `preClose` would be cut off by Fastify's plugin timeout and leave sockets open. */
function installShutdown (app: FastifyInstance, { drainSeconds }: Config): void {
  const drainMs = drainSeconds * 1000
  closeWithGrace({
    delay: drainMs + CLOSE_MARGIN_MS,
    logger: { error: (reason: unknown) => { app.log.error({ err: reason instanceof Error ? reason : undefined }, reason instanceof Error ? 'shutdown failed' : String(reason)) } },
    onSecondSignal: signal => { app.log.warn({ signal }, 'second signal, exiting at once') },
    onTimeout: delayMs => { app.log.error({ delayMs }, 'shutdown took too long, exiting') },
    skip: [...OTHER_EVENTS]
  }, async ({ signal, err }) => {
    if (err !== undefined) {
      app.log.fatal({ err }, 'unexpected error, exiting')
    } else {
      app.log.info({ signal, drainMs, connections: app.gateway.connections }, 'draining')
      await app.gateway.drain(drainMs)
    }
    await app.close()
    app.log.info({}, 'stopped')
  })
}

/** One plain sentence where there is one; a stack only for what nobody expected. */
function explain (error: unknown): string {
  if (error instanceof HoldfastError && error.code === 'CONFIG_INVALID') {
    const problems = error.message.split('\n')
    return `The configuration is not valid:\n${problems.map(problem => `  - ${problem}`).join('\n')}\nSee --help, or docs/operations.md.`
  }
  if (error instanceof HoldfastError && error.code === 'STORE_UNAVAILABLE') return error.message
  const { code, address, port } = error as { code?: string, address?: string, port?: number }
  if (code === 'EADDRINUSE') return `Port ${port} on ${address} is taken by another program; choose another one with PORT or --port.`
  if (code === 'EACCES') return `Port ${port} on ${address} may not be opened by this user; choose one above 1023 with PORT or --port.`
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') return `HOST ${address ?? ''} is no address of this machine; choose another one with HOST or --host.`
  return error instanceof Error ? error.stack ?? error.message : String(error)
}

main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`${explain(error)}\n`)
  process.exit(1)
})
