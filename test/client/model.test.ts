// The client against a model of the server, over a network that loses, mutes and repeats:
// fast-check drives both, and afterwards everything has to add up. The model is written from
// docs/protocol.md and shares no code with the server. A failure prints the seed and the shortest
// run.

import { setImmediate } from 'node:timers/promises'
import t from 'tap'
import fc from 'fast-check'
import { connect, type Session } from '../../src/client/client.js'
import { FUZZ_SEED } from '../helpers/fuzz-seed.js'
import { createClock, createPage, Peer, SESSION, type Frame, type ManualClock } from './world.js'

const LIMITS = { maxMessageBytes: 65_536, commandsPerSecond: 10, maxInFlight: 4 }
const OUTBOX = 6

/** One connection: frames wait in both directions until the run delivers them. */
class Wire extends Peer {
  readonly toServer: Frame[] = []
  readonly toClient: Frame[] = []
  isMute = false
  owner: ModelSession | undefined
  wasHeard = false
  override send (data: string): void { if (!this.isMute) this.toServer.push(JSON.parse(data) as Frame) }
}

interface ModelSession {
  id: string
  token: string
  presented: string | undefined
  wire: Wire | undefined
  lastSeq: number
  watermark: number
  outbox: Array<{ seq: number, frame: Frame }>
  dropped: number
  running: Map<number, number>
  ended: string | undefined
}

// What a server, or a gateway in between, will never take, though the client cannot know it.
const isMalformed = (tag: number): boolean => tag % 6 === 4
const isLarge = (tag: number): boolean => tag % 9 === 7

/** Sections 4 to 7 of the protocol, as small as they can be written. */
function createModel (clock: ManualClock) {
  const sessions: ModelSession[] = []
  const executions: number[] = []
  const given = new Map<string, unknown>()
  const faults: string[] = []
  let refusals: string[] = []
  let count = 0
  /** Whether BAD_FRAME says of which command it speaks; a server of revision 1.0 does not. */
  let namesBadFrames = true
  let sentAt: number[] = []

  function emit (session: ModelSession, frame: Frame): void {
    const output = { seq: ++session.lastSeq, ...frame }
    given.set(`${session.id}/${output.seq}`, frame.payload)
    session.outbox.push({ seq: output.seq, frame: output })
    if (session.outbox.length > OUTBOX) session.dropped = session.outbox.shift()!.seq
    session.wire?.toClient.push(output)
  }

  function ack (session: ModelSession, seq: number): void {
    if (seq > session.lastSeq) faults.push(`ack ${seq} of ${session.lastSeq}`)
    session.outbox = session.outbox.filter(output => output.seq > seq)
  }

  function bye (session: ModelSession, code: number, reason: string, action: string): void {
    session.wire?.toClient.push({ type: 'goodbye', payload: { code, reason, action } })
    session.wire = undefined
  }

  function attach (session: ModelSession, wire: Wire, presented?: string): Frame {
    if (session.wire !== undefined) bye(session, 4003, 'replaced', 'stop')
    session.presented = presented
    session.token = `k${++count}`
    session.wire = wire
    wire.owner = session
    return { ...SESSION, sessionId: session.id, resumeToken: session.token, limits: LIMITS }
  }

  function accept (wire: Wire): void {
    const [id, token, lastSeq] = wire.resume?.split('.') ?? []
    const old = sessions.find(session => session.id === id && token !== undefined &&
      [session.token, session.presented].includes(token))
    if (old !== undefined && old.ended === undefined) {
      const from = Number(lastSeq) + 1
      const payload = attach(old, wire, token)
      ack(old, from - 1)
      const gap = old.dropped >= from ? { from, to: old.dropped } : null
      const replay = old.outbox.map(output => output.frame)
      wire.toClient.push(
        {
          type: 'session_resumed',
          payload: {
            ...payload,
            lastCommand: old.watermark,
            gap,
            replay: replay.length > 0 ? { from: old.outbox[0]!.seq, to: old.lastSeq } : null
          }
        },
        ...replay,
        { type: 'live' }
      )
      return
    }
    const session: ModelSession = {
      id: `s${++count}`,
      token: '',
      presented: undefined,
      wire: undefined,
      lastSeq: 0,
      watermark: 0,
      outbox: [],
      dropped: 0,
      running: new Map(),
      ended: undefined
    }
    sessions.push(session)
    const previous = wire.resume === undefined
      ? {}
      : { previous: { sessionId: id, reason: old?.ended ?? 'unknown', ...(old && { lastCommand: old.watermark }) } }
    wire.toClient.push({ type: 'session_created', payload: { ...attach(session, wire), ...previous } })
  }

  function command (session: ModelSession, wire: Wire, id: number, tag: number): void {
    const answer = (code: string, members: Frame = {}): void => {
      wire.toClient.push({ type: 'error', id, code, payload: code, ...members })
    }
    const code = refusals.shift()
    if (code !== undefined) return answer(code, code === 'DRAINING' ? {} : { retryAfterMs: 40 })
    if (id > session.watermark + 1) return answer('COMMAND_GAP', { expected: session.watermark + 1 })
    if (id <= session.watermark) {
      const held = session.outbox.find(output => output.frame.id === id)
      if (held !== undefined) wire.toClient.push(held.frame)
      else if (!session.running.has(id)) answer('RESULT_EXPIRED')
      return
    }
    sentAt = [...sentAt.filter(at => at > clock.now() - 1_000), clock.now()]
    if (sentAt.length > LIMITS.commandsPerSecond * 2) faults.push('too many per second')
    if (session.running.size >= LIMITS.maxInFlight) faults.push('too many in flight')
    session.watermark = id
    session.running.set(id, tag)
    executions.push(tag)
  }

  function receive (wire: Wire, frame: Frame): void {
    const session = wire.owner
    if (session === undefined || session.wire !== wire) return
    if (!wire.wasHeard) session.presented = undefined
    wire.wasHeard = true
    const [tag] = (frame.payload ?? [0]) as [number]
    if ('command' in frame && isMalformed(tag)) {
      wire.toClient.push({ type: 'error', code: 'BAD_FRAME', payload: 'bad', ...(namesBadFrames && { id: frame.id }) })
      return
    }
    if ('command' in frame && isLarge(tag)) {
      session.wire = undefined
      wire.isMute = true
      if (wire.closedWith === undefined) wire.drop(1009)
      return
    }
    const seq = frame.type === 'ack' ? frame.seq : frame.ack
    if (seq !== undefined) ack(session, seq as number)
    if ('command' in frame) command(session, wire, frame.id as number, tag)
  }

  return {
    sessions,
    executions,
    given,
    faults,
    accept,
    receive,
    emit,
    bye,
    refuse (codes: string[]): void { refusals = codes },
    name (): void { namesBadFrames = !namesBadFrames },
    finish (pick: number): void {
      const all = sessions.flatMap(session => [...session.running].map(([id, tag]) => ({ session, id, tag })))
      const chosen = all[pick % all.length]
      if (chosen === undefined) return
      const { session, id, tag } = chosen
      session.running.delete(id)
      if (session.ended !== undefined) return
      emit(
        session,
        tag % 5 === 0
          ? { type: 'error', id, code: 'FAILED', payload: 'failed' }
          : { type: 'result', id, payload: `ok ${tag}` }
      )
    }
  }
}

