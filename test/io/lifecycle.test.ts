// The life of sessions as a whole: clients that connect, drop, resume, command, repeat, acknowledge
// and stall in random order, against a model that knows nothing of rings, wheels, sockets or turns.
// What each client sees must be what the model says, in order, once; and the counts must be those
// of the model.

import fc from 'fast-check'
import t from 'tap'
import { FUZZ_SEED } from '../helpers/fuzz-seed.js'
import { createDomain, type Domain, type Frame, type Peer } from '../helpers/domain.js'

const IDLE_MS = 10_000
const WINDOW_MS = 4000
const OUTBOX = 6
const MAX_IN_FLIGHT = 3

interface ModelSession {
  id: string
  outputs: { type: string, id?: number | undefined, payload: unknown }[]
  /** Highest seq acknowledged or dropped: what is not held any more. */
  gone: number
  dropped: number
  acked: number
  watermark: number
  running: number[]
  executed: Map<number, number>
  attachedTo: number
  lastActiveAt: number
  detachedAt: number
  token: string
  /** Still valid, beside the latest one. */
  previousTokens: string[]
  ended: string | undefined
}

interface Expected { replay: [number, number] | null, gap: [number, number] | null, lastCommand: number }

/** A client as it sees the world: only what was read from the socket. */
interface Client {
  session: ModelSession | undefined
  peer: Peer | undefined
  tokens: string[]
  seen: number
  read: number
  stalled: boolean
  /** Until live was seen: the last seq of the replay. */
  replayTo: number
  expected: Expected | undefined
  refusals: string[]
}

interface Model { clients: Client[], sessions: ModelSession[] }
interface Real { domain: Domain, finishers: Map<string, (value: unknown) => void>, executions: Map<string, number> }

function fail (what: string): never {
  throw new Error(what)
}

function held (session: ModelSession): number {
  return session.outputs.length - session.gone
}

function give (real: Real, session: ModelSession, type: string, id: number | undefined, payload: unknown): void {
  if (session.ended !== undefined) return
  if (held(session) >= OUTBOX) {
    session.gone++
    session.dropped++
  }
  session.outputs.push({ type, id, payload })
  session.lastActiveAt = real.domain.clock.now()
}

function acknowledge (session: ModelSession, seq: number): void {
  session.acked = Math.max(session.acked, seq)
  session.gone = Math.max(session.gone, seq)
}

function detach (real: Real, session: ModelSession): void {
  session.attachedTo = -1
  session.detachedAt = real.domain.clock.now()
}

function end (real: Real, session: ModelSession, reason: string): void {
  session.ended = reason
  session.running = []
  if (session.attachedTo !== -1) detach(real, session)
}

function createSession (real: Real, model: Model, id: string, token: string, attachedTo: number): ModelSession {
  const session: ModelSession = {
    id,
    outputs: [],
    gone: 0,
    dropped: 0,
    acked: 0,
    watermark: 0,
    running: [],
    executed: new Map(),
    attachedTo,
    lastActiveAt: real.domain.clock.now(),
    detachedAt: -1,
    token,
    previousTokens: [],
    ended: undefined
  }
  model.sessions.push(session)
  return session
}

/** The client reads what arrived, and holds it against the model. */
function read (client: Client): void {
  const { peer, session } = client
  if (peer === undefined || session === undefined || client.stalled) return
  for (const frame of peer.frames().slice(client.read)) {
    client.read++
    readFrame(client, session, frame)
  }
}

function readFrame (client: Client, session: ModelSession, frame: Frame): void {
  const { type, seq } = frame
  if (seq !== undefined) {
    const known = session.outputs[seq - 1] ?? fail(`output ${seq} was never given`)
    if (type !== known.type || frame.id !== known.id ||
        JSON.stringify(frame.payload) !== JSON.stringify(known.payload)) {
      fail(`output ${seq} is ${JSON.stringify(frame)} instead of ${JSON.stringify(known)}`)
    }
    if (seq > client.seen + 1) fail(`output ${seq} after ${client.seen}: a hole`)
    if (client.replayTo !== -1 && seq > client.replayTo) fail(`output ${seq} before live`)
    client.seen = Math.max(client.seen, seq)
  } else if (type === 'live') {
    if (client.seen < client.replayTo) fail(`live after ${client.seen} of ${client.replayTo}`)
    client.replayTo = -1
  } else if (type === 'error') {
    const refusal = client.refusals.shift()
    if (frame.code !== refusal) fail(`refused ${frame.code} instead of ${refusal}`)
  } else if (type === 'session_resumed') {
    const { replay, gap, lastCommand, resumeToken } = frame.payload as {
      replay: { from: number, to: number } | null
      gap: { from: number, to: number } | null
      lastCommand: number
      resumeToken: string
    }
    const found: Expected = {
      replay: replay === null ? null : [replay.from, replay.to],
      gap: gap === null ? null : [gap.from, gap.to],
      lastCommand
    }
    if (JSON.stringify(found) !== JSON.stringify(client.expected)) {
      fail(`resumed with ${JSON.stringify(found)} instead of ${JSON.stringify(client.expected)}`)
    }
    if (gap !== null) client.seen = gap.to
    client.tokens.push(resumeToken)
  } else if (type === 'session_created') {
    client.tokens.push((frame.payload as { resumeToken: string }).resumeToken)
  } else if (type !== 'goodbye') {
    fail(`unexpected ${type}`)
  }
}

