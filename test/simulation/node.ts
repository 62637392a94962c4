// A node as the ownership protocol needs one: records of the sessions that it owns, one batch at a
// time per session, answers that leave when they are kept. What the server's manager, committer and
// gateway do, in two hundred lines and without sockets.

import { isPrevious, previousAfter } from '../../src/io/session/resume-token.js'
import type { Deadline, SharedStoreHooks } from '../../src/io/session/shared-store.js'
import type { Fence, StoredSession } from '../../src/io/session/store.js'
import { createRedisStore, type RedisStore } from '../../src/stores/redis/store.js'
import { createSimulatedPort, inProcess, type Network, type Process } from './world.js'

/** The client's end of an attached connection. */
export interface Line {
  isOpen: boolean
  /** What the client gets, in order. */
  send(message: { token?: string, seq?: number, content?: string, closed?: true }): void
}

interface Record_ {
  readonly id: string
  fence: Fence
  /** Content of each output, by seq. */
  outputs: string[]
  keptSeq: number
  /** Up to which seq the client may be told ahead of the store, and what it was told so. */
  reservedSeq: number
  sendableSeq: number
  watermark: number
  inboxRead: number
  tokenHash: string
  previousTokenHash: string | null
  line: Line | null
  sentSeq: number
  /** What was not written yet. */
  isDirty: boolean
  isWriting: boolean
  isReading: boolean
  isLeaving: boolean
  isLost: boolean
  waiters: (() => void)[]
}

export type Answer = 'attached' | 'again' | 'unknown' | { ended: string }

export interface SimulatedNode {
  readonly process: Process
  readonly store: RedisStore
  readonly records: Map<string, Record_>
  connect(id: string, token: string, nextToken: string, lastSeen: number, line: Line): Promise<Answer>
  command(id: string, line: Line, command: number): void
  /** An output that does not wait for the store, if its client is there. */
  stream(id: string, content: string): void
  confirm(id: string, line: Line): void
  disconnect(id: string, line: Line): void
}

export const SIMULATED_WINDOW_MS = 60_000
const DEADLINE: Deadline = { keepForMs: SIMULATED_WINDOW_MS, reason: 'resume_window' }
const RETRY_MS = 120
const TICK_MS = 200
/** What was told ahead of the store is kept so much later. */
const FLUSH_MS = 100
/** Outputs that may be told ahead of the store. */
const BLOCK = 6

export const hashed = (token: string): string => `#${token}`

