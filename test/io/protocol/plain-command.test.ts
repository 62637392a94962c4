import fc from 'fast-check'
import t from 'tap'
import { MAX_DEPTH } from '../../../src/io/json.js'
import { readClientFrame } from '../../../src/io/protocol/codec.js'
import { readPlainCommand } from '../../../src/io/protocol/plain-command.js'
import { FUZZ_SEED } from '../../helpers/fuzz-seed.js'

const readPlain = (text: string): ReturnType<typeof readPlainCommand> => readPlainCommand(text, Buffer.from(text))

/** What the codec makes of a text by its schemas: no plain command begins with a space. */
const readWhole = (text: string): ReturnType<typeof readClientFrame> => readClientFrame(Buffer.from(` ${text}`))

/** Whether the quick way says what the other one says, where it says anything. */
function agrees (text: string): boolean {
  const plain = readPlain(text)
  return plain === undefined || JSON.stringify(sorted(plain)) === JSON.stringify(sorted(readWhole(text)))
}

/** With its members in one order; a sentence as it is. */
function sorted (frame: ReturnType<typeof readClientFrame>): unknown {
  return typeof frame === 'string' ? frame : Object.entries(frame).filter(([, value]) => value !== undefined).sort()
}

const value = fc.oneof(
  fc.integer({ min: -1, max: 10 }), fc.maxSafeNat(), fc.double(), fc.string({ unit: 'binary' }), fc.string(),
  fc.constantFrom('echo', '', 'x'.repeat(128), 'x'.repeat(129), null, true, '0', 1e21), fc.jsonValue()
)
const member = fc.tuple(fc.constantFrom('sessionId', 'command', 'payload', 'id', 'ack', 'type', 'iD'), value)
const plausible = fc.record({
  command: fc.constantFrom('echo', 'draft.approve'),
  payload: fc.oneof(fc.jsonValue(), fc.object()),
  id: fc.oneof(fc.maxSafeNat(), fc.string({ minLength: 1, maxLength: 8 })),
  ack: fc.maxSafeNat(),
  sessionId: fc.uuid()
}, { requiredKeys: ['command'] }).map(frame => Object.entries(frame))
const spelling = fc.constantFrom([',', ':'], [', ', ': '], [' ,', ' :'], [',\n', ':\t'])
const text = fc.tuple(fc.oneof(plausible, fc.array(member, { maxLength: 6 })), spelling)
  .map(([members, [comma, colon]]) =>
    `{${members.map(([name, value]) => `${JSON.stringify(name)}${colon}${JSON.stringify(value)}`).join(comma)}}`)

t.test('P-6 a command that is read in one pass is the one that its schema and the parser find', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  fc.assert(fc.property(text, agrees), { seed: FUZZ_SEED, numRuns: 5000 })
})

t.test('P-6 and so it is where characters are changed, left out or added', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  const character = fc.constantFrom(
    '"', '\\', '{', '}', '[', ']', ',', ':', ' ', '0', '9', '-', '.', 'e', '\u00e9', '\u{1f600}', '\u0000', '\ufeff',
    '"id":1', ',"ack":2', '"payload":{}', '__proto__'
  )
  const change = fc.tuple(fc.nat(), fc.nat({ max: 2 }), character)
  fc.assert(fc.property(text, fc.array(change, { minLength: 1, maxLength: 3 }), (text, changes) => {
    let changed = text
    for (const [place, removed, added] of changes) {
      const at = place % (changed.length + 1)
      changed = changed.slice(0, at) + added + changed.slice(at + removed)
    }
    return agrees(changed)
  }), { seed: FUZZ_SEED, numRuns: 20_000 })
})

t.test('P-6 what clients write is read in one pass', async t => {
  for (const [text, frame] of [
    ['{"command":"echo","payload":{"a":1},"id":1}', { command: 'echo', payload: { a: 1 }, id: 1 }],
    ['{"command": "echo", "payload": {"a": 1}, "id": 1, "ack": 0}', {
      command: 'echo', payload: { a: 1 }, id: 1, ack: 0
    }],
    ['{"sessionId":"0b5f","command":"x"}', { sessionId: '0b5f', command: 'x' }],
    ['{"id":"a-1","ack":999999999999999,"payload":[],"command":"x"}', {
      id: 'a-1', ack: 999_999_999_999_999, payload: [], command: 'x'
    }],
    ['{"payload":{"é":"\u{1f600}","b":"a\\n\\"}"},"id":12,"command":"x"}', {
      payload: { é: '\u{1f600}', b: 'a\n"}' }, id: 12, command: 'x'
    }]
  ] as const) {
    t.same(readPlain(text), frame, text)
    t.ok(agrees(text))
  }
})

t.test('P-6 what may be no command is left to the codec', async t => {
  const nested = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth)
  for (const text of [
    '', '{', '{}', '{"id":1}', '[]', '{"type":"ack","seq":1}', '{"command":"x"', '{"command":"x"} ', '{"command":"x"}x',
    '{"command":"x",}', '{"command":"x""id":1}', '{"command":""}', `{"command":"${'x'.repeat(129)}"}`,
    '{"command":"a\\u0062"}', '{"command":"é"}', '{"command":"a\u007f"}', '{"command":1}', '{"command":"x","id":0}',
    '{"command":"x","id":01}', '{"command":"x","id":1.0}', '{"command":"x","id":-1}', '{"command":"x","id":""}',
    '{"command":"x","id":1234567890123456}', '{"command":"x","ack":"1"}', '{"command":"x","ack":}',
    '{"command":"x","id":1,"id":2}', '{"command":"x","command":"x"}', '{"command":"x","payload":{},"payload":{}}',
    '{"command":"x","payload":{"a":1,"a":2}}', '{"command":"x","payload":{"a":1e400}}', '{"command":"x","payload":[}',
    '{"command":"x","payload":{"__proto__":1}}', '{"command":"x","payload":"text"}', '{"command":"x","payload":1}',
    '{"command":"x","payload":{"a":1]}', '{"command":"x","other":1}', '\ufeff{"command":"x"}',
    `{"command":"x","payload":${nested(MAX_DEPTH)}}`, `{"command":"x","payload":["${'x'.repeat(65_536)}"]}`
  ]) {
    t.equal(readPlain(text), undefined, text.slice(0, 60))
  }
  t.ok(readPlain(`{"command":"x","payload":${nested(MAX_DEPTH - 1)}}`), 'as deep as a frame may be')
})
