// What is sent to the core a second time. It was everything that had no answer, twice, after 256 ms
// in all: a core that answered too late or lost its answer ran the command up to three times, and
// one that restarted for two seconds, in which nothing can run, was given up. The kind is shown by
// as many endings of a request as there are, each with and without a declaration that the core is
// idempotent.

import type { ServerResponse } from 'node:http'
import t, { type Test } from 'tap'
import { systemTiming } from '../../src/cores/backoff.js'
import type { CoreRequest } from '../../src/io/dispatcher/core.js'
import { freePort } from '../helpers/free-port.js'
import { SECRET, codeOf, command, connect, heldTime, json, startCore, startRaw } from './fake-core.js'

const done = (response: ServerResponse): void => json(response, 200, { payload: 'done' })

t.test('what may have been executed', async t => {
  type Ending = (response: ServerResponse) => void
  const status = (code: number, headers: Record<string, string> = {}): Ending => response => {
    response.writeHead(code, headers).end()
  }
  const raw = (text: string): Ending => response => { response.socket?.end(text) }
  const endings: Record<string, Ending> = {
    'a reset': response => { response.socket?.resetAndDestroy() },
    'a closed connection': response => { response.socket?.end() },
    'half a head': raw('HTTP/1.1 200 OK\r\nconte'),
    'half an answer': raw('HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{"payload":'),
    'half a chunked answer': raw('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\n{"payload"'),
    'a 100 and no more': raw('HTTP/1.1 100 Continue\r\n\r\n'),
    'another protocol': raw('SSH-2.0-OpenSSH_9.2\r\n'),
    'an upgrade': raw('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n'),
    'silence, until its time is over': () => {},
    'an answer that drips': response => {
      response.writeHead(200)
      const drip = setInterval(() => { response.write(' ') }, 20)
      response.on('close', () => { clearInterval(drip) })
    },
    'a head that drips': response => {
      const { socket } = response
      socket?.write('HTTP/1.1 200 OK\r\nx-slow: ')
      const drip = setInterval(() => { socket?.write('x') }, 20)
      socket?.on('error', () => {})
      socket?.on('close', () => { clearInterval(drip) })
    },
    'a 500': status(500),
    'a 500 with Retry-After': status(500, { 'retry-after': '1' }),
    'a 502 of a gateway, with a large page': response => { response.writeHead(502).end('x'.repeat(100_000)) },
    'a 503 without Retry-After': status(503),
    'a 503 with a Retry-After that says nothing': status(503, { 'retry-after': 'soon' }),
    'a 504 of a gateway': status(504)
  }
  for (const [title, end] of Object.entries(endings)) {
    // Only an answer that does not come has to be waited for.
    const timeoutMs = /silence|drips/.test(title) ? 1_000 : 30_000
    t.test(`${title} after the request is OUTCOME_UNKNOWN, and is not sent again`, async t => {
      const { url, calls } = await startCore(t, (_, response) => end(response))
      const { core, log, pauses } = connect(t, url, { timeoutMs })
      await t.rejects(core.execute(command()), { code: 'OUTCOME_UNKNOWN', message: /executed/ })
      t.equal(calls.length, 1)
      t.strictSame(pauses, [])
      t.match(log.lines.at(-1), {
        level: 'warn',
        fields: { sid: 's1', key: 's1.e1.1', attempt: 1 },
        message: 'core outcome unknown'
      })
    })

    t.test(`${title} is repeated if the command is idempotent`, async t => {
      const { url, calls } = await startCore(t, (_, response, count) => count === 1 ? end(response) : done(response))
      const { core } = connect(t, url, { timeoutMs })
      t.match(await core.execute(command({ idempotent: true })), { payload: 'done' })
      t.strictSame(calls.map(call => call.id), ['s1.e1.1', 's1.e1.1'])
      t.equal(new Set(calls.map(call => call.text)).size, 1)
    })
  }

  for (const code of [301, 302, 303, 304, 307, 308]) {
    t.test(`a ${code} is neither followed nor repeated, since a form that was taken redirects too`, async t => {
      const elsewhere = await startCore(t, (_, response) => done(response))
      const { url, calls } = await startCore(t, (_, response) => status(code, { location: elsewhere.url })(response))
      await t.rejects(
        connect(t, url).core.execute(command({ idempotent: true })), { code: 'OUTCOME_UNKNOWN', message: /executed/ }
      )
      t.equal(calls.length, 1)
      t.equal(elsewhere.calls.length, 0)
    })
  }

  t.test('a core declared idempotent has every command repeated', async t => {
    const { url, calls } = await startCore(t, (_, response, count) => count < 3
      ? status(500)(response)
      : done(response))
    const { core, pauses } = connect(t, url, { idempotent: true })
    t.match(await core.execute(command()), { payload: 'done' })
    t.equal(calls.length, 3)
    t.strictSame(pauses, [75, 150])
  })

  t.test('an idempotent command never answered is OUTCOME_UNKNOWN, even if its last attempts ran nothing', async t => {
    const { url } = await startCore(t, (_, response, count) => {
      status(count === 1 ? 500 : 503, { 'retry-after': '5' })(response)
    })
    const { core, pauses } = connect(t, url)
    await t.rejects(core.execute(command({ idempotent: true })), { code: 'OUTCOME_UNKNOWN', message: /status 500/ })
    t.ok(pauses.length > 5)
  })

  t.test('a refusal without a code does not deny what an earlier attempt may have done', async t => {
    const { url } = await startCore(t, (_, response, count) => status(count === 1 ? 500 : 404)(response))
    t.equal(await codeOf(connect(t, url).core, command({ idempotent: true })), 'OUTCOME_UNKNOWN')
  })

  t.test('the sentence says what is known', async t => {
    const known: Array<[Ending, RegExp]> = [
      [status(500), /status 500; the command may have been executed/],
      [endings['half an answer'] as Ending, /status 200 and the answer was cut off; the command was executed/],
      [() => {}, /did not answer in time/],
      [endings['a reset'] as Ending, /the connection broke/]
    ]
    for (const [end, sentence] of known) {
      const { url } = await startCore(t, (_, response) => end(response))
      await t.rejects(connect(t, url, { timeoutMs: 1_000 }).core.execute(command()), { message: sentence })
    }
  })

  t.test('a request on a kept-alive connection that the core closes meanwhile is of unknown fate', async t => {
    let requests = 0
    const url = await startRaw(t, socket => {
      requests++
      socket.on('data', () => { requests++; socket.destroy() })
      socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}')
    })
    const { core } = connect(t, url, { connections: 1 })
    await core.execute(command())
    t.equal(await codeOf(core, command({ key: 's1.e1.2' })), 'OUTCOME_UNKNOWN')
    t.equal(requests, 2)
  })

  t.test('a connection that the core has closed while it was idle is not used', async t => {
    let sockets = 0
    const url = await startRaw(t, socket => {
      sockets++
      socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\n{}')
    })
    const { core } = connect(t, url)
    for (let id = 1; id <= 20; id++) await core.execute(command({ key: `s1.e1.${id}` }))
    t.equal(sockets, 20)
  })

  t.test('a silent core costs the command its time and no other command anything', async t => {
    const { url } = await startCore(t, (call, response) => { if (call.body.data.command !== 'hang') done(response) })
    const { core, log } = connect(t, url, { timeoutMs: 2_000 })
    const hanging = codeOf(core, command({ command: 'hang', key: 's2.e1.1' }))
    t.match(await core.execute(command()), { payload: 'done' })
    t.equal(await hanging, 'OUTCOME_UNKNOWN')
    t.match(log.lines[0], { fields: { reason: 'TIMEOUT' } })
  })
})

