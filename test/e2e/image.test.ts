// What deploy/Dockerfile does, done without Docker: its files are copied to an empty folder, its
// commands run there, and what the last stage takes along has to serve.

import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { readDockerfile, textsOf, type Stage } from '../helpers/dockerfile.js'
import { freePort } from '../helpers/free-port.js'
import { spawnProgram } from '../helpers/program.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const [build, image] = readDockerfile(readFileSync(join(ROOT, 'deploy/Dockerfile'), 'utf8')) as [Stage, Stage]

function bareEnv (): Record<string, string | undefined> {
  const inherited = Object.entries(process.env)
    .filter(([name]) => !/^(TAP|NODE_OPTIONS|NODE_V8|HOLDFAST_|HOST$|PORT$|npm_)/.test(name))
  return Object.fromEntries(inherited)
}

function copy (words: string[], from: string, to: string): void {
  const target = words.pop() as string
  for (const source of words) {
    const name = source.replace(/^\/app\//, '')
    cpSync(join(from, name), target === './' ? join(to, name) : join(to, target), { recursive: true })
  }
}

t.test('the commands of the Dockerfile make an image that serves', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-image-'))
  t.teardown(() => { rmSync(folder, { recursive: true, force: true }) })
  const [workshop, app] = [join(folder, 'build'), join(folder, 'app')]
  for (const path of [workshop, app]) mkdirSync(path)
  for (const { name, text } of build.instructions) {
    if (name === 'COPY') copy(text.split(' '), ROOT, workshop)
    if (name === 'RUN') {
      const command = text.replace('npm ci', 'npm ci --prefer-offline')
      execFileSync('sh', ['-e', '-c', command], {
        cwd: workshop, env: bareEnv(), stdio: ['ignore', 'ignore', 'inherit']
      })
    }
  }
  for (const text of textsOf(image, 'COPY')) copy(text.replace('--from=build ', '').split(' '), workshop, app)
  // What sets the owner and the link needs the root of a container.
  const [chmod] = (textsOf(image, 'RUN')[0] as string).split('&&')
  execFileSync('sh', ['-e', '-c', chmod as string], { cwd: app })
  const holdfast = join(app, 'dist/src/server.js')
  const port = await freePort()
  const settings = { PORT: String(port), HOLDFAST_DATA_DIR: join(folder, 'data') }
  const env = { ...bareEnv(), ...settings, NODE_ENV: 'production' }
  t.match(
    spawnSync(holdfast, ['--check-config'], { cwd: app, env, encoding: 'utf8' }), { status: 0, stdout: '', stderr: '' }
  )
  const [, flag] = JSON.parse(
    /CMD (\[.*\])$/.exec(textsOf(image, 'HEALTHCHECK')[0] as string)?.[1] as string
  ) as string[]
  const check = () => spawnSync(holdfast, [flag as string], { cwd: app, env, encoding: 'utf8' })
  t.match(check(), { status: 1 }, 'nobody is there yet')
  const server = spawnProgram(t, holdfast, [], { cwd: app, env })
  await server.until('listening', () => server.output().includes('Server listening'))
  t.match(check(), { status: 0, stdout: `http://127.0.0.1:${port}/health/live answered 200.\n` })
  server.child.kill('SIGTERM')
  t.same(await server.exit, { code: 0, signal: null })
})