type Op =
  | { op: 'send' | 'push' | 'cut' | 'mute' | 'drain' | 'idle' | 'forget' | 'detach' | 'connect' | 'reload' | 'name' }
  | { op: 'finish' | 'abort' | 'repeat' | 'server' | 'client' | 'time', n: number }
  | { op: 'refuse', codes: string[] }

const plain = (...ops: Array<Op['op']>): fc.Arbitrary<Op> => fc.constantFrom(...ops).map(op => ({ op }) as Op)
const numbered = (max: number, ...ops: Array<Op['op']>): fc.Arbitrary<Op> => fc.tuple(
  fc.constantFrom(...ops), fc.nat(max)
).map(([op, n]) => ({ op, n }) as Op)
const anyOp: fc.Arbitrary<Op> = fc.oneof(
  { weight: 8, arbitrary: plain('send') },
  { weight: 6, arbitrary: plain('push') },
  { weight: 16, arbitrary: numbered(6, 'server', 'client') },
  { weight: 6, arbitrary: numbered(20, 'finish') },
  { weight: 3, arbitrary: numbered(20, 'abort', 'repeat') },
  { weight: 6, arbitrary: numbered(3_000, 'time') },
  { weight: 1, arbitrary: numbered(90_000, 'time') },
  { weight: 5, arbitrary: plain('cut', 'mute', 'drain') },
  { weight: 2, arbitrary: plain('idle', 'forget', 'detach', 'connect', 'reload', 'name') },
  {
    weight: 2,
    arbitrary: fc.array(
      fc.constantFrom('RATE_LIMITED', 'TOO_MANY_IN_FLIGHT', 'STORE_UNAVAILABLE', 'DRAINING'), { maxLength: 3 }
    ).map(codes => ({ op: 'refuse' as const, codes }))
  }
)

