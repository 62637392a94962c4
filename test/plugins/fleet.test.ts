// Several nodes over one Redis server, in this process: any node resumes any session, and operators
// see and end everything from any of them.

import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { startTestApp } from '../helpers/app.js'
import { startFleetNode } from '../helpers/fleet.js'
import { needsRedis, startRedis } from '../helpers/redis.js'
import { eventually } from '../helpers/server.js'
import { connectFull, resumeEntry, type Frame } from '../helpers/socket.js'

async function ask (url: string, init: RequestInit & { json?: unknown } = {}): Promise<{ status: number, body: any }> {
  const { json, ...rest } = init
  const answer = await fetch(url, json === undefined
    ? rest
    : { ...rest, headers: { 'content-type': 'application/json' }, body: JSON.stringify(json) })
  const text = await answer.text()
  return { status: answer.status, body: text === '' ? undefined : JSON.parse(text) }
}

const idOf = (hello: Frame): string => hello.payload.sessionId as string

t.test('a session is resumed on any node', needsRedis(), async t => {
  const redis = await startRedis(t)
  const [a, b] = await Promise.all([startFleetNode(t, redis.url), startFleetNode(t, redis.url)])

  t.test('P-27 after its connection broke, with what it has not got', async t => {
    const { socket, hello } = await connectFull(a.wsUrl)
    socket.send({ command: 'echo', payload: 1, id: 1 })
    t.match(await socket.nextOf('result'), { seq: 1, id: 1 })
    socket.send({ command: 'context.set', payload: { step: 2 }, id: 2 })
    await socket.nextOf('result')
    socket.ws.terminate()
    await eventually('it is released', () => a.app.sessionManager.peekSession(idOf(hello)) === undefined)
    const again = await connectFull(b.wsUrl, [resumeEntry(hello, 1)])
    t.match(again.hello, {
      type: 'session_resumed',
      payload: { sessionId: idOf(hello), lastCommand: 2, replay: { from: 2, to: 2 }, gap: null }
    })
    t.match(await again.socket.nextOf('result'), { seq: 2, id: 2 })
    again.socket.send({ command: 'context.get', id: 3 })
    t.match(await again.socket.nextOf('result'), { seq: 3, payload: { step: 2 } })
    // A retry of what the former node has answered is answered, not executed again.
    again.socket.send({ command: 'echo', payload: 'other', id: 2 })
    t.match(await again.socket.nextOf('result'), { seq: 2, id: 2 })
    again.socket.ws.close()
  })

  t.test('P-29 while its connection lives: that is told, and the former node lets go', async t => {
    const { socket, hello } = await connectFull(a.wsUrl)
    socket.send({ command: 'echo', payload: 1, id: 1 })
    await socket.nextOf('result')
    const again = await connectFull(b.wsUrl, [resumeEntry(hello, 0)])
    t.match(again.hello, { type: 'session_resumed', payload: { lastCommand: 1 } })
    t.match(await socket.nextOf('goodbye'), { payload: { code: 4003 } })
    t.equal(b.store.stats.handOffs.released, 1)
    t.equal(a.app.sessionManager.peekSession(idOf(hello)), undefined)
    // And back, with the new token; the old one is dead (P-28).
    again.socket.send({ command: 'echo', payload: 2, id: 2 })
    await again.socket.nextOf('result')
    const stale = await connectFull(a.wsUrl, [resumeEntry(hello, 1)])
    t.match(stale.hello, { type: 'session_created', payload: { previous: { reason: 'unknown' } } })
    stale.socket.ws.close()
    const back = await connectFull(a.wsUrl, [resumeEntry(again.hello, 2)])
    t.match(back.hello, { type: 'session_resumed', payload: { lastCommand: 2 } })
    back.socket.send({ type: 'end' })
    t.equal((await back.socket.nextClose()).code, 4000)
    const ended = await connectFull(b.wsUrl, [resumeEntry(back.hello, 2)])
    t.match(ended.hello, {
      type: 'session_created',
      payload: { previous: { reason: 'ended_by_client', lastCommand: 2 } }
    })
    ended.socket.ws.close()
  })

  t.test('P-51 an output that its client does not take is given up, whichever node sends it', async t => {
    const { socket, hello } = await connectFull(a.wsUrl)
    socket.send({ command: 'echo', payload: 'poison', id: 1 })
    await socket.nextOf('result')
    let last = { socket, hello }
    for (let i = 0; i < 3; i++) {
      last.socket.ws.close(1009)
      await last.socket.nextClose()
      last = await connectFull(i % 2 === 0 ? b.wsUrl : a.wsUrl, [resumeEntry(last.hello, 0)])
      t.equal(last.hello.type, 'session_resumed')
    }
    t.match(last.hello, { payload: { gap: { from: 1, to: 1 }, replay: null } })
    last.socket.ws.close()
  })

  t.test('P-35 of simultaneous resumes on both nodes one is left', async t => {
    const { socket, hello } = await connectFull(a.wsUrl)
    const rivals = await Promise.all(Array.from({ length: 12 }, (_, i) => {
      return connectFull(i % 2 === 0 ? a.wsUrl : b.wsUrl, [resumeEntry(hello)]).catch(() => undefined)
    }))
    await eventually('the first is told', () => socket.ws.readyState === socket.ws.CLOSED)
    const open = (): unknown[] => rivals.filter(rival => rival !== undefined &&
      rival.socket.ws.readyState === rival.socket.ws.OPEN &&
        rival.hello.type === 'session_resumed')
    await eventually('one is left', () => open().length === 1)
    const holders = [a, b].filter(node => node.app.sessionManager.peekSession(idOf(hello)) !== undefined)
    t.equal(holders.length, 1)
    for (const rival of rivals) rival?.socket.ws.close()
  })
})

