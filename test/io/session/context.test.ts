// What a platform does with sessions beside commands: makes one for a user and lets him join it,
// gives it a context to start with, and changes that context later. None of the three was possible:
// a session made by `createSession` could be joined by nobody.

import t from 'tap'
import { MAX_CONTEXT_MEMBERS } from '../../../src/io/session/context.js'
import { createDomain } from '../../helpers/domain.js'

t.test('a session made for a user is joined with a token that was issued for it', async t => {
  const { manager, connect } = createDomain()
  const { id } = manager.createSession('ann', { context: { desk: 'night' } })
  manager.send({ sessionId: id }, 'welcome', { draft: 7 })
  const token = manager.issueResumeToken(id)
  const peer = connect({ userId: 'ann', resume: { sessionId: id, token, lastSeq: 0 } })
  t.match(peer.frames(), [
    { type: 'session_resumed', payload: { sessionId: id, replay: { from: 1, to: 1 } } },
    { seq: 1, event: 'welcome', payload: { draft: 7 } },
    { type: 'live' }
  ])
  t.same(manager.peekSession(id)?.context, { desk: 'night' })
})

t.test('a token is for its user, and works once', async t => {
  const { manager, connect } = createDomain()
  const { id } = manager.createSession('ann')
  const resume = { sessionId: id, token: manager.issueResumeToken(id), lastSeq: 0 }
  t.match(connect({ userId: 'bob', resume }).frames()[0], {
    type: 'session_created',
    payload: { previous: { reason: 'unknown' } }
  })
  const first = connect({ userId: 'ann', resume })
  t.match(first.frames()[0], { type: 'session_resumed' })
  first.send({ command: 'x', id: 1 })
  first.close(1006)
  t.match(
    connect({ userId: 'ann', resume }).frames()[0], { type: 'session_created' }, 'it was used up by the first frame'
  )
})

t.test('an issued token and the one that the present client holds are both good until the next resume', async t => {
  for (const useIssued of [true, false]) {
    const { manager, connect } = createDomain()
    const peer = connect({ userId: 'ann' })
    const { sessionId, resumeToken } = peer.welcome
    const token = manager.issueResumeToken(sessionId)
    peer.close(1006)
    const again = connect({ userId: 'ann', resume: { sessionId, token: useIssued ? token : resumeToken, lastSeq: 0 } })
    t.match(again.frames()[0], { type: 'session_resumed' })
    again.send({ command: 'x', id: 1 })
    again.close(1006)
    const late = connect({ userId: 'ann', resume: { sessionId, token: useIssued ? resumeToken : token, lastSeq: 0 } })
    t.match(late.frames()[0], { type: 'session_created' }, 'the other one is dead')
  }
})

t.test('no token is issued for a session that is not there', async t => {
  const { manager } = createDomain()
  t.throws(() => manager.issueResumeToken('nobody'), { code: 'SESSION_NOT_FOUND' })
  const { id } = manager.createSession('ann')
  manager.terminateSession(id)
  t.throws(() => manager.issueResumeToken(id), { code: 'SESSION_ENDED' })
})

t.test('a context can be changed outside of a command, which is no activity', async t => {
  const { manager, clock } = createDomain()
  const { id, lastActivityAt } = manager.createSession('ann', { context: { a: 1 } })
  clock.advance(1000)
  t.same(manager.updateContext(id, context => ({ ...context, b: 2 })), { a: 1, b: 2 })
  t.same(manager.peekSession(id)?.context, { a: 1, b: 2 })
  t.equal(manager.peekSession(id)?.lastActivityAt, lastActivityAt)
  t.ok(Object.isFrozen(manager.peekSession(id)?.context))
  t.throws(() => manager.updateContext('nobody', () => ({})), { code: 'SESSION_NOT_FOUND' })
  manager.terminateSession(id)
  t.throws(() => manager.updateContext(id, () => ({})), { code: 'SESSION_ENDED' })
})

t.test('a context above its limit is refused wherever it comes from, and nothing is left of it', async t => {
  const { manager } = createDomain({ session: { maxContextBytes: 20 } })
  const large = { text: 'x'.repeat(20) }
  t.throws(() => manager.createSession('ann', { context: large }), { code: 'CONTEXT_TOO_LARGE' })
  t.equal(manager.countSessions().total, 0)
  const { id } = manager.createSession('ann', { context: { a: 1 } })
  t.throws(() => manager.updateContext(id, () => large), { code: 'CONTEXT_TOO_LARGE' })
  for (const wrong of [null, 'text', ['a'], undefined, 7]) {
    t.throws(() => manager.updateContext(id, () => wrong as never), TypeError)
  }
  t.same(manager.peekSession(id)?.context, { a: 1 })
})

// One of 96,000 members, within the bytes that an option allows, held up every session for a
// quarter of a second.
t.test('a context of too many members is refused, however few bytes it has', async t => {
  const { manager } = createDomain({ session: { maxContextBytes: 1_048_576 } })
  // The context, its member, the array in it.
  const context = { all: Array<Record<string, never>>(MAX_CONTEXT_MEMBERS - 3).fill({}) }
  const { id } = manager.createSession('ann', { context })
  t.throws(() => manager.updateContext(id, () => ({ all: [...context.all, {}] })), {
    code: 'CONTEXT_TOO_LARGE',
    message: `The session context would have more than ${MAX_CONTEXT_MEMBERS} members, arrays and objects.`
  })
  const cycle: Record<string, unknown> = {}
  cycle['self'] = cycle
  t.throws(() => manager.updateContext(id, () => cycle as never), { name: 'TypeError', message: /circular/ })
})

t.test('what the caller still holds does not change the context', async t => {
  const { manager } = createDomain()
  const context = { list: [1] }
  const { id } = manager.createSession('ann', { context })
  context.list.push(2)
  t.same(manager.peekSession(id)?.context, { list: [1] })
})
