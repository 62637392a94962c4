// P-43, P-45 to P-48, P-52 and P-53: heartbeats, limits, and the ends that the server decides on.
// What takes longer than a few seconds is tested only on a server that is configured to be quick
// about it.

import { exec } from 'node:child_process'
import { promisify } from 'node:util'
import { BASIC, BOTH, FULL, check, type Check } from '../check.js'
import { expect, expectEqual, notTested } from '../expect.js'
import { OPCODE, encodeFrame } from '../frames.js'
import { pause, type Scope } from '../kit.js'
import { expectDetached, provokeRateLimit, takeReplay } from './shared.js'

const SILENCE_GRACE_MS = 10_000
const TOKEN_SECONDS = 5
/** Servers take a token for some time after its end, since clocks differ. */
const CLOCK_TOLERANCE_MS = 30_000
/** What a sweep of the server and the kit's own timers may add. */
const SLACK_MS = 3000

export const livenessChecks: readonly Check[] = [
  check('P-43', 'sends ping at least every heartbeatMs', FULL, async (scope) => {
    const { heartbeatMs, idleTimeoutMs } = scope.facts
    if (heartbeatMs > 5000 || idleTimeoutMs < 3 * heartbeatMs) {
      notTested('heartbeatMs ≤ 5000 and idleTimeoutMs ≥ 3 × heartbeatMs')
    }
    const peer = await scope.connect()
    const answering = setInterval(() => peer.ack(0), Math.max(100, heartbeatMs / 2))
    try {
      await pause(2.5 * heartbeatMs + SLACK_MS)
    } finally {
      clearInterval(answering)
    }
    const pings = peer.frames.filter(({ type }) => type === 'ping')
    expect(pings.length >= 2, `two pings within ${Math.round(2.5 * heartbeatMs + SLACK_MS)} ms`, `${pings.length}`)
    for (const [n, at] of peer.arrivals.entries()) {
      const silenceMs = at - (peer.arrivals[n - 1] ?? at)
      expect(silenceMs <= heartbeatMs + SLACK_MS, `no silence above ${heartbeatMs} ms`, `${Math.round(silenceMs)} ms`)
    }
    expectEqual(pings[0], { type: 'ping' }, 'the ping')
  }, { slow: true }),
  check('P-43', 'sends a WebSocket ping at least every heartbeatMs', BASIC, async (scope) => {
    const { heartbeatMs, idleTimeoutMs } = scope.facts
    if (heartbeatMs > 5000 || idleTimeoutMs < 3 * heartbeatMs) {
      notTested('heartbeatMs ≤ 5000 and idleTimeoutMs ≥ 3 × heartbeatMs')
    }
    const peer = await scope.connect()
    await pause(2.5 * heartbeatMs + SLACK_MS)
    expect(
      peer.wirePings.length >= 2,
      `two WebSocket pings within ${Math.round(2.5 * heartbeatMs + SLACK_MS)} ms`,
      `${peer.wirePings.length}`
    )
    expectEqual(peer.frames.filter(({ type }) => type === 'ping').length, 0, 'ping frames in the basic profile')
  }, { slow: true }),
  check('P-43', 'drops a silent peer with 4103 after heartbeatMs + 10 s', BOTH, async (scope) => {
    const { heartbeatMs } = scope.facts
    const limitMs = expectQuick(scope)
    const peer = await scope.connect()
    peer.link.answerPings(false)
    const startedAt = performance.now()
    const end = await peer.closed(`a silent peer closed with 4103 within ${limitMs} ms`, limitMs + heartbeatMs + 3000)
    expectEqual([end.code, end.goodbye?.payload?.reason], [4103, 'heartbeat_missed'], 'close code and reason')
    const tookMs = performance.now() - startedAt
    expect(tookMs >= limitMs - 500, `the close not before ${limitMs} ms`, `${Math.round(tookMs)} ms`)
    if (scope.profile === 'full' && scope.facts.resumeWindowMs > 0) await expectDetached(scope, peer)
  }, { slow: true }),
  check('P-43', 'takes bytes of a frame that is not whole yet for life', BOTH, async (scope) => {
    const limitMs = expectQuick(scope)
    const peer = await scope.connect()
    peer.link.answerPings(false)
    const frame = encodeFrame(
      OPCODE.text, Buffer.from(JSON.stringify({ sessionId: peer.sessionId, command: 'echo', id: 'slow' }))
    )
    const stepMs = scope.facts.heartbeatMs + SILENCE_GRACE_MS / 3
    let at = 0
    for (let passedMs = 0; passedMs < limitMs + SLACK_MS; passedMs += stepMs) {
      peer.link.sendBytes(frame.subarray(at, ++at))
      await pause(stepMs)
    }
    peer.link.sendBytes(frame.subarray(at))
    expectEqual((await peer.answer('slow')).type, 'result', 'the answer to the command that took so long')
  }, { slow: true }),
  check('P-43', 'takes WebSocket pings of the client for life', BOTH, async (scope) => {
    const limitMs = expectQuick(scope)
    const peer = await scope.connect()
    peer.link.answerPings(false)
    const asking = setInterval(() => peer.link.sendFrame(OPCODE.ping, Buffer.alloc(0)), SILENCE_GRACE_MS / 3)
    try {
      await pause(limitMs + SLACK_MS)
    } finally {
      clearInterval(asking)
    }
    await peer.fence()
  }, { slow: true }),
  check('P-43', 'sends WebSocket pings behind output that is not acknowledged, and within a large one', FULL, async (
    scope
  ) => {
    const peer = await scope.connect()
    await scope.fill(peer, 20, 4000)
    await pause(50)
    const behindSmall = peer.wirePings.length
    expect(behindSmall >= 5, 'five WebSocket pings or more behind 80 kB of output', behindSmall)
    const bytes = Math.min(60_000, scope.facts.maxMessageBytes - 500)
    await scope.fill(peer, 1, bytes)
    await pause(50)
    const least = Math.floor(bytes / 16_384)
    expect(
      peer.wirePings.length - behindSmall >= least,
      `${least} WebSocket pings or more with one output of ${bytes} bytes`,
      peer.wirePings.length - behindSmall
    )
  }),
  check('P-43', 'asks a client that is sent much and says nothing', FULL, async (scope) => {
    const { admin } = scope
    const { heartbeatMs } = scope.facts
    if (heartbeatMs > 5000) notTested('heartbeatMs ≤ 5000')
    const peer = await scope.connect()
    peer.link.answerPings(false)
    const until = performance.now() + 2.5 * heartbeatMs + SLACK_MS
    while (performance.now() < until) {
      await admin.message(peer.sessionId, 'kit.steady', 1)
      await pause(heartbeatMs / 5)
    }
    const pings = peer.frames.filter(({ type }) => type === 'ping').length
    expect(pings >= 1, 'a ping while outputs come all the time', pings)
  }, { slow: true }),
  check('P-52', 'answers ping with pong, which is no output', BOTH, async (scope) => {
    const peer = await scope.connect()
    const named = scope.profile === 'basic' ? { sessionId: peer.sessionId } : {}
    for (let n = 0; n < 20; n++) {
      peer.send({ type: 'ping', ...named })
      expectEqual(await peer.take('pong'), { type: 'pong' }, 'the answer to ping')
    }
    for (let n = 0; n < 500; n++) peer.send({ type: 'ping', ...named })
    const between = await peer.fence()
    expect(
      between.every(({ type }) => type === 'pong') && between.length >= 1 && between.length <= 500,
      '1 to 500 pongs for 500 pings in a row',
      between.slice(0, 5)
    )
  }),
  check('P-45', 'answers ten malformed frames and closes the eleventh with 4400', BOTH, async (scope) => {
    const peer = await scope.connect()
    for (let n = 0; n < 10; n++) {
      if (n % 2 === 0) peer.sendText('bad')
      else peer.sendBinary(Buffer.from('bad'))
      expectEqual((await peer.take('BAD_FRAME')).code, 'BAD_FRAME', `for malformed frame ${n + 1}, the code`)
    }
    await peer.fence()
    peer.sendText('bad')
    const end = await peer.closed('the 11th malformed frame closed with 4400')
    expectEqual([end.code, end.goodbye?.payload?.reason], [4400, 'bad_frame'], 'close code and reason')
    if (scope.profile === 'full' && scope.facts.resumeWindowMs > 0) await takeReplay(await expectDetached(scope, peer))
  }),
  check('P-45', 'counts for each connection on its own', FULL, async (scope) => {
    const peer = await scope.connect()
    for (let n = 0; n < 8; n++) peer.sendText('bad')
    await peer.fence()
    peer.link.destroy()
    const again = await scope.resumed(peer, peer.highestSeq)
    for (let n = 0; n < 8; n++) again.sendText('bad')
    await again.fence()
    expect(again.isOpen, 'the resumed connection open after 8 malformed frames of its own', 'closed')
  }),
  check('P-46', 'refuses too many commands RATE_LIMITED and says when to go on', BOTH, async (scope) => {
    const peer = await scope.connect()
    const { refusal } = await provokeRateLimit(scope, peer)
    const whole = refusal.type === 'error' && refusal.seq === undefined && typeof refusal.id === 'number' &&
      typeof refusal.retryAfterMs === 'number'
    expect(whole, 'an unsequenced error RATE_LIMITED with id and retryAfterMs', refusal)
  }),
  check('P-46', 'closes a client that goes on regardless with 4102', BOTH, async (scope) => {
    const { commandsPerSecond } = scope.facts
    if (commandsPerSecond > 2000) notTested('commandsPerSecond ≤ 2000')
    const peer = await scope.connect()
    // Encoded once: the flood has to outrun the refill of the limit, which accepts a command now
    // and then.
    const frame = encodeFrame(
      OPCODE.text, Buffer.from(JSON.stringify({ sessionId: peer.sessionId, command: 'echo', id: 'f' }))
    )
    const flood = Buffer.concat(Array.from({ length: 2000 }, () => frame))
    const deadline = performance.now() + 6000
    while (peer.isOpen && performance.now() < deadline) {
      if (peer.link.pendingBytes() < 4 * flood.length) peer.link.sendBytes(flood)
      await pause(5)
    }
    // A core that is slower than the limit keeps the flood at maxInFlight, where it is refused for
    // another reason.
    if (peer.isOpen && scope.hasCore) notTested('a run without --core, since the core is slower than the rate limit')
    const end = await peer.closed('a flood closed with 4102', 3000)
    expectEqual([end.code, end.goodbye?.payload?.reason], [4102, 'rate_limited'], 'close code and reason')
    const refusals = peer.frames.filter(({ code }) => code === 'RATE_LIMITED').length
    expect(refusals >= 99, 'about 100 refusals before the close', refusals)
    if (scope.profile === 'full' && scope.facts.resumeWindowMs > 0) {
      const again = await expectDetached(scope, peer)
      await takeReplay(again)
    }
  }, { last: true }),
  check('P-43', 'asks everybody after a standstill of its own, and drops nobody for it', FULL, async (scope) => {
    const command = scope.options.standstillCommand ?? notTested('--standstill-command')
    const { heartbeatMs } = scope.facts
    const peers = await Promise.all(Array.from({ length: 5 }, () => scope.connect()))
    const startedAt = performance.now()
    await promisify(exec)(command)
    const stoodMs = performance.now() - startedAt
    if (stoodMs < heartbeatMs + SILENCE_GRACE_MS) {
      notTested(`a standstill longer than ${heartbeatMs + SILENCE_GRACE_MS} ms`)
    }
    await pause(2 * heartbeatMs)
    for (const peer of peers) {
      await peer.fence()
      expect(peer.isOpen, 'connections open after the standstill', 'one is closed')
    }
  }, { last: true }),
  check('P-47', 'closes with 4202 when the credentials expire, and resumes with fresh ones', FULL, async (scope) => {
    if (!scope.signsTokens) notTested('--jwt-secret')
    const peer = await scope.connect({ tokenLifetimeSeconds: TOKEN_SECONDS })
    const limitMs = TOKEN_SECONDS * 1000 + CLOCK_TOLERANCE_MS + scope.options.timeoutMs
    const end = await peer.closed('a connection whose token expired closed with 4202', limitMs)
    expectEqual([end.code, end.goodbye?.payload?.reason], [4202, 'credentials_expired'], 'close code and reason')
    if (scope.facts.resumeWindowMs > 0) await expectDetached(scope, peer)
  }, { slow: true }),
  check(
    'P-48',
    'refuses upgrades, refuses commands, answers the running ones and closes with 4200',
    FULL,
    drains,
    { last: true }
  )
]

