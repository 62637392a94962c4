// Which schemas are taken, and what they do. A zod object compiled as a payload, since TypeBox's
// type of a schema is the empty interface, and validation was silently off.

import { type } from 'arktype'
import t from 'tap'
import { Type } from 'typebox'
import * as v from 'valibot'
import { z } from 'zod'
import { defineCommand, defineEvents, type PayloadOf, type ResultOf } from '../../../src/io/dispatcher/command.js'
import { createDispatcher } from '../../../src/io/dispatcher/dispatcher.js'
import { commandError } from '../../../src/io/errors.js'
import type { Jsonify, Sendable } from '../../../src/io/types.js'
import { createDomain, type Domain } from '../../helpers/domain.js'

/** Registers one command and returns what a payload is answered. */
function answering (options: object, handler: (context: { payload: never }) => unknown = ({ payload }) => payload) {
  const world = createDomain()
  world.dispatcher.command('c', options, handler as never)
  const peer = world.connect()
  peer.take()
  return async (payload: unknown) => {
    peer.send({ command: 'c', payload, id: 'q' })
    await world.settle()
    return peer.take()[0]
  }
}

const LIBRARIES = {
  zod: z.object({ draft: z.number().int() }),
  valibot: v.object({ draft: v.pipe(v.number(), v.integer()) }),
  arktype: type({ draft: 'number.integer' }),
  TypeBox: Type.Object({ draft: Type.Integer() }),
  'JSON Schema': { type: 'object', required: ['draft'], properties: { draft: { type: 'integer' } } }
}

for (const [name, payload] of Object.entries(LIBRARIES)) {
  t.test(`a payload described with ${name} is checked before the handler`, async t => {
    const ask = answering({ payload })
    t.match(await ask({ draft: 7 }), { type: 'result', payload: { draft: 7 } })
    for (const wrong of [{ draft: '7' }, { draft: 1.5 }, {}, null, 'text']) {
      t.match(await ask(wrong), { type: 'error', code: 'INVALID_PAYLOAD', payload: /^The payload does not match: \S/ })
    }
  })

  t.test(`a result described with ${name} is checked after it`, async t => {
    t.match(await answering({ result: payload }, () => ({ draft: 7 }))(null), { type: 'result', payload: { draft: 7 } })
    t.match(
      await answering({ result: payload }, () => ({ draft: '7' }))(null), { type: 'error', code: 'INVALID_RESULT' }
    )
    t.match(
      await answering({ result: payload }, async () => ({ draft: '7' }))(null),
      { type: 'error', code: 'INVALID_RESULT' }
    )
  })
}

t.test('a schema that transforms gives the handler what it made of the payload', async t => {
  const ask = answering({ payload: z.object({ at: z.string().transform(text => text.length) }) }, ({
    payload
  }) => payload)
  t.match(await ask({ at: 'four' }), { payload: { at: 4 } })
})

t.test('a schema may answer with a promise', async t => {
  const ask = answering({ payload: z.string().refine(async name => name !== 'taken', 'is taken') })
  t.match(await ask('free'), { type: 'result', payload: 'free' })
  t.match(await ask('taken'), { type: 'error', code: 'INVALID_PAYLOAD', payload: /is taken/ })
})

t.test('a member at fault is named', async t => {
  const ask = answering({ payload: z.object({ drafts: z.array(z.object({ id: z.number() })) }) })
  t.match(await ask({ drafts: [{ id: 1 }, { id: 'x' }] }), { payload: /\/drafts\/1\/id/ })
})

t.test('a synchronous schema costs no promise: the answer is there in the same turn', async t => {
  const { dispatcher, connect } = createDomain()
  dispatcher.command('c', { payload: LIBRARIES.zod, result: LIBRARIES.zod, before: () => {} }, ({ payload }) => payload)
  const peer = connect()
  peer.take()
  peer.send({ command: 'c', payload: { draft: 1 } })
  t.match(peer.take(), [{ type: 'result' }])
  t.equal(dispatcher.inFlight, 0)
})

