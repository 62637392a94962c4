// The judge of the chaos run on its own: histories that are right pass, and each kind of wrong is
// named. Then the proxy, whose faults have to strike where the plan says, and the plan, which a
// seed has to repeat.

import t, { type Test } from 'tap'
import { createServer, connect, type AddressInfo, type Socket } from 'node:net'
import { runChaos } from '../../conformance/chaos/run.js'
import { planChaos } from '../../conformance/chaos/plan.js'
import { checkHistory, type ClientEvent, type ClientHistory } from '../../conformance/checker.js'
import { OPCODE, encodeFrame } from '../../conformance/frames.js'
import { readOptions, UsageError } from '../../conformance/options.js'
import { createCutter, createProxy, type Fault } from '../../conformance/proxy.js'
import { freePort } from '../helpers/free-port.js'
import { startReferenceServer } from './reference-server.js'

type Resumed = Extract<ClientEvent, { kind: 'resumed' }>

const created: ClientEvent = { kind: 'created' }
const closed: ClientEvent = { kind: 'closed' }
const live: ClientEvent = { kind: 'live' }
const sent = (id: number): ClientEvent => ({ kind: 'sent', id })
const result = (seq: number, id: number): ClientEvent => ({ kind: 'output', seq, id, mark: `result ${id}` })
const message = (seq: number, mark: string): ClientEvent => ({ kind: 'output', seq, id: undefined, mark })
const resumed = (given: Partial<Resumed>): ClientEvent => ({
  kind: 'resumed',
  offered: 0,
  lastCommand: 0,
  replay: null,
  gap: null,
  ...given
})

/** Two commands; outputs 1 and 2 answer them, output 3 is a note, output 4 the last answer. */
const whole: readonly ClientEvent[] = [
  created, sent(1), sent(2), result(1, 1), result(2, 2), message(3, 'note'), message(4, 'final')
]

function history (events: readonly ClientEvent[], more: Partial<ClientHistory> = {}): ClientHistory {
  return {
    client: 1,
    commands: 2,
    events,
    finalSeq: 4,
    executions: new Map([[1, 1], [2, 1]]),
    produced: [{ mark: 'note', seq: 3 }],
    ...more
  }
}

