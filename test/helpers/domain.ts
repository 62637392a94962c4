// The domain without sockets: manager, dispatcher and gateway over transports that record what they
// are given. The end of a turn (`defer`) and the slices after it (`yieldTurn`) are queues which the
// test runs, so that every order of events can be produced on purpose.

import { createDispatcher, type Dispatcher, type DispatcherLimits } from '../../src/io/dispatcher/dispatcher.js'
import type { Before, EventMap } from '../../src/io/dispatcher/command.js'
import type { PlatformCore } from '../../src/io/dispatcher/core.js'
import type { Connection } from '../../src/io/gateway/connection.js'
import { createGateway, type AcceptRequest, type Gateway, type GatewayLimits } from '../../src/io/gateway/gateway.js'
import type { Transport } from '../../src/io/gateway/transport.js'
import { createEntrance, type Entrance, type Entry, type EntryRequest } from '../../src/io/session/entry.js'
import { createClaims } from '../../src/io/session/claim.js'
import { createSessionManager, type SessionManager } from '../../src/io/session/manager.js'
import { createRecord, type SessionRecord } from '../../src/io/session/record.js'
import { createSessionRuntime, type SessionLimits, type SessionRuntime } from '../../src/io/session/runtime.js'
import { isShared } from '../../src/io/session/shared-store.js'
import type { SessionStore } from '../../src/io/session/store.js'
import { isPromise } from '../../src/io/maybe-promise.js'
import { toBytes } from '../../src/io/protocol/codec.js'
import type { ByteString, LifecycleEvent, Output } from '../../src/io/types.js'
import { createMemoryStore } from '../../src/stores/memory.js'
import { createManualClock, START_WALL, type ManualClock } from './clock.js'
import type { Frame } from './frame.js'
import { createRecordingLog, type RecordingLog } from './log.js'

export type { Frame }

/** Payload of session_created and session_resumed. */
export interface Welcome {
  sessionId: string
  userId: string
  protocol: string
  resumeToken: string
  resumeWindowMs: number
  idleTimeoutMs: number
  heartbeatMs: number
  revision: string
  limits: { maxMessageBytes: number, commandsPerSecond: number, maxInFlight: number, maxOutputBytes: number }
  previous?: { sessionId: string, reason: string, lastCommand?: number }
  lastCommand?: number
  replay?: { from: number, to: number } | null
  gap?: { from: number, to: number } | null
}

/**
 * Unmasked text messages, in fragments or whole, and empty pings, as RFC 6455 section 5 has them;
 * throws for anything else.
 */
export function decodeFrames (bytes: Buffer): string[] {
  const texts: string[] = []
  let fragments: Buffer[] = []
  for (let at = 0; at < bytes.length;) {
    const first = bytes[at] as number
    if (first === 0x89 && bytes[at + 1] === 0) {
      at += 2
      continue
    }
    const opcodes = fragments.length === 0 ? [0x81, 0x01] : [0x80, 0x00]
    if (!opcodes.includes(first)) throw new Error(`byte ${at} starts no text frame`)
    const short = bytes[at + 1] as number
    if (short > 127) throw new Error(`the frame at byte ${at} is masked`)
    let length = short
    let start = at + 2
    if (short === 126) {
      length = bytes.readUInt16BE(start)
      start += 2
      if (length < 126) throw new Error('a length of 16 bits where 7 are enough')
    } else if (short === 127) {
      length = Number(bytes.readBigUInt64BE(start))
      start += 8
      if (length < 65_536) throw new Error('a length of 64 bits where 16 are enough')
    }
    if (start + length > bytes.length) throw new Error('the last frame is cut')
    fragments.push(bytes.subarray(start, start + length))
    if (first >= 0x80) {
      texts.push(new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(fragments)))
      fragments = []
    }
    at = start + length
  }
  if (fragments.length > 0) throw new Error('the last message is cut')
  return texts
}

export class FakeTransport implements Transport {
  readonly writes: Buffer[] = []
  bufferedBytes = 0
  /** Bytes that have arrived; a test sets it for what is not a whole message yet. */
  receivedBytes = 0
  #writtenBytes = 0
  /** Highest `bufferedBytes` so far. */
  mostBuffered = 0
  pings = 0
  stalled = false
  closed: { code: number, reason: string } | undefined
  #waiting: (() => void)[] = []