t.test('what is not a schema is refused when it is registered', async t => {
  class Foreign { parse (): void {} }
  const things: unknown[] = [
    new Foreign(),
    {},
    { parse: () => {} },
    'string',
    7,
    null,
    [],
    () => true,
    { '~standard': { version: 2, validate: () => {} } }
  ]
  for (const payload of things) {
    const { dispatcher } = createDomain()
    for (const options of [{ payload }, { result: payload }]) {
      t.throws(
        () => dispatcher.command('c', options as object, () => 1),
        { code: 'PLUGIN_MISUSED', message: /(payload|result) of the command "c" is not a schema/ }
      )
    }
  }
})

t.test('what cannot be a command is refused when it is registered, and says why', async t => {
  const { dispatcher } = createDomain()
  const wrong: [object, unknown, RegExp][] = [
    [{}, undefined, /"c" has no handler/],
    [{}, 'handler', /handler of the command "c" is not a function/],
    [{ timeout: 5 }, () => 1, /timeout of the command "c" is not an option/],
    [{ timeoutMs: 0 }, () => 1, /timeoutMs of the command "c"/],
    [{ serial: 1 }, () => 1, /serial of the command "c" is not true or false/],
    [{ before: 'admins' }, () => 1, /before of the command "c" is not a function/]
  ]
  for (const [options, handler, message] of wrong) {
    t.throws(() => dispatcher.command('c', options, handler as never), { code: 'PLUGIN_MISUSED', message })
  }
  t.throws(
    () => dispatcher.commands({ c: (() => 1) as never }),
    { code: 'PLUGIN_MISUSED', message: /"c" was not made with defineCommand/ }
  )
})

t.test('before', async t => {
  function guarded (): { world: Domain, asked: string[] } {
    const asked: string[] = []
    const world = createDomain({
      before: ({ command, session }) => {
        asked.push(command)
        const roles = session.labels['roles']
        if (!Array.isArray(roles)) throw commandError('NOT_ALLOWED', 'Who are you?')
      }
    })
    world.dispatcher.command('read', {}, () => 'text')
    world.dispatcher.command('approve', {
      payload: Type.Object({ draft: Type.Integer() }),
      before: async ({ session, payload }) => {
        asked.push(`own ${(payload as { draft: number }).draft}`)
        if (!(session.labels['roles'] as string[]).includes('chief')) {
          throw commandError('NOT_ALLOWED', 'Only a chief may.')
        }
      }
    }, ({ payload }) => payload.draft)
    return { world, asked }
  }

  t.test('refuses with its code, and the handler does not run', async t => {
    const { world } = guarded()
    const nobody = world.connect()
    nobody.take()
    nobody.send({ command: 'read', id: 1 })
    t.match(nobody.take(), [{ type: 'error', code: 'NOT_ALLOWED', id: 1, payload: 'Who are you?' }])
    const reviewer = world.connect({ labels: { roles: ['reviewer'] } })
    reviewer.take()
    reviewer.send({ command: 'read', id: 1 })
    t.match(reviewer.take(), [{ type: 'result', payload: 'text' }])
    reviewer.send({ command: 'approve', id: 2, payload: { draft: 7 } })
    await world.settle()
    t.match(reviewer.take(), [{ type: 'error', code: 'NOT_ALLOWED', payload: 'Only a chief may.' }])
    const chief = world.connect({ labels: { roles: ['chief'] } })
    chief.take()
    chief.send({ command: 'approve', id: 1, payload: { draft: 7 } })
    await world.settle()
    t.match(chief.take(), [{ type: 'result', payload: 7 }])
  })

  t.test('of all commands is asked before the command\'s own, with a payload that was checked', async t => {
    const { world, asked } = guarded()
    const chief = world.connect({ labels: { roles: ['chief'] } })
    chief.send({ command: 'approve', payload: { draft: 'x' } })
    chief.send({ command: 'unknown' })
    t.same(asked, [])
    chief.send({ command: 'approve', payload: { draft: 8 } })
    await world.settle()
    t.same(asked, ['approve', 'own 8'])
  })

  t.test('that fails is INTERNAL, and nothing runs', async t => {
    let ran = 0
    const { dispatcher, connect } = createDomain({ before: () => { throw new Error('database password') } })
    dispatcher.command('c', {}, () => ++ran)
    const peer = connect()
    peer.take()
    peer.send({ command: 'c' })
    t.match(peer.take(), [{ type: 'error', code: 'INTERNAL', payload: 'Something failed inside the server.' }])
    t.equal(ran, 0)
  })
})

