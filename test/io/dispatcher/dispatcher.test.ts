import fc from 'fast-check'
import t from 'tap'
import { Type } from 'typebox'
import { BUILTIN_COMMANDS } from '../../../src/io/dispatcher/builtin.js'
import type { CommandContext } from '../../../src/io/dispatcher/command.js'
import { defineCommand } from '../../../src/io/dispatcher/command.js'
import type { CoreAnswer, CoreRequest, PlatformCore } from '../../../src/io/dispatcher/core.js'
import { DURATION_BOUNDS_MS } from '../../../src/io/dispatcher/stats.js'
import { mergePatch } from '../../../src/io/session/context.js'
import { commandError, ERRORS, HoldfastError } from '../../../src/io/errors.js'
import type { JsonObject } from '../../../src/io/types.js'
import { FUZZ_SEED } from '../../helpers/fuzz-seed.js'
import { createDomain, type Domain, type DomainOptions, type Frame, type Peer } from '../../helpers/domain.js'

type Handler = (context: CommandContext<unknown>) => unknown

/**
 * A domain with one client that has been welcomed, and an `ok` command to see whether all is still
 * well.
 */
function createWorld (options: DomainOptions = {}): Domain & { peer: Peer } {
  const domain = createDomain(options)
  domain.dispatcher.command('ok', {}, () => 'ok')
  const peer = domain.connect()
  peer.take()
  return Object.assign(domain, { peer })
}

async function answersOf (
  world: Domain & { peer: Peer }, handler: Handler, options: { result?: ReturnType<typeof Type.Object> } = {}
): Promise<Frame[]> {
  const { dispatcher, peer, settle } = world
  dispatcher.command('it', options as object, handler as () => never)
  peer.send({ command: 'it', id: 1 })
  await settle()
  return peer.take()
}

interface Deferred {
  context: CommandContext<unknown>
  resolve: (value: unknown) => void
  reject: (error: unknown) => void
}

/** A command whose invocations are finished by the test. */
function addDeferred ({ dispatcher }: Domain, name: string, options: object = {}): Deferred[] {
  const started: Deferred[] = []
  dispatcher.command(name, options, context => new Promise<unknown>((resolve, reject) => {
    started.push({ context, resolve, reject })
  }))
  return started
}

t.test('P-10 P-14 an accepted command gets one answer, with the id it had', async t => {
  const { dispatcher, peer } = createWorld()
  dispatcher.command('echo', {}, ({ payload }) => payload)
  peer.send({ command: 'echo', payload: { a: [1, 'ä', null] }, id: 1 })
  peer.send({ command: 'echo', payload: 'x', id: 'first "one"' })
  peer.send({ command: 'echo', payload: 'y' })
  peer.send({ command: 'echo' })
  t.strictSame(peer.take(), [
    { seq: 1, type: 'result', id: 1, payload: { a: [1, 'ä', null] } },
    { seq: 2, type: 'result', id: 'first "one"', payload: 'x' },
    { seq: 3, type: 'result', payload: 'y' },
    { seq: 4, type: 'result', payload: null }
  ])
})

t.test('P-15 unknown commands are answered, names of Object.prototype too', async t => {
  const { peer, dispatcher } = createWorld()
  for (const [n, command] of ['nothing', '__proto__', 'constructor', 'toString', 'hasOwnProperty'].entries()) {
    peer.send({ command, id: n + 1 })
    t.strictSame(peer.take(), [{
      seq: n + 1, type: 'error', code: 'UNKNOWN_COMMAND', id: n + 1, payload: `No command is named "${command}".`
    }])
  }
  t.equal(dispatcher.hasCommand('constructor'), false)
  t.equal(dispatcher.stats.find(({ name }) => name === '(unknown)')?.outcomes.unknown, 5)
})

t.test('P-15 a payload that does not match is answered with the member at fault; the handler never runs', async t => {
  const { dispatcher, peer } = createWorld()
  let runs = 0
  dispatcher.command(
    'strict',
    { payload: Type.Object({ n: Type.Integer({ minimum: 1 }) }, { additionalProperties: false }) },
    () => ++runs
  )
  const bad = [undefined, null, [], {}, { n: 0 }, { n: '1' }, { n: 1.5 }, { n: 1, more: true }]
  for (const [i, payload] of bad.entries()) peer.send({ command: 'strict', id: i + 1, payload })
  const answers = peer.take()
  t.strictSame(answers.map(frame => [frame.code, frame.id]), bad.map((_, i) => ['INVALID_PAYLOAD', i + 1]))
  t.match(answers[4]?.payload, '/n')
  t.match(answers[7]?.payload, 'more')
  t.equal(runs, 0)
  t.equal(dispatcher.stats.find(({ name }) => name === 'strict')?.outcomes.invalid, bad.length)
})

const cycle: Record<string, unknown> = {}
cycle.self = cycle
const throwing = (member: string): object => Object.defineProperty({ a: 1 }, member, {
  enumerable: true,
  get () { throw new Error('secret') }
})
const RESULT = Type.Object({ a: Type.Integer(), b: Type.Integer() })

