// P-20 to P-24 and P-50: numbering, acknowledgement, what is held for whom, and how large an output
// may be.

import { BASIC, BOTH, FULL, check, type Check } from '../check.js'
import { expect, expectEqual, notTested } from '../expect.js'
import type { Scope } from '../kit.js'
import type { Peer } from '../peer.js'
import { expectDetached, span, takeReplay } from './shared.js'

/** Echoes by string ids, so that `count` outputs exist. */
async function outputs (peer: Peer, count: number): Promise<void> {
  for (let n = 0; n < count; n++) {
    peer.command('echo', n, `output-${n}`)
    await peer.answer(`output-${n}`)
  }
}

async function isHeld (peer: Peer, id: number): Promise<boolean> {
  peer.command('echo', 'probe', id)
  const answer = await peer.answer(id)
  expect(answer.seq !== undefined || answer.code === 'RESULT_EXPIRED', 'the held answer or RESULT_EXPIRED', answer)
  return answer.seq !== undefined
}

/** Three numbered commands, answered with the seqs 1, 2, 3. */
async function threeAnswers (scope: Scope): Promise<Peer> {
  const peer = await scope.connect()
  for (const id of [1, 2, 3]) {
    peer.command('echo', id, id)
    await peer.answer(id)
  }
  return peer
}

