// Notes that several people share, in a Fastify application with the Holdfast plugins, and the page
// that shows them.

import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import Fastify, { type FastifyInstance } from 'fastify'
import dispatcher from '../../plugins/dispatcher.js'
import operatorAuth from '../../plugins/operator-auth.js'
import sessionManager from '../../plugins/session-manager.js'
import sessionsApi from '../../plugins/sessions-api.js'
import websocketGateway from '../../plugins/websocket-gateway.js'
import { HoldfastError } from '../../src/io/errors.js'
import { createCommands } from './commands.js'

const USERS = ['ada', 'ben']

const here = (name: string): string => fileURLToPath(new URL(`./page/${name}`, import.meta.url))

export interface NotesOptions {
  /** Entry of the page's script. Default: `page/main.tsx`. */
  readonly entry?: string
  /** Which build of React the page gets: StrictMode repeats effects in `development` only. */
  readonly mode?: 'development' | 'production'
}

/** The application, loaded and not listening. */
export async function createNotes (options: NotesOptions = {}): Promise<FastifyInstance> {
  const { entry = here('main.tsx'), mode = 'production' } = options
  const html = await readFile(here('index.html'), 'utf8')
  const script = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: 'esm',
    target: 'es2022',
    jsx: 'automatic',
    jsxDev: mode === 'development',
    define: { 'process.env.NODE_ENV': JSON.stringify(mode) },
    minify: mode === 'production',
    logLevel: 'silent'
  })

  const app = Fastify()
  await app.register(sessionManager)
  await app.register(dispatcher, { builtinCommands: false })
  await app.register(websocketGateway, {
    // A stand-in: the name is the whole proof. A real application verifies a token here, or a
    // cookie.
    authenticate ({ token }) {
      if (token === undefined || !USERS.includes(token)) throw new HoldfastError('UNAUTHENTICATED')
      return { userId: token }
    }
  })
  app.dispatcher.commands(createCommands(note => { app.dispatcher.send({ all: true }, 'note.added', note) }))
  await app.register(operatorAuth, { host: '127.0.0.1' })
  await app.register(sessionsApi)

  app.get('/', async (_request, reply) => reply.type('text/html; charset=utf-8').send(html))
  app.get('/main.js', async (_request, reply) =>
    reply.type('text/javascript; charset=utf-8').send(script.outputFiles[0]?.text))
  return app
}
