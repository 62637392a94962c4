// The process from outside: what it prints, when it refuses to start, how it stops. It is the built
// one, but for one run from source, whose coverage counts.

import { execFileSync, spawn, type ChildProcessByStdio } from 'node:child_process'
import { createServer as createHttpServer } from 'node:http'
import { createServer, type AddressInfo } from 'node:net'
import { closeSync, constants, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import { built } from './helpers/built.js'
import { freePort } from './helpers/free-port.js'

const BUILT = [built('src/server.js')]
// tap passes its loaders on in execArgv; with them the child runs TypeScript and is measured.
const SOURCE = [...process.execArgv, fileURLToPath(new URL('../src/server.ts', import.meta.url))]

interface Run { code: number | null, stdout: string, stderr: string }
interface Started {
  child: ChildProcessByStdio<null, Readable, Readable>
  port: number
  line: (text: string) => Promise<void>
  kill: (signal: NodeJS.Signals) => void
  exit: Promise<Run>
}

/** An empty working directory, so that no .env of the checkout is read. */
function workingDirectory (t: Test, files: Record<string, string> = {}): string {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-'))
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text)
  t.teardown(() => { rmSync(directory, { recursive: true }) })
  return directory
}

function launch (
  t: Test, argv: string[], env: Record<string, string> = {}, files: Record<string, string> = {}, entry = BUILT
) {
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([
    name
  ]) => !/^(HOLDFAST_|HOST$|PORT$|LOG_LEVEL$)/.test(name)))
  const child = spawn(process.execPath, [...entry, ...argv], {
    cwd: workingDirectory(t, files),
    env: { ...inherited, ...env },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  t.teardown(async () => {
    child.kill('SIGKILL')
    await exit
  })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (data: string) => { stdout += data })
  child.stderr.setEncoding('utf8').on('data', (data: string) => { stderr += data })
  const exit = new Promise<Run>(resolve => { child.on('close', code => { resolve({ code, stdout, stderr }) }) })
  return { child, exit, output: () => stdout + stderr }
}

async function run (
  t: Test, argv: string[], env: Record<string, string> = {}, files: Record<string, string> = {}
): Promise<Run> {
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
  return { child, port, line, kill: signal => { child.kill(signal) }, exit }
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
  const { code, stdout } = await run(
    t,
    ['--print-config', '--port=1234'],
    { HOLDFAST_ADMIN_TOKEN: 'sixteen-letters!' },
    { '.env': 'HOLDFAST_MAX_SESSIONS=7\n' }
  )
  t.equal(code, 0)
  t.match(stdout, /^PORT=1234$/m)
  t.match(stdout, /^HOLDFAST_MAX_SESSIONS=7$/m)
  t.match(stdout, /^HOLDFAST_ADMIN_TOKEN=\*+$/m)
})

t.test('--check-config says nothing of a good configuration and makes nothing', async t => {
  const data = join(workingDirectory(t), 'data')
  const result = await run(t, ['--check-config'], { HOLDFAST_DATA_DIR: data })
  t.same(result, { code: 0, stdout: '', stderr: '' })
  t.notOk(existsSync(data), 'the store was not opened')
})

t.test('--check-config lists what is wrong and exits 1', async t => {
  const { code, stdout, stderr } = await run(t, ['--check-config'], { HOLDFAST_TYPO: '1', HOST: '0.0.0.0' })
  t.same({ code, stdout }, { code: 1, stdout: '' })
  t.match(stderr, /HOLDFAST_TYPO/)
  t.match(stderr, /HOLDFAST_ADMIN_TOKEN/)
})

t.test('--healthcheck asks the server of its configuration', async t => {
  const { port } = await start(t)
  const url = `http://127.0.0.1:${port}/health/live`
  t.same(await run(t, ['--healthcheck'], { PORT: String(port) }), {
    code: 0, stdout: `${url} answered 200.\n`, stderr: ''
  })
  const everywhere = { HOST: '0.0.0.0', HOLDFAST_ADMIN_TOKEN: 'sixteen-letters!' }
  t.match(await run(t, ['--healthcheck', `--port=${port}`], everywhere), { code: 0, stdout: `${url} answered 200.\n` })
})

t.test('--healthcheck exits 1 where no server answers', async t => {
  const url = 'http://127.0.0.1:1/health/live'
  t.match(await run(t, ['--healthcheck'], { PORT: '1' }), { code: 1, stdout: '', stderr: `${url} did not answer: ` })
  t.match(await run(t, ['--healthcheck'], { PORT: '0' }), { code: 1, stderr: /^PORT is 0/ })
})

t.test('looks into data directories', async t => {
  const { code, stderr } = await run(t, ['store', 'check', 'nowhere'])
  t.match({ code, stderr }, { code: 1, stderr: 'nowhere holds no data of an embedded store.\n' })
  t.match(await run(t, ['store', '--help']), { code: 0, stdout: /^Usage: holdfast store check/ })
})