/** The time after which a silent peer is dropped, where that is soon enough to be waited for. */
function expectQuick (scope: Scope): number {
  const { heartbeatMs, idleTimeoutMs } = scope.facts
  const limitMs = heartbeatMs + SILENCE_GRACE_MS
  if (heartbeatMs > 5000 || idleTimeoutMs < limitMs + 5000) {
    notTested('heartbeatMs ≤ 5000 and idleTimeoutMs 15000 above it')
  }
  return limitMs
}

async function drains (scope: Scope): Promise<void> {
  const command = scope.options.drainCommand ?? notTested('--drain-command')
  const peers = await Promise.all(Array.from({ length: 5 }, () => scope.connect()))
  const [first] = peers as [typeof peers[0]]
  const tag = scope.tag()
  if (scope.hasCore) {
    first!.command('kit', { tag, gate: tag }, 1)
    await scope.core.started(tag)
  }
  exec(command)
  await scope.eventually('upgrades refused with 503 and Retry-After, or no longer taken', async () => {
    const result = await scope.handshake({ protocols: ['holdfast.v1'] }).catch(() => undefined)
    if (result === undefined) return true
    if (result.answer.status === 101) return undefined
    expectEqual(result.answer.status, 503, 'the HTTP status while draining')
    expect(result.answer.headers.has('retry-after'), 'Retry-After with 503', [...result.answer.headers.keys()])
    // P-53d: the same for who cannot read a status, unless the server no longer listens by now.
    const told = await scope.connect({ protocols: ['holdfast.v1', 'refuse.goodbye'] }).catch(() => undefined)
    if (told !== undefined) expectEqual((await told.closed()).code, 4200, 'with refuse.goodbye, the close code')
    return true
  })
  if (scope.hasCore && first!.isOpen) {
    first!.command('echo', 'too late', 2)
    const refusal = await first!.until(({ id, type }) => id === 2 || type === 'goodbye', 'DRAINING or goodbye')
    if (refusal.type !== 'goodbye') {
      expectEqual([refusal.code, refusal.seq], ['DRAINING', undefined], 'for a new command, code and seq')
    }
    scope.core.open(tag)
  }
  for (const peer of peers) {
    const end = await peer.closed('the connections closed with 4200', 30_000)
    expectEqual([end.code, end.goodbye?.payload?.reason], [4200, 'draining'], 'close code and reason')
  }
  if (scope.hasCore && first!.frames.some(({ code }) => code === 'DRAINING')) {
    expect(
      first!.frames.some(({ id, seq }) => id === 1 && seq !== undefined),
      'the answer of the command that was running',
      first!.frames.slice(-3)
    )
  }
}
