// The door from outside: what is refused before a socket exists, and that no way of knocking costs
// the process or a descriptor.

import { randomBytes } from 'node:crypto'
import t from 'tap'
import { OPCODE, handshake, rawConnect, rawUpgrade, wireFrame, type HttpAnswer } from '../helpers/raw-socket.js'
import { eventually, startServer, type ServerProcess } from '../helpers/server.js'
import { connectFull, connectSocket } from '../helpers/socket.js'

const server = await startServer({
  HOLDFAST_UPGRADES_PER_MINUTE: '100000',
  HOLDFAST_REQUESTS_PER_MINUTE: '100000',
  HOLDFAST_HANDSHAKE_SECONDS: '1',
  LOG_LEVEL: 'debug'
})
t.teardown(async () => { await server.stop('SIGKILL') })

/** Sends bytes and returns the answer, once the server has ended the connection. */
async function ask (bytes: string | Buffer, { port }: ServerProcess = server): Promise<HttpAnswer & { ms: number }> {
  const startedAt = Date.now()
  const raw = await rawConnect(port)
  raw.write(bytes)
  const answer = await raw.answer()
  await raw.ended
  return { ...answer, ms: Date.now() - startedAt }
}

async function isServing (): Promise<boolean> {
  const { socket, hello } = await connectFull(server.wsUrl)
  socket.ws.close()
  return hello.type === 'session_created'
}

