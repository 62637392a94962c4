// REST of sessions, users and messages (reliability promises 12, 47 and 49), asked through the
// whole application without a network.

import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import type { FastifyInstance, LightMyRequestResponse } from 'fastify'
import t, { type Test } from 'tap'
import { isUserId } from '../../src/io/names/ids.js'
import { createManualClock, START_WALL } from '../helpers/clock.js'
import { FUZZ_SEED } from '../helpers/fuzz-seed.js'
import { asker, buildRestApp, type Ask } from '../helpers/rest.js'
import { injectSocket } from '../helpers/socket.js'

const noSuch = '00000000-0000-4000-8000-000000000000'
const ids = (answer: { json(): { data: Array<{ id: string }> } }): string[] => answer.json().data.map(({ id }) => id)

t.test('a session is shown with ISO times, its numbers and its context, and without any token', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  const socket = await injectSocket(app, { protocols: ['holdfast.v1'] })
  const { payload: { sessionId, resumeToken } } = await socket.next()
  socket.send({
    command: 'context.set',
    id: 1,
    payload: { team: 'night', nested: { toJSON: 1, list: [null, 1.5, 'x'] } }
  })
  await socket.nextOf('result')

  const answer = await ask('GET', `/sessions/${sessionId}`)
  t.equal(answer.statusCode, 200)
  t.equal(answer.headers['cache-control'], 'no-store')
  const session = answer.json()
  t.match(session, {
    id: sessionId,
    userId: 'human_reviewer_1',
    state: 'active',
    profile: 'full',
    detachedAt: null,
    revision: 2,
    lastSeq: 1,
    outboxMessages: 1,
    lastCommand: 1,
    inFlight: 0,
    dropped: 0
  })
  t.same(session.context, { team: 'night', nested: { toJSON: 1, list: [null, 1.5, 'x'] } })
  t.equal(new Date(session.createdAt).toISOString(), session.createdAt)
  t.notOk((answer.body + (await ask('GET', '/sessions')).body).includes(resumeToken))
  socket.ws.terminate()
})

t.test('P-40 reading a session is no activity', async t => {
  const clock = createManualClock()
  const app = await buildRestApp(t, { options: { clock } })
  const ask = asker(app)
  const { id } = app.sessionManager.createSession('alice')
  const { lastActivityAt } = (await ask('GET', `/sessions/${id}`)).json()
  clock.advance(60_000)
  await ask('GET', '/sessions')
  await ask('GET', '/users/alice/sessions')
  t.equal((await ask('GET', `/sessions/${id}`)).json().lastActivityAt, lastActivityAt)
})

t.test('the list is filtered by state, user, creation and idle time, and sorted both ways', async t => {
  const clock = createManualClock()
  const app = await buildRestApp(t, { options: { clock } })
  const ask = asker(app)
  const first = app.sessionManager.createSession('alice')
  clock.advance(10_000)
  const second = app.sessionManager.createSession('bob')
  clock.advance(10_000)
  const socket = await injectSocket(app)
  const third = (await socket.next()).payload.sessionId
  const between = new Date(START_WALL + 11_500).toISOString()

  t.same(ids(await ask('GET', '/sessions')), [first.id, second.id, third])
  t.same(ids(await ask('GET', '/sessions?sort=-createdAt')), [third, second.id, first.id])
  t.same(ids(await ask('GET', '/sessions?state=active')), [third])
  t.same(ids(await ask('GET', '/sessions?state=detached&sort=createdAt')), [first.id, second.id])
  t.same(ids(await ask('GET', '/sessions?userId=bob')), [second.id])
  t.same(ids(await ask('GET', `/sessions?createdBefore=${between}`)), [first.id, second.id])
  t.same(ids(await ask('GET', `/sessions?createdAfter=${between}`)), [third])
  t.same(ids(await ask('GET', '/sessions?idleFor=10')), [first.id, second.id])
  t.same(ids(await ask('GET', '/sessions?idleFor=11')), [first.id])
  t.same(ids(await ask('GET', '/sessions?idleFor=0')).length, 3)
  socket.ws.terminate()
})

t.test('a page has 50 sessions unless told otherwise and at most 500', async t => {
  const app = await buildRestApp(t, { unlimitedUserId: 'everybody' })
  const ask = asker(app)
  for (let i = 0; i < 501; i++) app.sessionManager.createSession('everybody')
  t.equal(ids(await ask('GET', '/sessions')).length, 50)
  const page = await ask('GET', '/sessions?limit=500')
  t.equal(ids(page).length, 500)
  const last = await ask('GET', `/sessions?limit=500&cursor=${page.json().nextCursor}`)
  t.equal(ids(last).length, 1)
  t.equal(last.json().nextCursor, null)
})

t.test('sessions of a user are found in full pages, however many other sessions there are', async t => {
  const app = await buildRestApp(t, { unlimitedUserId: 'everybody', sessions: { maxSessions: 30_000 } })
  const ask = asker(app)
  const mine: string[] = []
  for (let i = 0; i < 25_000; i++) {
    if (i % 5000 === 4999) mine.push(app.sessionManager.createSession('alice').id)
    app.sessionManager.createSession('everybody')
  }
  const first = await ask('GET', '/users/alice/sessions?limit=2')
  t.same(ids(first), mine.slice(0, 2))
  const second = await ask('GET', `/users/alice/sessions?cursor=${first.json().nextCursor}`)
  t.same(ids(second), mine.slice(2))
  t.equal(second.json().nextCursor, null)
  t.equal((await ask('GET', '/users/alice/sessions?cursor=none')).json().code, 'INVALID_CURSOR')
})

