// The machine on its own: what is true of every transition, whatever the events.

import t from 'tap'
import fc from 'fast-check'
import { transition } from '../../src/client/session-machine.js'
import { INITIAL_STATE, type SessionEvent, type SessionState } from '../../src/client/session-state.js'
import { FUZZ_SEED } from '../helpers/fuzz-seed.js'
import { SESSION } from './world.js'

const SETTINGS = { renew: true, maxAttempts: Infinity, hasStaticToken: false, random: () => 0.5 }
const saved = { sessionId: 's1', userId: 'ann', resumeToken: 't9', lastSeq: 3, commands: [] }
const resumed = { ...SESSION, lastCommand: 0, replay: null, gap: null }

const frames = [
  { type: 'session_created', payload: SESSION },
  { type: 'session_created', payload: { ...SESSION, sessionId: 's2', userId: 'bob', previous: { reason: 'idle' } } },
  { type: 'session_resumed', payload: resumed },
  { type: 'live' }, { type: 'ping' }, { type: 'pong' },
  { type: 'goodbye', payload: { code: 4200, reason: 'draining', action: 'resume' } },
  { type: 'goodbye', payload: { code: 4300, reason: 'idle', action: 'new', retryAfterMs: 100 } },
  { type: 'goodbye' }, { type: 'session_resumed' }, {},
  { seq: 1, type: 'result', id: 1 }, { seq: 9, type: 'message' }, { type: 'error', code: 'BAD_FRAME' }
]
const anyEvent: fc.Arbitrary<SessionEvent> = fc.oneof(
  fc.constantFrom<SessionEvent>(
    ['connect'], ['detach'], ['hide'], ['wake', true], ['wake', false], ['retry'], ['ack'], ['blamed'], ['stateLost'],
    ['loaded', undefined, true], ['loaded', saved, true], ['loaded', saved, false], ['handled', 1], ['transmit', ['{']],
    ['failed', 'token_failed', 'why'], ['token', 'ann'], ['token', undefined],
    ['lost', { code: 1006, reason: 'connection_lost', action: 'resume_later' }],
    ['lost', { code: 4401, reason: 'unauthenticated', action: 'stop' }]
  ),
  fc.constantFrom<SessionEvent>(['close'], ['dispose']),
  fc.constantFrom(...frames).map(frame => ['frame', frame] as SessionEvent)
)

t.test('every transition is pure, and none leaves the session where nothing would go on', async t => {
  fc.assert(fc.property(fc.array(anyEvent, { maxLength: 60 }), fc.boolean(), (events, isOffline) => {
    let state: SessionState = { ...INITIAL_STATE, ...SETTINGS }
    let isArmed = false
    const context = { now: 1_000, isOffline }
    for (const event of [['start'] as SessionEvent, ...events]) {
      Object.freeze(state)
      let next: SessionState
      try {
        next = transition(state, event, context)
      } catch {
        // A frame that is not shaped as it should be: the link gives the connection up.
        next = transition(state, ['lost', { code: 4900, reason: 'malformed_frame', action: 'resume_later' }], context)
      }
      if (event[0] !== 'frame') {
        const again = transition(state, event, context)
        if (JSON.stringify(again) !== JSON.stringify(next)) throw new Error('the same event gives something else')
      }
      const { effects } = next
      if (state.phase === 'ended' && effects.some(([name]) => ['open', 'tell', 'arm', 'save'].includes(name))) {
        throw new Error(`${event[0]} wakes what has ended`)
      }
      for (const [name, ...args] of effects) {
        if (name === 'arm' && args[0] === 'retry') isArmed = true
        if (name === 'leave' || (name === 'disarm' && args[0] === 'retry')) isArmed = false
      }
      state = next
      const isIdle = state.phase === 'detached' && !isArmed
      if (isIdle && !state.isPaused && state.told?.retryInMs !== null) {
        throw new Error(`${event[0]} leaves a promise of an attempt that does not come`)
      }
      if (state.ackedSeq > state.lastSeq && state.phase === 'live') throw new Error('acknowledges what was not handled')
    }
  }), { seed: FUZZ_SEED, numRuns: 2_000 })
  t.pass()
})
