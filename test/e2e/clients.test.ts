// First sessions with the clients that people have: ws, wscat, curl, a browser, Python. A tool that
// is missing fails the test under CI=true, and is said loudly otherwise. CHROMIUM and PYTHON name
// other programs than the usual ones.

import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { chromium, type Browser } from 'playwright-core'
import t, { type Test } from 'tap'
import { WebSocket, WebSocketServer } from 'ws'
import { spawnProgram } from '../helpers/program.js'
import { cuttingProxy } from '../helpers/raw-socket.js'
import { startServer } from '../helpers/server.js'
import { connectFull, connectSocket } from '../helpers/socket.js'

const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium'
const CHROMIUM_ARGS = [
  '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync'
]
const PYTHON = process.env['PYTHON'] ?? '/usr/bin/python3'
const PYTHON_CLIENT = at('../../examples/python-client/client.py')
const CURL = '/usr/bin/curl'
const WSCAT = at('../../node_modules/wscat/bin/wscat')

const server = await startServer({ HOLDFAST_UPGRADES_PER_MINUTE: '10000', HOLDFAST_COMMANDS_PER_SECOND: '500' })
t.teardown(async () => { await server.stop('SIGKILL') })

function at (path: string): string {
  return fileURLToPath(new URL(path, import.meta.url))
}

interface Ran { code: number | null, stdout: string, stderr: string }

async function run (file: string, args: string[], env: Record<string, string> = {}): Promise<Ran> {
  return await new Promise(resolve => {
    const child = execFile(
      file,
      args,
      { env: { ...process.env, ...env }, timeout: 60_000 },
      (_error, stdout, stderr) => {
        resolve({ code: child.exitCode, stdout, stderr })
      }
    )
    child.stdin?.end()
  })
}

/** False, and said so, when a program is not there. */
function has (t: Test, ...programs: string[]): boolean {
  const missing = programs.filter(program => !existsSync(program))
  if (missing.length === 0) return true
  if (process.env['CI'] === 'true') t.fail(`${missing.join(', ')} is missing, and CI=true`)
  else t.comment(`######## NOT TESTED: ${missing.join(', ')} is missing ########`)
  return false
}

async function hasWebsockets (t: Test): Promise<boolean> {
  if (!has(t, PYTHON)) return false
  if ((await run(PYTHON, ['-c', 'import websockets'])).code === 0) return true
  if (process.env['CI'] === 'true') t.fail('the Python package websockets is missing, and CI=true')
  else t.comment('######## NOT TESTED: the Python package websockets is missing ########')
  return false
}

/** It leaves when its standard input ends, or with the test. */
const wscat = (t: Test, ...args: string[]) => spawnProgram(t, process.execPath, [
  WSCAT, '--no-color', '-c', server.wsUrl, '-s', 'holdfast.v1', '-w', '120', ...args
], { stdin: 'pipe' })

const curl = async (...args: string[]): Promise<string> => (await run(CURL, ['-s', ...args])).stdout

t.test('a plain WebSocket client and an operator with curl', async t => {
  if (!has(t, CURL)) return
  const socket = await connectSocket(server.wsUrl)
  const hello = await socket.next()
  t.equal(hello.type, 'session_created')
  const { sessionId } = hello.payload as { sessionId: string }
  socket.send({ sessionId, id: '1', command: 'echo', payload: { a: 1 } })
  t.match(await socket.next(), { type: 'result', id: '1', payload: { a: 1 } })

  const { data } = JSON.parse(await curl(`${server.url}/sessions`)) as { data: { id: string }[] }
  t.match(data.find(view => view.id === sessionId), { id: sessionId, userId: 'human_reviewer_1', state: 'active' })
  t.match(JSON.parse(await curl(`${server.url}/sessions/${sessionId}`)), { id: sessionId })

  await curl(
    '-X',
    'POST',
    '-H',
    'content-type: application/json',
    '-d',
    '{"event":"note","payload":"from an operator"}',
    `${server.url}/sessions/${sessionId}/messages`
  )
  t.match(await socket.next(), { type: 'message', event: 'note', payload: 'from an operator' })

  const startedAt = Date.now()
  t.equal(
    await curl('-o', '/dev/null', '-w', '%{http_code}', '-X', 'DELETE', `${server.url}/sessions/${sessionId}`), '204'
  )
  t.match(await socket.next(), {
    type: 'goodbye',
    payload: { code: 4001, reason: 'ended_by_operator', action: 'stop' }
  })
  t.equal((await socket.nextClose()).code, 4001)
  t.ok(Date.now() - startedAt < 30_000, `${Date.now() - startedAt} ms`)
  t.equal(
    await curl('-o', '/dev/null', '-w', '%{http_code}', '-X', 'DELETE', `${server.url}/sessions/${sessionId}`), '404'
  )
  t.equal(await curl('-o', '/dev/null', '-w', '%{http_code}', `${server.url}/sessions/${sessionId}`), '410')
})