const LIES: [string, () => unknown, object?][] = [
  ['a cycle', () => cycle], ['a BigInt', () => 1n], ['a nested BigInt', () => ({ n: [1n] })],
  ['a toJSON that throws', () => ({ toJSON () { throw new Error('secret') } })],
  // JSON.stringify makes null of these without a word.
  ['NaN', () => NaN], ['a nested Infinity', () => ({ a: [{ b: -Infinity }] })],
  ['an invalid Date', () => ({ at: new Date(NaN) })], ['a function', () => () => 1], ['a symbol', () => Symbol('s')],
  ['a getter that throws', () => throwing('b')],
  ['a getter that throws in the check of its schema', () => throwing('b'), RESULT],
  ['what its schema does not allow', () => ({ a: 1, b: 'secret' }), RESULT],
  ['undefined against a schema', () => undefined, RESULT], ['a cycle against a schema', () => cycle, RESULT],
  ['a BigInt against a schema', () => ({ a: 1n, b: 2n }), RESULT]
]
for (const [what, make, result] of LIES) {
  for (const way of ['at once', 'later'] as const) {
    t.test(`P-15 a handler that gives ${what} ${way} is answered INVALID_RESULT`, async t => {
      const world = createWorld()
      const handler: Handler = way === 'at once' ? make : async () => make()
      const [answer, ...more] = await answersOf(
        world, handler, result === undefined ? {} : { result: result as typeof RESULT }
      )
      t.match(answer, { seq: 1, type: 'error', code: 'INVALID_RESULT', id: 1 })
      t.notMatch(JSON.stringify(answer), 'secret')
      t.strictSame(more, [])
      t.match(world.log.lines, [{ level: 'error', fields: { command: 'it' } }])
      world.peer.send({ command: 'ok', id: 2 })
      t.match(world.peer.take(), [{ id: 2, payload: 'ok' }])
      t.equal(world.dispatcher.inFlight, 0)
    })
  }
}

const FAULTS: [string, () => unknown, string][] = [
  ['an Error', () => { throw new Error('secret path /etc') }, 'INTERNAL'],
  ['a string', () => { throw 'secret' }, 'INTERNAL'], // eslint-disable-line no-throw-literal
  ['null', () => { throw null }, 'INTERNAL'], // eslint-disable-line no-throw-literal
  ['undefined', () => { throw undefined }, 'INTERNAL'], // eslint-disable-line no-throw-literal
  [
    'an error with a code it does not expose',
    () => { throw Object.assign(new Error('secret'), { code: 'ENOENT' }) },
    'INTERNAL'
  ],
  [
    'an exposed error whose code is text',
    () => { throw Object.assign(new Error('secret'), { code: 'not a code', expose: true }) },
    'INTERNAL'
  ],
  [
    'an exposed error with a number for a code',
    () => { throw Object.assign(new Error('secret'), { code: 42, expose: true }) },
    'INTERNAL'
  ],
  [
    'expose that is only truthy',
    () => { throw Object.assign(new Error('secret'), { code: 'MINE', expose: 1 }) },
    'INTERNAL'
  ],
  ['an error whose code throws', () => { throw throwing('code') }, 'INTERNAL'],
  [
    'an error whose message has no text',
    // eslint-disable-next-line no-throw-literal
    () => { throw { code: 'MINE', expose: true, message: Object.create(null) as object } },
    'INTERNAL'
  ],
  [
    'a proxy that throws',
    () => {
      throw new Proxy({}, { get () { throw new Error('secret') }, getPrototypeOf () { throw new Error('secret') } })
    },
    'INTERNAL'
  ],
  ['an error of its own', () => { throw commandError('OUT_OF_STOCK', 'There is none left.') }, 'OUT_OF_STOCK'],
  [
    'an error of the domain',
    () => { throw new HoldfastError('CORE_UNAVAILABLE', { cause: new Error('secret') }) },
    'CORE_UNAVAILABLE'
  ]
]
for (const [what, fault, code] of FAULTS) {
  for (const way of ['at once', 'later'] as const) {
    t.test(`P-15 a handler that throws ${what} ${way} is answered ${code}, and nothing inside is told`, async t => {
      const world = createWorld()
      const frames = await answersOf(world, way === 'at once' ? fault : async () => fault())
      t.match(frames, [{ seq: 1, type: 'error', code, id: 1, payload: String }])
      t.equal(frames.length, 1)
      t.notMatch(JSON.stringify(frames), 'secret')
      t.equal(world.log.lines.length, code === 'INTERNAL' ? 1 : 0, 'only what is not shown is logged')
      world.peer.send({ command: 'ok', id: 2 })
      t.match(world.peer.take(), [{ id: 2, payload: 'ok' }])
      t.equal(world.dispatcher.inFlight, 0)
    })
  }
}

t.test('P-15 the sentence of an exposed error is bounded', async t => {
  const frames = await answersOf(createWorld(), () => { throw commandError('LONG', 'x'.repeat(10_000)) })
  t.equal((frames[0]?.payload as string).length, 1024)
})

