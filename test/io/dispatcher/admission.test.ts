import fc from 'fast-check'
import t from 'tap'
import { admit } from '../../../src/io/dispatcher/admission.js'
import type { CallState, SessionRecord } from '../../../src/io/session/record.js'
import { acknowledge, append, createReplayLog } from '../../../src/io/session/replay-log.js'
import { FUZZ_SEED } from '../../helpers/fuzz-seed.js'
import { buildOutput, buildRecord, createDomain } from '../../helpers/domain.js'

const LIMITS = { commandsPerSecond: 10, maxInFlight: 3 }

function codeOf (
  session: SessionRecord, id: number | string | undefined, now = 0, limits = LIMITS
): string | number | null | undefined {
  const verdict = admit(session, id, now, limits)
  return verdict === undefined ? undefined : verdict.kind === 'duplicate' ? verdict.answerSeq : verdict.refusal.code
}

function callsOf (running: number[]): CallState {
  return { inFlight: running.length, isRunning: id => running.includes(id), open: () => [], abandon () {} }
}

t.test('P-11 a numbered command is accepted only as watermark + 1, and the watermark moves to it', async t => {
  const session = buildRecord({ id: 'a' })
  t.equal(codeOf(session, 2), 'COMMAND_GAP')
  t.equal(session.log, null, 'a refusal leaves no trace')
  t.equal(codeOf(session, 1), undefined)
  t.equal(codeOf(session, 3), 'COMMAND_GAP')
  t.equal(codeOf(session, 2), undefined)
  t.equal(session.log?.watermark, 2)
})

t.test('P-13 a gap names the id that the server waits for', async t => {
  const session = buildRecord({ id: 'a' })
  admit(session, 1, 0, LIMITS)
  const verdict = admit(session, 9_007_199_254_740_991, 0, LIMITS)
  t.match(verdict, { kind: 'refused', abusive: false, refusal: { code: 'COMMAND_GAP', details: { expected: 2 } } })
})

t.test('P-14 commands without a number are remembered nowhere', async t => {
  const session = buildRecord({ id: 'a' })
  for (const id of ['1', 'x', undefined, 'x']) t.equal(codeOf(session, id), undefined)
  t.equal(session.log, null)
})

t.test('P-12 a duplicate is running, held, or gone', async t => {
  const session = buildRecord({ id: 'a', calls: callsOf([2]) })
  admit(session, 1, 0, LIMITS)
  admit(session, 2, 0, LIMITS)
  session.log ??= createReplayLog()
  append(session.log, buildOutput(',"n":1}', 1))
  t.equal(codeOf(session, 2), null, 'running')
  t.equal(codeOf(session, 1), 1, 'held, with its seq')
  acknowledge(session.log, 1)
  t.equal(codeOf(session, 1), 'RESULT_EXPIRED', 'gone')
  session.calls = null
  t.equal(codeOf(session, 2), 'RESULT_EXPIRED')
})

t.test('P-16 no more than maxInFlight unanswered commands, and the watermark does not move', async t => {
  const session = buildRecord({ id: 'a', calls: callsOf([1, 2]) })
  session.log = createReplayLog()
  session.log.watermark = 2
  t.equal(codeOf(session, 3), undefined, 'the third of three')
  session.calls = callsOf([1, 2, 3])
  t.match(admit(session, 4, 0, LIMITS), { refusal: { code: 'TOO_MANY_IN_FLIGHT', retryAfterMs: 100 } })
  t.equal(codeOf(session, undefined), 'TOO_MANY_IN_FLIGHT')
  t.equal(codeOf(session, 2), null, 'a duplicate starts none and is told apart first')
  t.equal(codeOf(session, 9), 'COMMAND_GAP', 'so is a gap')
  t.equal(session.log.watermark, 3)
})

