// A Redis or Valkey server for tests: found on the PATH, started on a free port of the loopback,
// ended with the test. Without one the test says so and is skipped; with REQUIRE_REDIS=1, as in CI,
// it fails instead.

import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import { freePort } from './free-port.js'

export interface RedisServer {
  readonly port: number
  readonly url: string
  readonly process: ChildProcess
  /** A client for looking into it. */
  readonly client: Redis
  freeze(): void
  thaw(): void
  kill(): Promise<void>
  /** On the same port; with what its append-only file has, if it was started with one. */
  restart(): Promise<void>
}

const CANDIDATES = [process.env['REDIS_SERVER_BIN'], 'redis-server', 'valkey-server']
const READY_MS = 60_000

/** The server's program, or undefined where there is none. */
export function redisBinary (): string | undefined {
  return CANDIDATES.find(name => name !== undefined && spawnSync(name, ['--version']).status === 0)
}

/** What a test passes as its option: skipped without a server, unless one is required. */
export function needsRedis (): { skip: string | false } {
  if (redisBinary() !== undefined) return { skip: false }
  if (process.env['REQUIRE_REDIS'] === '1') {
    throw new Error('REQUIRE_REDIS is set, and there is neither redis-server nor valkey-server.')
  }
  return { skip: 'NO REDIS: install redis-server or valkey-server to run the tests of the Redis store' }
}

export async function startRedis (t: Test, args: readonly string[] = []): Promise<RedisServer> {
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-redis-'))
  let child = await launch(port, folder, args)
  const client = new Redis({ host: '127.0.0.1', port, lazyConnect: true, retryStrategy: () => 100 })
  client.on('error', () => {})
  await client.connect()
  t.teardown(async () => {
    client.disconnect()
    await end(child)
    rmSync(folder, { recursive: true, force: true })
  })
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    get process () { return child },
    client,
    freeze () { child.kill('SIGSTOP') },
    thaw () { child.kill('SIGCONT') },
    kill: () => end(child),
    async restart () {
      child = await launch(port, folder, args)
    }
  }
}

async function launch (port: number, folder: string, args: readonly string[]): Promise<ChildProcess> {
  const child = spawn(redisBinary() as string, [
    '--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--daemonize', 'no', ...args
  ], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ready = new Promise<void>((resolve, reject) => {
    let printed = ''
    child.stdout?.on('data', (data: Buffer) => {
      printed += data.toString()
      if (/Ready to accept connections/.test(printed)) resolve()
    })
    child.once('exit', code => reject(new Error(`redis-server exited with ${code}: ${printed.slice(-500)}`)))
    setTimeout(() => reject(new Error(`redis-server was not ready: ${printed.slice(-500)}`)), READY_MS).unref()
  })
  await ready
  return child
}

async function end (child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, 'exit')
  child.kill('SIGKILL')
  await gone
}
