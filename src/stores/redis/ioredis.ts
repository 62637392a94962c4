// The port over ioredis, with an address, or where a client leads that somebody hands in (ioredis 5
// and 6, iovalkey). Two connections: one for commands, one that listens. Nothing is queued here
// while a connection is missing: the gate and the callers above decide what is tried again.

import { Cluster, Redis, type ClusterNode, type ClusterOptions, type RedisOptions } from 'ioredis'
import { sentenceOf } from './faults.js'
import type { Argument, RedisPort, Reply } from './redis-port.js'
import type { Script } from './scripts.js'
import type { RedisAddress } from './url.js'

/** What is read of a client that an application hands in, of ioredis or iovalkey. */
export interface RedisTemplate {
  readonly options: object
}

/** What is used of a client. */
interface RedisClient {
  readonly status: string
  /** The socket; a cluster has several. */
  readonly stream?: { readonly writableCorked: number, cork(): void, uncork(): void }
  connect(): Promise<unknown>
  callBuffer(command: string, args: Argument[]): Promise<unknown>
  call(command: string, args: (string | number)[]): Promise<unknown>
  subscribe(channel: string): Promise<unknown>
  unsubscribe(channel: string): Promise<unknown>
  on(event: string, listener: (...args: never[]) => void): unknown
  once(event: string, listener: (...args: never[]) => void): unknown
  off(event: string, listener: (...args: never[]) => void): unknown
  duplicate(): unknown
  disconnect(reconnect?: boolean): void
}

export interface RedisPortOptions {
  /** A server silent for so long while calls wait has its connection broken; default 5,000. */
  silenceMs?: number
  /** Default 2,000. */
  connectTimeoutMs?: number
  /** Certificates, as PEM, in place of the authorities that Node.js trusts. */
  ca?: string | undefined
}

/** Until a server that is loading is asked again. */
const LOADING_MS = 250
const CONNECTED = ['ready', 'connect']

function connectionOptions (address: RedisAddress, options: RedisPortOptions) {
  const { username, password, tls, db } = address
  return {
    ...username === undefined ? {} : { username },
    ...password === undefined ? {} : { password },
    ...tls ? { tls: options.ca === undefined ? {} : { ca: options.ca } } : {},
    db,
    ...settingsOf(options)
  } satisfies RedisOptions
}

/** How a connection behaves, wherever it leads. */
function settingsOf ({ silenceMs = 5000, connectTimeoutMs = 2000 }: RedisPortOptions) {
  return {
    lazyConnect: true,
    connectionName: 'holdfast',
    connectTimeout: connectTimeoutMs,
    socketTimeout: silenceMs,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    // What was on its way fails when its connection closes. With a higher number ioredis drops it
    // without a word where it connects again at once, and its caller waits for the deadline.
    maxRetriesPerRequest: 0,
    retryStrategy: retryAfter,
    // A server that reads its file after a restart guesses how long that takes, at first wildly;
    // ioredis would believe it for up to ten seconds.
    maxLoadingRetryTime: LOADING_MS,
    // After a failover behind a name the same address may be a replica now: look the name up again.
    reconnectOnError: (error: Error) => /^READONLY/.test(error.message)
  } satisfies RedisOptions
}

function sameName (name: string, callback: (error: null, address: string) => void): void {
  callback(null, name)
}

/** From 100 ms to 3 s, with jitter: a fleet must not come back in step. */
function retryAfter (attempt: number): number {
  return Math.min(3000, 100 * 2 ** Math.min(attempt, 5)) * (0.5 + Math.random() / 2)
}

/** The port over connections of its own. */
export function connectRedis (address: RedisAddress, options: RedisPortOptions = {}): RedisPort {
  return createPort(openRedis(address, options) as unknown as RedisClient, address.kind === 'cluster')
}

/** A client that is not connected yet, with the settings of the store. Whoever opens it ends it. */
export function openRedis (address: RedisAddress, options: RedisPortOptions = {}): Redis | Cluster {
  const settings = connectionOptions(address, options)
  const [{ host, port } = { host: '127.0.0.1', port: 6379 }] = address.hosts
  if (address.kind === 'cluster') {
    return new Cluster([...address.hosts], {
      ...clusterSettings(settings),
      // Names of nodes on one host resolve by themselves; with TLS the name is needed as it is.
      ...address.tls ? { dnsLookup: sameName } : {}
    })
  }
  return address.kind === 'single'
    ? new Redis({ ...settings, host, port })
    : new Redis({
      ...settings,
      sentinels: [...address.hosts],
      name: address.primary as string,
      ...settings.tls === undefined ? {} : { enableTLSForSentinelMode: true, sentinelTLS: settings.tls }
    })
}

function clusterSettings (redisOptions: object) {
  return {
    redisOptions,
    lazyConnect: true,
    enableOfflineQueue: false,
    shardedSubscribers: true,
    clusterRetryStrategy: retryAfter,
    slotsRefreshTimeout: 2000,
    slotsRefreshInterval: 5000,
    maxRedirections: 4
  }
}