  write (frames: ByteString): boolean {
    if (this.closed !== undefined) throw new Error('a write after close')
    this.writes.push(Buffer.from(frames, 'latin1'))
    this.#writtenBytes += frames.length
    if (this.stalled) this.bufferedBytes += frames.length
    this.mostBuffered = Math.max(this.mostBuffered, this.bufferedBytes)
    return this.bufferedBytes === 0
  }

  get takenBytes (): number { return this.#writtenBytes - this.bufferedBytes }
  onceDrained (callback: () => void): void { this.#waiting.push(callback) }
  ping (): void { this.pings++ }
  close (code: number, reason: string): void {
    if (this.closed !== undefined) throw new Error('a second close')
    this.closed = { code, reason }
  }

  /** The peer does not read any more. */
  stall (): void { this.stalled = true }

  /** The kernel took everything; the socket stays stalled if it was. */
  drain (): void {
    this.bufferedBytes = 0
    const callbacks = this.#waiting
    this.#waiting = []
    for (const callback of callbacks) callback()
  }

  unstall (): void {
    this.stalled = false
    this.drain()
  }
}

/** The far end of a connection. */
export interface Peer {
  readonly transport: FakeTransport
  readonly connection: Connection
  /** Every frame so far. */
  frames(): Frame[]
  /** The frames since the last call; ends the turn first. */
  take(): Frame[]
  /** The same, of one type or more. */
  takeOnly(...types: string[]): Frame[]
  readonly welcome: Welcome
  /** A frame arrives; text stays as it is. */
  send(frame: object | string): void
  sendBinary(bytes: Buffer): void
  /** The socket closed: with the server's own code if it closed first. */
  close(code?: number): void
}

export interface DomainOptions {
  session?: Partial<SessionLimits>
  dispatcher?: Partial<DispatcherLimits>
  gateway?: Partial<GatewayLimits>
  store?: SessionStore
  clock?: ManualClock
  core?: PlatformCore
  before?: Before
  events?: EventMap
  unlimitedUserId?: string
  createId?: () => string
}

export interface ConnectOptions extends Partial<Omit<AcceptRequest, 'transport' | 'entry'>>, Partial<EntryRequest> {
  stalled?: boolean
  /** The turn is not ended after the connect: what follows happens before the first write. */
  sameTurn?: boolean
}

export interface Domain {
  readonly clock: ManualClock
  readonly log: RecordingLog
  readonly store: SessionStore
  readonly sessions: SessionRuntime
  readonly entrance: Entrance
  readonly manager: SessionManager
  readonly dispatcher: Dispatcher
  readonly gateway: Gateway
  /** What a subscriber heard by now; ends the turn first. */
  readonly events: LifecycleEvent[]
  connect(options?: ConnectOptions): Peer
  /** The same with a store that takes time: resolves when the handshake has its session. */
  connectLate(options?: ConnectOptions): Promise<Peer>
  /** Resumes as the holder of the welcome would. */
  resume(welcome: Welcome, lastSeq: number, options?: ConnectOptions): Peer
  /** What `process.nextTick` does: runs everything deferred. */
  turn(): void
  /**
   * Runs one round of what yielded, to the end of its turn; returns how many callbacks there were.
   */
  slice(): number
  /** Promises settle, then the turn ends. */
  settle(): Promise<void>
}

export const LIMITS: SessionLimits = {
  idleTimeoutMs: 3_600_000,
  resumeWindowMs: 600_000,
  maxSessions: 1000,
  maxSessionsPerUser: 64,
  outboxMessages: 1000,
  outboxBytes: 1_048_576,
  outboxTotalBytes: 268_435_456,
  maxContextBytes: 65_536
}

export function createDomain (options: DomainOptions = {}): Domain {
  const clock = options.clock ?? createManualClock()
  const log = createRecordingLog()
  const store = options.store ?? createMemoryStore()
  let ids = 1
  let yielded: (() => void)[] = []
  let deferred: (() => void)[] = []
  const defer = (callback: () => void): void => { deferred.push(callback) }
  const yieldTurn = (callback: () => void): void => { yielded.push(callback) }
  const sessions = createSessionRuntime({
    store,
    clock,
    log,
    limits: { ...LIMITS, ...options.session },
    createId: options.createId ?? store.newId ?? (() => `s${++ids}`),
    generation: 'life-one',
    defer,
    yieldTurn,
    ...(options.unlimitedUserId === undefined ? {} : { unlimitedUserId: options.unlimitedUserId })
  })
  const manager = createSessionManager(sessions, yieldTurn)
  const entrance = createEntrance(sessions, isShared(store) ? createClaims(sessions, store) : undefined)
  const dispatcherLimits = { commandsPerSecond: 1000, maxInFlight: 64, commandTimeoutMs: 30_000, ...options.dispatcher }
  const { core, before, events: schemas } = options
  const dispatcher = createDispatcher({
    sessions: { ...sessions, send: manager.send },
    deliver: async (...given) => manager.send(...given),
    clock,
    log,
    limits: dispatcherLimits,
    defer,
    ...(core === undefined ? {} : { core }),
    ...(before === undefined ? {} : { before }),
    ...(schemas === undefined ? {} : { events: schemas })
  })
  const gateway = createGateway({
    sessions,
    entrance,
    dispatcher,
    clock,
    log,
    defer,
    yieldTurn,
    limits: {
      maxMessageBytes: 65_536,
      maxBufferedBytes: 1_048_576,
      heartbeatMs: 25_000,
      ...options.gateway
    }
  })
  const events: LifecycleEvent[] = []
  manager.subscribe(event => { events.push(event) })

  function join (entry: Entry, { stalled = false, sameTurn = false, ...rest }: ConnectOptions): Peer {
    const transport = new FakeTransport()
    if (stalled) transport.stall()
    const peer = createPeer(domain, transport, gateway.accept({ transport, entry, ...rest }))
    if (!sameTurn) domain.turn()
    return peer
  }

  const domain: Domain = {
    clock,
    log,
    store,
    sessions,
    entrance,
    manager,
    dispatcher,
    gateway,
    get events () {
      domain.turn()
      return events
    },
    connect (connectOptions = {}) {
      const entry = entrance.enter({ profile: 'full', userId: 'ann', ...connectOptions })
      if (isPromise(entry)) throw new Error('the store takes time: use connectLate')
      return join(entry, connectOptions)
    },
    async connectLate (connectOptions = {}) {
      return join(await entrance.enter({ profile: 'full', userId: 'ann', ...connectOptions }), connectOptions)
    },
    resume: (welcome, lastSeq, connectOptions) =>
      domain.connect({
        userId: welcome.userId,
        resume: { sessionId: welcome.sessionId, token: welcome.resumeToken, lastSeq },
        ...connectOptions
      }),
    turn () {
      while (deferred.length > 0) {
        const callbacks = deferred
        deferred = []
        for (const callback of callbacks) callback()
      }
    },
    slice () {
      const callbacks = yielded
      yielded = []
      for (const callback of callbacks) callback()
      domain.turn()
      return callbacks.length
    },
    async settle () {
      await new Promise<void>(resolve => { setImmediate(resolve) })
      domain.turn()
    }
  }
  return domain
}

function createPeer (domain: Domain, transport: FakeTransport, connection: Connection): Peer {
  let taken = 0
  const decoded: Frame[] = []
  let writes = 0
  const peer: Peer = {
    transport,
    connection,
    frames () {
      for (; writes < transport.writes.length; writes++) {
        for (const text of decodeFrames(transport.writes[writes] as Buffer)) decoded.push(JSON.parse(text) as Frame)
      }
      return decoded
    },
    take () {
      domain.turn()
      const fresh = peer.frames().slice(taken)
      taken = decoded.length
      return fresh
    },
    takeOnly: (...types) => peer.take().filter(frame => types.includes(frame.type)),
    get welcome () {
      if (peer.frames().length === 0) domain.turn()
      const first = peer.frames()[0]
      if (first === undefined || !('payload' in first)) throw new Error('the server has not spoken')
      return first.payload as Welcome
    },
    send (frame) {
      domain.gateway.receive(connection, Buffer.from(typeof frame === 'string' ? frame : JSON.stringify(frame)), false)
    },
    sendBinary (bytes) { domain.gateway.receive(connection, bytes, true) },
    close (code) { domain.gateway.closed(connection, transport.closed?.code ?? code ?? 1006) }
  }
  return peer
}

export function buildOutput (
  tail: string = ',"type":"message","event":"e","payload":null}', commandId: number = 0
): Output {
  return { tail: toBytes(tail), bytes: Buffer.byteLength(tail), commandId }
}

/** A record as the manager would make it. */
export function buildRecord (fields: Partial<SessionRecord> & { id: string }): SessionRecord {
  const record = createRecord({
    id: fields.id,
    userId: 'ann',
    profile: 'full',
    createdAt: START_WALL,
    generation: 'generation',
    now: 0,
    context: {},
    contextBytes: 2,
    labels: {},
    journal: null,
    maxOutputBytes: LIMITS.outboxBytes,
    fanOut: 0
  })
  return Object.assign(record, fields)
}