t.test('events', async t => {
  const events = defineEvents({
    approved: Type.Object({ draft: Type.Integer() }),
    noted: z.object({ text: z.string().trim() }),
    late: z.string().refine(async () => true)
  })

  t.test('are checked where they are sent, by the dispatcher and by a handler', async t => {
    const { dispatcher, connect } = createDomain({ events })
    dispatcher.command('bad', {}, ({ session }) => session.send('approved', { draft: 'x' }))
    const peer = connect()
    const target = { sessionId: peer.welcome.sessionId }
    dispatcher.send(target, 'approved', { draft: 1 })
    dispatcher.send(target, 'noted', { text: ' trimmed ' })
    dispatcher.send(target, 'other', ['any', 'JSON'])
    peer.take()
    t.throws(
      () => dispatcher.send(target, 'approved', { draft: 'x' }),
      { name: 'TypeError', message: /event "approved" does not match: \/draft/ }
    )
    t.throws(() => dispatcher.send(target, 'late', 'x'), { name: 'TypeError', message: /answers with a promise/ })
    peer.send({ command: 'bad' })
    t.match(peer.take(), [{ type: 'error', code: 'INTERNAL' }])
    t.same(
      peer.frames().filter(({ type }) => type === 'message').map(({ payload }) => payload),
      [{ draft: 1 }, { text: 'trimmed' }, ['any', 'JSON']]
    )
  })

  t.test('with what is not a schema are refused', async t => {
    const { manager, sessions, clock, log } = createDomain()
    const limits = { commandsPerSecond: 1, maxInFlight: 1, commandTimeoutMs: 1 }
    t.throws(
      () => createDispatcher({
        sessions: { ...sessions, send: manager.send },
        deliver: async (...given) => manager.send(...given),
        clock,
        log,
        limits,
        defer: () => {},
        events: { a: {} }
      }),
      { code: 'PLUGIN_MISUSED', message: /event "a"/ }
    )
  })
})

t.test('types flow to the handler and to the client', async t => {
  interface Note { text: string, at: Date, tags: readonly string[], draft?: number, secret: undefined }
  const commands = {
    typed: defineCommand({ payload: z.object({ at: z.string().transform(text => new Date(text)) }) }, ({ payload }) => {
      const at: Date = payload.at
      return { at, tags: ['a'] as const }
    }),
    note: defineCommand({}, (): Note => ({ text: '', at: new Date(0), tags: [], secret: undefined })),
    nothing: defineCommand({}, () => {})
  }
  type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
  const same = <T extends true>(value: T): T => value
  const sent: PayloadOf<typeof commands.typed> = { at: '2026-01-01' }
  same<Equal<ResultOf<typeof commands.typed>['at'], string>>(true)
  same<Equal<ResultOf<typeof commands.note>, { text: string, at: string, tags: readonly string[], draft?: number }>>(
    true
  )
  same<Equal<ResultOf<typeof commands.nothing>, null>>(true)
  same<Equal<Jsonify<Date | undefined>, string | null>>(true)

  // A payload may be an interface, read-only, and have members that are undefined.
  const { dispatcher, connect } = createDomain()
  const note: Note = { text: 'x', at: new Date(0), tags: ['a'] as const, secret: undefined }
  const target = { sessionId: connect().welcome.sessionId }
  dispatcher.send(target, 'note', note)
  dispatcher.send(target, 'list', ['a', 'b'] as readonly string[])
  const accepted: Sendable<{ list: string[] }> = { list: ['a'] as readonly string[] }
  t.ok([sent, accepted, commands])
  // Never called: what is refused here is refused by the compiler.
  const refused = (): void => {
    // @ts-expect-error what JSON would lose
    dispatcher.send(target, 'call', () => 1)
    // @ts-expect-error a member that JSON cannot carry
    dispatcher.send(target, 'big', { big: 1n })
  }
  t.type(refused, 'function')
})
