// A second generator in a process of its own, for loads that ask how others fare meanwhile: its
// clock is not held up by what the first one does.

import { closeCrowd, openCrowd, pacedLoop, type Paced, type Work } from './load.js'
import { SMALL_PAYLOAD } from './lib/context.js'
import { KINDS, type Server } from './lib/servers.js'

export interface PacerOrder {
  kind: string
  port: number
  connections: number
  perSecond: number
}

export interface PacerReport {
  count: number
  p50Ms: number
  p99Ms: number
  worstMs: number
}

const order: PacerOrder = JSON.parse(process.argv[2] ?? '')
const kind = KINDS.find(({ name }) => name === order.kind)
if (kind === undefined) throw new Error(`no server is named ${order.kind}`)

const crowd = await openCrowd({ kind, port: order.port } as Server, order.connections, { payload: SMALL_PAYLOAD })
let paced: Paced | undefined

function report ({ latency }: Work): void {
  process.send?.({
    count: latency.count,
    p50Ms: latency.quantileMs(0.5),
    p99Ms: latency.quantileMs(0.99),
    worstMs: latency.quantileMs(1)
  } satisfies PacerReport)
}

async function obey (message: 'start' | 'stop' | 'end'): Promise<void> {
  if (message === 'start') paced = pacedLoop(crowd, order.perSecond)
  if (message === 'stop' && paced !== undefined) report(await paced.stop())
  if (message === 'end') {
    await closeCrowd(crowd)
    process.exit()
  }
}

process.on('disconnect', () => process.exit())
process.on('message', (message: 'start' | 'stop' | 'end') => { void obey(message) })
process.send?.('ready')
