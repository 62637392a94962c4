// A client written from revision 1.0 of the protocol against the server of today, over real
// sockets. It offers `holdfast.v1` and what 1.0 knows, ignores members it does not know (section
// 3), and fails on everything else that the former text does not have: a frame of another type, a
// seq out of order, an action that its close code does not have.

import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import { SignJWT } from 'jose'
import { closeAction } from '../../src/io/protocol/close-codes.js'
import { eventually, startServer, type ServerProcess } from '../helpers/server.js'
import { connectFull, connectSocket, watch, type Close, type Frame, type TestSocket } from '../helpers/socket.js'

const OUTBOX_BYTES = 20_000
const OUTBOX_MESSAGES = 20
const SECRET = 'a secret that only tests know, 32 bytes or more'

/**
 * Section 3.1 of revision 1.0: whether a frame is an output, and the members that it has always.
 */
const FRAMES: Readonly<Record<string, { sequenced: boolean | 'maybe', members: readonly string[] }>> = {
  session_created: { sequenced: false, members: ['payload'] },
  session_resumed: { sequenced: false, members: ['payload'] },
  live: { sequenced: false, members: [] },
  message: { sequenced: true, members: ['event', 'payload'] },
  result: { sequenced: true, members: ['payload'] },
  error: { sequenced: 'maybe', members: ['code', 'payload'] },
  ping: { sequenced: false, members: [] },
  goodbye: { sequenced: false, members: ['payload'] }
}
const CREATED = [
  'sessionId', 'userId', 'protocol', 'idleTimeoutMs', 'heartbeatMs', 'limits', 'resumeToken', 'resumeWindowMs'
]
const RESUMED = [...CREATED, 'lastCommand', 'replay', 'gap']
const LIMITS = ['maxMessageBytes', 'commandsPerSecond', 'maxInFlight']

interface FormerClient {
  /** What it handled, in order: seq and payload, or code. */
  readonly outputs: ReadonlyArray<readonly [seq: number, told: unknown]>
  /** Ranges that resumes said would never come. */
  readonly gaps: ReadonlyArray<{ from: number, to: number }>
  readonly opening: Frame
  send (frame: object): void
  /**
   * Reads up to the answer of a command, judging all on the way; the next id is chosen by the
   * client.
   */
  ask (command: string, payload?: unknown): Promise<Frame>
  /** Reads up to the frame for which it holds. */
  until (matches: (frame: Frame) => boolean): Promise<Frame>
  /** Breaks the line, and resumes with the newest token and what it has handled. */
  resume (): Promise<void>
  drop (): void
  closed (): Promise<Close>
}

async function connectFormer (
  t: Test, server: ServerProcess, headers: Record<string, string> = {}
): Promise<FormerClient> {
  const outputs: Array<readonly [number, unknown]> = []
  const gaps: Array<{ from: number, to: number }> = []
  let lastSeq = 0
  let nextId = 1
  let opening: Frame
  let socket: TestSocket

  function judge (frame: Frame): void {
    const known = FRAMES[frame.type]
    const text = JSON.stringify(frame).slice(0, 200)
    if (known === undefined) throw new Error(`revision 1.0 has no such frame: ${text}`)
    const missing = known.members.filter(member => !(member in frame))
    if (missing.length > 0) throw new Error(`without ${missing.join()}: ${text}`)
    if (known.sequenced !== 'maybe' && known.sequenced !== (frame.seq !== undefined)) {
      throw new Error(`with or without a seq: ${text}`)
    }
    if (frame.type === 'ping') socket.send({ type: 'ack', seq: lastSeq })
    if (frame.type === 'goodbye') {
      const { code, action } = frame.payload as { code: number, action: string }
      if (action !== closeAction(code)) throw new Error(`an action that its code does not have: ${text}`)
    }
    if (frame.seq === undefined) return
    if (frame.seq > lastSeq + 1) throw new Error(`expected seq ${lastSeq + 1}: ${text}`)
    if (frame.seq <= lastSeq) return
    lastSeq = frame.seq
    outputs.push([frame.seq, frame.code ?? frame.payload])
  }

  async function read (): Promise<Frame> {
    const frame = await socket.next()
    judge(frame)
    return frame
  }

  async function until (matches: (frame: Frame) => boolean): Promise<Frame> {
    for (;;) {
      const frame = await read()
      if (matches(frame)) return frame
    }
  }

  async function open (entries: string[]): Promise<void> {
    socket = await connectSocket(server.wsUrl, { protocols: ['holdfast.v1', ...entries], headers })
    t.teardown(() => { socket.ws.terminate() })
    opening = await read()
    const members = opening.type === 'session_resumed' ? RESUMED : CREATED
    const missing = [
      ...members.filter(member => !(member in opening.payload)),
      ...LIMITS.filter(limit => !(limit in opening.payload.limits))
    ]
    if (missing.length > 0) throw new Error(`the first frame is without ${missing.join()}`)
  }

  await open([])
  return {
    outputs,
    gaps,
    get opening () { return opening },
    send: frame => { socket.send(frame) },
    until,
    async ask (command, payload = null) {
      const id = nextId++
      socket.send({ command, payload, id })
      return await until(frame => frame.id === id)
    },
    async resume () {
      const { sessionId, resumeToken } = opening.payload as { sessionId: string, resumeToken: string }
      socket.ws.terminate()
      await open([`resume.${sessionId}.${resumeToken}.${lastSeq}`])
      if (opening.type !== 'session_resumed') return
      const { gap, replay } = opening.payload as {
        gap: { from: number, to: number } | null
        replay: { from: number, to: number } | null
      }
      if (gap !== null) {
        gaps.push(gap)
        lastSeq = gap.to
      }
      await until(({ type }) => type === 'live')
      if (replay !== null && lastSeq < replay.to) {
        throw new Error(`live after seq ${lastSeq} of a replay to ${replay.to}`)
      }
    },
    drop: () => { socket.ws.terminate() },
    async closed () {
      while (socket.waiting.length > 0) await read()
      const close = await socket.nextClose()
      while (socket.waiting.length > 0) await read()
      return close
    }
  }
}

