import { createHmac } from 'node:crypto'
import t from 'tap'
import { createHttpCore } from '../../src/cores/http.js'
import { readSecret, sign } from '../../src/cores/webhook.js'
import { SECRET, codeOf, command, connect, json, startCore, type Call } from './fake-core.js'

t.test('requests', async t => {
  t.test('a command is posted as a session.command with session, id, name and payload', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 200, {}))
    const { core } = connect(t, url)
    await core.execute(command())
    t.strictSame(calls[0]?.body, {
      type: 'session.command',
      timestamp: '2023-11-14T22:13:20.000Z',
      data: {
        session: {
          id: 's1',
          userId: 'ada',
          createdAt: 1,
          lastActivityAt: 2,
          context: { step: 1 },
          labels: { roles: ['reviewer'] }
        },
        id: 1,
        command: 'review.approve',
        payload: { item: 'é' }
      }
    })
  })

  t.test('a request is signed over id, timestamp and body', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 200, {}))
    const { core } = connect(t, url)
    await core.execute(command())
    const { headers, text } = calls[0] as Call
    const expected = createHmac('sha256', SECRET).update(`s1.e1.1.1700000000.${text}`).digest('base64')
    t.match(headers, {
      'webhook-id': 's1.e1.1', 'webhook-timestamp': '1700000000', 'webhook-signature': `v1,${expected}`
    })
  })

  t.test('the signature of the Standard Webhooks example comes out', async t => {
    const key = readSecret('whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw')
    t.equal(
      sign(key, 'msg_p5jXN8AQM9LWM0D4loKWxJek', '1614265330', '{"test": 2432232314}'),
      'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    )
  })

  t.test('without a secret nothing is signed', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 200, {}))
    const { core } = connect(t, url, { secret: undefined })
    await core.execute(command())
    t.notOk(calls[0]?.headers['webhook-signature'])
  })

  t.test('commands one after the other use connections again', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 200, {}))
    const { core } = connect(t, url)
    for (let id = 1; id <= 20; id++) await core.execute(command({ key: `s1.e1.${id}`, id }))
    // Two, since a connection is free only a turn of the event loop after its answer was read.
    t.ok(new Set(calls.map(call => call.socket)).size <= 2)
  })

  t.test('commands at the same time open no more connections than allowed', async t => {
    const { url, calls } = await startCore(t, (_, response) => { setImmediate(() => json(response, 200, {})) })
    const { core } = connect(t, url, { connections: 2 })
    await Promise.all(Array.from({ length: 8 }, (_, at) => core.execute(command({ key: `s1.e1.${at}`, id: at }))))
    t.equal(calls.length, 8)
    t.equal(new Set(calls.map(call => call.socket)).size, 2)
  })

  const bad: Array<[string, object, RegExp]> = [
    ['no URL', { url: 'not a url' }, /^url of createHttpCore: .* Expected an http or https URL/m],
    ['another scheme', { url: 'ftp://127.0.0.1/' }, /^url /m],
    ['credentials in the URL', { url: 'http://u:quoted@127.0.0.1/' }, /^url (?!.*quoted)/m],
    ['a fragment in the URL', { url: 'http://127.0.0.1/#x' }, /^url /m],
    // Every request was sent without a signature.
    ['a misspelt secret', { secert: 'x'.repeat(24) }, /^secert is not an option .*; did you mean secret\?/m],
    ['a short secret', { secret: 'quoted' }, /^secret of createHttpCore: a text of 6 bytes is not valid/m],
    ['an empty secret', { secret: '' }, /^secret /m],
    ['a secret that is not base64', { secret: `whsec_${'!'.repeat(40)}` }, /^secret /m],
    ['a secret with something behind its base64', { secret: `whsec_${'A'.repeat(32)}!` }, /^secret /m],
    ['a short base64 secret', { secret: 'whsec_AAAA' }, /^secret /m],
    ['a secret that is bytes', { secret: new Uint8Array(32) }, /^secret .*: an object is not valid/m],
    ['a misspelt idempotent', { idempotant: true }, /^idempotant is not .*; did you mean idempotent\?/m],
    // Any text was taken for false.
    ['idempotent as text', { idempotent: 'true' }, /^idempotent .*: "true" is not valid\. Expected true or false/m],
    ['an unknown event', { lifecycleEvents: ['session.moved'] }, /^lifecycleEvents .*: "session\.moved" is not valid/m],
    ['an event with the name of an object member', { lifecycleEvents: ['constructor'] }, /^lifecycleEvents /m],
    ['events that are text', { lifecycleEvents: 'session.ended' }, /^lifecycleEvents /m],
    ['no events', { lifecycleEvents: undefined }, /^lifecycleEvents of createHttpCore is missing/m],
    ['no time', { timeoutMs: 0 }, /^timeoutMs .*: 0 is not valid\. Expected 1 to 3600000 milliseconds/m],
    ['more than an hour', { timeoutMs: 3_600_001 }, /^timeoutMs /m],
    ['time that is text', { timeoutMs: '5000' }, /^timeoutMs /m],
    ['no time limit', { timeoutMs: undefined }, /^timeoutMs of createHttpCore is missing/m],
    ['no bound of answers', { maxAnswerBytes: undefined }, /^maxAnswerBytes of createHttpCore is missing/m],
    ['a bound of answers that is no number', { maxAnswerBytes: NaN }, /^maxAnswerBytes .*: NaN is not valid/m],
    // undici opened as many as there were commands.
    ['no connections', { connections: 0 }, /^connections .*Expected a whole number, 1 or more/m],
    ['half a connection', { connections: 1.5 }, /^connections /m],
    ['no room for events', { maxQueuedEvents: 0 }, /^maxQueuedEvents /m],
    ['a flush before it began', { flushMs: -1 }, /^flushMs /m],
    ['no log', { log: undefined }, /^log of createHttpCore is missing/m],
    ['a clock that is none', { clock: Date.now }, /^clock .*: a function is not valid/m],
    ['timing that is none', { timing: {} }, /^timing /m]
  ]
  for (const [title, options, message] of bad) {
    t.test(`${title} is CONFIG_INVALID, and named`, async t => {
      t.throws(() => connect(t, 'http://127.0.0.1/', options), { code: 'CONFIG_INVALID', message })
    })
  }

  t.test('everything that is wrong is said at once', async t => {
    t.throws(() => createHttpCore({ url: 'core', timout: 5 } as never), {
      code: 'CONFIG_INVALID',
      message: /^timout .*\nurl .*\ntimeoutMs .*\nlifecycleEvents .*\nmaxAnswerBytes .*\nlog .*\nclock /
    })
  })
})