interface Sent { tag: number, outcome: string, abort: AbortController, page: number }

/**
 * One run: performs the operations, lets everything come to rest, and says what does not add up.
 */
async function run (ops: Op[]): Promise<string[]> {
  const clock = createClock()
  const model = createModel(clock)
  const storage = new Map<string, string>()
  const sent: Sent[] = []
  const heard: Array<{ key: string, seq: number, payload: unknown }> = []
  const gaps: string[] = []
  const orphans: number[] = []
  const problems: string[] = []
  let losses = 0
  let forgotten = 0
  let pages = 0
  let wires = 0
  let kill = (): void => {}
  let wire: Wire | undefined
  let session: Session

  /** A page with the storage of the one before it; nothing of that one stirs any more. */
  function load (): void {
    kill()
    let isAlive = true
    const own = new Set<unknown>()
    const page = createPage(storage)
    pages++
    session = connect('ws://test/ws', {
      now: clock.now,
      random: clock.random,
      clearTimeout: clock.clearTimeout,
      setTimeout (work, ms) {
        const timer = isAlive && clock.setTimeout(work, ms)
        own.add(timer)
        return timer
      },
      page,
      WebSocket: class extends Wire {
        constructor (url: string, protocols: string[]) {
          super(url, protocols)
          if (!isAlive) return
          wire = this
          wires++
          model.accept(this)
        }
      }
    })
    const mine = session
    mine.on('message', ({ seq, payload }) => heard.push({ key: `${mine.sessionId}/${seq}`, seq, payload }))
    mine.on('gap', ({ from, to }) => { for (let seq = from; seq <= to; seq++) gaps.push(`${mine.sessionId}/${seq}`) })
    mine.on('orphanResult', ({ id, command }) => {
      orphans.push(id)
      if (command === undefined) problems.push(`orphan ${id} has no name`)
    })
    mine.on('error', ({ code, cause }) => { if (code !== 'BAD_FRAME') problems.push(`error ${code} ${cause}`) })
    kill = () => {
      page.fire('pagehide')
      isAlive = false
      own.forEach(clock.clearTimeout)
      wire = undefined
      for (const kept of model.sessions) kept.wire = undefined
    }
  }

  function cut (): void {
    const lost = wire
    if (lost === undefined) return
    if (lost.owner?.wire === lost) lost.owner.wire = undefined
    if (!lost.isMute && lost.closedWith === undefined) lost.drop()
    wire = undefined
  }

  function deliver (limit: number): boolean {
    let didWork = false
    for (let n = 0; n < limit; n++) {
      const target = wire
      if (target === undefined || target.isMute || target.closedWith !== undefined) break
      const frame = target.toClient.shift()
      if (frame === undefined) break
      didWork = true
      target.say(frame)
    }
    return didWork
  }

  function serve (limit: number): boolean {
    let didWork = false
    for (let n = 0; n < limit; n++) {
      const source = wire
      const frame = source?.toServer.shift()
      if (source === undefined || frame === undefined) break
      didWork = true
      model.receive(source, frame)
    }
    return didWork
  }

  function end (reason: string): void {
    const current = model.sessions.at(-1)
    if (current === undefined || current.ended !== undefined) return
    losses++
    current.ended = reason
    model.bye(current, 4300, reason, 'new')
  }

  function send (): void {
    const entry: Sent = { tag: sent.length + 1, outcome: 'pending', abort: new AbortController(), page: pages }
    sent.push(entry)
    session.send('work', isLarge(entry.tag) ? [entry.tag, 'a long text'] : [entry.tag], { signal: entry.abort.signal })
      .then(
        payload => { entry.outcome = String(payload) },
        (error: { code: string }) => { entry.outcome = error.code }
      )
  }

  const perform: Record<Op['op'], (op: never) => unknown> = {
    send,
    push: () => {
      const current = model.sessions.at(-1)
      if (current && !current.ended) {
        model.emit(current, { type: 'message', event: 'note', payload: `m${model.given.size}` })
      }
    },
    finish: ({ n }: { n: number }) => model.finish(n),
    abort: ({ n }: { n: number }) => sent.at(-1 - n)?.abort.abort(),
    repeat: ({ n }: { n: number }) => {
      const current = model.sessions.at(-1)
      const held = current?.outbox[n]
      if (held && current.wire && current.wire.wasHeard &&
          !current.wire.toClient.some(frame => frame.seq === held.seq || frame.type === 'live')) {
        current.wire.toClient.push(held.frame)
      }
    },
    server: ({ n }: { n: number }) => serve(n),
    client: ({ n }: { n: number }) => deliver(n),
    time: ({ n }: { n: number }) => clock.advance(n),
    cut,
    mute: () => { if (wire !== undefined) Object.assign(wire, { isMute: true }) },
    drain: () => {
      const current = wire?.owner
      if (current !== undefined && current.wire === wire) model.bye(current, 4200, 'draining', 'resume')
    },
    idle: () => end('idle'),
    forget: () => {
      losses++
      forgotten++
      cut()
      model.sessions.forEach(kept => { kept.ended = 'unknown'; kept.token = kept.presented = 'gone' })
    },
    detach: () => session.detach(),
    connect: () => session.connect(),
    reload: load,
    name: () => model.name(),
    refuse: ({ codes }: { codes: string[] }) => model.refuse(codes)
  }

  load()
  await setImmediate()
  for (const op of ops) {
    await perform[op.op](op as never)
    await setImmediate()
  }

  model.refuse([])
  session!.connect()
  for (let round = 0; round < 400; round++) {
    model.finish(0)
    const worked = [serve(99), deliver(99)].includes(true)
    await setImmediate()
    if (worked) continue
    if (session!.state === 'live' && wire?.isMute === false &&
        sent.every(({ outcome, page }) => outcome !== 'pending' || page !== pages) &&
        model.sessions.every(({ running }) => running.size === 0)) {
      break
    }
    // A live connection stays live, so that nothing is mended by a resume that should not have
    // needed one.
    wire?.toClient.push({ type: 'ping' })
    deliver(99)
    await clock.step()
  }

  const state = session!.state
  const last = model.sessions.at(-1)!
  for (let count = 0; count < 3; count++) perform.push(undefined as never)
  deliver(99)
  session!.close()
  // A connection that was left during its handshake is waited for, to end the session there.
  await clock.advance(10_000)
  const timers = clock.pending()
  kill()
  problems.push(...model.faults)
  if (state !== 'live') problems.push(`rests ${state}`)
  const executed = new Set(model.executions)
  if (executed.size !== model.executions.length) problems.push(`executed twice: ${model.executions}`)
  if (model.executions.some((tag, at) => tag < (model.executions[at - 1] ?? 0))) {
    problems.push(`executed out of order: ${model.executions}`)
  }
  for (const { tag, outcome, abort, page } of sent) {
    const expected = tag % 5 === 0 ? 'FAILED' : `ok ${tag}`
    const isRight = outcome === expected
      ? executed.has(tag)
      : outcome === 'OUTCOME_UNKNOWN'
        ? losses > 0 && (executed.has(tag) || forgotten > 0)
        : outcome === 'RESULT_EXPIRED'
          ? executed.has(tag) && gaps.length > 0
          : outcome === 'BAD_FRAME'
            ? isMalformed(tag)
            : outcome === 'MESSAGE_TOO_LARGE'
              ? isLarge(tag) && !isMalformed(tag)
              : outcome === 'UNDELIVERABLE'
                ? wires > 3 && !executed.has(tag)
                : outcome === 'ABORTED' ? abort.signal.aborted : outcome === 'pending' && page !== pages
    if (!isRight) problems.push(`${tag} ended ${outcome}, ${executed.has(tag) ? '' : 'not '}executed`)
  }
  const seqs = new Map<string, number>()
  for (const { key, seq, payload } of heard) {
    const [id = ''] = key.split('/')
    if (model.given.get(key) !== payload) {
      problems.push(`${key} is ${String(payload)}, not ${String(model.given.get(key))}`)
    }
    if (seq <= (seqs.get(id) ?? 0)) problems.push(`${key} out of order or twice`)
    seqs.set(id, seq)
  }
  const had = new Set([...heard.map(({ key }) => key), ...gaps])
  for (const [key, payload] of model.given) {
    if (key.startsWith(`${last.id}/`) && String(payload).startsWith('m') && !had.has(key)) {
      problems.push(`${key} never came`)
    }
  }
  if (timers.length > 0) problems.push(`timers left: ${timers}`)
  return problems
}

t.test('every command runs once, every promise settles right, every output comes once and in order', async t => {
  const runs = Number(process.env.MODEL_RUNS ?? 150)
  await fc.assert(fc.asyncProperty(fc.array(anyOp, { minLength: 5, maxLength: 80, size: 'max' }), async ops => {
    const problems = await run(ops)
    if (problems.length > 0) throw new Error(problems.join('\n'))
  }), {
    numRuns: runs,
    interruptAfterTimeLimit: 40_000,
    markInterruptAsFailure: true,
    seed: FUZZ_SEED
  })
  t.pass(`${runs} runs`)
})