/** Walks all pages; between two of them `meanwhile` may create and end sessions. */
async function walk (ask: Ask, query: string, meanwhile: () => void): Promise<string[]> {
  const seen: string[] = []
  let cursor: string | null = null
  do {
    const answer = await ask('GET', `/sessions?${query}${cursor === null ? '' : `&cursor=${cursor}`}`)
    if (answer.statusCode !== 200) throw new Error(answer.body)
    seen.push(...ids(answer))
    cursor = answer.json().nextCursor
    meanwhile()
  } while (cursor !== null)
  return seen
}

t.test('a walk sees every session that exists throughout once and in order, whatever comes and goes', async t => {
  const app = await buildRestApp(t, { unlimitedUserId: 'everybody' })
  const ask = asker(app)
  const change = fc.record({ create: fc.nat(3), end: fc.array(fc.nat(), { maxLength: 4 }) })
  await fc.assert(fc.asyncProperty(
    fc.integer({ min: 0, max: 30 }), fc.integer({ min: 1, max: 9 }), fc.boolean(), fc.array(change, { maxLength: 12 }),
    async (atStart, limit, newestFirst, changes) => {
      const living = Array.from({ length: atStart }, () => app.sessionManager.createSession('everybody').id)
      const untouched = new Set(living)
      const queue = [...changes]
      const seen = await walk(ask, `limit=${limit}&sort=${newestFirst ? '-createdAt' : 'createdAt'}`, () => {
        const { create, end } = queue.shift() ?? { create: 0, end: [] }
        for (const n of end) {
          if (living.length === 0) break
          const [gone] = living.splice(n % living.length, 1) as [string]
          app.sessionManager.terminateSession(gone)
          untouched.delete(gone)
        }
        for (let i = 0; i < create; i++) living.push(app.sessionManager.createSession('everybody').id)
      })
      for (const id of living) app.sessionManager.terminateSession(id)
      const expected = newestFirst ? [...untouched].reverse() : [...untouched]
      return new Set(seen).size === seen.length && seen.filter(id => untouched.has(id)).join() === expected.join()
    }
  ), { seed: FUZZ_SEED, numRuns: 60 })
})

t.test('what is not exactly as the schema says is 400 and nothing is converted silently', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  const bad = [
    'limit=0', 'limit=501', 'limit=99999999999999999999', 'limit=5.7', 'limit=true', 'limit=', 'limit=0x10',
    'limit=1e2', 'limit=+5', 'limit=1&limit=2', 'limit[]=1', 'state=ended',
    'state=active&state=active', 'sort=userId', 'idleFor=-1', 'idleFor=1.5', 'createdAfter=yesterday',
    'createdAfter=2026-12-31T23:59:60Z', 'createdBefore=2026-02-30T00:00:00Z',
    `userId=${'u'.repeat(129)}`, 'userId=', 'unknown=1', '__proto__=1', 'constructor=1', `cursor=${'c'.repeat(257)}`
  ]
  for (const query of bad) {
    const answer = await ask('GET', `/sessions?${query}`)
    t.match(
      { status: answer.statusCode, body: answer.json() },
      { status: 400, body: { statusCode: 400, code: 'INVALID_REQUEST', error: 'Bad Request', message: String } },
      query
    )
  }
  const page = await ask('GET', '/sessions?limit=500&idleFor=0&userId=%25')
  t.equal(page.statusCode, 200)
})

t.test('a cursor that this list did not give is refused', async t => {
  const app = await buildRestApp(t, { unlimitedUserId: 'everybody' })
  const ask = asker(app)
  for (let i = 0; i < 3; i++) app.sessionManager.createSession('everybody')
  const { nextCursor } = (await ask('GET', '/sessions?limit=1')).json()
  for (const cursor of ['abc', '%00', '-1', 'bzEuNQ', encodeURIComponent('o1'), `${nextCursor}&sort=-createdAt`]) {
    const answer = await ask('GET', `/sessions?cursor=${cursor}`)
    t.equal(answer.statusCode, 400, cursor)
    t.equal(answer.json().code, 'INVALID_CURSOR', cursor)
  }
})

t.test('odd ids are 400 or 404 on every route, never 500', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  const odd = [
    '%00', 'a%00b', '%0a', '%1b%5b31m', '__proto__', 'constructor', 'toString', 'hasOwnProperty',
    '..%2f..%2fetc%2fpasswd', '..%2f', '../../x', '%zz', '%ff', '%', 'a'.repeat(99), 'a'.repeat(5000), '%F0%9F%92%A9',
    '%ED%A0%80', '[object%20Object]', '1,2', 'null', 'undefined', '*', '%2A', ' ', '%20', ';id=1', '%3Fx=1', '-1', '0',
    'NaN', noSuch
  ]
  const routes = [
    ['GET', '/sessions/:id'], ['DELETE', '/sessions/:id'], ['DELETE', '/sessions/:id/connection'],
    ['POST', '/sessions/:id/messages']
  ] as const
  for (const id of odd) {
    for (const [method, path] of routes) {
      const answer = await ask(
        method, path.replace(':id', id), method === 'POST' ? { event: 'x', payload: null } : undefined
      )
      t.ok([400, 404, 414].includes(answer.statusCode), `${method} ${path} ${id.slice(0, 30)}: ${answer.statusCode}`)
      t.notMatch(answer.body, / at .*\.js|node_modules/)
    }
  }
  t.equal(({} as Record<string, unknown>).polluted, undefined)
})

