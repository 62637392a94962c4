import * as ws from 'ws'
import fc from 'fast-check'
import t from 'tap'
import type { Writable } from 'node:stream'
import { PROBE, PROBE_BYTES, outputFrame, textFrame } from '../../../src/io/gateway/frame-writer.js'
import { messageOutput, toBytes } from '../../../src/io/protocol/codec.js'
import type { ByteString } from '../../../src/io/types.js'
import { FUZZ_SEED } from '../../helpers/fuzz-seed.js'
import { buildOutput, decodeFrames } from '../../helpers/domain.js'

// Exported by ws 8, not in its types.
const { Receiver } = ws as unknown as { Receiver: new (options: object) => Writable }

function bufferOf (frames: ByteString): Buffer {
  return Buffer.from(frames, 'latin1')
}

/** What the WebSocket library of the other side makes of the bytes. */
async function receive (frames: ByteString): Promise<{ data: string, isBinary: boolean }[]> {
  const messages: { data: string, isBinary: boolean }[] = []
  const receiver = new Receiver({ isServer: false, allowSynchronousEvents: true })
  receiver.on('message', (data: Buffer, isBinary: boolean) => { messages.push({ data: data.toString(), isBinary }) })
  await new Promise<void>((resolve, reject) => {
    receiver.on('error', reject)
    receiver.write(bufferOf(frames), () => { resolve() })
  })
  return messages
}

t.test('RFC 6455 5.2 lengths are written in 7, 16 or 64 bits, each at its limits', async t => {
  for (const [length, header] of [
    [0, 2], [1, 2], [125, 2], [126, 4], [127, 4], [1023, 4], [1024, 4], [65_535, 4], [65_536, 10], [65_537, 10],
    [1_048_576, 10]
  ] as const) {
    const frame = textFrame('x'.repeat(length))
    t.equal(frame.length, length + header, `${length}`)
    const [message, ...more] = await receive(frame)
    t.strictSame([message?.data.length, message?.isBinary, more.length], [length, false, 0])
  }
})

t.test('RFC 6455 5.2 the length is that of the bytes, not of the characters', async t => {
  for (const text of [
    'é'.repeat(62) + 'x', 'é'.repeat(63), '漢'.repeat(42), '😀'.repeat(31), '😀'.repeat(32), 'é'.repeat(32_768),
    '\u0000', '\u2028'
  ]) {
    t.equal((await receive(textFrame(toBytes(text))))[0]?.data, text)
  }
})

t.test('outputs under any seq and any text arrive as they were, several in one string', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  const payload = fc.oneof(
    fc.jsonValue(),
    fc.string({ unit: 'grapheme' }),
    fc.integer({ min: 60, max: 140 }).map(length => 'é'.repeat(length)),
    fc.integer({ min: 65_400, max: 65_600 }).map(length => 'x'.repeat(length))
  )
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.tuple(
          fc.oneof(fc.integer({ min: 1, max: 20_000 }), fc.maxSafeNat().map(seq => seq + 1)),
          fc.string({ unit: 'binary' }),
          payload
        ),
        { minLength: 1, maxLength: 8 }
      ),
      async items => {
        const outputs = items.map(([seq, event, value]) => ({
          seq: Math.min(seq, Number.MAX_SAFE_INTEGER), output: messageOutput(event, value), value, event
        }))
        const frames = outputs.map(({ seq, output }) => outputFrame(output, seq)).join('')
        const texts = (await receive(frames)).map(({ data }) => data)
        if (texts.join('\n') !== decodeFrames(bufferOf(frames)).join('\n')) throw new Error('the decoders do not agree')
        for (const [i, { seq, event, value }] of outputs.entries()) {
          const frame = JSON.parse(texts[i] as string) as Record<string, unknown>
          const expected = JSON.stringify({ seq, type: 'message', event, payload: value })
          if (JSON.stringify(frame) !== JSON.stringify(JSON.parse(expected))) {
            throw new Error(`${texts[i]} instead of ${expected}`)
          }
        }
      }
    ),
    { seed: FUZZ_SEED, numRuns: 150 }
  )
})

t.test('P-43 a large output goes in fragments with an empty ping between them', async t => {
  for (const size of [PROBE_BYTES - 100, PROBE_BYTES, PROBE_BYTES * 2, PROBE_BYTES * 2 + 1, 400_000]) {
    const output = messageOutput('e', '漢'.repeat(size / 3))
    const frames = outputFrame(output, 7)
    const [message, ...more] = await receive(frames)
    t.strictSame([message?.data, message?.isBinary, more.length], [
      `{"seq":7${Buffer.from(output.tail, 'latin1').toString()}`, false, 0
    ])
    const fragments = Math.ceil((output.bytes + 8) / PROBE_BYTES)
    t.equal(frames.split(PROBE).length, fragments)
  }
})

t.test('the digits of a seq are counted right at every power of ten', async t => {
  const output = buildOutput(',"x":1}')
  for (let power = 1; power < Number.MAX_SAFE_INTEGER; power *= 10) {
    for (const seq of [power - 1, power, power + 1].filter(seq => seq > 0)) {
      t.strictSame(decodeFrames(bufferOf(outputFrame(output, seq))), [`{"seq":${seq},"x":1}`])
    }
  }
})
