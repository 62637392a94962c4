// P-27 to P-31: a resume that succeeds, the life of its token, and the order of what comes first.

import { FULL, check, type Check } from '../check.js'
import { expect, expectEqual, notTested } from '../expect.js'
import type { Scope } from '../kit.js'
import type { Peer } from '../peer.js'
import { expectPrevious, expectRefused, span, takeReplay } from './shared.js'

/** A session with `count` answered numbered commands. */
async function session (scope: Scope, count: number): Promise<Peer> {
  const peer = await scope.connect()
  for (const id of span(1, count)) {
    peer.command('echo', id, id)
    await peer.answer(id)
  }
  return peer
}

export const resumeChecks: readonly Check[] = [
  check('P-27', 'resumes from any lastSeq with what comes after it', FULL, async (scope) => {
    for (const lastSeq of [0, 2, 4]) {
      const peer = await session(scope, 4)
      peer.link.destroy()
      const again = await scope.resumed(peer, lastSeq)
      const replayed = await takeReplay(again)
      expectEqual(replayed.map(({ seq }) => seq), span(lastSeq + 1, 4), `for lastSeq ${lastSeq}, the seqs replayed`)
    }
  }),
  check('P-27', 'takes the resume entry at any place of the offer', FULL, async (scope) => {
    if (scope.facts.resumeWindowMs === 0) notTested('resumeWindowMs above 0')
    const peer = await session(scope, 1)
    peer.link.destroy()
    const again = await scope.connect({ protocols: [`resume.${peer.sessionId}.${peer.token}.1`, 'holdfast.v1'] })
    expectEqual(again.opening.type, 'session_resumed', 'the first frame')
  }),
  check('P-27', 'counts lastSeq as an ack', FULL, async (scope) => {
    const peer = await session(scope, 3)
    peer.link.destroy()
    const again = await scope.resumed(peer, 2)
    await takeReplay(again)
    again.command('echo', 1, 1)
    expectEqual((await again.answer(1)).code, 'RESULT_EXPIRED', 'for a duplicate whose answer lastSeq covers, the code')
    again.command('echo', 3, 3)
    expectEqual((await again.answer(3)).seq, 3, 'for a duplicate whose answer it does not cover, the seq')
  }),
  check('P-27', 'tells the same facts as at the start, with a new token', FULL, async (scope) => {
    const peer = await session(scope, 1)
    peer.link.destroy()
    const again = await scope.resumed(peer, 1)
    for (const name of [
      'sessionId', 'userId', 'protocol', 'idleTimeoutMs', 'heartbeatMs', 'limits', 'resumeWindowMs'
    ]) {
      expectEqual(again.facts[name], peer.facts[name], name)
    }
    expect(
      typeof again.facts['resumeToken'] === 'string' && again.token !== peer.token,
      'a new resumeToken',
      again.facts['resumeToken']
    )
  }),
  check('P-28', 'kills the old token with the first frame on the new connection', FULL, async (scope) => {
    const peer = await session(scope, 1)
    peer.link.destroy()
    const second = await scope.resumed(peer, 1)
    second.ack(1)
    await second.fence()
    const thief = await expectRefused(scope, peer, 'unknown')
    expectEqual(thief.facts['previous']?.lastCommand, undefined, 'for a used token, previous.lastCommand')
    expectEqual((await second.fence()).length, 0, 'frames at the holder of the session')
    second.link.destroy()
    await scope.resumed(second, 2)
  }),
  check('P-28', 'takes the old token again if the answer to the resume was lost', FULL, async (scope) => {
    const peer = await session(scope, 1)
    peer.link.destroy()
    for (let n = 0; n < 3; n++) (await scope.resumed(peer, 1)).link.destroy()
    const again = await scope.resumed(peer, 1)
    await again.fence()
    await expectRefused(scope, peer, 'unknown')
  }),
  check('P-28', 'takes the old token again if the connection broke inside the handshake', FULL, async (scope) => {
    const peer = await session(scope, 1)
    peer.link.destroy()
    const { link } = await scope.handshake({ protocols: ['holdfast.v1', `resume.${peer.sessionId}.${peer.token}.1`] })
    link?.destroy()
    await scope.resumed(peer, 1)
  }),
  check('P-28', 'takes the new token too before the first frame', FULL, async (scope) => {
    const peer = await session(scope, 1)
    peer.link.destroy()
    const second = await scope.resumed(peer, 1)
    second.link.destroy()
    await scope.resumed(second, 1)
  }),
  check('P-28', 'takes a token that was read, though an earlier one is presented after it', FULL, async (scope) => {
    const peer = await session(scope, 1)
    peer.link.destroy()
    const read = await scope.resumed(peer, 1)
    read.link.destroy()
    ;(await scope.resumed(peer, 1)).link.destroy()
    await scope.resumed(read, 1)
  }),
  check('P-28', 'gives every attach a token of its own, each good once', FULL, async (scope) => {
    let peer = await session(scope, 1)
    const tokens = [peer.token]
    for (let n = 0; n < 4; n++) {
      peer.link.destroy()
      peer = await scope.resumed(peer, peer.highestSeq)
      tokens.push(peer.token)
      await peer.fence()
    }
    expectEqual(new Set(tokens).size, tokens.length, 'the number of tokens')
    for (const token of tokens.slice(0, -1)) await expectRefused(scope, { sessionId: peer.sessionId, token }, 'unknown')
    peer.link.destroy()
    await scope.resumed(peer, peer.highestSeq)
  }),
  check('P-29', 'authenticates a resume', FULL, async (scope) => {
    if (!scope.signsTokens) notTested('--jwt-secret')
    const peer = await session(scope, 1)
    peer.link.destroy()
    const protocols = ['holdfast.v1', `resume.${peer.sessionId}.${peer.token}.1`]
    const { answer } = await scope.handshake({ protocols, headers: { authorization: [] } })
    expectEqual(answer.status, 401, 'for a resume without credentials, the HTTP status')
    await scope.resumed(peer, 1)
  }),
  check('P-29', 'refuses another user with the right token', FULL, async (scope) => {
    if (!scope.signsTokens) notTested('--jwt-secret')
    const peer = await session(scope, 1)
    peer.link.destroy()
    const foreign = await scope.resume(peer, 1, { user: 'kit-foreign' })
    expectPrevious(foreign, peer.sessionId, 'unknown')
    expectEqual(foreign.facts['previous']?.lastCommand, undefined, 'for another user, previous.lastCommand')
    await scope.resumed(peer, 1)
  }),
  check('P-30', 'sends session_resumed, the replay in order, live, then new output', FULL, async (scope) => {
    const peer = await session(scope, 5)
    peer.link.destroy()
    const again = await scope.resumed(peer, 1)
    again.command('echo', 'new', 6)
    expectEqual(again.facts['replay'], { from: 2, to: 5 }, 'replay')
    await takeReplay(again)
    expectEqual((await again.answer(6)).seq, 6, 'the seq of the new answer')
    expectEqual(
      again.frames.map(({ type, seq }) => seq ?? type).filter((what) => what !== 'ping'),
      ['session_resumed', 2, 3, 4, 5, 'live', 6],
      'the frames'
    )
    const replayed = again.frames.filter(({ seq }) => seq !== undefined && seq < 6)
    expectEqual(replayed, peer.frames.filter(({ seq }) => seq !== undefined && seq > 1), 'the outputs replayed')
  }),
  check('P-30', 'sends live though there is nothing to replay', FULL, async (scope) => {
    const peer = await session(scope, 2)
    peer.link.destroy()
    const again = await scope.resumed(peer, 2)
    expectEqual(again.facts['replay'], null, 'replay')
    expectEqual((await again.take('live')).type, 'live', 'the second frame')
  }),
  check('P-30', 'keeps output that comes during a replay behind live', FULL, async (scope) => {
    const { admin } = scope
    const peer = await scope.connect()
    await scope.fill(peer, 14, Math.min(50_000, scope.facts.maxMessageBytes - 500))
    peer.link.destroy()
    if (scope.facts.resumeWindowMs === 0) notTested('resumeWindowMs above 0')
    const sending = (async () => {
      for (const n of span(1, 15)) await admin.message(peer.sessionId, 'during', n)
    })()
    // Awaited below; a check that fails before must not leave its rejection behind.
    sending.catch(() => {})
    const again = await scope.resumed(peer, 0)
    again.command('echo', 'during', 'during')
    await takeReplay(again)
    await sending
    await again.fence()
    // 14 echoes, 15 messages, the echo sent during the replay, and the fence.
    expectEqual(again.frames.flatMap(({ seq }) => seq ?? []), span(1, 31), 'all seqs, in the order received')
  }),
  check('P-31', 'tells the watermark', FULL, async (scope) => {
    const peer = await session(scope, 3)
    peer.command('echo', 'ahead', 7)
    await peer.answer(7)
    peer.command('echo', 'string', 'text')
    await peer.answer('text')
    peer.link.destroy()
    const again = await scope.resumed(peer, 0)
    expectEqual(again.facts['lastCommand'], 3, 'lastCommand')
    await takeReplay(again)
    again.command('echo', 'next', 4)
    expectEqual((await again.answer(4)).type, 'result', 'the answer to command 4')
  }),
  check('P-31', 'tells 0 if no numbered command was accepted', FULL, async (scope) => {
    const peer = await session(scope, 0)
    peer.link.destroy()
    expectEqual((await scope.resumed(peer, 0)).facts['lastCommand'], 0, 'lastCommand')
  })
]
