// The load generator: opens conversations and keeps a server busy with them, all from one thread.
// One generator for every server, thin enough (see lib/conversation.ts) that the server's core is
// full before the generator's is.

import { checkEcho, openConversation, type Conversation, type OpenOptions } from './lib/conversation.js'
import type { Server } from './lib/servers.js'
import { createHistogram, type Histogram } from './lib/stats.js'

export interface Work {
  /** Round trips, deliveries or connections, whatever the load counts. */
  count: number
  latency: Histogram
}

/** Work of which only the count is of interest. */
export function untimed (count: number): Work {
  return { count, latency: createHistogram() }
}

export interface CrowdOptions extends Omit<OpenOptions, 'port' | 'dialect'> {
  /** Handshakes under way at once. */
  concurrency?: number
}

const DEFAULT_CONCURRENCY = 64

function crash (error: Error): void {
  process.nextTick(() => { throw error })
}

/** Calls `step(0)` to `step(count - 1)`, `concurrency` of them at once. */
export async function forAll (
  count: number, concurrency: number, step: (index: number) => Promise<void>
): Promise<void> {
  let next = 0
  async function lane (): Promise<void> {
    while (next < count) await step(next++)
  }
  await Promise.all(Array.from({ length: Math.min(concurrency, count) }, lane))
}

/** Opens `count` conversations. A conversation that ends unexpectedly ends the benchmark. */
export async function openCrowd (server: Server, count: number, options: CrowdOptions = {}): Promise<Conversation[]> {
  const { concurrency = DEFAULT_CONCURRENCY, ...open } = options
  const crowd = new Array<Conversation>(count)
  await forAll(count, concurrency, async index => {
    crowd[index] = await openConversation({
      onFailure: crash,
      ...open,
      port: server.port,
      dialect: server.kind.dialect
    })
  })
  return crowd
}

/** Sends one command on each conversation and compares what comes back. */
export async function checkCrowd (crowd: readonly Conversation[], payload: string): Promise<void> {
  await forAll(crowd.length, DEFAULT_CONCURRENCY, index => checkEcho(crowd[index]!, payload))
}

export async function closeCrowd (crowd: readonly Conversation[]): Promise<void> {
  await forAll(crowd.length, DEFAULT_CONCURRENCY, index => crowd[index]!.close())
}

/** Drops every connection without a close frame. */
export async function dropCrowd (crowd: readonly Conversation[]): Promise<void> {
  await Promise.all(crowd.map(conversation => conversation.drop()))
}

/** Times of the commands under way on one conversation, oldest first. */
interface Pending {
  readonly sentAtMs: Float64Array
  first: number
}

/**
 * Each conversation keeps `depth` commands outstanding; replies of one read are answered by as many
 * commands in one write.
 */
export function closedLoop (crowd: readonly Conversation[], depth: number, durationMs: number): Promise<Work> {
  const latency = createHistogram()
  let outstanding = crowd.length * depth
  let isOver = false

  return new Promise(resolve => {
    for (const conversation of crowd) {
      const pending: Pending = { sentAtMs: new Float64Array(depth).fill(performance.now()), first: 0 }
      conversation.onReplies = replies => {
        const nowMs = performance.now()
        for (let i = 0; i < replies; i++) {
          latency.add(nowMs - pending.sentAtMs[pending.first]!)
          pending.sentAtMs[pending.first] = nowMs
          pending.first = (pending.first + 1) % depth
        }
        if (!isOver) return conversation.sendCommands(replies)
        outstanding -= replies
        if (outstanding === 0) resolve({ count: latency.count, latency })
      }
      conversation.sendCommands(depth)
    }
    setTimeout(() => { isOver = true }, durationMs)
  })
}

export interface Paced {
  /** Ends the pace; resolves once every command has been answered. */
  stop(): Promise<Work>
}

/**
 * Sends commands at a steady pace, whatever the server does, taking turns among the conversations.
 * Latency counts from the time a command was due, so a server that stalls is charged for the
 * commands that waited.
 */
export function pacedLoop (crowd: readonly Conversation[], perSecond: number): Paced {
  const latency = createHistogram()
  const startedAtMs = performance.now()
  const dueAtMs = crowd.map((): number[] => [])
  let sent = 0
  let isOver = false
  let whenDone: ((work: Work) => void) | undefined

  crowd.forEach((conversation, index) => {
    conversation.onReplies = replies => {
      const nowMs = performance.now()
      for (const dueMs of dueAtMs[index]!.splice(0, replies)) latency.add(nowMs - dueMs)
      if (isOver && latency.count === sent) whenDone?.({ count: sent, latency })
    }
  })

  function sendDue (): void {
    const due = (performance.now() - startedAtMs) * perSecond / 1000
    for (; sent < due; sent++) {
      const index = sent % crowd.length
      dueAtMs[index]!.push(startedAtMs + sent * 1000 / perSecond)
      crowd[index]!.sendCommands(1)
    }
  }
  const timer = setInterval(sendDue, 1)

  return {
    stop () {
      clearInterval(timer)
      isOver = true
      return new Promise(resolve => {
        whenDone = resolve
        if (latency.count === sent) resolve({ count: sent, latency })
      })
    }
  }
}

/**
 * Broadcasts `times` messages, each once the last client has the one before. Latency is the time to
 * the last client.
 */
export async function broadcastTo (
  server: Server, crowd: readonly Conversation[], payload: string, times: number
): Promise<Work> {
  const latency = createHistogram()
  let missing = 0
  let onLast: () => void = () => {}
  for (const conversation of crowd) {
    conversation.onPushes = pushes => {
      missing -= pushes
      if (missing === 0) onLast()
    }
  }
  for (let i = 0; i < times; i++) {
    const sentAtMs = performance.now()
    missing = crowd.length
    const whenLast = new Promise<void>(resolve => { onLast = resolve })
    await Promise.all([server.broadcast(payload), whenLast])
    latency.add(performance.now() - sentAtMs)
  }
  return { count: crowd.length * times, latency }
}
