// Time, network and processes of a simulation. Everything that happens is an event of one queue, in
// the order of a virtual clock; what is random comes from one seed. Between two events every
// promise settles that can.

import { setFlagsFromString } from 'node:v8'
import { runInThisContext } from 'node:vm'
import type { Argument, RedisPort, Reply } from '../../src/stores/redis/redis-port.js'
import type { ScriptName } from '../../src/stores/redis/scripts.js'
import type { ModelRedis } from './model-redis.js'

export interface World {
  now(): number
  random(): number
  after(ms: number, callback: () => void): () => void
  sleep(ms: number): Promise<void>
  /** Runs events up to that time. */
  runUntil(time: number): Promise<void>
}

/**
 * Runs every promise job that is due, from outside of one. A turn of the event loop would do the
 * same, and takes longer than the event that it follows.
 */
setFlagsFromString('--allow-natives-syntax')
const settlePromises = runInThisContext('() => %PerformMicrotaskCheckpoint()') as () => void

interface Event { at: number, order: number, act: (() => void) | null }

export function createWorld (random: () => number): World {
  const queue: Event[] = []
  let time = 0
  let order = 0

  function before (a: Event, b: Event): boolean {
    return a.at < b.at || (a.at === b.at && a.order < b.order)
  }

  function add (event: Event): void {
    let i = queue.push(event) - 1
    while (i > 0 && before(event, queue[(i - 1) >> 1] as Event)) {
      queue[i] = queue[(i - 1) >> 1] as Event
      i = (i - 1) >> 1
    }
    queue[i] = event
  }

  function take (): Event {
    const first = queue[0] as Event
    const last = queue.pop() as Event
    if (queue.length === 0) return first
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= queue.length) break
      if (child + 1 < queue.length && before(queue[child + 1] as Event, queue[child] as Event)) child++
      if (before(last, queue[child] as Event)) break
      queue[i] = queue[child] as Event
      i = child
    }
    queue[i] = last
    return first
  }

  function after (ms: number, callback: () => void): () => void {
    const event: Event = { at: time + Math.max(0, ms), order: ++order, act: callback }
    add(event)
    return () => { event.act = null }
  }

  return {
    now: () => time,
    random,
    after,
    sleep: ms => new Promise(resolve => { after(ms, resolve) }),
    runUntil: end => new Promise(resolve => {
      setImmediate(() => {
        while (queue.length > 0 && (queue[0] as Event).at <= end) {
          const event = take()
          time = event.at
          if (event.act === null) continue
          event.act()
          settlePromises()
        }
        time = end
        resolve()
      })
    })
  }
}

/** A process that can die, stand still, or be cut off from Redis. */
export interface Process {
  isAlive: boolean
  frozenUntil: number
  cutUntil: number
}

/** What a fleet may not do, and does for once. */
export const FLAWS = [
  'a write without a look at the fence', 'a batch appended twice', 'an undo of whatever call',
  'a token judged by a stale record',
  'an inbox left behind by a claim', 'a token that dies with its first use',
  'a reservation that nobody fills', 'an output above the reservation'
] as const

export type Flaw = 'none' | typeof FLAWS[number]

export interface Network {
  readonly flaw: Flaw
  readonly world: World
  readonly redis: ModelRedis
  /** Redis answers nobody until then. */
  awayUntil: number
  /** How many messages in a hundred never arrive. */
  lossPercent: number
  readonly channels: Map<string, { process: Process, listener: (message: string) => void }>
}

/** Runs a callback of a process, once it runs again. */
export function inProcess (world: World, process: Process, callback: () => void): void {
  if (!process.isAlive) return
  const wait = process.frozenUntil - world.now()
  if (wait > 0) world.after(wait, () => inProcess(world, process, callback))
  else callback()
}

export function createSimulatedPort (network: Network, process: Process): RedisPort {
  const { world, redis, channels } = network
  let lastArrival = 0
  let lastReply = 0
  const delay = (): number => world.random() < 0.03 ? world.random() * 400 : 0.2 + world.random() * 3

  function fail (reject: (error: Error) => void, message: string): void {
    world.after(delay(), () => inProcess(world, process, () => reject(new Error(message))))
  }

  function execute (name: ScriptName, keys: readonly string[], args: readonly Argument[]): Reply | Error {
    try {
      return redis.run(name, keys, args)
    } catch (error) {
      return error as Error
    }
  }

  return {
    async connect () {},

    run: (script, keys, args) => new Promise((resolve, reject) => {
      const away = Math.max(process.cutUntil, network.awayUntil)
      if (away > world.now()) {
        // Half of what is sent into a broken connection lies in a buffer somewhere, and is carried
        // out when nobody expects it.
        if (world.random() < 0.5) {
          world.after(away - world.now() + world.random() * 300, () => { execute(script.name, keys, args) })
        }
        fail(reject, 'Connection is closed.')
        return
      }
      lastArrival = Math.max(lastArrival, world.now() + delay())
      world.after(lastArrival - world.now(), () => {
        const reply = execute(script.name, keys, args)
        if (world.random() < 0.01) {
          fail(reject, 'Connection is closed.')
          return
        }
        lastReply = Math.max(lastReply, world.now() + delay())
        world.after(lastReply - world.now(), () => inProcess(world, process, () => {
          if (reply instanceof Error) reject(reply)
          else resolve(reply)
        }))
      })
    }),

    async publish (channel, message) {
      const target = channels.get(channel)
      if (target === undefined || !target.process.isAlive) return 0
      if (world.random() * 100 >= network.lossPercent) {
        world.after(delay() * 2, () => inProcess(world, target.process, () => target.listener(message)))
      }
      return 1
    },

    async subscribe (channel, listener) { channels.set(channel, { process, listener }) },
    async unsubscribe (channel) { channels.delete(channel) },
    reconnectSubscriber () {},
    async evictionPolicy () { return 'noeviction' },
    async close () {}
  }
}
