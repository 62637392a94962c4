// What does a delivery cost when one message goes to 5,000 sessions? Counted until the last client
// has it and, where there are acknowledgements, until the server has dealt with them.

import { setTimeout as delay } from 'node:timers/promises'
import { SMALL_PAYLOAD, type Context, type Load, type Ready } from '../lib/context.js'
import { profileTurns } from '../lib/cpu-profile.js'
import { startServer, type ServerKind } from '../lib/servers.js'
import { measure, pairedTurns, summarise, type Measured, type Row } from '../lib/turns.js'
import { broadcastTo, dropCrowd, openCrowd } from '../load.js'

const SESSIONS = 5000
const QUICK_SESSIONS = 500
const BROADCASTS = 10
/**
 * Acknowledgements leave after the delivery they answer; the server is given this long to read
 * them.
 */
const SETTLE_MS = 30

async function prepare (kind: ServerKind, ackEvery: number, isQuick: boolean): Promise<Ready> {
  const server = await startServer(kind)
  const crowd = await openCrowd(server, isQuick ? QUICK_SESSIONS : SESSIONS, { ackEvery })
  return {
    server,
    turn: () => measure(server, async () => {
      const work = await broadcastTo(server, crowd, SMALL_PAYLOAD, BROADCASTS)
      await delay(SETTLE_MS)
      return work
    }),
    async finish () {
      await dropCrowd(crowd)
      await server.stop()
    }
  }
}

/**
 * How often the clients of a server acknowledge: Socket.IO's whenever asked, Holdfast's by the
 * choice of the client.
 */
function ackChoices ({ name, dialect }: ServerKind): readonly number[] {
  if (name === 'socketio-acks') return [1]
  return name.startsWith('holdfast') && dialect.acks ? [1, 10] : [0]
}

async function run (context: Context): Promise<Row[]> {
  const yardstick = await prepare(context.yardstick, 0, context.isQuick)
  const baseline: Measured[] = []
  const rows: Row[] = []
  for (const kind of context.candidates) {
    for (const ackEvery of ackChoices(kind)) {
      const candidate = await prepare(kind, ackEvery, context.isQuick)
      const pairs = await pairedTurns(context.turns, yardstick.turn, candidate.turn)
      baseline.push(...pairs.yardstick)
      rows.push({
        server: `${kind.name}${ackEvery > 0 ? `, ack of every ${ackEvery}` : ''}`,
        figures: summarise(pairs.candidate, pairs.yardstick)
      })
      await profileTurns(pushLoad.name, candidate.server, candidate.turn, context)
      await candidate.finish()
    }
  }
  await yardstick.finish()
  return [{ server: context.yardstick.name, figures: summarise(baseline, baseline) }, ...rows]
}

export const pushLoad: Load = {
  name: 'push5000',
  question: 'one message to each of 5,000 sessions, per delivery; latency is the time to the last client',
  servers: ['fastify', 'socketio', 'socketio-acks', 'socketio-recovery', 'holdfast', 'holdfast-basic', 'holdfast-mute'],
  run,
  prepare: (kind, isQuick) => prepare(kind, ackChoices(kind).at(-1) ?? 0, isQuick)
}
