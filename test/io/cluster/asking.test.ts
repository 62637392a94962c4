// Questions between two nodes whose messages the test carries, or loses.

import t from 'tap'
import { createAsking, type Asking } from '../../../src/io/cluster/asking.js'
import { HoldfastError } from '../../../src/io/errors.js'
import type { JsonValue } from '../../../src/io/types.js'
import { createRecordingLog } from '../../helpers/log.js'

interface Pair {
  a: Asking
  b: Asking
  log: ReturnType<typeof createRecordingLog>
  /** What was told, in order. */
  readonly told: { to: string, topic: string, body: JsonValue }[]
  /** Nobody listens any more. */
  isSilent: boolean
  /** Messages to b get lost. */
  loses: boolean
  /** The time for an answer is over. */
  giveUp(): void
}

function createPair (): Pair {
  const log = createRecordingLog()
  const waits: ((value?: unknown) => void)[] = []
  let ids = 0
  const create = (name: string, other: () => Asking): Asking => createAsking({
    log,
    createId: () => `q${++ids}`,
    delay: () => new Promise(resolve => { waits.push(resolve) }),
    tell: async (to, topic, body) => {
      pair.told.push({ to, topic, body })
      if (pair.isSilent) return false
      if (!pair.loses || to !== 'b') other().told(topic, body, name)
      return true
    }
  })
  const pair: Pair = {
    log,
    told: [],
    isSilent: false,
    loses: false,
    a: create('a', () => pair.b),
    b: create('b', () => pair.a),
    giveUp () { for (const resolve of waits.splice(0)) resolve() }
  }
  return pair
}

t.test('a question is answered with the value of its handler', async t => {
  const { a, b } = createPair()
  b.on('double', async ({ n }) => Number(n) * 2)
  t.strictSame(await a.ask('b', 'double', { n: 21 }), { value: 42 })
})

t.test('of two questions each gets its own answer, in whatever order they come', async t => {
  const { a, b } = createPair()
  const later: (() => void)[] = []
  b.on('echo', ({ n }) => new Promise(resolve => { later.push(() => { resolve(n as number) }) }))
  const answers = Promise.all([a.ask('b', 'echo', { n: 1 }), a.ask('b', 'echo', { n: 2 })])
  await Promise.resolve()
  for (const answer of later.reverse()) answer()
  t.strictSame(await answers, [{ value: 1 }, { value: 2 }])
})

t.test('an error of Holdfast comes with its code, message and details', async t => {
  const { a, b } = createPair()
  b.on('find', async () => { throw new HoldfastError('SESSION_ENDED', { details: { reason: 'idle' } }) })
  t.match(await a.ask('b', 'find', {}), { error: { code: 'SESSION_ENDED', details: { reason: 'idle' } } })
})

t.test('an error without details has none', async t => {
  const { a, b } = createPair()
  b.on('find', async () => { throw new HoldfastError('NOT_ATTACHED') })
  t.match(await a.ask('b', 'find', {}), { error: { code: 'NOT_ATTACHED', details: {} } })
})

t.test('what a handler throws otherwise stays on its node, and is logged there', async t => {
  const { a, b, log } = createPair()
  b.on('find', async () => { throw new Error('a secret') })
  t.strictSame(await a.ask('b', 'find', {}), { error: { code: 'INTERNAL' } })
  t.match(log.lines.at(-1), { level: 'error', message: 'question of another node failed', fields: { topic: 'find' } })
})

t.test('a topic of another version is answered INTERNAL', async t => {
  const { a } = createPair()
  t.strictSame(await a.ask('b', 'later', {}), { error: { code: 'INTERNAL' } })
})

t.test('a node that nobody hears is unheard, and was asked nothing', async t => {
  const pair = createPair()
  pair.isSilent = true
  t.equal(await pair.a.ask('b', 'double', {}), 'unheard')
})

t.test('a question that got lost has no answer', async t => {
  const pair = createPair()
  pair.loses = true
  const answer = pair.a.ask('b', 'double', {})
  await new Promise(resolve => { setImmediate(resolve) })
  pair.giveUp()
  t.equal(await answer, 'no_answer')
})

t.test('an answer that comes too late, or twice, changes nothing', async t => {
  const pair = createPair()
  pair.loses = true
  const answer = pair.a.ask('b', 'double', {})
  await new Promise(resolve => { setImmediate(resolve) })
  pair.giveUp()
  await answer
  pair.a.told('answer', { id: 'q1', answer: { value: 1 } }, 'b')
  pair.loses = false
  pair.b.on('double', async () => 3)
  t.strictSame(await pair.a.ask('b', 'double', {}), { value: 3 })
})
