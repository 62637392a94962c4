// P-25, P-26, P-32, P-44 and P-51: what happens once an outbox is full, a socket does not drain, or
// a client does not take an output. Real sockets, since the question is what the kernel's buffers
// and the server's make of it together. The check does not know how large the outbox is; it fills
// until it overflows.

import { FULL, check, type Check } from '../check.js'
import { expect, expectEqual, notTested } from '../expect.js'
import { pause, type Scope } from '../kit.js'
import type { Peer, ServerFrame } from '../peer.js'
import { span, takeReplay } from './shared.js'

const ENOUGH_BYTES = 16_000_000
/** Of an output that is large enough to be blamed for a loss (P-51a). */
const LARGE_BYTES = 20_000

const large = (scope: Scope) => Math.min(60_000, scope.facts.maxMessageBytes - 500)

/**
 * Fills the outbox of a session that never acks until a resume reports a gap; gives that connection
 * and what it got.
 */
async function overflown (
  scope: Scope
): Promise<{ peer: Peer, replayed: ServerFrame[], highestSeq: number, sent: ServerFrame[] }> {
  let peer = await scope.connect()
  const sent: ServerFrame[] = []
  let highestSeq = 0
  peer.command('echo', 'first', 1)
  await peer.answer(1)
  for (let filled = 0; filled < ENOUGH_BYTES; filled += 24 * large(scope)) {
    await scope.fill(peer, 24, large(scope))
    sent.push(...peer.frames.filter(({ seq }) => seq !== undefined && seq > highestSeq))
    highestSeq = Math.max(highestSeq, peer.highestSeq)
    peer.link.destroy()
    peer = await scope.resumed(peer, 0)
    const replayed = await takeReplay(peer)
    expectExact(peer, 0, highestSeq, replayed)
    if (peer.facts['gap'] !== null) return { peer, replayed, highestSeq, sent }
  }
  return notTested(`an outbox smaller than ${ENOUGH_BYTES} bytes`)
}

/** gap and replay together are everything after lastSeq, once. */
function expectExact (peer: Peer, lastSeq: number, highestSeq: number, replayed: readonly ServerFrame[]): void {
  const { gap, replay } = peer.facts
  const lost = gap === null ? [] : span(gap.from, gap.to)
  const got = replayed.map(({ seq }) => seq)
  expectEqual(
    [...lost, ...got],
    span(lastSeq + 1, highestSeq),
    `gap ${JSON.stringify(gap)} and replay ${JSON.stringify(replay)} together`
  )
}

/**
 * Reads nothing while the server has more to say than kernel and outbox can hold; then reads on.
 */
async function deaf (scope: Scope): Promise<Peer> {
  const peer = await scope.connect()
  peer.command('echo', 'first', 1)
  await peer.answer(1)
  peer.link.pauseReading()
  const wrote = scope.fillBlindly(peer, Math.ceil(ENOUGH_BYTES / large(scope)), large(scope))
  if (scope.hasAdmin) {
    await Promise.race([wrote, detachedFor(scope, peer, 30_000)])
  } else {
    await wrote
  }
  peer.link.resumeReading()
  return peer
}

async function detachedFor (scope: Scope, peer: Peer, limitMs: number): Promise<void> {
  const deadline = performance.now() + limitMs
  while (performance.now() < deadline && (await scope.admin.session(peer.sessionId)).body?.state !== 'detached') {
    await pause(100)
  }
}

