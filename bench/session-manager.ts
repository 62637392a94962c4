// What do the operations of the session manager cost, and does that depend on how many sessions
// there are? No sockets, a clock set by hand. Run: npm run build && node --expose-gc
// dist/bench/session-manager.js [sessions…]

import { randomUUID } from 'node:crypto'
import { createSessionManager, type SessionManager } from '../src/io/session/manager.js'
import { createSessionRuntime } from '../src/io/session/runtime.js'
import { createMemoryStore } from '../src/stores/memory.js'
import { table } from './lib/report.js'
import { median } from './lib/stats.js'
import type { Figures, Row } from './lib/turns.js'

const DEFAULT_SIZES = [10_000, 100_000, 1_000_000]
const IDLE_TIMEOUT_MS = 3_600_000
const SESSIONS_PER_USER = 10
/** As often as the plugin sweeps. */
const SWEEP_EVERY_MS = 250
const OPERATIONS = 100_000
const PAGES = 200

interface HandClock {
  time: number
  now(): number
  wall(): number
}

function ignore (): void {}

function createManager (clock: HandClock, sessions: number): SessionManager {
  const runtime = createSessionRuntime({
    store: createMemoryStore(),
    clock,
    log: { debug: ignore, info: ignore, warn: ignore, error: ignore },
    createId: () => randomUUID(),
    generation: randomUUID(),
    defer: process.nextTick,
    yieldTurn: setImmediate,
    limits: {
      idleTimeoutMs: IDLE_TIMEOUT_MS,
      resumeWindowMs: IDLE_TIMEOUT_MS,
      maxSessions: sessions * 2,
      maxSessionsPerUser: SESSIONS_PER_USER * 2,
      outboxMessages: 1000,
      outboxBytes: 1_048_576,
      outboxTotalBytes: 1_073_741_824,
      maxContextBytes: 65_536
    }
  })
  return createSessionManager(runtime, setImmediate)
}

function heapBytes (): number {
  globalThis.gc?.()
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

function elapsedMs (work: () => void): number {
  const startedAt = performance.now()
  work()
  return performance.now() - startedAt
}

/** Nanoseconds per call of `operation`, called with 0 to `count - 1`. */
function nanosPer (count: number, operation: (i: number) => void): number {
  return elapsedMs(() => { for (let i = 0; i < count; i++) operation(i) }) * 1e6 / count
}

/** Ids as they come from the wire: new strings without a hash, in random order. */
function freshIds (ids: readonly string[], count: number): string[] {
  return Array.from({ length: count }, () => Buffer.from(ids[Math.floor(Math.random() * ids.length)]!).toString(
    'latin1'
  ))
}

function measureSize (sessions: number): Figures {
  const clock: HandClock = { time: 0, now: () => clock.time, wall: () => 1_700_000_000_000 + clock.time }
  const manager = createManager(clock, sessions)
  const ids = new Array<string>(sessions)
  const before = heapBytes()
  // Spread over one idle timeout, as sessions of a busy day are.
  const create = nanosPer(sessions, i => {
    clock.time = i * IDLE_TIMEOUT_MS / sessions
    ids[i] = manager.createSession(`user-${Math.floor(i / SESSIONS_PER_USER)}`).id
  })
  const heapPerSession = (heapBytes() - before) / sessions
  clock.time = IDLE_TIMEOUT_MS

  const operations = Math.min(OPERATIONS, sessions)
  const known = freshIds(ids, operations)
  const strange = Array.from({ length: operations }, () => randomUUID())
  const peek = nanosPer(operations, i => manager.peekSession(known[i]!))
  const miss = nanosPer(operations, i => manager.getSession(strange[i]!))
  const firstPage = nanosPer(PAGES, () => manager.listSessions({ limit: 50 }))
  let cursor: string | null = null
  const walk = nanosPer(PAGES, () => {
    const page = manager.listSessions({ limit: 50, ...(cursor === null ? {} : { cursor }) })
    cursor = page.nextCursor
  })
  const purgeNone = elapsedMs(() => { manager.purgeStaleSessions() })
  clock.time += IDLE_TIMEOUT_MS / 100
  let purged = 0
  const purgeMs = elapsedMs(() => { purged = manager.purgeStaleSessions() })

  // Every remaining session is touched, then an hour of sweeps files each of them once more.
  const alive = ids.filter(id => manager.peekSession(id) !== undefined)
  const access = nanosPer(operations, i => manager.getSession(known[i]!))
  for (const id of alive) manager.getSession(id)
  const sweepsMs: number[] = []
  const untilMs = clock.time + IDLE_TIMEOUT_MS
  for (; clock.time < untilMs; clock.time += SWEEP_EVERY_MS) {
    sweepsMs.push(elapsedMs(() => { manager.purgeStaleSessions() }))
  }
  const terminate = nanosPer(Math.min(operations, alive.length), i => manager.terminateSession(alive[i]!))

  return {
    'create ns': create,
    'get ns': access,
    'get unknown ns': miss,
    'peek ns': peek,
    'terminate ns': terminate,
    'first page us': firstPage / 1000,
    'next page us': walk / 1000,
    'purge, none due, ms': purgeNone,
    'purge, 1 % due, ms': purgeMs,
    'ns per purged': purgeMs * 1e6 / purged,
    'sweep median us': median(sweepsMs) * 1000,
    'sweep worst ms': sweepsMs.reduce((worst, each) => Math.max(worst, each), 0),
    'sweeps per session and hour ns': sweepsMs.reduce((sum, each) => sum + each, 0) * 1e6 / alive.length,
    'heap B/session': heapPerSession
  }
}

const asked = process.argv.slice(2).map(Number)
const rows: Row[] = []
measureSize(DEFAULT_SIZES[0]!)
for (const sessions of asked.length > 0 ? asked : DEFAULT_SIZES) {
  rows.push({ server: sessions.toLocaleString('en'), figures: measureSize(sessions) })
}

// Sizes as columns: there are more operations than sizes.
const byOperation = Object.keys(rows[0]!.figures).map(operation => ({
  server: operation,
  figures: Object.fromEntries(rows.map(row => [row.server, row.figures[operation]!]))
}))
process.stdout.write(`Node ${process.version}\n\n${table(byOperation, 'operation \\ sessions')}\n`)