t.test('an ended session is 410 with its reason and the note of the operator, and a second DELETE is 404', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  const { id } = app.sessionManager.createSession('alice')
  const first = await ask('DELETE', `/sessions/${id}?reason=spam%20from%20%22alice%22`)
  t.equal(first.statusCode, 204)
  t.equal(first.body, '')
  const second = await ask('DELETE', `/sessions/${id}`)
  t.equal(second.statusCode, 404)
  t.same(second.json(), { statusCode: 404, code: 'SESSION_NOT_FOUND', error: 'Not Found', message: 'No such session.' })
  const shown = await ask('GET', `/sessions/${id}`)
  t.equal(shown.statusCode, 410)
  t.match(shown.json(), {
    code: 'SESSION_ENDED', reason: 'ended_by_operator', note: 'spam from "alice"', endedAt: /^\d{4}-.*Z$/
  })
  for (const [method, path, body] of [
    ['DELETE', 'connection', undefined], ['POST', 'messages', { event: 'x' }]
  ] as const) {
    t.equal((await ask(method, `/sessions/${id}/${path}`, body)).statusCode, 410, path)
  }
  t.equal((await ask('GET', `/sessions/${noSuch}`)).json().code, 'SESSION_NOT_FOUND')
})

t.test('a tombstone is 404 once its time is over', async t => {
  const clock = createManualClock()
  const app = await buildRestApp(t, { options: { clock } })
  const ask = asker(app)
  const { id } = app.sessionManager.createSession('alice')
  await ask('DELETE', `/sessions/${id}`)
  t.equal((await ask('GET', `/sessions/${id}`)).statusCode, 410)
  clock.advance(3_600_001)
  t.equal((await ask('GET', `/sessions/${id}`)).statusCode, 404)
})

t.test('P-41 ending a session closes its connection with 4001 after a goodbye', async t => {
  const app = await buildRestApp(t)
  const socket = await injectSocket(app, { protocols: ['holdfast.v1'] })
  const { payload: { sessionId } } = await socket.next()
  t.equal((await asker(app)('DELETE', `/sessions/${sessionId}`)).statusCode, 204)
  t.match(await socket.next(), {
    type: 'goodbye',
    payload: { code: 4001, reason: 'ended_by_operator', action: 'stop' }
  })
  t.equal((await socket.nextClose()).code, 4001)
})

t.test('P-41 detaching closes the connection with 4203 and keeps the session; a second time it is 409', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  const socket = await injectSocket(app, { protocols: ['holdfast.v1'] })
  const { payload: { sessionId } } = await socket.next()
  t.equal((await ask('DELETE', `/sessions/${sessionId}/connection`)).statusCode, 204)
  t.equal((await socket.nextClose()).code, 4203)
  const { state, detachedAt } = (await ask('GET', `/sessions/${sessionId}`)).json()
  t.equal(state, 'detached')
  t.type(detachedAt, 'string')
  const again = await ask('DELETE', `/sessions/${sessionId}/connection`)
  t.equal(again.statusCode, 409)
  t.equal(again.json().code, 'NOT_ATTACHED')
  t.equal((await ask('DELETE', `/sessions/${noSuch}/connection`)).statusCode, 404)
})

t.test('P-37 detaching a session of the basic profile ends it', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  const socket = await injectSocket(app)
  const { payload: { sessionId } } = await socket.next()
  t.equal((await ask('DELETE', `/sessions/${sessionId}/connection`)).statusCode, 204)
  t.match((await ask('GET', `/sessions/${sessionId}`)).json(), { code: 'SESSION_ENDED', reason: 'disconnected' })
  await socket.nextClose()
})

t.test('P-55 every route that sends takes messages that need not wait for the store', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  const socket = await injectSocket(app, { protocols: ['holdfast.v1'] })
  const { payload: { sessionId, userId } } = await socket.next()
  const paths = [`/sessions/${sessionId}/messages`, `/users/${userId}/messages`, '/broadcast']
  for (const path of paths) {
    t.equal((await ask('POST', path, { event: 'token', payload: path, behind: true })).statusCode, 202, path)
    t.match((await ask('POST', path, { event: 'token', behind: 'soon' })).json(), { code: 'INVALID_REQUEST' })
  }
  t.match(await socket.take(3), paths.map((payload, i) => ({ seq: i + 1, event: 'token', payload })))
})

t.test('P-20 a message to a session is an output with the seq that the answer names', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  const socket = await injectSocket(app, { protocols: ['holdfast.v1'] })
  const { payload: { sessionId } } = await socket.next()
  const first = await ask('POST', `/sessions/${sessionId}/messages`, {
    event: 'notice',
    payload: { text: 'grüß dich ✓', n: [1, null] }
  })
  t.equal(first.statusCode, 202)
  t.same(first.json(), { seq: 1 })
  t.same((await ask('POST', `/sessions/${sessionId}/messages`, { event: 'bare' })).json(), { seq: 2 })
  t.same(await socket.take(2), [
    { seq: 1, type: 'message', event: 'notice', payload: { text: 'grüß dich ✓', n: [1, null] } },
    { seq: 2, type: 'message', event: 'bare', payload: null }
  ])
  socket.ws.terminate()
})

