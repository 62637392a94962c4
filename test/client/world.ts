// A runtime of its own for the client: a clock that moves only when told, sockets whose far end is
// the test, and a page with storage and locks.

import { setImmediate } from 'node:timers/promises'
import {
  connect, type ConnectOptions, type Page, type Session, type SessionEvents, type SocketLike
} from '../../src/client/client.js'

export type Frame = Record<string, unknown>

interface Timer { at: number, run: () => void }

export interface ManualClock {
  readonly now: () => number
  /** The same, unless `sleep` has moved it. */
  readonly wall: () => number
  /** The machine stands still: no timer runs, and only the clock on the wall goes on. */
  sleep (ms: number): void
  readonly setTimeout: (run: () => void, ms: number) => unknown
  readonly clearTimeout: (handle: unknown) => void
  readonly random: () => number
  /** Delays of the timers that are armed, shortest first. */
  pending (): number[]
  /** Moves time on and runs what falls due, in order; returns when nothing is left to do. */
  advance (ms: number): Promise<void>
  /** Moves to the next timer; false if there is none. */
  step (): Promise<boolean>
}

export function createClock (random: () => number = () => 0.5): ManualClock {
  let time = 1_000
  let slept = 0
  const timers = new Set<Timer>()
  const due = (until: number): Timer | undefined =>
    [...timers].filter(timer => timer.at <= until).sort((a, b) => a.at - b.at)[0]
  async function runUntil (until: number): Promise<void> {
    await setImmediate()
    for (let timer = due(until); timer !== undefined; timer = due(until)) {
      timers.delete(timer)
      time = Math.max(time, timer.at)
      timer.run()
      await setImmediate()
    }
    time = until
  }
  return {
    now: () => time,
    wall: () => time + slept,
    sleep: ms => { slept += ms },
    setTimeout (run, ms) {
      const timer = { at: time + ms, run }
      timers.add(timer)
      return timer
    },
    clearTimeout: handle => { timers.delete(handle as Timer) },
    random,
    pending: () => [...timers].map(timer => timer.at - time).sort((a, b) => a - b),
    advance: ms => runUntil(time + ms),
    async step () {
      const next = due(Infinity)
      if (next !== undefined) await runUntil(Math.max(time, next.at))
      return next !== undefined
    }
  }
}

/** The far end of a socket of the client. */
export class Peer implements SocketLike {
  onmessage: unknown = null
  onclose: unknown = null
  onerror: unknown = null
  readonly url: string
  readonly protocols: string[]
  readonly sent: Frame[] = []
  /** Code with which the client closed; undefined while it has not. */
  closedWith: number | undefined
  terminated = false
  /** What a runtime shows of bytes: those that wait to be sent, and those that were read (`ws`). */
  bufferedAmount = 0
  _socket: { bytesRead: number } | null = null

  constructor (url: string, protocols: string[]) {
    this.url = url
    this.protocols = protocols
  }

  send (data: string): void { this.sent.push(JSON.parse(data) as Frame) }
  close (code?: number): void { this.closedWith ??= code ?? 1005 }

  say (...frames: Array<Frame | string>): void {
    for (const frame of frames) {
      (this.onmessage as (event: object) => void)({ data: typeof frame === 'string' ? frame : JSON.stringify(frame) })
    }
  }

  created (members: Frame = {}): void {
    this.say({ type: 'session_created', payload: { ...SESSION, ...members } })
  }

  /** Resumes and goes live; `outputs` are the replay. */
  resumed (members: Frame = {}, outputs: Frame[] = []): void {
    const payload = { ...SESSION, resumeToken: `t${++issued}`, lastCommand: 0, replay: null, gap: null, ...members }
    this.say({ type: 'session_resumed', payload }, ...outputs, { type: 'live' })
  }

  fail (message: string): void { (this.onerror as (event: object) => void)({ message }) }
  drop (code = 1006, reason = ''): void { (this.onclose as (event: object) => void)({ code, reason }) }

  /** The resume entry of the handshake, without its prefix. */
  get resume (): string | undefined {
    return this.protocols.find(entry => entry.startsWith('resume.'))?.slice('resume.'.length)
  }

  /** Ids of the commands the client sent, in order. */
  get ids (): unknown[] {
    return this.sent.filter(frame => 'command' in frame).map(frame => frame.id)
  }