t.test('P-41 an operator drops a connection: 4203, and the client resumes', async t => {
  const { socket, hello } = await connectFull(server.wsUrl)
  const answer = await fetch(
    `${server.url}/sessions/${hello.payload.sessionId as string}/connection`, { method: 'DELETE' }
  )
  t.equal(answer.status, 204)
  t.match(await socket.next(), { type: 'goodbye', payload: { code: 4203, action: 'resume' } })
  const again = await connectFull(server.wsUrl, [
    `resume.${hello.payload.sessionId as string}.${hello.payload.resumeToken as string}.0`
  ])
  t.match(again.hello, { type: 'session_resumed' })
  again.socket.ws.close()
})

t.test('HOLDFAST_SESSION_TIMEOUT_SECONDS=1 purges an idle session of the basic profile with 4300', async t => {
  const short = await startServer({ HOLDFAST_SESSION_TIMEOUT_SECONDS: '1' })
  t.teardown(async () => { await short.stop('SIGKILL') })
  const socket = await connectSocket(short.wsUrl)
  await socket.next()
  t.match(await socket.next(), { type: 'goodbye', payload: { code: 4300, reason: 'idle', action: 'new' } })
  t.equal((await socket.nextClose()).code, 4300)
  await short.line(line => line.msg === 'stale sessions purged' && line['purged'] === 1)
  t.strictSame(await short.stop('SIGINT'), { code: 0, signal: null })
})

t.test('curl shakes hands', async t => {
  if (!has(t, CURL)) return
  const headers = [
    'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: SGVsbG8sIHdvcmxkISEhIQ=='
  ].flatMap(header => ['-H', header])
  const { output, until } = spawnProgram(t, CURL, ['-siN', '--http1.1', ...headers, `${server.url}/ws`])
  await until('the first frame', () => output().includes('session_created'))
  t.match(output(), /^HTTP\/1\.1 101 /)
})

t.test('wscat', async t => {
  if (!has(t, WSCAT)) return
  t.test('sends a command in the full profile', async t => {
    const { output, until } = wscat(t, '-x', '{"command":"echo","payload":{"a":1},"id":1}')
    await until('the result', () => output().includes('"type":"result","id":1,"payload":{"a":1}'))
    t.match(output(), /session_created/)
  })

  t.test('is told about a typing error and goes on', async t => {
    const { output, until } = wscat(t, '-x', 'hello?', '-x', '{"command":"ping"}')
    await until('the result', () => output().includes('pong'))
    t.match(output(), /BAD_FRAME/)
  })
})