const THENABLES: [string, () => unknown, object][] = [
  ['a getter of then that throws', () => throwing('then'), { type: 'error', code: 'INTERNAL' }],
  ['a then that throws', () => ({ then () { throw new Error('secret') } }), { type: 'error', code: 'INTERNAL' }],
  [
    'a then that throws after it resolved',
    () => ({ then (resolve: (value: unknown) => void) { resolve('good'); throw new Error('secret') } }),
    { type: 'result', payload: 'good' }
  ],
  [
    'a then that settles twice',
    () => ({
      then (resolve: (value: unknown) => void, reject: (error: unknown) => void) {
        resolve(1)
        reject(new Error('secret'))
        resolve(2)
      }
    }),
    { type: 'result', payload: 1 }
  ],
  [
    'a then that gives a promise',
    () => ({ then (resolve: (value: unknown) => void) { resolve(Promise.resolve('inner')) } }),
    { type: 'result', payload: 'inner' }
  ],
  ['a then that is no function', () => ({ then: 1 }), { type: 'result', payload: { then: 1 } }],
  [
    'a then that rejects',
    () => ({ then (_: unknown, reject: (error: unknown) => void) { reject(commandError('MINE', 'mine')) } }),
    { type: 'error', code: 'MINE' }
  ]
]
for (const [what, make, expected] of THENABLES) {
  t.test(`P-10 a handler that gives ${what} is answered once`, async t => {
    const world = createWorld()
    const frames = await answersOf(world, make)
    t.match(frames, [{ seq: 1, id: 1, ...expected }])
    t.equal(frames.length, 1)
    t.notMatch(JSON.stringify(frames), 'secret')
    t.equal(world.dispatcher.inFlight, 0)
  })
}

t.test('P-10 nothing is answered as null', async t => {
  t.match(await answersOf(createWorld(), () => undefined), [{ type: 'result', payload: null }])
})

t.test('P-50 an answer larger than the client takes is RESULT_TOO_LARGE; an error keeps its code', async t => {
  const { dispatcher, connect } = createDomain()
  dispatcher.command('large', {}, () => 'é'.repeat(600))
  dispatcher.command('wordy', {}, () => { throw commandError('MINE', '"'.repeat(1000)) })
  const peer = connect({ maxOutputBytes: 1024 })
  peer.take()
  peer.send({ command: 'large', id: 1 })
  peer.send({ command: 'wordy', id: 2 })
  peer.send({ command: 'large', id: '"'.repeat(128) })
  t.match(peer.take(), [
    { seq: 1, type: 'error', code: 'RESULT_TOO_LARGE', id: 1 },
    { seq: 2, type: 'error', code: 'MINE', id: 2, payload: ERRORS.RESULT_TOO_LARGE.message },
    { seq: 3, type: 'error', code: 'RESULT_TOO_LARGE', id: '"'.repeat(128) }
  ])
})

t.test('P-15 a result larger than an outbox is answered RESULT_TOO_LARGE', async t => {
  const world = createWorld({ session: { outboxBytes: 2000 } })
  t.match(await answersOf(world, () => 'x'.repeat(2000)), [{ seq: 1, type: 'error', code: 'RESULT_TOO_LARGE', id: 1 }])
})

t.test('P-15 a large result within the outbox is sent whole', async t => {
  const big = 'é'.repeat(300_000)
  const frames = await answersOf(createWorld(), () => big)
  t.equal(frames[0]?.payload, big)
})

t.test('P-17 commands start in order of arrival, run concurrently and are answered in order of completion', async t => {
  const world = createWorld()
  const started = addDeferred(world, 'slow')
  for (let id = 1; id <= 3; id++) world.peer.send({ command: 'slow', id, payload: id })
  t.strictSame(started.map(({ context }) => context.payload), [1, 2, 3])
  t.equal(world.dispatcher.inFlight, 3)
  for (const index of [2, 0, 1]) {
    started[index]?.resolve(index + 1)
    await world.settle()
  }
  t.strictSame(world.peer.take().map(frame => [frame.seq, frame.id, frame.payload]), [[1, 3, 3], [2, 1, 1], [3, 2, 2]])
  t.equal(world.manager.peekSession(world.peer.welcome.sessionId)?.inFlight, 0)
})

