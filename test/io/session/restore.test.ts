// What a start does with what the store has kept: sessions are there again, and what had begun is
// answered.

import t from 'tap'
import { buildStored, NO_PROGRESS } from '../../../contract/forms.js'
import { hashResumeToken } from '../../../src/io/session/resume-token.js'
import { restoreSessions } from '../../../src/io/session/restore.js'
import type { StoredSession } from '../../../src/io/session/store.js'
import { toBytes } from '../../../src/io/protocol/codec.js'
import { START_WALL } from '../../helpers/clock.js'
import { createDomain, type Domain, type DomainOptions } from '../../helpers/domain.js'
import { createLateStore, FENCE, type LateStore } from '../../helpers/late-store.js'

const HOUR = 3_600_000
const TOKEN = 'the-token'

type Kept = Partial<Omit<StoredSession, 'progress' | 'access'>> & {
  progress?: Partial<StoredSession['progress']>, access?: Partial<StoredSession['access']>
}

function kept (id: string, { progress, access, ...rest }: Kept = {}): StoredSession {
  const times = { lastActiveAt: START_WALL - 5000, detachedAt: START_WALL - 4000 }
  return buildStored({
    id,
    createdAt: START_WALL - 60_000,
    context: { draft: 7 },
    access: { labels: { role: 'chief' }, tokenHash: hashResumeToken(TOKEN), previousTokenHash: null, ...access },
    progress: { ...NO_PROGRESS, ...times, revision: 3, heard: true, ...progress },
    ...rest
  })
}

async function restored (
  sessions: StoredSession[], options: DomainOptions = {}
): Promise<Domain & { late: LateStore, report: { sessions: number, unknownOutcomes: number } }> {
  const late = createLateStore()
  late.contents.sessions = sessions
  const domain = createDomain({ ...options, store: late })
  const report = await restoreSessions(domain.sessions, late, { healthChanged () {} })
  return Object.assign(domain, { late, report })
}

async function comeBack (domain: Domain & { late: LateStore }, sessionId: string, lastSeq = 0) {
  const joining = domain.connectLate({ resume: { sessionId, token: TOKEN, lastSeq } })
  for (let n = 0; n < 4; n++) {
    domain.turn()
    domain.late.answerAll()
    await domain.settle()
  }
  const peer = await joining
  domain.turn()
  return peer
}

t.test('G4 a session is there again: its view, its context, and its age', async t => {
  const { manager, report } = await restored([kept('a')])
  t.same(report, { sessions: 1, unknownOutcomes: 0 })
  t.match(manager.peekSession('a'), {
    userId: 'ann',
    state: 'detached',
    context: { draft: 7 },
    labels: { role: 'chief' },
    createdAt: START_WALL - 60_000,
    lastActivityAt: START_WALL - 5000,
    detachedAt: START_WALL - 4000
  })
})

t.test('G4 a client resumes with its token, and gets what it has not seen', async t => {
  const outputs = [2, 3].map(n => ({ tail: toBytes(`,"type":"message","event":"e","payload":${n}}`), commandId: 0 }))
  const domain = await restored([
    kept('a', { outputs, progress: { lastSeq: 3, releasedSeq: 1, ackedSeq: 1, watermark: 4 } })
  ])
  const peer = await comeBack(domain, 'a', 2)
  t.match(peer.welcome, { sessionId: 'a', lastCommand: 4, replay: { from: 3, to: 3 }, gap: null })
  t.match(peer.frames().slice(1), [{ type: 'message', seq: 3, payload: 3 }, { type: 'live' }])
  domain.manager.send({ sessionId: 'a' }, 'e', 'new')
  domain.turn()
  t.match(domain.late.pending, [{ kind: 'commit', batch: { fence: FENCE, prevSeq: 3, progress: { lastSeq: 4 } } }])
})