export const outputChecks: readonly Check[] = [
  check('P-50', 'announces the largest output, and takes less if the client does', FULL, async (scope) => {
    const plain = await scope.connect()
    const most = plain.facts['limits'].maxOutputBytes
    expect(Number.isSafeInteger(most) && most >= 1024, 'limits.maxOutputBytes of 1024 or more', most)
    for (const [wish, told] of [
      ['4096', Math.min(4096, most)], ['10', 1024], ['99999999999', most], ['many', most]
    ] as const) {
      const peer = await scope.connect({ protocols: ['holdfast.v1', `output.${wish}`] })
      expectEqual(peer.facts['limits'].maxOutputBytes, told, `for output.${wish}, limits.maxOutputBytes`)
    }
  }),
  check('P-50', 'answers RESULT_TOO_LARGE, judged by the text that is sent', FULL, async (scope) => {
    const peer = await scope.connect({ protocols: ['holdfast.v1', 'output.2000'] })
    const empty = Buffer.byteLength(JSON.stringify({ seq: 1, type: 'result', id: 'a', payload: '' }))
    // Two bytes each, and an escape that doubles: what counts is neither characters nor the length
    // in memory.
    const room = 2000 - empty
    for (const fits of ['x'.repeat(room), 'é'.repeat(Math.floor(room / 2)), '"'.repeat(Math.floor(room / 2))]) {
      peer.command('echo', fits, 'a')
      expectEqual((await peer.answer('a')).type, 'result', 'for a result of exactly maxOutputBytes, the answer')
    }
    for (const large of ['x'.repeat(room + 1), 'é'.repeat(room / 2 + 1), '"'.repeat(room / 2 + 1)]) {
      peer.command('echo', large, 'a')
      const { type, code, seq } = await peer.answer('a')
      expectEqual(
        [type, code, seq !== undefined], ['error', 'RESULT_TOO_LARGE', true], 'for a result that is larger, the answer'
      )
    }
  }),
  check('P-50', 'replaces what is held and larger than a resuming client takes', FULL, async (scope) => {
    const peer = await scope.connect()
    for (const [n, size] of [100, 3000, 100, 3000, 100].entries()) {
      peer.command('echo', 'x'.repeat(size), n + 1)
      await peer.answer(n + 1)
    }
    peer.link.destroy()
    const again = await scope.resumed(
      peer, 0, { protocols: ['holdfast.v1', `resume.${peer.sessionId}.${peer.token}.0`, 'output.2000'] }
    )
    const replayed = await takeReplay(again)
    expectEqual(replayed.map(({ id, code }) => [id, code]), [
      [1, undefined], [2, 'RESULT_TOO_LARGE'], [3, undefined], [4, 'RESULT_TOO_LARGE'], [5, undefined]
    ], 'ids and codes of the replay')
  }),
  check('P-50', 'refuses an operator\'s message that one session does not take', FULL, async (scope) => {
    const peer = await scope.connect({ protocols: ['holdfast.v1', 'output.2000'] })
    const { status } = await scope.admin.message(peer.sessionId, 'kit.large', 'x'.repeat(2000))
    expectEqual(status, 413, 'HTTP status for a message larger than the session takes')
    const small = await scope.admin.message(peer.sessionId, 'kit.small', 'x')
    expectEqual(small.status, 202, 'HTTP status for one that fits')
    const frame = await peer.take('the small message')
    expectEqual([frame.seq, frame.event], [1, 'kit.small'], 'seq and event of the first output')
  }),
  check('P-50', 'puts a gap in the place of a message to a user that one of his sessions does not take', FULL, async (
    scope
  ) => {
    const { admin } = scope
    // The one user of a run without tokens has the sessions of all other checks.
    if (!scope.signsTokens) notTested('--jwt-secret')
    const user = `kit-gap-${scope.tag()}`
    const small = await scope.connect({ user, protocols: ['holdfast.v1', 'output.1024'] })
    const large = await scope.connect({ user })
    for (const [event, size] of [['kit.large', 3000], ['kit.small', 10]] as const) {
      const { status } = await admin.messageUser(user, event, 'x'.repeat(size))
      expectEqual(status, 202, 'HTTP status of a message to a user')
    }
    const [gap, after] = [await small.take('a gap'), await small.take('the small message')]
    expectEqual(
      [gap.type, gap.seq, typeof gap.payload?.reason], ['gap', 1, 'string'], 'type, seq and payload.reason of the gap'
    )
    expectEqual([after.event, after.seq], ['kit.small', 2], 'event and seq of the next message')
    for (const [n, event] of ['kit.large', 'kit.small'].entries()) {
      const frame = await large.take('a message')
      expectEqual([frame.event, frame.seq], [event, n + 1], 'at the session that takes it, event and seq')
    }
    if (scope.facts.resumeWindowMs === 0) return
    small.link.destroy()
    const again = await scope.resumed(small, 0, { user })
    expectEqual(await takeReplay(again), [gap, after], 'the gap and the message replayed')
  }),
  check('P-20', 'numbers outputs from 1 without a hole, whatever kind they are', BOTH, async (scope) => {
    const peer = await scope.connect()
    peer.command('echo', 1, 1)
    await peer.answer(1)
    peer.command('no-such-command', 1, 2)
    await peer.answer(2)
    peer.command('echo', 1, 9)
    await peer.answer(9)
    if (scope.hasAdmin) {
      const { status, body } = await scope.admin.message(peer.sessionId, 'note', { n: 1 })
      expect(status === 202, 'HTTP 202 for a message', `HTTP ${status}`)
      const message = await peer.until(({ type }) => type === 'message', 'the message')
      expectEqual(
        [message.seq, message.event, message.payload],
        [body.seq, 'note', { n: 1 }],
        'seq, event and payload of the message'
      )
    }
    await outputs(peer, 3)
    const seqs = peer.frames.filter(({ seq }) => seq !== undefined).map(({ seq }) => seq)
    expectEqual(seqs, span(1, scope.hasAdmin ? 6 : 5), 'the seqs')
  }),
  check('P-20', 'goes on with the next seq after a resume', FULL, async (scope) => {
    const peer = await scope.connect()
    await outputs(peer, 3)
    peer.link.destroy()
    const again = await scope.resumed(peer, 3)
    await takeReplay(again)
    again.command('echo', 1, 'next')
    expectEqual((await again.answer('next')).seq, 4, 'the seq of the first new output')
  }),
  check('P-20', 'numbers the outputs of operators and of commands in one row', BOTH, async (scope) => {
    const { admin } = scope
    const peer = await scope.connect()
    const sent = Promise.all(span(1, 20).map((n) => admin.message(peer.sessionId, 'note', n)))
    // Awaited below; a check that fails before must not leave its rejection behind.
    sent.catch(() => {})
    await scope.fill(peer, 20, 10)
    const told = (await sent).map(({ body }) => body.seq)
    await peer.fence()
    const messages = peer.frames.filter(({ type }) => type === 'message')
    expectEqual(peer.frames.flatMap(({ seq }) => seq ?? []), span(1, 41), 'the seqs')
    for (const [n, seq] of told.entries()) {
      expectEqual(
        messages.find((message) => message.seq === seq)?.payload,
        n + 1,
        `the payload of the message that was given seq ${seq}`
      )
    }
  }),
  check('P-21', 'takes an ack frame and forgets the outputs up to it, not above', FULL, async (scope) => {
    const peer = await threeAnswers(scope)
    peer.ack(2)
    expectEqual(
      [await isHeld(peer, 1), await isHeld(peer, 2), await isHeld(peer, 3)],
      [false, false, true],
      'after ack 2, answers 1, 2, 3 held'
    )
  }),
  check('P-21', 'takes an ack on a command', FULL, async (scope) => {
    const peer = await threeAnswers(scope)
    peer.command('echo', 4, 4, { ack: 1 })
    await peer.answer(4)
    expectEqual(
      [await isHeld(peer, 1), await isHeld(peer, 2)], [false, true], 'after a command with ack 1, answers 1, 2 held'
    )
  }),
  check('P-21', 'is not moved by a lower ack or a repeated one', FULL, async (scope) => {
    const peer = await threeAnswers(scope)
    peer.ack(2)
    for (const seq of [0, 1, 2]) peer.ack(seq)
    const between = await peer.fence()
    expectEqual(between, [], 'frames in answer to acks')
    expectEqual([await isHeld(peer, 2), await isHeld(peer, 3)], [false, true], 'afterwards, answers 2, 3 held')
  }),
  check('P-21', 'does not send an acknowledged output again', FULL, async (scope) => {
    const peer = await threeAnswers(scope)
    peer.ack(2)
    await peer.fence()
    peer.link.destroy()
    const again = await scope.resumed(peer, 0)
    const replayed = await takeReplay(again)
    expectEqual(replayed[0]?.seq, 3, 'after ack 2, the first output replayed')
  }),
  check('P-22', 'closes an ack of the future with 4400 and keeps the session', FULL, async (scope) => {
    for (const send of [
      (peer: Peer) => peer.ack(4),
      (peer: Peer) => peer.command('echo', 1, 'x', { ack: Number.MAX_SAFE_INTEGER })
    ]) {
      const peer = await threeAnswers(scope)
      send(peer)
      const error = await peer.until(({ type }) => type === 'error', 'error BAD_ACK')
      expect(error.code === 'BAD_ACK' && error.seq === undefined, 'an unsequenced error BAD_ACK', error)
      const end = await peer.closed('a close with 4400')
      expectEqual([end.code, end.goodbye?.payload?.code], [4400, 4400], 'the codes of close and goodbye')
      if (scope.facts.resumeWindowMs > 0) {
        const again = await expectDetached(scope, { ...peer, highestSeq: 3 })
        await takeReplay(again)
        expectEqual((await again.fence()).length, 0, 'frames before the first new answer')
      }
    }
  }),
  check('P-23', 'holds outputs that were not acknowledged', FULL, async (scope) => {
    const peer = await threeAnswers(scope)
    peer.link.destroy()
    const again = await scope.resumed(peer, 0)
    const replayed = await takeReplay(again)
    const sent = peer.frames.filter(({ seq }) => seq !== undefined)
    expectEqual(replayed, sent, 'the outputs replayed')
  }),
  check('P-23', 'holds outputs that came while no connection was attached', FULL, async (scope) => {
    const { admin } = scope
    const peer = await threeAnswers(scope)
    peer.link.destroy()
    if (scope.facts.resumeWindowMs === 0) notTested('resumeWindowMs above 0')
    for (const n of [4, 5, 6]) {
      const { status, body } = await admin.message(peer.sessionId, 'away', n)
      expectEqual([status, body.seq], [202, n], 'status and seq of a message to a detached session')
    }
    const again = await scope.resumed(peer, 3)
    const replayed = await takeReplay(again)
    expectEqual(
      replayed.map(({ seq, payload }) => [seq, payload]), [[4, 4], [5, 5], [6, 6]], 'seqs and payloads replayed'
    )
  }),
  check('P-24', 'ignores acks in the basic profile', BASIC, async (scope) => {
    const peer = await scope.connect()
    peer.command('echo', 1, 'a', { ack: 1_000_000 })
    expectEqual((await peer.answer('a')).type, 'result', 'for a command with an ack of the future, the answer')
    peer.send({ type: 'ack', seq: 1_000_000, sessionId: peer.sessionId })
    expectEqual(await peer.fence(), [], 'frames in answer to an ack of the future')
  }),
  check('P-24', 'holds nothing that was written in the basic profile', BASIC, async (scope) => {
    const { admin } = scope
    const peer = await scope.connect()
    await outputs(peer, 5)
    const held = await scope.eventually('a view of the session', async () => (await admin.session(
      peer.sessionId
    )).body ?? undefined)
    if (held.outboxMessages === undefined) notTested('outboxMessages in GET /sessions/:id')
    expectEqual(held.outboxMessages, 0, 'outboxMessages')
  })
]
