// What a hostile or slow client can send once it is in: each costs bounded memory and time, ends
// with a stated code, and harms nobody else.

import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { OPCODE, rawUpgrade, wireFrame, type RawSocket } from '../helpers/raw-socket.js'
import { eventually, quickest, startServer } from '../helpers/server.js'
import { connectFull, connectSocket, resumeEntry, type TestSocket } from '../helpers/socket.js'

const MIB = 1_048_576
const server = await startServer({
  HOLDFAST_UPGRADES_PER_MINUTE: '100000',
  HOLDFAST_REQUESTS_PER_MINUTE: '100000',
  HOLDFAST_COMMANDS_PER_SECOND: '5000',
  LOG_LEVEL: 'info'
})
t.teardown(async () => { await server.stop('SIGKILL') })

async function full (): Promise<RawSocket> {
  const { raw } = await rawUpgrade(server.port, { 'Sec-WebSocket-Protocol': 'holdfast.v1' })
  await raw.nextFrame()
  return raw
}

async function nextJson (
  raw: RawSocket
): Promise<{ type: string, code?: string, id?: number, seq?: number, payload?: unknown }> {
  return JSON.parse(await raw.nextText())
}

t.test('a frame that breaks the rules of RFC 6455 closes its connection with the right code', async t => {
  const cases: [string, Buffer, number][] = [
    ['P-8 a message over the limit, from the frame header alone', wireFrame('', { claim: 65_537 }), 1009],
    ['P-8 a message of 2^53 bytes', wireFrame('', { claim: Number.MAX_SAFE_INTEGER }), 1009],
    [
      'P-8 fragments that sum up to more than the limit',
      Buffer.concat([wireFrame(' '.repeat(40_000), { fin: false }), wireFrame('', { opcode: 0, claim: 40_000 })]),
      1009
    ],
    ['P-8 broken UTF-8', wireFrame(Buffer.from([0x7b, 0xff, 0xfe, 0x7d])), 1007],
    ['P-8 a lone surrogate in UTF-8', wireFrame(Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])), 1007],
    ['P-8 an overlong encoding', wireFrame(Buffer.from([0x22, 0xc0, 0xaf, 0x22])), 1007],
    ['P-8 a frame that is not masked', wireFrame('{}', { masked: false }), 1002],
    ['P-8 a reserved opcode', wireFrame('x', { opcode: 5 }), 1002],
    ['P-8 a continuation of nothing', wireFrame('x', { opcode: OPCODE.continuation }), 1002],
    ['P-8 a new message within another', Buffer.concat([wireFrame('{', { fin: false }), wireFrame('{}')]), 1002],
    ['P-8 a ping in fragments', wireFrame('x', { opcode: OPCODE.ping, fin: false }), 1002],
    ['P-8 a ping of 126 bytes', wireFrame('x'.repeat(126), { opcode: OPCODE.ping }), 1002],
    ['P-8 a reserved bit', Buffer.from([0xc1, 0x80, 0, 0, 0, 0]), 1002],
    ['P-8 a close code that may not be sent', wireFrame(Buffer.from([0x03, 0xed]), { opcode: OPCODE.close }), 1002],
    ['P-8 a close reason in broken UTF-8', wireFrame(Buffer.from([0x03, 0xe8, 0xff]), { opcode: OPCODE.close }), 1007]
  ]
  for (const [name, bytes, code] of cases) {
    t.test(`${name}: ${code}`, async t => {
      const raw = await full()
      raw.write(bytes)
      t.equal(await raw.closeCode(), code)
      await raw.ended
    })
  }

  t.test('P-8 a message of exactly the limit is read', async t => {
    const raw = await full()
    const head = '{"command":"echo","id":1,"payload":"'
    raw.write(wireFrame(`${head}${'x'.repeat(65_536 - head.length - 2)}"}`))
    t.match(await nextJson(raw), { type: 'result', id: 1 })
    raw.reset()
  })

  t.test('P-39 a session of the full profile outlives such a close', async t => {
    const { socket, hello } = await connectFull(server.wsUrl)
    socket.send(Buffer.alloc(65_537, 0x20))
    t.equal((await socket.nextClose()).code, 1009)
    const again = await connectFull(server.wsUrl, [resumeEntry(hello)])
    t.match(again.hello, { type: 'session_resumed' })
    again.socket.ws.close()
  })
})