t.test('answers', async t => {
  t.test('P-55 a message may say that it need not wait for the store', async t => {
    const messages = [{ event: 'a', behind: true }, { event: 'b', behind: false }, { event: 'c' }]
    const { url } = await startCore(t, (_, response) => json(response, 200, { messages }))
    t.strictSame((await connect(t, url).core.execute(command())).messages, [
      { event: 'a', payload: null, behind: true }, { event: 'b', payload: null }, { event: 'c', payload: null }
    ])
  })

  t.test('a 200 gives payload, context and messages, and drops what it does not know', async t => {
    const { url } = await startCore(t, (_, response) => json(response, 200, {
      payload: [1], context: { step: 2 }, messages: [{ event: 'a', payload: 1, extra: 1 }, { event: 'b' }], extra: true
    }))
    const { core } = connect(t, url)
    t.strictSame(await core.execute(command()), {
      payload: [1], context: { step: 2 }, messages: [{ event: 'a', payload: 1 }, { event: 'b', payload: null }]
    })
  })

  t.test('an empty object is a null payload, with the context left alone', async t => {
    const { url } = await startCore(t, (_, response) => json(response, 200, {}))
    t.strictSame(await connect(t, url).core.execute(command()), { payload: null, messages: [] })
  })

  // A core that said 201 or 202, as several frameworks do for POST, was told CORE_REFUSED for
  // commands that had run.
  for (const status of [200, 201, 202, 203, 206, 226]) {
    t.test(`a ${status} is an answer like any 2xx`, async t => {
      const { url } = await startCore(t, (_, response) => json(response, status, { payload: 'done' }))
      t.strictSame(await connect(t, url).core.execute(command()), { payload: 'done', messages: [] })
    })
  }

  for (const [status, body] of [[200, ''], [200, 'null'], [201, ''], [202, ''], [204, ''], [205, '']] as const) {
    t.test(`a ${status} with ${body === '' ? 'an empty body' : body} is a null payload`, async t => {
      const { url } = await startCore(t, (_, response) => { response.writeHead(status).end(body) })
      t.strictSame(await connect(t, url).core.execute(command()), { payload: null, messages: [] })
    })
  }

  t.test('a 1xx only announces the answer', async t => {
    const { url } = await startCore(t, (_, response) => {
      response.writeEarlyHints({ link: '</x>; rel=preload' })
      response.writeProcessing()
      json(response, 200, { payload: 'done' })
    })
    t.match(await connect(t, url).core.execute(command()), { payload: 'done' })
  })

  const lies: Array<[string, string | Buffer]> = [
    ['a body that is not JSON', '{"payload":'],
    ['a page of HTML', '<html></html>'],
    ['a body that is not UTF-8', Buffer.from([0x22, 0xff, 0xfe, 0x22])],
    ['an array', '[]'],
    ['a context that is an array', '{"context":[]}'],
    ['a context that is null', '{"context":null}'],
    ['messages that are no list', '{"messages":{}}'],
    ['a message without an event', '{"messages":[{"payload":1}]}'],
    ['a message with a numeric event', '{"messages":[{"event":1}]}'],
    ['a message that perhaps need not wait', '{"messages":[{"event":"a","behind":1}]}'],
    ['a message with an event that is too long', JSON.stringify({ messages: [{ event: 'x'.repeat(129) }] })],
    ['too many messages', JSON.stringify({ messages: Array(1001).fill({ event: 'x' }) })],
    ['a __proto__ member', '{"payload":{"__proto__":{"admin":true}}}'],
    ['an escaped __proto__ member', '{"context":{"\\u005f_proto__":{"admin":true}}}'],
    ['a constructor.prototype member', '{"context":{"constructor":{"prototype":{}}}}'],
    ['an integer that would be rounded', '{"payload":{"draft":7238572949283749923}}'],
    ['a number that would be infinite', '{"messages":[{"event":"x","payload":1e400}]}'],
    ['NaN, as Python writes it', '{"payload":{"score":NaN}}'],
    ['a key that is there twice', '{"context":{"a":1,"a":2}}'],
    ['deep nesting', `{"payload":${'['.repeat(20_000)}${']'.repeat(20_000)}}`]
  ]
  for (const [title, body] of lies) {
    t.test(`a 200 with ${title} is INVALID_RESULT, asked once`, async t => {
      const { url, calls } = await startCore(t, (_, response) => { response.writeHead(200).end(body) })
      const { core, log } = connect(t, url)
      t.equal(await codeOf(core), 'INVALID_RESULT')
      t.equal(calls.length, 1)
      t.match(log.lines, [{ level: 'warn', fields: { sid: 's1', key: 's1.e1.1' } }])
    })
  }

  // It was INVALID_RESULT, whose remedy is no help: the answer matched its schema.
  t.test('an answer larger than an outbox is RESULT_TOO_LARGE, asked once', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 201, { payload: 'x'.repeat(70_000) }))
    const { core, log } = connect(t, url)
    t.equal(await codeOf(core), 'RESULT_TOO_LARGE')
    t.equal(calls.length, 1)
    t.match(log.lines, [{ level: 'warn', fields: { sid: 's1', key: 's1.e1.1' }, message: 'core answer too large' }])
  })

  t.test('an endless answer is cut off at the limit', async t => {
    const { url } = await startCore(t, (_, response) => {
      response.writeHead(200)
      const more = (): void => { if (!response.destroyed) response.write('x'.repeat(16_384), more) }
      more()
    })
    t.equal(await codeOf(connect(t, url).core), 'RESULT_TOO_LARGE')
  })

  t.test('P-6 the log names the member whose number would be changed, and not the number', async t => {
    const { url } = await startCore(t, (_, response) => {
      response.end('{"messages":[{"event":"x","payload":{"draft":7238572949283749923}}]}')
    })
    const { core, log } = connect(t, url)
    await codeOf(core)
    t.match(log.lines[0]?.fields.fault, /^\/messages\/0\/payload\/draft is a number that would be changed/)
    t.notMatch(JSON.stringify(log.lines), /72385/)
  })

  t.test('a byte order mark in front of the answer is passed over', async t => {
    const { url } = await startCore(t, (_, response) => { response.end('\uFEFF{"payload":1}') })
    t.match(await connect(t, url).core.execute(command()), { payload: 1 })
  })

  t.test('the log names the member that is wrong and no value', async t => {
    const { url } = await startCore(t, (_, response) => json(response, 200, {
      payload: 'tell-nobody', messages: [{ event: 7 }]
    }))
    const { core, log } = connect(t, url)
    await codeOf(core)
    t.match(log.lines[0], { fields: { fault: /messages\/0\/event/ }, message: 'core answer not valid' })
    t.notMatch(JSON.stringify(log.lines), /tell-nobody/)
  })
})

