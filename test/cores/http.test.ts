import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import { createServer as createTcpServer, type AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { createHttpCore, type HttpCoreOptions } from '../../src/cores/http.js'
import { readSecret, sign } from '../../src/cores/webhook.js'
import type { CoreRequest, PlatformCore } from '../../src/io/dispatcher/core.js'
import type { LifecycleEvent, LifecycleEventType, Log } from '../../src/io/types.js'

const SECRET = 'a secret of at least 24 bytes'

interface Call { id: string, headers: IncomingMessage['headers'], text: string, body: any, socket: object }
type Answer = (call: Call, response: ServerResponse, count: number) => void

function json (response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))
}

/** A core on a port of its own that keeps what it was asked; torn down with the test, open connections included. */
async function startCore (t: Test, answer: Answer): Promise<{ url: string, calls: Call[] }> {
  const calls: Call[] = []
  const listener: RequestListener = (request, response) => {
    const chunks: Buffer[] = []
    request.on('error', () => {})
    request.on('data', chunk => chunks.push(chunk))
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString()
      const call = { id: String(request.headers['webhook-id']), headers: request.headers, text, body: JSON.parse(text), socket: request.socket }
      calls.push(call)
      answer(call, response, calls.length)
    })
  }
  const server = createServer(listener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(async () => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook?x=1`, calls }
}

/** A TCP server whose every connection is handed to `serve` when its first bytes arrive. */
async function startRaw (t: Test, serve: (socket: import('node:net').Socket) => void): Promise<string> {
  const sockets = new Set<import('node:net').Socket>()
  const server = createTcpServer(socket => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('data', () => serve(socket))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy()
    server.close()
    await once(server, 'close')
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
}

function recordingLog (): Log & { lines: Array<{ level: string, fields: any, message: string }> } {
  const lines: Array<{ level: string, fields: any, message: string }> = []
  const at = (level: string) => (fields: object, message: string) => { lines.push({ level, fields, message }) }
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

/** Pauses that take no time but move the clock, and chance that always says a half. */
function heldTime () {
  let nowMs = 0
  const pauses: number[] = []
  return {
    pauses,
    clock: { now: () => nowMs, wall: () => 1_700_000_000_000 + nowMs },
    timing: { sleep: async (ms: number) => { pauses.push(ms); nowMs += ms }, random: () => 0.5 }
  }
}

function connect (t: Test, url: string, options: Partial<HttpCoreOptions> = {}) {
  const log = recordingLog()
  const time = heldTime()
  const core = createHttpCore({
    url, secret: SECRET, timeoutMs: 5_000, retries: 2, lifecycleEvents: [], maxAnswerBytes: 65_536, log, clock: time.clock, timing: time.timing, ...options
  })
  t.teardown(() => core.close())
  return { core, log, ...time }
}

function command (over: Partial<CoreRequest> = {}): CoreRequest {
  return {
    key: 's1.e1.1',
    session: { id: 's1', userId: 'ada', createdAt: 1, lastActivityAt: 2, context: { step: 1 } },
    id: 1,
    command: 'review.approve',
    payload: { item: 'é' },
    timeoutMs: 60_000,
    signal: new AbortController().signal,
    ...over
  }
}

function event (revision: number, over: Partial<LifecycleEvent> = {}): LifecycleEvent {
  return { type: 'attached', sessionId: 's1', userId: 'ada', revision, at: 1_700_000_000_000, ...over }
}

const codeOf = (core: PlatformCore, request = command()): Promise<unknown> => core.execute(request).then(
  answer => answer, (error: { code?: string }) => error.code
)

t.test('requests', async t => {
  t.test('a command is posted as a session.command with session, id, name and payload', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 200, {}))
    const { core } = connect(t, url)
    await core.execute(command())
    t.strictSame(calls[0]?.body, {
      type: 'session.command',
      timestamp: '2023-11-14T22:13:20.000Z',
      data: {
        session: { id: 's1', userId: 'ada', createdAt: 1, lastActivityAt: 2, context: { step: 1 } },
        id: 1,
        command: 'review.approve',
        payload: { item: 'é' }
      }
    })
  })

  t.test('a request is signed over id, timestamp and body', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 200, {}))
    const { core } = connect(t, url)
    await core.execute(command())
    const { headers, text } = calls[0] as Call
    const expected = createHmac('sha256', SECRET).update(`s1.e1.1.1700000000.${text}`).digest('base64')
    t.match(headers, { 'webhook-id': 's1.e1.1', 'webhook-timestamp': '1700000000', 'webhook-signature': `v1,${expected}` })
  })

  t.test('the signature of the Standard Webhooks example comes out', async t => {
    const key = readSecret('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw')
    t.equal(sign(key, 'msg_p5jXN8AQM9LWM0D4loKWxJek', '1614265330', '{"test": 2432232314}'), 'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=')
  })

  t.test('without a secret nothing is signed', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 200, {}))
    const { core } = connect(t, url, { secret: undefined })
    await core.execute(command())
    t.notOk(calls[0]?.headers['webhook-signature'])
  })

  t.test('commands one after the other use connections again', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 200, {}))
    const { core } = connect(t, url)
    for (let id = 1; id <= 20; id++) await core.execute(command({ key: `s1.e1.${id}`, id }))
    // Two, since a connection is free only a turn of the event loop after its answer was read.
    t.ok(new Set(calls.map(call => call.socket)).size <= 2)
  })

  t.test('commands at the same time open no more connections than allowed', async t => {
    const { url, calls } = await startCore(t, (_, response) => { setImmediate(() => json(response, 200, {})) })
    const { core } = connect(t, url, { connections: 2 })
    await Promise.all(Array.from({ length: 8 }, (_, at) => core.execute(command({ key: `s1.e1.${at}`, id: at }))))
    t.equal(calls.length, 8)
    t.equal(new Set(calls.map(call => call.socket)).size, 2)
  })

  const bad: Array<[string, Partial<HttpCoreOptions>]> = [
    ['no URL', { url: 'not a url' }],
    ['another scheme', { url: 'ftp://127.0.0.1/' }],
    ['credentials in the URL', { url: 'http://u:p@127.0.0.1/' }],
    ['a fragment in the URL', { url: 'http://127.0.0.1/#x' }],
    ['a short secret', { secret: 'short' }],
    ['a secret that is not base64', { secret: 'whsec_!!!!' }],
    ['a short base64 secret', { secret: 'whsec_AAAA' }],
    ['an unknown event', { lifecycleEvents: ['session.moved'] }],
    ['an event with the name of an object member', { lifecycleEvents: ['constructor'] }]
  ]
  for (const [title, options] of bad) {
    t.test(`${title} is CONFIG_INVALID`, async t => {
      t.throws(() => connect(t, 'http://127.0.0.1/', options), { code: 'CONFIG_INVALID' })
    })
  }
})

t.test('answers', async t => {
  t.test('a 200 gives payload, context and messages, and drops what it does not know', async t => {
    const { url } = await startCore(t, (_, response) => json(response, 200, {
      payload: [1], context: { step: 2 }, messages: [{ event: 'a', payload: 1, extra: 1 }, { event: 'b' }], extra: true
    }))
    const { core } = connect(t, url)
    t.strictSame(await core.execute(command()), {
      payload: [1], context: { step: 2 }, messages: [{ event: 'a', payload: 1 }, { event: 'b', payload: null }]
    })
  })

  t.test('an empty object is a null payload, with the context left alone', async t => {
    const { url } = await startCore(t, (_, response) => json(response, 200, {}))
    t.strictSame(await connect(t, url).core.execute(command()), { payload: null, messages: [] })
  })

  t.test('a 204 is a null payload', async t => {
    const { url } = await startCore(t, (_, response) => { response.writeHead(204).end() })
    t.strictSame(await connect(t, url).core.execute(command()), { payload: null, messages: [] })
  })

  const lies: Array<[string, string | Buffer]> = [
    ['no body', ''],
    ['a body that is not JSON', '{"payload":'],
    ['a page of HTML', '<html></html>'],
    ['a body that is not UTF-8', Buffer.from([0x22, 0xff, 0xfe, 0x22])],
    ['null', 'null'],
    ['an array', '[]'],
    ['a context that is an array', '{"context":[]}'],
    ['a context that is null', '{"context":null}'],
    ['messages that are no list', '{"messages":{}}'],
    ['a message without an event', '{"messages":[{"payload":1}]}'],
    ['a message with a numeric event', '{"messages":[{"event":1}]}'],
    ['a message with an event that is too long', JSON.stringify({ messages: [{ event: 'x'.repeat(129) }] })],
    ['too many messages', JSON.stringify({ messages: Array(1001).fill({ event: 'x' }) })],
    ['a __proto__ member', '{"payload":{"__proto__":{"admin":true}}}'],
    ['an escaped __proto__ member', '{"context":{"\\u005f_proto__":{"admin":true}}}'],
    ['a constructor.prototype member', '{"context":{"constructor":{"prototype":{}}}}'],
    ['deep nesting', `{"payload":${'['.repeat(20_000)}${']'.repeat(20_000)}}`],
    ['more bytes than allowed', JSON.stringify({ payload: 'x'.repeat(70_000) })]
  ]
  for (const [title, body] of lies) {
    t.test(`a 200 with ${title} is INVALID_RESULT, asked once`, async t => {
      const { url, calls } = await startCore(t, (_, response) => { response.writeHead(200).end(body) })
      const { core, log } = connect(t, url)
      t.equal(await codeOf(core), 'INVALID_RESULT')
      t.equal(calls.length, 1)
      t.match(log.lines, [{ level: 'warn', fields: { sid: 's1', key: 's1.e1.1' } }])
    })
  }

  t.test('an endless answer is cut off at the limit', async t => {
    const { url } = await startCore(t, (_, response) => {
      response.writeHead(200)
      const more = (): void => { if (!response.destroyed) response.write('x'.repeat(16_384), more) }
      more()
    })
    t.equal(await codeOf(connect(t, url).core), 'INVALID_RESULT')
  })

  t.test('the log names the member that is wrong and no value', async t => {
    const { url } = await startCore(t, (_, response) => json(response, 200, { payload: 'tell-nobody', messages: [{ event: 7 }] }))
    const { core, log } = connect(t, url)
    await codeOf(core)
    t.match(log.lines[0], { fields: { fault: /messages\/0\/event/ }, message: 'core answer not valid' })
    t.notMatch(JSON.stringify(log.lines), /tell-nobody/)
  })
})

t.test('refusals', async t => {
  t.test('P-15 a 4xx with a code is the command\'s error, asked once', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 404, { code: 'NO_SUCH_ITEM', message: 'There is no such item.' }))
    const { core } = connect(t, url)
    await t.rejects(core.execute(command()), { code: 'NO_SUCH_ITEM', message: 'There is no such item.', expose: true })
    t.equal(calls.length, 1)
  })

  t.test('a code without a sentence gets a constant one', async t => {
    const { url } = await startCore(t, (_, response) => json(response, 400, { code: 'NOPE' }))
    await t.rejects(connect(t, url).core.execute(command()), { code: 'NOPE', message: 'The Platform Core refused the command.' })
  })

  t.test('a long sentence is cut', async t => {
    const { url } = await startCore(t, (_, response) => json(response, 400, { code: 'NOPE', message: 'x'.repeat(9_000) }))
    await t.rejects(connect(t, url).core.execute(command()), { message: 'x'.repeat(512) })
  })

  for (const [title, status, body] of [
    ['a code in small letters', 400, '{"code":"nope","message":"x"}'],
    ['no JSON', 404, '<html>'],
    ['a null body', 404, 'null'],
    ['a status without meaning', 202, '{}']
  ] as Array<[string, number, string]>) {
    t.test(`${title} is an error without text of the core`, async t => {
      const { url, calls } = await startCore(t, (_, response) => { response.writeHead(status).end(body) })
      const { core, log } = connect(t, url)
      t.equal(await codeOf(core), 'CORE_REFUSED')
      t.equal(calls.length, 1)
      t.match(log.lines, [{ level: 'warn', fields: { status }, message: 'core refused without a code' }])
    })
  }

  t.test('a redirect is not followed', async t => {
    const elsewhere = await startCore(t, (_, response) => json(response, 200, {}))
    const { url } = await startCore(t, (_, response) => { response.writeHead(307, { location: elsewhere.url }).end() })
    t.equal(await codeOf(connect(t, url).core), 'CORE_REFUSED')
    t.equal(elsewhere.calls.length, 0)
  })
})

t.test('retries', async t => {
  t.test('an attempt is repeated with the same webhook-id and body, after growing pauses', async t => {
    const { url, calls } = await startCore(t, (_, response, count) => json(response, count < 3 ? 503 : 200, { payload: 'done' }))
    const { core, pauses } = connect(t, url)
    t.match(await core.execute(command()), { payload: 'done' })
    t.strictSame(calls.map(call => call.id), ['s1.e1.1', 's1.e1.1', 's1.e1.1'])
    t.equal(new Set(calls.map(call => call.text)).size, 1)
    t.strictSame(pauses, [75, 150])
  })

  t.test('a core that goes on failing is CORE_UNAVAILABLE after the retries', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 500, { code: 'X', message: 'stack trace' }))
    const { core, log } = connect(t, url)
    t.equal(await codeOf(core), 'CORE_UNAVAILABLE')
    t.equal(calls.length, 3)
    t.match(log.lines.at(-1), { level: 'warn', fields: { sid: 's1', status: 500, attempts: 3 }, message: 'core unavailable' })
  })

  t.test('a huge body of a failing core does not hide its status', async t => {
    const { url, calls } = await startCore(t, (_, response) => { response.writeHead(502).end('x'.repeat(100_000)) })
    t.equal(await codeOf(connect(t, url).core), 'CORE_UNAVAILABLE')
    t.equal(calls.length, 3)
  })

  t.test('a 429 is repeated after its Retry-After', async t => {
    const { url } = await startCore(t, (_, response, count) => count === 1 ? json(response, 429, {}, { 'retry-after': '7' }) : json(response, 200, {}))
    const { core, pauses } = connect(t, url)
    await core.execute(command())
    t.strictSame(pauses, [7_000])
  })

  t.test('a pause beyond the command\'s time is not waited for, and the client is told of it', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 503, {}, { 'retry-after': '90' }))
    const { core, pauses } = connect(t, url)
    await t.rejects(core.execute(command()), { code: 'CORE_UNAVAILABLE', retryAfterMs: 90_000 })
    t.equal(calls.length, 1)
    t.strictSame(pauses, [])
  })

  t.test('a refused connection is repeated, then CORE_UNAVAILABLE', async t => {
    const server = createTcpServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    server.close()
    await once(server, 'close')
    const { core, pauses, log } = connect(t, `http://127.0.0.1:${port}/`)
    t.equal(await codeOf(core), 'CORE_UNAVAILABLE')
    t.equal(pauses.length, 2)
    t.match(log.lines.at(-1), { fields: { reason: 'ECONNREFUSED' } })
  })

  t.test('a connection that is reset is repeated', async t => {
    const { url, calls } = await startCore(t, (_, response, count) => { if (count === 1) response.destroy(); else json(response, 200, { payload: 'done' }) })
    t.match(await connect(t, url).core.execute(command()), { payload: 'done' })
    t.equal(calls.length, 2)
  })

  t.test('an answer that is cut short is repeated', async t => {
    const { url, calls } = await startCore(t, (_, response, count) => {
      if (count > 1) return json(response, 200, { payload: 'done' })
      response.writeHead(200, { 'content-length': '1000' })
      response.write('{"payload":', () => { response.destroy() })
    })
    t.match(await connect(t, url).core.execute(command()), { payload: 'done' })
    t.equal(calls.length, 2)
  })

  t.test('a peer that speaks no HTTP is CORE_UNAVAILABLE', async t => {
    const url = await startRaw(t, socket => { socket.end('SSH-2.0-OpenSSH_9.2\r\n') })
    t.equal(await codeOf(connect(t, url).core), 'CORE_UNAVAILABLE')
  })

  t.test('a silent core costs the command its time and no other command anything', async t => {
    const { url } = await startCore(t, (call, response) => { if (call.body.data.command !== 'hang') json(response, 200, { payload: 'quick' }) })
    const { core, log } = connect(t, url, { retries: 0 })
    const hanging = codeOf(core, command({ command: 'hang', key: 's2.e1.1', timeoutMs: 150 }))
    t.match(await core.execute(command()), { payload: 'quick' })
    t.equal(await hanging, 'CORE_UNAVAILABLE')
    t.match(log.lines[0], { fields: { reason: 'TIMEOUT' } })
  })

  t.test('a core that drips its answer is cut off when the attempt\'s time is over', async t => {
    const { url } = await startCore(t, (_, response) => {
      response.writeHead(200)
      const drip = setInterval(() => { response.write(' ') }, 20)
      response.on('close', () => { clearInterval(drip) })
    })
    t.equal(await codeOf(connect(t, url, { timeoutMs: 200, retries: 0 }).core), 'CORE_UNAVAILABLE')
  })

  t.test('a core that sends its headers for ever is cut off as well', async t => {
    const url = await startRaw(t, socket => {
      socket.write('HTTP/1.1 200 OK\r\nx-slow: ')
      const drip = setInterval(() => { socket.write('x') }, 20)
      socket.on('close', () => { clearInterval(drip) })
    })
    t.equal(await codeOf(connect(t, url, { timeoutMs: 200, retries: 0 }).core), 'CORE_UNAVAILABLE')
  })

  t.test('a command\'s own time is shorter than an attempt\'s and counts', async t => {
    const { url } = await startCore(t, () => {})
    t.equal(await codeOf(connect(t, url, { retries: 0 }).core, command({ timeoutMs: 150 })), 'CORE_UNAVAILABLE')
  })

  t.test('of equal lines one in ten seconds is a warning, and the end of the outage is told', async t => {
    let up = false
    const { url } = await startCore(t, (_, response) => json(response, up ? 200 : 500, {}))
    const { core, log } = connect(t, url, { retries: 0 })
    for (let at = 0; at < 5; at++) await codeOf(core)
    up = true
    await core.execute(command())
    t.equal(log.lines.filter(line => line.level === 'warn').length, 1)
    t.match(log.lines.at(-1), { level: 'info', fields: { unanswered: 5 }, message: 'core available again' })
  })

  t.test('no log line holds the secret, a payload, a context or an answer', async t => {
    const { url } = await startCore(t, (_, response, count) => {
      if (count === 1) response.destroy()
      else json(response, [500, 400, 200][count % 3] ?? 500, { code: 'hidden-answer', messages: 'hidden-answer' })
    })
    const { core, log } = connect(t, url)
    const hidden = command({ payload: 'hidden-payload', session: { ...command().session, context: { a: 'hidden-context' } } })
    for (let at = 0; at < 4; at++) await codeOf(core, hidden)
    t.ok(log.lines.length > 0)
    t.notMatch(JSON.stringify(log.lines), new RegExp(`hidden|${SECRET}`))
  })
})