export function createSimulatedNode (network: Network, name: string): SimulatedNode {
  const { world } = network
  const process: Process = { isAlive: true, frozenUntil: 0, cutUntil: 0 }
  const records = new Map<string, Record_>()
  let lives = 0
  const store = createRedisStore({
    port: createSimulatedPort(network, process),
    clock: { now: world.now, wall: () => 1e12 + world.now() },
    scheduler: { after: (ms, callback) => world.after(ms, () => inProcess(world, process, callback)) },
    log: { debug () {}, info () {}, warn () {}, error () {} },
    limits: {
      resumeWindowMs: SIMULATED_WINDOW_MS,
      idleTimeoutMs: 3_600_000,
      unheardWindowMs: SIMULATED_WINDOW_MS,
      maxSessionsPerUser: 0,
      outboxMessages: 1e6,
      outboxBytes: 1e9,
      tombstoneMs: 1e9
    },
    partitions: 2,
    tickMs: 0,
    createNodeId: () => `${name}-${++lives}`,
    commandTimeoutMs: 600,
    handOffMs: 400,
    leaseMs: 3000,
    touchMs: 2000
  })
  const sleep = (ms: number): Promise<void> => new Promise(resolve => {
    world.after(ms, () => inProcess(world, process, resolve))
  })

  function drop (record: Record_): void {
    record.isLost = true
    if (records.get(record.id) === record) records.delete(record.id)
    if (record.line?.isOpen === true) record.line.send({ closed: true })
    record.line = null
    for (const resolve of record.waiters.splice(0)) resolve()
  }

  function deliver (record: Record_): void {
    if (record.line === null) return
    while (record.sentSeq < record.sendableSeq) {
      record.sentSeq++
      record.line.send({ seq: record.sentSeq, content: record.outputs[record.sentSeq] as string })
    }
  }

  function batchOf (record: Record_) {
    const lastSeq = record.outputs.length - 1
    return {
      id: record.id,
      fence: record.fence,
      prevSeq: record.keptSeq,
      outputs: record.outputs.slice(record.keptSeq + 1).map(tail => ({ tail, commandId: 0 })),
      progress: {
        lastSeq,
        ...(record.isLeaving ? {} : { reservedSeq: lastSeq + BLOCK }),
        releasedSeq: 0,
        ackedSeq: 0,
        dropped: 0,
        watermark: record.watermark,
        open: [],
        revision: 1,
        lastActiveAt: 1e12 + world.now(),
        detachedAt: null,
        heard: true
      },
      access: { labels: {}, tokenHash: record.tokenHash, previousTokenHash: record.previousTokenHash },
      inboxTo: record.inboxRead
    }
  }

  async function write (record: Record_): Promise<void> {
    if (record.isWriting) return
    record.isWriting = true
    while (record.isDirty && !record.isLost && !record.isLeaving) {
      record.isDirty = false
      const batch = batchOf(record)
      const waiters = record.waiters.splice(0)
      const result = await store.commit(batch)
      if (record.isLost) {
        waiters.forEach(resolve => resolve())
        break
      }
      if (result === 'kept') {
        record.keptSeq = batch.progress.lastSeq
        record.sendableSeq = Math.max(record.sendableSeq, record.keptSeq)
        record.reservedSeq = batch.progress.reservedSeq ?? 0
        waiters.forEach(resolve => resolve())
        deliver(record)
        continue
      }
      record.waiters.push(...waiters)
      record.isDirty = true
      if (result === 'unavailable') await sleep(RETRY_MS)
      else if (typeof result === 'object') record.keptSeq = result.gap
      else drop(record)
    }
    record.isWriting = false
  }

  async function leave (record: Record_): Promise<void> {
    if (record.isLeaving || record.isLost) return
    record.isLeaving = true
    if (record.line?.isOpen === true) record.line.send({ closed: true })
    record.line = null
    while (record.isWriting) await sleep(5)
    while (!record.isLost) {
      const result = await store.release(batchOf(record), DEADLINE)
      if (result === 'unavailable') await sleep(RETRY_MS)
      else if (typeof result === 'object') record.keptSeq = result.gap
      else drop(record)
    }
  }

  async function readInbox (record: Record_): Promise<void> {
    if (record.isReading || record.isLeaving) return
    record.isReading = true
    const entries = await store.inbox(record.id, record.fence, record.inboxRead)
    record.isReading = false
    if (record.isLost || record.isLeaving) return
    if (entries === 'fenced' || entries === 'missing') drop(record)
    if (typeof entries === 'string') return
    for (const { number, tail } of entries) {
      if (number <= record.inboxRead) continue
      record.inboxRead = number
      record.outputs.push(tail)
      record.isDirty = true
    }
    void write(record)
  }

  function adopt (session: StoredSession, fence: Fence): Record_ {
    const record: Record_ = {
      id: session.id,
      fence,
      outputs: ['', ...session.outputs.map(({ tail }) => tail)],
      keptSeq: session.progress.lastSeq,
      reservedSeq: 0,
      sendableSeq: session.progress.lastSeq,
      watermark: session.progress.watermark,
      inboxRead: 0,
      tokenHash: session.access.tokenHash as string,
      previousTokenHash: session.access.previousTokenHash,
      line: null,
      sentSeq: 0,
      isDirty: false,
      isWriting: false,
      isReading: false,
      isLeaving: false,
      isLost: false,
      waiters: []
    }
    records.set(session.id, record)
    return record
  }

  function attach (record: Record_, line: Line, nextToken: string, lastSeen: number): void {
    if (record.line?.isOpen === true) record.line.send({ closed: true })
    record.line = line
    record.sentSeq = lastSeen
    line.send({ token: nextToken })
    deliver(record)
    if (!line.isOpen) void leave(record)
  }

  const hooks: SharedStoreHooks = {
    restore () {},
    bury () {},
    healthChanged () {},
    doorbell (id) {
      const record = records.get(id)
      if (record !== undefined) void readInbox(record)
    },
    async handOff (id, fence) {
      const record = records.get(id)
      if (record?.fence === fence) await leave(record)
    },
    evicted (id, fence) {
      const record = records.get(id)
      if (record !== undefined && record.fence <= fence) drop(record)
    },
    ended () {},
    told () {}
  }

  async function live (): Promise<void> {
    for (;;) {
      try {
        await store.open(hooks)
        break
      } catch {
        await sleep(RETRY_MS)
      }
    }
    while (process.isAlive) {
      await store.tick()
      await sleep(TICK_MS)
    }
  }
  void live()

  return {
    process,
    store,
    records,

    async connect (id, token, nextToken, lastSeen, line) {
      const hash = hashed(token)
      const own = records.get(id)
      if (own?.isLeaving === true) return 'again'
      // A token that this record does not know is put to the store: another node may have the
      // session.
      const isKnown = own !== undefined && (hash === own.tokenHash || isPrevious(hash, own.previousTokenHash))
      if (own !== undefined && !isKnown && network.flaw === 'a token judged by a stale record') return 'unknown'
      if (own !== undefined && isKnown) {
        own.previousTokenHash = previousAfter(hash, own.tokenHash, own.previousTokenHash)
        own.tokenHash = hashed(nextToken)
        own.isDirty = true
        // The client learns its next token when it is kept.
        const kept = new Promise<void>(resolve => { own.waiters.push(resolve) })
        void write(own)
        await kept
        if (own.isLost || own.isLeaving || own.tokenHash !== hashed(nextToken)) return 'again'
        attach(own, line, nextToken, lastSeen)
        return 'attached'
      }
      const result = await store.claim({
        id, userId: 'ann', tokenHash: hash, nextTokenHash: hashed(nextToken), lastSeen, labels: {}
      })
      if (result === 'unknown') return 'unknown'
      if (result === 'moved' || result === 'unavailable') return 'again'
      if ('ended' in result) return { ended: result.ended.reason }
      attach(adopt(result.session, result.fence), line, nextToken, lastSeen)
      return 'attached'
    },

    command (id, line, command) {
      const record = records.get(id)
      if (record === undefined || record.line !== line || record.isLeaving || store.health() !== 'ok') return
      if (command !== record.watermark + 1) return
      record.watermark = command
      record.outputs.push(`answer ${command} by ${store.nodeId}`)
      record.isDirty = true
      void write(record)
    },

    stream (id, content) {
      const record = records.get(id)
      if (record === undefined || record.line?.isOpen !== true || record.isLeaving) return
      const seq = record.outputs.push(content) - 1
      const isReserved = seq <= record.reservedSeq || network.flaw === 'an output above the reservation'
      if (!isReserved || record.sendableSeq !== seq - 1) {
        record.isDirty = true
        void write(record)
        return
      }
      record.sendableSeq = seq
      deliver(record)
      world.after(FLUSH_MS, () => inProcess(world, process, () => {
        if (record.keptSeq >= seq || record.isLost) return
        record.isDirty = true
        void write(record)
      }))
    },

    confirm (id, line) {
      const record = records.get(id)
      if (record === undefined || record.line !== line || record.isLeaving || record.previousTokenHash === null) return
      record.previousTokenHash = null
      record.isDirty = true
      void write(record)
    },

    disconnect (id, line) {
      const record = records.get(id)
      if (record?.line === line) void leave(record)
    }
  }
}
