import fc from 'fast-check'
import t from 'tap'
import { commandError, ERRORS, HoldfastError } from '../../../src/io/errors.js'
import { CLOSE, closeAction } from '../../../src/io/protocol/close-codes.js'
import {
  errorFrame, errorOutput, firstProblem, frameBytes, goodbyeFrame, messageOutput, readClientFrame, readFrameId,
  refusalFrame, resultOutput, substituteOf
} from '../../../src/io/protocol/codec.js'
import { MAX_DEPTH } from '../../../src/io/json.js'
import { FUZZ_SEED } from '../../helpers/fuzz-seed.js'

const read = (text: string): ReturnType<typeof readClientFrame> => readClientFrame(Buffer.from(text))

function holdsProtoKey (value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  return Object.entries(value).some(([key, member]) => key === '__proto__' ||
    (key === 'constructor' && typeof member === 'object' && member !== null && Object.hasOwn(member, 'prototype')) ||
    holdsProtoKey(member))
}

t.test('P-6 every JSON payload arrives as it was sent', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  fc.assert(
    fc.property(
      fc.jsonValue({ maxDepth: 20 }),
      fc.option(fc.oneof(fc.integer({ min: 1 }), fc.string({ minLength: 1, maxLength: 128 })), { nil: undefined }),
      (payload, id) => {
        const text = JSON.stringify({ command: 'echo', payload, id })
        const value = JSON.parse(text) as { payload: unknown }
        const frame = read(text)
        if (holdsProtoKey(value)) return typeof frame === 'string'
        return JSON.stringify(frame) === JSON.stringify(value)
      }
    ),
    { seed: FUZZ_SEED, numRuns: 1000 }
  )
})

t.test('P-10 every JSON value is printed as JSON prints it, with its length in bytes', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  fc.assert(fc.property(fc.jsonValue(), fc.string({ unit: 'binary' }), fc.integer({ min: 1 }), (payload, text, id) => {
    for (const [output, expected] of [
      [messageOutput(text, payload), { seq: 7, type: 'message', event: text, payload }],
      [resultOutput(id, payload), { seq: 7, type: 'result', id, payload }],
      [resultOutput(text, payload), { seq: 7, type: 'result', id: text, payload }],
      [resultOutput(undefined, payload), { seq: 7, type: 'result', payload }],
      [errorOutput(id, 'CODE', text), { seq: 7, type: 'error', code: 'CODE', id, payload: text }]
    ] as const) {
      if (JSON.stringify(JSON.parse(
        `{"seq":7${Buffer.from(output.tail, 'latin1').toString()}`
      )) !== JSON.stringify(JSON.parse(JSON.stringify(expected)))) {
        return false
      }
      if (output.bytes !== output.tail.length) return false
      if (output.commandId !== ('id' in expected && typeof expected.id === 'number' ? id : 0)) return false
    }
    return true
  }), { seed: FUZZ_SEED, numRuns: 500 })
})

t.test('P-6 bytes of any kind never throw, and what is no frame is a sentence without their text', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 300 }),
        fc.json().map(text => Buffer.from(text)),
        fc.string({ unit: 'binary' }).map(text => Buffer.from(text))
      ),
      bytes => {
        const frame = readClientFrame(Buffer.from(bytes))
        return typeof frame === 'object'
          ? 'command' in frame || frame.type === 'ack' || frame.type === 'end' || frame.type === 'ping'
          : frame.endsWith('.') && frame.length < 400
      }
    ),
    { seed: FUZZ_SEED, numRuns: 2000 }
  )
})

t.test('P-6 __proto__ is found in every spelling and at every depth, constructor.prototype too', async t => {
  const spellings = [
    '__proto__',
    '\\u005f_proto__',
    '_\\u005Fproto__',
    '__\\u0070roto__',
    '\\u005f\\u005f\\u0070\\u0072\\u006f\\u0074\\u006f\\u005f\\u005f',
    '__prot\\u006F__'
  ]
  for (const key of spellings) {
    for (const text of [
      `{"command":"x","payload":{"${key}":{"a":1}}}`, `{"command":"x","payload":[[{"b":{"${key}":1}}]]}`,
      `{"command":"x","payload":{"${key}" \n\t : 1}}`, `{"${key}":{},"command":"x"}`
    ]) {
      t.type(read(text), 'string', text)
    }
  }
  for (const key of ['constructor', '\\u0063onstructor', 'construct\\u006fr']) {
    for (const inner of ['prototype', 'pro\\u0074otype']) {
      t.type(read(`{"command":"x","payload":{"${key}":{"${inner}":{"a":1}}}}`), 'string')
    }
  }
  t.equal(({} as Record<string, unknown>).a, undefined)
})

