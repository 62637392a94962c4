// Resuming over real sockets: lost connections, storms, half-open peers, idle sessions; and what a
// connection keeps in memory.

import t from 'tap'
import { OPCODE, cuttingProxy, handshake, rawConnect, rawUpgrade, wireFrame } from '../helpers/raw-socket.js'
import { createPluginApp, eventually, listen, quickest, startServer } from '../helpers/server.js'
import { connectFull, connectSocket, resumeEntry, type Frame } from '../helpers/socket.js'

const server = await startServer({
  HOLDFAST_UPGRADES_PER_MINUTE: '100000', HOLDFAST_HEARTBEAT_SECONDS: '1', HOLDFAST_COMMANDS_PER_SECOND: '1000'
})
t.teardown(async () => { await server.stop('SIGKILL') })

async function viewOf (sessionId: string): Promise<{ state?: string, code?: string }> {
  return await (await fetch(`${server.url}/sessions/${sessionId}`)).json() as { state?: string }
}

t.test('P-35 of 20 simultaneous resumes one wins, and every other is told and gets nothing more', async t => {
  const { socket, hello } = await connectFull(server.wsUrl)
  const sessionId = hello.payload.sessionId as string
  socket.send({ command: 'echo', payload: 'before', id: 1 })
  await socket.next()
  const entry = resumeEntry(hello, 0)
  const rivals = await Promise.all(Array.from({ length: 20 }, async () => await connectSocket(
    server.wsUrl, { protocols: ['holdfast.v1', entry] }
  )))
  t.match(await socket.nextOf('goodbye'), { payload: { code: 4003, action: 'stop' } })
  await eventually('one is left', () => rivals.filter(rival => rival.ws.readyState === rival.ws.OPEN).length === 1)
  const [winner] = rivals.filter(rival => rival.ws.readyState === rival.ws.OPEN)
  await fetch(`${server.url}/sessions/${sessionId}/messages`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{"event":"after","payload":1}'
  })
  t.match((await winner?.nextOf('message')), { event: 'after', seq: 2 })
  for (const rival of rivals) {
    if (rival === winner) continue
    t.equal((await rival.nextClose()).code, 4003)
    const frames = rival.waiting
    t.equal(frames.at(-1)?.type, 'goodbye', JSON.stringify(frames.map(frame => frame.type)))
    t.equal(frames.some(frame => frame.event === 'after'), false)
  }
  const { data } = await (await fetch(`${server.url}/sessions?state=active`)).json() as { data: { id: string }[] }
  t.strictSame(data.map(view => view.id), [sessionId])
  winner?.ws.close()
})

t.test('P-28 a resume whose answer was lost is repeated with the old token, dead once the new is used', async t => {
  const { socket, hello } = await connectFull(server.wsUrl)
  socket.ws.terminate()
  // The handshake arrives, its answer does not.
  for (let i = 0; i < 3; i++) {
    const raw = await rawConnect(server.port)
    raw.write(handshake({ 'Sec-WebSocket-Protocol': `holdfast.v1, ${resumeEntry(hello)}` }))
    await raw.answer()
    raw.reset()
  }
  const again = await connectFull(server.wsUrl, [resumeEntry(hello)])
  t.match(again.hello, { type: 'session_resumed' })
  await again.socket.nextOf('live')
  again.socket.send({ command: 'ping', id: 1 })
  await again.socket.next()
  again.socket.ws.terminate()
  const stale = await connectFull(server.wsUrl, [resumeEntry(hello)])
  t.match(stale.hello, { type: 'session_created', payload: { previous: { reason: 'unknown' } } })
  t.notOk('lastCommand' in stale.hello.payload.previous)
  stale.socket.ws.close()
  const fresh = await connectFull(server.wsUrl, [resumeEntry(again.hello, 1)])
  t.match(fresh.hello, { type: 'session_resumed', payload: { lastCommand: 1 } })
  fresh.socket.ws.close()
})

