// P-6 to P-9: malformed frames, the three closes of the WebSocket layer, and frames that name a
// session. A frame counts as without effect if the connection answers an echo after it and no
// output came in between.

import { BASIC, BOTH, FULL, check, type Check } from '../check.js'
import { expect, expectEqual, notTested } from '../expect.js'
import { OPCODE, encodeFrame } from '../frames.js'
import type { Scope } from '../kit.js'
import type { Peer } from '../peer.js'
import { expectDetached, expectTerminated } from './shared.js'

const MALFORMED: Readonly<Record<string, readonly string[]>> = {
  'text that is no JSON': [
    'hello', '', '{"command":"echo"', '{"command":"echo"} {"command":"echo"}', '{command:"echo"}'
  ],
  'JSON that is no object': ['null', '17', '"echo"', '[]', '[{"command":"echo"}]', 'true'],
  'a shape that is none': [
    '{}', '{"payload":1}', '{"type":"hello"}', '{"type":"pong"}', '{"type":"ping","seq":1}', '{"type":null}',
    '{"type":"command","command":"echo"}'
  ],
  'a command with wrong members': [
    '{"command":""}', '{"command":5}', '{"command":null}', '{"command":["echo"]}', `{"command":"${'x'.repeat(129)}"}`
  ],
  'a wrong id': [
    '{"command":"echo","id":1.5}', '{"command":"echo","id":""}', '{"command":"echo","id":null}',
    '{"command":"echo","id":{}}', '{"command":"echo","id":9007199254740992}',
    `{"command":"echo","id":"${'x'.repeat(129)}"}`
  ],
  'a wrong ack': [
    '{"command":"echo","ack":-1}', '{"command":"echo","ack":0.5}', '{"command":"echo","ack":"1"}', '{"type":"ack"}',
    '{"type":"ack","seq":"0"}', '{"type":"ack","seq":null}'
  ],
  'an unknown member': [
    '{"command":"echo","lane":1}', '{"type":"ack","seq":0,"payload":1}', '{"type":"end","command":"echo"}',
    '{"command":"echo","constructor":1}', '{"command":"echo","Payload":1}', '{"type":"end","seq":0}'
  ],
  'a number that would be changed': [
    '{"command":"echo","payload":{"draft":7238572949283749923}}', '{"command":"echo","payload":[[1e400]]}',
    '{"command":"echo","payload":-1e-400}', '{"command":"echo","payload":0.12345678901234567891}',
    '{"command":"echo","id":1.0000000000000000001}'
  ],
  'a key that is there twice': [
    '{"command":"echo","payload":{"a":1,"a":2}}', '{"command":"echo","payload":[{"b":{"a":1,"\\u0061":1}}]}',
    '{"command":"echo","command":"echo"}'
  ],
  'a __proto__ key': [
    '{"command":"echo","__proto__":{}}', '{"command":"echo","payload":{"__proto__":{"a":1}}}',
    '{"command":"echo","payload":{"a":[{"\\u005f_proto__":1}]}}'
  ],
  'too much nesting': [
    `{"command":"echo","payload":${'['.repeat(40)}${']'.repeat(40)}}`,
    `{"command":"echo","payload":${'{"a":'.repeat(40)}1${'}'.repeat(40)}}`,
    `{"command":"echo","payload":${'['.repeat(20_000)}${']'.repeat(20_000)}}`
  ]
}

/** Of one message: members, arrays and objects. */
const MAX_MEMBERS = 32_768

/**
 * In the basic profile a frame names its session, so that nothing but its malformation can be wrong
 * with it.
 */
function inProfile (peer: Peer, text: string): string {
  if (peer.profile === 'full' || !text.startsWith('{"') || text.includes('"sessionId"')) return text
  return `{"sessionId":"${peer.sessionId}",${text.slice(1)}`
}

async function expectNoEffect (peer: Peer, what: string): Promise<void> {
  const between = await peer.fence()
  const answers = between.filter(({ code, seq }) => code === 'BAD_FRAME' && seq === undefined)
  expect(
    answers.length === 1 && between.length === 1 && answers[0]?.type === 'error',
    `one unsequenced error BAD_FRAME for ${what}`,
    between
  )
}

async function closesWith (scope: Scope, code: number, send: (peer: Peer) => void, what: string): Promise<void> {
  const peer = await scope.connect()
  await peer.fence()
  send(peer)
  const end = await peer.closed(`a close with ${code} for ${what}`)
  expectEqual(end.code, code, `the close code for ${what}`)
  expectEqual(end.goodbye, undefined, `with ${code}, goodbye`)
  if (scope.profile === 'full') {
    if (scope.facts.resumeWindowMs > 0) await expectDetached(scope, peer)
  } else if (scope.hasAdmin) {
    await expectTerminated(scope, peer)
  }
}