t.test('a command that runs when its session moves', needsRedis(), async t => {
  const redis = await startRedis(t)
  const runs: number[] = []
  const withCommands = async (app: FastifyInstance): Promise<void> => {
    app.dispatcher.command('hang', { idempotent: false }, async () => {
      runs.push(1)
      await new Promise(() => {})
    })
    app.dispatcher.command('again', { idempotent: true }, async ({ payload }) => {
      runs.push(2)
      if (runs.length < 3) await new Promise(() => {})
      return payload
    })
  }
  const [a, b] = await Promise.all([
    startFleetNode(t, redis.url, { before: withCommands }), startFleetNode(t, redis.url, { before: withCommands })
  ])
  const { socket, hello } = await connectFull(a.wsUrl)
  socket.send({ command: 'hang', id: 1 })
  socket.send({ command: 'again', payload: 'x', id: 2 })
  await eventually('both run', () => runs.length === 2)
  const again = await connectFull(b.wsUrl, [resumeEntry(hello)])
  t.match(again.hello, { type: 'session_resumed', payload: { lastCommand: 1 } })
  t.match(await again.socket.nextOf('error'), { id: 1, seq: 1, code: 'OUTCOME_UNKNOWN' })
  again.socket.send({ command: 'again', payload: 'x', id: 2 })
  t.match(await again.socket.nextOf('result'), { id: 2, seq: 2, payload: 'x' })
  t.strictSame(runs, [1, 2, 2])
  again.socket.ws.close()
})

