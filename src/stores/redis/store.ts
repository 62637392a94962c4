// The store of a fleet: sessions in Redis or Valkey, any node claims any session, and each write
// carries the ownership that it needs. The rules are those of io/session/store.ts and
// shared-store.ts; keys and scripts are in layout.ts and scripts/*.lua. This file puts the parts
// together and knows how the store is.

import { randomBytes } from 'node:crypto'
import type { Clock, JsonObject, Log, Millis, UserId } from '../../io/types.js'
import type { StoreHealth } from '../../io/session/store.js'
import type { NodeId, SharedSessionStore, SharedStoreHooks } from '../../io/session/shared-store.js'
import { createBus } from './bus.js'
import { createClaims } from './claims.js'
import { createFleet } from './fleet.js'
import { createGate } from './gate.js'
import { createLayout, LAYOUT, textOf } from './layout.js'
import { createListing } from './listing.js'
import { createStats, type RedisNode, type StoreLimits, type StoreStats } from './node.js'
import { createRemoteWrites } from './remote-writes.js'
import type { RedisPort, Reply, Scheduler } from './redis-port.js'
import { MAX_PARTITIONS } from './url.js'
import { createWrites } from './writes.js'

export interface RedisStoreOptions {
  readonly port: RedisPort
  readonly clock: Clock
  readonly scheduler: Scheduler
  readonly log: Log
  readonly limits: StoreLimits
  /**
   * A user to whom `maxSessionsPerUser` does not apply, and whose sessions are spread over all
   * partitions.
   */
  readonly unlimitedUserId?: UserId
  /** In front of every key; default `holdfast`. */
  readonly prefix?: string
  /** A power of two, fixed by the first node of a deployment; default 256. */
  readonly partitions?: number
  /** Name of this node for people; a random part is added. Default `node`. */
  readonly nodeName?: string
  /** Gives a name to each life of this node; default: `nodeName` and a random part. */
  readonly createNodeId?: () => NodeId
  /** What this node says of itself to the others. */
  readonly describe?: () => JsonObject
  /** A call without an answer for so long is `unavailable`; default 2,000. */
  readonly commandTimeoutMs?: Millis
  /** Default 10,000 calls and 64 MiB. */
  readonly maxPendingCalls?: number
  readonly maxPendingBytes?: number
  /** How long an owner is waited for; default 1,000. */
  readonly handOffMs?: Millis
  /** A node that has not renewed it is dead; default 15,000. */
  readonly leaseMs?: Millis
  /** Each owned session is looked after once in that time; default 60,000. */
  readonly touchMs?: Millis
  /** The store calls its own `tick` so often; 0: somebody else does. Default 1,000. */
  readonly tickMs?: Millis
}

export interface RedisStore extends SharedSessionStore {
  readonly stats: StoreStats
  /** Calls that wait for Redis, and their bytes. */
  readonly pending: { readonly calls: number, readonly bytes: number }
  /** Calls that were refused since too many waited. */
  readonly refused: number
}

/** A connection that was lost is tried again after 3 s at the latest. */
const RETURN_MS = 5000

const NO_HOOKS: SharedStoreHooks = {
  restore () {},
  bury () {},
  healthChanged () {},
  doorbell () {},
  async handOff () {},
  evicted () {},
  ended () {},
  told () {}
}