async function rest (
  server: ServerProcess, method: string, path: string, body?: object
): Promise<{ status: number, body: any }> {
  const answer = await fetch(server.url + path, {
    method,
    ...(body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
  })
  const text = await answer.text()
  return { status: answer.status, body: text === '' ? null : JSON.parse(text) }
}

t.test('P-5 a client of revision 1.0', async t => {
  const server = await startServer({
    HOLDFAST_HEARTBEAT_SECONDS: '0.5',
    HOLDFAST_UPGRADES_PER_MINUTE: '100000',
    HOLDFAST_REQUESTS_PER_MINUTE: '100000',
    HOLDFAST_OUTBOX_BYTES: String(OUTBOX_BYTES),
    HOLDFAST_OUTBOX_MESSAGES: String(OUTBOX_MESSAGES)
  })
  t.teardown(async () => { await server.stop('SIGKILL') })

  await t.test('gets answers, errors, messages and heartbeats as before', async t => {
    const client = await connectFormer(t, server)
    const { sessionId } = client.opening.payload
    t.match(await client.ask('echo', { a: 1 }), { type: 'result', seq: 1, payload: { a: 1 } })
    t.match(await client.ask('no.such'), { type: 'error', seq: 2, code: 'UNKNOWN_COMMAND' })
    client.send({ command: 'echo', id: 9 })
    t.match(await client.until(({ id }) => id === 9), { code: 'COMMAND_GAP', expected: 3 })
    client.send({ command: 'echo', id: 'named', surplus: true })
    t.match(await client.until(({ code }) => code === 'BAD_FRAME'), { type: 'error', seq: undefined })
    t.match(
      await rest(server, 'POST', `/sessions/${sessionId}/messages`, { event: 'note', payload: 1 }),
      { status: 202, body: { seq: 3 } }
    )
    await client.until(({ seq }) => seq === 3)
    for (let n = 0; n < 3; n++) await client.until(({ type }) => type === 'ping')
    t.match(await client.ask('echo', 'after the heartbeats'), { seq: 4 })
  })

  await t.test('P-30 P-32 resumes, and is told a gap only there', async t => {
    const client = await connectFormer(t, server)
    const { sessionId } = client.opening.payload
    await client.ask('echo', 1)
    client.drop()
    for (let n = 1; n <= OUTBOX_MESSAGES + 5; n++) {
      await rest(server, 'POST', `/sessions/${sessionId}/messages`, { event: 'n', payload: n })
    }
    await client.resume()
    t.strictSame(client.gaps, [{ from: 2, to: 6 }])
    t.strictSame(
      client.outputs.slice(1).map(([, told]) => told), Array.from({ length: OUTBOX_MESSAGES }, (_, n) => n + 6)
    )
    t.match(await client.ask('echo', 'on'), { type: 'result' })
  })

  await t.test('P-50c gets RESULT_TOO_LARGE for an answer beyond the limit of the server', async t => {
    const client = await connectFormer(t, server)
    t.match(await client.ask('echo', 'x'.repeat(OUTBOX_BYTES)), { type: 'error', seq: 1, code: 'RESULT_TOO_LARGE' })
    t.match(await client.ask('echo', 'x'), { type: 'result', seq: 2 })
  })

  await t.test('P-50d gets no gap in place of a message, while a client beside it that takes less does', async t => {
    const client = await connectFormer(t, server)
    const { socket: small } = await connectFull(server.wsUrl, ['output.1024'])
    t.teardown(() => { small.ws.terminate() })
    for (const path of ['/broadcast', '/users/human_reviewer_1/messages']) {
      // The largest message that is not refused, found by halving.
      let [fits, refused] = [0, OUTBOX_BYTES]
      while (refused - fits > 1) {
        const size = Math.floor((fits + refused) / 2)
        const { status } = await rest(server, 'POST', path, { event: 'e', payload: 'x'.repeat(size) })
        if (status === 202) fits = size
        else refused = size
      }
      t.ok(fits > OUTBOX_BYTES - 200, `${path} takes ${fits}`)
      // And so it is behind any seq.
      const before = client.outputs.length
      for (let n = 0; n < 12; n++) {
        t.equal((await rest(server, 'POST', path, { event: 'e', payload: 'x'.repeat(fits) })).status, 202)
      }
      await client.ask('echo', path)
      t.ok(client.outputs.slice(before).filter(([, told]) => (told as string).length === fits).length >= 12)
    }
    t.match(await small.nextOf('gap'), { payload: { reason: 'too_large' } })
  })

  await t.test('P-42 P-49 is told each ending by a code whose instruction it knows', async t => {
    const older = await connectFormer(t, server)
    await older.ask('echo', 1)
    const { sessionId, resumeToken } = older.opening.payload
    const newer = watch(new WebSocket(server.wsUrl, [
      'holdfast.v1', `resume.${sessionId as string}.${resumeToken as string}.1`
    ]))
    t.match(await newer.next(), { type: 'session_resumed' })
    t.match(await older.closed(), { code: 4003 })
    newer.ws.terminate()
    const detached = await connectFormer(t, server)
    await rest(server, 'DELETE', `/sessions/${detached.opening.payload.sessionId as string}/connection`)
    t.match(await detached.closed(), { code: 4203 })
    await detached.resume()
    await rest(server, 'DELETE', `/sessions/${detached.opening.payload.sessionId as string}`)
    t.match(await detached.closed(), { code: 4001 })
    await detached.resume()
    t.match(detached.opening, {
      type: 'session_created',
      payload: { previous: { reason: 'ended_by_operator', lastCommand: 0 } }
    })
    detached.send({ type: 'end' })
    t.match(await detached.closed(), { code: 4000 })
  })

  await t.test('P-48 is told to resume when the node drains', async t => {
    const client = await connectFormer(t, server)
    await client.ask('echo', 1)
    const exit = server.stop('SIGTERM')
    t.match(await client.closed(), { code: 4200 })
    t.strictSame(await exit, { code: 0, signal: null })
  })
})

t.test('P-4 P-54 a client of revision 1.0 with credentials', async t => {
  const server = await startServer({
    HOLDFAST_JWT_SECRET: SECRET,
    HOLDFAST_UPGRADES_PER_MINUTE: '100000',
    HOLDFAST_REQUESTS_PER_MINUTE: '100000',
    HOLDFAST_MAX_SESSIONS_PER_USER: '2'
  })
  t.teardown(async () => { await server.stop('SIGKILL') })
  const token = await new SignJWT({ sub: 'ann' }).setProtectedHeader({ alg: 'HS256' }).setExpirationTime('5m').sign(
    new TextEncoder().encode(SECRET)
  )
  const headers = { authorization: `Bearer ${token}` }
  await t.rejects(connectFormer(t, server), /401/, 'a refusal is an HTTP status')
  const first = await connectFormer(t, server, headers)
  await first.ask('echo', 1)
  first.drop()
  await eventually('the session to be detached', async () => (await rest(
    server, 'GET', '/sessions'
  )).body.data[0].state === 'detached')
  const others = [await connectFormer(t, server, headers), await connectFormer(t, server, headers)]
  await t.rejects(connectFormer(t, server, headers), /429/, 'with both attached')
  others[0]?.send({ type: 'end' })
  await others[0]?.closed()
  await first.resume()
  t.match(first.opening, { type: 'session_created', payload: { previous: { reason: 'quota', lastCommand: 1 } } })
})