t.test('P-6 a message that is no frame is answered BAD_FRAME and has no other effect', async t => {
  const deep = (depth: number): string => `${'['.repeat(depth)}${']'.repeat(depth)}`
  const cases: [string, string | Buffer][] = [
    ['binary (P-7)', Buffer.from('{"command":"ping"}')],
    ['nothing', ''],
    ['no JSON', 'hello'],
    ['JSON cut short', '{"command":"echo"'],
    ['two objects', '{"command":"ping"}{"command":"ping"}'],
    ['null', 'null'],
    ['an array', '[{"command":"ping"}]'],
    ['a number', '7'],
    ['no command', '{"payload":1}'],
    ['an empty command', '{"command":""}'],
    ['a command of 129 characters', JSON.stringify({ command: 'x'.repeat(129) })],
    ['a command that is an object', '{"command":{"toString":"ping"}}'],
    ['id 0', '{"command":"ping","id":0}'],
    ['id -1', '{"command":"ping","id":-1}'],
    ['id 1.5', '{"command":"ping","id":1.5}'],
    ['id 2^53', '{"command":"ping","id":9007199254740992}'],
    ['id 1e999', '{"command":"ping","id":1e999}'],
    ['id null', '{"command":"ping","id":null}'],
    ['an empty id', '{"command":"ping","id":""}'],
    ['an id of 129 characters', JSON.stringify({ command: 'ping', id: 'x'.repeat(129) })],
    ['an id that is an array', '{"command":"ping","id":[1]}'],
    ['an ack below 0', '{"type":"ack","seq":-1}'],
    ['an ack without seq', '{"type":"ack"}'],
    ['an ack of text', '{"type":"ack","seq":"1"}'],
    ['an unknown type', '{"type":"message","payload":1}'],
    ['an unknown member', '{"command":"ping","comand":1}'],
    ['a key __proto__', '{"command":"ping","payload":{"__proto__":{"polluted":1}}}'],
    ['a key __proto__ in escapes', '{"command":"ping","payload":{"\\u005f_proto__":{"polluted":1}}}'],
    ['a key __proto__ at the top', '{"__proto__":{"command":"ping"},"command":"ping"}'],
    ['a constructor.prototype', '{"command":"ping","payload":{"constructor":{"prototype":{"polluted":1}}}}'],
    ['32 arrays in the payload', `{"command":"ping","payload":${deep(32)}}`],
    ['10,000 arrays in the payload', `{"command":"ping","payload":${deep(10_000)}}`],
    ['30,000 arrays', deep(30_000)]
  ]
  for (const [name, message] of cases) {
    t.test(name, async t => {
      const { socket, hello } = await connectFull(server.wsUrl)
      socket.send(message)
      const frame = await socket.next()
      t.match(frame, { type: 'error', code: 'BAD_FRAME', payload: String, seq: undefined })
      t.notMatch(JSON.stringify(frame), /node_modules|\.js:|Unexpected token|at position/, 'no text of a library')
      socket.send({ command: 'echo', payload: {}, id: 1 })
      t.strictSame(
        await socket.next(),
        { seq: 1, type: 'result', id: 1, payload: {} },
        'the connection goes on, and nothing is polluted'
      )
      t.ok(hello)
      socket.ws.close()
    })
  }

  t.test('31 arrays in the payload are a frame', async t => {
    const { socket } = await connectFull(server.wsUrl)
    socket.send(`{"command":"echo","id":1,"payload":${deep(31)}}`)
    t.match(await socket.next(), { type: 'result', id: 1 })
    socket.ws.close()
  })

  t.test('P-45 the 11th closes the connection with 4400, after ten answers', async t => {
    const { socket } = await connectFull(server.wsUrl)
    for (let i = 0; i < 20; i++) socket.send('garbage')
    const frames = await socket.take(12)
    t.strictSame(frames.map(frame => frame.code ?? frame.type), [...new Array<string>(11).fill('BAD_FRAME'), 'goodbye'])
    t.equal((await socket.nextClose()).code, 4400)
  })
})