t.test('P-6 the words alone are harmless: as values, and parts of other keys', async t => {
  for (const payload of [
    '__proto__',
    'constructor',
    { proto: 1 },
    { prototype: 1 },
    { constructor: 'x' },
    { __proto: 1, my__proto__: 2 },
    ['__proto__', { key: '__proto__' }],
    'a "__proto__" b',
    { text: '{"__proto__":1}' }
  ]) {
    const text = JSON.stringify({ command: 'x', payload })
    t.same(read(text), JSON.parse(text), text)
  }
})

t.test('P-6 the depth is that of the whole frame, in arrays and in objects', async t => {
  const nest = (open: string, close: string, depth: number): string =>
    `{"command":"x","payload":${open.repeat(depth)}${open === '[' ? '' : '1'}${close.repeat(depth)}}`
  for (const [open, close] of [['[', ']'], ['{"a":', '}']] as const) {
    t.type(read(nest(open, close, MAX_DEPTH - 1)), 'object')
    t.equal(read(nest(open, close, MAX_DEPTH)), 'The frame is malformed: the text is nested deeper than 32.')
    t.type(read(nest(open, close, 20_000)), 'string')
  }
  t.type(
    read(`{"command":"x","payload":[${`${'['.repeat(30)}${']'.repeat(30)},`.repeat(50)}1]}`),
    'object',
    'wide is not deep'
  )
})

t.test('P-6 the sentence names the member at fault and nothing of its value', async t => {
  for (const [text, member] of [
    ['{"command":"x","ack":"secret"}', '/ack'], ['{"command":["secret"]}', '/command'],
    ['{"type":"ack","seq":"secret"}', '/seq'], ['{"command":"x","acks":"secret"}', 'acks'],
    ['{"type":"end","more":"secret"}', 'more'], ['{"type":"secret","command":"x"}', 'type']
  ] as const) {
    t.match(read(text), member)
    t.notMatch(read(text), 'secret')
  }
  t.equal(firstProblem([]), 'it has a member that is not allowed')
  t.equal(
    firstProblem([
      { instancePath: '', message: 'schema is false' }, { instancePath: '', message: 'must be an object' }
    ]),
    'the top level must be an object'
  )
  t.ok((read(`{"command":"x","${'y'.repeat(5000)}":1}`) as string).length < 300)
})

t.test('P-6 the id is read from whatever has one at its outermost level', async t => {
  const id = (text: string): unknown => readFrameId(Buffer.from(text))
  const ofJson: Record<string, unknown> = {
    '{"command":5,"id":7}': 7,
    '{"id":"a","lane":1}': 'a',
    '{"command":"x","id":7,"payload":{"__proto__":1}}': 7,
    [`{"id":7,"command":"x","payload":${'['.repeat(20_000)}${']'.repeat(20_000)}}`]: 7,
    '{"\\u0069d":7}': 7,
    '{"id":7,"id":8}': 8
  }
  const notJson: Record<string, unknown> = {
    '{"command":"x","id":7,"payload":NaN}': 7,
    '{"command":"x","payload":[1,-Infinity],"id":"a"}': 'a',
    '{"id":7,"command":"x","payload":{"id":8,"n":NaN}}': 7,
    '{"command":"\\"id\\":9","id":7,}': 7,
    ' {"id" : 7 , "command":"ec': 7,
    "{'command':'x',\"id\":7}": 7
  }
  for (const [text, expected] of Object.entries({ ...ofJson, ...notJson })) {
    t.equal(id(text), expected, text.slice(0, 60))
  }
})

t.test('P-6 no id is read where there is none, or none that can be trusted', async t => {
  const texts = [
    '', 'id', '7', 'null', '"id"', '[{"id":7}]', '{}', '{"payload":{"id":7}}', '{"id":0}', '{"id":1.5}', '{"id":""}',
    '{"id":null}', '{"id":{}}', `{"id":"${'x'.repeat(129)}"}`,
    // not JSON
    '{"payload":{"id":7},NaN}', '{"id":7,"id":8,NaN}', '[NaN,{"id":7}]', '{"a":"id":7', '{"id":NaN}', '{"id":[7],NaN}',
    '{"command":"\\"id\\":9,NaN}', 'x{"id":7}'
  ]
  for (const text of texts) t.equal(readFrameId(Buffer.from(text)), undefined, text.slice(0, 60))
  t.comment(`seed ${FUZZ_SEED}`)
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 300 }),
        fc.array(fc.constantFrom('{', '}', '[', ']', ':', ',', '"', '\\', 'id', '"id"', '7', ' ', 'NaN')).map(
          parts => Buffer.from(parts.join(''))
        )
      ),
      bytes => {
        const read = readFrameId(Buffer.from(bytes))
        return read === undefined || typeof read === 'string' || Number.isSafeInteger(read)
      }
    ),
    { seed: FUZZ_SEED, numRuns: 2000 }
  )
  t.equal(readFrameId(Buffer.from(`{"id":7,"a":"${'\\\\'.repeat(500_000)}`)), 7, 'and a long string costs no stack')
})

