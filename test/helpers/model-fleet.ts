// Nodes of a fleet without Redis and without time: the Redis store over the model of a server that
// the simulations use, answering at once. Timers are the test's, which runs them with `pass`; what
// the store does by itself happens in its `tick`.

import { createOwnership, type Ownership } from '../../src/io/cluster/ownership.js'
import type { SharedStoreHooks } from '../../src/io/session/shared-store.js'
import { createRedisStore, type RedisStore } from '../../src/stores/redis/store.js'
import { createModelRedis, type ModelRedis } from '../simulation/model-redis.js'
import { createManualClock, type ManualClock } from './clock.js'
import { createDomain, type Domain, type DomainOptions } from './domain.js'
import { TEST_LIMITS } from './redis-node.js'

export interface ModelNode extends Domain {
  readonly store: RedisStore
  readonly ownership: Ownership
  /** Messages of other nodes do not reach it. */
  isDeaf: boolean
  /** It listens to nothing, and who sends it something is told so. */
  isUnheard: boolean
  /** Calls fail, and change nothing. */
  isCutOff: boolean
}

export interface ModelFleet {
  readonly redis: ModelRedis
  readonly clock: ManualClock
  start(name: string, options?: DomainOptions): Promise<ModelNode>
  /** Timers that are due run, and everything settles. */
  pass(ms: number): Promise<void>
  settle(): Promise<void>
}

interface Timer { readonly at: number, readonly callback: () => void }

export function createModelFleet (): ModelFleet {
  const clock = createManualClock()
  const redis = createModelRedis(() => clock.wall())
  const timers = new Set<Timer>()
  const channels = new Map<string, { node: () => ModelNode, listener: (message: string) => void }>()
  const nodes: ModelNode[] = []

  function after (ms: number, callback: () => void): () => void {
    const timer = { at: clock.now() + ms, callback }
    timers.add(timer)
    return () => { timers.delete(timer) }
  }

  async function settle (): Promise<void> {
    for (let n = 0; n < 8; n++) {
      for (const node of nodes) await node.settle()
    }
  }

  return {
    redis,
    clock,
    settle,

    async pass (ms) {
      const end = clock.now() + ms
      for (;;) {
        await settle()
        const [next] = [...timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)
        if (next === undefined) break
        timers.delete(next)
        clock.advance(Math.max(0, next.at - clock.now()))
        next.callback()
      }
      clock.advance(end - clock.now())
      await settle()
    },

    async start (name, options = {}) {
      let lives = 0
      const store = createRedisStore({
        port: {
          async connect () {},
          async run (script, keys, args) {
            if (node.isCutOff) throw new Error('Connection is closed.')
            return redis.run(script.name, keys, args)
          },
          async publish (channel, message) {
            const target = channels.get(channel)
            if (node.isCutOff || target === undefined || target.node().isUnheard) return 0
            if (!target.node().isDeaf) queueMicrotask(() => { target.listener(message) })
            return 1
          },
          async subscribe (channel, listener) { channels.set(channel, { node: () => node, listener }) },
          async unsubscribe (channel) { channels.delete(channel) },
          reconnectSubscriber () {},
          async evictionPolicy () { return 'noeviction' },
          async close () {}
        },
        clock,
        scheduler: { after },
        log: { debug () {}, info () {}, warn () {}, error () {} },
        limits: TEST_LIMITS,
        partitions: 2,
        tickMs: 0,
        createNodeId: () => `${name}-${++lives}`
      })
      const domain = createDomain({ ...options, store, clock })
      const ownership = createOwnership({
        sessions: domain.sessions,
        store,
        log: domain.log,
        delay: ms => new Promise<void>(resolve => { after(ms, resolve) }),
        yieldTurn: async () => {}
      })
      const line = { isDeaf: false, isUnheard: false, isCutOff: false }
      const node: ModelNode = Object.assign(domain, { store, ownership, ...line })
      nodes.push(node)
      const hooks: SharedStoreHooks = { restore () {}, bury () {}, healthChanged () {}, told () {}, ...ownership.hooks }
      await store.open(hooks)
      return node
    }
  }
}