t.test('P-22 an ack of the future is told so and closed with 4400; the session is kept', async t => {
  const { socket, hello } = await connectFull(server.wsUrl)
  socket.send({ type: 'ack', seq: 1 })
  t.match(await socket.take(2), [{ type: 'error', code: 'BAD_ACK' }, { type: 'goodbye', payload: { code: 4400 } }])
  const again = await connectFull(server.wsUrl, [resumeEntry(hello)])
  t.match(again.hello, { type: 'session_resumed' })
  again.socket.ws.close()
})

t.test('a socket cut at any byte of a command frame never runs half a command or ends the process', async t => {
  const frame = wireFrame(JSON.stringify({ command: 'context.set', payload: { cut: 'x' }, id: 1 }))
  const outcomes = await Promise.all(Array.from({ length: frame.length + 1 }, async (_, cut) => {
    const { raw } = await rawUpgrade(server.port, { 'Sec-WebSocket-Protocol': 'holdfast.v1' })
    const { payload } = await nextJson(raw) as { payload: { sessionId: string, resumeToken: string } }
    raw.write(frame.subarray(0, cut))
    if (cut === frame.length) await raw.nextFrame()
    else await delay(20)
    raw.reset()
    await raw.ended
    const again = await connectFull(server.wsUrl, [`resume.${payload.sessionId}.${payload.resumeToken}.0`])
    again.socket.ws.close()
    return {
      cut,
      type: again.hello.type,
      watermark: again.hello.payload.lastCommand as number,
      replay: again.hello.payload.replay as object | null
    }
  }))
  for (const { cut, type, watermark, replay } of outcomes) {
    if (type !== 'session_resumed' || watermark !== (cut === frame.length ? 1 : 0) ||
        (replay !== null) !== (watermark === 1)) {
      t.fail(`cut at byte ${cut}: ${type}, watermark ${watermark}, replay ${JSON.stringify(replay)}`)
    }
  }
  t.equal(outcomes.length, frame.length + 1)
})

