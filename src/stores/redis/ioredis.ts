// The port over ioredis, or over a client of the same shape that somebody hands in (ioredis 5 and
// 6, iovalkey). Two connections: one for commands, one that listens. Nothing is queued here while a
// connection is missing: the gate and the callers above decide what is tried again.

import { Cluster, Redis, type RedisOptions } from 'ioredis'
import { sentenceOf } from './faults.js'
import type { Argument, RedisPort, Reply } from './redis-port.js'
import type { Script } from './scripts.js'
import type { RedisAddress } from './url.js'

/** What is used of a client; the classes of ioredis and iovalkey have it. */
export interface RedisClient {
  readonly status: string
  connect(): Promise<unknown>
  callBuffer(command: string, args: Argument[]): Promise<unknown>
  call(command: string, args: (string | number)[]): Promise<unknown>
  subscribe(channel: string): Promise<unknown>
  unsubscribe(channel: string): Promise<unknown>
  on(event: string, listener: (...args: never[]) => void): unknown
  once(event: string, listener: (...args: never[]) => void): unknown
  off(event: string, listener: (...args: never[]) => void): unknown
  duplicate(...args: never[]): unknown
  disconnect(reconnect?: boolean): void
  quit(): Promise<unknown>
}

export interface RedisPortOptions {
  /** A server silent for so long while calls wait has its connection broken; default 5,000. */
  silenceMs?: number
  /** Default 2,000. */
  connectTimeoutMs?: number
}

const CONNECTED = ['ready', 'connect']

function connectionOptions (address: RedisAddress, { silenceMs = 5000, connectTimeoutMs = 2000 }: RedisPortOptions) {
  const { username, password, tls, db } = address
  return {
    ...username === undefined ? {} : { username },
    ...password === undefined ? {} : { password },
    ...tls ? { tls: {} } : {},
    db,
    lazyConnect: true,
    connectionName: 'holdfast',
    connectTimeout: connectTimeoutMs,
    socketTimeout: silenceMs,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 1,
    retryStrategy: retryAfter,
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
  return createPort(openRedis(address, options) as unknown as RedisClient, address.kind === 'cluster', true)
}

/** A client that is not connected yet, with the settings of the store. Whoever opens it ends it. */
export function openRedis (address: RedisAddress, options: RedisPortOptions = {}): Redis | Cluster {
  const settings = connectionOptions(address, options)
  const [{ host, port } = { host: '127.0.0.1', port: 6379 }] = address.hosts
  if (address.kind === 'cluster') {
    return new Cluster([...address.hosts], {
      redisOptions: settings,
      lazyConnect: true,
      enableOfflineQueue: false,
      shardedSubscribers: true,
      clusterRetryStrategy: retryAfter,
      slotsRefreshTimeout: 2000,
      slotsRefreshInterval: 5000,
      maxRedirections: 4,
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
      ...address.tls ? { enableTLSForSentinelMode: true } : {}
    })
}

/**
 * The port over a client of the host's; it is left open, and only the listening connection made
 * from it is closed.
 */
export function adoptRedis (client: RedisClient): RedisPort {
  return createPort(client, 'nodes' in client, false)
}

function createPort (client: RedisClient, isCluster: boolean, isOwn: boolean): RedisPort {
  const listeners = new Map<string, (message: string) => void>()
  const subscriber = isCluster && isOwn ? client : client.duplicate() as RedisClient
  const isSharded = isCluster && isOwn
  const ignore = (): void => {}
  // Without a listener an error ends the process; what matters reaches the gate with the calls.
  if (isOwn) client.on('error', ignore)
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
      if (isOwn) client.disconnect()
    }
  }
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