t.test('operators see and change everything from any node', needsRedis(), async t => {
  const redis = await startRedis(t)
  const [a, b] = await Promise.all([startFleetNode(t, redis.url), startFleetNode(t, redis.url)])
  const one = await connectFull(a.wsUrl)
  const two = await connectFull(b.wsUrl)
  const gone = await connectFull(a.wsUrl)
  gone.socket.ws.terminate()
  await eventually('it is released', () => a.app.sessionManager.peekSession(idOf(gone.hello)) === undefined)
  const ids = [one, two, gone].map(({ hello }) => idOf(hello))

  for (const node of [a, b]) {
    const { body } = await ask(`${node.url}/sessions`)
    t.strictSame(body.data.map(({ id }: { id: string }) => id).sort(), [...ids].sort())
    t.match((await ask(`${node.url}/sessions/stats`)).body, { active: 2, detached: 1, total: 3 })
    for (const id of ids) t.match(await ask(`${node.url}/sessions/${id}`), { status: 200, body: { id } })
  }
  t.match((await ask(`${b.url}/sessions?state=detached`)).body.data, [{ id: ids[2] }])

  const sent = await ask(`${b.url}/sessions/${ids[0]}/messages`, {
    method: 'POST',
    json: { event: 'note', payload: 1 }
  })
  t.strictSame(sent, { status: 202, body: { seq: null } })
  t.match(await one.socket.nextOf('message'), { event: 'note', payload: 1, seq: 1 })
  t.strictSame(
    await ask(`${b.url}/sessions/${ids[2]}/messages`, { method: 'POST', json: { event: 'note', payload: 2 } }),
    {
      status: 202, body: { seq: 1 }
    }
  )
  t.strictSame(
    await ask(`${a.url}/broadcast`, { method: 'POST', json: { event: 'all' } }), { status: 202, body: { sessions: 3 } }
  )
  t.match(await one.socket.nextOf('message'), { event: 'all', seq: 2 })
  t.match(await two.socket.nextOf('message'), { event: 'all', seq: 1 })
  const back = await connectFull(b.wsUrl, [resumeEntry(gone.hello)])
  t.match(await back.socket.nextOf('message'), { event: 'note', payload: 2, seq: 1 })
  t.match(await back.socket.nextOf('message'), { event: 'all', seq: 2 })

  t.match(await ask(`${b.url}/sessions/${ids[0]}/context`, { method: 'PATCH', json: { seen: true } }), {
    status: 200, body: { id: ids[0], context: { seen: true } }
  })
  t.equal((await ask(`${b.url}/sessions/${ids[0]}/connection`, { method: 'DELETE' })).status, 204)
  t.equal((await one.socket.nextClose()).code, 4203)
  t.equal((await ask(`${a.url}/sessions/${ids[1]}?reason=enough`, { method: 'DELETE' })).status, 204)
  t.match(await two.socket.nextOf('goodbye'), { payload: { code: 4001, action: 'stop' } })
  for (const node of [a, b]) {
    t.match(await ask(`${node.url}/sessions/${ids[1]}`), {
      status: 410,
      body: { reason: 'ended_by_operator', note: 'enough' }
    })
  }
  t.strictSame((await ask(`${a.url}/users/human_reviewer_1/sessions`, { method: 'DELETE' })).body, { ended: 2 })
  t.equal((await back.socket.nextClose()).code, 4001)
  t.match((await ask(`${b.url}/sessions/stats`)).body, { active: 0, detached: 0, total: 0 })
})

// `send` and the session manager know the sessions of their own node, and there was nothing else.
t.test('an application delivers to sessions on whichever node they are', needsRedis(), async t => {
  const redis = await startRedis(t)
  const [a, b] = await Promise.all([startFleetNode(t, redis.url), startFleetNode(t, redis.url)])
  const here = await connectFull(a.wsUrl)
  const there = await connectFull(b.wsUrl)
  const { dispatcher, sessionManager } = a.app
  const target = { sessionId: idOf(there.hello) }
  t.throws(() => dispatcher.send(target, 'note', 0), { code: 'SESSION_NOT_FOUND' })
  t.same(await dispatcher.deliver({ sessionId: idOf(here.hello) }, 'note', 1), { sessions: 1, seq: 1 })
  t.same(await dispatcher.deliver(target, 'note', 2), { sessions: 1, seq: null })
  t.match(await there.socket.nextOf('message'), { payload: 2, seq: 1 })
  there.socket.ws.terminate()
  await eventually('it is released', () => b.app.sessionManager.peekSession(target.sessionId) === undefined)
  t.same(await dispatcher.deliver(target, 'note', 3), { sessions: 1, seq: 2 })
  t.same(await dispatcher.deliver({ userId: 'human_reviewer_1' }, 'note', 4), { sessions: 2, seq: null })
  t.same(await dispatcher.deliver({ all: true }, 'note', 5), { sessions: 2, seq: null })
  const back = await connectFull(b.wsUrl, [resumeEntry(there.hello, 1)])
  t.same((await back.socket.take(3)).map(({ payload }) => payload), [3, 4, 5])
  await t.rejects(dispatcher.deliver({ sessionId: 'none' }, 'note', 6), { code: 'SESSION_NOT_FOUND' })
  await sessionManager.terminateUser('human_reviewer_1')
  await t.rejects(dispatcher.deliver({ sessionId: idOf(here.hello) }, 'note', 7), { code: 'SESSION_ENDED' })
  back.socket.ws.close()
})

