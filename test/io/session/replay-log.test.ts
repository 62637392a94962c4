import fc from 'fast-check'
import t from 'tap'
import {
  accept, acknowledge, append, createReplayLog, dropOldest, findAnswer, firstSeq, outputAt, placeOf, planReplay,
  releaseThrough, type ReplayLog
} from '../../../src/io/session/replay-log.js'
import type { Output } from '../../../src/io/types.js'
import { FUZZ_SEED } from '../../helpers/fuzz-seed.js'
import { buildOutput } from '../../helpers/domain.js'

/** The same thing with nothing clever in it: every output ever given, and what became of it. */
interface Model { outputs: { output: Output, held: boolean }[], acked: number, dropped: number }

function assertSame (log: ReplayLog, model: Model): void {
  const held = model.outputs.map((entry, i) => ({ ...entry, seq: i + 1 })).filter(entry => entry.held)
  const bytes = held.reduce((sum, entry) => sum + entry.output.bytes, 0)
  const expected = {
    count: held.length,
    bytes,
    lastSeq: model.outputs.length,
    acked: model.acked,
    dropped: model.dropped,
    first: held[0]?.seq ?? model.outputs.length + 1
  }
  const found = {
    count: log.count,
    bytes: log.bytes,
    lastSeq: log.lastSeq,
    acked: log.ackedSeq,
    dropped: log.dropped,
    first: firstSeq(log)
  }
  if (JSON.stringify(expected) !== JSON.stringify(found)) {
    throw new Error(`${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`)
  }
  for (let seq = 0; seq <= model.outputs.length + 1; seq++) {
    const entry = model.outputs[seq - 1]
    if (outputAt(log, seq) !== (entry?.held === true ? entry.output : undefined)) {
      throw new Error(`output ${seq} differs`)
    }
  }
  for (let id = 1; id <= 6; id++) {
    const seq = held.findLast(entry => entry.output.commandId === id)?.seq ?? null
    if (findAnswer(log, id) !== seq) throw new Error(`answer of ${id} differs`)
  }
  for (let lastSeen = 0; lastSeen <= model.outputs.length; lastSeen++) {
    const wanted = held.filter(entry => entry.seq > lastSeen)
    const from = held[0]?.seq ?? model.outputs.length + 1
    const plan = {
      replay: wanted.length === 0 ? null : { from: wanted[0]?.seq, to: model.outputs.length },
      gap: lastSeen + 1 < from ? { from: lastSeen + 1, to: from - 1 } : null
    }
    if (JSON.stringify(planReplay(log, lastSeen)) !== JSON.stringify(plan)) {
      throw new Error(`plan after ${lastSeen} differs`)
    }
  }
}

t.test('P-20 P-21 P-25 P-32 the ring behaves as a plain list does, whatever the order of events', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.record({ kind: fc.constant('append' as const), n: fc.integer({ min: 0, max: 6 }) }) },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constantFrom('ack' as const, 'release' as const),
        n: fc.integer({ min: 0, max: 40 })
      })
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('drop' as const), n: fc.integer({ min: 1, max: 3 }) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('burst' as const), n: fc.integer({ min: 60, max: 140 }) }) }
  )
  fc.assert(fc.property(fc.array(step, { maxLength: 40 }), steps => {
    const log = createReplayLog()
    const model: Model = { outputs: [], acked: 0, dropped: 0 }
    const give = (commandId: number): void => {
      const output = buildOutput(`,"n":${model.outputs.length}}`, commandId)
      model.outputs.push({ output, held: true })
      if (append(log, output) !== model.outputs.length) throw new Error('wrong seq')
    }
    const free = (through: number): number => model.outputs.slice(0, through).reduce((sum, entry) => {
      if (!entry.held) return sum
      entry.held = false
      return sum + entry.output.bytes
    }, 0)
    for (const { kind, n } of steps) {
      if (kind === 'append') give(n)
      if (kind === 'burst') for (let i = 0; i < n; i++) give(0)
      if (kind === 'drop') {
        for (let i = 0; i < n; i++) {
          const oldest = model.outputs.findIndex(entry => entry.held)
          const bytes = oldest === -1 ? 0 : free(oldest + 1)
          if (oldest !== -1) model.dropped++
          if (dropOldest(log) !== bytes) throw new Error('a drop freed the wrong bytes')
        }
      }
      if (kind === 'ack') {
        const expected = n > model.outputs.length ? undefined : n <= model.acked ? 0 : free(n)
        if (expected !== undefined) model.acked = Math.max(model.acked, n)
        if (acknowledge(log, n) !== expected) throw new Error('an ack freed the wrong bytes')
      }
      if (kind === 'release' && releaseThrough(log, n) !== free(n)) throw new Error('a release freed the wrong bytes')
      assertSame(log, model)
    }
  }), { seed: FUZZ_SEED, numRuns: 150 })
})

t.test('P-11 P-12 P-13 the watermark tells next, duplicate and gap apart, up to the last safe integer', async t => {
  const log = createReplayLog()
  t.equal(placeOf(log, 1), 'next')
  t.equal(placeOf(log, 2), 'gap')
  accept(log, 1)
  t.equal(placeOf(log, 1), 'duplicate')
  t.equal(placeOf(log, 2), 'next')
  log.watermark = Number.MAX_SAFE_INTEGER - 1
  t.equal(placeOf(log, Number.MAX_SAFE_INTEGER), 'next')
  accept(log, Number.MAX_SAFE_INTEGER)
  t.equal(placeOf(log, Number.MAX_SAFE_INTEGER), 'duplicate')
})

t.test('P-12 the newest held answer of an id is the one that is found', async t => {
  const log = createReplayLog()
  append(log, buildOutput(',"n":1}', 1))
  append(log, buildOutput(',"n":2}', 2))
  t.equal(findAnswer(log, 1), 1)
  t.equal(findAnswer(log, 2), 2)
  t.equal(findAnswer(log, 3), null)
  acknowledge(log, 1)
  t.equal(findAnswer(log, 1), null)
})

t.test('G6 a busy hour pins no large ring to a quiet session', async t => {
  const log = createReplayLog()
  for (let n = 0; n < 1000; n++) append(log, buildOutput())
  t.equal(log.ring.length, 1024)
  acknowledge(log, 1000)
  t.equal(log.ring.length, 4)
  t.equal(append(log, buildOutput()), 1001)
  t.equal(firstSeq(log), 1001)
})

t.test('G6 the ring holds on to no output that has left', async t => {
  const log = createReplayLog()
  for (let n = 0; n < 8; n++) append(log, buildOutput())
  acknowledge(log, 3)
  dropOldest(log)
  t.equal(log.ring.filter(output => output !== undefined).length, 4)
})