t.test('handshakes against the standards are refused in under a second, in the form of P-4, and ended', async t => {
  const plain = handshake()
  const cases: [string, string, number][] = [
    ['HTTP/1.0', handshake({}, 'GET /ws HTTP/1.0'), 400],
    ['no Host', handshake({ Host: null }), 400],
    ['two Hosts', plain.replace('Host: localhost', 'Host: localhost\r\nHost: evil.example'), 400],
    ['a body', handshake({ 'Content-Length': '4' }) + 'body', 400],
    ['a chunked body', `${handshake({ 'Transfer-Encoding': 'chunked' })}4\r\nbody\r\n0\r\n\r\n`, 400],
    ['both lengths', handshake({ 'Transfer-Encoding': 'chunked', 'Content-Length': '4' }), 400],
    ['no key', handshake({ 'Sec-WebSocket-Key': null }), 400],
    ['an empty key', handshake({ 'Sec-WebSocket-Key': '' }), 400],
    ['a key of 15 bytes', handshake({ 'Sec-WebSocket-Key': randomBytes(15).toString('base64') }), 400],
    ['a key of other characters', handshake({ 'Sec-WebSocket-Key': '!!!!!!!!!!!!!!!!!!!!!!==' }), 400],
    [
      'two keys',
      plain.replace(
        'Upgrade: websocket', `Upgrade: websocket\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}`
      ),
      400
    ],
    ['no version', handshake({ 'Sec-WebSocket-Version': null }), 400],
    ['version 8', handshake({ 'Sec-WebSocket-Version': '8' }), 400],
    ['version 13.0', handshake({ 'Sec-WebSocket-Version': '13.0' }), 400],
    ['headers of 32 KiB', handshake({ 'X-Long': 'x'.repeat(32_768) }), 431],
    [
      '2000 headers',
      handshake(Object.fromEntries(Array.from({ length: 2000 }, (_, i) => [`X-${i}`, 'y'.repeat(10)]))),
      431
    ],
    ['a broken request line', 'GET /ws HTTP/one\r\n\r\n', 400],
    ['a NUL in a header', handshake({ 'X-Bad': 'a\u0000b' }), 400],
    ['a foreign origin', handshake({ Origin: 'https://evil.example' }), 403],
    ['an unknown subprotocol', handshake({ 'Sec-WebSocket-Protocol': 'chat' }), 400],
    ['a subprotocol twice', handshake({ 'Sec-WebSocket-Protocol': 'holdfast.v1, holdfast.v1' }), 400],
    ['an empty subprotocol', handshake({ 'Sec-WebSocket-Protocol': 'holdfast.v1,' }), 400],
    ['a subprotocol that is no token', handshake({ 'Sec-WebSocket-Protocol': 'holdfast.v1, a b' }), 400],
    ['a padded base64 in a subprotocol', handshake({ 'Sec-WebSocket-Protocol': 'holdfast.v1, auth.YQ==' }), 400]
  ]
  for (const [name, bytes, status] of cases) {
    t.test(name, async t => {
      let answer = await ask(bytes)
      // A server that waits for its time limit of a second does so each time, a busy machine does
      // not.
      for (let again = 0; again < 4 && answer.ms >= 1000; again++) answer = await ask(bytes)
      t.equal(answer.status, status)
      t.match(JSON.parse(answer.body), { statusCode: status, code: /^[A-Z_]+$/, error: String, message: String })
      t.ok(answer.ms < 1000, `${answer.ms} ms`)
      t.notMatch(answer.body, /node_modules|\.js:|\/work|Error:/)
    })
  }

  t.test('other methods', async t => {
    for (const method of ['POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS', 'TRACE', 'PATCH']) {
      const raw = await rawConnect(server.port)
      raw.write(handshake({ Connection: 'Upgrade, close' }, `${method} /ws HTTP/1.1`))
      await raw.ended
      const status = Number(raw.received.toString('latin1').split(' ')[1])
      t.ok(status >= 400 && status < 500, `${method}: ${status}`)
    }
  })

  t.test('a version that is not spoken is told which one is', async t => {
    const answer = await ask(handshake({ 'Sec-WebSocket-Version': '8' }))
    t.equal(answer.headers['sec-websocket-version'], '13')
  })

  t.test('a plain GET is told to upgrade', async t => {
    const answer = await fetch(`${server.url}/ws`)
    t.equal(answer.status, 426)
    t.equal(answer.headers.get('upgrade')?.toLowerCase(), 'websocket')
    t.match(await answer.json(), { statusCode: 426, code: 'UPGRADE_REQUIRED' })
  })

  t.test('a handshake on a route that is no socket is refused and its socket ended', async t => {
    for (const path of ['/', '/sessions', '/health/live', '/metrics', '/nowhere', '/ws/', '/ws/x', '/WS']) {
      const answer = await ask(handshake({}, `GET ${path} HTTP/1.1`))
      t.ok(answer.status >= 400 && answer.status < 500, `${path}: ${answer.status}`)
    }
  })

  t.test('plain routes serve requests that carry an Upgrade they do not know', async t => {
    const raw = await rawConnect(server.port)
    raw.write(
      'GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: ' +
        'h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n'
    )
    t.equal((await raw.answer()).status, 200)
    raw.write('GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n')
    t.equal((await raw.answer()).status, 200, 'and the connection goes on')
    raw.reset()
  })

  t.test('pipelined requests with foreign upgrades are answered in order, each once', async t => {
    const raw = await rawConnect(server.port)
    const upgrade = 'Connection: Upgrade\r\nUpgrade: h2c\r\n'
    raw.write(
      'GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: ' +
        `127.0.0.1\r\n${upgrade}\r\nGET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n${upgrade}\r\n`
    )
    t.strictSame(
      [(await raw.answer()).status, (await raw.answer()).status, (await raw.answer()).status], [200, 404, 200]
    )
    raw.reset()
  })

  t.test('a handshake in one packet behind another request is taken or its connection ended', async t => {
    for (const first of ['GET /sessions HTTP/1.1', 'GET /nowhere HTTP/1.1', 'GET /ws HTTP/1.1']) {
      const raw = await rawConnect(server.port)
      raw.write(`${first}\r\nHost: 127.0.0.1\r\n\r\n${handshake()}`)
      const statuses: number[] = []
      while (!raw.isEnded && statuses.at(-1) !== 101) {
        statuses.push((await raw.answer().catch(() => ({ status: 0 }))).status)
      }
      t.ok(raw.isEnded || statuses.at(-1) === 101, `${first}: ${statuses.join()}`)
      raw.reset()
    }
  })

  t.test('a handshake behind one that was refused is not answered', async t => {
    const raw = await rawConnect(server.port)
    raw.write(`${handshake({ Origin: 'https://evil.example' })}${handshake()}`)
    t.equal((await raw.answer()).status, 403)
    await raw.ended
    t.equal(raw.received.length, 0)
  })

  t.test('a body behind a foreign upgrade is a body, not a second request', async t => {
    const raw = await rawConnect(server.port)
    const smuggled = 'GET /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'
    raw.write(
      'POST /sessions/x/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: ' +
        `h2c\r\nContent-Type: application/json\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`
    )
    const answer = await raw.answer()
    t.equal(answer.status, 400)
    if (answer.headers['connection'] === 'close') {
      await raw.ended
      t.equal(raw.received.length, 0, 'nothing else was answered')
      return
    }
    raw.write('GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n')
    t.equal((await raw.answer()).status, 200, 'the next answer is that of the next request')
    raw.reset()
  })
})

t.test('headers that come slowly are cut off', async t => {
  const raw = await rawConnect(server.port)
  const startedAt = Date.now()
  const drip = setInterval(() => raw.write('X'), 200)
  raw.write('GET /ws HTTP/1.1\r\nHost: localhost\r\nX-Slow: ')
  await raw.ended
  clearInterval(drip)
  t.ok(Date.now() - startedAt < 60_000, `${Date.now() - startedAt} ms`)
})

t.test('a connection that says nothing is cut off', async t => {
  const raw = await rawConnect(server.port)
  const startedAt = Date.now()
  await raw.ended
  t.ok(Date.now() - startedAt < 60_000, `${Date.now() - startedAt} ms`)
})