t.test('abort and close', async t => {
  t.test('P-19 an abort rejects at once with the signal\'s reason and breaks the request off', async t => {
    const abort = new AbortController()
    const closed = new Promise<void>(resolve => {
      void startCore(t, (_, response) => {
        response.on('close', resolve)
        abort.abort(new Error('timed out'))
      }).then(({ url }) => t.rejects(connect(t, url).core.execute(command({ signal: abort.signal })), { message: 'timed out' }))
    })
    await closed
  })

  t.test('an abort ends a pause', async t => {
    const abort = new AbortController()
    const { url, calls } = await startCore(t, (_, response) => json(response, 503, {}, { 'retry-after': '30' }))
    const clock = { now: () => 0, wall: () => 0 }
    const { systemTiming } = await import('../../src/cores/backoff.js')
    const timing = { ...systemTiming, sleep: (ms: number, signal?: AbortSignal) => { setImmediate(() => abort.abort(new Error('gone'))); return systemTiming.sleep(ms, signal) } }
    const { core } = connect(t, url, { clock, timing })
    await t.rejects(core.execute(command({ signal: abort.signal })), { message: 'gone' })
    t.equal(calls.length, 1)
  })

  t.test('a signal that is aborted already sends nothing', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 200, {}))
    await t.rejects(connect(t, url).core.execute(command({ signal: AbortSignal.abort(new Error('gone')) })), { message: 'gone' })
    t.equal(calls.length, 0)
  })

  t.test('close breaks off what is under way and refuses what comes later', async t => {
    const { url } = await startCore(t, () => { void core.close() })
    const { core } = connect(t, url)
    t.equal(await codeOf(core), 'CORE_UNAVAILABLE')
    await core.close()
    t.equal(await codeOf(core), 'CORE_UNAVAILABLE')
  })

  t.test('a command that pauses while the core is closed is not sent again', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 503, {}))
    const { core } = connect(t, url, { timing: { random: () => 0, sleep: () => core.close() } })
    t.equal(await codeOf(core), 'CORE_UNAVAILABLE')
    t.equal(calls.length, 1)
  })
})