t.test('P-17 P-18 whatever is serial and however they finish, they start as a plain model says', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  const step = fc.oneof(
    fc.record({
      kind: fc.constant('submit' as const),
      command: fc.constantFrom('free', 'serial', 'freeNow', 'serialNow'),
      pick: fc.nat(99)
    }),
    fc.record({ kind: fc.constantFrom('finish' as const, 'fail' as const), command: fc.constant(''), pick: fc.nat(99) })
  )
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 40 }), async steps => {
    const world = createWorld()
    const started: number[] = []
    const pending = new Map<number, Deferred>()
    for (const name of ['free', 'serial']) {
      world.dispatcher.command(name, { serial: name === 'serial' }, context => new Promise<unknown>(
        (resolve, reject) => {
          started.push(context.id as number)
          pending.set(context.id as number, { context, resolve, reject })
        }
      ))
      world.dispatcher.command(`${name}Now`, { serial: name === 'serial' }, ({ id }) => { started.push(id as number) })
    }
    const model: { serial: boolean, now: boolean, started: boolean, answered: boolean }[] = []
    const order: number[] = []
    const answered: number[] = []
    const advance = (): void => {
      for (const [i, call] of model.entries()) {
        const earlier = model.slice(0, i)
        if (call.started ||
            !(call.serial
              ? earlier.every(other => other.answered)
              : earlier.every(other => other.answered || (other.started && !other.serial)))) {
          continue
        }
        call.started = true
        order.push(i + 1)
        if (call.now) {
          call.answered = true
          answered.push(i + 1)
        }
      }
    }
    for (const { kind, command, pick } of steps) {
      if (kind === 'submit') {
        model.push({
          serial: command.startsWith('serial'), now: command.endsWith('Now'), started: false, answered: false
        })
        world.peer.send({ command, id: model.length })
      } else {
        const running = [...pending.keys()]
        const id = running[pick % Math.max(1, running.length)]
        if (id === undefined) continue
        if (kind === 'finish') pending.get(id)?.resolve(id)
        else pending.get(id)?.reject(commandError('FAILED', 'failed'))
        pending.delete(id)
        const call = model[id - 1]
        if (call !== undefined) call.answered = true
        answered.push(id)
        await world.settle()
      }
      advance()
      if (started.join() !== order.join()) throw new Error(`started ${started.join()} instead of ${order.join()}`)
      const unanswered = model.filter(call => !call.answered).length
      if (world.dispatcher.inFlight !== unanswered) {
        throw new Error(`${world.dispatcher.inFlight} in flight instead of ${unanswered}`)
      }
    }
    const ids = world.peer.take().map(frame => frame.id)
    if (ids.join() !== answered.join()) throw new Error(`answered ${ids.join()} instead of ${answered.join()}`)
  }), { seed: FUZZ_SEED, numRuns: 150 })
})

t.test('P-19 a command not answered in time gets COMMAND_TIMEOUT, to the millisecond of the sweep', async t => {
  const world = createWorld({ dispatcher: { commandTimeoutMs: 30_000 } })
  const slow = addDeferred(world, 'slow')
  const quick = addDeferred(world, 'quick', { timeoutMs: 250 })
  world.peer.send({ command: 'slow', id: 1 })
  world.peer.send({ command: 'quick', id: 2 })
  world.clock.advance(250)
  t.equal(world.dispatcher.sweep(), 0)
  world.clock.advance(1)
  t.equal(world.dispatcher.sweep(), 1)
  t.match(world.peer.take(), [{ seq: 1, type: 'error', code: 'COMMAND_TIMEOUT', id: 2 }])
  world.clock.advance(29_750)
  t.equal(world.dispatcher.sweep(), 1)
  t.match(world.peer.take(), [{ seq: 2, code: 'COMMAND_TIMEOUT', id: 1 }])
  for (const { context } of [...slow, ...quick]) t.match(context.signal.reason, { code: 'COMMAND_TIMEOUT' })
  t.equal(world.dispatcher.inFlight, 0)
})

t.test('P-19 what a handler returns or throws after its time is discarded', async t => {
  const world = createWorld()
  const [one, two] = [addDeferred(world, 'one', { timeoutMs: 10 }), addDeferred(world, 'two', { timeoutMs: 10 })]
  world.peer.send({ command: 'one', id: 1 })
  world.peer.send({ command: 'two', id: 2 })
  const { signal } = one[0]?.context as CommandContext<unknown>
  let aborted = 0
  signal.addEventListener('abort', () => aborted++)
  t.equal(signal.aborted, false)
  world.clock.advance(11)
  world.dispatcher.sweep()
  t.equal(aborted, 0, 'whoever listens hears at the end of the turn, when the answer is given')
  world.peer.take()
  t.equal(aborted, 1)
  one[0]?.resolve('late')
  two[0]?.reject(new Error('late'))
  await world.settle()
  t.strictSame(world.peer.take(), [])
  t.equal(world.manager.peekSession(world.peer.welcome.sessionId)?.lastSeq, 2)
  t.strictSame(world.log.lines, [])
  world.peer.send({ command: 'one', id: 1 })
  t.match(world.peer.take(), [{ seq: Number, code: 'COMMAND_TIMEOUT', id: 1 }], 'and the first answer stays the answer')
})

t.test('P-18 P-19 a command that times out while it waits never runs, and holds nobody back', async t => {
  const world = createWorld()
  const first = addDeferred(world, 'first', { timeoutMs: 100 })
  const runs: string[] = []
  world.dispatcher.command('serial', { serial: true, timeoutMs: 20 }, () => { runs.push('serial') })
  world.dispatcher.command('after', {}, () => { runs.push('after') })
  world.peer.send({ command: 'first', id: 1 })
  world.peer.send({ command: 'serial', id: 2 })
  world.peer.send({ command: 'after', id: 3 })
  t.strictSame(runs, [])
  world.clock.advance(21)
  t.equal(world.dispatcher.sweep(), 1)
  t.strictSame(runs, ['after'], 'the one behind it starts, as nothing serial is before it')
  t.strictSame(world.peer.take().map(frame => [frame.id, frame.type]), [[2, 'error'], [3, 'result']])
  first[0]?.resolve(1)
  await world.settle()
  t.strictSame(runs, ['after'])
})

