// P-35 and the races around it: two connections that want one session, many that do, and a session
// that ends while it is being resumed.

import { FULL, check, type Check } from '../check.js'
import { expect, expectEqual, notTested } from '../expect.js'
import { pause, type Scope } from '../kit.js'
import type { Ending, Peer } from '../peer.js'
import { span, takeReplay } from './shared.js'

const STORM = 20

function expectReplaced (end: Ending): void {
  expectEqual(end.code, 4003, 'the close code of the older connection')
  expectEqual(end.goodbye?.payload?.reason, 'replaced', 'the reason in its goodbye')
}

async function attached (scope: Scope): Promise<Peer> {
  if (scope.facts.resumeWindowMs === 0) notTested('resumeWindowMs above 0')
  const peer = await scope.connect()
  peer.command('echo', 1, 1)
  await peer.answer(1)
  return peer
}

export const takeoverChecks: readonly Check[] = [
  check('P-35', 'closes the older connection with 4003 and hands the session over', FULL, async (scope) => {
    const older = await attached(scope)
    const newer = await scope.resumed(older, 1)
    expectReplaced(await older.closed('the older connection closed with 4003'))
    await takeReplay(newer)
    newer.command('echo', 2, 2)
    expectEqual((await newer.answer(2)).seq, 2, 'on the newer connection, the seq of the next answer')
  }),
  check('P-35', 'sends nothing more to the older connection', FULL, async (scope) => {
    const older = await attached(scope)
    const newer = await scope.resumed(older, 1)
    const end = await older.closed('the older connection closed with 4003')
    for (const n of [1, 2, 3]) {
      newer.command('echo', n, `after-${n}`)
      await newer.answer(`after-${n}`)
    }
    expectEqual(end.afterGoodbye, [], 'frames after goodbye')
    expectEqual(older.highestSeq, 1, 'the highest seq at the older connection')
  }),
  check('P-35', 'takes no command of the older connection afterwards', FULL, async (scope) => {
    const older = await attached(scope)
    older.link.pauseReading()
    const newer = await scope.resumed(older, 1)
    // The older one has not read that it was replaced, and goes on.
    older.command('echo', 'too late', 2)
    await takeReplay(newer)
    await pause(100)
    newer.command('echo', 'in time', 2)
    expectEqual((await newer.answer(2)).payload, 'in time', 'the answer to command 2')
    older.link.resumeReading()
    expectReplaced(await older.closed('the older connection closed with 4003'))
  }),
  check('P-35', `leaves one connection of ${STORM} that resume at once with the same token`, FULL, async (scope) => {
    const first = await attached(scope)
    first.link.destroy()
    const storm = await Promise.all(span(1, STORM).map(() => scope.resume(first, 1)))
    const winners = storm.filter(({ opening }) => opening.type === 'session_resumed')
    expect(winners.length >= 1, 'at least one session_resumed', storm[0]?.opening)
    for (const { opening, sessionId } of storm) {
      if (opening.type !== 'session_resumed') {
        expect(sessionId !== first.sessionId, 'a new session for each refused resume', opening)
      }
    }
    await scope.eventually('one of the resumed connections left', async () => winners.filter(({
      isOpen
    }) => isOpen).length <= 1
      ? true
      : undefined)
    const live = winners.filter(({ isOpen }) => isOpen)
    expectEqual(live.length, 1, 'the number of connections left')
    for (const lost of winners) if (!lost.isOpen) expectReplaced(await lost.closed())
    const [last] = live as [Peer]
    last.command('echo', 'alone', 2)
    expectEqual((await last.answer(2)).seq, 2, 'the seq of the next answer')
    last.link.destroy()
    await scope.resumed(last, 2)
  }),
  check('P-35', 'lets every resume of a chain of tokens win in turn', FULL, async (scope) => {
    const chain = [await attached(scope)]
    for (let n = 0; n < 10; n++) {
      const before = chain.at(-1)!
      const next = await scope.resumed(before, 1)
      next.ack(1)
      chain.push(next)
    }
    const last = chain.pop()!
    for (const peer of chain) expectReplaced(await peer.closed('an older connection closed with 4003'))
    last.command('echo', 'last', 2)
    expectEqual((await last.answer(2)).seq, 2, 'the seq of the next answer')
  }),
  check('P-35', 'hands over during a replay without losing or doubling an output', FULL, async (scope) => {
    if (scope.facts.resumeWindowMs === 0) notTested('resumeWindowMs above 0')
    const first = await scope.connect()
    await scope.fill(first, 14, Math.min(50_000, scope.facts.maxMessageBytes - 500))
    first.link.destroy()
    const second = await scope.resumed(first, 0)
    second.link.pauseReading()
    const third = await scope.resumed(first, 0)
    second.link.resumeReading()
    const replayed = await takeReplay(third)
    expectEqual(replayed.map(({ seq }) => seq), span(1, 14), 'the seqs replayed on the newest connection')
    expectReplaced(await second.closed('the second connection closed with 4003'))
    const got = second.frames.flatMap(({ seq }) => seq ?? [])
    expectEqual(got, span(1, got.length), 'the seqs that the second connection got before')
    third.command('echo', 'new', 'new')
    expectEqual((await third.answer('new')).seq, 15, 'the seq of the first new output')
  }),
  check('P-35', 'ends a session once if a resume races its termination', FULL, async (scope) => {
    const { admin } = scope
    for (let n = 0; n < 10; n++) {
      const first = await attached(scope)
      first.link.destroy()
      const [again, ended] = await Promise.all([scope.resume(first, 1), admin.terminate(first.sessionId)])
      expectEqual(ended.status, 204, 'status of DELETE')
      if (again.opening.type === 'session_resumed') {
        // Resumed first, then ended: it has to be told so.
        expectEqual(
          (await again.closed('the resumed connection closed with 4001')).code,
          4001,
          'the close code of the resumed connection'
        )
      } else {
        expectEqual(
          again.facts['previous']?.reason, 'ended_by_operator', 'previous.reason of the resume that came too late'
        )
      }
      const later = await scope.resume(again.opening.type === 'session_resumed' ? again : first, 1)
      expectEqual(later.opening.type, 'session_created', 'for a resume after both, the first frame')
    }
  }),
  check('P-35', 'ends a session once if a resume races the end frame', FULL, async (scope) => {
    for (let n = 0; n < 10; n++) {
      const first = await attached(scope)
      first.send({ type: 'end' })
      const again = await scope.resume(first, 1)
      const end = await first.closed('the first connection closed')
      expect(end.code === 4000 || end.code === 4003, 'close code 4000 or 4003', end.code)
      if (again.opening.type === 'session_resumed') {
        // The takeover came first, so the end frame was that of a connection which had lost the
        // session.
        expectEqual(end.code, 4003, 'with the session resumed, the close code of the older connection')
        await again.fence()
      } else {
        expectEqual(again.facts['previous']?.reason, 'ended_by_client', 'previous.reason')
      }
    }
  })
]
