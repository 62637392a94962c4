// P-10 to P-16 as far as echo goes, which every server answers: numbering, duplicates, refusals.
// What has to be slow, to fail or to be counted is in core-commands.ts, where the kit executes the
// commands itself.

import { BOTH, FULL, check, type Check } from '../check.js'
import { expect, expectEqual, notTested } from '../expect.js'
import { pause, type Scope } from '../kit.js'
import type { Peer, ServerFrame } from '../peer.js'
import { provokeRateLimit, takeReplay } from './shared.js'

async function echo (peer: Peer, id: number, payload: unknown = `command ${id}`): Promise<ServerFrame> {
  peer.command('echo', payload, id)
  return peer.answer(id)
}

function expectRefused (frame: ServerFrame, code: string, id: number | string, what: string): void {
  const refused = frame.type === 'error' && frame.code === code && frame.seq === undefined && frame.id === id &&
    typeof frame.payload === 'string'
  expect(refused, `an unsequenced error ${code} with id ${id} for ${what}`, frame)
}

export const commandChecks: readonly Check[] = [
  check('P-10', 'answers each accepted command once, with its id and a seq', BOTH, async (scope) => {
    const peer = await scope.connect()
    const ids = Array.from({ length: Math.min(8, scope.facts.maxInFlight) }, (_, n) => n + 1)
    for (const id of ids) peer.command('echo', { n: id }, id)
    for (let n = 0; n < ids.length; n++) await peer.until((frame) => frame.id !== undefined, 'an answer')
    await peer.fence()
    const answers = peer.frames.filter(({ id }) => typeof id === 'number')
    expectEqual(answers.map(({ id }) => id).sort(), ids, 'the ids answered')
    for (const { type, id, seq, payload } of answers) {
      expect(
        type === 'result' && seq !== undefined && payload?.n === id,
        'a sequenced result with the payload of its command',
        { type, id, seq, payload }
      )
    }
  }),
  check('P-11', 'takes 1, 2, 3 and no other start', BOTH, async (scope) => {
    const peer = await scope.connect()
    peer.command('echo', 'early', 2)
    expectRefused(await peer.answer(2), 'COMMAND_GAP', 2, 'a first command with id 2')
    for (const id of [1, 2, 3]) {
      expectEqual((await echo(peer, id)).payload, `command ${id}`, `the answer to command ${id}`)
    }
  }),
  check('P-11', 'knows ids up to 2^53-1', BOTH, async (scope) => {
    const peer = await scope.connect()
    peer.command('echo', 'far', Number.MAX_SAFE_INTEGER)
    expectRefused(
      await peer.answer(Number.MAX_SAFE_INTEGER), 'COMMAND_GAP', Number.MAX_SAFE_INTEGER, 'id 2^53-1 as the first'
    )
  }),
  check('P-11', 'numbers each session on its own', BOTH, async (scope) => {
    for (const peer of [await scope.connect(), await scope.connect()]) {
      expectEqual((await echo(peer, 1)).type, 'result', 'the answer to command 1')
    }
  }),
  check('P-12', 'sends the held answer of a duplicate again, with its old seq', FULL, async (scope) => {
    const peer = await scope.connect()
    const first = await echo(peer, 1, 'first')
    const second = await echo(peer, 2, 'second')
    peer.command('echo', 'first', 1)
    expectEqual(await peer.answer(1), first, 'for the repeat of command 1')
    peer.command('echo', 'second', 2)
    expectEqual(await peer.answer(2), second, 'for the repeat of command 2')
    expectEqual((await echo(peer, 3)).seq, second.seq! + 1, 'after two repeats, the seq of the next answer')
  }),
  check('P-12', 'answers a duplicate with other content as the first', FULL, async (scope) => {
    const peer = await scope.connect()
    const first = await echo(peer, 1, 'first')
    peer.command('no-such-command', { other: true }, 1)
    expectEqual(await peer.answer(1), first, 'for a repeat of command 1 with another content')
    expectEqual((await echo(peer, 2)).type, 'result', 'afterwards, the answer to command 2')
  }),
  check('P-12', 'answers a duplicate RESULT_EXPIRED once its answer was acknowledged', FULL, async (scope) => {
    const peer = await scope.connect()
    const first = await echo(peer, 1)
    peer.ack(first.seq!)
    peer.command('echo', 'first', 1)
    expectRefused(await peer.answer(1), 'RESULT_EXPIRED', 1, 'a repeat after the ack of its answer')
    expectEqual((await echo(peer, 2)).seq, first.seq! + 1, 'the seq of the next answer')
  }),
  check('P-12', 'answers a duplicate RESULT_EXPIRED in the basic profile, which holds nothing', [
    'basic'
  ], async (scope) => {
    const peer = await scope.connect()
    await echo(peer, 1)
    peer.command('echo', 'again', 1)
    expectRefused(await peer.answer(1), 'RESULT_EXPIRED', 1, 'a repeat in the basic profile')
  }),
  check('P-12', 'answers a duplicate RESULT_EXPIRED once its answer was dropped', FULL, async (scope) => {
    const peer = await scope.connect()
    await echo(peer, 1)
    const bytes = Math.min(60_000, scope.facts.maxMessageBytes - 500)
    for (let filled = 0; filled < 8_000_000; filled += 24 * bytes) {
      await scope.fill(peer, 24, bytes)
      peer.command('echo', 'again', 1)
      const again = await peer.answer(1)
      if (again.seq !== undefined) continue
      return expectRefused(again, 'RESULT_EXPIRED', 1, 'a repeat after its answer was dropped')
    }
    notTested('an outbox smaller than 8 MB')
  }),
  check('P-12', 'knows a duplicate after a resume', FULL, async (scope) => {
    const peer = await scope.connect()
    const first = await echo(peer, 1, 'first')
    peer.link.destroy()
    const again = await scope.resumed(peer, 0)
    const [replayed] = await takeReplay(again)
    expectEqual(replayed, first, 'the replayed answer')
    again.command('echo', 'not again', 1)
    expectEqual(await again.answer(1), first, 'for the repeat of command 1 on the new connection')
  }),
  check('P-13', 'refuses an id that leaves a hole and says which it waits for', BOTH, async (scope) => {
    const peer = await scope.connect()
    await echo(peer, 1)
    for (const id of [3, 100]) {
      peer.command('echo', 'ahead', id)
      const refusal = await peer.answer(id)
      expectRefused(refusal, 'COMMAND_GAP', id, `id ${id} after 1`)
      expectEqual(refusal.expected, 2, 'expected')
    }
    expectEqual((await echo(peer, 2)).type, 'result', 'then, the answer to command 2')
  }),
  check('P-14', 'echoes a string id and remembers nothing', BOTH, async (scope) => {
    const peer = await scope.connect()
    const seqs: (number | undefined)[] = []
    for (const payload of ['one', 'two']) {
      peer.command('echo', payload, 'same')
      const answer = await peer.answer('same')
      expectEqual(answer.payload, payload, 'for an id used twice, the payload')
      seqs.push(answer.seq)
    }
    expectEqual(seqs, [1, 2], 'the seqs of the answers')
    for (const id of ['1', '__proto__', 'constructor']) {
      peer.command('echo', id, id)
      expectEqual((await peer.answer(id)).payload, id, `for the id ${id}, the payload`)
    }
    expectEqual((await echo(peer, 1)).type, 'result', 'after string ids, the answer to command 1')
  }),
  check('P-14', 'answers a command without id without id', BOTH, async (scope) => {
    const peer = await scope.connect()
    peer.command('echo', 'anonymous')
    const answer = await peer.take('an answer')
    expect(
      answer.type === 'result' && answer.seq === 1 && !('id' in answer), 'a result with seq 1 and without id', answer
    )
  }),
  check('P-15', 'answers an unknown command, which counts as accepted', BOTH, async (scope) => {
    const peer = await scope.connect()
    for (const [n, name] of ['no-such-command', '__proto__', 'constructor', 'toString'].entries()) {
      peer.command(name, 1, n + 1)
      const answer = await peer.answer(n + 1)
      const accepted = answer.type === 'error' && answer.code === 'UNKNOWN_COMMAND' && answer.seq === n + 1 &&
        typeof answer.payload === 'string'
      expect(accepted, `a sequenced error UNKNOWN_COMMAND for ${name}`, answer)
    }
    expectEqual((await echo(peer, 5)).type, 'result', 'then, the answer to command 5')
  }),
  check('P-15', 'answers an invalid payload of a built-in command', BOTH, async (scope) => {
    if (scope.hasCore) notTested('a server without a core, for its built-in context.set')
    const peer = await scope.connect()
    peer.command('context.set', 'no object', 1)
    const answer = await peer.answer(1)
    expect(
      answer.type === 'error' && answer.code === 'INVALID_PAYLOAD' && answer.seq === 1,
      'a sequenced error INVALID_PAYLOAD',
      answer
    )
    expectEqual((await echo(peer, 2)).type, 'result', 'then, the answer to command 2')
  }),
  check('P-16', 'accepts a command refused for a gap once its turn comes', BOTH, async (scope) => {
    const peer = await scope.connect()
    for (let n = 0; n < 3; n++) {
      peer.command('echo', 'early', 2)
      expectRefused(await peer.answer(2), 'COMMAND_GAP', 2, 'id 2 before 1')
    }
    await echo(peer, 1)
    expectEqual((await echo(peer, 2, 'in turn')).payload, 'in turn', 'the answer to command 2')
  }),
  check('P-16', 'accepts a command refused for rate when it is sent again', BOTH, (scope) => refusedForRate(scope))
]

async function refusedForRate (scope: Scope): Promise<void> {
  const peer = await scope.connect()
  const { refusal, next } = await provokeRateLimit(scope, peer)
  expectRefused(refusal, 'RATE_LIMITED', refusal.id!, 'a command above the rate')
  await scope.eventually(`command ${next} to be accepted after a while`, async () => {
    peer.command('echo', 'again', next)
    const answer = await peer.answer(next)
    if (answer.seq === undefined) await pause(answer.retryAfterMs ?? 50)
    return answer.seq === undefined ? undefined : true
  })
}