export const frameChecks: readonly Check[] = [
  ...Object.entries(MALFORMED).map(([
    kind, texts
  ]) => check('P-6', `answers BAD_FRAME to ${kind}`, BOTH, async (scope) => {
    const peer = await scope.connect()
    for (const text of texts) {
      // `{}` has no member before which a sessionId could be set.
      peer.sendText(inProfile(peer, text))
      await expectNoEffect(peer, text.slice(0, 60))
    }
  })),
  check('P-6', 'answers BAD_FRAME to too many members', BOTH, async (scope) => {
    const text = `{"command":"echo","payload":[${Array<string>(MAX_MEMBERS).fill('[]').join()}]}`
    if (scope.facts.maxMessageBytes < text.length + 100) notTested('maxMessageBytes ≥ 131072')
    const peer = await scope.connect()
    peer.sendText(inProfile(peer, text))
    await expectNoEffect(peer, 'more than 32,768 arrays')
  }),
  check('P-6', 'takes what is within the bounds', BOTH, async (scope) => {
    const peer = await scope.connect()
    const deep = JSON.parse(`${'['.repeat(24)}${']'.repeat(24)}`)
    peer.command('echo', deep, 'x'.repeat(128), { ack: 0 })
    expectEqual((await peer.answer('x'.repeat(128))).payload, deep, 'the payload')
    peer.command('echo', undefined, 'nothing')
    expectEqual((await peer.answer('nothing')).payload, null, 'for an absent payload, the payload')
    peer.command('x'.repeat(128), 1, 'long')
    expectEqual((await peer.answer('long')).code, 'UNKNOWN_COMMAND', 'for a name of 128 characters, the code')
  }),
  check('P-6', 'carries numbers and texts unchanged', BOTH, async (scope) => {
    const peer = await scope.connect()
    // Within what every double carries; the last two are one number, written as two printers write
    // it.
    const payload =
      '[0,-1,1.0,1e2,0.1,0.30000000000000004,9007199254740991,9007199254740992,123456789012345680000,' +
      '1e23,5e-324,1.7976931348623157e308,"\\u2028 \\u0000 \\ud800",0.10000000000000001,0.1]'
    peer.sendText(inProfile(peer, `{"command":"echo","id":"same","payload":${payload}}`))
    expectEqual((await peer.answer('same')).payload, JSON.parse(payload), 'the payload')
  }),
  check('P-6', 'does not count a malformed frame as a command', FULL, async (scope) => {
    const peer = await scope.connect()
    peer.sendText('{"command":"echo","id":1,"more":true}')
    await expectNoEffect(peer, 'a numbered command with an unknown member')
    peer.command('echo', 'first', 1)
    expectEqual((await peer.answer(1)).payload, 'first', 'after a malformed command 1, the answer to command 1')
  }),
  check('P-6', 'says in BAD_FRAME which command it was', BOTH, async (scope) => {
    const peer = await scope.connect()
    const deep = `${'['.repeat(40)}${']'.repeat(40)}`
    const members: Readonly<Record<string, string>> = {
      'an unknown member': '"command":"echo","id":7,"lane":1',
      'too much nesting': `"command":"echo","id":7,"payload":${deep}`,
      'a __proto__ key': '"command":"echo","id":7,"payload":{"__proto__":{}}',
      'a wrong command': '"command":5,"id":7',
      'a number that is not JSON': '"command":"echo","id":7,"payload":[{"id":8},NaN]'
    }
    for (const [what, text] of Object.entries(members)) {
      peer.sendText(inProfile(peer, `{${text}}`))
      const error = await peer.answer(7)
      expectEqual([error.type, error.code, error.seq], ['error', 'BAD_FRAME', undefined], `for ${what}, the error`)
    }
  }),
  check('P-7', 'answers BAD_FRAME to a binary message', BOTH, async (scope) => {
    const peer = await scope.connect()
    for (const bytes of [
      Buffer.from(JSON.stringify({ sessionId: peer.sessionId, command: 'echo' })),
      Buffer.from([0, 255, 254]),
      Buffer.alloc(0)
    ]) {
      peer.sendBinary(bytes)
      await expectNoEffect(peer, `a binary message of ${bytes.length} bytes`)
    }
  }),
  check('P-8', 'takes a message of exactly maxMessageBytes', BOTH, async (scope) => {
    const { maxMessageBytes } = scope.facts
    if (maxMessageBytes > 4_000_000) notTested('maxMessageBytes ≤ 4000000')
    const peer = await scope.connect()
    const empty = JSON.stringify({ sessionId: peer.sessionId, command: 'echo', id: 'max', payload: '' })
    const payload = 'x'.repeat(maxMessageBytes - empty.length)
    peer.sendText(JSON.stringify({ sessionId: peer.sessionId, command: 'echo', id: 'max', payload }))
    const answer = await peer.answer('max')
    expect(answer.seq !== undefined, 'an answer to the largest message', answer)
  }),
  check('P-8', 'closes a message that is larger with 1009', BOTH, async (scope) => {
    const { maxMessageBytes } = scope.facts
    if (maxMessageBytes > 4_000_000) notTested('maxMessageBytes ≤ 4000000')
    await closesWith(
      scope,
      1009,
      (peer) => peer.sendText(JSON.stringify('x'.repeat(maxMessageBytes - 1))),
      'one byte too many'
    )
    await closesWith(scope, 1009, (peer) => {
      const half = Buffer.alloc(Math.ceil(maxMessageBytes / 2) + 1, 'x')
      peer.link.sendBytes(encodeFrame(OPCODE.text, half, { fin: false }))
      peer.link.sendBytes(encodeFrame(OPCODE.continuation, half))
    }, 'fragments too large together')
  }),
  check('P-8', 'closes broken UTF-8 with 1007', BOTH, async (scope) => {
    await closesWith(
      scope,
      1007,
      (peer) => peer.link.sendFrame(OPCODE.text, Buffer.from([0x22, 0xc3, 0x28, 0x22])),
      'broken UTF-8'
    )
  }),
  check('P-8', 'closes broken framing with 1002', BOTH, async (scope) => {
    const text = Buffer.from('{}')
    await closesWith(
      scope,
      1002,
      (peer) => peer.link.sendBytes(encodeFrame(OPCODE.text, text, { mask: false })),
      'an unmasked frame'
    )
    await closesWith(
      scope,
      1002,
      (peer) => peer.link.sendBytes(encodeFrame(OPCODE.text, text, { rsv: 4 })),
      'a reserved bit'
    )
    await closesWith(scope, 1002, (peer) => peer.link.sendBytes(encodeFrame(3, text)), 'a reserved opcode')
    await closesWith(
      scope,
      1002,
      (peer) => peer.link.sendBytes(encodeFrame(OPCODE.continuation, text)),
      'a continuation of nothing'
    )
  }),
  ...sessionChecks()
]