t.test('what surely was not executed', async t => {
  const nobody: Record<string, { url: (t: Test) => Promise<string>, reason: RegExp }> = {
    'a refused connection': { url: async () => `http://127.0.0.1:${await freePort()}/`, reason: /ECONNREFUSED/ },
    // Of a label that is too long, so that no name server is asked: some take their time.
    'a name that is not resolved': { url: async () => `http://${'x'.repeat(64)}.invalid/`, reason: /ENOTFOUND/ },
    'a TLS handshake that breaks': {
      url: async t => (await startRaw(t, socket => { socket.destroy() })).replace('http:', 'https:'),
      reason: /ECONNRESET/
    },
    'a peer that speaks no TLS': {
      url: async t => (await startRaw(t, socket => { socket.end('HTTP/1.1 400 Bad Request\r\n\r\n') })).replace(
        'http:', 'https:'
      ),
      reason: /SSL|EPROTO/
    }
  }
  for (const [title, { url, reason }] of Object.entries(nobody)) {
    t.test(`${title} is tried again while the command's time lasts, then CORE_UNAVAILABLE`, async t => {
      const { core, pauses, log } = connect(t, await url(t))
      await t.rejects(core.execute(command()), { code: 'CORE_UNAVAILABLE', message: /not executed/ })
      const waited = pauses.reduce((sum, pause) => sum + pause, 0)
      t.ok(waited > 50_000 && waited < 60_000, `${waited} ms of 60,000`)
      t.match(log.lines[0], { level: 'warn', fields: { reason }, message: 'core attempt failed' })
      t.match(log.lines.at(-1), { level: 'warn', fields: { reason }, message: 'core unavailable' })
    })
  }

  // Pauses grew to 5 s, so a core that was away for two seconds was found after up to six.
  for (const awayMs of [2_000, 5_000, 20_000]) {
    t.test(`a core that is back after ${awayMs} ms has the command within another second`, async t => {
      const port = await freePort()
      const time = heldTime()
      let back: Promise<unknown> | undefined
      const timing = {
        // The longest pauses there are.
        random: () => 1 - Number.EPSILON,
        async sleep (ms: number) {
          await time.timing.sleep(ms)
          if (time.clock.now() >= awayMs) await (back ??= startCore(t, (_, response) => done(response), port))
        }
      }
      const { core } = connect(t, `http://127.0.0.1:${port}/`, { clock: time.clock, timing })
      t.match(await core.execute(command({ timeoutMs: 30_000 })), { payload: 'done' })
      t.ok(time.clock.now() <= awayMs + 1_000, `${time.clock.now()} ms`)
    })
  }

  for (const status of [429, 503]) {
    t.test(`a ${status} is repeated after its Retry-After`, async t => {
      const { url, calls } = await startCore(t, (_, response, count) => count < 3
        ? json(response, status, {}, { 'retry-after': '7' })
        : done(response))
      const { core, pauses } = connect(t, url)
      t.match(await core.execute(command()), { payload: 'done' })
      t.strictSame(pauses, [7_000, 7_000])
      t.equal(new Set(calls.map(call => `${call.id} ${call.text}`)).size, 1)
    })
  }

  t.test('a Retry-After of 0 waits for the back-off', async t => {
    const { url } = await startCore(t, (_, response, count) => count === 1
      ? json(response, 503, {}, { 'retry-after': '0' })
      : done(response))
    const { core, pauses } = connect(t, url)
    await core.execute(command())
    t.strictSame(pauses, [75])
  })

  t.test('a Retry-After with a date is measured by the date of the answer', async t => {
    const date = { date: 'Tue, 14 Nov 2023 22:13:20 GMT', 'retry-after': 'Tue, 14 Nov 2023 22:13:25 GMT' }
    const { url } = await startCore(t, (_, response, count) => {
      response.sendDate = false
      const headers = [
        date, { 'retry-after': date['retry-after'] }, { ...date, date: 'Wed, 15 Nov 2023 22:13:20 GMT' }
      ][count - 1]
      if (headers === undefined) done(response)
      else json(response, 503, {}, headers)
    })
    const { core, pauses } = connect(t, url)
    await core.execute(command())
    t.strictSame(pauses, [5_000, 150, 300])
  })

  t.test('a pause beyond the command\'s time is not waited for, and the client is told of it', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 503, {}, { 'retry-after': '90' }))
    const { core, pauses } = connect(t, url)
    await t.rejects(core.execute(command()), { code: 'CORE_UNAVAILABLE', retryAfterMs: 90_000 })
    t.equal(calls.length, 1)
    t.strictSame(pauses, [])
  })

  t.test('a command that gets no connection within its time is CORE_UNAVAILABLE, and is not sent later', async t => {
    let answerFirst = (): void => {}
    const { url, calls } = await startCore(t, (_, response, count) => {
      if (count === 1) answerFirst = () => done(response)
      else done(response)
    })
    const { core } = connect(t, url, { connections: 1 })
    const first = core.execute(command({ key: 's1.e1.1' }))
    t.equal(await codeOf(core, command({ key: 's1.e1.2', timeoutMs: 500 })), 'CORE_UNAVAILABLE')
    answerFirst()
    t.match(await first, { payload: 'done' })
    await core.execute(command({ key: 's1.e1.3' }))
    t.strictSame(calls.map(call => call.id), ['s1.e1.1', 's1.e1.3'])
  })

  t.test('the time for an answer begins when the request is sent', async t => {
    const { url } = await startCore(t, (_, response) => { setTimeout(() => done(response), 1_200) })
    const { core } = connect(t, url, { connections: 1, timeoutMs: 3_000 })
    const all = [1, 2, 3].map(id => core.execute(command({ key: `s1.e1.${id}` })))
    for (const answer of await Promise.all(all)) t.match(answer, { payload: 'done' })
  })
})

