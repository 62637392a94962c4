// What does a round trip cost? A fixed number of conversations, each with a fixed number of
// commands outstanding, or all together at a steady pace.

import { setTimeout as delay } from 'node:timers/promises'
import { KIB_PAYLOAD, SMALL_PAYLOAD, type Context, type Load, type Ready } from '../lib/context.js'
import type { Conversation } from '../lib/conversation.js'
import { profileTurns } from '../lib/cpu-profile.js'
import { startServer, type ServerKind } from '../lib/servers.js'
import { measure, pairedTurns, summarise, type Measured, type Row } from '../lib/turns.js'
import { checkCrowd, closedLoop, dropCrowd, openCrowd, pacedLoop, type Work } from '../load.js'

type Loop = (crowd: readonly Conversation[], durationMs: number) => Promise<Work>

interface EchoOptions {
  connections: number
  loop: Loop
  payload: string
}

/** `depth` commands outstanding on each connection, as fast as the server answers. */
function outstanding (depth: number): Loop {
  return (crowd, durationMs) => closedLoop(crowd, depth, durationMs)
}

/** A steady pace over all connections together, well below what a server can do. */
function paced (perSecond: number): Loop {
  return async (crowd, durationMs) => {
    const pace = pacedLoop(crowd, perSecond)
    await delay(durationMs)
    return await pace.stop()
  }
}

const TURN_MS = 700
const QUICK_TURN_MS = 200
const WARM_UP_MS = 1500

async function prepare (
  kind: ServerKind, { connections, loop, payload }: EchoOptions, isQuick: boolean
): Promise<Ready> {
  const server = await startServer(kind)
  const crowd = await openCrowd(server, connections, { payload })
  await checkCrowd(crowd, payload)
  await loop(crowd, isQuick ? QUICK_TURN_MS : WARM_UP_MS)
  const turnMs = isQuick ? QUICK_TURN_MS : TURN_MS
  return {
    server,
    turn: () => measure(server, () => loop(crowd, turnMs)),
    async finish () {
      await dropCrowd(crowd)
      await server.stop()
    }
  }
}

async function runEcho (name: string, options: EchoOptions, context: Context): Promise<Row[]> {
  const yardstick = await prepare(context.yardstick, options, context.isQuick)
  const baseline: Measured[] = []
  const rows: Row[] = []
  for (const kind of context.candidates) {
    const candidate = await prepare(kind, options, context.isQuick)
    const pairs = await pairedTurns(context.turns, yardstick.turn, candidate.turn)
    baseline.push(...pairs.yardstick)
    rows.push({ server: kind.name, figures: summarise(pairs.candidate, pairs.yardstick) })
    await profileTurns(name, candidate.server, candidate.turn, context)
    await candidate.finish()
  }
  await profileTurns(name, yardstick.server, yardstick.turn, context)
  await yardstick.finish()
  return [{ server: context.yardstick.name, figures: summarise(baseline, baseline) }, ...rows]
}

function echo (name: string, question: string, options: EchoOptions): Load {
  return {
    name,
    question,
    servers: [
      'fastify', 'socketio', 'socketio-recovery', 'holdfast', 'holdfast-basic', 'holdfast-mute', 'holdfast-embedded',
      'holdfast-embedded-disk'
    ],
    run: context => runEcho(name, options, context),
    prepare: (kind, isQuick) => prepare(kind, options, isQuick)
  }
}

export const echoLoads: readonly Load[] = [
  echo('echo50', '50 connections, 1 command outstanding', {
    connections: 50, loop: outstanding(1), payload: SMALL_PAYLOAD
  }),
  echo('echo500', '500 connections, 1 command outstanding', {
    connections: 500, loop: outstanding(1), payload: SMALL_PAYLOAD
  }),
  echo('pipe50x16', '50 connections, 16 commands outstanding', {
    connections: 50, loop: outstanding(16), payload: SMALL_PAYLOAD
  }),
  echo('kb50', '50 connections, 1 command outstanding, 1 KiB of payload', {
    connections: 50, loop: outstanding(1), payload: KIB_PAYLOAD
  }),
  echo('paced50', '50 connections, 2,000 commands/s in all', {
    connections: 50, loop: paced(2000), payload: SMALL_PAYLOAD
  })
]