/** Sockets that the server closed are closed; everything that can be counted is compared. */
function settleAndCompare (model: Model, real: Real, allowed: number[] = []): void {
  const { domain } = real
  domain.turn()
  for (const [slot, client] of model.clients.entries()) {
    const { peer, session } = client
    if (peer === undefined || session === undefined) continue
    const code = peer.transport.closed?.code
    if (code === undefined) {
      read(client)
      continue
    }
    if (code === 4101 ? !client.stalled : !allowed.includes(code)) fail(`closed with ${code}`)
    const last = peer.frames().at(-1)
    if (last?.type !== 'goodbye' || (last.payload as { code: number }).code !== code) fail('a close without goodbye')
    read(client)
    hangUp(client)
    peer.close()
    if (code === 4101 && session.attachedTo === slot) detach(real, session)
  }
  compare(model, real)
}

function hangUp (client: Client): void {
  client.peer = undefined
  client.stalled = false
  client.refusals = []
  client.replayTo = -1
}

function compare (model: Model, real: Real): void {
  const { manager, gateway, dispatcher } = real.domain
  const alive = model.sessions.filter(session => session.ended === undefined)
  let bytes = 0
  for (const session of alive) {
    const view = manager.peekSession(session.id) ?? fail(`${session.id} is gone`)
    const found = [view.state, view.lastSeq, view.outboxMessages, view.lastCommand, view.inFlight, view.dropped]
    const expected = [
      session.attachedTo === -1 ? 'detached' : 'active', session.outputs.length, held(session), session.watermark,
      session.running.length, session.dropped
    ]
    if (found.join() !== expected.join()) fail(`${session.id} is ${found.join()} instead of ${expected.join()}`)
    bytes += view.outboxBytes
  }
  for (const session of model.sessions) {
    if (session.ended !== undefined && manager.tombstoneOf(session.id)?.reason !== session.ended) {
      fail(`${session.id} ended as ${manager.tombstoneOf(session.id)?.reason} instead of ${session.ended}`)
    }
    for (const [id, count] of session.executed) {
      if (real.executions.get(`${session.id}.${id}`) !== count) {
        fail(`command ${id} of ${session.id} ran ${real.executions.get(`${session.id}.${id}`)} times`)
      }
    }
  }
  const active = alive.filter(session => session.attachedTo !== -1).length
  const counts = manager.countSessions()
  const expected = { active, detached: alive.length - active, total: alive.length, outboxBytes: bytes }
  if (JSON.stringify(counts) !== JSON.stringify(expected)) {
    fail(`counts ${JSON.stringify(counts)} instead of ${JSON.stringify(expected)}`)
  }
  if (gateway.connections !== model.clients.filter(client => client.peer !== undefined).length) {
    fail(`${gateway.connections} connections`)
  }
  if (dispatcher.inFlight !== alive.reduce((sum, session) => sum + session.running.length, 0)) {
    fail(`${dispatcher.inFlight} in flight`)
  }
}

type Step = fc.AsyncCommand<Model, Real>

function step (
  name: string, check: (model: Model) => boolean, run: (model: Model, real: Real) => void | Promise<void>
): Step {
  return { check, run: async (model, real) => { await run(model, real) }, toString: () => name }
}

const isConnected = (slot: number) => (model: Model): boolean => model.clients[slot]?.peer !== undefined

/** The first frame on a connection puts the token before it to rest. */
function say (client: Client, session: ModelSession, frame: object): void {
  session.previousTokens = []
  client.peer?.send(frame)
}

function connect (slot: number): Step {
  return step(`connect ${slot}`, model => model.clients[slot]?.peer === undefined, (model, real) => {
    const client = model.clients[slot] as Client
    const peer = real.domain.connect()
    startFresh(model, real, client, slot, peer)
    settleAndCompare(model, real)
  })
}

