// The process from outside: what it prints, when it refuses to start, how it stops. It is the built one, but for one run from source, whose coverage
// counts.

import { spawn } from 'node:child_process'
import { createServer as createHttpServer } from 'node:http'
import { createServer, type AddressInfo } from 'node:net'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'

const BUILT = [fileURLToPath(new URL('../dist/src/server.js', import.meta.url))]
// tap passes its loaders on in execArgv; with them the child runs TypeScript and is measured.
const SOURCE = [...process.execArgv, fileURLToPath(new URL('../src/server.ts', import.meta.url))]

interface Run { code: number | null, stdout: string, stderr: string }
interface Started { port: number, line: (text: string) => Promise<void>, kill: (signal: NodeJS.Signals) => void, exit: Promise<Run> }

/** An empty working directory, so that no .env of the checkout is read. */
function workingDirectory (t: Test, files: Record<string, string> = {}): string {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-'))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text)
  t.teardown(() => { rmSync(directory, { recursive: true }) })
  return directory
}

function launch (t: Test, argv: string[], env: Record<string, string> = {}, files: Record<string, string> = {}, entry = BUILT) {
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(HOLDFAST_|HOST$|PORT$|LOG_LEVEL$)/.test(name)))
  const child = spawn(process.execPath, [...entry, ...argv], { cwd: workingDirectory(t, files), env: { ...inherited, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  t.teardown(() => { child.kill('SIGKILL') })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (data: string) => { stdout += data })
  child.stderr.setEncoding('utf8').on('data', (data: string) => { stderr += data })
  const exit = new Promise<Run>(resolve => { child.on('close', code => { resolve({ code, stdout, stderr }) }) })
  return { child, exit, output: () => stdout + stderr }
}

async function run (t: Test, argv: string[], env: Record<string, string> = {}, files: Record<string, string> = {}): Promise<Run> {
  return await launch(t, argv, env, files).exit
}

async function start (t: Test, env: Record<string, string> = {}, entry = BUILT): Promise<Started> {
  const { child, exit, output } = launch(t, [], { PORT: '0', ...env }, {}, entry)
  async function line (text: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const look = (): void => { if (output().includes(text)) resolve() }
      child.stdout.on('data', look)
      child.on('close', () => { reject(new Error(`the server ended without "${text}":\n${output()}`)) })
      look()
    })
  }
  await line('Server listening')
  const port = Number(/http:\/\/127\.0\.0\.1:(\d+)/.exec(output())?.[1])
  return { port, line, kill: signal => { child.kill(signal) }, exit }
}

function messages (output: string): string[] {
  return output.trim().split('\n').map(line => (JSON.parse(line) as { msg: string }).msg)
}

t.test('prints its version and its options and exits 0', async t => {
  const [version, help] = await Promise.all([run(t, ['--version']), run(t, ['--help'], { HOLDFAST_NONSENSE: '1' })])
  t.match(version, { code: 0, stdout: /^\d+\.\d+\.\d+\n$/, stderr: '' })
  t.match(help, { code: 0, stdout: /HOLDFAST_SESSION_TIMEOUT_SECONDS/, stderr: '' })
})

t.test('prints the configuration in force, .env included, with secrets masked', async t => {
  const { code, stdout } = await run(t, ['--print-config', '--port=1234'], { HOLDFAST_ADMIN_TOKEN: 'sixteen-letters!' }, { '.env': 'HOLDFAST_MAX_SESSIONS=7\n' })
  t.equal(code, 0)
  t.match(stdout, /^PORT=1234$/m)
  t.match(stdout, /^HOLDFAST_MAX_SESSIONS=7$/m)
  t.match(stdout, /^HOLDFAST_ADMIN_TOKEN=\*+$/m)
})

t.test('refuses a bad configuration with every problem, without a stack, and exits 1', async t => {
  const { code, stdout, stderr } = await run(t, [], { HOLDFAST_TYPO: '1', HOLDFAST_MAX_IN_FLIGHT: '0', HOST: '0.0.0.0' })
  t.equal(code, 1)
  t.equal(stdout, '')
  t.match(stderr, /HOLDFAST_TYPO/)
  t.match(stderr, /HOLDFAST_MAX_IN_FLIGHT/)
  t.match(stderr, /HOLDFAST_ADMIN_TOKEN/)
  t.notMatch(stderr, /^\s+at /m)
})

t.test('says in one sentence that its port is taken', async t => {
  const other = createServer()
  await new Promise<void>(resolve => { other.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => { other.close() })
  const { port } = other.address() as AddressInfo
  const { code, stderr } = await run(t, [], { PORT: String(port) })
  t.equal(code, 1)
  t.equal(stderr, `Port ${port} on 127.0.0.1 is taken by another program; choose another one with PORT or --port.\n`)
})

t.test('P-48 sends clients away on SIGTERM and exits 0', async t => {
  const server = await start(t, {}, SOURCE)
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}/ws`, ['holdfast.v1'])
  const frames: { type: string, payload?: { code?: number } }[] = []
  const closed = new Promise<number>(resolve => { socket.on('close', resolve) })
  await new Promise<void>(resolve => {
    socket.on('message', data => {
      frames.push(JSON.parse(String(data)) as (typeof frames)[number])
      resolve()
    })
  })
  server.kill('SIGTERM')
  t.equal(await closed, 4200)
  t.match(frames.at(-1), { type: 'goodbye', payload: { code: 4200 } })
  const { code, stdout, stderr } = await server.exit
  t.equal(code, 0)
  t.equal(stderr, '')
  t.same(messages(stdout).slice(-3), ['draining', 'session detached', 'stopped'], 'in JSON lines, since its output is no terminal')
})

t.test('exits at once on a second signal', async t => {
  // A core that never answers keeps a command running, and that keeps the drain waiting.
  const core = createHttpServer()
  const asked = new Promise(resolve => { core.once('request', resolve) })
  await new Promise<void>(resolve => { core.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => {
    core.closeAllConnections()
    core.close()
  })
  const server = await start(t, { HOLDFAST_DRAIN_SECONDS: '60', HOLDFAST_CORE_URL: `http://127.0.0.1:${(core.address() as AddressInfo).port}` })
  const socket = new WebSocket(`ws://127.0.0.1:${server.port}/ws`, ['holdfast.v1'])
  socket.on('error', () => {})
  socket.once('message', () => { socket.send('{"command":"slow","id":1}') })
  await asked
  const draining = server.line('draining')
  server.kill('SIGTERM')
  await draining
  server.kill('SIGINT')
  const { code, stdout } = await server.exit
  t.equal(code, 1)
  t.equal(messages(stdout).at(-1), 'second signal, exiting at once')
})