t.test('P-19 the end of a session aborts its signals and discards its answers', async t => {
  const world = createWorld()
  const slow = addDeferred(world, 'slow')
  world.dispatcher.command('serial', { serial: true }, () => { throw new Error('never') })
  world.peer.send({ command: 'slow', id: 1 })
  world.peer.send({ command: 'slow', id: 2 })
  world.peer.send({ command: 'serial', id: 3 })
  const { signal } = slow[0]?.context as CommandContext<unknown>
  world.manager.terminateSession(world.peer.welcome.sessionId)
  world.turn()
  t.match(signal.reason, { code: 'SESSION_ENDED' })
  t.match(
    slow[1]?.context.signal.reason,
    { code: 'SESSION_ENDED' },
    'a signal that is first looked at later is aborted as well'
  )
  t.equal(world.dispatcher.inFlight, 0)
  slow[0]?.resolve('late')
  slow[1]?.reject(new Error('late'))
  await world.settle()
  world.clock.advance(1e6)
  t.equal(world.dispatcher.sweep(), 0)
  t.strictSame(world.peer.take().map(frame => frame.type), ['goodbye'])
  t.strictSame(world.log.lines, [])
})

t.test('P-19 a handler whose session has ended can neither change nor send', async t => {
  const world = createWorld()
  const slow = addDeferred(world, 'slow')
  world.peer.send({ command: 'slow', id: 1 })
  world.manager.terminateSession(world.peer.welcome.sessionId)
  const { session } = slow[0]?.context as CommandContext<unknown>
  t.throws(() => session.updateContext(() => ({ a: 1 })), { code: 'SESSION_ENDED' })
  t.throws(() => session.send('e', 1), { code: 'SESSION_ENDED' })
  t.strictSame(world.log.lines, [])
})

for (const way of ['at once', 'before it gives a promise', 'behind others', 'behind a serial one'] as const) {
  t.test(`a handler that ends its own session ${way} leaves nothing behind`, async t => {
    const world = createWorld()
    const slow = addDeferred(world, 'slow', { serial: way === 'behind a serial one' })
    let seen: CommandContext<unknown> | undefined
    world.dispatcher.command('end', {}, context => {
      seen = context
      world.manager.terminateSession(context.session.id)
      return way === 'at once' ? 'gone' : Promise.reject(new Error('late'))
    })
    if (way.startsWith('behind')) world.peer.send({ command: 'slow' })
    world.peer.send({ command: 'end', id: 1 })
    slow[0]?.resolve(1)
    await world.settle()
    if (way !== 'at once') t.match(seen?.signal.reason, { code: 'SESSION_ENDED' })
    t.equal(world.dispatcher.inFlight, 0)
    t.strictSame(world.manager.countSessions(), { active: 0, detached: 0, total: 0, outboxBytes: 0 })
    t.equal(world.peer.transport.closed?.code, 4001)
    t.strictSame(world.log.lines, [])
  })
}

t.test('P-39 commands go on while their session is detached, and their answers wait', async t => {
  const world = createWorld()
  const slow = addDeferred(world, 'slow')
  world.peer.send({ command: 'slow', id: 1 })
  world.peer.close(1006)
  t.equal(slow[0]?.context.signal.aborted, false)
  slow[0]?.resolve('kept')
  await world.settle()
  t.match(world.resume(world.peer.welcome, 0).take(), [
    { type: 'session_resumed' }, { seq: 1, payload: 'kept' }, { type: 'live' }
  ])
})

t.test('updateContext is one step: concurrent commands lose no update', async t => {
  const world = createWorld()
  const started = addDeferred(world, 'add')
  for (let id = 1; id <= 20; id++) world.peer.send({ command: 'add', id })
  for (const { context } of started) {
    context.session.updateContext(({ n = 0, ...rest }) => ({
      ...rest,
      n: (n as number) + 1,
      [`by${String(context.id)}`]: true
    }))
  }
  const { context } = world.manager.peekSession(world.peer.welcome.sessionId) ?? {}
  t.equal(context?.n, 20)
  t.equal(Object.keys(context ?? {}).length, 21)
})

t.test('the context is frozen all the way down, and what went in is not what is kept', async t => {
  const world = createWorld()
  const given = { list: [{ n: 1 }] }
  const frames = await answersOf(world, ({ session }) => {
    const kept = session.updateContext(() => given)
    ;(given.list[0] as { n: number }).n = 2
    t.equal(Object.isFrozen(kept) && Object.isFrozen(kept.list) && Object.isFrozen((kept.list as object[])[0]), true)
    t.throws(() => { (session.context as Record<string, unknown>).x = 1 }, TypeError)
    return session.context
  })
  t.match(frames, [{ type: 'result', payload: { list: [{ n: 1 }] } }])
})