t.test('a browser', async t => {
  if (!has(t, CHROMIUM)) return
  const browser: Browser = await chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_ARGS })
  t.teardown(() => browser.close())

  t.test('on a page of the server itself has a first session, and resumes it after a reload', async t => {
    const page = await browser.newPage()
    await page.goto(`${server.url}/health/live`)
    const first = await page.evaluate(async url => {
      const socket = new WebSocket(url, ['holdfast.v1', 'auth.dG9rZW4'])
      const frames: { type: string, payload: { sessionId: string, resumeToken: string } }[] = []
      await new Promise<void>((resolve, reject) => {
        socket.onerror = () => { reject(new Error('refused')) }
        socket.onmessage = ({ data }) => {
          frames.push(JSON.parse(data as string))
          if (frames.length === 1) socket.send('{"command":"echo","payload":{"from":"a browser"},"id":1}')
          else resolve()
        }
      })
      return { protocol: socket.protocol, extensions: socket.extensions, frames }
    }, server.wsUrl)
    t.match(first, {
      protocol: 'holdfast.v1',
      extensions: '',
      frames: [{ type: 'session_created' }, { type: 'result', seq: 1, payload: { from: 'a browser' } }]
    })
    const hello = first.frames[0]?.payload as { sessionId: string, resumeToken: string }
    await page.reload()
    const second = await page.evaluate(async ({ url, entry }) => {
      const socket = new WebSocket(url, ['holdfast.v1', entry])
      const frames: unknown[] = []
      const closed = new Promise<{ code: number, reason: string }>(resolve => {
        socket.onclose = ({ code, reason }) => { resolve({ code, reason }) }
      })
      await new Promise<void>(resolve => {
        socket.onmessage = ({ data }) => {
          frames.push(JSON.parse(data as string))
          if (frames.length === 3) {
            socket.send('{"type":"end"}')
            resolve()
          }
        }
      })
      return { frames, closed: await closed }
    }, { url: server.wsUrl, entry: `resume.${hello.sessionId}.${hello.resumeToken}.0` })
    t.match(second, {
      frames: [
        { type: 'session_resumed', payload: { replay: { from: 1, to: 1 } } },
        { type: 'result', seq: 1 },
        { type: 'live' }
      ],
      closed: { code: 4000, reason: 'ended_by_client' }
    })
    await page.close()
  })

  t.test('on a foreign page is refused', async t => {
    const foreign = createServer((_request, response) => {
      response.setHeader('content-type', 'text/html').end('<!doctype html><title>elsewhere</title>')
    })
    await new Promise<void>(resolve => { foreign.listen(0, '127.0.0.1', resolve) })
    t.teardown(() => { foreign.close(); foreign.closeAllConnections() })
    const page = await browser.newPage()
    for (const address of [
      `http://127.0.0.1:${(foreign.address() as AddressInfo).port}/`, 'data:text/html,<title>null origin</title>'
    ]) {
      await page.goto(address)
      const outcome = await page.evaluate(async url => await new Promise(resolve => {
        const socket = new WebSocket(url)
        socket.onopen = () => { resolve('open') }
        socket.onerror = () => { resolve('refused') }
      }), server.wsUrl)
      t.equal(outcome, 'refused', address.slice(0, 16))
    }
    await page.close()
  })

  t.test('a foreign page cannot read the operators\' answers', async t => {
    const page = await browser.newPage()
    await page.goto('data:text/html,<title>null origin</title>')
    const outcome = await page.evaluate(
      async url => await fetch(url).then(() => 'read', () => 'refused'),
      `${server.url}/sessions`
    )
    t.equal(outcome, 'refused')
    await page.close()
  })
})

