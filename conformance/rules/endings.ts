// P-37 to P-42, P-49, P-53 and P-54: which end of a connection terminates, which detaches, what
// gives way, and what the server says before it closes.

import { BASIC, BOTH, FULL, check, type Check } from '../check.js'
import { Failure, expect, expectEqual, notTested } from '../expect.js'
import { pause, type Scope } from '../kit.js'
import { REASONS, actionOf, type Ending, type Peer } from '../peer.js'
import type { HttpAnswer } from '../socket.js'
import { expectDetached, expectRefused, expectTerminated, takeReplay } from './shared.js'

function expectGoodbye (end: Ending, code: number): void {
  expectEqual(end.code, code, 'the close code')
  const { code: told, reason, action } = end.goodbye?.payload ?? {}
  expectEqual({ code: told, reason, action }, { code, reason: REASONS[code], action: actionOf(code) }, 'goodbye with')
  expectEqual(end.goodbye?.seq, undefined, 'seq of goodbye')
}

async function working (scope: Scope): Promise<Peer> {
  const peer = await scope.connect()
  peer.command('echo', 1, 1)
  await peer.answer(1)
  return peer
}

/** Ways in which a connection ends that are no wish of the client to end the session. */
const DROPS: Readonly<Record<string, (peer: Peer) => void>> = {
  'close 1001': (peer) => peer.link.close(1001),
  'close 3000': (peer) => peer.link.close(3000),
  'close 4999': (peer) => peer.link.close(4999),
  'close 1011': (peer) => peer.link.close(1011),
  'an end of TCP without a close frame': (peer) => peer.link.destroy(),
  'half a frame and an end of TCP': (peer) => {
    peer.link.sendBytes(Buffer.from([0x81, 0xfe, 0x01]))
    peer.link.destroy()
  }
}

const ENDS: Readonly<Record<string, (peer: Peer) => void>> = {
  'close 1000': (peer) => peer.link.close(1000),
  'close without status': (peer) => peer.link.close()
}

const MOST_TABS = 200
const MOST_ATTACHED = 100

/** Connects until it is refused; gives the last answer. */
async function fillUp (scope: Scope, user?: string): Promise<HttpAnswer> {
  for (let n = 1; ; n++) {
    const { answer } = await scope.handshake({ protocols: ['holdfast.v1'], ...(user === undefined ? {} : { user }) })
    if (answer.status !== 101 || n === MOST_ATTACHED) return answer
  }
}

/** P-54c: the time within which dead connections are found. */
function expectRetryAfter (scope: Scope, headers: HttpAnswer['headers']): void {
  const least = scope.facts.heartbeatMs / 1000 + 10
  expect(Number(headers.get('retry-after')) >= least, `Retry-After of ${least} s or more`, headers.get('retry-after'))
}

/** P-53d: the same refusal, for who cannot read a status. */
async function expectToldGoodbye (scope: Scope, code: number, user?: string): Promise<void> {
  const peer = await scope.connect({
    protocols: ['holdfast.v1', 'refuse.goodbye'],
    ...(user === undefined ? {} : { user })
  })
  const end = await peer.closed()
  expectEqual(
    [end.code, peer.opening.type, end.goodbye?.payload?.reason],
    [code, 'goodbye', REASONS[code]],
    'with refuse.goodbye, close code, first frame and reason'
  )
  expect(end.goodbye?.payload?.retryAfterMs > 0, 'retryAfterMs in goodbye', end.goodbye)
}