t.test('what is logged', async t => {
  t.test('of equal lines one in ten seconds is a warning, and the end of the outage is told', async t => {
    let up = false
    const { url } = await startCore(t, (_, response) => json(response, up ? 200 : 500, {}))
    const { core, log } = connect(t, url)
    for (let at = 0; at < 5; at++) await codeOf(core)
    up = true
    await core.execute(command())
    t.equal(log.lines.filter(line => line.level === 'warn').length, 1)
    t.match(log.lines.at(-1), { level: 'info', fields: { unanswered: 5 }, message: 'core available again' })
  })

  t.test('no line holds the secret, a payload, a context or an answer', async t => {
    const { url } = await startCore(t, (_, response, count) => {
      if (count === 1) response.destroy()
      else json(response, [500, 400, 200][count % 3] ?? 500, { code: 'hidden-answer', messages: 'hidden-answer' })
    })
    const { core, log } = connect(t, url)
    const hidden: CoreRequest = command({
      payload: 'hidden-payload',
      session: { ...command().session, context: { a: 'hidden-context' } }
    })
    for (let at = 0; at < 4; at++) await codeOf(core, hidden)
    t.ok(log.lines.length > 0)
    t.notMatch(JSON.stringify(log.lines), new RegExp(`hidden|${SECRET}`))
  })
})