async function expectInvalid (scope: Scope, frame: (peer: Peer, other: Peer) => object, what: string): Promise<void> {
  const other = await scope.connect()
  const peer = await scope.connect()
  peer.send(frame(peer, other))
  const error = await peer.take('an error')
  const rest: Record<string, unknown> = { ...error }
  delete rest['id']
  expectEqual(
    rest, { type: 'error', code: 'SESSION_INVALID', payload: 'Invalid or expired session.' }, `for ${what}, the frame`
  )
  const end = await peer.closed(`a close with 4409 for ${what}`)
  expectEqual(end.code, 4409, `for ${what}, the close code`)
  expectEqual(end.goodbye?.payload?.reason, 'session_invalid', `for ${what}, the reason in goodbye`)
  const effects = (await other.fence()).filter(({ type }) => type !== 'ping')
  expectEqual(effects, [], `for ${what}, frames at the other session`)
}

function sessionChecks (): Check[] {
  return [
    check('P-9', 'refuses a command without sessionId', BASIC, async (scope) => {
      await expectInvalid(scope, () => ({ command: 'echo', payload: 1 }), 'a missing sessionId')
    }),
    check('P-9', 'refuses an unknown and a foreign sessionId alike', BOTH, async (scope) => {
      await expectInvalid(
        scope,
        () => ({ sessionId: '00000000-0000-4000-8000-000000000000', command: 'echo', payload: 1 }),
        'an unknown sessionId'
      )
      await expectInvalid(
        scope,
        () => ({ sessionId: '__proto__', command: 'echo', payload: 1 }),
        'the sessionId __proto__'
      )
      await expectInvalid(
        scope,
        (_peer, other) => ({ sessionId: other.sessionId, command: 'echo', payload: 1 }),
        'the sessionId of another session'
      )
    }),
    check('P-9', 'refuses a foreign sessionId on ack and end frames', FULL, async (scope) => {
      await expectInvalid(
        scope,
        (_peer, other) => ({ sessionId: other.sessionId, type: 'ack', seq: 0 }),
        'an ack frame for another session'
      )
      await expectInvalid(
        scope,
        (_peer, other) => ({ sessionId: other.sessionId, type: 'end' }),
        'an end frame for another session'
      )
    }),
    check('P-9', 'takes its own sessionId and needs none', FULL, async (scope) => {
      const peer = await scope.connect()
      peer.command('echo', 1, 'with', { sessionId: peer.sessionId })
      expectEqual((await peer.answer('with')).type, 'result', 'with its sessionId, the answer')
      peer.command('echo', 1, 'without')
      expectEqual((await peer.answer('without')).type, 'result', 'without sessionId, the answer')
    })
  ]
}