export const endingChecks: readonly Check[] = [
  check('P-37', 'terminates the session of a basic connection at every close', BASIC, async (scope) => {
    void scope.admin
    for (const [what, drop] of Object.entries({ ...DROPS, ...ENDS })) {
      const peer = await working(scope)
      drop(peer)
      await expectTerminated(scope, peer).catch((error: Error) => {
        throw new Failure(`after ${what}: ${error.message}`)
      })
    }
  }),
  check('P-38', 'terminates at 1000 and at a close without status', FULL, async (scope) => {
    for (const send of Object.values(ENDS)) {
      const peer = await working(scope)
      send(peer)
      await peer.closed()
      await expectRefused(scope, peer, 'ended_by_client', 1)
    }
  }),
  check('P-38', 'answers end with goodbye and 4000', FULL, async (scope) => {
    for (const frame of [{ type: 'end' }, { type: 'end', ack: 1 }]) {
      const peer = await working(scope)
      peer.send(frame)
      expectGoodbye(await peer.closed('goodbye and a close with 4000'), 4000)
      if (scope.facts.resumeWindowMs > 0) await expectRefused(scope, peer, 'ended_by_client', 1)
    }
  }),
  check('P-38', 'takes end in the basic profile too', BASIC, async (scope) => {
    const peer = await working(scope)
    peer.send({ type: 'end', sessionId: peer.sessionId })
    expectGoodbye(await peer.closed('goodbye and a close with 4000'), 4000)
  }),
  ...Object.entries(DROPS).map(([what, drop]) => check('P-39', `detaches at ${what}`, FULL, async (scope) => {
    const peer = await working(scope)
    drop(peer)
    await peer.closed()
    const again = await expectDetached(scope, peer)
    await takeReplay(again)
    again.command('echo', 2, 2)
    expectEqual((await again.answer(2)).seq, 2, 'after the resume, the seq of the next answer')
  })),
  check('P-40', 'ends an idle session with 4300, whatever heartbeats, acks and refusals come', BOTH, async (scope) => {
    const { idleTimeoutMs } = scope.facts
    if (idleTimeoutMs > 5000) notTested('idleTimeoutMs ≤ 5000')
    // Before its last activity: whatever delays its answer on a busy machine does not make the end
    // look early.
    const startedAt = performance.now()
    const peer = await working(scope)
    const noise = setInterval(() => {
      peer.send({ type: 'ack', seq: 0, sessionId: peer.sessionId })
      peer.command('echo', 'gap', 99)
    }, Math.max(200, idleTimeoutMs / 5))
    try {
      expectGoodbye(await peer.closed('goodbye and a close with 4300', idleTimeoutMs + 4000), 4300)
    } finally {
      clearInterval(noise)
    }
    const tookMs = performance.now() - startedAt
    expect(tookMs >= idleTimeoutMs, `an end not before ${idleTimeoutMs} ms`, `${Math.round(tookMs)} ms`)
    if (scope.profile === 'full' && scope.facts.resumeWindowMs > 0) await expectRefused(scope, peer, 'idle', 1)
  }, { slow: true }),
  check('P-40', 'keeps a session that accepts commands', BOTH, async (scope) => {
    const { idleTimeoutMs } = scope.facts
    if (idleTimeoutMs > 5000) notTested('idleTimeoutMs ≤ 5000')
    const peer = await working(scope)
    for (let n = 0; n < 6; n++) {
      await pause(idleTimeoutMs / 3)
      await peer.fence()
    }
  }, { slow: true }),
  check('P-41', 'closes with 4001 when an operator terminates', BOTH, async (scope) => {
    const { admin } = scope
    const peer = await working(scope)
    expectEqual((await admin.terminate(peer.sessionId)).status, 204, 'status of DELETE')
    expectGoodbye(await peer.closed('goodbye and a close with 4001'), 4001)
    await expectTerminated(scope, peer)
    const { status } = await admin.terminate(peer.sessionId)
    expect(status === 404 || status === 410, 'HTTP 404 or 410 for a second DELETE', `HTTP ${status}`)
  }),
  check('P-41', 'closes with 4203 when an operator detaches, and keeps the session', FULL, async (scope) => {
    const { admin } = scope
    const peer = await working(scope)
    const { status } = await admin.detach(peer.sessionId)
    expect(status >= 200 && status < 300, 'HTTP 2xx for a detach', `HTTP ${status}`)
    expectGoodbye(await peer.closed('goodbye and a close with 4203'), 4203)
    const again = await expectDetached(scope, peer)
    await takeReplay(again)
    await again.fence()
  }),
  check('P-41', 'answers a detached operator message, then ends the detached session', FULL, async (scope) => {
    const { admin } = scope
    if (scope.facts.resumeWindowMs === 0) notTested('resumeWindowMs above 0')
    const peer = await working(scope)
    peer.link.destroy()
    expectEqual(
      (await admin.message(peer.sessionId, 'late', 1)).status, 202, 'status of a message to a detached session'
    )
    expectEqual((await admin.terminate(peer.sessionId)).status, 204, 'status of DELETE')
    await expectRefused(scope, peer, 'ended_by_operator', 1)
  }),
  check('P-54', 'ends the longest detached session of a user beyond his quota', FULL, async (scope) => {
    const { admin } = scope
    if (!scope.signsTokens) notTested('--jwt-secret')
    if (scope.facts.resumeWindowMs < 60_000) notTested('resumeWindowMs ≥ 60000')
    const user = `kit-tabs-${scope.tag()}`
    const attached = await scope.connect({ user })
    const first = await scope.connect({ user })
    await first.fence()
    first.link.destroy()
    // As many as a person opens and closes in a day: none of them is refused.
    let isEnded = false
    for (let tabs = 1; tabs <= MOST_TABS && !isEnded; tabs++) {
      const tab = await scope.connect({ user })
      await tab.fence()
      tab.link.destroy()
      if (tabs % 8 === 0) isEnded = (await admin.session(first.sessionId)).status === 410
    }
    if (!isEnded) notTested(`a quota of ${MOST_TABS} sessions or fewer`)
    const next = await scope.resume(first, 0, { user })
    expectEqual(next.facts['previous']?.reason, 'quota', 'for the session that gave way, previous.reason')
    await attached.fence()
  }, { slow: true }),
  check('P-54', 'refuses a user whose sessions are all attached, with 429 or 4429', FULL, async (scope) => {
    if (!scope.signsTokens) notTested('--jwt-secret')
    const user = `kit-attached-${scope.tag()}`
    const first = await scope.connect({ user })
    const { status, headers } = await fillUp(scope, user)
    await first.fence()
    if (status === 101) notTested(`a quota of ${MOST_ATTACHED} sessions or fewer`)
    expectEqual(status, 429, 'the HTTP status beyond the quota')
    expectRetryAfter(scope, headers)
    await expectToldGoodbye(scope, 4429, user)
  }, { slow: true }),
  check('P-54', 'ends the longest detached session of a full server, and refuses once all are attached', FULL, async (
    scope
  ) => {
    if (scope.facts.resumeWindowMs < 60_000) notTested('resumeWindowMs ≥ 60000')
    const attached = await scope.connect()
    const first = await working(scope)
    first.link.destroy()
    await first.closed()
    const { status, headers } = await fillUp(scope)
    await attached.fence()
    if (status === 101 || status === 429) notTested(`a server that is full with ${MOST_ATTACHED} sessions or fewer`)
    expectEqual(status, 503, 'the HTTP status of a full server')
    expectRetryAfter(scope, headers)
    await expectToldGoodbye(scope, 4104)
    attached.link.close(1000)
    await attached.closed()
    const next = await scope.resume(first, 0)
    expectEqual(next.facts['previous']?.reason, 'overloaded', 'for the session that gave way, previous.reason')
  }, { last: true }),
  check('P-42', 'says goodbye before 4409, 4400 and 4000', BOTH, async (scope) => {
    const invalid = await working(scope)
    invalid.send({ sessionId: 'none', command: 'echo' })
    expectGoodbye(await invalid.closed(), 4409)
    const bad = await working(scope)
    for (let n = 0; n < 11; n++) bad.sendText('bad')
    expectGoodbye(await bad.closed(), 4400)
    const ended = await working(scope)
    ended.send({ type: 'end', sessionId: ended.sessionId })
    expectGoodbye(await ended.closed(), 4000)
  }),
  check('P-42', 'says goodbye before 4003', FULL, async (scope) => {
    const older = await working(scope)
    await scope.resumed(older, 1)
    expectGoodbye(await older.closed(), 4003)
  }),
  check('P-49', 'gives each close code the action of its hundreds digit', FULL, async (scope) => {
    const older = await working(scope)
    const newer = await scope.resumed(older, 1)
    newer.ack(1_000_000)
    const ended = await working(scope)
    ended.send({ type: 'end' })
    for (const end of [await older.closed(), await newer.closed(), await ended.closed()]) {
      expectEqual(end.goodbye?.payload?.action, actionOf(end.code), `with ${end.code}, the action`)
    }
  })
]
