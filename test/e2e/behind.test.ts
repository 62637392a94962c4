// Outputs that do not wait for the store, and a server that is killed among them: the built program
// over a data directory, and two nodes over one Redis. What a client has handled is not told again,
// what was lost is a gap in its place, and the numbering has no hole.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { needsRedis, startRedis } from '../helpers/redis.js'
import { eventually, startServer, type ServerProcess } from '../helpers/server.js'
import { connectFull, resumeEntry, type Frame, type TestSocket } from '../helpers/socket.js'
import { post } from '../helpers/users.js'

const CLIENTS = 8

interface Reader {
  hello: Frame
  socket: TestSocket
  /** What was handled, by seq. */
  readonly told: Map<number, Frame>
  lastSeq: number
  readonly problems: string[]
}

/** Handles what comes, in order. */
function follow (reader: Reader): void {
  reader.socket.ws.on('message', data => { handle(reader, JSON.parse(String(data)) as Frame) })
  for (const frame of reader.socket.waiting) handle(reader, frame)
}

function handle (reader: Reader, frame: Frame): void {
  const { seq } = frame
  if (seq === undefined || reader.told.has(seq)) return
  if (seq !== reader.lastSeq + 1) reader.problems.push(`${seq} after ${reader.lastSeq}`)
  reader.told.set(seq, frame)
  reader.lastSeq = seq
}

async function startReaders (wsUrl: string): Promise<Reader[]> {
  return await Promise.all(Array.from({ length: CLIENTS }, async () => {
    const { socket, hello } = await connectFull(wsUrl)
    const reader: Reader = { hello, socket, told: new Map(), lastSeq: 0, problems: [] }
    follow(reader)
    return reader
  }))
}

/** Sends to everybody until the server dies, nine in ten without waiting for the store. */
async function stream (url: string, from: number): Promise<void> {
  for (let n = from; ; n++) {
    try {
      await post(`${url}/broadcast`, { event: 'tick', payload: n, ...(n % 10 === 0 ? {} : { behind: true }) })
    } catch {
      return
    }
  }
}

/** Every client has heard of some outputs ahead of the store, and then its server is gone. */
async function killAmongOutputs (server: ServerProcess, readers: readonly Reader[]): Promise<void> {
  const streaming = stream(server.url, 1)
  await eventually('outputs of both kinds', () => readers.every(({ lastSeq }) => lastSeq > 150))
  await server.stop('SIGKILL')
  await streaming
}

async function checkAll (t: Test, readers: readonly Reader[], server: ServerProcess): Promise<void> {
  await Promise.all(readers.map(async reader => {
    await eventually('the old line is dead', () => reader.socket.ws.readyState === 3)
    const { sessionId } = reader.hello.payload as { sessionId: string }
    const { socket, hello } = await connectFull(server.wsUrl, [resumeEntry(reader.hello, reader.lastSeq)])
    t.match(hello, { type: 'session_resumed', payload: { sessionId, gap: null } })
    Object.assign(reader, { hello, socket })
    follow(reader)
  }))
  t.equal(await post(`${server.url}/broadcast`, { event: 'last', payload: null }), 202)
  await eventually('the last output', () => readers.every(({ told, lastSeq }) => told.get(lastSeq)?.event === 'last'))
  for (const { problems, told } of readers) {
    t.strictSame(problems, [], 'the numbering has no hole')
    const ticks = [...told.values()].filter(({ event }) => event === 'tick').map(({ payload }) => payload as number)
    t.equal(new Set(ticks).size, ticks.length, 'nothing is told twice')
    t.strictSame(ticks, [...ticks].sort((a, b) => a - b), 'nor in another order')
    const rest = [...told.values()].filter(({ event }) => event !== 'tick' && event !== 'last')
    t.ok(rest.length <= 64, `${rest.length} gaps`)
    const kinds = new Set(rest.map(({ type, payload }) => `${type} ${payload.reason as string}`))
    t.strictSame(kinds, new Set(['gap not_kept']))
  }
  for (const { socket } of readers) socket.ws.terminate()
}

async function start (t: Test, env: Record<string, string>): Promise<ServerProcess> {
  const server = await startServer({
    HOLDFAST_UPGRADES_PER_MINUTE: '100000', HOLDFAST_REQUESTS_PER_MINUTE: '100000', ...env
  })
  t.teardown(async () => { await server.stop('SIGKILL') })
  return server
}

t.test('P-55 kill -9 with a data directory, and kill -9 again', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-'))
  t.teardown(() => { rmSync(directory, { recursive: true, force: true }) })
  const env = { HOLDFAST_DATA_DIR: join(directory, 'data') }
  const first = await start(t, env)
  const readers = await startReaders(first.wsUrl)
  await killAmongOutputs(first, readers)
  // The gaps of one that dies before anybody has come back are those of the next one.
  await (await start(t, env)).stop('SIGKILL')
  await checkAll(t, readers, await start(t, env))
})

t.test('P-55 a stop that is asked for leaves no gap', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-'))
  t.teardown(() => { rmSync(directory, { recursive: true, force: true }) })
  const env = { HOLDFAST_DATA_DIR: join(directory, 'data'), HOLDFAST_DRAIN_SECONDS: '1' }
  const first = await start(t, env)
  const [reader] = await startReaders(first.wsUrl) as [Reader]
  const streaming = stream(first.url, 1)
  await eventually('some outputs', () => reader.lastSeq > 50)
  await first.stop('SIGTERM')
  await streaming
  const second = await start(t, env)
  const { socket } = await connectFull(second.wsUrl, [resumeEntry(reader.hello, reader.lastSeq)])
  Object.assign(reader, { socket })
  follow(reader)
  await post(`${second.url}/broadcast`, { event: 'last', payload: null })
  await eventually('the last output', () => reader.told.get(reader.lastSeq)?.event === 'last')
  t.strictSame(reader.problems, [])
  t.strictSame([...reader.told.values()].filter(({ type }) => type === 'gap'), [])
  socket.ws.terminate()
})

t.test('P-55 S-22 kill -9 of a node, and its clients go on at another one', needsRedis(), async t => {
  const redis = await startRedis(t)
  const env = { HOLDFAST_REDIS_URL: redis.url }
  const [first, second] = await Promise.all([start(t, env), start(t, env)]) as [ServerProcess, ServerProcess]
  const readers = await startReaders(first.wsUrl)
  await killAmongOutputs(first, readers)
  await checkAll(t, readers, second)
})