/**
 * The port over connections that lead where somebody else's client leads. That one is not used: it
 * may queue without a bound, and send again what was given up. Its prefix of keys is left out,
 * since the store has one of its own.
 */
export function adoptRedis (client: RedisTemplate, options: RedisPortOptions = {}): RedisPort {
  const settings = { ...settingsOf(options), keyPrefix: '', stringNumbers: false }
  if (!isCluster(client)) {
    return createPort(new Redis({ ...client.options, ...settings }) as unknown as RedisClient, false)
  }
  const { options: { redisOptions, ...rest }, startupNodes } = client
  const cluster = new Cluster(startupNodes, { ...rest, ...clusterSettings({ ...redisOptions, ...settings }) })
  return createPort(cluster as unknown as RedisClient, true)
}

interface ClusterTemplate {
  readonly options: ClusterOptions
  /** As they were given to its constructor. Not in its types. */
  readonly startupNodes: ClusterNode[]
}

/**
 * Whether a value says where Redis is as ioredis and iovalkey do. The options of other libraries
 * have other names, and would lead to this machine without a word.
 */
export function isRedisTemplate (value: unknown): value is RedisTemplate {
  if (typeof value !== 'object' || value === null) return false
  const { options } = value as { options?: unknown }
  if (typeof options !== 'object' || options === null) return false
  return 'startupNodes' in value || ['host', 'path', 'sentinels'].some(name => name in options)
}

function isCluster (client: RedisTemplate): client is ClusterTemplate {
  return 'startupNodes' in client
}

/** Messages of a cluster come over its own connections, those of each shard over one. */
function createPort (client: RedisClient, isSharded: boolean): RedisPort {
  const listeners = new Map<string, (message: string) => void>()
  const subscriber = isSharded ? client : client.duplicate() as RedisClient
  const ignore = (): void => {}
  // Without a listener an error ends the process; what matters reaches the gate with the calls.
  client.on('error', ignore)
  if (subscriber !== client) subscriber.on('error', ignore)
  subscriber.on(isSharded ? 'smessage' : 'message', ((channel: string, message: string) => {
    listeners.get(channel)?.(message)
  }) as (...args: never[]) => void)

  const sharded = subscriber as unknown as Record<'ssubscribe' | 'sunsubscribe', (channel: string) => Promise<unknown>>

  async function listen (channel: string): Promise<void> {
    await (isSharded ? sharded.ssubscribe(channel) : subscriber.subscribe(channel))
  }

  return {
    async connect () {
      await connected(client)
      if (subscriber !== client) await connected(subscriber)
    },

    run (script, keys, args) {
      gather(client)
      return evaluate(client, script, keys, args)
    },

    async publish (channel, message) {
      return Number(await client.call(isSharded ? 'SPUBLISH' : 'PUBLISH', [channel, message]))
    },

    async subscribe (channel, listener) {
      listeners.set(channel, listener)
      await listen(channel)
    },

    async unsubscribe (channel) {
      listeners.delete(channel)
      await (isSharded ? sharded.sunsubscribe(channel) : subscriber.unsubscribe(channel))
    },

    reconnectSubscriber () {
      if (subscriber !== client) subscriber.disconnect(true)
      else for (const channel of listeners.keys()) listen(channel).catch(ignore)
    },

    async evictionPolicy () {
      try {
        const [, policy] = await client.call('CONFIG', ['GET', 'maxmemory-policy']) as string[]
        return policy
      } catch {
        // Managed services forbid it.
        return undefined
      }
    },

    async close () {
      if (subscriber !== client) subscriber.disconnect()
      client.disconnect()
    }
  }
}

/**
 * What is sent before other events have had their turn leaves in one write. One for each call costs
 * as much as the call.
 */
function gather ({ stream }: RedisClient): void {
  if (stream === undefined || stream.writableCorked > 0) return
  stream.cork()
  setImmediate(() => { stream.uncork() })
}

async function evaluate (
  client: RedisClient, script: Script, keys: readonly string[], args: readonly Argument[]
): Promise<Reply> {
  const rest: Argument[] = [String(keys.length), ...keys, ...args]
  try {
    return await client.callBuffer('EVALSHA', [script.sha, ...rest]) as Reply
  } catch (error) {
    if (!/^NOSCRIPT/.test((error as Error).message)) throw error
    return await client.callBuffer('EVAL', [script.source, ...rest]) as Reply
  }
}

/**
 * Waits until commands can be sent. The first failure decides: a wrong address or password is told
 * at the start. What is wrong comes as an event before the connection is given up.
 */
async function connected (client: RedisClient): Promise<void> {
  if (CONNECTED.includes(client.status)) return
  let cause: Error | undefined
  const note = ((error: Error) => { cause ??= error }) as (...args: never[]) => void
  client.on('error', note)
  try {
    if (client.status === 'wait') await client.connect()
    else {
      await new Promise<void>((resolve, reject) => {
        client.once('ready', resolve)
        client.once('error', reject as (...args: never[]) => void)
      })
    }
  } catch (error) {
    throw new Error(sentenceOf(cause ?? error), { cause: cause ?? error })
  } finally {
    client.off('error', note)
  }
}