// The page was printed in one turn, 32 MiB with the default limits.
t.test('a page holds a mebibyte of contexts, in every listing, and the walk sees every session once', async t => {
  const app = await buildRestApp(t)
  const context = { text: 'x'.repeat(60_000) }
  const created = Array.from({ length: 40 }, () => app.sessionManager.createSession('alice', { context }).id)
  for (const list of ['/sessions', '/users/alice/sessions']) {
    const seen: string[] = []
    const pages: number[] = []
    for (let cursor: string | null = ''; cursor !== null && pages.length < 10;) {
      const answer: LightMyRequestResponse = await app.inject(
        `${list}?limit=500${cursor === '' ? '' : `&cursor=${cursor}`}`
      )
      t.ok(answer.rawPayload.length < 1_200_000, `${answer.rawPayload.length} bytes`)
      const page = ids(answer)
      seen.push(...page)
      pages.push(page.length)
      cursor = (answer.json() as { nextCursor: string | null }).nextCursor
    }
    t.strictSame(pages, [17, 17, 6], list)
    t.strictSame(seen, created)
  }
})

t.test('a body is parsed up to a mebibyte, however large the outbox', async t => {
  const app = await buildRestApp(t, { sessions: { outboxBytes: 67_108_864 } })
  const { id } = app.sessionManager.createSession('alice')
  const send = async (length: number) => await asker(app)(
    'POST', `/sessions/${id}/messages`, { event: 'x', payload: 'p'.repeat(length) }
  )
  t.equal((await send(1_048_000)).statusCode, 202)
  t.match((await send(1_048_576)).json(), { statusCode: 413, code: 'PAYLOAD_TOO_LARGE' })
  t.match((await send(2_000_000)).json(), { statusCode: 413, code: 'PAYLOAD_TOO_LARGE' })
})

t.test('P-6 bodies that are no message are refused with a code, and name the member that would be changed', async t => {
  const app = await buildRestApp(t, { sessions: { outboxBytes: 10_000 } })
  const { id } = app.sessionManager.createSession('alice')
  const json = 'application/json'
  const deep = (levels: number): string => `{"event":"x","payload":${'['.repeat(levels)}${']'.repeat(levels)}}`
  const cases: Array<[string, string, string, number, string, RegExp?]> = [
    ['no event', json, '{"payload":1}', 400, 'INVALID_REQUEST'],
    ['empty event', json, '{"event":""}', 400, 'INVALID_REQUEST'],
    ['long event', json, JSON.stringify({ event: 'e'.repeat(129) }), 400, 'INVALID_REQUEST'],
    ['number as event', json, '{"event":5}', 400, 'INVALID_REQUEST'],
    ['unknown member', json, '{"event":"x","paylaod":1}', 400, 'INVALID_REQUEST'],
    ['array', json, '[]', 400, 'INVALID_REQUEST'],
    ['null', json, 'null', 400, 'INVALID_REQUEST'],
    ['broken JSON', json, '{"event":', 400, 'INVALID_REQUEST'],
    ['empty', json, '', 400, 'INVALID_REQUEST'],
    ['forbidden key', json, '{"event":"x","payload":{"__proto__":{"polluted":1}}}', 400, 'INVALID_REQUEST'],
    [
      'rounded number', json, '{"event":"x","payload":{"draft":7238572949283749923}}', 400, 'INVALID_REQUEST',
      /\/payload\/draft/
    ],
    ['infinite number', json, '{"event":"x","payload":[1e400]}', 400, 'INVALID_REQUEST', /\/payload\/0/],
    ['repeated key', json, '{"event":"x","payload":{"a":1,"a":2}}', 400, 'INVALID_REQUEST', /\/payload\/a/],
    ['text', 'text/plain', '{"event":"x"}', 400, 'INVALID_REQUEST'],
    ['form', 'application/x-www-form-urlencoded', 'event=x', 400, 'INVALID_REQUEST'],
    ['too deep', json, deep(32), 400, 'INVALID_REQUEST'],
    ['absurdly deep', json, deep(6000), 400, 'INVALID_REQUEST'],
    [
      'larger than an outbox', json, JSON.stringify({ event: 'x', payload: 'p'.repeat(10_001) }), 413,
      'PAYLOAD_TOO_LARGE'
    ],
    [
      'larger than any message', json, JSON.stringify({ event: 'x', payload: 'p'.repeat(20_000) }), 413,
      'PAYLOAD_TOO_LARGE'
    ]
  ]
  for (const [name, contentType, payload, status, code, message = /./] of cases) {
    const answer = await app.inject({
      method: 'POST',
      url: `/sessions/${id}/messages`,
      headers: { 'content-type': contentType },
      payload
    })
    t.match(answer.json().message, message, name)
    t.equal(answer.statusCode, status, name)
    t.same(Object.keys(answer.json()).sort(), ['code', 'error', 'message', 'statusCode'], name)
    t.equal(answer.json().code, code, name)
  }
  const fits = await app.inject({
    method: 'POST',
    url: `/sessions/${id}/messages`,
    headers: { 'content-type': json },
    payload: deep(31)
  })
  t.equal(fits.statusCode, 202)
  t.equal(app.sessionManager.peekSession(id)?.lastSeq, 1)
})

