// The store that the configuration asks for.

import type { Clock, JsonObject, Log, UserId } from '../io/types.js'
import type { SessionStore } from '../io/session/store.js'
import { systemClock } from '../system-clock.js'
import { createEmbeddedStore, type Durability, type EmbeddedStoreOptions } from './embedded/store.js'
import { createMemoryStore } from './memory.js'
import { connectRedis, openRedis } from './redis/ioredis.js'
import { createRedisStore } from './redis/store.js'
import { readRedisUrl, type RedisAddress } from './redis/url.js'

/** The members of the configuration that decide. */
export interface StoreConfig {
  readonly store: 'memory' | 'embedded' | 'redis'
  readonly dataDir: string | undefined
  readonly durability: Durability
  readonly redisUrl: string | undefined
  readonly redisPrefix: string
  readonly redisPartitions: number
  readonly nodeName: string
  readonly resumeWindowSeconds: number
  readonly sessionTimeoutSeconds: number
  readonly maxSessionsPerUser: number
  readonly outboxMessages: number
  readonly outboxBytes: number
}

export interface StoreSurroundings extends Pick<EmbeddedStoreOptions, 'onProgress' | 'onDamaged'> {
  readonly clock?: Clock
  readonly log?: Log
  /** What this node says of itself to the others. */
  readonly describe?: () => JsonObject
  /** A user without a quota, who is everybody. */
  readonly unlimitedUserId?: UserId
}

const SILENT: Log = { debug () {}, info () {}, warn () {}, error () {} }
const TOMBSTONE_MS = 3_600_000
/** P-36b. */
const UNHEARD_MS = 30_000

/** The store; it is not open yet, nothing was made on the disk, and no connection. */
export function createStore (config: StoreConfig, surroundings: StoreSurroundings = {}): SessionStore {
  const { store, dataDir, durability } = config
  if (store === 'redis') return createFromUrl(config, surroundings)
  // The configuration refuses an embedded store without a directory.
  if (store === 'memory' || dataDir === undefined) return createMemoryStore()
  return createEmbeddedStore({ directory: dataDir, durability, ...surroundings })
}

function createFromUrl (config: StoreConfig, surroundings: StoreSurroundings): SessionStore {
  const { clock = systemClock, log = SILENT, unlimitedUserId, describe } = surroundings
  const address = addressOf(config.redisUrl ?? '')
  return createRedisStore({
    port: connectRedis(address),
    clock,
    log,
    scheduler: {
      after (ms, callback) {
        const timer = setTimeout(callback, ms).unref()
        return () => { clearTimeout(timer) }
      }
    },
    limits: {
      resumeWindowMs: config.resumeWindowSeconds * 1000,
      idleTimeoutMs: config.sessionTimeoutSeconds * 1000,
      unheardWindowMs: UNHEARD_MS,
      maxSessionsPerUser: config.maxSessionsPerUser,
      outboxMessages: config.outboxMessages,
      outboxBytes: config.outboxBytes,
      tombstoneMs: TOMBSTONE_MS
    },
    prefix: config.redisPrefix,
    partitions: config.redisPartitions,
    nodeName: config.nodeName,
    ...describe === undefined ? {} : { describe },
    ...unlimitedUserId === undefined ? {} : { unlimitedUserId }
  })
}

/** A client of its own for what is not sessions; it is not connected yet. */
export function openRedisUrl (url: string): ReturnType<typeof openRedis> {
  return openRedis(addressOf(url))
}

/** The configuration refuses what is not a URL of Redis. */
function addressOf (url: string): RedisAddress {
  const address = readRedisUrl(url)
  if ('problem' in address) throw new TypeError(`The URL of Redis cannot be used: ${address.problem}.`)
  return address
}