t.test('P-50 the size of an output is that of its text, and what takes its place says what was lost', async t => {
  for (const [output, seq] of [
    [messageOutput('é', 'ü"\n'), 9], [resultOutput('😀', [1]), 10], [errorOutput(1, 'X', 'x'), Number.MAX_SAFE_INTEGER]
  ] as const) {
    t.equal(frameBytes(output, seq), Buffer.byteLength(`{"seq":${seq}${Buffer.from(output.tail, 'latin1').toString()}`))
  }
  const read = (output: ReturnType<typeof messageOutput>): unknown => JSON.parse(
    `{"seq":1${Buffer.from(output.tail, 'latin1').toString()}`
  )
  const large = messageOutput('e', 'x')
  t.strictSame(read(substituteOf(large, 1)), {
    seq: 1,
    type: 'gap',
    payload: { reason: 'too_large', bytes: frameBytes(large, 1) }
  })
  const lost = { seq: 1, type: 'error', code: 'RESULT_TOO_LARGE', payload: ERRORS.RESULT_TOO_LARGE.message }
  t.strictSame(read(substituteOf(resultOutput(7, 'x'), 1)), { ...lost, id: 7 })
  t.equal(substituteOf(resultOutput(7, 'x'), 1).commandId, 7)
  t.strictSame(read(substituteOf(resultOutput('é"', 'x'), 1)), { ...lost, id: 'é"' })
  t.strictSame(read(substituteOf(errorOutput(undefined, 'X', 'x'), 1)), lost)
})

t.test('P-16 refusals carry what the client needs', async t => {
  t.strictSame(JSON.parse(refusalFrame(3, new HoldfastError('COMMAND_GAP', { details: { expected: 2 } }))), {
    type: 'error', code: 'COMMAND_GAP', id: 3, expected: 2, payload: ERRORS.COMMAND_GAP.message
  })
  t.strictSame(JSON.parse(refusalFrame('a"b', new HoldfastError('RATE_LIMITED', { retryAfterMs: 20 }))), {
    type: 'error', code: 'RATE_LIMITED', id: 'a"b', retryAfterMs: 20, payload: ERRORS.RATE_LIMITED.message
  })
  t.strictSame(JSON.parse(refusalFrame(undefined, new HoldfastError('DRAINING', { details: { expected: 'text' } }))), {
    type: 'error', code: 'DRAINING', payload: ERRORS.DRAINING.message
  })
  t.strictSame(JSON.parse(errorFrame('BAD_ACK')), { type: 'error', code: 'BAD_ACK', payload: ERRORS.BAD_ACK.message })
})

t.test('P-42 goodbye names code, reason and action, and when to come back', async t => {
  t.strictSame(JSON.parse(goodbyeFrame(CLOSE.replaced)), {
    type: 'goodbye',
    payload: { code: 4003, reason: 'replaced', action: 'stop' }
  })
  t.strictSame(JSON.parse(goodbyeFrame(CLOSE.draining, 0)), {
    type: 'goodbye',
    payload: { code: 4200, reason: 'draining', action: 'resume', retryAfterMs: 0 }
  })
})

t.test('P-49 the hundreds digit is the instruction, for codes nobody knows too', async t => {
  const expected: Record<number, string> = { 40: 'stop', 41: 'resume_later', 42: 'resume', 43: 'new', 44: 'stop' }
  for (const [hundreds, action] of Object.entries(expected)) {
    for (const last of [0, 1, 50, 99]) t.equal(closeAction(Number(hundreds) * 100 + last), action)
  }
  for (const code of [1000, 1001, 1005, 1006, 1009, 1011, 3000, 3999, 4500, 4999, 0]) {
    t.equal(closeAction(code), 'resume_later', `${code}`)
  }
  for (const { code, reason } of Object.values(CLOSE)) {
    t.ok(code >= 4000 && code < 4500)
    t.match(reason, /^[a-z_]{1,123}$/)
  }
  t.equal(new Set(Object.values(CLOSE).map(({ code }) => code)).size, Object.keys(CLOSE).length)
})

t.test('errors carry their row, and a cause that is not shown', async t => {
  const cause = new Error('inner')
  const error = new HoldfastError('USER_QUOTA', { cause, retryAfterMs: 5, details: { reason: 'x' } })
  t.match(error, {
    name: 'HoldfastError',
    code: 'USER_QUOTA',
    statusCode: 429,
    message: ERRORS.USER_QUOTA.message,
    cause,
    retryAfterMs: 5,
    details: { reason: 'x' }
  })
  t.notOk('cause' in new HoldfastError('USER_QUOTA'))
  t.match(commandError('MINE', 'mine'), { code: 'MINE', expose: true, message: 'mine' })
})
