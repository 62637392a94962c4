// The store that the configuration or an application asks for. Nothing is opened here: no file is
// made, and no connection.

import { HoldfastError } from './io/errors.js'
import type { JsonObject } from './io/types.js'
import type { CreateStore, SessionStore } from './io/session/store.js'
import { likeOption } from './limits.js'
import { aText, anObject, checkOptions, refuseProblems, type OptionCheck } from './option-checks.js'
import { createEmbeddedStore, type Durability, type EmbeddedStoreOptions } from './stores/embedded/store.js'
import { createMemoryStore } from './stores/memory.js'
import { readAuthority } from './stores/redis/authority.js'
import { adoptRedis, connectRedis, isRedisTemplate, openRedis, type RedisTemplate } from './stores/redis/ioredis.js'
import { createRedisStore, type RedisStoreOptions } from './stores/redis/store.js'
import { readRedisUrl, type RedisAddress } from './stores/redis/url.js'

/** The members of the configuration that decide. */
export interface StoreConfig {
  readonly store: 'memory' | 'embedded' | 'redis'
  readonly dataDir: string | undefined
  readonly durability: Durability
  readonly redisUrl: string | undefined
  readonly redisCaFile: string | undefined
  readonly redisPrefix: string
  readonly redisPartitions: number
  readonly nodeName: string
}

export type StoreListeners = Pick<EmbeddedStoreOptions, 'onProgress' | 'onDamaged'> & {
  /** Shown by `GET /nodes`, beside what every node says of itself. */
  readonly info?: JsonObject
}

export interface RedisStoreSettings {
  /**
   * Where Redis or Valkey is: `redis://`, `rediss://`, `redis+cluster://` or `redis+sentinel://`.
   */
  readonly url?: string
  /**
   * For `rediss://`: the certificate of the authority that signed the one of Redis, as PEM. Default:
   * the authorities that Node.js trusts.
   */
  readonly ca?: string
  /**
   * In place of `url`: a client of ioredis or iovalkey, or a cluster of one. The store makes
   * connections of its own like it, and leaves it as it is.
   */
  readonly client?: RedisTemplate
  /** In front of every key; default `holdfast`. */
  readonly prefix?: string
  /** A power of two up to 1,024, fixed by the first node of a deployment; default 256. */
  readonly partitions?: number
  /** Name of this node for people; a random part is added. Default `node`. */
  readonly nodeName?: string
  /** Shown by `GET /nodes`, beside what every node says of itself. */
  readonly info?: JsonObject
}

const TOMBSTONE_MS = 3_600_000
/** P-36b. */
const UNHEARD_MS = 30_000

const CHECKS: Record<keyof RedisStoreSettings, OptionCheck> = {
  // What is wrong with it is said without it: it has a password.
  url: { is: value => typeof value === 'string', expected: 'a URL such as redis://127.0.0.1:6379' },
  ca: aText('a certificate as PEM'),
  client: { is: isRedisTemplate, expected: 'a client or a cluster of ioredis or iovalkey' },
  prefix: likeOption('redisPrefix'),
  partitions: likeOption('redisPartitions'),
  nodeName: likeOption('nodeName'),
  info: anObject
}

const scheduler: RedisStoreOptions['scheduler'] = {
  after (ms, callback) {
    const timer = setTimeout(callback, ms).unref()
    return () => { clearTimeout(timer) }
  }
}

export function createStore (config: StoreConfig, listeners: StoreListeners = {}): SessionStore | CreateStore {
  const { store, dataDir, durability, redisUrl = '', redisPrefix, redisPartitions, nodeName } = config
  const { info = {}, ...hooks } = listeners
  if (store === 'redis') {
    return redisStore({
      url: redisUrl, ...caOf(config), prefix: redisPrefix, partitions: redisPartitions, nodeName, info
    })
  }
  // The configuration refuses an embedded store without a directory.
  if (store === 'memory' || dataDir === undefined) return createMemoryStore()
  return createEmbeddedStore({ directory: dataDir, durability, ...hooks })
}

/**
 * The store of a fleet, for the option `store` of an application: sessions in Redis or Valkey,
 * which any node takes up. Limits and clock are those of the application.
 *
 * @throws CONFIG_INVALID  without a URL or a client, or with both; a URL that is none of Redis; a
 *                         client of another library; a `ca` that nothing would use
 */
export function redisStore (settings: RedisStoreSettings): CreateStore {
  checkOptions('redisStore', settings, CHECKS)
  const { url, ca, client, info = {}, ...rest } = settings
  if ((url === undefined) === (client === undefined)) refuseProblems(['redisStore takes either a url or a client.'])
  const address = url === undefined ? undefined : addressOf(url)
  if (ca !== undefined && address?.tls !== true) refuseProblems(['ca of redisStore needs a url with rediss://.'])
  return ({ clock, log, limits, unlimitedUserId, describe }) => createRedisStore({
    ...rest,
    port: address === undefined ? adoptRedis(client as RedisTemplate) : connectRedis(address, { ca }),
    clock,
    log,
    scheduler,
    limits: { ...limits, unheardWindowMs: UNHEARD_MS, tombstoneMs: TOMBSTONE_MS },
    describe: () => ({ ...info, ...describe() }),
    ...unlimitedUserId === undefined ? {} : { unlimitedUserId }
  })
}

/** A client of its own for what is not sessions; it is not connected yet. */
export function openRedisUrl (
  url: string, config: Pick<StoreConfig, 'redisCaFile'>
): ReturnType<typeof openRedis> {
  return openRedis(addressOf(url), caOf(config))
}

function caOf ({ redisCaFile }: Pick<StoreConfig, 'redisCaFile'>): { ca?: string } {
  return redisCaFile === undefined ? {} : { ca: readAuthority(redisCaFile) }
}

function addressOf (url: string): RedisAddress {
  const address = readRedisUrl(url)
  if ('problem' in address) {
    throw new HoldfastError('CONFIG_INVALID', { message: `The URL of Redis cannot be used: ${address.problem}.` })
  }
  return address
}
