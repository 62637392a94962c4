// What does a resume cost, with nothing and with 100 outputs to replay? The yardstick is a fresh
// connection to the bare server.

import { SMALL_PAYLOAD, type Context, type Load } from '../lib/context.js'
import { openConversation, type Conversation } from '../lib/conversation.js'
import { profileTurns } from '../lib/cpu-profile.js'
import { startServer, type Server } from '../lib/servers.js'
import { createHistogram } from '../lib/stats.js'
import { measure, pairedTurns, summarise, type Measured, type Row, type Turn } from '../lib/turns.js'
import { broadcastTo, closeCrowd, dropCrowd, forAll, openCrowd, untimed } from '../load.js'

const SESSIONS = 2000
const QUICK_SESSIONS = 100
const CONCURRENCY = 64

/**
 * Replaces each conversation of a dropped crowd by its resumption from `seq`; the latency is from
 * the TCP handshake to the frame `live`.
 */
export async function resumeCrowd (
  server: Server, crowd: Conversation[], seqOf: (dropped: Conversation) => number, concurrency = CONCURRENCY
): Promise<Measured> {
  return await measure(server, async () => {
    const latency = createHistogram()
    await forAll(crowd.length, concurrency, async index => {
      const dropped = crowd[index]!
      const { sessionId, resumeToken } = dropped
      const sentAtMs = performance.now()
      const resumed = await openConversation({
        port: server.port, dialect: dropped.dialect, resume: { sessionId, resumeToken, seq: seqOf(dropped) }
      })
      if (resumed.sessionId !== sessionId) throw new Error(`${sessionId} was not resumed`)
      latency.add(performance.now() - sentAtMs)
      crowd[index] = resumed
    })
    return { count: crowd.length, latency }
  })
}

function connectTurn (server: Server, sessions: number): Turn {
  return async () => {
    let crowd: Conversation[] = []
    const measured = await measure(server, async () => {
      crowd = await openCrowd(server, sessions)
      return untimed(sessions)
    })
    await closeCrowd(crowd)
    return measured
  }
}

async function runResume (outputs: number, context: Context): Promise<Row[]> {
  const sessions = context.isQuick ? QUICK_SESSIONS : SESSIONS
  const yardstick = await startServer(context.yardstick)
  const rows: Row[] = []
  for (const kind of context.candidates) {
    const server = await startServer(kind)
    const crowd = await openCrowd(server, sessions)
    await broadcastTo(server, crowd, SMALL_PAYLOAD, outputs)
    async function turn (): Promise<Measured> {
      await dropCrowd(crowd)
      // No client has acknowledged anything, so resuming from 0 replays all of it, turn after turn.
      return await resumeCrowd(server, crowd, () => 0)
    }
    const pairs = await pairedTurns(context.turns, connectTurn(yardstick, sessions), turn)
    const replayed = crowd.reduce((sum, { seq }) => sum + seq, 0)
    if (replayed !== sessions * outputs) {
      throw new Error(`${replayed} outputs were replayed instead of ${sessions * outputs}`)
    }
    await profileTurns(`resume${outputs}`, server, turn, context)
    rows.push({ server: 'ws, connect', figures: summarise(pairs.yardstick, pairs.yardstick) })
    rows.push({ server: `${kind.name}, resume`, figures: summarise(pairs.candidate, pairs.yardstick) })
    await dropCrowd(crowd)
    await server.stop()
  }
  await yardstick.stop()
  return rows
}

function resume (outputs: number): Load {
  return {
    name: `resume${outputs}`,
    question: `resume 2,000 sessions, 64 at once, with ${outputs} outputs to replay to each`,
    servers: ['holdfast'],
    run: context => runResume(outputs, context)
  }
}

export const resumeLoads: readonly Load[] = [resume(0), resume(100)]
