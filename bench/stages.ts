// What each stage of a command's way costs, without sockets: `node dist/bench/stages.js`. Each
// stage runs alone, many times, in rounds; the quickest round counts, since others on the machine
// can only add. The whole way is measured too, so that what the stages leave out is seen.

import { randomUUID } from 'node:crypto'
import { admit } from '../src/io/dispatcher/admission.js'
import { BUILTIN_COMMANDS } from '../src/io/dispatcher/builtin.js'
import { createDispatcher } from '../src/io/dispatcher/dispatcher.js'
import { createGateway } from '../src/io/gateway/gateway.js'
import { outputFrame } from '../src/io/gateway/frame-writer.js'
import { readClientFrame, resultOutput } from '../src/io/protocol/codec.js'
import { createEntrance, type Entry } from '../src/io/session/entry.js'
import { createSessionManager } from '../src/io/session/manager.js'
import { createSessionRuntime } from '../src/io/session/runtime.js'
import { createMemoryStore } from '../src/stores/memory.js'
import { systemClock as clock } from '../src/system-clock.js'

const ROUNDS = 60
const RUNS = 20_000
const TEXT = 'The draft is fine as it stands; send it out to the customer today.'

const silent = { debug () {}, info () {}, warn () {}, error () {} }
const limits = { commandsPerSecond: 1_000_000, maxInFlight: 64, commandTimeoutMs: 30_000 }

function build () {
  const turn: (() => void)[] = []
  const defer = (callback: () => void): void => { turn.push(callback) }
  const sessions = createSessionRuntime({
    store: createMemoryStore(),
    clock,
    log: silent,
    createId: () => randomUUID(),
    generation: randomUUID(),
    defer,
    yieldTurn: setImmediate,
    limits: {
      idleTimeoutMs: 3_600_000,
      resumeWindowMs: 3_600_000,
      maxSessions: 1e6,
      maxSessionsPerUser: 1e6,
      outboxMessages: 1000,
      outboxBytes: 1 << 20,
      outboxTotalBytes: 1 << 28,
      maxContextBytes: 65_536
    }
  })
  const { send } = createSessionManager(sessions, setImmediate)
  const entrance = createEntrance(sessions)
  const dispatcher = createDispatcher({
    sessions: { ...sessions, send }, deliver: async (...given) => send(...given), clock, log: silent, limits, defer
  })
  dispatcher.commands(BUILTIN_COMMANDS)
  const gateway = createGateway({
    sessions,
    entrance,
    dispatcher,
    clock,
    log: silent,
    defer,
    yieldTurn: setImmediate,
    limits: { ...limits, maxMessageBytes: 65_536, maxBufferedBytes: 262_144, heartbeatMs: 25_000 }
  })
  const transport = {
    write: () => true,
    bufferedBytes: 0,
    takenBytes: 0,
    receivedBytes: 0,
    onceDrained () {},
    ping () {},
    close () {}
  }
  const connection = gateway.accept({ transport, entry: entrance.enter({ profile: 'full', userId: 'ada' }) as Entry })
  const endTurn = (): void => { for (const callback of turn.splice(0)) callback() }
  endTurn()
  const { session } = connection
  if (session === null) throw new Error('the connection has no session')
  return { sessions, gateway, connection, session, endTurn }
}

function commandText (id: number): string {
  return `{"id":${id},"command":"echo","payload":{"text":"${TEXT}","n":7},"ack":${id - 1}}`
}

/** ns per run of the quickest round. `prepare` makes the inputs of a round, unmeasured. */
function quickest<T> (prepare: () => T[], run: (input: T) => unknown): number {
  let best = Infinity
  for (let round = 0; round < ROUNDS; round++) {
    const inputs = prepare()
    const from = process.hrtime.bigint()
    for (const input of inputs) run(input)
    best = Math.min(best, Number(process.hrtime.bigint() - from) / inputs.length)
  }
  return best
}

const world = build()
const same = <T>(value: T): (() => T[]) => () => new Array<T>(RUNS).fill(value)
const bytes = Buffer.from(commandText(12_345))
const payload = { text: TEXT, n: 7 }
const output = resultOutput(12_345, payload)
let id = 0
const nextCommands = (): Buffer[] => Array.from({ length: RUNS }, () => Buffer.from(commandText(++id)))

const stages: [string, number][] = [
  ['floor: toString, JSON.parse', quickest(same(bytes), data => JSON.parse(data.toString()))],
  [
    'floor: JSON.stringify of the answer',
    quickest(same(payload), value => JSON.stringify({ type: 'result', id: 12_345, payload: value }))
  ],
  ['read the frame: parse, guard, check, depth', quickest(same(bytes), readClientFrame)],
  [
    'admission: rate, number, in flight',
    quickest(
      () => { world.session.log = null; return Array.from({ length: RUNS }, (_, n) => n + 1) },
      n => admit(world.session, n, clock.now(), limits)
    )
  ],
  ['two looks at the clock', quickest(same(0), () => clock.now() + clock.now())],
  ['print the answer, count its bytes', quickest(same(payload), value => resultOutput(12_345, value))],
  ['number, bound, hold, commit; ack of the one before', quickest(same(output), one => {
    world.sessions.delivery.append(world.session, one, 1)
    world.sessions.delivery.acknowledge(world.session, world.session.log?.lastSeq ?? 0)
  })],
  ['frame: header, seq and text', quickest(same(output), one => outputFrame(one, 12_345))]
]
const fresh = build()
const whole = quickest(nextCommands, data => {
  fresh.gateway.receive(fresh.connection, data, false)
  fresh.endTurn()
})
for (const [name, ns] of stages) console.log(`${Math.round(ns).toString().padStart(6)} ns  ${name}`)
console.log(`${Math.round(whole).toString().padStart(6)} ns  the whole way, from bytes to bytes`)