function startFresh (model: Model, real: Real, client: Client, slot: number, peer: Peer): void {
  const { sessionId, resumeToken } = peer.welcome
  hangUp(client)
  Object.assign(client, {
    session: createSession(real, model, sessionId, resumeToken, slot),
    peer,
    tokens: [],
    seen: 0,
    read: 0
  })
}

function drop (slot: number, code: number): Step {
  return step(`drop ${slot} ${code}`, isConnected(slot), (model, real) => {
    const client = model.clients[slot] as Client
    const session = client.session as ModelSession
    const { peer } = client
    hangUp(client)
    peer?.close(code)
    if (code === 1000) end(real, session, 'ended_by_client')
    else detach(real, session)
    settleAndCompare(model, real)
  })
}

function resume (slot: number, which: 'latest' | 'older' | 'wrong' | 'future', stalled: boolean): Step {
  return step(
    `resume ${slot} ${which}${stalled ? ' stalled' : ''}`,
    model => (model.clients[slot]?.tokens.length ?? 0) > 0,
    (model, real) => {
      const { domain } = real
      const client = model.clients[slot] as Client
      const session = client.session as ModelSession
      const token = which === 'wrong'
        ? 'wrong'
        : client.tokens.at(which === 'older' ? -2 : -1) ?? client.tokens[0] as string
      const lastSeq = which === 'future' ? session.outputs.length + 1 : client.seen
      const isHolder = token === session.token || session.previousTokens.includes(token)
      const older = client.peer
      const peer = domain.connect({ resume: { sessionId: session.id, token, lastSeq }, stalled, sameTurn: true })
      domain.turn()
      if (isHolder && session.ended === undefined && which !== 'future') {
        if (older !== undefined) {
          if (older.transport.closed?.code !== 4003) fail('not replaced')
          older.close()
        }
        hangUp(client)
        acknowledge(session, lastSeq)
        const { length } = session.outputs
        client.expected = {
          replay: session.gone < length ? [session.gone + 1, length] : null,
          gap: session.gone > lastSeq ? [lastSeq + 1, session.gone] : null,
          lastCommand: session.watermark
        }
        Object.assign(session, {
          attachedTo: slot,
          detachedAt: -1,
          // P-28c: who presents the latest token has read it, who presents another one may be late.
          previousTokens: token === session.token
            ? [token]
            : [token, session.token, ...session.previousTokens.filter(one => one !== token)].slice(0, 4),
          token: peer.welcome.resumeToken
        })
        Object.assign(client, { peer, read: 0, stalled, replayTo: length })
        settleAndCompare(model, real)
        return
      }
      if (isHolder && session.ended === undefined) end(real, session, 'state_lost')
      const { previous } = peer.welcome
      if (previous?.reason !== (isHolder ? session.ended : 'unknown')) fail(`refused as ${previous?.reason}`)
      if (isHolder && previous?.lastCommand !== session.watermark) fail('a wrong lastCommand')
      if (older !== undefined && older.transport.closed === undefined) {
        // The client finds that it is still connected, and ends the session it did not want.
        const { sessionId, resumeToken } = peer.welcome
        peer.close(1000)
        end(real, createSession(real, model, sessionId, resumeToken, -1), 'ended_by_client')
      } else {
        older?.close()
        startFresh(model, real, client, slot, peer)
        client.stalled = stalled
      }
      settleAndCompare(model, real)
    }
  )
}

function command (slot: number, name: 'now' | 'slow' | 'fail' | 'nothing'): Step {
  return step(`command ${slot} ${name}`, isConnected(slot), (model, real) => {
    const client = model.clients[slot] as Client
    const session = client.session as ModelSession
    const id = session.watermark + 1
    say(client, session, { command: name, id, payload: id })
    if (session.running.length >= MAX_IN_FLIGHT) {
      client.refusals.push('TOO_MANY_IN_FLIGHT')
    } else {
      session.watermark = id
      session.lastActiveAt = real.domain.clock.now()
      if (name !== 'nothing') session.executed.set(id, 1)
      if (name === 'slow') session.running.push(id)
      else if (name === 'now') give(real, session, 'result', id, id)
      else give(real, session, 'error', id, name === 'fail' ? 'It failed.' : 'No command is named "nothing".')
    }
    settleAndCompare(model, real)
  })
}

function finish (slot: number, pick: number): Step {
  return step(
    `finish ${slot} ${pick}`,
    model => (model.clients[slot]?.session?.running.length ?? 0) > 0,
    async (model, real) => {
      const session = model.clients[slot]?.session as ModelSession
      const [id] = session.running.splice(pick % session.running.length, 1) as [number]
      real.finishers.get(`${session.id}.${id}`)?.(`late ${id}`)
      give(real, session, 'result', id, `late ${id}`)
      await real.domain.settle()
      settleAndCompare(model, real)
    }
  )
}

