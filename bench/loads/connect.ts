// What does a connection cost? From the TCP handshake to the first frame of the conversation, and
// its end by the protocol, on a server that has served thousands before.

import type { Context, Load } from '../lib/context.js'
import type { Conversation } from '../lib/conversation.js'
import { profileTurns } from '../lib/cpu-profile.js'
import { startServer, type Server } from '../lib/servers.js'
import { median } from '../lib/stats.js'
import { measure, pairedTurns, summarise, type Measured, type Row, type Turn } from '../lib/turns.js'
import { closeCrowd, openCrowd, untimed } from '../load.js'

const CONNECTIONS = 5000
const QUICK_CONNECTIONS = 300

/**
 * Connects and closes a crowd; the turn's figures are those of connecting, disconnects go to a list
 * of their own.
 */
function createTurn (server: Server, connections: number, disconnects: Measured[]): Turn {
  return async () => {
    let crowd: Conversation[] = []
    const connected = await measure(server, async () => {
      crowd = await openCrowd(server, connections)
      return untimed(connections)
    })
    disconnects.push(await measure(server, async () => {
      await closeCrowd(crowd)
      return untimed(connections)
    }))
    return connected
  }
}

function figuresOf (
  connects: readonly Measured[], against: readonly Measured[], disconnects: readonly Measured[]
): Row['figures'] {
  const { 'p50 ms': _p50, 'p99 ms': _p99, ...figures } = summarise(connects, against)
  return { ...figures, 'disconnect us': median(disconnects.map(({ cpuUs }) => cpuUs)) }
}

async function run (context: Context): Promise<Row[]> {
  const connections = context.isQuick ? QUICK_CONNECTIONS : CONNECTIONS
  const yardstick = await startServer(context.yardstick)
  const baseline: Measured[] = []
  const baselineDisconnects: Measured[] = []
  const rows: Row[] = []
  for (const kind of context.candidates) {
    const server = await startServer(kind)
    const disconnects: Measured[] = []
    const turn = createTurn(server, connections, disconnects)
    const pairs = await pairedTurns(context.turns, createTurn(yardstick, connections, baselineDisconnects), turn)
    baseline.push(...pairs.yardstick)
    rows.push({ server: kind.name, figures: figuresOf(pairs.candidate, pairs.yardstick, disconnects) })
    await profileTurns(connectLoad.name, server, turn, context)
    await server.stop()
  }
  await yardstick.stop()
  return [{ server: context.yardstick.name, figures: figuresOf(baseline, baseline, baselineDisconnects) }, ...rows]
}

export const connectLoad: Load = {
  name: 'connect',
  question: 'connect, open a session and receive its first frame, 5,000 times, 64 at once',
  servers: ['fastify', 'socketio', 'socketio-recovery', 'holdfast', 'holdfast-basic'],
  run,
  async prepare (kind, isQuick) {
    const server = await startServer(kind)
    return {
      server,
      turn: createTurn(server, isQuick ? QUICK_CONNECTIONS : CONNECTIONS, []),
      finish: () => server.stop()
    }
  }
}