// It was 400 on every route; axios, many SDKs and gateways send the type with every request.
t.test('a DELETE without a body may say any content type', async t => {
  const app = await buildRestApp(t)
  for (const headers of [
    { 'content-type': 'application/json' }, { 'content-type': 'application/json; charset=utf-8' },
    { 'content-type': 'application/x-www-form-urlencoded' },
    { 'content-type': 'application/json', 'content-length': '0' },
    { 'content-type': 'application/json', 'transfer-encoding': 'chunked' }
  ]) {
    const { id } = app.sessionManager.createSession('alice')
    const answers = []
    for (const url of [`/sessions/${id}/connection`, `/sessions/${id}`, '/users/nobody/sessions']) {
      answers.push((await app.inject({ method: 'DELETE', url, headers })).statusCode)
    }
    t.same(answers, [409, 204, 200], JSON.stringify(headers))
  }
  const { id } = app.sessionManager.createSession('alice')
  const needed = await app.inject({
    method: 'POST',
    url: `/sessions/${id}/messages`,
    headers: { 'content-type': 'application/json' }
  })
  t.match(
    needed.json(),
    { statusCode: 400, code: 'INVALID_REQUEST', message: /body is not valid/ },
    'where a body is needed it is still missed'
  )
})

t.test('all sessions of a user are listed, written to and ended, but for the excepted one', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  const mine = ['a', 'b', 'c'].map(() => app.sessionManager.createSession('ann/é %').id)
  const other = app.sessionManager.createSession('bob').id
  const path = `/users/${encodeURIComponent('ann/é %')}`
  const listed = await ask('GET', `${path}/sessions`)
  t.same(ids(listed), mine)
  t.equal(listed.json().nextCursor, null)
  const sent = await ask('POST', `${path}/messages`, { event: 'notice', payload: 1 })
  t.equal(sent.statusCode, 202)
  t.same(sent.json(), { sessions: 3 })
  t.equal(app.sessionManager.peekSession(other)?.lastSeq, 0)
  const ended = await ask('DELETE', `${path}/sessions?except=${mine[1]}&reason=logout`)
  t.equal(ended.statusCode, 200)
  t.same(ended.json(), { ended: 2 })
  t.same(ids(await ask('GET', `${path}/sessions`)), [mine[1]])
  t.equal((await ask('GET', `/sessions/${mine[0]}`)).json().note, 'logout')
})

t.test('a user without sessions is not an error, and a text that is nobody\'s id is', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  t.same((await ask('GET', '/users/nobody/sessions')).json(), { data: [], nextCursor: null })
  t.same((await ask('DELETE', '/users/__proto__/sessions')).json(), { ended: 0 })
  for (const id of ['%00', '%E2%80%AEx', 'x%2F..%2F..', '%252e%252e', 'cafe%CC%81']) {
    for (const [method, path, body] of [
      ['GET', 'sessions', undefined], ['DELETE', 'sessions', undefined], ['POST', 'messages', { event: 'x' }]
    ] as const) {
      t.match(
        (await ask(method, `/users/${id}/${path}`, body)).json(),
        { statusCode: 400, code: 'INVALID_REQUEST', message: /userId/ },
        `${method} ${id}`
      )
    }
  }
  t.equal((await ask('GET', '/sessions?userId=%E2%80%AEx')).statusCode, 400)
})

t.test('a message to everybody reaches every session once', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  const sockets = await Promise.all([1, 2, 3].map(() => injectSocket(app)))
  for (const socket of sockets) await socket.next()
  app.sessionManager.createSession('away')
  const answer = await ask('POST', '/broadcast', { event: 'maintenance', payload: { at: 'noon' } })
  t.equal(answer.statusCode, 202)
  t.same(answer.json(), { sessions: 4 })
  for (const socket of sockets) {
    t.same(await socket.next(), { seq: 1, type: 'message', event: 'maintenance', payload: { at: 'noon' } })
    socket.ws.terminate()
  }
})

// URL clients remove dot segments, so `POST /users/%2e%2e/messages` was `POST /messages`: a message
// for one user went to everybody.
t.test('no id makes a URL client write to, end or detach anything but what it names', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  const bystander = app.sessionManager.createSession('bob').id
  const templates: Array<['POST' | 'DELETE', (id: string) => string]> = [
    ['POST', id => `/users/${id}/messages`], ['POST', id => `/sessions/${id}/messages`],
    ['DELETE', id => `/users/${id}/sessions`],
    ['DELETE', id => `/sessions/${id}`], ['DELETE', id => `/sessions/${id}/connection`]
  ]
  for (const [method, path] of templates) {
    for (const id of [
      '', '.', '..', '%2e', '%2e%2e', '.%2E', 'x%2f..%2f..', 'messages', 'stats', 'sessions', 'users', 'broadcast',
      '..%2fbroadcast'
    ]) {
      const normalised = [new URL(path(id), 'http://127.0.0.1').pathname]
      // Proxies decode a path, remove dot segments and merge slashes.
      normalised.push(
        new URL(decodeURIComponent(normalised[0] as string).replaceAll(/\/+/g, '/'), 'http://127.0.0.1').pathname
      )
      for (const url of normalised) {
        const answer = await ask(method, url, method === 'POST' ? { event: 'private' } : undefined)
        const harmless = answer.statusCode >= 400 || ['{"sessions":0}', '{"ended":0}'].includes(answer.body)
        t.ok(harmless, `${method} ${path(id)} as ${url}: ${answer.statusCode} ${answer.body}`)
      }
    }
  }
  t.match(app.sessionManager.peekSession(bystander), { lastSeq: 0, state: 'detached' })
})