t.test('P-33 wrong, foreign, cut and odd resume entries are answered alike', async t => {
  const { socket, hello } = await connectFull(server.wsUrl)
  const other = await connectFull(server.wsUrl)
  const { sessionId, resumeToken } = hello.payload as { sessionId: string, resumeToken: string }
  const entries = [
    `resume.${sessionId}.${resumeToken.slice(0, -1)}.0`, `resume.${sessionId}.${resumeToken}x.0`,
    `resume.${sessionId}.${other.hello.payload.resumeToken as string}.0`,
    `resume.${other.hello.payload.sessionId as string}.${resumeToken}.0`, `resume.${sessionId}.${resumeToken}`,
    `resume.${sessionId}.${resumeToken}.-1`,
    `resume.${sessionId}.${resumeToken}.0.0`, `resume.${sessionId}..0`, 'resume.', 'resume....',
    `resume.${sessionId}.${resumeToken}.99999999999999999`,
    `resume.${sessionId}.${resumeToken}.1e3`, `resume.__proto__.${resumeToken}.0`,
    `resume.${sessionId.toUpperCase()}.${resumeToken}.0`
  ]
  for (const entry of entries) {
    const refused = await connectFull(server.wsUrl, [entry])
    t.match(
      refused.hello,
      { type: 'session_created', payload: { previous: { reason: 'unknown' } } },
      entry.replace(resumeToken, 'token')
    )
    t.notOk('lastCommand' in refused.hello.payload.previous)
    refused.socket.ws.close()
  }
  t.equal((await viewOf(sessionId)).state, 'active', 'nobody touched the session')
  socket.ws.close()
  other.socket.ws.close()
})

t.test('G1 and G2: through a proxy that cuts anywhere, commands run once and outputs come once, in order', async t => {
  // Not random: every run of this test cuts at the same places, and each of them once.
  const cutPoints = Array.from({ length: 40 }, (_, i) => 700 + i * 37)
  let at = 0
  const proxy = await cuttingProxy(server.port, () => cutPoints[at++] ?? Infinity)
  t.teardown(() => proxy.close())
  const url = `ws://127.0.0.1:${proxy.port}/ws`
  const total = 300
  const outputs: Frame[] = []
  let entry: string[] = []
  let next = 1
  let sessions = 0
  while (outputs.length < total) {
    let socket
    try {
      socket = await connectSocket(url, { protocols: ['holdfast.v1', ...entry] })
      const hello = await socket.next()
      if (hello.type === 'session_created') {
        sessions++
        t.equal(sessions, 1, 'the session is never lost')
      } else {
        t.equal(hello.payload.gap, null)
        next = (hello.payload.lastCommand as number) + 1
      }
      entry = [resumeEntry(hello, outputs.length)]
      for (; next <= total && next <= outputs.length + 20; next++) {
        socket.send({ command: 'echo', payload: { n: next }, id: next })
      }
      for (;;) {
        const frame = await socket.next()
        if (frame.seq === undefined) continue
        if (frame.seq !== outputs.length + 1) {
          t.fail(`seq ${frame.seq} after ${outputs.length}`)
          return
        }
        outputs.push(frame)
        entry = [resumeEntry(hello, outputs.length)]
        if (outputs.length === total) break
        if (next <= total) socket.send({ command: 'echo', payload: { n: next }, id: next++ })
      }
    } catch {
      // Cut; the next attempt resumes.
    }
    socket?.ws.terminate()
  }
  t.ok(proxy.cuts >= 20, `${proxy.cuts} cuts`)
  t.strictSame(
    outputs.map(frame => [frame.id, frame.payload.n]), Array.from({ length: total }, (_, i) => [i + 1, i + 1])
  )
})