t.test('lifecycle events', async t => {
  const all = { lifecycleEvents: ['session.created', 'session.attached', 'session.detached', 'session.ended'] }

  t.test('an event is posted like a command, with the revision in its id', async t => {
    const { url, calls } = await startCore(t, (_, response) => { response.writeHead(204).end() })
    const { core } = connect(t, url, all)
    core.notify(event(4, { type: 'ended', reason: 'idle' }))
    await core.close()
    t.strictSame(calls[0]?.body, {
      type: 'session.ended', timestamp: '2023-11-14T22:13:20.000Z', data: { session: { id: 's1', userId: 'ada' }, revision: 4, reason: 'idle' }
    })
    t.match(calls[0]?.headers, { 'webhook-id': 's1.4', 'webhook-signature': /^v1,/ })
  })

  t.test('only listed events are sent', async t => {
    const { url, calls } = await startCore(t, (_, response) => { response.writeHead(204).end() })
    const { core } = connect(t, url, { lifecycleEvents: ['session.ended'] })
    const types: LifecycleEventType[] = ['created', 'attached', 'detached', 'ended']
    types.forEach((type, at) => { core.notify(event(at + 1, { type })) })
    await core.close()
    t.strictSame(calls.map(call => call.body.type), ['session.ended'])
  })

  t.test('events of a session go out by revision, one at a time, through failures', async t => {
    let busy = 0
    const { url, calls } = await startCore(t, (_, response, count) => {
      t.equal(++busy, 1)
      setImmediate(() => { busy--; response.writeHead(count % 2 === 1 ? 500 : 200).end() })
    })
    const { core } = connect(t, url, all)
    for (const revision of [1, 3, 2, 4]) core.notify(event(revision))
    await core.close()
    t.strictSame(calls.map(call => call.id), ['s1.1', 's1.1', 's1.2', 's1.2', 's1.3', 's1.3', 's1.4', 's1.4'])
  })

  t.test('a session whose event hangs does not hold up another', async t => {
    let passed = (): void => {}
    const arrived = new Promise<void>(resolve => { passed = resolve })
    const { url, calls } = await startCore(t, (call, response) => {
      if (call.id === 's1.1') return
      response.writeHead(204).end()
      if (call.id === 's2.2') response.on('close', passed)
    })
    const { core, log } = connect(t, url, { ...all, flushMs: 100 })
    core.notify(event(1))
    core.notify(event(2))
    core.notify(event(1, { sessionId: 's2' }))
    core.notify(event(2, { sessionId: 's2' }))
    await arrived
    await core.close()
    t.strictSame(calls.map(call => call.id).sort(), ['s1.1', 's2.1', 's2.2'])
    t.match(log.lines, [{ level: 'warn', fields: { dropped: 2 }, message: 'lifecycle events dropped, closing' }])
  })

  t.test('an event that finds the queue full is dropped, with a warning', async t => {
    const { url, calls } = await startCore(t, (_, response) => { response.writeHead(204).end() })
    const { core, log } = connect(t, url, { ...all, maxQueuedEvents: 2 })
    for (const revision of [1, 2, 3, 4]) core.notify(event(revision))
    t.match(log.lines, [{ level: 'warn', fields: { sid: 's1', revision: 3, maxEvents: 2 } }, { level: 'debug', fields: { revision: 4 } }])
    await core.close()
    t.strictSame(calls.map(call => call.id), ['s1.1', 's1.2'])
  })

  for (const [title, status, attempts] of [['refuses', 400, 1], ['keeps failing to take', 500, 3]] as Array<[string, number, number]>) {
    t.test(`an event that the core ${title} is dropped and the next one follows`, async t => {
      const { url, calls } = await startCore(t, (call, response) => { response.writeHead(call.id === 's1.1' ? status : 200).end() })
      const { core, log } = connect(t, url, all)
      core.notify(event(1))
      core.notify(event(2))
      await core.close()
      t.strictSame(calls.map(call => call.id), [...Array(attempts).fill('s1.1'), 's1.2'])
      t.match(log.lines[0], { level: 'warn', fields: { revision: 1, status, attempts }, message: 'lifecycle event dropped, not taken' })
    })
  }

  t.test('an event that cannot be delivered at all is dropped with the reason', async t => {
    const url = await startRaw(t, socket => { socket.destroy() })
    const { core, log } = connect(t, url, { ...all, retries: 1 })
    core.notify(event(1))
    await core.close()
    t.match(log.lines, [{ fields: { revision: 1, reason: 'UND_ERR_SOCKET', attempts: 2 }, message: 'lifecycle event dropped, not taken' }])
  })

  t.test('a core that asks for patience is given half a minute at most', async t => {
    const { url } = await startCore(t, (_, response, count) => count === 1 ? json(response, 503, {}, { 'retry-after': '600' }) : json(response, 200, {}))
    const { core, pauses } = connect(t, url, all)
    core.notify(event(1))
    await core.close()
    t.strictSame(pauses, [30_000])
  })

  t.test('the events of many sessions are delivered a few at a time', async t => {
    let busy = 0
    let most = 0
    const { url, calls } = await startCore(t, (_, response) => {
      most = Math.max(most, ++busy)
      setImmediate(() => { busy--; response.writeHead(200).end() })
    })
    const { core } = connect(t, url, all)
    for (let at = 0; at < 40; at++) core.notify(event(1, { sessionId: `s${at}` }))
    await core.close()
    t.equal(calls.length, 40)
    t.ok(most > 1 && most <= 8)
  })

  t.test('an event after close is not sent', async t => {
    const { url, calls } = await startCore(t, (_, response) => { response.writeHead(204).end() })
    const { core } = connect(t, url, all)
    await core.close()
    core.notify(event(1))
    await core.close()
    t.equal(calls.length, 0)
  })
})