t.test('P-46 two seconds of commands at once, then as many as the rate gives', async t => {
  const session = buildRecord({ id: 'a' })
  for (let n = 0; n < 20; n++) t.equal(codeOf(session, undefined, 5), undefined)
  t.equal(codeOf(session, undefined, 5), 'RATE_LIMITED')
  t.equal(codeOf(session, undefined, 104), 'RATE_LIMITED')
  t.equal(codeOf(session, undefined, 105), undefined)
  t.equal(codeOf(session, undefined, 105), 'RATE_LIMITED')
  for (let n = 0; n < 20; n++) {
    t.equal(codeOf(session, undefined, 100_000), undefined, 'a long rest gives no more than the burst')
  }
  t.equal(codeOf(session, undefined, 100_000), 'RATE_LIMITED')
})

t.test('P-46 the rate is asked before everything else: a flood of duplicates and gaps is limited too', async t => {
  const session = buildRecord({ id: 'a' })
  for (let n = 0; n < 20; n++) codeOf(session, 5)
  t.equal(codeOf(session, 5), 'RATE_LIMITED')
  t.equal(codeOf(session, 1), 'RATE_LIMITED')
  t.equal(session.log, null)
})

t.test('P-46 whoever waits for retryAfterMs is let in, whatever the rate and the moment', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5000 }),
      fc.array(fc.integer({ min: 0, max: 700 }), { maxLength: 60 }),
      (commandsPerSecond, pauses) => {
        const limits = { commandsPerSecond, maxInFlight: 3 }
        const session = buildRecord({ id: 'a' })
        let now = 12_345
        for (const pause of pauses) {
          now += pause
          let verdict = admit(session, undefined, now, limits)
          for (let n = 0; verdict === undefined && n < commandsPerSecond * 3; n++) {
            verdict = admit(session, undefined, now, limits)
          }
          if (verdict === undefined || verdict.kind !== 'refused') return false
          const { retryAfterMs } = verdict.refusal
          if (retryAfterMs === undefined || retryAfterMs < 1 || !Number.isInteger(retryAfterMs)) return false
          now += retryAfterMs
          if (admit(session, undefined, now, limits) !== undefined) return false
        }
        return true
      }
    ),
    { seed: FUZZ_SEED, numRuns: 100 }
  )
})

t.test('P-46 the hundredth refusal for rate without an accepted command between is abuse', async t => {
  const session = buildRecord({ id: 'a' })
  for (let n = 0; n < 20; n++) admit(session, undefined, 0, LIMITS)
  for (let n = 1; n <= 99; n++) t.match(admit(session, undefined, 0, LIMITS), { abusive: false })
  t.equal(admit(session, undefined, 100, LIMITS), undefined)
  for (let n = 1; n <= 99; n++) t.match(admit(session, undefined, 100, LIMITS), { abusive: false }, 'counted anew')
  t.match(admit(session, undefined, 100, LIMITS), { abusive: true, refusal: { code: 'RATE_LIMITED' } })
  t.match(admit(session, undefined, 100, LIMITS), { abusive: true })
})

t.test('P-40 only an accepted command is activity', async t => {
  const session = buildRecord({ id: 'a' })
  admit(session, 7, 50, LIMITS)
  t.equal(session.lastActiveAt, 0)
  admit(session, 1, 60, LIMITS)
  t.equal(session.lastActiveAt, 60)
  admit(session, 1, 70, LIMITS)
  t.equal(session.lastActiveAt, 60)
})

t.test('P-48 a draining dispatcher refuses every command and executes none', async t => {
  const { connect, dispatcher } = createDomain()
  let runs = 0
  dispatcher.command('run', {}, () => ++runs)
  const peer = connect()
  peer.take()
  dispatcher.refuseCommands()
  peer.send({ command: 'run', id: 1 })
  peer.send({ command: 'run' })
  t.match(peer.take(), [{ type: 'error', code: 'DRAINING', id: 1 }, { type: 'error', code: 'DRAINING' }])
  t.equal(runs, 0)
  t.strictSame(dispatcher.refusals, { DRAINING: 2 })
})