t.test('Python', async t => {
  t.test('the package websockets has a first session in both profiles', async t => {
    if (!await hasWebsockets(t)) return
    const script = `
import asyncio, json, sys, websockets
async def main():
    async with websockets.connect(sys.argv[1]) as ws:
        hello = json.loads(await ws.recv())
        session_id = hello['payload']['sessionId']
        await ws.send(json.dumps({'sessionId': session_id, 'id': '1', 'command': 'echo', 'payload': {'a': 1}}))
        print(json.dumps([hello['type'], json.loads(await ws.recv())]))
    async with websockets.connect(sys.argv[1], subprotocols=['holdfast.v1']) as ws:
        hello = json.loads(await ws.recv())
        await ws.send(json.dumps({'command': 'ping', 'id': 1}))
        print(json.dumps([ws.subprotocol, json.loads(await ws.recv())]))
        await ws.send('{"type":"end"}')
        print(json.dumps(json.loads(await ws.recv())['payload']))
        try:
            await ws.recv()
        except websockets.ConnectionClosed as closed:
            print(closed.code, closed.reason)
asyncio.run(main())
`
    const { stdout, stderr } = await run(PYTHON, ['-c', script, server.wsUrl])
    const lines = stdout.trim().split('\n')
    t.match(JSON.parse(lines[0] ?? 'null'), ['session_created', { type: 'result', id: '1', payload: { a: 1 } }], stderr)
    t.match(JSON.parse(lines[1] ?? 'null'), ['holdfast.v1', { type: 'result', id: 1, payload: 'pong' }])
    t.match(JSON.parse(lines[2] ?? 'null'), { code: 4000, reason: 'ended_by_client', action: 'stop' })
    t.equal(lines[3], '4000 ended_by_client')
  })

  t.test('examples/python-client gets every answer once through a proxy that cuts', async t => {
    if (!await hasWebsockets(t)) return
    let connections = 0
    const proxy = await cuttingProxy(server.port, () => 1500 + 300 * (connections++ % 9))
    t.teardown(() => proxy.close())
    // Connections that live for less than 5 s count as failed attempts (P-53c), so many cuts would
    // take minutes.
    const args = ['--url', `ws://127.0.0.1:${proxy.port}/ws`, '--count', '100', '--timeout', '50']
    const { stdout, stderr, code } = await run(PYTHON, [PYTHON_CLIENT, ...args])
    t.equal(code, 0, stderr.slice(-1000))
    t.match(JSON.parse(stdout), { answered: 100, lost: [], given_up: [], sessions: 1, outputs: 100, gaps: [] })
    t.ok(proxy.cuts >= 3, `${proxy.cuts} cuts`)
  })

  t.test('P-38b examples/python-client ends its session once, however the connection breaks', async t => {
    if (!await hasWebsockets(t)) return
    // It took the session that it was given in place of the ended one for one to go on with.
    for (const [losses, made] of [[['end'], 1], [['goodbye'], 2], [['end', 'goodbye', 'goodbye'], 2]] as const) {
      const gateway = await startGateway(t, server.wsUrl, losing([...losses]))
      const ran = await run(PYTHON, [PYTHON_CLIENT, '--url', gateway.url, '--count', '3', '--timeout', '50'])
      t.equal(ran.code, 0, ran.stderr.slice(-1000))
      t.match(JSON.parse(ran.stdout), { answered: 3, lost: [], sessions: 1 }, losses.join())
      t.equal(gateway.sessions.size, made, 'what the server made')
      for (const id of gateway.sessions) {
        t.equal((await fetch(`${server.url}/sessions/${id}`)).status, 410, 'it is ended')
      }
    }
  })

  t.test('P-53a examples/python-client goes on after the refusals that pass, and stops at the others', async t => {
    if (!await hasWebsockets(t)) return
    // It stopped at every status but 429 and 503, such as the 502 of a gateway whose server
    // restarts.
    for (const [statuses, asked] of [[[502, 404, 503, 400, 200], 4], [[426, 200], 1], [[401, 401], 1]] as const) {
      const { stdout, code, offers } = await refusedWith(statuses, () => '--token=v1.abc/def')
      t.same([code, JSON.parse(stdout).answered, offers.length], [1, 0, asked], statuses.join())
      t.match(offers[0], /^holdfast\.v1, ?auth64\.djEuYWJjL2RlZg$/, 'P-3a')
    }
  })

  t.test('P-53a examples/python-client offers fresh credentials once', async t => {
    if (!await hasWebsockets(t)) return
    const file = join(t.testdir({ token: 'old' }), 'token')
    const { code, offers } = await refusedWith([401, 401, 200], () => `--token=@${file}`, async asked => {
      await writeFile(file, asked === 1 ? 'new' : 'newer')
    })
    t.equal(code, 1)
    t.match(offers, [/auth64\.b2xk$/, /auth64\.bmV3$/])
    t.equal(offers.length, 2)
  })

  t.test('P-49b examples/python-client gives up a command closed with 1009, 1007 or 1002, and goes on', async t => {
    if (!await hasWebsockets(t)) return
    // The tenth frame is the largest: its number and its id have a digit more.
    for (const [code, culprit] of [[1009, 10], [1007, 7], [1002, 7]] as const) {
      const gateway = await startGateway(t, server.wsUrl, refusing(code, text => text.includes(`"n": ${culprit}}`)))
      const args = ['--url', gateway.url, '--count', '10', '--timeout', '50']
      const ran = await run(PYTHON, [PYTHON_CLIENT, ...args])
      t.equal(ran.code, 1, ran.stderr.slice(-1000))
      t.match(JSON.parse(ran.stdout), { answered: 9, lost: [], given_up: [culprit], sessions: 1 }, String(code))
    }
  })

  /**
   * A server that answers handshakes with these statuses, in turn; what the client offered each
   * time.
   */
  async function refusedWith (statuses: readonly number[], token: () => string, before = async (_asked: number) => {}) {
    const offers: string[] = []
    const refusing = createServer()
    refusing.on('upgrade', (request, socket: Socket) => {
      offers.push(request.headers['sec-websocket-protocol'] ?? '')
      void before(offers.length).then(() => {
        socket.end(`HTTP/1.1 ${statuses[offers.length - 1]} Refused\r\nContent-Length: 0\r\nRetry-After: 0\r\n\r\n`)
      })
    })
    await new Promise<void>(resolve => { refusing.listen(0, '127.0.0.1', resolve) })
    const url = `ws://127.0.0.1:${(refusing.address() as AddressInfo).port}/ws`
    const ran = await run(PYTHON, [PYTHON_CLIENT, '--url', url, token(), '--timeout', '40'])
    refusing.close()
    return { ...ran, offers }
  }
})