// It was answered 409 until its client was back.
t.test('the context of a session without an owner is changed from any node', needsRedis(), async t => {
  const redis = await startRedis(t)
  const [a, b] = await Promise.all([startFleetNode(t, redis.url), startFleetNode(t, redis.url)])
  const { socket, hello } = await connectFull(a.wsUrl)
  const id = idOf(hello)
  const patch = async (node: typeof a, json: object) => await ask(`${node.url}/sessions/${id}/context`, {
    method: 'PATCH', json
  })
  const contextOf = async () => (await ask(`${a.url}/sessions/${id}`)).body.context as object
  const owned = await b.store.find(id)
  socket.ws.terminate()
  await eventually('it is released', () => a.app.sessionManager.peekSession(id) === undefined)

  t.match(await patch(b, { desk: 'day', seen: { by: 'b' } }), {
    status: 200, body: { id, state: 'detached', context: { desk: 'day', seen: { by: 'b' } } }
  })
  t.match(await patch(b, { large: 'x'.repeat(70_000) }), { status: 413, body: { code: 'CONTEXT_TOO_LARGE' } })
  const answers = await Promise.all(Array.from({ length: 8 }, (_, i) => patch(i % 2 === 0 ? a : b, { [`n${i}`]: i })))
  t.strictSame(answers.map(({ status }) => status), answers.map(() => 200))
  const all = Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`n${i}`, i]))
  t.same(await contextOf(), { desk: 'day', seen: { by: 'b' }, ...all }, 'none of them undid another')

  t.test('also where it has lost its owner just now', async t => {
    const { find } = b.store
    // The first look is that of the route.
    let looks = 0
    b.store.find = async asked => ++looks <= 2 ? owned : await find(asked)
    t.match(await patch(b, { desk: 'night' }), { status: 200, body: { context: { desk: 'night' } } })
    t.equal(looks, 3)
    b.store.find = find
  })

  t.test('also where its client comes back meanwhile: then by its owner', async t => {
    const { replaceContext } = b.store
    let back: Awaited<ReturnType<typeof connectFull>> | undefined
    b.store.replaceContext = async (...given) => {
      back ??= await connectFull(a.wsUrl, [resumeEntry(hello)])
      return await replaceContext(...given)
    }
    t.match(await patch(b, { desk: 'noon' }), { status: 200, body: { state: 'active', context: { desk: 'noon' } } })
    back?.socket.send({ command: 'context.get', id: 1 })
    t.match(await back?.socket.nextOf('result'), { payload: { desk: 'noon' } })
    back?.socket.ws.close()
  })
})

// It was shown with 0 sessions until the node that answers had renewed its lease once more.
t.test('a node that has just come is listed with its sessions', needsRedis(), async t => {
  const redis = await startRedis(t)
  const a = await startFleetNode(t, redis.url)
  const b = await startFleetNode(t, redis.url)
  const { socket } = await connectFull(b.wsUrl)
  const { body } = await ask(`${a.url}/nodes`)
  t.match(body.data.find((row: { id: string }) => row.id === b.store.nodeId), { self: false, sessions: 1 })
  socket.ws.close()
})

t.test('a node that goes while it is asked has no number of sessions', needsRedis(), async t => {
  const redis = await startRedis(t)
  const { store, url } = await startFleetNode(t, redis.url)
  store.count = async () => ({ total: 0, ownerless: 0, byNode: {} })
  t.match((await ask(`${url}/nodes`)).body.data, [{ id: store.nodeId, sessions: null }])
})

