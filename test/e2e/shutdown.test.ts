// The end of the process from outside: who is told what, how long it takes, and with which code it
// exits.

import { readdirSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { handshake, rawConnect, rawUpgrade, type RawSocket } from '../helpers/raw-socket.js'
import { eventually, startServer, type ServerProcess } from '../helpers/server.js'
import { connectFull, connectSocket, resumeEntry } from '../helpers/socket.js'

async function start (t: Test, env: Record<string, string> = {}, nodeOptions: string[] = []): Promise<ServerProcess> {
  const server = await startServer({ HOLDFAST_UPGRADES_PER_MINUTE: '10000', ...env }, nodeOptions)
  t.teardown(async () => { await server.stop('SIGKILL') })
  return server
}

/** A Platform Core whose answers the test gives. */
async function slowCore (t: Test): Promise<{ url: string, asked: Promise<void>, answer: () => void }> {
  let answer: () => void = () => {}
  let arrived: () => void = () => {}
  const asked = new Promise<void>(resolve => { arrived = resolve })
  const core: Server = createServer((request, response) => {
    request.resume().on('end', () => {
      answer = () => { response.setHeader('content-type', 'application/json').end('{"payload":"done"}') }
      arrived()
    })
  })
  await new Promise<void>(resolve => { core.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => {
    core.closeAllConnections()
    core.close()
  })
  return { url: `http://127.0.0.1:${(core.address() as AddressInfo).port}/`, asked, answer: () => answer() }
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  t.test(`P-48 ${signal}: every client is told where the door is, and the process exits 0`, async t => {
    const server = await start(t, { HOLDFAST_DRAIN_SECONDS: '60' })
    const full = await connectFull(server.wsUrl)
    const basic = await connectSocket(server.wsUrl)
    await basic.next()
    const startedAt = Date.now()
    const exit = server.stop(signal)
    t.match(
      await full.socket.nextOf('goodbye'),
      { payload: { code: 4200, reason: 'draining', action: 'resume', retryAfterMs: Number } }
    )
    t.match(await basic.nextOf('goodbye'), { payload: { code: 4200 } })
    t.strictSame(await full.socket.nextClose(), { code: 4200, reason: 'draining' })
    t.equal((await basic.nextClose()).code, 4200)
    t.strictSame(await exit, { code: 0, signal: null })
    t.ok(Date.now() - startedAt < 30_000, `${Date.now() - startedAt} ms`)
    t.ok(server.lines.some(line => line.msg === 'stopped'))
    t.strictSame(server.lines.filter(line => line.level >= 50), [])
  })
}

t.test('with nobody connected it is gone at once', async t => {
  const server = await start(t, { HOLDFAST_DRAIN_SECONDS: '60' })
  const startedAt = Date.now()
  t.strictSame(await server.stop(), { code: 0, signal: null })
  t.ok(Date.now() - startedAt < 30_000, `${Date.now() - startedAt} ms`)
})

t.test('P-48 a running command is finished and answered; new ones are refused, readiness is false', async t => {
  const core = await slowCore(t)
  const server = await start(t, { HOLDFAST_CORE_URL: core.url, HOLDFAST_DRAIN_SECONDS: '8' })
  const { socket } = await connectFull(server.wsUrl)
  socket.send({ command: 'work', id: 1 })
  await core.asked
  t.equal((await fetch(`${server.url}/health/ready`)).status, 200)
  const exit = server.stop('SIGTERM')
  await server.line(line => line.msg === 'draining')
  t.equal((await fetch(`${server.url}/health/ready`)).status, 503)
  t.equal((await fetch(`${server.url}/health/live`)).status, 200)
  const raw = await rawConnect(server.port)
  raw.write(handshake())
  const refused = await raw.answer()
  t.equal(refused.status, 503)
  t.match(JSON.parse(refused.body), { code: 'DRAINING' })
  t.match(refused.headers['retry-after'], /^\d+$/)
  socket.send({ command: 'work', id: 2 })
  t.match(await socket.next(), { type: 'error', code: 'DRAINING', id: 2, seq: undefined })
  core.answer()
  t.match(await socket.next(), { type: 'result', id: 1, payload: 'done' })
  t.match(await socket.next(), { type: 'goodbye', payload: { code: 4200 } })
  t.strictSame(await exit, { code: 0, signal: null })
})

t.test('P-48 the drain has a hard deadline: a core that hangs, a deaf client and one that never reads', async t => {
  const core = await slowCore(t)
  const server = await start(t, { HOLDFAST_CORE_URL: core.url, HOLDFAST_DRAIN_SECONDS: '2' })
  const { socket } = await connectFull(server.wsUrl)
  socket.send({ command: 'work', id: 1 })
  await core.asked
  const deaf = await rawUpgrade(server.port)
  deaf.raw.tcp.pause()
  const startedAt = Date.now()
  const exit = server.stop('SIGTERM')
  t.match(await socket.nextOf('goodbye'), { payload: { code: 4200 } })
  t.strictSame(await exit, { code: 0, signal: null })
  const took = Date.now() - startedAt
  t.ok(took < 20_000, `${took} ms`)
  deaf.raw.reset()
})

t.test('P-48 the goodbyes of 200 clients are spread, and so is their return', async t => {
  const server = await start(t, { HOLDFAST_DRAIN_SECONDS: '4' })
  const sockets = await Promise.all(Array.from({ length: 200 }, async () => await connectFull(server.wsUrl)))
  const times: number[] = []
  const spans = new Set<number>()
  const gone = Promise.all(sockets.map(async ({ socket }) => {
    const { payload } = await socket.nextOf('goodbye')
    times.push(Date.now())
    spans.add(payload.retryAfterMs as number)
    t.equal((await socket.nextClose()).code, 4200)
  }))
  const exit = server.stop('SIGTERM')
  await gone
  t.strictSame(await exit, { code: 0, signal: null })
  t.ok(Math.max(...times) - Math.min(...times) > 300, `spread over ${Math.max(...times) - Math.min(...times)} ms`)
  t.ok(spans.size > 3, `${spans.size} different retryAfterMs`)
})

t.test('a second signal ends it at once', async t => {
  const core = await slowCore(t)
  const server = await start(t, { HOLDFAST_CORE_URL: core.url, HOLDFAST_DRAIN_SECONDS: '60' })
  const { socket } = await connectFull(server.wsUrl)
  socket.send({ command: 'work', id: 1 })
  await core.asked
  server.child.kill('SIGTERM')
  await server.line(line => line.msg === 'draining')
  const startedAt = Date.now()
  await server.stop('SIGTERM')
  t.ok(Date.now() - startedAt < 30_000, `${Date.now() - startedAt} ms`)
})

t.test('T6 upgrades that arrive all through the shutdown neither crash nor delay it', async t => {
  const server = await start(t, { HOLDFAST_DRAIN_SECONDS: '2' })
  const deaf = await rawUpgrade(server.port)
  deaf.raw.tcp.pause()
  let refused = 0
  let isOver = false
  const exit = server.stop('SIGTERM')
  void exit.then(() => { isOver = true })
  const startedAt = Date.now()
  // A handshake that overtakes the signal is let in rightly.
  await eventually('draining', async () => server.output.includes('draining'))
  await eventually('over', async () => {
    if (isOver) return true
    try {
      const raw = await rawConnect(server.port)
      raw.write(handshake())
      const answer = await raw.answer()
      if (answer.status === 101) t.fail('let in during the shutdown')
      refused++
      await raw.ended
    } catch {
      // Refused by the kernel, or ended without an answer: the door is closed.
    }
    return isOver
  })
  t.strictSame(await exit, { code: 0, signal: null })
  t.ok(Date.now() - startedAt < 30_000, `${Date.now() - startedAt} ms`)
  t.ok(refused > 0, `${refused} refused`)
  deaf.raw.reset()
})

// `app.close()` waits for every connection, and Node stops its own time limits then: each of these
// made a stop take five seconds more than the drain, and exit 1.

const PLAIN = 'GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n'
const UPLOAD = 'POST /sessions/x/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: ' +
  'application/json\r\nContent-Length: 13\r\n\r\n'

const PEERS: Record<string, (raw: RawSocket) => Promise<void> | void> = {
  'never sent a byte': () => {},
  'sent half a request': raw => { raw.write('GET /health/live HTTP/1.1\r\nHost: loc') },
  'sent half a body': raw => { raw.write(`${UPLOAD}{"payl`) },
  'keeps its connection alive': async raw => {
    raw.write(PLAIN)
    await raw.answer()
  },
  'began another request on a connection it kept': async raw => {
    raw.write(PLAIN)
    await raw.answer()
    raw.write('GET /he')
  },
  'sent half a handshake': raw => { raw.write(handshake().slice(0, -2)) },
  'was refused a handshake': async raw => {
    raw.write(handshake({}, 'GET /nowhere HTTP/1.1'))
    await raw.answer()
  },
  'sent a handshake behind another request': raw => { raw.write(PLAIN + handshake()) },
  'is deaf after its handshake': async raw => {
    raw.write(handshake())
    await raw.answer()
    raw.tcp.pause()
  },
  'reads nothing of many large answers': raw => {
    raw.tcp.pause()
    raw.write('GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'.repeat(300))
  },
  'speaks TLS': raw => { raw.write('\x16\x03\x01') }
}

/**
 * Exit 0, and without a complaint. What held up a stop took five seconds more than the drain: by
 * its own clock the server gives up then, and exits 1. On a busy machine the clock of this process
 * would say more.
 */
async function stopsInTime (t: Test, server: ServerProcess, exit = server.stop('SIGTERM')): Promise<void> {
  t.strictSame(await exit, { code: 0, signal: null })
  t.strictSame(server.lines.filter(line => line.level >= 50), [])
}

for (const [what, behave] of Object.entries(PEERS)) {
  t.test(`a peer that ${what} does not hold up a stop`, async t => {
    const server = await start(t, { HOLDFAST_DRAIN_SECONDS: '2' })
    const raw = await rawConnect(server.port)
    await behave(raw)
    // What it sent has been read when a later request is answered.
    await fetch(`${server.url}/health/live`)
    await stopsInTime(t, server)
    if (raw.tcp.isPaused()) raw.reset()
    await raw.ended
  })
}

t.test('many such peers together do not hold up a stop either, not even one without time', async t => {
  for (const drainSeconds of [0, 1]) {
    const server = await start(t, { HOLDFAST_DRAIN_SECONDS: String(drainSeconds) })
    const peers: RawSocket[] = []
    for (let i = 0; i < 10; i++) {
      for (const behave of Object.values(PEERS)) {
        const raw = await rawConnect(server.port)
        await behave(raw)
        peers.push(raw)
      }
    }
    await stopsInTime(t, server)
    for (const peer of peers) peer.reset()
  }
})

t.test('a request that is completed during the drain is answered, and its connection ends', async t => {
  const server = await start(t, { HOLDFAST_DRAIN_SECONDS: '60' })
  const raw = await rawConnect(server.port)
  raw.write(`${UPLOAD}{"payload"`)
  await fetch(`${server.url}/health/live`)
  const startedAt = Date.now()
  const exit = server.stop('SIGTERM')
  await server.line(line => line.msg === 'draining')
  const scrape = await rawConnect(server.port)
  scrape.write('GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n')
  t.match(await scrape.answer(), { status: 200, headers: { connection: 'close' } })
  raw.write(':1}')
  t.match(await raw.answer(), { status: 400, headers: { connection: 'close' } })
  await raw.ended
  // It was the last thing that the drain waited for.
  await stopsInTime(t, server, exit)
  t.ok(Date.now() - startedAt < 30_000, `${Date.now() - startedAt} ms`)
})

t.test('peers that come all through the drain do not hold it up', async t => {
  const server = await start(t, { HOLDFAST_DRAIN_SECONDS: '1' })
  const holding = await rawConnect(server.port)
  holding.write('GET /he')
  await fetch(`${server.url}/health/live`)
  const exit = server.stop('SIGTERM')
  let came = 0
  while (server.child.exitCode === null) {
    await rawConnect(server.port).then(raw => {
      came++
      raw.write('GET /he')
    }, () => {})
    await new Promise(resolve => setTimeout(resolve, 5))
  }
  await stopsInTime(t, server, exit)
  t.ok(came > 5, `${came} came`)
})

for (const signal of ['SIGUSR1', 'SIGUSR2', 'SIGHUP'] as const) {
  t.test(`${signal} does not drain`, async t => {
    // Any port for the inspector: its usual one may be taken.
    const server = await start(t, {}, ['--inspect-port=0'])
    server.child.kill(signal)
    // SIGUSR1 opens Node's inspector; the others do what they do to every process.
    if (signal === 'SIGUSR1') await eventually('the inspector', () => server.output.includes('Debugger listening'))
    else t.strictSame(await server.exit, { code: null, signal })
    t.notOk(server.lines.some(line => line.msg === 'draining'))
  })
}

t.test('a heap snapshot by SIGUSR2, as the runbook takes it, leaves the server running', async t => {
  const server = await start(t, {}, ['--heapsnapshot-signal=SIGUSR2', `--diagnostic-dir=${t.testdir()}`])
  const { socket } = await connectFull(server.wsUrl)
  server.child.kill('SIGUSR2')
  await eventually('a snapshot', () => readdirSync(t.testdirName).some(name => name.endsWith('.heapsnapshot')))
  socket.send({ command: 'ping', id: 1 })
  t.match(await socket.nextOf('result'), { id: 1 })
  t.notOk(server.lines.some(line => line.msg === 'draining'))
})

t.test('sessions do not outlive the process with the memory store, and a client is told so', async t => {
  const server = await start(t)
  const { socket, hello } = await connectFull(server.wsUrl)
  const exit = server.stop('SIGTERM')
  await socket.nextClose()
  await exit
  const next = await start(t)
  const again = await connectFull(next.wsUrl, [resumeEntry(hello)])
  t.match(again.hello, {
    type: 'session_created',
    payload: { previous: { sessionId: hello.payload.sessionId, reason: 'unknown' } }
  })
  again.socket.ws.close()
})

t.test('a port that is taken is one plain sentence and exit 1', async t => {
  const server = await start(t)
  await t.rejects(startServer({ PORT: String(server.port) }), { message: /Port \d+ on 127\.0\.0\.1 is taken/ })
})