t.test('checker', async (t) => {
  t.test('passes a history without a break', async (t) => {
    t.same(checkHistory(history(whole)).problems, [])
  })

  t.test('passes a break with a replay and counts it', async (t) => {
    const verdict = checkHistory(history([
      created, sent(1), sent(2), result(1, 1), closed,
      resumed({ offered: 1, lastCommand: 2, replay: { from: 2, to: 3 } }), result(2, 2), message(3, 'note'), live,
      message(4, 'final')
    ]))
    t.same(verdict.problems, [])
    t.match(verdict, { resumes: 1, replayed: 2, lost: 0, doubled: 0 })
  })

  t.test('passes a gap that takes an answer and a note', async (t) => {
    const verdict = checkHistory(history([
      created, sent(1), sent(2), result(1, 1), closed,
      resumed({ offered: 1, lastCommand: 2, gap: { from: 2, to: 3 } }), live, sent(2),
      { kind: 'refused', id: 2, code: 'RESULT_EXPIRED' }, message(4, 'final')
    ]))
    t.same(verdict.problems, [])
    t.match(verdict, { gaps: 1, gapOutputs: 2, expired: 1 })
  })

  t.test('passes an answer that comes again because it was asked for again', async (t) => {
    const verdict = checkHistory(history([
      created, sent(1), sent(2), result(1, 1), result(2, 2), sent(1), result(1, 1), message(3, 'note'),
      message(4, 'final')
    ]))
    t.same(verdict.problems, [])
    t.equal(verdict.repeats, 1)
  })

  const wrong: Record<string, [
    events: readonly ClientEvent[], problem: RegExp, counts: object, more?: Partial<ClientHistory>
  ]> = {
    'an output that never came': [whole.filter((event) => event !== whole[5]), /output 3 never came/, { lost: 2 }],
    'an answer that never came': [
      [created, sent(1), sent(2), result(1, 1), message(2, 'other'), message(3, 'note'), message(4, 'final')],
      /command 2 was not answered/,
      { lost: 1 }
    ],
    'an output that came twice': [
      [...whole.slice(0, 6), message(3, 'note'), message(4, 'final')], /output 3 came again unasked/, { doubled: 1 }
    ],
    'an answer that came twice, asked for once': [
      [...whole.slice(0, 5), result(1, 1), message(3, 'note'), message(4, 'final')],
      /output 1 came again unasked/,
      { doubled: 1 }
    ],
    'a seq that came with two contents': [
      [
        ...whole.slice(0, 5),
        sent(1),
        { kind: 'output', seq: 1, id: 1, mark: 'other' },
        message(3, 'note'),
        message(4, 'final')
      ],
      /other content/,
      {}
    ],
    'two answers to one command': [
      [created, sent(1), sent(2), result(1, 1), result(2, 2), result(3, 2), message(4, 'note'), message(5, 'final')],
      /answered 2 times/,
      { doubled: 1 },
      { finalSeq: 5, produced: [{ mark: 'note', seq: 4 }] }
    ],
    'outputs out of order': [
      [created, sent(1), sent(2), result(2, 2), result(1, 1), message(3, 'note'), message(4, 'final')],
      /output 1 came after output 2/,
      { reordered: 1 }
    ],
    'an execution too many': [
      whole, /command 2 was executed 2 times/, { doubled: 1 }, { executions: new Map([[1, 1], [2, 2]]) }
    ],
    'an execution too few': [whole, /command 2 was not executed/, { lost: 1 }, { executions: new Map([[1, 1]]) }],
    'a gap that begins too late': [
      [
        created,
        sent(1),
        sent(2),
        result(1, 1),
        closed,
        resumed({ offered: 1, lastCommand: 2, gap: { from: 3, to: 3 } }),
        live,
        message(4, 'final')
      ],
      /gap 3\.\.3 after output 1/,
      {}
    ],
    'a gap that was told too long': [
      [
        created,
        sent(1),
        sent(2),
        result(1, 1),
        result(2, 2),
        closed,
        resumed({ offered: 2, lastCommand: 2, gap: { from: 3, to: 4 } }),
        live,
        message(4, 'final')
      ],
      /output 4 came, though it was reported as a gap/,
      {}
    ],
    'a gap that was not told': [
      [
        created, sent(1), sent(2), result(1, 1), result(2, 2), closed, resumed({ offered: 2, lastCommand: 2 }), live,
        message(4, 'final')
      ],
      /output 3 never came/,
      { lost: 2 }
    ],
    'a replay that begins too late': [
      [
        created,
        sent(1),
        sent(2),
        result(1, 1),
        closed,
        resumed({ offered: 1, lastCommand: 2, replay: { from: 3, to: 3 } }),
        message(3, 'note'),
        live,
        message(4, 'final')
      ],
      /replay 3\.\.3 after output 1/,
      { lost: 2 }
    ],
    'live before the replay was over': [
      [
        created,
        sent(1),
        sent(2),
        result(1, 1),
        closed,
        resumed({ offered: 1, lastCommand: 2, replay: { from: 2, to: 3 } }),
        result(2, 2),
        live,
        message(3, 'note'),
        message(4, 'final')
      ],
      /live after output 2/,
      {}
    ],
    'new output before live': [
      [
        created, sent(1), sent(2), result(1, 1), closed, resumed({ offered: 1, lastCommand: 2 }), result(2, 2), live,
        message(3, 'note'), message(4, 'final')
      ],
      /came before live/,
      {}
    ],
    'a watermark that went back': [
      [
        created, sent(1), sent(2), result(1, 1), result(2, 2), closed, resumed({ offered: 2, lastCommand: 1 }), live,
        message(3, 'note'), message(4, 'final')
      ],
      /lastCommand 1/,
      {}
    ],
    'a session that was gone': [
      [...whole, closed, { kind: 'ended', reason: 'unknown' }], /the session was gone/, { lost: 1 }
    ],
    'outputs that nobody asked for': [
      [...whole.slice(0, 6), message(4, 'stray'), message(5, 'final')],
      /5 outputs were numbered, 4 were due/,
      {},
      { finalSeq: 5 }
    ],
    'a note under another seq than told': [
      whole, /was given seq 2 and came as 3/, {}, { produced: [{ mark: 'note', seq: 2 }] }
    ],
    'a client that did not finish': [whole, /did not finish/, {}, { finalSeq: undefined }]
  }
  for (const [what, [events, problem, counts, more]] of Object.entries(wrong)) {
    t.test(`names ${what}`, async (t) => {
      const verdict = checkHistory(history(events, more))
      t.match(verdict.problems.join('\n'), problem)
      t.match(verdict, counts)
    })
  }
})