t.test('P-30 a long replay to a client that reads slowly comes in order, then `live`, then what is newer', async t => {
  const { socket, hello } = await connectFull(server.wsUrl)
  socket.ws.terminate()
  const sessionId = hello.payload.sessionId as string
  const send = async (n: number): Promise<void> => {
    const body = JSON.stringify({ event: 'n', payload: { n, filler: 'f'.repeat(1800) } })
    const answer = await fetch(`${server.url}/sessions/${sessionId}/messages`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body
    })
    t.equal(answer.status, 202)
    await answer.arrayBuffer()
  }
  for (let n = 1; n <= 400; n += 50) {
    await Promise.all(Array.from({ length: 50 }, async (_, i) => { await send(n + i) }))
  }
  const { raw } = await rawUpgrade(server.port, { 'Sec-WebSocket-Protocol': `holdfast.v1, ${resumeEntry(hello)}` })
  raw.tcp.pause()
  const drip = setInterval(() => {
    raw.tcp.resume()
    setImmediate(() => { raw.tcp.pause() })
  }, 2)
  await Promise.all([401, 402, 403].map(send))
  const resumed = JSON.parse(await raw.nextText()) as Frame
  t.match(resumed, { type: 'session_resumed', payload: { replay: { from: 1, to: 400 }, gap: null } })
  const seen: (number | string)[] = []
  while (seen.at(-1) !== 403) {
    const { seq, type } = JSON.parse(await raw.nextText()) as Frame
    if (type !== 'ping') seen.push(seq ?? type)
  }
  clearInterval(drip)
  raw.reset()
  t.strictSame(seen, [...Array.from({ length: 400 }, (_, i) => i + 1), 'live', 401, 402, 403])
})

t.test('500 sessions dropped at once are back within 5 s, while a newcomer is served in under 2 s', async t => {
  let many = await Promise.all(Array.from({ length: 500 }, async () => await connectFull(server.wsUrl)))
  let newcomerMs = Infinity
  const backMs = await quickest(5000, async () => {
    for (const { socket } of many) socket.ws.terminate()
    const startedAt = Date.now()
    const back = Promise.all(many.map(async ({ hello }) => await connectFull(server.wsUrl, [resumeEntry(hello)])))
    const newcomer = await connectFull(server.wsUrl)
    newcomerMs = Math.min(newcomerMs, Date.now() - startedAt)
    many = await back
    t.ok(many.every(({ hello }) => hello.type === 'session_resumed'))
    newcomer.socket.ws.close()
    return newcomerMs < 2000 ? Date.now() - startedAt : Infinity
  })
  t.ok(backMs < 5000, `all back after ${backMs} ms`)
  t.ok(newcomerMs < 2000, `the newcomer was served after ${newcomerMs} ms`)
  for (const { socket } of many) socket.ws.close()
})

t.test('liveness', { jobs: 4 }, async t => {
  void t.test('P-43 a half-open full-profile peer is dropped after heartbeat + 10 s, its session kept', async t => {
    const { raw } = await rawUpgrade(server.port, { 'Sec-WebSocket-Protocol': 'holdfast.v1' })
    const { payload } = JSON.parse(await raw.nextText()) as { payload: { sessionId: string } }
    const startedAt = Date.now()
    let pings = 0
    for (;;) {
      const frame = await raw.nextFrame()
      if (frame.opcode === OPCODE.close) {
        t.equal(frame.payload.readUInt16BE(0), 4103)
        break
      }
      if (frame.payload.toString() === '{"type":"ping"}') pings++
    }
    const took = Date.now() - startedAt
    t.ok(took > 10_000 && took < 20_000, `${took} ms`)
    t.ok(pings >= 9, `${pings} pings: something comes at least every heartbeat`)
    await raw.ended
    t.equal((await viewOf(payload.sessionId)).state, 'detached')
  })

  void t.test('P-43 a half-open peer of the basic profile is dropped, and its session ends', async t => {
    const { raw } = await rawUpgrade(server.port)
    const { payload } = JSON.parse(await raw.nextText()) as { payload: { sessionId: string } }
    t.equal(await raw.closeCode(), 4103)
    t.match(await viewOf(payload.sessionId), { code: 'SESSION_ENDED' })
  })

  void t.test('P-43 a peer that answers stays, with the pong of the library alone or with acks', async t => {
    const basic = await connectSocket(server.wsUrl)
    const { socket } = await connectFull(server.wsUrl)
    socket.ws.on('message', data => { if (String(data) === '{"type":"ping"}') socket.send({ type: 'ack', seq: 0 }) })
    await new Promise(resolve => setTimeout(resolve, 12_500))
    t.equal(basic.ws.readyState, basic.ws.OPEN)
    t.equal(socket.ws.readyState, socket.ws.OPEN)
    basic.ws.close()
    socket.ws.close()
  })

  void t.test('an unfinished message does not keep a silent peer alive', async t => {
    const { raw } = await rawUpgrade(server.port, { 'Sec-WebSocket-Protocol': 'holdfast.v1' })
    raw.write(wireFrame('{"command":', { fin: false }))
    t.equal(await raw.closeCode(), 4103)
    await raw.ended
  })
})

