import t from 'tap'
import { createFeed } from '../../../src/io/events/feed.js'
import type { LifecycleEvent } from '../../../src/io/types.js'
import { createRecordingLog } from '../../helpers/log.js'

function createWorld () {
  const log = createRecordingLog()
  const turn: (() => void)[] = []
  const feed = createFeed({ log, defer: callback => { turn.push(callback) } })
  const endTurn = (): void => { for (const callback of turn.splice(0)) callback() }
  return { feed, log, turn, endTurn }
}

function event (revision: number): LifecycleEvent {
  return { type: 'created', sessionId: 's1', userId: 'ann', revision, at: 0 }
}

t.test('subscribers hear at the end of the turn, in the order of the changes', async t => {
  const { feed, turn, endTurn } = createWorld()
  const heard: number[] = []
  feed.subscribe(({ revision }) => { heard.push(revision) })
  feed.append(event(1))
  feed.append(event(2))
  t.strictSame(heard, [])
  t.equal(turn.length, 1, 'one callback for the whole turn')
  endTurn()
  t.strictSame(heard, [1, 2])
})

t.test('what a subscriber causes is told a turn later, to all', async t => {
  const { feed, endTurn } = createWorld()
  const first: number[] = []
  const second: number[] = []
  feed.subscribe(({ revision }) => {
    first.push(revision)
    if (revision === 1) feed.append(event(2))
  })
  feed.subscribe(({ revision }) => { second.push(revision) })
  feed.append(event(1))
  endTurn()
  t.strictSame([first, second], [[1], [1]])
  endTurn()
  t.strictSame([first, second], [[1, 2], [1, 2]])
})

t.test('a function that subscribes twice hears twice and leaves once', async t => {
  const { feed, endTurn } = createWorld()
  let heard = 0
  const subscriber = (): void => { heard++ }
  const leave = feed.subscribe(subscriber)
  feed.subscribe(subscriber)
  t.equal(feed.isHeard, true)
  feed.append(event(1))
  endTurn()
  leave()
  leave()
  feed.append(event(2))
  endTurn()
  t.equal(heard, 3)
})

t.test('a subscriber that throws is logged, and the others hear', async t => {
  const { feed, log, endTurn } = createWorld()
  const heard: number[] = []
  feed.subscribe(() => { throw new Error('bad subscriber') })
  feed.subscribe(({ revision }) => { heard.push(revision) })
  feed.append(event(1))
  endTurn()
  t.strictSame(heard, [1])
  t.match(log.lines, [{
    level: 'error',
    fields: { sid: 's1', event: 'created' },
    message: 'lifecycle listener failed'
  }])
})