export const overflowChecks: readonly Check[] = [
  check('P-51', 'gives up an output with which its client closed three connections', FULL, async (scope) => {
    if (scope.facts.resumeWindowMs === 0) notTested('resumeWindowMs above 0')
    for (const code of [1009, 1007, 1003, 1002]) {
      let peer = await scope.connect()
      for (const [n, size] of [10, 5000, 10].entries()) {
        peer.command('echo', 'x'.repeat(size), n + 1)
        await peer.answer(n + 1)
      }
      // It has handled output 1 and cannot take output 2.
      peer.ack(1)
      for (let attempt = 0; attempt < 3; attempt++) {
        peer.link.close(code)
        await peer.closed(`the answer to a close with ${code}`)
        peer = await scope.resumed(peer, 1)
        const expected = attempt < 2 ? [null, { from: 2, to: 3 }] : [{ from: 2, to: 2 }, { from: 3, to: 3 }]
        expectEqual(
          [peer.facts['gap'], peer.facts['replay']],
          expected,
          `after ${attempt + 1} closes with ${code}, gap and replay`
        )
        await takeReplay(peer)
      }
      peer.command('echo', 'again', 2)
      expectEqual((await peer.answer(2)).code, 'RESULT_EXPIRED', 'for the command whose answer was given up, the code')
    }
  }),
  check('P-51', 'gives up a large output after nine losses, where a close counts for three', FULL, async (scope) => {
    if (scope.facts.resumeWindowMs === 0) notTested('resumeWindowMs above 0')
    if (scope.facts.maxMessageBytes < LARGE_BYTES + 500) notTested(`maxMessageBytes ≥ ${LARGE_BYTES + 500}`)
    for (const ends of [Array<number>(9).fill(1006), [1009, 1006, 1006, 1006, 1009]]) {
      let peer = await scope.connect()
      peer.command('echo', 'x'.repeat(LARGE_BYTES), 1)
      await peer.answer(1)
      peer.command('echo', 'behind it', 2)
      await peer.answer(2)
      for (const [n, code] of ends.entries()) {
        if (code === 1006) peer.link.destroy()
        else peer.link.close(code)
        await peer.closed()
        // A resume that overtakes the loss is a takeover, and says nothing of the output.
        if (scope.hasAdmin) await detachedFor(scope, peer, scope.options.timeoutMs)
        else await pause(100)
        peer = await scope.resumed(peer, 0)
        const expected = n < ends.length - 1 ? [null, { from: 1, to: 2 }] : [{ from: 1, to: 1 }, { from: 2, to: 2 }]
        expectEqual(
          [peer.facts['gap'], peer.facts['replay']],
          expected,
          `after the ends ${ends.slice(0, n + 1).join(', ')}, gap and replay`
        )
        await takeReplay(peer)
      }
    }
  }),
  check('P-51', 'keeps an output whose connections were lost, and starts anew after an ack', FULL, async (scope) => {
    if (scope.facts.resumeWindowMs === 0) notTested('resumeWindowMs above 0')
    let peer = await scope.connect()
    peer.command('echo', 'small', 1)
    await peer.answer(1)
    for (let attempt = 0; attempt < 12; attempt++) {
      peer.link.destroy()
      peer = await scope.resumed(peer, 0)
      expectEqual(peer.facts['gap'], null, `after ${attempt + 1} losses with a small output, the gap`)
      await takeReplay(peer)
    }
  }),
  check('P-25', 'drops the oldest outputs, keeps the newest and the session', FULL, async (scope) => {
    const { peer, replayed, highestSeq, sent } = await overflown(scope)
    expect(replayed.length > 0, 'a ring of the latest outputs', peer.opening)
    expectEqual(replayed.at(-1)?.seq, highestSeq, 'the last output replayed')
    for (const frame of replayed) {
      expectEqual(frame, sent.find(({ seq }) => seq === frame.seq), `output ${frame.seq} as it was sent first`)
    }
    peer.command('echo', 'on', 2)
    expectEqual((await peer.answer(2)).seq, highestSeq + 1, 'the seq of the next answer')
  }, { slow: true }),
  check('P-25', 'drops the oldest outputs when there are too many of them, however small', FULL, async (scope) => {
    void scope.core
    let peer = await scope.connect()
    for (let id = 1; id <= 20; id++) {
      peer.command('kit', { produce: { count: 300, bytes: 1 } }, id)
      const { type, seq } = await peer.answer(id)
      expectEqual(type, 'result', 'the answer')
      const outputs = seq!
      if (id % 4 !== 0) continue
      peer.link.destroy()
      peer = await scope.resumed(peer, 0)
      const replayed = await takeReplay(peer)
      expectExact(peer, 0, outputs, replayed)
      if (peer.facts['gap'] !== null) return
    }
    notTested('an outbox of fewer than 6000 messages')
  }, { slow: true }),
  check('P-26', 'keeps a connection that reads when answers bring more outputs than the outbox holds', FULL, async (
    scope
  ) => {
    const { core } = scope
    const peer = await scope.connect()
    const gate = scope.tag()
    for (const id of [1, 2, 3]) peer.command('kit', { tag: gate, gate, produce: { count: 700, bytes: 1 } }, id)
    await core.started(gate, 3)
    core.open(gate)
    for (let n = 0; n < 3; n++) {
      expectEqual((await peer.until(({ id }) => id !== undefined, 'an answer')).type, 'result', 'the answer')
    }
    await peer.fence()
    expectEqual(peer.frames.flatMap(({ seq }) => seq ?? []), span(1, 2104), 'the seqs received')
  }),
  check('P-25', 'closes no connection that reads but never acks', FULL, async (scope) => {
    const peer = await scope.connect()
    await scope.fill(peer, 48, large(scope))
    expect(peer.isOpen, 'the connection open', 'it closed')
  }, { slow: true }),
  check('P-32', 'reports what was dropped exactly', FULL, async (scope) => {
    const { peer, highestSeq } = await overflown(scope)
    expectEqual(peer.facts['gap'].from, 1, 'gap.from')
    // Once more from inside the gap, and from behind it.
    const { to } = peer.facts['gap'] as { to: number }
    peer.link.destroy()
    if (to > 1) {
      const inside = await scope.resumed(peer, to - 1)
      expectEqual(inside.facts['gap'], { from: to, to }, `for lastSeq ${to - 1}, gap`)
      expectExact(inside, to - 1, highestSeq, await takeReplay(inside))
      inside.link.destroy()
      const behind = await scope.resumed(inside, to)
      expectEqual(behind.facts['gap'], null, `for lastSeq ${to}, gap`)
      expectExact(behind, to, highestSeq, await takeReplay(behind))
    }
  }, { slow: true }),
  check('P-32', 'has gap null if nothing was dropped', FULL, async (scope) => {
    const peer = await scope.connect()
    await scope.fill(peer, 3, 10)
    peer.link.destroy()
    const again = await scope.resumed(peer, 1)
    expectEqual(again.facts['gap'], null, 'gap')
  }),
  check('P-32', 'reports what was dropped while no connection was attached', FULL, async (scope) => {
    const { admin } = scope
    const peer = await scope.connect()
    await scope.fill(peer, 3, 10)
    peer.link.destroy()
    if (scope.facts.resumeWindowMs === 0) notTested('resumeWindowMs above 0')
    let highestSeq = 3
    for (let n = 0; n < 40; n++) {
      const { status, body } = await admin.message(peer.sessionId, 'away', 'x'.repeat(60_000))
      expect(
        status === 202 && body.seq === highestSeq + 1,
        `HTTP 202 with seq ${highestSeq + 1}`,
        `HTTP ${status} ${JSON.stringify(body)}`
      )
      highestSeq++
    }
    const again = await scope.resumed(peer, 3)
    expectExact(again, 3, highestSeq, await takeReplay(again))
  }, { slow: true }),
  check('P-26', 'closes a client that never reads with 4101, then reports the gap exactly', FULL, async (scope) => {
    const peer = await deaf(scope)
    const end = await peer.closed('a client that never reads closed with 4101', 4 * scope.options.timeoutMs)
    // A socket that stays full until the server gives up on it cannot carry the close frame; then
    // there is none at all.
    expect(end.code === 4101 || end.code === 1006, 'close code 4101', end.code)
    if (end.code === 4101) expectEqual(end.goodbye?.payload?.reason, 'slow_consumer', 'the reason in goodbye')
    const outputs = peer.frames.filter(({ seq }) => seq !== undefined)
    expectEqual(outputs.map(({ seq }) => seq), span(1, outputs.length), 'the seqs received before the close')
    const again = await scope.resumed(peer, peer.highestSeq)
    const replayed = await takeReplay(again)
    again.command('echo', 'end', 'end')
    const { seq } = await again.answer('end')
    expectExact(again, peer.highestSeq, replayed.at(-1)?.seq ?? again.facts['gap']?.to ?? peer.highestSeq, replayed)
    expectEqual(
      seq, (replayed.at(-1)?.seq ?? again.facts['gap']?.to ?? peer.highestSeq) + 1, 'the seq of the first new output'
    )
  }, { slow: true }),
  check('P-44', 'gives a client that reads late everything in order', FULL, async (scope) => {
    const peer = await scope.connect()
    peer.link.pauseReading()
    const wrote = scope.fillBlindly(peer, 12, large(scope))
    await wrote
    await pause(300)
    peer.link.resumeReading()
    await peer.until(({ id, seq }) => id === 'blind-11' && seq !== undefined, 'the last answer')
    expectEqual(peer.frames.flatMap(({ seq }) => seq ?? []), span(1, 12), 'the seqs')
  }),
  check('P-44', 'replays more than the socket takes at once to a client that reads late', FULL, async (scope) => {
    const peer = await scope.connect()
    await scope.fill(peer, 15, large(scope))
    peer.link.destroy()
    const again = await scope.resumed(peer, 0)
    again.link.pauseReading()
    again.command('echo', 'during', 'during')
    await pause(300)
    again.link.resumeReading()
    const replayed = await takeReplay(again)
    expectEqual(replayed.at(-1)?.seq, 15, 'the last output replayed')
    expectEqual((await again.answer('during')).seq, 16, 'the seq of the first new output')
  })
]
