// Sessions that outlive their server: the built program over a data directory, killed and started
// again.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import WebSocket from 'ws'
import t, { type Test } from 'tap'
import { connect } from '../../src/client/client.js'
import { freePort } from '../helpers/free-port.js'
import { eventually, startServer, type ServerProcess } from '../helpers/server.js'
import { connectFull, resumeEntry } from '../helpers/socket.js'

function dataDirectory (t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-'))
  t.teardown(() => { rmSync(directory, { recursive: true, force: true }) })
  return join(directory, 'data')
}

async function start (t: Test, env: Record<string, string>): Promise<ServerProcess> {
  const server = await startServer({ HOLDFAST_UPGRADES_PER_MINUTE: '100000', ...env })
  t.teardown(async () => { await server.stop('SIGKILL') })
  return server
}

t.test('G4 kill -9: session, context, held outputs and numbers are there again', async t => {
  const env = { HOLDFAST_DATA_DIR: dataDirectory(t) }
  const first = await start(t, env)
  const { socket, hello } = await connectFull(first.wsUrl)
  socket.send({ command: 'context.set', id: 1, payload: { draft: 7 } })
  const { seq } = await socket.nextOf('result')
  await first.stop('SIGKILL')
  const second = await start(t, env)
  t.match(second.lines.find(line => line.msg === 'session store opened'), { sessions: 1, unknownOutcomes: 0 })
  const { socket: again, hello: resumed } = await connectFull(second.wsUrl, [resumeEntry(hello, 0)])
  t.match(resumed, {
    type: 'session_resumed',
    payload: { sessionId: hello.payload.sessionId, lastCommand: 1, replay: { from: seq, to: seq } }
  })
  t.match(await again.next(), { type: 'result', id: 1, seq, payload: { draft: 7 } })
  const view = await fetch(`${second.url}/sessions/${hello.payload.sessionId as string}`)
  t.match(await view.json(), { state: 'active', context: { draft: 7 } })
  again.send({ command: 'echo', id: 1, payload: 'repeated' })
  t.match(await again.nextOf('result'), { id: 1, seq, payload: { draft: 7 } }, 'a retry gets its first answer')
  again.ws.terminate()
})

t.test('what an operator ended stays ended after kill -9', async t => {
  const env = { HOLDFAST_DATA_DIR: dataDirectory(t) }
  const first = await start(t, env)
  const { hello } = await connectFull(first.wsUrl)
  const path = `/sessions/${hello.payload.sessionId as string}`
  t.equal((await fetch(first.url + path, { method: 'DELETE' })).status, 204)
  await first.stop('SIGKILL')
  const second = await start(t, env)
  const gone = await fetch(second.url + path)
  t.strictSame([gone.status, ((await gone.json()) as { reason: string }).reason], [410, 'ended_by_operator'])
  const { hello: fresh } = await connectFull(second.wsUrl, [resumeEntry(hello, 0)])
  t.match(fresh, { type: 'session_created', payload: { previous: { reason: 'ended_by_operator' } } })
})

t.test('a message that was accepted over REST is delivered after kill -9', async t => {
  const env = { HOLDFAST_DATA_DIR: dataDirectory(t) }
  const first = await start(t, env)
  const { socket, hello } = await connectFull(first.wsUrl)
  socket.ws.terminate()
  const answer = await fetch(`${first.url}/sessions/${hello.payload.sessionId as string}/messages`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: '{"event":"note","payload":"kept"}'
  })
  t.equal(answer.status, 202)
  await first.stop('SIGKILL')
  const second = await start(t, env)
  const { socket: again } = await connectFull(second.wsUrl, [resumeEntry(hello, 0)])
  t.match(await again.next(), { type: 'message', event: 'note', seq: 1, payload: 'kept' })
  again.ws.terminate()
})

t.test('a stop that is asked for keeps sessions as well', async t => {
  const env = { HOLDFAST_DATA_DIR: dataDirectory(t), HOLDFAST_DRAIN_SECONDS: '1' }
  const first = await start(t, env)
  const { hello } = await connectFull(first.wsUrl)
  t.strictSame(await first.stop('SIGTERM'), { code: 0, signal: null })
  const second = await start(t, env)
  const { socket, hello: resumed } = await connectFull(second.wsUrl, [resumeEntry(hello, 0)])
  t.match(resumed, { type: 'session_resumed' })
  socket.ws.terminate()
})

t.test('a second process on the same directory is told so and exits 1', async t => {
  const env = { HOLDFAST_DATA_DIR: dataDirectory(t) }
  await start(t, env)
  await t.rejects(startServer(env), { message: /another process|in use|HOLDFAST_DATA_DIR/ })
})

t.test('the typed client goes on in the same session through five kills under load', async t => {
  const env: Record<string, string> = { HOLDFAST_DATA_DIR: dataDirectory(t), HOLDFAST_COMMANDS_PER_SECOND: '1000' }
  env.PORT = String(await freePort())
  let server = await start(t, env)
  const sessions = new Set<string>()
  const answers: number[] = []
  const session = connect(server.wsUrl, { WebSocket })
  session.on('live', ({ sessionId }) => { sessions.add(sessionId) })
  t.teardown(() => { session.close() })
  let sent = 0
  const enough = new AbortController()
  const load = (async () => {
    while (!enough.signal.aborted) {
      const n = ++sent
      answers.push(await session.send('echo', n) as number)
    }
  })()
  for (let kill = 0; kill < 5; kill++) {
    const before = answers.length
    await eventually('answers', () => answers.length > before + 20)
    await server.stop('SIGKILL')
    server = await start(t, env)
  }
  const before = answers.length
  await eventually('answers after the last kill', () => answers.length > before + 20)
  enough.abort()
  await load
  t.equal(sessions.size, 1, 'one session')
  t.strictSame(answers, Array.from({ length: sent }, (_, n) => n + 1))
})
