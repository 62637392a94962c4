// One typed command in a Holdfast server: `npx tsx examples/minimal/server.ts`. In a project of
// your own, import from 'holdfast'.

import { Type } from 'typebox'
import { buildApp, commandError, configWith, defineCommand } from '../../src/index.js'

let recorded = 0

export const events = { approved: Type.Object({ draft: Type.Integer() }) }

export const commands = {
  'draft.approve': defineCommand({
    payload: Type.Object({ draft: Type.Integer() }),
    result: Type.Object({ draft: Type.Integer(), record: Type.Integer() })
  }, ({ payload: { draft }, session }) => {
    if (draft < 1) throw commandError('NO_SUCH_DRAFT', `There is no draft ${draft}.`)
    session.send('approved', { draft })
    return { draft, record: ++recorded }
  })
}

const app = await buildApp(configWith({ logLevel: 'error' }))
app.dispatcher.commands(commands)
await app.listen({ host: '127.0.0.1', port: Number(process.env['PORT'] ?? 3000) })
const { port } = app.server.address() as { port: number }
process.stdout.write(`ws://127.0.0.1:${port}/ws\n`)