function repeat (slot: number, pick: number): Step {
  return step(
    `repeat ${slot} ${pick}`,
    model => isConnected(slot)(model) && (model.clients[slot]?.session?.watermark ?? 0) > 0,
    (model, real) => {
      const client = model.clients[slot] as Client
      const session = client.session as ModelSession
      const id = pick % session.watermark + 1
      say(client, session, { command: 'now', id, payload: 'another body' })
      const seq = session.outputs.findIndex(output => output.id === id) + 1
      if (!session.running.includes(id) && seq <= session.gone) client.refusals.push('RESULT_EXPIRED')
      settleAndCompare(model, real)
    }
  )
}

function skip (slot: number): Step {
  return step(`skip ${slot}`, isConnected(slot), (model, real) => {
    const client = model.clients[slot] as Client
    const session = client.session as ModelSession
    say(client, session, { command: 'now', id: session.watermark + 2 })
    client.refusals.push('COMMAND_GAP')
    settleAndCompare(model, real)
  })
}

function ack (slot: number): Step {
  return step(`ack ${slot}`, isConnected(slot), (model, real) => {
    const client = model.clients[slot] as Client
    const session = client.session as ModelSession
    say(client, session, { type: 'ack', seq: client.seen })
    acknowledge(session, client.seen)
    settleAndCompare(model, real)
  })
}

function push (slot: number, count: number): Step {
  return step(`push ${slot} ${count}`, model => model.clients[slot]?.session !== undefined, (model, real) => {
    const session = model.clients[slot]?.session as ModelSession
    for (let n = 0; n < count; n++) {
      const payload = 'x'.repeat(n * 7 % 50)
      try {
        real.domain.manager.send({ sessionId: session.id }, 'push', payload)
      } catch (error) {
        if ((error as { code: string }).code !== 'SESSION_ENDED' || session.ended === undefined) throw error
      }
      give(real, session, 'message', undefined, payload)
    }
    settleAndCompare(model, real)
  })
}

function terminate (slot: number): Step {
  return step(`terminate ${slot}`, model => model.clients[slot]?.session !== undefined, (model, real) => {
    const session = model.clients[slot]?.session as ModelSession
    if (real.domain.manager.terminateSession(session.id) !== (session.ended === undefined)) fail('a wrong answer')
    if (session.ended === undefined) end(real, session, 'ended_by_operator')
    settleAndCompare(model, real, [4001])
  })
}

function advance (ms: number): Step {
  return step(`advance ${ms}`, () => true, (model, real) => {
    const { clock, manager } = real.domain
    clock.advance(ms)
    manager.purgeStaleSessions()
    for (const session of model.sessions) {
      if (session.ended !== undefined) continue
      if (clock.now() - session.lastActiveAt > IDLE_MS) end(real, session, 'idle')
      else if (session.attachedTo === -1 && clock.now() - session.detachedAt > WINDOW_MS) {
        end(real, session, 'resume_window')
      }
    }
    settleAndCompare(model, real, [4300])
  })
}

function stall (slot: number): Step {
  return step(`stall ${slot}`, isConnected(slot), (model, real) => {
    const client = model.clients[slot] as Client
    client.peer?.transport.stall()
    client.stalled = true
    settleAndCompare(model, real)
  })
}

function drain (slot: number): Step {
  return step(`drain ${slot}`, isConnected(slot), (model, real) => {
    const client = model.clients[slot] as Client
    client.stalled = false
    client.peer?.transport.unstall()
    settleAndCompare(model, real)
    if (client.session !== undefined && client.peer !== undefined && client.seen < client.session.outputs.length) {
      fail(`saw ${client.seen} of ${client.session.outputs.length}`)
    }
  })
}

function createReal (): Real {
  const domain = createDomain({
    session: { idleTimeoutMs: IDLE_MS, resumeWindowMs: WINDOW_MS, outboxMessages: OUTBOX },
    dispatcher: { maxInFlight: MAX_IN_FLIGHT, commandTimeoutMs: 3_600_000, commandsPerSecond: 100_000 },
    gateway: { maxBufferedBytes: 300 }
  })
  const real: Real = { domain, finishers: new Map(), executions: new Map() }
  const ran = (sessionId: string, id: unknown): string => {
    const key = `${sessionId}.${String(id)}`
    real.executions.set(key, (real.executions.get(key) ?? 0) + 1)
    return key
  }
  domain.dispatcher.command('now', {}, ({ session, id, payload }) => { ran(session.id, id); return payload })
  domain.dispatcher.command('slow', {}, ({ session, id }) => new Promise(resolve => {
    real.finishers.set(ran(session.id, id), resolve)
  }))
  domain.dispatcher.command('fail', {}, ({ session, id }) => {
    ran(session.id, id)
    throw Object.assign(new Error('It failed.'), { code: 'FAILED', expose: true })
  })
  return real
}