t.test('memory stays bounded under floods', async t => {
  /** Runs a flood and answers how much the process grew by, at the worst moment looked at. */
  async function growth (flood: () => Promise<void>): Promise<number> {
    const before = server.residentBytes()
    let most = before
    const look = setInterval(() => { most = Math.max(most, server.residentBytes()) }, 50)
    await flood()
    clearInterval(look)
    return Math.max(most, server.residentBytes()) - before
  }

  t.test('20 unfinished messages of 60 KiB, and of 10,000 fragments', async t => {
    const raws: RawSocket[] = []
    const grown = await growth(async () => {
      for (let i = 0; i < 20; i++) {
        const raw = await full()
        raws.push(raw)
        if (i % 2 === 0) {
          raw.write(wireFrame('x'.repeat(60_000), { claim: 65_536 }))
        } else {
          raw.write(wireFrame('[', { fin: false }))
          raw.write(Buffer.concat(Array.from({ length: 10_000 }, () => wireFrame(
            ' ', { opcode: OPCODE.continuation, fin: false }
          ))))
          t.ok([1008, 1009].includes(await raw.closeCode()), 'too many fragments are cut off')
        }
      }
    })
    for (const raw of raws) raw.reset()
    t.ok(grown < 64 * MIB, `${(grown / MIB).toFixed(1)} MiB`)
  })

  t.test('empty fragments without end', async t => {
    const raw = await full()
    raw.write(wireFrame('', { fin: false }))
    const piece = Buffer.concat(Array.from({ length: 5000 }, () => wireFrame(
      '', { opcode: OPCODE.continuation, fin: false }
    )))
    const grown = await growth(async () => {
      for (let i = 0; i < 20 && !raw.isEnded; i++) {
        raw.write(piece)
        await delay(5)
      }
      await raw.ended
    })
    t.ok(grown < 64 * MIB, `${(grown / MIB).toFixed(1)} MiB`)
  })

  t.test('100,000 pings whose pongs nobody reads', async t => {
    const raw = await full()
    raw.tcp.pause()
    const piece = Buffer.concat(Array.from({ length: 1000 }, () => wireFrame('x'.repeat(100), { opcode: OPCODE.ping })))
    const grown = await growth(async () => {
      for (let i = 0; i < 100 && !raw.tcp.destroyed; i++) {
        if (!raw.tcp.write(piece)) {
          await Promise.race([new Promise(resolve => raw.tcp.once('drain', resolve)), raw.ended, delay(300)])
        }
      }
    })
    raw.reset()
    t.ok(grown < 64 * MIB, `${(grown / MIB).toFixed(1)} MiB`)
  })

  t.test('P-26 a client that sends commands and never reads is cut off with 4101', async t => {
    const { raw } = await rawUpgrade(server.port, { 'Sec-WebSocket-Protocol': 'holdfast.v1' })
    const { payload } = await nextJson(raw) as { payload: { sessionId: string, resumeToken: string } }
    raw.tcp.pause()
    const state = async (): Promise<string> => {
      const answer = await fetch(`${server.url}/sessions/${payload.sessionId}`)
      return (await answer.json() as { state: string }).state
    }
    const body = 'x'.repeat(20_000)
    const grown = await growth(async () => {
      for (let id = 1; id <= 2000 && !raw.tcp.destroyed; id++) {
        if (!raw.tcp.write(wireFrame(JSON.stringify({ command: 'echo', payload: body, id })))) {
          await Promise.race([new Promise(resolve => raw.tcp.once('drain', resolve)), raw.ended, delay(500)])
        }
        if (id % 100 === 0 && await state() === 'detached') break
      }
    })
    await eventually('the session is detached', async () => await state() === 'detached')
    t.ok(grown < 64 * MIB, `${(grown / MIB).toFixed(1)} MiB`)
    t.match(
      await server.line(line => line['sid'] === payload.sessionId && line.msg === 'session detached'),
      { reason: 'slow_consumer' }
    )
    raw.reset()
    const again = await connectFull(server.wsUrl, [`resume.${payload.sessionId}.${payload.resumeToken}.0`])
    t.match(
      again.hello,
      { type: 'session_resumed', payload: { gap: { from: 1, to: Number } } },
      'and told which outputs it will never get'
    )
    again.socket.ws.close()
  })

  t.test('P-26 in the basic profile too, and its session ends (P-37)', async t => {
    const { raw } = await rawUpgrade(server.port)
    const { payload: { sessionId } } = await nextJson(raw) as { payload: { sessionId: string } }
    raw.tcp.pause()
    const status = async (): Promise<number> => (await fetch(`${server.url}/sessions/${sessionId}`)).status
    const body = 'x'.repeat(20_000)
    const grown = await growth(async () => {
      for (let n = 1; n <= 2000 && !raw.tcp.destroyed; n++) {
        if (!raw.tcp.write(wireFrame(JSON.stringify({ command: 'echo', payload: body, id: `b${n}`, sessionId })))) {
          await Promise.race([new Promise(resolve => raw.tcp.once('drain', resolve)), raw.ended, delay(500)])
        }
        if (n % 100 === 0 && await status() === 410) break
      }
    })
    await eventually('the session has ended', async () => await status() === 410)
    t.ok(grown < 64 * MIB, `${(grown / MIB).toFixed(1)} MiB`)
    raw.reset()
  })

  t.test('P-26 a client that does not read what operators send is cut off with 4101', async t => {
    const { raw } = await rawUpgrade(server.port, { 'Sec-WebSocket-Protocol': 'holdfast.v1' })
    const { payload } = await nextJson(raw) as { payload: { sessionId: string } }
    raw.tcp.pause()
    const body = JSON.stringify({ event: 'flood', payload: 'y'.repeat(60_000) })
    const grown = await growth(async () => {
      for (let i = 0; i < 200; i++) {
        const answer = await fetch(`${server.url}/sessions/${payload.sessionId}/messages`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body
        })
        if (answer.status !== 202) t.fail(`status ${answer.status}`)
        await answer.arrayBuffer()
      }
    })
    t.ok(grown < 64 * MIB, `${(grown / MIB).toFixed(1)} MiB`)
    t.match(await (await fetch(`${server.url}/sessions/${payload.sessionId}`)).json(), { state: 'detached' })
    raw.tcp.resume()
    t.equal(await raw.closeCode(), 4101, 'a client that reads at last is told')
    await fetch(`${server.url}/sessions/${payload.sessionId}`, { method: 'DELETE' })
  })
})

