// Which OUTCOME_UNKNOWN of a chaos run is explained, and what is said of one that is not.

import t from 'tap'
import type { ClientEvent } from '../../conformance/checker.js'
import type { CoreFault } from '../../conformance/chaos/plan.js'
import { findUnknowns } from '../../conformance/chaos/unknown.js'

const KILLS = [{ from: 5000, to: 6000 }, { from: 9000, to: 9500 }, { from: 20_000, to: 20_100 }]

interface Story { sent: number, answered: number, breaks?: number, mark?: string, fault?: CoreFault }

function historyOf ({ sent, answered, breaks = 1, mark = 'error 1 OUTCOME_UNKNOWN' }: Story): ClientEvent[] {
  return [
    { kind: 'created' },
    { kind: 'closed' },
    { kind: 'sent', id: 1, at: sent },
    ...Array.from({ length: breaks }, (): ClientEvent => ({ kind: 'closed' })),
    { kind: 'sent', id: 1, at: answered - 1 },
    { kind: 'output', seq: 1, id: 1, mark, at: answered }
  ]
}

function judge (story: Story, kills = KILLS) {
  return findUnknowns({
    client: 4,
    sessionId: 'abc',
    commands: [{ fault: story.fault ?? 'none' }],
    events: historyOf(story),
    executions: new Map([[1, 1]])
  }, kills)
}

const reasonOf = (story: Story, kills = KILLS) => judge(story, kills).map(({ reason }) => reason)

t.test('a command that a kill came upon may be unknown, from its beginning to its end', async t => {
  t.strictSame(reasonOf({ sent: 4900, answered: 5001 }), ['kill'])
  t.strictSame(reasonOf({ sent: 5200, answered: 5300 }), ['kill'])
  t.strictSame(reasonOf({ sent: 5999, answered: 6100 }), ['kill'])
  t.strictSame(reasonOf({ sent: 4700, answered: 4999 }), ['none'])
  t.strictSame(reasonOf({ sent: 6001, answered: 6300 }), ['none'])
})

t.test('so may one that ran for longer than a node waits that hands its session over', async t => {
  t.strictSame(reasonOf({ sent: 7000, answered: 7301 }), ['hand-over'])
  t.strictSame(reasonOf({ sent: 7000, answered: 7300 }), ['none'])
})

t.test('none that was answered on the connection on which it was sent', async t => {
  t.strictSame(reasonOf({ sent: 4900, answered: 5500, breaks: 0 }), ['none'])
  t.strictSame(reasonOf({ sent: 7000, answered: 8000, breaks: 0 }), ['none'])
})

t.test('none where nothing was killed', async t => {
  t.strictSame(reasonOf({ sent: 7000, answered: 8000 }, []), ['none'])
})

t.test('a command whose answer the core lost is unknown, and nothing else', async t => {
  t.strictSame(reasonOf({ sent: 7000, answered: 7010, fault: 'lost' }), ['core'])
  t.strictSame(reasonOf({ sent: 7000, answered: 7010, fault: 'lost', mark: 'result 1 1' }), ['other answer'])
  t.strictSame(reasonOf({ sent: 7000, answered: 7010, fault: 'busy' }), ['none'])
  t.strictSame(reasonOf({ sent: 7000, answered: 7010, mark: 'result 1 1' }), [])
})

t.test('what is said of one is enough to judge it', async t => {
  const at = (ms: number) => new Date(performance.timeOrigin + ms).toISOString().slice(11, 23)
  t.equal(
    judge({ sent: 7000, answered: 7100, breaks: 2 })[0]?.sentence,
    'client 4, session abc: command 1 (none) was answered error 1 OUTCOME_UNKNOWN; ' +
      `sent ${at(7000)}, answered ${at(7100)}, breaks between 2, executed 1 times; ` +
      `nearest kills ${at(5000)} to ${at(6000)}, ${at(9000)} to ${at(9500)}`
  )
})
