// Talks to server.ts with its types: `npx tsx examples/minimal/client.ts`. Cut the network
// meanwhile, and it goes on where it was.

import { WebSocket } from 'ws'
import { connect, type CommandError } from '../../src/client/client.js'
import type { commands, events } from './server.js'

const session = connect<typeof commands, typeof events>(process.env['URL'] ?? 'ws://127.0.0.1:3000/ws', { WebSocket })

session.onMessage('approved', ({ draft }) => console.log(`approved draft ${draft}`))

const { draft, record } = await session.send('draft.approve', { draft: 7 })
console.log(`answer: draft ${draft}, recorded as ${record}`)

await session.send('draft.approve', { draft: 0 }).catch((error: CommandError) => console.log(`refused: ${error.code}`))
session.close()
