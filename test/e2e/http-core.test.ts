// The example cores as people would start them, behind the built server: the way of a command, what
// the recipe of docs/core.md is worth when answers are lost and the core is killed, and restarts.

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, request as sendRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { freePort } from '../helpers/free-port.js'
import { startServer } from '../helpers/server.js'
import { connectFull } from '../helpers/socket.js'

const PYTHON = process.env['PYTHON'] ?? '/usr/bin/python3'
const SECRET = 'a secret of the core, for this test'
const EXAMPLES: Record<string, string> = { 'core.py': PYTHON, 'core.mjs': process.execPath }

interface Core { url: string, port: number, kill(signal: NodeJS.Signals): Promise<void> }

/** Starts an example on `port`, by default any free one, with its database in `database`. */
async function startCore (t: Test, name: string, { port = 0, database = ':memory:' } = {}): Promise<Core> {
  const file = fileURLToPath(new URL(`../../examples/http-core/${name}`, import.meta.url))
  const env = { ...process.env, PORT: String(port), CORE_SECRET: SECRET, CORE_DATABASE: database }
  const child: ChildProcess = spawn(EXAMPLES[name] as string, [file], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  async function kill (signal: NodeJS.Signals): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill(signal)
    await exited
  }
  t.teardown(() => kill('SIGKILL'))
  for await (const line of createInterface({ input: child.stdout as NonNullable<ChildProcess['stdout']> })) {
    const found = /http:\/\/127\.0\.0\.1:(\d+)/.exec(line)
    if (found !== null) return { url: `${found[0]}/`, port: Number(found[1]), kill }
  }
  throw new Error(`${name} ended before it listened`)
}

/** Hands requests on to a core and lets `tell` decide whether its answer is told. */
async function startLosingProxy (
  t: Test, core: () => Core, tell: (count: number) => boolean | Promise<boolean>
): Promise<string> {
  let count = 0
  const proxy = createServer((request, response) => {
    const onward = sendRequest(core().url, { method: 'POST', headers: request.headers }, answer => {
      const chunks: Buffer[] = []
      answer.on('data', chunk => chunks.push(chunk))
      answer.on('end', () => {
        void Promise.resolve(tell(++count)).then(told => {
          if (told) response.writeHead(answer.statusCode ?? 500, answer.headers).end(Buffer.concat(chunks))
          else request.socket.destroy()
        })
      })
    })
    onward.on('error', () => request.socket.destroy())
    request.pipe(onward)
  }).listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  t.teardown(() => {
    proxy.closeAllConnections()
    proxy.close()
  })
  return `http://127.0.0.1:${(proxy.address() as AddressInfo).port}/`
}

/** False, and said so, when there is no Python. */
function hasPython (t: Test): boolean {
  if (existsSync(PYTHON)) return true
  if (process.env['CI'] === 'true') t.fail(`${PYTHON} is missing, and CI=true`)
  else t.comment(`######## NOT TESTED: ${PYTHON} is missing ########`)
  return false
}

async function startPlatform (t: Test, url: string, env: Record<string, string> = {}) {
  const platform = await startServer({ HOLDFAST_CORE_URL: url, HOLDFAST_CORE_SECRET: SECRET, ...env })
  t.teardown(async () => { await platform.stop('SIGKILL') })
  return platform
}