t.test('P-46 a client that goes on after refusals for rate is closed with 4102, and its session is kept', async t => {
  const small = await startServer({ HOLDFAST_COMMANDS_PER_SECOND: '1' })
  t.teardown(async () => { await small.stop('SIGKILL') })
  const { socket, hello } = await connectFull(small.wsUrl)
  const startedAt = performance.now()
  for (let i = 0; i < 300; i++) socket.send({ command: 'ping', id: `n${i}` })
  const { code } = await socket.nextClose()
  t.equal(code, 4102)
  const codes = socket.waiting.map(frame => frame.code ?? frame.type)
  const results = codes.filter(code => code === 'result').length
  const earned = Math.ceil((performance.now() - startedAt) / 1000)
  t.ok(results >= 2 && results <= 2 + earned, `${results} were accepted: twice the rate, and one a second`)
  t.equal(codes.filter(code => code === 'RATE_LIMITED').length, 100)
  t.ok(socket.waiting.filter(frame => frame.code === 'RATE_LIMITED').every(frame => Number(frame['retryAfterMs']) > 0))
  const again = await connectFull(small.wsUrl, [resumeEntry(hello)])
  t.match(again.hello, { type: 'session_resumed' })
  again.socket.ws.close()
})

t.test('a slow and hostile client does not delay another: p99 below 250 ms', async t => {
  const other = await connectSocket(server.wsUrl, { protocols: ['holdfast.v1'] })
  await other.next()
  let id = 0
  async function roundTrips (count: number): Promise<number[]> {
    const times: number[] = []
    while (times.length < count) {
      const startedAt = performance.now()
      other.send({ command: 'echo', payload: ++id, id })
      const frame = await other.nextOf('result')
      if (frame.payload !== id) t.fail(JSON.stringify(frame))
      times.push(performance.now() - startedAt)
    }
    return times.sort((a, b) => a - b)
  }
  const noise = Buffer.concat(Array.from({ length: 50 }, (_, i) => wireFrame(JSON.stringify({
    command: 'echo', payload: 'z'.repeat(2000), id: `h${i}`
  }))))
  const p99 = await quickest(250, async () => {
    const hostile = await full()
    hostile.tcp.pause()
    const stop = new AbortController()
    const flood = (async () => {
      while (!stop.signal.aborted && !hostile.tcp.destroyed) {
        hostile.tcp.write(noise)
        await delay(10)
      }
    })()
    const times = await roundTrips(200)
    stop.abort()
    await flood
    hostile.reset()
    return times[197] as number
  })
  other.ws.close()
  t.ok(p99 < 250, `p99 ${p99.toFixed(1)} ms`)
})

t.test('churn gives back descriptors and the list of sessions', async t => {
  const before = server.openDescriptors()
  const sockets: TestSocket[] = []
  for (let i = 0; i < 10; i++) {
    sockets.push(...(await Promise.all(Array.from({ length: 20 }, async () => await connectSocket(server.wsUrl)))))
  }
  for (const socket of sockets) socket.ws.terminate()
  await eventually('descriptors', () => server.openDescriptors() <= before + 2)
  await eventually('the list of sessions', async () => {
    const { data } = await (await fetch(`${server.url}/sessions?state=active`)).json() as { data: unknown[] }
    return data.length === 0
  })
  t.pass('nothing is left')
})

t.test('the process never ended nor logged an unexpected error, and its log stayed small', async t => {
  t.equal(server.child.exitCode, null)
  t.strictSame(server.lines.filter(line => line.level >= 50), [])
  t.ok(server.output.length < 2 * MIB, `${server.output.length} bytes`)
})
