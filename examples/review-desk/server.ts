// Starts the desk: `npx tsx examples/review-desk/server.ts`. PORT is where it listens (3000),
// FEED_MS how often a draft comes (6000, 0: never), WORK_MS how long the platform takes for a
// decision (250).

import { setTimeout as delay } from 'node:timers/promises'
import { createReviewDesk } from './app.js'
import { buildPage } from './page-files.js'
import { createPlatform } from './platform.js'

const { PORT = '3000', FEED_MS = '6000', WORK_MS = '250' } = process.env
const DRAIN_MS = 5000

const platform = createPlatform({ work: () => delay(Number(WORK_MS)) })
for (let i = 0; i < 5; i++) platform.feed()

const app = await createReviewDesk({
  platform,
  page: await buildPage(),
  logger: { level: process.env['LOG_LEVEL'] ?? 'warn' }
})
await app.listen({ host: '127.0.0.1', port: Number(PORT) })
const feeding = Number(FEED_MS) === 0 ? undefined : setInterval(() => platform.feed(), Number(FEED_MS))

const { port } = app.server.address() as { port: number }
process.stdout.write(`Review desk: http://127.0.0.1:${port}/\nOperators:   http://127.0.0.1:${port}/sessions\n`)

async function stop (): Promise<void> {
  clearInterval(feeding)
  await app.gateway.drain(DRAIN_MS)
  await app.close()
}
let stopping: Promise<void> | undefined
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => { stopping ??= stop() })
