// Starts the notes: `npx tsx examples/react/server.ts`. PORT is where it listens (3000), NODE_ENV
// which React the page gets (development, where StrictMode repeats every effect).

import { createNotes } from './app.js'

const DRAIN_MS = 5000

const app = await createNotes({ mode: process.env['NODE_ENV'] === 'production' ? 'production' : 'development' })
await app.listen({ host: '127.0.0.1', port: Number(process.env['PORT'] ?? 3000) })
const { port } = app.server.address() as { port: number }
process.stdout.write(`Notes: http://127.0.0.1:${port}/\n`)

async function stop (): Promise<void> {
  await app.gateway.drain(DRAIN_MS)
  await app.close()
}
let stopping: Promise<void> | undefined
for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => { stopping ??= stop() })
