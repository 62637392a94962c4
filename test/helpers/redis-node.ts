// Nodes of a fleet as a test has them: a Redis store each, with small times, and what its hooks
// were told.

import type { Test } from 'tap'
import { buildBatch, buildStored, NO_PROGRESS } from '../../contract/forms.js'
import type { Clock, Profile } from '../../src/io/types.js'
import type { SharedStoreHooks } from '../../src/io/session/shared-store.js'
import type {
  CommitBatch, Fence, StoredProgress, StoredSession, StoredTombstone, StoreHealth
} from '../../src/io/session/store.js'
import { connectRedis } from '../../src/stores/redis/ioredis.js'
import type { RedisPort } from '../../src/stores/redis/redis-port.js'
import { createRedisStore, type RedisStore, type RedisStoreOptions } from '../../src/stores/redis/store.js'
import { readRedisUrl, type RedisAddress } from '../../src/stores/redis/url.js'

export const realClock: Clock = { now: () => performance.now(), wall: () => Date.now() }

export const realScheduler = {
  after (ms: number, callback: () => void): () => void {
    const timer = setTimeout(callback, ms)
    return () => { clearTimeout(timer) }
  }
}

export const TEST_LIMITS = {
  resumeWindowMs: 60_000,
  idleTimeoutMs: 3_600_000,
  unheardWindowMs: 30_000,
  maxSessionsPerUser: 0,
  outboxMessages: 100,
  outboxBytes: 100_000,
  tombstoneMs: 60_000
}

/**
 * Times that no machine exceeds, however busy: a test of what happens when they are over sets its
 * own.
 */
export const PATIENT = { commandTimeoutMs: 60_000, handOffMs: 60_000, leaseMs: 600_000 }

/** A port that takes no silence for a broken connection. */
export function patientPort (url: string): RedisPort {
  return connectRedis(addressOf(url), { silenceMs: 60_000, connectTimeoutMs: 60_000 })
}

export interface TestNode {
  readonly store: RedisStore
  readonly doorbells: string[]
  readonly evicted: { id: string, fence: Fence, tombstone: StoredTombstone | null }[]
  readonly ended: { tombstone: StoredTombstone, profile: Profile, revision: number }[]
  readonly told: { topic: string, body: unknown, from: string }[]
  readonly health: { health: StoreHealth, message: string | undefined }[]
  readonly warnings: string[]
  /** What the node does when another one asks for a session. */
  onHandOff: (id: string, fence: Fence) => Promise<void>
}

export function addressOf (url: string): RedisAddress {
  const address = readRedisUrl(url)
  if ('problem' in address) throw new Error(address.problem)
  return address
}

export async function startNode (t: Test, url: string, options: Partial<RedisStoreOptions> = {}): Promise<TestNode> {
  const warnings: string[] = []
  const log = { debug () {}, info () {}, warn (_: object, message: string) { warnings.push(message) }, error () {} }
  const store = createRedisStore({
    port: patientPort(url),
    clock: realClock,
    scheduler: realScheduler,
    log,
    limits: TEST_LIMITS,
    partitions: 16,
    tickMs: 0,
    ...PATIENT,
    ...options
  })
  const node: TestNode = {
    store,
    doorbells: [],
    evicted: [],
    ended: [],
    told: [],
    health: [],
    warnings,
    onHandOff: async () => {}
  }
  t.teardown(() => store.close())
  await store.open(hooksOf(node))
  return node
}

export function hooksOf (node: TestNode): SharedStoreHooks {
  return {
    restore () {},
    bury () {},
    healthChanged: (health, error) => { node.health.push({ health, message: error?.message }) },
    doorbell: id => { node.doorbells.push(id) },
    handOff: (id, fence) => node.onHandOff(id, fence),
    evicted: (id, fence, tombstone) => { node.evicted.push({ id, fence, tombstone }) },
    ended: (tombstone, profile, revision) => { node.ended.push({ tombstone, profile, revision }) },
    told: (topic, body, from) => { node.told.push({ topic, body, from }) }
  }
}

/** Of sessions whose clients have spoken. */
export const PROGRESS: StoredProgress = { ...NO_PROGRESS, heard: true }

export function sessionOf (store: RedisStore, changes: Partial<StoredSession> = {}): StoredSession {
  const access = { labels: {}, tokenHash: 'hash-1', previousTokenHash: null }
  return buildStored({ id: store.newId?.(changes.userId ?? 'ann') ?? '', access, progress: PROGRESS, ...changes })
}

export async function createdIn (
  node: TestNode, changes: Partial<StoredSession> = {}
): Promise<{ session: StoredSession, fence: Fence }> {
  const session = sessionOf(node.store, changes)
  const result = await node.store.create(session)
  if (typeof result === 'string') throw new Error(`create: ${result}`)
  return { session, fence: result.fence }
}

/** Outputs of a batch that ends with `lastSeq`, and the progress that goes with it. */
export function batchOf (
  id: string, fence: Fence, prevSeq: number, tails: string[], changes: Partial<StoredProgress> = {}
): CommitBatch {
  return buildBatch({ id, fence, prevSeq, progress: { heard: true, ...changes } }, ...tails)
}