  get acks (): unknown[] {
    return this.sent.filter(frame => frame.type === 'ack').map(frame => frame.seq)
  }
}

let issued = 1
export const SESSION = {
  sessionId: 's1',
  userId: 'ann',
  protocol: 'holdfast.v1',
  resumeToken: 't1',
  resumeWindowMs: 3_600_000,
  idleTimeoutMs: 3_600_000,
  heartbeatMs: 25_000,
  limits: { maxMessageBytes: 1_000, commandsPerSecond: 50, maxInFlight: 16 }
}

export interface World {
  readonly clock: ManualClock
  readonly peers: Peer[]
  readonly session: Session
  /** Everything `session.on` told, in order, without `state`. */
  readonly heard: Array<[keyof SessionEvents, unknown]>
  /** Payloads of the events of one type. */
  events<K extends keyof SessionEvents> (type: K): Array<SessionEvents[K]>
  /** The latest socket, once the client has opened it. */
  peer (): Promise<Peer>
}

const EVENTS = [
  'connecting', 'live', 'detached', 'resumed', 'gap', 'replaced', 'ended', 'userChanged', 'error', 'orphanResult',
  'message'
] as const

/** A client in a world of its own; closed when the test ends. */
export function createWorld (
  t: { teardown (run: () => void): unknown }, options: ConnectOptions = {}, clock = createClock()
): World {
  const peers: Peer[] = []
  const heard: World['heard'] = []
  const WebSocket = class extends Peer {
    constructor (url: string, protocols: string[]) {
      super(url, protocols)
      peers.push(this)
    }
  }
  const session = connect('ws://test/ws', {
    now: clock.now,
    wall: clock.wall,
    setTimeout: clock.setTimeout,
    clearTimeout: clock.clearTimeout,
    random: clock.random,
    WebSocket,
    page: {},
    ...options
  })
  for (const type of EVENTS) session.on(type, event => { heard.push([type, event]) })
  t.teardown(() => session.close())
  return {
    clock,
    peers,
    session,
    heard,
    events: type => heard.filter(entry => entry[0] === type).map(entry => entry[1] as never),
    async peer () {
      await clock.advance(0)
      return peers.at(-1)!
    }
  }
}

/** A client with a live session. */
export async function createLiveWorld (
  t: { teardown (run: () => void): unknown }, options: ConnectOptions = {}, members: Frame = {}
): Promise<World & { first: Peer }> {
  const world = createWorld(t, options)
  const first = await world.peer()
  first.created(members)
  return { ...world, first }
}

/** A browser's page: `fire` dispatches its events, and `state` is what they are about. */
export function createPage (
  storage = new Map<string, string>(), held = new Set<string>()
): Page & {
  state: { onLine: boolean, visible: string }
  fire (type: string, event?: { persisted?: boolean }): void
  listeners (): number
} {
  type Listener = (event: { persisted?: boolean }) => void
  const listeners = new Map<string, Set<Listener>>()
  const state = { onLine: true, visible: 'visible' }
  const listenable = {
    addEventListener: (type: string, run: Listener) => {
      listeners.set(type, (listeners.get(type) ?? new Set()).add(run))
    },
    removeEventListener: (type: string, run: Listener) => { listeners.get(type)?.delete(run) }
  }
  return {
    ...listenable,
    state,
    fire: (type, event = {}) => { for (const run of [...listeners.get(type) ?? []]) run(event) },
    listeners: () => [...listeners.values()].reduce((sum, set) => sum + set.size, 0),
    document: { ...listenable, get visibilityState () { return state.visible } },
    navigator: {
      get onLine () { return state.onLine },
      locks: {
        async request (name, _options, granted) {
          if (held.has(name)) return granted(null)
          held.add(name)
          await granted({})
          held.delete(name)
        }
      }
    },
    sessionStorage: {
      getItem: key => storage.get(key) ?? null,
      setItem: (key, value) => { storage.set(key, value) },
      removeItem: key => { storage.delete(key) }
    }
  }
}

/** How a promise ended: its value, or the code of its error; 'pending' if it has not. */
export async function outcome (promise: Promise<unknown>): Promise<unknown> {
  return Promise.race([
    promise.catch((error: { code: string }) => error.code),
    setImmediate('pending')
  ])
}