t.test('the former path of the broadcast says where it is, and sends nothing', async t => {
  const app = await buildRestApp(t)
  const { id } = app.sessionManager.createSession('bob')
  const answer = await asker(app)('POST', '/messages', { event: 'x' })
  t.match(answer.json(), { statusCode: 410, code: 'ROUTE_MOVED', error: 'Gone', message: /POST \/broadcast/ })
  t.equal(app.sessionManager.peekSession(id)?.lastSeq, 0)
})

t.test('every id that a user may have reaches that user and nobody else', async t => {
  const app = await buildRestApp(t, { sessions: { maxSessions: 100_000 } })
  const ask = asker(app)
  const bystander = app.sessionManager.createSession('bob').id
  const part = fc.oneof(
    fc.constantFrom('.', '..', '/', '\\', '%', '%2e', '%2F', '?', '#', ';', '&', '+', ' ', ':', '@', 'é', '漢', '🙂'),
    fc.string({ minLength: 1, maxLength: 3, unit: 'grapheme' })
  )
  const ids = fc.array(part, { minLength: 1, maxLength: 10 })
    .map(parts => parts.join(''))
    .filter(id => isUserId(id) && id !== 'bob')
  await fc.assert(fc.asyncProperty(ids, async userId => {
    const { id } = app.sessionManager.createSession(userId)
    const base = new URL(`/users/${encodeURIComponent(userId)}/`, 'http://127.0.0.1')
    const path = (name: string): string => { const { pathname } = new URL(name, base); return pathname }
    const list = await ask('GET', path('sessions'))
    const byQuery = await ask('GET', `/sessions?userId=${encodeURIComponent(userId)}`)
    const sent = await ask('POST', path('messages'), { event: 'x' })
    const ended = await ask('DELETE', path('sessions'))
    t.same(
      [
        list.json().data?.map((session: { id: string }) => session.id),
        byQuery.json().data?.length,
        sent.json(),
        ended.json()
      ],
      [[id], 1, { sessions: 1 }, { ended: 1 }],
      JSON.stringify(userId)
    )
  }), { seed: FUZZ_SEED, numRuns: 200 })
  t.equal(app.sessionManager.peekSession(bystander)?.lastSeq, 0)
})

// `except` with a wrong id ended every session of the user, the one that was to be spared among
// them.
t.test('a session that is to be spared has to be the user\'s; otherwise it is 404 and none is ended', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  const mine = app.sessionManager.createSession('ann').id
  const ended = app.sessionManager.createSession('ann').id
  app.sessionManager.terminateSession(ended)
  const foreign = app.sessionManager.createSession('bob').id
  for (const except of [foreign, ended, noSuch, 'x']) {
    const answer = await ask('DELETE', `/users/ann/sessions?except=${except}`)
    t.match(answer.json(), { statusCode: 404, code: 'SESSION_NOT_FOUND', message: /nothing was ended/ })
  }
  t.ok(app.sessionManager.peekSession(mine))
  t.same((await ask('DELETE', `/users/ann/sessions?except=${mine}`)).json(), { ended: 0 })
})

// It was taken, and the walk went on at that place of another list: sessions were skipped without a
// word.
t.test('a cursor of another list is INVALID_CURSOR', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  for (const user of ['ann', 'bob', 'ann', 'bob', 'ann', 'bob']) app.sessionManager.createSession(user)
  const time = new Date(Date.now() + 60_000).toISOString()
  const lists = [
    '/sessions?', '/sessions?sort=-createdAt&', '/sessions?userId=ann&', '/users/bob/sessions?',
    '/sessions?state=detached&', `/sessions?createdBefore=${time}&`, '/sessions?idleFor=0&'
  ]
  for (const from of lists) {
    const { nextCursor } = (await ask('GET', `${from}limit=1`)).json()
    t.type(nextCursor, 'string', from)
    for (const to of lists) {
      const answer = await ask('GET', `${to}limit=2&cursor=${nextCursor as string}`)
      t.equal(answer.statusCode, from === to ? 200 : 400, `${from} to ${to}`)
      if (from !== to) t.equal(answer.json().code, 'INVALID_CURSOR')
    }
  }
  const same = (await ask('GET', '/users/ann/sessions?limit=1')).json().nextCursor as string
  t.equal(
    (await ask('GET', `/sessions?userId=ann&cursor=${same}`)).statusCode,
    200,
    'the sessions of a user are one list, whichever route shows them'
  )
  const implied = (await ask('GET', '/sessions?limit=1')).json().nextCursor as string
  t.equal(
    (await ask('GET', `/sessions?sort=createdAt&limit=5&cursor=${implied}`)).statusCode,
    200,
    'a default may be said, and the limit changed'
  )
  t.equal((await ask('GET', `/sessions?cursor=${implied.split('.')[0]}`)).statusCode, 400)
})

