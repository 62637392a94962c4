// What does a conversation cost that says nothing? Memory after garbage collection, and the CPU
// time of heartbeats.

import { setTimeout as delay } from 'node:timers/promises'
import type { Context, Load } from '../lib/context.js'
import type { Conversation } from '../lib/conversation.js'
import { startServer, type Server, type ServerKind } from '../lib/servers.js'
import type { Figures, Row } from '../lib/turns.js'
import { closeCrowd, dropCrowd, openCrowd } from '../load.js'

const STEPS = [1000, 5000, 10_000]
const QUICK_STEPS = [100, 300, 500]
const WARM_UP_CONNECTIONS = 1000
const QUICK_WARM_UP_CONNECTIONS = 50
/** Sockets that were closed are freed some turns of the loop later. */
const SETTLE_MS = 500
const KIB = 1024

interface Sample {
  connections: number
  heapKib: number
  rssKib: number
}

async function sample (server: Server, connections: number): Promise<Sample> {
  await delay(SETTLE_MS)
  const { heapUsedBytes, externalBytes, rssBytes } = await server.memory()
  return { connections, heapKib: (heapUsedBytes + externalBytes) / KIB, rssKib: rssBytes / KIB }
}

function perConnection (of: Sample, empty: Sample, member: 'heapKib' | 'rssKib'): number {
  return (of[member] - empty[member]) / (of.connections - empty.connections)
}

/**
 * Per connection above the empty server, and as a slope between the first and the last step, which
 * is free of what a process grows by warming up.
 */
function figuresOf (samples: readonly Sample[]): Figures {
  const [empty, first] = samples
  const last = samples.at(-1)
  if (empty === undefined || first === undefined || last === undefined) throw new RangeError('too few samples')
  const figures: Figures = { 'empty rss MiB': empty.rssKib / KIB }
  for (const each of samples.slice(1)) figures[`rss KiB at ${each.connections}`] = perConnection(each, empty, 'rssKib')
  figures['rss slope'] = perConnection(last, first, 'rssKib')
  for (const each of samples.slice(1)) {
    figures[`heap KiB at ${each.connections}`] = perConnection(each, empty, 'heapKib')
  }
  figures['heap slope'] = perConnection(last, first, 'heapKib')
  return figures
}

async function memoryOf (kind: ServerKind, isDetached: boolean, isQuick: boolean): Promise<Row> {
  const server = await startServer(kind)
  await closeCrowd(await openCrowd(server, isQuick ? QUICK_WARM_UP_CONNECTIONS : WARM_UP_CONNECTIONS))
  const samples = [await sample(server, 0)]
  const crowd: Conversation[] = []
  for (const connections of isQuick ? QUICK_STEPS : STEPS) {
    const more = await openCrowd(server, connections - crowd.length)
    crowd.push(...more)
    if (isDetached) await dropCrowd(more)
    samples.push(await sample(server, connections))
  }
  if (!isDetached) await dropCrowd(crowd)
  await server.stop()
  return { server: `${kind.name}${isDetached ? ', detached' : ''}`, figures: figuresOf(samples) }
}

async function runMemory (context: Context): Promise<Row[]> {
  const rows: Row[] = []
  for (const kind of [context.yardstick, ...context.candidates]) {
    rows.push(await memoryOf(kind, false, context.isQuick))
    if (kind.name === 'holdfast') rows.push(await memoryOf(kind, true, context.isQuick))
  }
  return rows
}

const HEARTBEAT_SECONDS = 5
const HEARTBEATS_WATCHED = 3

async function heartbeatsOf (kind: ServerKind, isQuick: boolean): Promise<Row> {
  const seconds = String(HEARTBEAT_SECONDS)
  const server = await startServer(
    kind, kind.name.startsWith('holdfast') ? { HOLDFAST_HEARTBEAT_SECONDS: seconds } : { HEARTBEAT_SECONDS: seconds }
  )
  const connections = isQuick ? QUICK_STEPS.at(-1)! : STEPS.at(-1)!
  const crowd = await openCrowd(server, connections)
  await delay(HEARTBEAT_SECONDS * 1000)
  const watchedSeconds = HEARTBEAT_SECONDS * (isQuick ? 1 : HEARTBEATS_WATCHED)
  const before = await server.cpuUs()
  await delay(watchedSeconds * 1000)
  const spentUs = await server.cpuUs() - before
  await dropCrowd(crowd)
  await server.stop()
  return {
    server: kind.name,
    figures: {
      'CPU ms per s': spentUs / 1000 / watchedSeconds,
      'us per heartbeat': spentUs / (connections * watchedSeconds / HEARTBEAT_SECONDS)
    }
  }
}

async function runHeartbeats (context: Context): Promise<Row[]> {
  const rows: Row[] = []
  for (const kind of [context.yardstick, ...context.candidates]) rows.push(await heartbeatsOf(kind, context.isQuick))
  return rows
}

export const idleLoads: readonly Load[] = [
  {
    name: 'idle-memory',
    question: 'memory per idle connection above the empty server, after garbage collection',
    servers: ['fastify', 'socketio', 'socketio-recovery', 'holdfast', 'holdfast-basic'],
    run: runMemory
  },
  {
    name: 'idle-cpu',
    question: `10,000 idle connections, a heartbeat every ${HEARTBEAT_SECONDS} s`,
    servers: ['socketio', 'holdfast', 'holdfast-basic'],
    run: runHeartbeats
  }
]