for (const name of Object.keys(EXAMPLES)) {
  t.test(`examples/http-core/${name} executes commands, and a repeat of one does not run twice`, async t => {
    if (name === 'core.py' && !hasPython(t)) return
    const core = await startCore(t, name)
    const platform = await startPlatform(t, core.url, { HOLDFAST_LIFECYCLE_EVENTS: 'session.created' })
    const { socket, hello } = await connectFull(platform.wsUrl)
    socket.send({ command: 'echo', payload: [1, 'ä', null], id: 1 })
    t.match(await socket.next(), { type: 'result', id: 1, payload: [1, 'ä', null] })
    socket.send({ command: 'review.approve', payload: { item: 'a1' }, id: 2 })
    t.match(await socket.take(2), [
      { type: 'message', event: 'review.approved', payload: { item: 'a1' } },
      { type: 'result', id: 2, payload: { item: 'a1', again: false } }
    ])
    socket.send({ command: 'review.approve', payload: { item: 'a1' }, id: 2 })
    t.match(await socket.next(), { type: 'result', id: 2, seq: 3, payload: { again: false } }, 'P-12')
    socket.send({ command: 'review.approve', payload: { item: 'a1' }, id: 3 })
    t.match(await socket.next(), { type: 'result', id: 3, payload: { again: true } })
    socket.send({ command: 'review.approve', payload: { item: 7 }, id: 4 })
    t.match(await socket.next(), { type: 'error', id: 4, code: 'INVALID_PAYLOAD', payload: 'item must be a text.' })
    socket.send({ command: 'no.such', id: 5 })
    t.match(await socket.next(), { type: 'error', id: 5, code: 'UNKNOWN_COMMAND' })
    const view = await (await fetch(`${platform.url}/sessions/${hello.payload.sessionId as string}`)).json()
    t.match(view, { context: { approved: { a1: 'human_reviewer_1' } } })
    t.notOk(platform.output.includes(SECRET), 'the secret is in no log line')
    socket.ws.close()
    await core.kill('SIGTERM')
    const brief = await startPlatform(t, core.url, { HOLDFAST_COMMAND_TIMEOUT_SECONDS: '2' })
    const { socket: another } = await connectFull(brief.wsUrl)
    another.send({ command: 'echo', id: 1 })
    t.match(await another.next(), { type: 'error', id: 1, code: 'CORE_UNAVAILABLE' })
    another.ws.close()
  })

  t.test(`examples/http-core/${name} refuses what is not signed`, async t => {
    if (name === 'core.py' && !hasPython(t)) return
    const { url } = await startCore(t, name)
    const bodies = [{}, { 'webhook-id': 'a', 'webhook-timestamp': '1', 'webhook-signature': 'v1,x' }]
    for (const headers of bodies) t.equal((await fetch(url, { method: 'POST', headers, body: '{}' })).status, 401)
  })
}

// It was given up after 256 ms, although a refused connection surely ran nothing.
t.test('a core that restarts for two seconds is survived with default options', async t => {
  const first = await startCore(t, 'core.mjs', { port: await freePort() })
  const platform = await startPlatform(t, first.url)
  const { socket } = await connectFull(platform.wsUrl)
  socket.send({ command: 'echo', payload: 'before', id: 1 })
  t.match(await socket.next(), { type: 'result', id: 1 })
  await first.kill('SIGTERM')
  const back = new Promise(resolve => setTimeout(resolve, 2000)).then(() => startCore(
    t, 'core.mjs', { port: first.port }
  ))
  socket.send({ command: 'echo', payload: 'during', id: 2 })
  t.match(await socket.next(), { type: 'result', id: 2, payload: 'during' })
  await back
  socket.ws.close()
})

// With default options each of these answers was asked for again, and the effect was there three
// times.
t.test('with default options an answer that is lost costs no second effect', async t => {
  const core = await startCore(t, 'core.mjs')
  const lost = await startLosingProxy(t, () => core, count => count > 1)
  const { socket } = await connectFull((await startPlatform(t, lost)).wsUrl)
  socket.send({ command: 'review.approve', payload: { item: 'a1' }, id: 1 })
  t.match(await socket.next(), { type: 'error', id: 1, code: 'OUTCOME_UNKNOWN' })
  socket.send({ command: 'review.approve', payload: { item: 'a1' }, id: 2 })
  t.match(await socket.next(), { type: 'result', id: 2, payload: { again: true } }, 'the first one had its effect')
  socket.ws.close()
})

t.test('the recipe in SQL: lost answers and a killed core have no second effect, all is answered', async t => {
  if (!hasPython(t)) return
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-core-'))
  t.teardown(() => rm(folder, { recursive: true }))
  const database = join(folder, 'core.db')
  let core = await startCore(t, 'core.py', { database })
  const COMMANDS = 30
  // Every third answer is lost; every ninth time the core dies with it, right after its effect.
  const url = await startLosingProxy(t, () => core, async count => {
    if (count % 9 === 0) {
      await core.kill('SIGKILL')
      core = await startCore(t, 'core.py', { database })
    }
    return count % 3 !== 0
  })
  const { socket } = await connectFull((await startPlatform(t, url, { HOLDFAST_CORE_IDEMPOTENT: 'true' })).wsUrl)
  for (let id = 1; id <= COMMANDS; id++) {
    socket.send({ command: 'review.approve', payload: { item: `a${id}` }, id })
    t.match(await socket.take(2), [
      { event: 'review.approved', payload: { item: `a${id}` } }, { type: 'result', id, payload: { again: false } }
    ])
  }
  const count = spawn(PYTHON, [
    '-c',
    'import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute("SELECT count(*), count(DISTINCT item) FROM ' +
      'approvals").fetchone())',
    database
  ])
  const [printed] = await once(count.stdout, 'data') as [Buffer]
  t.equal(String(printed).trim(), `(${COMMANDS}, ${COMMANDS})`, 'effects')
  socket.ws.close()
})