t.test('the stats count sessions and what happened to them', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  const { id } = app.sessionManager.createSession('alice')
  const socket = await injectSocket(app)
  await socket.next()
  await ask('POST', `/sessions/${id}/messages`, { event: 'x' })
  t.match((await ask('GET', '/sessions/stats')).json(), {
    active: 1,
    detached: 1,
    total: 2,
    outboxBytes: Number,
    totals: { created: 2, attached: 1, outputs: 1, ended: { idle: 0, ended_by_operator: 0 } }
  })
  socket.ws.terminate()
})

t.test('a failure inside is INTERNAL and tells nothing of itself', async t => {
  const lines: string[] = []
  const app = await buildRestApp(
    t, { server: { logger: { level: 'error', stream: { write: (line: string) => { lines.push(line) } } } } }
  )
  app.sessionManager.peekSession = () => { throw new Error('password=1 in /etc/secret') }
  const answer = await asker(app)('GET', `/sessions/${noSuch}`)
  t.equal(answer.statusCode, 500)
  t.same(answer.json(), {
    statusCode: 500,
    code: 'INTERNAL',
    error: 'Internal Server Error',
    message: 'Something failed inside the server.'
  })
  t.match(lines.join(''), 'password=1')
})

t.test('an error of a library that blames the caller is INVALID_REQUEST without its text', async t => {
  const app = await buildRestApp(t)
  app.sessionManager.peekSession = () => { throw Object.assign(new Error('library text'), { statusCode: 422 }) }
  const answer = await asker(app)('GET', `/sessions/${noSuch}`)
  t.equal(answer.statusCode, 400)
  t.equal(answer.json().code, 'INVALID_REQUEST')
  t.notMatch(answer.body, 'library')
})

t.test('changes are logged with ids and reasons, payloads never', async t => {
  const lines: string[] = []
  const app = await buildRestApp(
    t, { server: { logger: { level: 'trace', stream: { write: (line: string) => { lines.push(line) } } } } }
  )
  const ask = asker(app)
  const { id } = app.sessionManager.createSession('alice')
  await ask('POST', `/sessions/${id}/messages`, { event: 'x', payload: 'top-secret' })
  await ask('DELETE', `/sessions/${id}?reason=${encodeURIComponent('line one\nforged {"level":30}')}`)
  await turn()
  const parsed = lines.map(line => JSON.parse(line))
  t.match(
    parsed.find(({ msg }) => msg === 'session ended by operator'), { sid: id, note: 'line one\nforged {"level":30}' }
  )
  t.notMatch(lines.join(''), 'top-secret')
})

// A platform that repeated a POST because its answer was lost wrote to people twice.
t.test('Idempotency-Key', async t => {
  const routes = [
    ['/sessions/ID/messages', { seq: 1 }], ['/users/alice/messages', { sessions: 1 }], ['/broadcast', { sessions: 2 }]
  ] as const

  function post (app: FastifyInstance, url: string, key: string, event = 'note'): Promise<LightMyRequestResponse> {
    return app.inject({ method: 'POST', url, headers: { 'idempotency-key': key }, payload: { event } })
  }

  async function build (t: Test, options = {}): Promise<{ app: FastifyInstance, id: string, outputs: () => number }> {
    const app = await buildRestApp(t, options)
    const { id } = app.sessionManager.createSession('alice')
    app.sessionManager.createSession('bob')
    return { app, id, outputs: () => app.sessionManager.totals.outputs }
  }

  for (const [path, answer] of routes) {
    t.test(`the same key on ${path} gives the first answer and sends nothing twice`, async t => {
      const { app, id, outputs } = await build(t)
      const url = path.replace('ID', id)
      const first = await post(app, url, 'k1')
      t.same([first.statusCode, first.json(), first.headers['idempotent-replayed']], [202, answer, undefined])
      const sent = outputs()
      const second = await post(app, url, 'k1')
      t.same([second.statusCode, second.json(), second.headers['idempotent-replayed']], [202, answer, 'true'])
      t.equal(outputs(), sent)
      const other = await post(app, url, 'k1', 'other')
      t.same([other.statusCode, other.json().code], [422, 'IDEMPOTENCY_KEY_REUSED'])
      t.equal(outputs(), sent)
      await post(app, url, 'k2')
      t.equal(outputs(), 2 * sent)
    })
  }

  t.test('a key belongs to what the path names, however that is written', async t => {
    const { app, id, outputs } = await build(t)
    await post(app, `/sessions/${id}/messages`, 'k')
    await post(app, '/users/alice/messages', 'k')
    await post(app, '/users/bob/messages', 'k')
    t.equal(outputs(), 3)
    t.equal((await post(app, '/users/%61lice/messages', 'k')).headers['idempotent-replayed'], 'true')
    t.equal(outputs(), 3)
  })

  t.test('an ended session does not change the answer to a repeat', async t => {
    const { app, id } = await build(t)
    await post(app, `/sessions/${id}/messages`, 'k')
    app.sessionManager.terminateSession(id)
    t.same((await post(app, `/sessions/${id}/messages`, 'k')).json(), { seq: 1 })
    t.equal((await post(app, `/sessions/${id}/messages`, 'new')).statusCode, 410)
  })

  t.test('an answer that says no is not kept', async t => {
    const { app, id } = await build(t)
    t.equal((await post(app, '/sessions/nobody/messages', 'k')).statusCode, 404)
    t.equal((await post(app, '/sessions/nobody/messages', 'k', 'other')).statusCode, 404)
    const large = {
      method: 'POST',
      url: `/sessions/${id}/messages`,
      headers: { 'idempotency-key': 'k' },
      payload: { event: 'x', payload: 'x'.repeat(2_000_000) }
    } as const
    t.equal((await app.inject(large)).statusCode, 413)
    t.equal((await post(app, `/sessions/${id}/messages`, 'k')).statusCode, 202)
  })

  t.test('a quoted key is the bare one, and what is not a key is 400', async t => {
    const { app, outputs } = await build(t)
    await post(app, '/broadcast', '"k 1"')
    await post(app, '/broadcast', '"k-1"')
    t.equal((await post(app, '/broadcast', 'k-1')).headers['idempotent-replayed'], 'true')
    for (const key of ['', ' ', 'a b', 'a, b', 'a,b', '"a", "b"', '"', '""', '"a', 'x'.repeat(256), 'schlüssel']) {
      const { statusCode, body } = await post(app, '/broadcast', key)
      t.equal(statusCode, 400, key)
      t.match(JSON.parse(body), { code: 'INVALID_REQUEST', message: /header.*idempotency-key/ }, key)
    }
    t.equal(outputs(), 4)
  })

  t.test('beyond the bound a new key is 429 with Retry-After, and the others are remembered', async t => {
    const { app, outputs } = await build(t, { auth: { limits: { maxIdempotencyKeys: 2, idempotencyKeyMs: 60_000 } } })
    await post(app, '/users/bob/messages', 'a')
    await post(app, '/users/bob/messages', 'b')
    const refused = await post(app, '/users/bob/messages', 'c')
    t.same([refused.statusCode, refused.json().code, refused.headers['retry-after']], [429, 'TOO_MANY_KEYS', '60'])
    t.equal((await post(app, '/users/bob/messages', 'a')).headers['idempotent-replayed'], 'true')
    t.equal(outputs(), 2)
  })
})