t.test('secrets in the handshake are in no log line, at debug', async t => {
  const secret = 'S3CR3Tt0k3n'
  const socket = await connectSocket(`${server.wsUrl}?token=${secret}&access_token=${secret}`, {
    protocols: ['holdfast.v1', `auth.${secret}.${secret}.${secret}`],
    headers: { authorization: `Bearer ${secret}`, cookie: `sid=${secret}` }
  })
  const hello = await socket.next()
  socket.send({ command: 'echo', payload: secret, id: 1 })
  await socket.next()
  await ask(handshake({ 'Sec-WebSocket-Protocol': `chat-${secret}` }, `GET /ws?token=${secret} HTTP/1.1`))
  await ask(handshake({ Origin: 'https://evil.example' }, `GET /ws?token=${secret} HTTP/1.1`))
  await fetch(`${server.url}/nowhere?token=${secret}`, { headers: { authorization: `Bearer ${secret}` } })
  await fetch(`${server.url}/sessions?token=${secret}`)
  const wrong = await connectFull(server.wsUrl, [`resume.${hello.payload.sessionId as string}.${secret}.0`])
  wrong.socket.ws.close()
  socket.ws.close()
  await server.line(line => line.msg === 'session ended' && line['sid'] === hello.payload.sessionId)
  t.notOk(
    server.output.includes(secret),
    server.lines.map(line => JSON.stringify(line)).find(line => line.includes(secret)) ?? ''
  )
  t.notOk(server.output.includes(hello.payload.resumeToken as string), 'nor the resume token')
})

t.test('300 connects, resets and pieces of garbage leave process and descriptors as they were', async t => {
  await isServing()
  const before = server.openDescriptors()
  const valid = handshake()
  const pieces: (string | Buffer)[] = [
    '', valid, valid.slice(0, 40), valid.slice(0, -2), randomBytes(512), Buffer.alloc(2048), 'GET ', '\r\n\r\n\r\n',
    `${valid}${randomBytes(64).toString('latin1')}`,
    Buffer.concat([Buffer.from(valid), wireFrame('{', { fin: false })]),
    Buffer.concat([Buffer.from(valid), wireFrame('x', { masked: false })]),
    Buffer.concat([Buffer.from(valid), wireFrame('', { opcode: OPCODE.close })]),
    Buffer.concat([Buffer.from(valid), wireFrame('x', { opcode: 3 })]),
    handshake({ 'Sec-WebSocket-Protocol': 'holdfast.v1, resume.x.y.1' })
  ]
  for (let round = 0; round < 15; round++) {
    await Promise.all(Array.from({ length: 20 }, async (_, i) => {
      const raw = await rawConnect(server.port)
      raw.write(pieces[(round * 20 + i) % pieces.length] as string | Buffer)
      if (i % 3 === 0) raw.tcp.end()
      else if (i % 3 === 1) await new Promise(resolve => setImmediate(resolve))
      raw.reset()
      await raw.ended
    }))
  }
  t.ok(await isServing(), 'still serving')
  await eventually(`${before} descriptors, has ${server.openDescriptors()}`, () => server.openDescriptors() <= before)
})

t.test('descriptors come back from half-closed handshakes', async t => {
  await isServing()
  const before = server.openDescriptors()
  await Promise.all(Array.from({ length: 30 }, async (_, i) => {
    const raw = await rawConnect(server.port)
    raw.write(i % 2 === 0 ? handshake() : handshake().slice(0, 60))
    raw.tcp.end()
    await raw.ended
  }))
  await eventually('descriptors', () => server.openDescriptors() <= before)
  t.ok(await isServing())
})

t.test('limits of addresses and users', async t => {
  const small = await startServer({ HOLDFAST_UPGRADES_PER_MINUTE: '10', HOLDFAST_MAX_SESSIONS: '4' })
  t.teardown(async () => { await small.stop('SIGKILL') })
  const sockets = await Promise.all(Array.from({ length: 4 }, async () => await connectSocket(small.wsUrl)))
  t.teardown(() => { for (const socket of sockets) socket.ws.terminate() })
  const full = await ask(handshake(), small)
  t.equal(full.status, 503)
  t.match(JSON.parse(full.body), { code: 'SERVER_FULL' })
  t.match(full.headers['retry-after'], /^\d+$/)
  let last = full
  for (let i = 0; i < 8; i++) last = await ask(handshake({ 'X-Forwarded-For': `10.0.0.${i}` }), small)
  t.equal(last.status, 429, 'an X-Forwarded-For of the client\'s own is no other address')
  t.match(JSON.parse(last.body), {
    statusCode: 429, code: 'TOO_MANY_REQUESTS', error: 'Too Many Requests', message: String
  })
  t.match(last.headers['retry-after'], /^\d+$/)
  t.equal((await fetch(`${small.url}/health/live`)).status, 200, 'other routes go on')
})

t.test('the process never ended nor logged an unexpected error', async t => {
  t.equal(server.child.exitCode, null)
  const bad = server.lines.filter(line => line.level >= 50)
  t.strictSame(bad, [])
})

t.test('T18 an upgrade refused by the server leaves rawUpgrade of a good one untouched', async t => {
  const { answer, raw } = await rawUpgrade(server.port)
  t.equal(answer.status, 101)
  raw.reset()
})