t.test('P-10 a command that had begun is answered OUTCOME_UNKNOWN, once, and is not executed again', async t => {
  const open = [{ id: 1, idempotent: false }, { id: 2, idempotent: false }]
  const domain = await restored([kept('a', { progress: { watermark: 2, open } })])
  let runs = 0
  domain.dispatcher.command('pay', {}, () => ++runs)
  t.equal(domain.report.unknownOutcomes, 2)
  const peer = await comeBack(domain, 'a')
  t.match(peer.frames().slice(1), [
    { type: 'error', seq: 1, id: 1, code: 'OUTCOME_UNKNOWN' },
    { type: 'error', seq: 2, id: 2, code: 'OUTCOME_UNKNOWN' }, { type: 'live' }
  ])
  peer.send({ command: 'pay', id: 1 })
  t.match(peer.take().filter(({ seq }) => seq === 1).length > 0, true)
  t.equal(runs, 0)
})

t.test('P-31 an idempotent command that had begun is asked for again, and runs then', async t => {
  const open = [{ id: 2, idempotent: true }, { id: 3, idempotent: false }]
  const domain = await restored([kept('a', { progress: { watermark: 3, open } })])
  domain.dispatcher.command('look', { idempotent: true }, ({ payload }) => payload)
  const peer = await comeBack(domain, 'a')
  t.equal(peer.welcome.lastCommand, 1)
  peer.send({ command: 'look', id: 2, payload: 'again' })
  domain.turn()
  domain.late.answerAll()
  await domain.settle()
  t.match(peer.takeOnly('result'), [{ id: 2, payload: 'again' }])
  peer.send({ command: 'look', id: 2, payload: 'again' })
  domain.turn()
  t.equal(domain.dispatcher.duplicates, 1, 'a duplicate from now on')
})

t.test('P-36 P-40 what expired while nobody ran ends, with its reason', async t => {
  const { manager, late } = await restored([
    kept('idle', { progress: { lastActiveAt: START_WALL - 2 * HOUR, detachedAt: null } }),
    kept('left', { progress: { detachedAt: START_WALL - 700_000, lastActiveAt: START_WALL - 700_000 } }),
    kept('basic', { profile: 'basic' }),
    kept('here')
  ])
  t.same(
    ['idle', 'left', 'basic'].map(id => manager.tombstoneOf(id)?.reason), ['idle', 'resume_window', 'disconnected']
  )
  t.equal(manager.countSessions().total, 1)
  t.same(late.pending.map(({ kind, id }) => `${kind} ${id}`).sort(), ['end idle', 'end left'])
})

t.test('P-36 a session that was attached when its process died is detached from now on', async t => {
  const { manager, clock } = await restored([kept('a', { progress: { detachedAt: null } })])
  t.equal(manager.peekSession('a')?.detachedAt, START_WALL)
  clock.advance(599_000)
  t.equal(manager.purgeStaleSessions(), 0)
  clock.advance(2000)
  t.equal(manager.purgeStaleSessions(), 1)
})

t.test('P-33 the tombstones of a former life answer a resume', async t => {
  const late = createLateStore()
  late.contents.tombstones = [{
    id: 'gone',
    userId: 'ann',
    reason: 'ended_by_operator',
    endedAt: START_WALL - 1000,
    lastCommand: 5,
    tokenHash: hashResumeToken(TOKEN),
    previousTokenHash: null
  }]
  const domain = Object.assign(createDomain({ store: late }), { late })
  await restoreSessions(domain.sessions, late, { healthChanged () {} })
  t.match(domain.manager.tombstoneOf('gone'), { reason: 'ended_by_operator', endedAt: START_WALL - 1000 })
  const peer = await comeBack(domain, 'gone')
  t.match(peer.welcome.previous, { sessionId: 'gone', reason: 'ended_by_operator', lastCommand: 5 })
})

t.test('listings go by creation, whatever order the store has', async t => {
  const { manager } = await restored([3, 1, 2].map(n => kept(`s${n}`, { createdAt: START_WALL - 10_000 + n })))
  t.same(manager.listSessions({}).data.map(({ id }) => id), ['s1', 's2', 's3'])
})