t.test('abort and close', async t => {
  t.test('an abort ends a pause', async t => {
    const abort = new AbortController()
    const { url, calls } = await startCore(t, (_, response) => json(response, 503, {}, { 'retry-after': '30' }))
    const clock = { now: () => 0, wall: () => 0 }
    const timing = {
      ...systemTiming,
      sleep (ms: number, signal?: AbortSignal) {
        setImmediate(() => abort.abort(new Error('gone')))
        return systemTiming.sleep(ms, signal)
      }
    }
    const { core } = connect(t, url, { clock, timing })
    await t.rejects(core.execute(command({ signal: abort.signal })), { message: 'gone' })
    t.equal(calls.length, 1)
  })

  t.test('a command that the core has when it is closed is of unknown fate', async t => {
    const { url } = await startCore(t, () => { void core.close() })
    const { core } = connect(t, url)
    t.equal(await codeOf(core), 'OUTCOME_UNKNOWN')
    await core.close()
    t.equal(await codeOf(core), 'CORE_UNAVAILABLE')
  })

  t.test('a command that pauses while the core is closed is not sent again, and did not run', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 503, {}, { 'retry-after': '1' }))
    const { core } = connect(t, url, { timing: { random: () => 0, sleep: () => core.close() } })
    t.equal(await codeOf(core), 'CORE_UNAVAILABLE')
    t.equal(calls.length, 1)
  })
})
