// Every command of docs/operations.md, run as it stands there against the built server. A block
// that is of no kind known here fails, so a new one cannot go without being run.
//
// Left out of a line: `npm ci`, which .ci/run does in a clean clone.

import { spawn } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { readBlocks } from '../helpers/markdown.js'
import { eventually, startServer, type ServerProcess } from '../helpers/server.js'
import { connectFull } from '../helpers/socket.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const TOKEN = 'the-token-of-the-operators'
const manual = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8')

interface Ended { code: number | null, output: string }

/** Runs a line in a shell; `during` gets what it has written so far and a way to end it. */
async function shell (
  t: Test, line: string, env: Record<string, string>, during?: (
    output: () => string, end: () => void, pid: number
  ) => Promise<void>
): Promise<Ended> {
  const inherited = Object.entries(process.env).filter(([
    name
  ]) => !/^(TAP|NODE_OPTIONS|NODE_V8|HOLDFAST_|HOST$|PORT$)/.test(name))
  // A group of its own: a signal reaches what the shell started, as Ctrl+C in a terminal does.
  const child = spawn('bash', ['-e', '-o', 'pipefail', '-c', line], {
    cwd: ROOT, detached: true, env: { ...Object.fromEntries(inherited), ...env }, stdio: ['ignore', 'pipe', 'pipe']
  })
  const signal = (name: NodeJS.Signals): void => {
    if (child.exitCode === null && child.pid !== undefined) process.kill(-child.pid, name)
  }
  t.teardown(() => { signal('SIGKILL') })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (data: string) => { output += data })
  }
  const ended = new Promise<Ended>(resolve => { child.on('close', code => { resolve({ code, output }) }) })
  await during?.(() => output, () => { signal('SIGTERM') }, child.pid as number)
  return await ended
}

/** A line that starts a server: it has to listen, and to end with 0 when it is told to. */
async function runServerLine (
  t: Test, line: string, env: Record<string, string> = {}, during?: (port: number, pid: number) => Promise<void>
): Promise<void> {
  const { code, output } = await shell(t, line, { PORT: '0', ...env }, async (output, end, pid) => {
    await eventually(`listening: ${line}`, () => output().includes('Server listening'), 60_000)
    await during?.(Number(/http:\/\/127\.0\.0\.1:(\d+)/.exec(output())?.[1]), pid)
    end()
  })
  t.equal(code, 0, `${line}\n${output}`)
}

async function runStarts (t: Test, block: string): Promise<void> {
  for (const line of block.trim().split('\n')) {
    const command = line.replace(/\s+#.*/, '').replace('npm ci && ', '').replace('--port 8080', '--port 0')
    if (!command.includes('--print-config')) await runServerLine(t, command)
    else t.match(await shell(t, command, {}), { code: 0, output: /HOLDFAST_MAX_SESSIONS=100000/ })
  }
}

async function runCurls (t: Test, block: string, server: ServerProcess): Promise<void> {
  const { hello, socket } = await connectFull(server.wsUrl)
  const { sessionId, userId } = hello.payload
  const { code, output } = await shell(t, block, { BASE: server.url, TOKEN, ID: sessionId, USER_ID: userId })
  t.equal(code, 0, `${block}\n${output}`)
  if (block.includes('DELETE')) t.match(output, /"ended":[1-9]/)
  socket.ws.terminate()
}

async function runSnapshot (t: Test, block: string): Promise<void> {
  const [start, kill] = block.trim().split('\n') as [string, string]
  const folder = t.testdir()
  await runServerLine(t, `cd ${folder}; exec ${start.replace('dist/', `${ROOT}dist/`)}`, {}, async (_port, pid) => {
    t.match(await shell(t, kill, { PID: String(pid) }), { code: 0 })
    await eventually('a snapshot', () => readdirSync(folder).some(name => name.endsWith('.heapsnapshot')), 60_000)
  })
}

t.test('every command of operations.md is run', async t => {
  const server = await startServer({ HOLDFAST_ADMIN_TOKEN: TOKEN })
  t.teardown(() => server.stop('SIGKILL'))
  const blocks = readBlocks(manual, 'sh')
  t.ok(blocks.length >= 7, `${blocks.length} blocks`)
  for (const block of blocks) {
    const lines = block.trim().split('\n')
    if (lines.every(line => line.startsWith('curl -fsS '))) await runCurls(t, block, server)
    else if (block.includes('--heapsnapshot-signal')) await runSnapshot(t, block)
    else if (lines.every(line => /^(npm|node) /.test(line))) await runStarts(t, block)
    else t.fail(`nothing runs this block:\n${block}`)
  }
  const known = ['sh', 'json']
  const languages = [...manual.matchAll(/^```(\w+)$/gm)].map(([, language]) => language as string)
  t.same(languages.filter(language => !known.includes(language)), [], 'no other kind of block')
})