t.test('P-54 the longest detached gives way first, as before the start', async t => {
  const { manager } = await restored([
    kept('young', { progress: { detachedAt: START_WALL - 1000 } }),
    kept('old', { progress: { detachedAt: START_WALL - 9000 } })
  ], { session: { maxSessionsPerUser: 2 } })
  manager.createSession('ann')
  t.same([manager.peekSession('old'), manager.peekSession('young')?.state], [undefined, 'detached'])
})

t.test('what is held counts for the total of the outboxes', async t => {
  const outputs = [{ tail: toBytes(',"type":"message","event":"e","payload":1}'), commandId: 0 }]
  const { manager } = await restored([kept('a', { outputs, progress: { lastSeq: 1 } })])
  t.equal(manager.countSessions().outboxBytes, outputs[0]?.tail.length)
  manager.terminateSession('a')
  t.equal(manager.countSessions().outboxBytes, 0)
})

t.test('P-51 what speaks against an output is not forgotten with the process', async t => {
  const outputs = [1, 2].map(n => ({ tail: toBytes(`,"type":"message","event":"e","payload":${n}}`), commandId: 0 }))
  const blame = { strikes: 6, suspicion: 3, suspectedTo: 2 }
  const domain = await restored([kept('a', { outputs, progress: { lastSeq: 2, blame } })])
  const peer = await comeBack(domain, 'a')
  t.match(peer.welcome, { gap: { from: 1, to: 1 }, replay: { from: 2, to: 2 } })
})

const GAP = { type: 'gap', payload: { reason: 'not_kept' } }

/** The owner has died with two outputs kept, and may have given three more. */
function keptAhead (): StoredSession {
  const outputs = ['one', 'two'].map(text => {
    return { tail: `,"type":"message","event":"e","payload":"${text}"}`, commandId: 0 }
  })
  return kept('a', { outputs, progress: { lastSeq: 2, reservedSeq: 5 } })
}

t.test('S-22 P-55 what the former owner may have given is a gap each, before anything else', async t => {
  const domain = await restored([keptAhead()])
  domain.manager.send({ sessionId: 'a' }, 'news', 'new')
  const peer = await comeBack(domain, 'a', 1)
  t.match(peer.welcome, { sessionId: 'a', replay: { from: 2, to: 6 }, gap: null })
  t.match(peer.frames().filter(({ seq }) => seq !== undefined), [
    { seq: 2, payload: 'two' }, { seq: 3, ...GAP }, { seq: 4, ...GAP }, { seq: 5, ...GAP }, { seq: 6, payload: 'new' }
  ])
  t.match(domain.late.batches[0], { prevSeq: 2, progress: { lastSeq: 6 } }, 'the store gets them with the first batch')
  t.equal(domain.late.batches[0]?.outputs.length, 4)
})

t.test('P-55 a client that has seen more than was kept goes on behind it', async t => {
  const domain = await restored([keptAhead()])
  const peer = await comeBack(domain, 'a', 4)
  t.match(peer.welcome, { sessionId: 'a', replay: { from: 5, to: 5 }, gap: null })
  t.strictSame(peer.frames().map(({ seq }) => seq).filter(seq => seq !== undefined), [5])
  peer.send({ type: 'ack', seq: 5 })
  t.equal(peer.transport.closed, undefined, 'it may acknowledge what it was told')
})

t.test('P-34 a client that has seen more than was reserved learns that its session is lost', async t => {
  const domain = await restored([keptAhead()])
  const peer = await comeBack(domain, 'a', 6)
  t.match(peer.welcome.previous, { sessionId: 'a', reason: 'state_lost' })
})

t.test('P-55 P-10 what had begun is answered behind the gaps', async t => {
  const stored = keptAhead()
  const progress = { ...stored.progress, watermark: 1, open: [{ id: 1, idempotent: false }] }
  const domain = await restored([{ ...stored, progress }])
  const peer = await comeBack(domain, 'a', 5)
  t.match(peer.takeOnly('error'), [{ seq: 6, id: 1, code: 'OUTCOME_UNKNOWN' }])
})