t.test('P-40 an idle session ends with 4300, with and without a connection, and heartbeats do not keep it', async t => {
  const short = await startServer({ HOLDFAST_SESSION_TIMEOUT_SECONDS: '4', HOLDFAST_HEARTBEAT_SECONDS: '0.3' })
  t.teardown(async () => { await short.stop('SIGKILL') })
  const detached = await connectFull(short.wsUrl)
  detached.socket.ws.terminate()
  const idle = await connectFull(short.wsUrl)
  idle.socket.ws.on('message', data => {
    if (String(data) === '{"type":"ping"}') idle.socket.send({ type: 'ack', seq: 0 })
  })
  const busy = await connectFull(short.wsUrl)
  let id = 0
  const work = setInterval(() => { busy.socket.send({ command: 'ping', id: ++id }) }, 200)
  t.match(await idle.socket.nextOf('goodbye'), { payload: { code: 4300, reason: 'idle', action: 'new' } })
  t.equal((await idle.socket.nextClose()).code, 4300)
  await short.line(line => line.msg === 'stale sessions purged')
  const again = await connectFull(short.wsUrl, [resumeEntry(detached.hello)])
  t.match(again.hello, { type: 'session_created', payload: { previous: { reason: 'idle', lastCommand: 0 } } })
  clearInterval(work)
  t.equal(busy.socket.ws.readyState, busy.socket.ws.OPEN, 'an active one never does')
  again.socket.ws.close()
  busy.socket.ws.close()
})

t.test('P-36 with a resume window of 0 every close ends the session and no token is issued', async t => {
  const none = await startServer({ HOLDFAST_RESUME_WINDOW_SECONDS: '0' })
  t.teardown(async () => { await none.stop('SIGKILL') })
  const { socket, hello } = await connectFull(none.wsUrl)
  t.equal(hello.payload.resumeToken, null)
  socket.ws.terminate()
  await none.line(line => line.msg === 'session ended' && line['sid'] === hello.payload.sessionId)
})

t.test('after 1000 connects no request or reply is retained by its connection', async t => {
  const { gc } = globalThis as { gc?: () => void }
  const { setFlagsFromString } = await import('node:v8')
  setFlagsFromString('--expose-gc')
  const collect = gc ?? (await import('node:vm')).runInNewContext('gc') as () => void
  const gone = { requests: 0, raws: 0, replies: 0 }
  const registry = new FinalizationRegistry<keyof typeof gone>(kind => { gone[kind]++ })
  const app = await createPluginApp({
    sessions: { maxSessions: 5000 },
    unlimitedUserId: 'human_reviewer_1',
    before: app => {
      app.addHook('onRequest', async (request, reply) => {
        registry.register(request, 'requests')
        registry.register(request.raw, 'raws')
        registry.register(reply.raw, 'replies')
      })
    }
  })
  t.teardown(() => app.close())
  const port = await listen(app)
  const sockets = []
  for (let i = 0; i < 20; i++) {
    sockets.push(
      ...await Promise.all(Array.from({ length: 50 }, async () => (await rawUpgrade(
        port, i % 2 === 0 ? {} : { 'Sec-WebSocket-Protocol': 'holdfast.v1' }
      )).raw))
    )
  }
  t.equal(app.gateway.connections, 1000, 'all are open')
  await eventually('collected', async () => {
    collect()
    await new Promise(resolve => setTimeout(resolve, 20))
    return gone.requests >= 990 && gone.raws >= 990 && gone.replies >= 990
  }).catch((error: Error) => { t.comment(error.message) })
  for (const [kind, count] of Object.entries(gone)) {
    t.ok(count >= 990, `${count} of 1000 ${kind} were collected while their sockets are open`)
  }
  for (const raw of sockets) raw.reset()
})

t.test('the process never ended nor logged an unexpected error', async t => {
  t.equal(server.child.exitCode, null)
  t.strictSame(server.lines.filter(line => line.level >= 50), [])
})