t.test('plan', async (t) => {
  const size = { clients: 7, commands: 100, cuts: 50, seed: 3, limitSeconds: 1, coreFaults: false }

  t.test('is repeated by its seed', async (t) => {
    t.same(planChaos(size), planChaos(size))
    t.notSame(planChaos(size), planChaos({ ...size, seed: 4 }))
  })

  t.test('shares out exactly the commands and cuts asked for', async (t) => {
    const plans = planChaos(size)
    t.equal(plans.reduce((sum, { commands }) => sum + commands.length, 0), 100)
    t.equal(plans.reduce((sum, { faults }) => sum + faults.length, 0), 50)
  })
})

t.test('proxy', async (t) => {
  const head = Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  const frames = [5, 200, 70_000].map((size) => encodeFrame(OPCODE.text, Buffer.alloc(size, 'x')))
  const stream = Buffer.concat([head, ...frames])
  const starts = [0, head.length, head.length + frames[0]!.length, head.length + frames[0]!.length + frames[1]!.length]

  function cutAt (fault: Pick<Fault, 'frame' | 'offset'>, chunkBytes: number): number {
    const cutter = createCutter()
    let passed = 0
    for (let at = 0; at < stream.length;) {
      const { passBytes, fires } = cutter.next(stream.subarray(at, Math.min(stream.length, at + chunkBytes)), fault)
      passed += passBytes
      at += passBytes
      if (fires) return passed
    }
    return -1
  }

  t.test('finds every boundary and every byte, however the stream arrives in pieces', async (t) => {
    for (const chunkBytes of [1, 2, 3, 7, 64, 1000, stream.length]) {
      for (const [frame, start] of starts.entries()) {
        t.equal(cutAt({ frame, offset: 0 }, chunkBytes), start, `before frame ${frame} in chunks of ${chunkBytes}`)
        t.equal(
          cutAt({ frame, offset: 3 }, chunkBytes), start + 3, `3 bytes into frame ${frame} in chunks of ${chunkBytes}`
        )
        t.equal(
          cutAt({ frame, offset: Number.MAX_SAFE_INTEGER }, chunkBytes),
          starts[frame + 1] ?? stream.length,
          `behind frame ${frame} in chunks of ${chunkBytes}`
        )
      }
    }
  })

  /**
   * Sends the stream through a lane to a server that collects it; gives what came, and how the
   * client's side ended.
   */
  async function send (t: Test, faults: readonly Fault[]): Promise<{ received: Buffer, ended: string }> {
    const chunks: Buffer[] = []
    const accepted: Socket[] = []
    let onServerEnd = () => {}
    const serverEnded = new Promise<void>((resolve) => { onServerEnd = resolve })
    const server = createServer((socket) => {
      accepted.push(socket)
      socket.on('close', onServerEnd)
      socket.on('data', (bytes: Buffer) => {
        chunks.push(bytes)
        if (Buffer.concat(chunks).length === stream.length) socket.end('done')
      })
      socket.on('error', () => {})
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const proxy = createProxy(new URL(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`))
    t.teardown(async () => {
      await proxy.close()
      for (const socket of accepted) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    })
    const lane = await proxy.lane(() => faults)
    const client = connect(Number(lane.url.port), '127.0.0.1')
    client.write(stream)
    const ended = await new Promise<string>((resolve) => {
      client.on('error', (error: NodeJS.ErrnoException) => resolve(String(error.code)))
      client.on('end', () => resolve('end'))
      client.on('close', () => resolve('close'))
      client.resume()
    })
    await serverEnded
    return { received: Buffer.concat(chunks), ended }
  }

  const place = { direction: 'up' as const, frame: 2, offset: 10, ms: 20 }

  t.test('passes everything without a fault', async (t) => {
    t.strictSame((await send(t, [])).received.equals(stream), true)
  })
  t.test('cuts after exactly the bytes asked for', async (t) => {
    t.equal((await send(t, [{ ...place, kind: 'cut' }])).received.length, starts[2]! + 10)
  })
  t.test('resets', async (t) => {
    t.equal((await send(t, [{ ...place, kind: 'reset' }])).ended, 'ECONNRESET')
  })
  t.test('stalls, then lets go of the client', async (t) => {
    t.equal((await send(t, [{ ...place, kind: 'stall' }])).received.length, starts[2]! + 10)
  })
  t.test('half-closes: the server reads an end after the bytes asked for', async (t) => {
    t.equal((await send(t, [{ ...place, kind: 'half-close' }])).received.length, starts[2]! + 10)
  })
  t.test('delays without losing or changing a byte', async (t) => {
    t.ok((await send(t, [{ ...place, kind: 'delay' }])).received.equals(stream))
  })
})

t.test('chaos', async (t) => {
  async function run (mutant?: 'executes duplicates' | 'drops while detached') {
    const port = await freePort()
    const server = await startReferenceServer({
      coreUrl: `http://127.0.0.1:${port}`,
      ...(mutant === undefined ? {} : { mutant })
    })
    const options = readOptions([
      '--url', server.url, '--admin', server.admin, '--core', `127.0.0.1:${port}`, '--chaos', '--clients', '8',
      '--commands', '160', '--cuts', '40', '--seed', '11'
    ])
    if (options === 'help' || options.chaos === undefined) throw new Error('these are chaos options')
    try {
      return await runChaos(options, options.chaos)
    } finally {
      await server.close()
    }
  }

  t.test('finds nothing lost, doubled or out of order with the reference server', async (t) => {
    const report = await run()
    t.same(report.verdict.problems, [])
    t.equal(report.exitCode, 0)
    t.match(report.lines.join('\n'), /seed 11[^]*cuts 40[^]*lost 0, doubled 0, reordered 0/)
  })
  t.test('finds executions too many', async (t) => {
    const report = await run('executes duplicates')
    t.ok(report.verdict.doubled > 0)
    t.equal(report.exitCode, 1)
  })
})

t.test('options', async (t) => {
  t.test('refuses what it cannot use and says why', async (t) => {
    for (const args of [
      [], ['ws://x', '--url', 'ws://x'], ['ws://x', 'ws://y'], ['http://127.0.0.1'], ['--url', 'http://127.0.0.1'],
      ['--url', 'ws://x', '--profile', 'some'], ['--url', 'ws://x', '--timeout-ms', '-1'],
      ['--url', 'ws://x', '--core', 'here'], ['--url', 'ws://x', '--colour'],
      ['--url', 'ws://x', '--chaos', '--clients', '0'], ['ws://x', '--only', 'P-12,P12'],
      ['ws://x', '--only', 'P-36b'], ['ws://x', '--only', ''], ['ws://x', '--only', 'constructor']
    ]) {
      t.throws(() => readOptions(args), UsageError, args.join(' '))
    }
  })
  t.test('takes the rules that there are', async (t) => {
    t.match(readOptions(['ws://127.0.0.1/ws', '--only', 'P-12, P-36']), { only: ['P-12', 'P-36'] })
  })
  t.test('takes the address by itself, or as an option', async (t) => {
    t.match(readOptions(['ws://127.0.0.1/ws', '--verbose']), { url: 'ws://127.0.0.1/ws', verbose: true })
    t.match(readOptions(['--url', 'ws://127.0.0.1/ws']), { url: 'ws://127.0.0.1/ws' })
  })
  t.test('draws a seed where none is given, and keeps a given one', async (t) => {
    const drawn = readOptions(['--url', 'ws://127.0.0.1/ws', '--chaos'])
    t.match(drawn, { chaos: { clients: 200, commands: 20_000, cuts: 5000, seed: Number } })
    t.match(readOptions(['--url', 'ws://127.0.0.1/ws', '--chaos', '--seed', '9']), { chaos: { seed: 9 } })
  })
})