export function createRedisStore (options: RedisStoreOptions): RedisStore {
  const { port, clock, scheduler, log } = options
  const { prefix = 'holdfast', partitions = 256, nodeName = 'node', leaseMs = 15_000 } = options
  checkPartitions(partitions)
  const newNodeId = options.createNodeId ?? (() => `${nodeName}-${randomBytes(5).toString('hex')}`)
  let hooks = NO_HOOKS
  let isOpen = false
  const keeping = createKeeping(clock)
  let told: StoreHealth = 'degraded'

  function health (): StoreHealth {
    return keeping.isSure && isOpen && clock.now() < fleet.leaseUntil ? 'ok' : 'degraded'
  }

  function tellHealth (error?: Error): void {
    const present = health()
    if (!isOpen || present === told) return
    told = present
    hooks.healthChanged(present, error)
  }

  const gate = createGate({
    port,
    clock,
    scheduler,
    deadlineMs: options.commandTimeoutMs ?? 2000,
    maxCalls: options.maxPendingCalls ?? 10_000,
    maxBytes: options.maxPendingBytes ?? 64 * 1024 * 1024,
    failed (error) {
      keeping.failed()
      tellHealth(error)
    },
    kept () {
      keeping.kept(isOpen)
      if (told !== 'ok') tellHealth()
    }
  })
  const node: RedisNode = {
    id: newNodeId(),
    get hooks () { return hooks },
    gate,
    layout: createLayout(prefix, partitions, options.unlimitedUserId),
    limits: options.limits,
    clock,
    scheduler,
    stats: createStats(),
    lastCall: 0,
    owned: new Map(),
    doubtful: new Map(),
    unlimitedUserId: options.unlimitedUserId,
    wasAway: keeping.wasAway,
    // One that this node has not heard of has just come.
    isAlive: name => !fleet.isDead(name),
    alive: () => fleet.nodes.map(({ nodeId }) => nodeId)
  }
  const bus = createBus(node, port, options.handOffMs ?? 1000)
  const fleet = createFleet(node, bus, {
    leaseMs,
    leaseMarginMs: leaseMs / 5,
    renewMs: leaseMs / 3,
    touchMs: options.touchMs ?? 60_000,
    keeps: () => keeping.isSure,
    describe: options.describe ?? (() => ({})),
    rename: newNodeId
  })

  async function tick (): Promise<void> {
    if (!isOpen) return
    await fleet.tick()
    tellHealth()
  }

  const ticker = createTicker(scheduler, options.tickMs ?? 1000, tick)

  return {
    traits: { survives: 'node', shared: true },
    get nodeId () { return node.id },
    get stats () { return node.stats },
    get pending () { return gate.pending },
    get refused () { return gate.refused },
    health,
    newId: node.layout.newId,

    async open (given) {
      await port.connect()
      await checkServer(node, port, log)
      await bus.open()
      hooks = { ...NO_HOOKS, ...given }
      if (!await fleet.renew()) {
        throw new Error('Redis does not keep what it is given. Check its log, its memory and its disk.')
      }
      isOpen = true
      told = 'ok'
      ticker.start()
    },

    async close () {
      ticker.stop()
      if (isOpen) {
        isOpen = false
        await fleet.leave()
      }
      await gate.close()
      await port.close()
    },

    ...createWrites(node),
    ...createRemoteWrites(node, bus),
    ...createClaims(node, bus),
    ...createListing(node),

    async nodes () {
      return await fleet.renew() ? fleet.nodes : 'unavailable'
    },

    tell: bus.tell,

    tick
  }
}

function checkPartitions (partitions: number): void {
  if (Number.isInteger(Math.log2(partitions)) && partitions <= MAX_PARTITIONS) return
  throw new TypeError(`The number of partitions must be a power of two up to ${MAX_PARTITIONS}.`)
}

/** Whether the server keeps what it is given, as far as the last call tells. */
function createKeeping (clock: Clock) {
  let isSure = false
  let backAt = -Infinity
  return {
    get isSure () { return isSure },
    wasAway: () => clock.now() - backAt < RETURN_MS,
    failed (): void { isSure = false },

    kept (isOpen: boolean): void {
      if (isOpen && !isSure) backAt = clock.now()
      isSure = true
    }
  }
}

/** @throws Error with what to do, if this node cannot work with what is there. */
async function checkServer (node: RedisNode, port: RedisPort, log: Log): Promise<void> {
  const { partitions } = node.layout
  const [layout, parts] = (await node.gate.call('meta', [node.layout.meta], [LAYOUT, String(partitions)]) ??
    []) as Reply[]
  if (layout === undefined) {
    throw new Error('Redis does not answer. Check HOLDFAST_REDIS_URL, and that the server runs.')
  }
  if (textOf(layout) !== LAYOUT) {
    throw new Error(`Redis holds sessions in layout ${textOf(layout)}, and this version writes layout ${LAYOUT}. ` +
      'Run the version that wrote them, or use another HOLDFAST_REDIS_PREFIX.')
  }
  if (Number(textOf(parts)) !== partitions) {
    throw new Error(`Redis holds sessions in ${textOf(parts)} partitions, not in ${partitions}. ` +
      'Set HOLDFAST_REDIS_PARTITIONS to what it was, or use another HOLDFAST_REDIS_PREFIX.')
  }
  const policy = await port.evictionPolicy()
  if (policy !== undefined && policy !== 'noeviction') {
    log.warn({ policy }, 'redis may evict sessions: set maxmemory-policy to noeviction')
  }
}

/** Calls `tick` every `ms`, with jitter: a fleet must not come in step. Never with 0. */
function createTicker (scheduler: Scheduler, ms: Millis, tick: () => Promise<void>): { start(): void, stop(): void } {
  let isRunning = false
  let cancel = (): void => {}

  function later (): void {
    if (!isRunning) return
    cancel = scheduler.after(ms * (0.8 + Math.random() * 0.4), () => { void tick().then(later) })
  }

  return {
    start () {
      isRunning = ms > 0
      later()
    },
    stop () {
      isRunning = false
      cancel()
    }
  }
}
