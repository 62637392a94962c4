// Do others notice? 20 conversations send commands at a steady pace while the server broadcasts to
// 10,000 sessions, or while 10,000 clients come back at once. A process of its own paces them and
// times them; it shares a core with the generator of the crowd, so the figures contain some waiting
// for that core, the same for every server.

import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { setTimeout as delay } from 'node:timers/promises'
import { SMALL_PAYLOAD, type Context, type Load } from '../lib/context.js'
import type { Conversation } from '../lib/conversation.js'
import { startServer, type Server, type ServerKind } from '../lib/servers.js'
import { measure, type Figures, type Row } from '../lib/turns.js'
import type { PacerOrder, PacerReport } from '../pacer.js'
import { broadcastTo, dropCrowd, openCrowd, untimed } from '../load.js'
import { resumeCrowd } from './resume.js'

const CROWD = 10_000
const QUICK_CROWD = 500
const PACED_CONNECTIONS = 20
const PACED_PER_SECOND = 1000
const QUIET_MS = 2000
const BROADCASTS = 20
/** As many clients as knock at once when a load balancer drops them all. */
const STORM_CONCURRENCY = 500

interface Pacer {
  /** How the paced commands fared while `work` was under way. */
  during(work: () => Promise<unknown>): Promise<PacerReport>
  end(): Promise<void>
}

async function startPacer (server: Server): Promise<Pacer> {
  const order: PacerOrder = {
    kind: server.kind.name, port: server.port, connections: PACED_CONNECTIONS, perSecond: PACED_PER_SECOND
  }
  const child: ChildProcess = fork(fileURLToPath(new URL('../pacer.js', import.meta.url)), [JSON.stringify(order)])
  await once(child, 'message')
  return {
    async during (work) {
      child.send('start')
      await work()
      const answered = once(child, 'message')
      child.send('stop')
      const [report] = await answered
      return report as PacerReport
    },
    async end () {
      const ended = once(child, 'exit')
      child.send('end')
      await ended
    }
  }
}

function latencies (when: string, { p50Ms, p99Ms, worstMs }: PacerReport): Figures {
  return { [`${when} p50 ms`]: p50Ms, [`${when} p99 ms`]: p99Ms, [`${when} worst ms`]: worstMs }
}

type Disturbance = (server: Server, crowd: Conversation[]) => Promise<Figures>

async function disturb (kind: ServerKind, isQuick: boolean, disturbance: Disturbance): Promise<Row> {
  const server = await startServer(kind)
  const crowd = await openCrowd(server, isQuick ? QUICK_CROWD : CROWD)
  const pacer = await startPacer(server)
  await pacer.during(() => delay(QUIET_MS))
  const quiet = await pacer.during(() => delay(QUIET_MS))
  let figures: Figures = {}
  const disturbed = await pacer.during(async () => { figures = await disturbance(server, crowd) })
  await pacer.end()
  await dropCrowd(crowd)
  await server.stop()
  return {
    server: kind.name,
    figures: { ...latencies('quiet', quiet), ...latencies('disturbed', disturbed), ...figures }
  }
}

async function broadcasts (server: Server, crowd: Conversation[]): Promise<Figures> {
  // The paced sessions get the broadcast as well and are not waited for.
  const { latency } = await broadcastTo(server, crowd, SMALL_PAYLOAD, BROADCASTS)
  return { 'ms to the last of 10,000': latency.quantileMs(0.5) }
}

/** All clients vanish and come back: with a resume where there is one, else as new connections. */
async function storm (server: Server, crowd: Conversation[]): Promise<Figures> {
  await dropCrowd(crowd)
  const { cpuUs, perSecond } = server.kind.canResume === true
    ? await resumeCrowd(server, crowd, ({ seq }) => seq, STORM_CONCURRENCY)
    : await measure(server, async () => {
      crowd.splice(0, crowd.length, ...await openCrowd(server, crowd.length, { concurrency: STORM_CONCURRENCY }))
      return untimed(crowd.length)
    })
  return { 'us per return': cpuUs, 'returns per s': perSecond }
}

function interference (name: string, question: string, disturbance: Disturbance): Load {
  return {
    name,
    question,
    servers: ['fastify', 'socketio', 'holdfast'],
    async run (context: Context) {
      const rows: Row[] = []
      for (const kind of [context.yardstick, ...context.candidates]) {
        rows.push(await disturb(kind, context.isQuick, disturbance))
      }
      return rows
    }
  }
}

export const interferenceLoads: readonly Load[] = [
  interference(
    'broadcast',
    `${PACED_PER_SECOND} commands/s of others while ${BROADCASTS} broadcasts go to 10,000 sessions`,
    broadcasts
  ),
  interference(
    'storm',
    `${PACED_PER_SECOND} commands/s of others while 10,000 clients are dropped and come back, ${STORM_CONCURRENCY} ` +
      'at once',
    storm
  )
]
