// P-10 and P-12 to P-19 where the kit executes the commands itself, as the server's core: it can
// hold an answer, fail on purpose, and count how often a command really ran.

import { BOTH, FULL, check, type Check } from '../check.js'
import { expect, expectEqual, notTested } from '../expect.js'
import { pause, type Scope } from '../kit.js'
import type { Peer } from '../peer.js'
import { takeReplay } from './shared.js'

/** Sends a command that the core answers once its gate is open; its tag is its gate. */
function hold (scope: Scope, peer: Peer, id: number | string | undefined, more: object = {}): string {
  const tag = scope.tag()
  // Read before anything is sent, so that a run without a core ends here.
  void scope.core
  peer.command('kit', { tag, gate: tag, ...more }, id)
  return tag
}

export const coreChecks: readonly Check[] = [
  check('P-10', 'does not execute a refused command', BOTH, async (scope) => {
    const { core } = scope
    const peer = await scope.connect()
    const tag = scope.tag()
    peer.command('kit', { tag }, 2)
    expectEqual((await peer.answer(2)).code, 'COMMAND_GAP', 'for command 2 before 1, the code')
    peer.sendText(JSON.stringify({ sessionId: peer.sessionId, command: 'kit', payload: { tag }, id: 1, more: true }))
    await peer.fence()
    expectEqual(core.byTag(tag).length, 0, 'executions of a refused and of a malformed command')
  }),
  check('P-12', 'executes a duplicate never: running, answered, acknowledged, with other content', FULL, async (
    scope
  ) => {
    const { core } = scope
    const peer = await scope.connect()
    const tag = hold(scope, peer, 1)
    await core.started(tag)
    peer.command('kit', { tag }, 1)
    peer.command('kit', { tag, other: true }, 1)
    const between = await peer.fence()
    expectEqual(between, [], 'frames in answer to a duplicate that is still running')
    core.open(tag)
    const answer = await peer.answer(1)
    expect(answer.type === 'result' && answer.seq !== undefined, 'one result of command 1', answer)
    const repeats = (await peer.fence()).filter(({ id }) => id === 1)
    expectEqual(repeats, [], 'further answers to command 1')
    peer.command('kit', { tag }, 1)
    expectEqual(await peer.answer(1), answer, 'for a repeat after the answer')
    peer.ack(peer.highestSeq)
    peer.command('kit', { tag }, 1)
    expectEqual((await peer.answer(1)).code, 'RESULT_EXPIRED', 'for a repeat after the ack, the code')
    expectEqual(core.byTag(tag).length, 1, 'executions of command 1')
  }),
  check('P-12', 'executes a duplicate never in the basic profile', ['basic'], async (scope) => {
    const { core } = scope
    const peer = await scope.connect()
    const tag = hold(scope, peer, 1)
    await core.started(tag)
    peer.command('kit', { tag }, 1)
    expectEqual(await peer.fence(), [], 'frames in answer to a duplicate that is still running')
    core.open(tag)
    await peer.answer(1)
    peer.command('kit', { tag }, 1)
    expectEqual((await peer.answer(1)).code, 'RESULT_EXPIRED', 'for a repeat after the answer, the code')
    expectEqual(core.byTag(tag).length, 1, 'executions of command 1')
  }),
  check('P-12', 'answers a command once that was running over two resumes and sent again on each', FULL, async (
    scope
  ) => {
    const { core } = scope
    const first = await scope.connect()
    const tag = hold(scope, first, 1)
    await core.started(tag)
    first.link.destroy()
    const second = await scope.resumed(first, 0)
    second.command('kit', { tag, gate: tag }, 1)
    await second.fence()
    second.link.destroy()
    const third = await scope.resumed(second, second.highestSeq)
    third.command('kit', { tag, gate: tag }, 1)
    await third.fence()
    core.open(tag)
    expectEqual((await third.answer(1)).type, 'result', 'the answer to command 1')
    expectEqual((await third.fence()).filter(({ id }) => id === 1), [], 'further answers to command 1')
    expectEqual(core.byTag(tag).length, 1, 'executions of command 1')
  }),
  check('P-14', 'executes a string id as often as it is sent', BOTH, async (scope) => {
    const { core } = scope
    const peer = await scope.connect()
    const tag = scope.tag()
    for (let n = 0; n < 2; n++) {
      peer.command('kit', { tag }, 'same')
      await peer.answer('same')
    }
    expectEqual(core.byTag(tag).length, 2, 'executions')
  }),
  check('P-15', 'answers errors of a core with the code of the core', BOTH, async (scope) => {
    void scope.core
    const peer = await scope.connect()
    for (const [n, status] of [400, 404, 409, 422].entries()) {
      peer.command('kit', { status, body: { code: 'OUT_OF_STOCK', message: 'Nothing is left.' } }, n + 1)
      const answer = await peer.answer(n + 1)
      const right = answer.type === 'error' && answer.code === 'OUT_OF_STOCK' &&
        answer.payload === 'Nothing is left.' && answer.seq === n + 1
      expect(right, `for HTTP ${status} of the core, a sequenced error OUT_OF_STOCK with its sentence`, answer)
    }
  }),
  check('P-15', 'answers OUTCOME_UNKNOWN if the core fails when it has the command, once', BOTH, async (
    scope
  ) => {
    const { core } = scope
    const peer = await scope.connect()
    const orders = [{ status: 500, body: {} }, { status: 503, body: 'busy' }, { status: 302 }, { drop: true }]
    for (const [n, order] of orders.entries()) {
      const tag = scope.tag()
      peer.command('kit', { ...order, tag }, n + 1)
      const answer = await peer.answer(n + 1)
      const right = answer.type === 'error' && answer.code === 'OUTCOME_UNKNOWN' && answer.seq === n + 1
      expect(right, `for ${JSON.stringify(order)}, a sequenced error OUTCOME_UNKNOWN`, answer)
      expectEqual(core.byTag(tag).map(({ requests }) => requests), [1], `requests for ${JSON.stringify(order)}`)
    }
    peer.command('echo', 'on', orders.length + 1)
    expectEqual((await peer.answer(orders.length + 1)).payload, 'on', 'then, the answer to the next command')
  }),
  check('P-15', 'takes any 2xx of a core for its answer', BOTH, async (scope) => {
    void scope.core
    const peer = await scope.connect()
    const orders = [
      [200, { payload: 1 }, 1], [201, { payload: 1 }, 1], [202, {}, null], [202, undefined, null],
      [204, undefined, null]
    ]
    for (const [n, [status, body, payload]] of orders.entries()) {
      peer.command('kit', { status, body }, n + 1)
      const answer = await peer.answer(n + 1)
      expectEqual(
        [answer.type, answer.payload], ['result', payload], `for ${String(status)} with ${JSON.stringify(body)}`
      )
    }
  }),
  check('P-15', 'repeats a command that the core turned away, and runs it once', BOTH, async (scope) => {
    const { core } = scope
    const peer = await scope.connect()
    const tag = scope.tag()
    peer.command('kit', { tag, busy: 2, result: 'done' }, 1)
    expectEqual((await peer.answer(1)).payload, 'done', 'for a command answered 503 with Retry-After twice, the answer')
    expectEqual(core.byTag(tag).map(({ requests }) => requests), [1], 'its executions')
  }),
  check('P-16', 'accepts a command refused TOO_MANY_IN_FLIGHT when it is sent again', BOTH, async (scope) => {
    const { core, facts } = scope
    if (facts.maxInFlight > Math.min(500, facts.commandsPerSecond * 10)) {
      notTested('maxInFlight ≤ 500 and ≤ 10 × commandsPerSecond')
    }
    const peer = await scope.connect()
    const gate = scope.tag()
    for (let id = 1; id <= facts.maxInFlight; id++) {
      peer.command('kit', { gate, tag: gate }, id)
      if (id % 5 === 0) await pause(5500 / Math.min(facts.commandsPerSecond, 5500))
    }
    await core.started(gate, facts.maxInFlight)
    const beyond = facts.maxInFlight + 1
    await scope.eventually('TOO_MANY_IN_FLIGHT', async () => {
      peer.command('kit', { tag: gate }, beyond)
      const refusal = await peer.answer(beyond)
      expect(refusal.seq === undefined, `command ${beyond} refused while ${facts.maxInFlight} are unanswered`, refusal)
      if (refusal.code === 'RATE_LIMITED') await pause(refusal.retryAfterMs ?? 50)
      return refusal.code === 'TOO_MANY_IN_FLIGHT' ? true : undefined
    })
    expectEqual(core.byTag(gate).length, facts.maxInFlight, 'executions while the refused one was not sent again')
    core.open(gate)
    for (let id = 1; id <= facts.maxInFlight; id++) await peer.until((frame) => frame.seq !== undefined, 'an answer')
    peer.command('kit', { tag: gate, result: 'in turn' }, beyond)
    expectEqual((await peer.answer(beyond)).payload, 'in turn', `the answer to command ${beyond}`)
  }),
  check('P-17', 'runs commands side by side and answers in order of completion', BOTH, async (scope) => {
    const { core } = scope
    const peer = await scope.connect()
    const tags = [1, 2, 3].map((id) => hold(scope, peer, id))
    for (const tag of tags) await core.started(tag)
    for (const n of [2, 0, 1]) {
      core.open(tags[n]!)
      const answer = await peer.take('an answer')
      expectEqual(answer.id, n + 1, 'after the completion of a command, the id answered')
    }
  }),
  check('P-18', 'runs a serial command alone', FULL, async (scope) => {
    const { core } = scope
    const serial = scope.options.serialCommand ?? notTested('--serial-command')
    const peer = await scope.connect()
    const before = hold(scope, peer, 1)
    const tag = scope.tag()
    peer.command(serial, { tag, gate: tag }, 2)
    const after = hold(scope, peer, 3)
    await core.started(before)
    // An echo as a fence would be held back itself.
    await pause(200)
    expectEqual(
      [core.byTag(tag).length, core.byTag(after).length],
      [0, 0],
      'executions of the serial command and of the next while an earlier one runs'
    )
    core.open(before)
    await core.started(tag)
    expectEqual(core.byTag(after).length, 0, 'executions of the command after it while the serial one runs')
    core.open(tag)
    await core.started(after)
    core.open(after)
    await peer.answer(3)
  }),
  check('P-19', 'answers a late command COMMAND_TIMEOUT and discards what comes later', BOTH, async (scope) => {
    const { core } = scope
    const limitMs = scope.options.commandTimeoutMs ?? notTested('--command-timeout-ms ≤ 10000')
    if (limitMs > 10_000) notTested('--command-timeout-ms ≤ 10000')
    const peer = await scope.connect()
    const tag = hold(scope, peer, 1)
    await core.started(tag)
    const answer = await peer.until(({ id }) => id === 1, 'COMMAND_TIMEOUT', limitMs + scope.options.timeoutMs)
    expect(
      answer.type === 'error' && answer.code === 'COMMAND_TIMEOUT' && answer.seq !== undefined,
      'a sequenced error COMMAND_TIMEOUT',
      answer
    )
    core.open(tag)
    await pause(100)
    expectEqual((await peer.fence()).filter(({ id }) => id === 1), [], 'answers to command 1 after its timeout')
  }, { slow: true }),
  check('P-31', 'delivers the answer of a command that was running when the connection broke', FULL, async (scope) => {
    const { core } = scope
    const peer = await scope.connect()
    const during = hold(scope, peer, 1)
    const after = hold(scope, peer, 2)
    await core.started(during)
    await core.started(after)
    peer.link.destroy()
    core.open(during)
    await pause(200)
    const again = await scope.resumed(peer, 0)
    expectEqual(again.facts['lastCommand'], 2, 'lastCommand')
    await takeReplay(again)
    core.open(after)
    await again.answer(2)
    const answers = again.frames.filter(({ id }) => id !== undefined)
    expectEqual(
      answers.map(({ id, seq }) => [id, seq]), [[1, 1], [2, 2]], 'ids and seqs of the answers on the new connection'
    )
  }),
  check('P-55', 'numbers what need not wait for the store like all else, and replays it', FULL, async (scope) => {
    void scope.core
    const peer = await scope.connect()
    const messages = [true, false, true, true].map((behind, n) => ({ event: 'note', payload: n, behind }))
    peer.command('kit', { tag: scope.tag(), messages }, 1)
    const answer = await peer.answer(1)
    expectEqual(answer.seq, 5, 'the seq of the answer behind four messages')
    const got = peer.frames.filter(({ type }) => type === 'message').map(({ seq, payload }) => [seq, payload])
    expectEqual(got, [[1, 0], [2, 1], [3, 2], [4, 3]], 'seq and payload of the messages')
    peer.link.destroy()
    const again = await scope.resumed(peer, 2)
    expectEqual(again.facts['replay'], { from: 3, to: 5 }, 'what is replayed to a client that has two of them')
  })
]