t.test('refuses a bad configuration with every problem, without a stack, and exits 1', async t => {
  const { code, stdout, stderr } = await run(t, [], {
    HOLDFAST_TYPO: '1', HOLDFAST_MAX_IN_FLIGHT: '0', HOST: '0.0.0.0'
  })
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
  t.same(
    messages(stdout).slice(-3),
    ['draining', 'session detached', 'stopped'],
    'in JSON lines, since its output is no terminal'
  )
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
  const server = await start(t, {
    HOLDFAST_DRAIN_SECONDS: '60',
    HOLDFAST_CORE_URL: `http://127.0.0.1:${(core.address() as AddressInfo).port}`
  })
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

// The log was written synchronously: after some 380 lines that nobody read, nothing was answered
// any more, and no signal was heard.
for (const kind of ['socket', 'pipe'] as const) {
  t.test(`goes on serving and stops in time although nobody reads its log (${kind})`, async t => {
    const path = join(workingDirectory(t), 'log')
    if (kind === 'pipe') execFileSync('mkfifo', [path])
    // Opened for both directions, so that it has a reader: one that never reads.
    const fifo = kind === 'pipe' ? openSync(path, constants.O_RDWR) : undefined
    const port = await freePort()
    const child = spawn(process.execPath, BUILT, {
      cwd: workingDirectory(t),
      env: { PATH: process.env['PATH'], PORT: String(port), HOLDFAST_DRAIN_SECONDS: '1' },
      stdio: ['ignore', fifo ?? 'pipe', 'ignore']
    })
    t.teardown(() => {
      child.kill('SIGKILL')
      if (fifo !== undefined) closeSync(fifo)
    })
    child.stdout?.pause()
    const url = `http://127.0.0.1:${port}`
    for (;;) if (await fetch(`${url}/health/live`).then(() => true, () => false)) break
    let lost = 0
    for (let i = 0; lost === 0; i++) {
      await Promise.all(Array.from({ length: 500 }, async () => await (await fetch(`${url}/nowhere`)).arrayBuffer()))
      lost = Number(/holdfast_log_lines_lost_total (\d+)/.exec(await (await fetch(`${url}/metrics`)).text())?.[1])
      if (i > 40) break
    }
    t.ok(lost > 0, `${lost} lines lost`)
    const startedAt = Date.now()
    const exit = new Promise(resolve => { child.on('exit', (code, signal) => { resolve({ code, signal }) }) })
    child.kill('SIGTERM')
    t.same(await exit, { code: 0, signal: null })
    t.ok(Date.now() - startedAt < 30_000, `${Date.now() - startedAt} ms`)
  })
}

t.test('tells how many log lines were lost once they are read again', async t => {
  const { child, port } = await start(t)
  child.stdout.pause()
  const url = `http://127.0.0.1:${port}`
  let lost = 0
  for (let i = 0; lost === 0 && i < 40; i++) {
    await Promise.all(Array.from({ length: 500 }, async () => await (await fetch(`${url}/nowhere`)).arrayBuffer()))
    lost = Number(/holdfast_log_lines_lost_total (\d+)/.exec(await (await fetch(`${url}/metrics`)).text())?.[1])
  }
  const told = new Promise<string>(resolve => {
    let text = ''
    child.stdout.on('data', data => {
      text += String(data)
      const line = text.split('\n').slice(0, -1).find(line => line.includes('log lines lost'))
      if (line !== undefined) resolve(line)
    })
  })
  child.stdout.resume()
  t.match(JSON.parse(await told), { level: 40, lines: lost })
})

t.test('a log in a file is complete', async t => {
  const path = join(workingDirectory(t), 'log')
  const file = openSync(path, 'a')
  const child = spawn(process.execPath, BUILT, {
    cwd: workingDirectory(t),
    env: { PATH: process.env['PATH'], PORT: '0' },
    stdio: ['ignore', file, 'ignore']
  })
  closeSync(file)
  t.teardown(() => { child.kill('SIGKILL') })
  const exit = new Promise(resolve => { child.on('exit', code => { resolve(code) }) })
  while (!readFileSync(path, 'utf8').includes('Server listening')) await new Promise(resolve => setTimeout(resolve, 20))
  child.kill('SIGTERM')
  t.equal(await exit, 0)
  t.same(messages(readFileSync(path, 'utf8')).slice(-2), ['draining', 'stopped'])
})

t.test('a terminal shows one line for each entry', async t => {
  const command = `exec ${process.execPath} ${BUILT[0]}`
  const child = spawn('script', ['--quiet', '--return', '--command', command, '/dev/null'], {
    cwd: workingDirectory(t),
    env: { PATH: process.env['PATH'], PORT: '0', NO_COLOR: '1' },
    stdio: ['pipe', 'pipe', 'ignore']
  })
  t.teardown(() => { child.kill('SIGKILL') })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (data: string) => { text += data })
  const shown = async (words: RegExp): Promise<RegExpExecArray> => {
    for (;;) {
      const found = words.exec(text)
      if (found !== null) return found
      await new Promise(resolve => child.stdout.once('data', resolve))
    }
  }
  const port = (await shown(/operators {2}http:\/\/127\.0\.0\.1:(\d+)/))[1]
  text = ''
  await (await fetch(`http://127.0.0.1:${port}/nowhere`)).arrayBuffer()
  await shown(/request completed.*\r\n/)
  t.match(text, /^\[[\d:.]+\] INFO: request completed \{.*"method":"GET","route":"\(none\)","statusCode":404,.*\}\r\n$/)
  // Ctrl+C.
  child.stdin.write('\x03')
  // Its end is heard before the last of what it printed is read.
  t.equal(await new Promise(resolve => { child.on('close', code => { resolve(code) }) }), 0)
  t.match(text, /INFO: draining .*\r\n.*INFO: stopped\r\n/)
})

// npm handed the signal to its shell, which ended and left the server running without a parent.
t.test('a signal to `npm start` reaches the server', async t => {
  const child = spawn('npm', ['start'], {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], PORT: '0' },
    stdio: ['ignore', 'pipe', 'ignore']
  })
  t.teardown(() => { child.kill('SIGKILL') })
  let text = ''
  const listening = new Promise<void>(resolve => {
    child.stdout.setEncoding('utf8').on('data', (data: string) => {
      text += data
      if (text.includes('Server listening')) resolve()
    })
  })
  await listening
  child.kill('SIGTERM')
  const code = await new Promise(resolve => { child.on('close', resolve) })
  t.equal(code, 0)
  t.match(text, /"draining".*\n.*"stopped"/)
})
