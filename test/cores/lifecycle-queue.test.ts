import t from 'tap'
import type { LifecycleEventType } from '../../src/io/types.js'
import { connect, event, json, startCore, startRaw } from './fake-core.js'

t.test('lifecycle events', async t => {
  const all = {
    lifecycleEvents: ['session.created', 'session.attached', 'session.detached', 'session.ended'],
    // Pauses take no time, attempts do: some seventy of them are more than two seconds at times.
    flushMs: 60_000
  }

  t.test('an event is posted like a command, with the revision in its id', async t => {
    const { url, calls } = await startCore(t, (_, response) => { response.writeHead(204).end() })
    const { core } = connect(t, url, all)
    core.notify(event(4, { type: 'ended', reason: 'idle' }))
    await core.close()
    t.strictSame(calls[0]?.body, {
      type: 'session.ended',
      timestamp: '2023-11-14T22:13:20.000Z',
      data: { session: { id: 's1', userId: 'ada' }, revision: 4, reason: 'idle' }
    })
    t.match(calls[0]?.headers, { 'webhook-id': 's1.4', 'webhook-signature': /^v1,/ })
  })

  t.test('only listed events are sent', async t => {
    const { url, calls } = await startCore(t, (_, response) => { response.writeHead(204).end() })
    const { core } = connect(t, url, { lifecycleEvents: ['session.ended'] })
    const types: LifecycleEventType[] = ['created', 'attached', 'detached', 'ended']
    types.forEach((type, at) => { core.notify(event(at + 1, { type })) })
    await core.close()
    t.strictSame(calls.map(call => call.body.type), ['session.ended'])
  })

  t.test('events of a session go out by revision, one at a time, through failures', async t => {
    let busy = 0
    const { url, calls } = await startCore(t, (_, response, count) => {
      t.equal(++busy, 1)
      setImmediate(() => { busy--; response.writeHead(count % 2 === 1 ? 500 : 200).end() })
    })
    const { core } = connect(t, url, all)
    for (const revision of [1, 3, 2, 4]) core.notify(event(revision))
    await core.close()
    t.strictSame(calls.map(call => call.id), ['s1.1', 's1.1', 's1.2', 's1.2', 's1.3', 's1.3', 's1.4', 's1.4'])
  })

  t.test('a session whose event hangs does not hold up another', async t => {
    let passed = (): void => {}
    const arrived = new Promise<void>(resolve => { passed = resolve })
    const { url, calls } = await startCore(t, (call, response) => {
      if (call.id === 's1.1') return
      response.writeHead(204).end()
      if (call.id === 's2.2') response.on('close', passed)
    })
    const { core, log } = connect(t, url, { ...all, flushMs: 1000 })
    core.notify(event(1))
    core.notify(event(2))
    core.notify(event(1, { sessionId: 's2' }))
    core.notify(event(2, { sessionId: 's2' }))
    await arrived
    await core.close()
    t.strictSame(calls.map(call => call.id).sort(), ['s1.1', 's2.1', 's2.2'])
    t.match(log.lines, [{ level: 'warn', fields: { dropped: 2 }, message: 'lifecycle events dropped, closing' }])
  })

  t.test('an event that finds the queue full is dropped, with a warning', async t => {
    const { url, calls } = await startCore(t, (_, response) => { response.writeHead(204).end() })
    const { core, log } = connect(t, url, { ...all, maxQueuedEvents: 2 })
    for (const revision of [1, 2, 3, 4]) core.notify(event(revision))
    t.match(log.lines, [
      { level: 'warn', fields: { sid: 's1', revision: 3, maxEvents: 2 } }, { level: 'debug', fields: { revision: 4 } }
    ])
    await core.close()
    t.strictSame(calls.map(call => call.id), ['s1.1', 's1.2'])
  })

  t.test('an event that the core refuses is dropped and the next one follows', async t => {
    const { url, calls } = await startCore(t, (call, response) => {
      response.writeHead(call.id === 's1.1' ? 400 : 200).end()
    })
    const { core, log } = connect(t, url, all)
    core.notify(event(1))
    core.notify(event(2))
    await core.close()
    t.strictSame(calls.map(call => call.id), ['s1.1', 's1.2'])
    t.match(log.lines[0], {
      level: 'warn',
      fields: { revision: 1, status: 400, attempts: 1 },
      message: 'lifecycle event dropped, not taken'
    })
  })

  // It was dropped after 256 ms, so a core that restarted for two seconds missed what happened
  // meanwhile.
  for (const [title, status] of [['answers 500 to', 500], ['answers 503 to', 503], ['is too busy for', 429]] as const) {
    t.test(`an event that the core ${title} is tried for five minutes, then the next one follows`, async t => {
      const { url, calls } = await startCore(t, (call, response) => {
        response.writeHead(call.id === 's1.1' ? status : 200).end()
      })
      const { core, log, clock } = connect(t, url, all)
      core.notify(event(1))
      core.notify(event(2))
      await core.close()
      t.equal(calls.at(-1)?.id, 's1.2')
      t.ok(clock.now() > 290_000 && clock.now() < 300_000, `${clock.now()} ms`)
      t.match(log.lines[0], {
        level: 'warn',
        fields: { revision: 1, status },
        message: 'lifecycle event dropped, not taken'
      })
    })
  }

  t.test('an event whose connection is reset is tried again', async t => {
    const { url, calls } = await startCore(t, (_, response, count) => {
      if (count < 3) response.destroy(); else response.writeHead(204).end()
    })
    const { core, pauses } = connect(t, url, all)
    core.notify(event(1))
    await core.close()
    t.strictSame(calls.map(call => call.id), ['s1.1', 's1.1', 's1.1'])
    t.strictSame(pauses, [75, 150])
  })

  t.test('an event that cannot be delivered at all is dropped with the reason', async t => {
    const url = await startRaw(t, socket => { socket.destroy() })
    const { core, log } = connect(t, url, all)
    core.notify(event(1))
    await core.close()
    t.match(log.lines, [{
      fields: { revision: 1, reason: 'UND_ERR_SOCKET' },
      message: 'lifecycle event dropped, not taken'
    }])
  })

  // Pauses held their place among the few deliveries that run at a time.
  t.test('events that the core never takes do not hold up those of other sessions', async t => {
    const release: Array<() => void> = []
    const { url, calls } = await startCore(t, (call, response) => {
      response.writeHead(call.id.startsWith('bad') ? 500 : 200).end()
    })
    const taken: Promise<void> = new Promise(resolve => {
      const look = (): void => { if (calls.some(call => call.id === 'good.1')) resolve(); else setImmediate(look) }
      look()
    })
    const timing = { random: () => 0, sleep: () => new Promise<void>(resolve => { release.push(resolve) }) }
    const { core } = connect(t, url, { ...all, timing, flushMs: 1 })
    for (let at = 0; at < 20; at++) core.notify(event(1, { sessionId: `bad${at}` }))
    core.notify(event(1, { sessionId: 'good' }))
    await taken
    await core.close()
    for (const each of release) each()
  })

  t.test('a core that asks for patience is given half a minute at most', async t => {
    const { url } = await startCore(t, (_, response, count) => count === 1
      ? json(response, 503, {}, { 'retry-after': '600' })
      : json(response, 200, {}))
    const { core, pauses } = connect(t, url, all)
    core.notify(event(1))
    await core.close()
    t.strictSame(pauses, [30_000])
  })

  t.test('the events of many sessions are delivered a few at a time', async t => {
    let busy = 0
    let most = 0
    const { url, calls } = await startCore(t, (_, response) => {
      most = Math.max(most, ++busy)
      setImmediate(() => { busy--; response.writeHead(200).end() })
    })
    const { core } = connect(t, url, all)
    for (let at = 0; at < 40; at++) core.notify(event(1, { sessionId: `s${at}` }))
    await core.close()
    t.equal(calls.length, 40)
    t.ok(most > 1 && most <= 8)
  })

  t.test('an event after close is not sent', async t => {
    const { url, calls } = await startCore(t, (_, response) => { response.writeHead(204).end() })
    const { core } = connect(t, url, all)
    await core.close()
    core.notify(event(1))
    await core.close()
    t.equal(calls.length, 0)
  })
})