t.test('the routes follow the prefix they are registered under', async t => {
  const { default: sessionsApi } = await import('../../plugins/sessions-api.js')
  const app = await buildRestApp(t, { after: async app => { await app.register(sessionsApi, { prefix: '/v1' }) } })
  t.equal((await asker(app)('GET', '/v1/sessions')).statusCode, 200)
})

t.test('PATCH /sessions/:id/context', async t => {
  const app = await buildRestApp(t, { sessions: { maxContextBytes: 100 } })
  const ask = asker(app)
  const { id } = app.sessionManager.createSession(
    'alice', { context: { desk: 'night', team: { lead: 'bob', size: 3 } } }
  )
  const url = `/sessions/${id}/context`

  t.test('merges: members replace, null removes, what is absent stays', async t => {
    const answer = await ask('PATCH', url, { desk: 'day', team: { size: null } })
    t.equal(answer.statusCode, 200)
    t.match(answer.json(), { id, context: { desk: 'day', team: { lead: 'bob' } } })
    t.same(app.sessionManager.peekSession(id)?.context, { desk: 'day', team: { lead: 'bob' } })
  })

  t.test('takes the media type of RFC 7396 as well', async t => {
    const headers = { 'content-type': 'application/merge-patch+json' }
    const answer = await app.inject({ method: 'PATCH', url, headers, payload: '{"desk":"late"}' })
    t.match(answer.json(), { context: { desk: 'late' } })
  })

  t.test('refuses what is not an object, too deep, or too large, and changes nothing', async t => {
    const before = app.sessionManager.peekSession(id)?.context
    for (const body of [['desk'], 'desk', null]) {
      const answer = await app.inject({
        method: 'PATCH',
        url,
        headers: { 'content-type': 'application/json' },
        payload: JSON.stringify(body)
      })
      t.match(answer.json(), { statusCode: 400, code: 'INVALID_REQUEST' })
    }
    let deep: object = {}
    for (let i = 0; i < 40; i++) deep = { deep }
    t.match((await ask('PATCH', url, deep)).json(), { code: 'INVALID_REQUEST' })
    t.match((await ask('PATCH', url, { text: 'x'.repeat(100) })).json(), { statusCode: 413, code: 'CONTEXT_TOO_LARGE' })
    t.same(app.sessionManager.peekSession(id)?.context, before)
  })

  t.test('tells an ended session from one that never was', async t => {
    t.match((await ask('PATCH', `/sessions/${noSuch}/context`, {})).json(), { code: 'SESSION_NOT_FOUND' })
    app.sessionManager.terminateSession(id)
    t.match((await ask('PATCH', url, {})).json(), { statusCode: 410, code: 'SESSION_ENDED' })
  })

  t.test('is for operators', async t => {
    const guarded = await buildRestApp(t, { auth: { adminToken: 'sixteen-letters!' } })
    t.equal((await asker(guarded)('PATCH', url, {})).statusCode, 401)
  })
})