interface Line { near: WebSocket, far: WebSocket, isCut: boolean }

/**
 * Closes with `code` when a message does not please it; of what comes with it nothing more is
 * passed on.
 */
function refusing (code: number, refuses: (text: string) => boolean) {
  return (text: string, line: Line): boolean => {
    if (!refuses(text)) return true
    line.isCut = true
    line.near.close(code)
    line.far.terminate()
    return false
  }
}

/**
 * Breaks the connection each time the client says `end`: before it is passed on, or after that, so
 * that the answer is lost.
 */
function losing (losses: Array<'end' | 'goodbye'>) {
  return (text: string, line: Line): boolean => {
    const lost = text.startsWith('{"type": "end"') ? losses.shift() : undefined
    if (lost === undefined) return true
    line.isCut = true
    line.far.on('close', () => { line.near.terminate() })
    if (lost === 'end') line.far.terminate()
    return lost === 'goodbye'
  }
}

/**
 * A gateway between client and server; `passes` sees each message of the client, and may cut the
 * line.
 */
async function startGateway (t: Test, target: string, passes: (text: string, line: Line) => boolean) {
  const gateway = new WebSocketServer({ port: 0, host: '127.0.0.1', handleProtocols: () => 'holdfast.v1' })
  const sessions = new Set<string>()
  gateway.on('connection', (near, request) => {
    const offered = (request.headers['sec-websocket-protocol'] ?? '').split(/, */)
    const far = new WebSocket(target, offered, { perMessageDeflate: false })
    const line: Line = { near, far, isCut: false }
    const early: string[] = []
    far.on('open', () => { for (const text of early) far.send(text) })
    far.on('message', data => {
      const text = String(data)
      const id = /"sessionId":"([^"]+)"/.exec(text)?.[1]
      if (id !== undefined) sessions.add(id)
      if (!line.isCut) near.send(text)
    })
    far.on('close', (code, reason) => { if (!line.isCut) near.close(code === 1006 ? 1011 : code, reason) })
    near.on('message', data => {
      const text = String(data)
      if (line.isCut || !passes(text, line)) return
      if (far.readyState === WebSocket.OPEN) far.send(text)
      else early.push(text)
    })
    near.on('close', () => { far.terminate() })
  })
  await once(gateway, 'listening')
  t.teardown(() => { gateway.close() })
  return { url: `ws://127.0.0.1:${(gateway.address() as AddressInfo).port}/ws`, sessions }
}
