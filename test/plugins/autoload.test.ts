// Holdfast in an application that other tools put together: @fastify/autoload finds the plugins,
// and fastify-cli makes the instance, passes options on and starts it. The plugin file is that of
// docs/api.md, and app.js is the one that fastify-cli generates.

import { spawn } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import autoload from '@fastify/autoload'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { freePort } from '../helpers/free-port.js'
import { readBlocks } from '../helpers/markdown.js'
import { connectFull, injectSocket } from '../helpers/socket.js'

const cli = dirname(createRequire(import.meta.url).resolve('fastify-cli/package.json'))
const documented = readBlocks(readFileSync('docs/api.md', 'utf8'), 'js')
  .find(block => block.startsWith('// plugins/holdfast.js')) as string
const REEXPORT = `export { default } from 'holdfast'
export const autoConfig = { health: true }
`

/** A folder of the checkout, where `holdfast` is the built package. */
function applicationWith (t: Test, files: Record<string, string>): string {
  mkdirSync('.tap', { recursive: true })
  const folder = mkdtempSync(resolve('.tap', 'app-'))
  t.teardown(() => { rmSync(folder, { recursive: true, force: true }) })
  for (const [name, text] of Object.entries({ 'plugins/support.js': SUPPORT, ...files })) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), text)
  }
  cpSync(join(cli, 'templates/app-esm/app.js'), join(folder, 'app.js'))
  mkdirSync(join(folder, 'routes'), { recursive: true })
  return folder
}

const SUPPORT = `import fp from 'fastify-plugin'
export default fp(async app => { app.decorate('someSupport', () => 'hugs') })
`

async function approves (t: Test, app: FastifyInstance, path = '/ws'): Promise<void> {
  const socket = await injectSocket(app, { path, protocols: ['holdfast.v1'] })
  t.teardown(() => socket.ws.terminate())
  t.match(await socket.next(), { type: 'session_created' })
  socket.send({ command: 'review.approve', payload: { draft: 7 }, id: 1 })
  t.match(await socket.next(), { type: 'result', id: 1, payload: { approved: { draft: 7 } } })
}

async function autoloaded (t: Test, folder: string, options: object = {}): Promise<FastifyInstance> {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(autoload, { dir: folder, ...options })
  await app.ready()
  return app
}

t.test('@fastify/autoload loads the documented file among others', async t => {
  const folder = applicationWith(t, { 'plugins/holdfast.js': documented })
  const app = await autoloaded(t, join(folder, 'plugins'))
  t.equal(app.hasDecorator('someSupport'), true)
  await approves(t, app)
})

t.test('@fastify/autoload loads the plugin itself, configured as autoload does it', async t => {
  const app = await autoloaded(t, join(applicationWith(t, { 'plugins/holdfast.js': REEXPORT }), 'plugins'))
  t.equal((await app.inject('/health/live')).statusCode, 200)
  t.equal(app.dispatcher.hasCommand('echo'), true)
})

t.test('the name of a folder is its prefix', async t => {
  const folder = applicationWith(t, { 'routes/rt/holdfast.js': REEXPORT })
  const app = await autoloaded(t, join(folder, 'routes'))
  t.equal((await app.inject('/rt/health/live')).statusCode, 200)
  const socket = await injectSocket(app, { path: '/rt/ws', protocols: ['holdfast.v1'] })
  t.teardown(() => socket.ws.terminate())
  t.match(await socket.next(), { type: 'session_created' })
})

t.test('the test helper of fastify-cli builds the application it generates', async t => {
  const { build } = createRequire(import.meta.url)('fastify-cli/helper.js') as {
    build: (args: string[], config: object) => Promise<FastifyInstance>
  }
  for (const text of [documented, REEXPORT]) {
    const app = await build(
      [join(applicationWith(t, { 'plugins/holdfast.js': text }), 'app.js')], { skipOverride: true }
    )
    t.teardown(() => app.close())
    if (text === documented) await approves(t, app)
    else t.equal((await app.inject('/health/live')).statusCode, 200)
  }
})

t.test('fastify start serves it, and ends it in time while a client is connected', async t => {
  const folder = applicationWith(t, { 'plugins/holdfast.js': documented })
  const port = await freePort()
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(TAP|NODE_)/.test(name)))
  const args = [
    join(cli, 'cli.js'), 'start', '-a', '127.0.0.1', '-p', String(port), '-l', 'info', '-g', '20000', 'app.js'
  ]
  const child = spawn(process.execPath, args, { cwd: folder, env })
  t.teardown(() => { child.kill('SIGKILL') })
  let output = ''
  const exit = new Promise<number | null>(resolve => { child.on('close', resolve) })
  await new Promise<void>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text
        if (output.includes('Server listening')) resolve()
      })
    }
    child.on('close', () => { reject(new Error(output)) })
  })
  const { socket, hello } = await connectFull(`ws://127.0.0.1:${port}/ws`)
  t.equal(hello.type, 'session_created')
  socket.send({ command: 'review.approve', payload: 7, id: 1 })
  t.match(await socket.next(), { type: 'result', payload: { approved: 7 } })
  child.kill('SIGTERM')
  t.match(await socket.nextOf('goodbye'), { payload: { code: 4200, action: 'resume' } })
  t.equal((await socket.nextClose()).code, 4200)
  t.equal(await exit, 0, output)
})