t.test('the context is bounded in bytes, and stays as it was when it would exceed them', async t => {
  const world = createWorld({ session: { maxContextBytes: 20 } })
  const exact = { a: 'x'.repeat(12) }
  t.equal(JSON.stringify(exact).length, 20)
  t.match(await answersOf(world, ({ session }) => {
    session.updateContext(() => exact)
    t.throws(() => session.updateContext(() => ({ a: 'x'.repeat(13) })), { code: 'CONTEXT_TOO_LARGE' })
    session.updateContext(() => ({ a: 'é'.repeat(7) }))
    return null
  }), [{ type: 'error', code: 'CONTEXT_TOO_LARGE', payload: /20 bytes/ }], 'bytes, not characters')
  t.strictSame(world.manager.peekSession(world.peer.welcome.sessionId)?.context, exact)
})

t.test('a context is a plain object, nothing else', async t => {
  for (const value of [null, undefined, [], 1, 'x', () => ({}), new Date(0), cycle, { n: 1n }]) {
    const world = createWorld()
    t.match(
      await answersOf(world, ({ session }) => session.updateContext(() => value as never)), [{ code: 'INTERNAL' }]
    )
    t.strictSame(world.manager.peekSession(world.peer.welcome.sessionId)?.context, {})
  }
})

t.test('a handler sees its session live', async t => {
  const world = createWorld()
  world.clock.advance(5)
  const frames = await answersOf(world, ({ session, id, payload }) => {
    t.equal(session.send('hello', { n: 1 }), 1)
    return [
      session.id, session.userId, typeof session.generation, session.createdAt, session.lastActivityAt, session.context,
      id, payload
    ]
  })
  t.strictSame(frames, [
    { seq: 1, type: 'message', event: 'hello', payload: { n: 1 } },
    {
      seq: 2,
      type: 'result',
      id: 1,
      payload: [world.peer.welcome.sessionId, 'ann', 'string', world.clock.wall() - 5, world.clock.wall(), {}, 1, null]
    }
  ])
})