t.test('G1 G2 P-20 P-35 whatever happens, outputs are seen once and in order, and commands run once', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  const slot = fc.nat(2)
  const often = <T>(arbitrary: T): T[] => [arbitrary, arbitrary, arbitrary, arbitrary]
  // What ends sessions is rare, or none would live long enough to get into trouble.
  const steps = [
    slot.map(connect),
    ...often(fc.tuple(slot, fc.constantFrom(1006, 1006, 1006, 1006, 1001, 1001, 1001, 1000)).map(([n, code]) => drop(
      n, code
    ))),
    ...often(fc.tuple(
      slot,
      fc.constantFrom('latest' as const, 'latest' as const, 'latest' as const, 'latest' as const, 'older' as const),
      fc.boolean()
    ).map(([n, which, stalled]) => resume(n, which, stalled))),
    fc.tuple(slot, fc.constantFrom('wrong' as const, 'wrong' as const, 'future' as const), fc.boolean()).map(
      ([n, which, stalled]) => resume(n, which, stalled)
    ),
    ...often(fc.tuple(
      slot,
      fc.constantFrom(
        'now' as const, 'now' as const, 'slow' as const, 'slow' as const, 'fail' as const, 'nothing' as const
      )
    ).map(([n, name]) => command(n, name))),
    ...often(fc.tuple(slot, fc.constantFrom('now' as const, 'slow' as const)).map(([n, name]) => command(n, name))),
    ...often(fc.tuple(slot, fc.nat(9)).map(([n, pick]) => finish(n, pick))),
    ...often(fc.tuple(slot, fc.nat(99)).map(([n, pick]) => repeat(n, pick))),
    slot.map(skip),
    ...often(slot.map(ack)),
    ...often(fc.tuple(slot, fc.integer({ min: 1, max: 9 })).map(([n, count]) => push(n, count))),
    fc.oneof({ weight: 9, arbitrary: fc.nat(900).map(advance) }, { weight: 1, arbitrary: slot.map(terminate) }),
    fc.oneof({ weight: 19, arbitrary: fc.nat(900).map(advance) }, {
      weight: 1,
      arbitrary: fc.constantFrom(WINDOW_MS, WINDOW_MS + 1, IDLE_MS, IDLE_MS + 1).map(advance)
    }),
    ...often(slot.map(stall)),
    ...often(slot.map(drain))
  ]
  let ran = 0
  await fc.assert(fc.asyncProperty(fc.commands(steps, { maxCommands: 150, size: 'max' }), async plan => {
    const real = createReal()
    const model: Model = {
      sessions: [],
      clients: Array.from({ length: 3 }, () => ({
        session: undefined,
        peer: undefined,
        tokens: [],
        seen: 0,
        read: 0,
        stalled: false,
        replayTo: -1,
        expected: undefined,
        refusals: []
      }))
    }
    for (const n of model.clients.keys()) await connect(n).run(model, real)
    await fc.asyncModelRun(() => ({ model, real }), plan)
    ran += model.sessions.length
    for (const { id } of real.domain.manager.listSessions({ limit: 500 }).data) real.domain.manager.terminateSession(id)
    for (const client of model.clients) client.peer?.close()
    for (const resolve of real.finishers.values()) resolve('too late')
    await real.domain.settle()
    const { manager, gateway, dispatcher, log } = real.domain
    if (JSON.stringify(manager.countSessions()) !== '{"active":0,"detached":0,"total":0,"outboxBytes":0}') {
      fail(`left behind ${JSON.stringify(manager.countSessions())}`)
    }
    if (gateway.connections !== 0 || dispatcher.inFlight !== 0) fail('left behind a connection or a call')
    if (log.lines.some(line => line.level === 'error' || line.level === 'warn')) fail(JSON.stringify(log.lines))
    real.domain.clock.advance(1e7)
    if (manager.purgeStaleSessions() !== 0 || dispatcher.sweep() !== 0) fail('left behind in a wheel')
  }), {
    seed: FUZZ_SEED,
    numRuns: Number(process.env.FUZZ_RUNS ?? 500),
    endOnFailure: process.env.FUZZ_RUNS !== undefined
  })
  t.ok(ran > 300, `${ran} sessions lived`)
})