t.test('refusals', async t => {
  t.test('P-15 a 4xx with a code is the command\'s error, asked once', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 404, {
      code: 'NO_SUCH_ITEM', message: 'There is no such item.'
    }))
    const { core } = connect(t, url)
    await t.rejects(core.execute(command()), { code: 'NO_SUCH_ITEM', message: 'There is no such item.', expose: true })
    t.equal(calls.length, 1)
  })

  t.test('a code without a sentence gets a constant one', async t => {
    const { url } = await startCore(t, (_, response) => json(response, 400, { code: 'NOPE' }))
    await t.rejects(connect(t, url).core.execute(command()), {
      code: 'NOPE',
      message: 'The Platform Core refused the command.'
    })
  })

  t.test('a long sentence is cut', async t => {
    const { url } = await startCore(t, (_, response) => json(
      response, 400, { code: 'NOPE', message: 'x'.repeat(9_000) }
    ))
    await t.rejects(connect(t, url).core.execute(command()), { message: 'x'.repeat(512) })
  })

  for (const [title, status, body] of [
    ['a code in small letters', 400, '{"code":"nope","message":"x"}'],
    ['no JSON', 404, '<html>'],
    ['a null body', 404, 'null'],
    ['no body', 410, ''],
    ['a page larger than an outbox', 403, 'x'.repeat(100_000)],
    ['a 429 without Retry-After', 429, '']
  ] as Array<[string, number, string]>) {
    t.test(`${title} is an error without text of the core`, async t => {
      const { url, calls } = await startCore(t, (_, response) => { response.writeHead(status).end(body) })
      const { core, log } = connect(t, url)
      t.equal(await codeOf(core), 'CORE_REFUSED')
      t.equal(calls.length, 1)
      t.match(log.lines, [{ level: 'warn', fields: { status }, message: 'core refused without a code' }])
    })
  }

  t.test('a 429 or 4xx with a code and without Retry-After is the core\'s own refusal', async t => {
    const { url } = await startCore(t, (_, response) => json(response, 429, {
      code: 'BUDGET_SPENT', message: 'Come back tomorrow.'
    }))
    t.equal(await codeOf(connect(t, url).core), 'BUDGET_SPENT')
  })
})

t.test('abort and close', async t => {
  t.test('P-19 an abort rejects at once with the signal\'s reason and breaks the request off', async t => {
    const abort = new AbortController()
    const closed = new Promise<void>(resolve => {
      void startCore(t, (_, response) => {
        response.on('close', resolve)
        abort.abort(new Error('timed out'))
      }).then(({ url }) => t.rejects(
        connect(t, url).core.execute(command({ signal: abort.signal })), { message: 'timed out' }
      ))
    })
    await closed
  })

  t.test('a signal that is aborted already sends nothing', async t => {
    const { url, calls } = await startCore(t, (_, response) => json(response, 200, {}))
    await t.rejects(
      connect(t, url).core.execute(command({ signal: AbortSignal.abort(new Error('gone')) })), { message: 'gone' }
    )
    t.equal(calls.length, 0)
  })
})