t.test('RFC 7396 the merge patches of its appendix whose result is an object', async t => {
  const cases: [JsonObject, JsonObject, JsonObject][] = [
    [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
    [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
    [{ a: 'b' }, { a: null }, {}],
    [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
    [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
    [{ a: 'c' }, { a: ['b'] }, { a: ['b'] }],
    [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
    [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
    [{ e: null }, { a: 1 }, { e: null, a: 1 }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
    [{ a: 'foo' }, { a: { b: 1 } }, { a: { b: 1 } }],
    [{ a: [1, 2] }, { a: { b: null } }, { a: {} }],
    [{ a: { b: { c: 1, d: 2 } }, x: 0 }, { a: { b: { c: null } } }, { a: { b: { d: 2 } }, x: 0 }]
  ]
  for (const [target, patch, expected] of cases) {
    const before = structuredClone([target, patch])
    t.strictSame(mergePatch(target, patch), expected, `${JSON.stringify(target)} + ${JSON.stringify(patch)}`)
    t.strictSame([target, patch], before, 'and neither was changed')
  }
})

t.test('a merge patch with inherited names changes no prototype', async t => {
  const patch = JSON.parse(
    '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"toString":{"x":1}}'
  ) as JsonObject
  const merged = mergePatch({}, patch)
  t.equal(({} as Record<string, unknown>).polluted, undefined)
  t.equal((Object as unknown as Record<string, unknown>).polluted, undefined)
  t.match(JSON.parse(JSON.stringify(merged)), { constructor: { prototype: { polluted: 1 } }, toString: { x: 1 } })
})

t.test('the built-in commands answer ping, echo and the context', async t => {
  const { peer, dispatcher } = createWorld()
  dispatcher.commands(BUILTIN_COMMANDS)
  for (const [command, payload] of [
    ['ping', null], ['echo', [1]], ['context.set', { a: { b: 1 } }], ['context.set', { a: { c: 2, b: null } }],
    ['context.get', null], ['context.set', 'no']
  ]) {
    peer.send({ command, payload })
  }
  t.strictSame(peer.take().map(frame => frame.code ?? frame.payload), [
    'pong', [1], { a: { b: 1 } }, { a: { c: 2 } }, { a: { c: 2 } }, 'INVALID_PAYLOAD'
  ])
})

t.test('registering a command wrongly is PLUGIN_MISUSED', async t => {
  const { dispatcher } = createWorld()
  for (const name of ['', 'x'.repeat(129), 'ok']) {
    t.throws(() => dispatcher.command(name, {}, () => 1), { code: 'PLUGIN_MISUSED' })
  }
  for (const timeoutMs of [0, -1, 1.5, NaN, Infinity, 3_600_001]) {
    t.throws(() => dispatcher.command('timed', { timeoutMs }, () => 1), { code: 'PLUGIN_MISUSED' })
  }
  t.equal(dispatcher.hasCommand('timed'), false)
  dispatcher.command('x'.repeat(128), { timeoutMs: 3_600_000 }, () => 1)
  dispatcher.commands({ one: defineCommand({}, () => 1), two: defineCommand({ serial: true }, () => 2) })
  t.ok(dispatcher.hasCommand('one') && dispatcher.hasCommand('two'))
})

t.test('send of the dispatcher is send of the sessions', async t => {
  const { dispatcher, peer } = createWorld()
  t.strictSame(dispatcher.send({ userId: 'ann' }, 'e', 1), { sessions: 1, seq: null })
  t.strictSame(peer.take(), [{ seq: 1, type: 'message', event: 'e', payload: 1 }])
})

t.test('stats count outcomes and durations per registered name, and nothing that clients make up', async t => {
  const world = createWorld()
  const slow = addDeferred(world, 'slow', { timeoutMs: 20_000 })
  world.dispatcher.command('bad', {}, () => { throw commandError('BAD', 'bad') })
  for (const command of ['ok', 'ok', 'bad', 'made-up-1', 'made-up-2']) world.peer.send({ command })
  for (const ms of [1, 2, 5000, 15_000]) {
    world.peer.send({ command: 'slow' })
    world.clock.advance(ms)
    slow.at(-1)?.resolve(null)
    await world.settle()
  }
  const of = (name: string): object | undefined => world.dispatcher.stats.find(each => each.name === name)
  t.match(of('ok'), { outcomes: { ok: 2, error: 0, invalid: 0, timeout: 0, unknown: 0 }, durationSumMs: 0 })
  t.match(of('bad'), { outcomes: { ok: 0, error: 1 } })
  t.match(of('(unknown)'), { outcomes: { unknown: 2 } })
  const durations = new Array<number>(DURATION_BOUNDS_MS.length + 1).fill(0)
  for (const ms of [1, 2, 5000, 15_000]) {
    const bucket = DURATION_BOUNDS_MS.findIndex(bound => ms <= bound)
    durations[bucket === -1 ? DURATION_BOUNDS_MS.length : bucket]!++
  }
  t.strictSame((of('slow') as { durations: number[] }).durations, durations)
  t.match(of('slow'), { outcomes: { ok: 4 }, durationSumMs: 20_003 })
  t.strictSame(world.dispatcher.stats.map(({ name }) => name).sort(), ['(unknown)', 'bad', 'ok', 'slow'])
  world.peer.send({ command: 'ok', id: 1 })
  world.peer.send({ command: 'ok', id: 1 })
  world.peer.send({ command: 'ok', id: 7 })
  t.strictSame([world.dispatcher.duplicates, world.dispatcher.refusals], [1, { COMMAND_GAP: 1 }])
})

interface FakeCore extends PlatformCore {
  requests: CoreRequest[]
  answers: { resolve: (answer: CoreAnswer) => void, reject: (error: unknown) => void }[]
}

function createFakeCore (): FakeCore {
  const core: FakeCore = {
    requests: [],
    answers: [],
    execute: request => new Promise((resolve, reject) => {
      core.requests.push(request)
      core.answers.push({ resolve, reject })
    }),
    notify () {},
    async close () {}
  }
  return core
}

t.test('the core executes what no handler answers: messages in order, result, patch of the context', async t => {
  const core = createFakeCore()
  const world = createWorld({ core })
  world.peer.send({ command: 'core.it', id: 1, payload: { x: 1 } })
  t.match(core.requests, [{
    key: `${world.peer.welcome.sessionId}.life-one.1`,
    id: 1,
    command: 'core.it',
    payload: { x: 1 },
    timeoutMs: 30_000,
    idempotent: false,
    signal: AbortSignal,
    session: {
      id: world.peer.welcome.sessionId,
      userId: 'ann',
      createdAt: Number,
      lastActivityAt: Number,
      labels: {},
      context: {}
    }
  }])
  core.answers[0]?.resolve({
    payload: 'done',
    context: { a: 1, b: { c: null } },
    messages: [{ event: 'one', payload: 1 }, { event: 'two', payload: 2 }]
  })
  await world.settle()
  t.strictSame(
    world.peer.take().map(frame => [frame.seq, frame.event ?? frame.type, frame.payload]),
    [[1, 'one', 1], [2, 'two', 2], [3, 'result', 'done']]
  )
  t.strictSame(world.manager.peekSession(world.peer.welcome.sessionId)?.context, { a: 1, b: {} })
  world.peer.send({ command: 'ok', id: 2 })
  t.match(world.peer.take(), [{ payload: 'ok' }])
  t.equal(core.requests.length, 1, 'what is registered here is answered here')
})

// `idempotent` and the other options could be declared only with a handler, which the core's
// commands do not have.
t.test('a command declared without a handler is the core\'s, under the options declared', async t => {
  const core = createFakeCore()
  const world = createWorld({ core })
  const options = {
    payload: Type.Object({ n: Type.Integer() }), result: Type.String(), idempotent: true, timeoutMs: 500, serial: true
  }
  world.dispatcher.command('core.pay', options)
  world.dispatcher.commands({ 'core.look': defineCommand({ idempotent: false }) })
  world.peer.send({ command: 'core.pay', id: 1, payload: { n: 'one' } })
  t.match(world.peer.take(), [{ code: 'INVALID_PAYLOAD', id: 1 }])
  world.peer.send({ command: 'core.pay', id: 2, payload: { n: 1 } })
  world.peer.send({ command: 'core.look', id: 3 })
  t.match(core.requests, [{ command: 'core.pay', idempotent: true, timeoutMs: 500 }], 'serial: the next one waits')
  t.equal(core.requests.length, 1)
  core.answers[0]?.resolve({ payload: 7, messages: [] })
  await world.settle()
  t.match(world.peer.take(), [{ code: 'INVALID_RESULT', id: 2 }])
  t.match(core.requests[1], { command: 'core.look', idempotent: false, timeoutMs: 30_000 })
  t.match(world.dispatcher.stats.find(({ name }) => name === 'core.pay'), { outcomes: { error: 1, invalid: 1 } })
})

t.test('a command with neither a handler nor a core is refused when it is declared', async t => {
  t.throws(() => createWorld().dispatcher.command('core.pay', {}), { code: 'PLUGIN_MISUSED', message: /no handler/ })
})

t.test('an answer of the core with a message that no outbox can hold is RESULT_TOO_LARGE', async t => {
  const core = createFakeCore()
  const world = createWorld({ core })
  world.peer.send({ command: 'core.it', id: 1 })
  core.answers[0]?.resolve({ payload: 1, messages: [{ event: 'big', payload: 'x'.repeat(2_000_000) }] })
  await world.settle()
  t.match(world.peer.take(), [{ type: 'error', code: 'RESULT_TOO_LARGE', id: 1 }])
})

t.test('two answers of the core that patch different members lose nothing of each other', async t => {
  const core = createFakeCore()
  const world = createWorld({ core })
  world.peer.send({ command: 'a', id: 1 })
  world.peer.send({ command: 'b', id: 2 })
  core.answers[1]?.resolve({ payload: null, context: { b: 2 }, messages: [] })
  core.answers[0]?.resolve({ payload: null, context: { a: 1 }, messages: [] })
  await world.settle()
  t.strictSame(world.manager.peekSession(world.peer.welcome.sessionId)?.context, { a: 1, b: 2 })
})

t.test('P-19 what the core answers after the time is over has no effect at all', async t => {
  const core = createFakeCore()
  const world = createWorld({ core })
  world.peer.send({ command: 'late', id: 1 })
  world.clock.advance(30_001)
  world.dispatcher.sweep()
  world.turn()
  t.match(core.requests[0]?.signal.reason, { code: 'COMMAND_TIMEOUT' })
  core.answers[0]?.resolve({ payload: 1, context: { late: true }, messages: [{ event: 'late', payload: 1 }] })
  await world.settle()
  t.match(world.peer.take(), [{ seq: 1, code: 'COMMAND_TIMEOUT' }])
  t.match(world.manager.peekSession(world.peer.welcome.sessionId), { lastSeq: 1, context: {} })
  t.notOk('late' in (world.manager.peekSession(world.peer.welcome.sessionId)?.context ?? {}))
})

t.test('what the core answers after the session ended has no effect at all', async t => {
  const core = createFakeCore()
  const world = createWorld({ core })
  world.peer.send({ command: 'late', id: 1 })
  world.manager.terminateSession(world.peer.welcome.sessionId)
  core.answers[0]?.resolve({ payload: 1, context: { late: true }, messages: [{ event: 'late', payload: 1 }] })
  await world.settle()
  t.strictSame(world.peer.take().map(frame => frame.type), ['goodbye'])
  t.strictSame(world.log.lines, [])
})

t.test('P-15 errors of the core are answers: its own code, or the one of the domain', async t => {
  const core = createFakeCore()
  const world = createWorld({ core })
  for (let id = 1; id <= 4; id++) world.peer.send({ command: 'x', id })
  core.answers[0]?.reject(commandError('OUT_OF_STOCK', 'None left.'))
  core.answers[1]?.reject(new HoldfastError('CORE_UNAVAILABLE'))
  core.answers[2]?.resolve({ payload: null, context: { big: 'x'.repeat(70_000) }, messages: [] })
  core.answers[3]?.resolve({ payload: 1n as never, messages: [] })
  await world.settle()
  t.strictSame(world.peer.take().map(frame => frame.code).sort(), [
    'CONTEXT_TOO_LARGE', 'CORE_UNAVAILABLE', 'INVALID_RESULT', 'OUT_OF_STOCK'
  ])
  t.strictSame(world.manager.peekSession(world.peer.welcome.sessionId)?.context, {})
  t.match(world.dispatcher.stats.find(({ name }) => name === '(core)'), { outcomes: { error: 4 } })
})

t.test('every command has a key of its own, with or without a number, in every session', async t => {
  const core = createFakeCore()
  const world = createWorld({ core })
  const other = world.connect()
  for (const peer of [world.peer, other]) {
    for (const id of [1, 'u1', 'u1', undefined, undefined, 2]) peer.send({ command: 'x', id })
  }
  const keys = core.requests.map(request => request.key)
  t.equal(new Set(keys).size, 12)
  for (const key of keys) t.match(key, /^[\x21-\x7e]{1,256}$/)
  t.strictSame(core.requests.slice(0, 6).map(request => request.id), [1, 'u1', 'u1', null, null, 2])
})