t.test('nodes are listed and drained from any node', needsRedis(), async t => {
  const redis = await startRedis(t)
  const [a, b] = await Promise.all([startFleetNode(t, redis.url), startFleetNode(t, redis.url)])
  const { socket, hello } = await connectFull(a.wsUrl)
  for (const node of [a, b]) {
    const { body } = await ask(`${node.url}/nodes`)
    const rows = new Map(body.data.map((row: { id: string }) => [row.id, row]))
    t.match(rows.get(a.store.nodeId), { self: node === a, sessions: 1, leaseUntil: /Z$/ })
    t.match(rows.get(b.store.nodeId), { self: node === b, sessions: 0 })
    t.match((await ask(`${node.url}/nodes/${a.store.nodeId}`)).body, { id: a.store.nodeId, sessions: 1 })
  }
  t.match(await ask(`${b.url}/nodes/other`), { status: 404, body: { code: 'NODE_NOT_FOUND' } })
  t.equal((await ask(`${b.url}/nodes/other/drain`, { method: 'POST' })).status, 404)

  t.strictSame(
    await ask(`${b.url}/nodes/${a.store.nodeId}/drain`, { method: 'POST' }), { status: 202, body: { draining: true } }
  )
  t.match(await socket.nextOf('goodbye'), { payload: { code: 4200, action: 'resume' } })
  t.match(await ask(`${a.url}/health/ready`), { status: 503, body: { reasons: ['draining'] } })
  t.match((await ask(`${a.url}/nodes/${a.store.nodeId}`)).body, { info: { draining: true } })
  const again = await connectFull(b.wsUrl, [resumeEntry(hello)])
  t.match(again.hello, { type: 'session_resumed', payload: { sessionId: idOf(hello) } })
  again.socket.ws.close()
})

t.test('of several workers one that is drained takes no further connections', async t => {
  const { app, url, port } = await startTestApp(t, { worker: 1 })
  const { socket } = await connectFull(`ws://127.0.0.1:${port}/ws`)
  t.equal((await ask(`${url}/nodes/node/drain`, { method: 'POST' })).status, 202)
  t.match(await socket.nextOf('goodbye'), { payload: { code: 4200 } })
  await t.rejects(fetch(`${url}/health/ready`), { cause: { code: 'ECONNREFUSED' } })
  t.equal((await app.inject('/health/ready')).statusCode, 503)
})

t.test('a node that stops gives its sessions up, and one that starts takes them', needsRedis(), async t => {
  const redis = await startRedis(t)
  const [a, b] = await Promise.all([startFleetNode(t, redis.url), startFleetNode(t, redis.url)])
  const { socket, hello } = await connectFull(a.wsUrl)
  await a.app.gateway.drain(500)
  t.match(await socket.nextOf('goodbye'), { payload: { code: 4200, action: 'resume' } })
  const own = a.app.sessionManager.createSession('someone', { context: { from: 'a' } })
  await a.app.close()
  const again = await connectFull(b.wsUrl, [resumeEntry(hello)])
  t.match(again.hello, { type: 'session_resumed' })
  t.strictSame(b.store.stats.handOffs, { asked: 0, released: 0, taken: 0 })
  t.match((await ask(`${b.url}/sessions/${own.id}`)).body, { state: 'detached', context: { from: 'a' } })
  again.socket.ws.close()
})

t.test('an address has one budget of requests, whichever node it asks', needsRedis(), async t => {
  const redis = await startRedis(t)
  const config = { store: 'redis', redisUrl: redis.url, redisPartitions: 16, requestsPerMinute: 5 } as const
  const [a, b] = await Promise.all([startTestApp(t, { config }), startTestApp(t, { config })])
  const statuses: number[] = []
  for (let i = 0; i < 3; i++) {
    for (const { url } of [a, b]) statuses.push((await ask(`${url}/sessions`)).status)
  }
  t.strictSame(statuses, [200, 200, 200, 200, 200, 429])
  t.ok((await redis.client.keys('holdfast:rate:*')).length > 0)

  await redis.kill()
  t.equal((await ask(`${a.url}/health/live`)).status, 200)
  t.equal((await ask(`${a.url}/sessions`)).status, 503, 'nothing is counted while Redis is away')
})
