// Lines of a few kilobytes a second, lines that die, and a server that stands still, over real
// sockets: what is slow arrives, and what is gone is found. The proxy hands on so many bytes a
// second and holds the rest, as a modem does.

import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { startServer } from '../helpers/server.js'
import { connectFull, connectSocket, resumeEntry } from '../helpers/socket.js'

const HEARTBEAT_MS = 1000
const GRACE_MS = 10_000
const SLICE_MS = 50

const server = await startServer({
  HOLDFAST_HEARTBEAT_SECONDS: String(HEARTBEAT_MS / 1000),
  HOLDFAST_UPGRADES_PER_MINUTE: '100000',
  HOLDFAST_MAX_MESSAGE_BYTES: '200000'
})
t.teardown(async () => { await server.stop('SIGKILL') })

interface Line {
  url: string
  /** From now on nothing passes, and nobody is told. */
  die (): void
}

/** A line to the server that carries `bytesPerSecond` in each direction once it is upgraded. */
async function openLine (t: Test, bytesPerSecond: number): Promise<Line> {
  const sockets = new Set<Socket>()
  let isDead = false
  function carry (from: Socket, to: Socket, isFree: () => boolean): void {
    let held: Buffer[] = []
    let heldBytes = 0
    from.on('data', chunk => {
      if (isFree()) {
        to.write(chunk)
        return
      }
      held.push(chunk)
      heldBytes += chunk.length
      if (heldBytes > bytesPerSecond) from.pause()
    })
    const slice = setInterval(() => {
      if (isDead || heldBytes === 0) return
      const all = Buffer.concat(held)
      const passing = all.subarray(0, Math.max(1, bytesPerSecond * SLICE_MS / 1000))
      to.write(passing)
      held = passing.length === all.length ? [] : [all.subarray(passing.length)]
      heldBytes = all.length - passing.length
      if (heldBytes <= bytesPerSecond) from.resume()
    }, SLICE_MS)
    from.on('error', () => {})
    from.on('close', () => {
      clearInterval(slice)
      to.destroy()
    })
  }
  const proxy = createServer(client => {
    const upstream = connect(server.port, '127.0.0.1')
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.setNoDelay(true)
    }
    // Handshake and first frame go at full speed: what is tested is the line afterwards.
    const start = Date.now()
    const isFree = (): boolean => Date.now() - start < 200 && !isDead
    carry(client, upstream, isFree)
    carry(upstream, client, isFree)
  })
  await new Promise<void>(resolve => { proxy.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    proxy.close()
  })
  return { url: `ws://127.0.0.1:${(proxy.address() as AddressInfo).port}/ws`, die: () => { isDead = true } }
}

t.test('P-43 on a slow line', { jobs: 8 }, async t => {
  for (const kilobytes of [2, 4, 20]) {
    t.test(`a command of 60 kB arrives at ${kilobytes} kB/s, in one connection`, { timeout: 120_000 }, async t => {
      const line = await openLine(t, kilobytes * 1000)
      const { socket } = await connectFull(line.url)
      await delay(300)
      socket.send({ command: 'ping', id: 1, payload: 'x'.repeat(60_000) })
      const answer = await within(60_000 / kilobytes + 30_000, async () => await socket.nextOf('result'))
      t.match(answer, { id: 1 })
      socket.ws.close()
    })

    t.test(`a replay of ${kilobytes * 20} kB arrives at ${kilobytes} kB/s, in one connection`, {
      timeout: 120_000
    }, async t => {
      const first = await connectFull(server.wsUrl)
      const count = kilobytes * 4
      for (let id = 1; id <= count; id++) {
        first.socket.send({ command: 'echo', id, payload: 'x'.repeat(5000) })
        await first.socket.nextOf('result')
      }
      first.socket.ws.terminate()
      const line = await openLine(t, kilobytes * 1000)
      const { socket, hello } = await connectFull(line.url, [resumeEntry(first.hello)])
      t.match(hello, { type: 'session_resumed' })
      await within(60_000, async () => { await socket.nextOf('live') })
      t.equal(socket.ws.readyState, socket.ws.OPEN)
      socket.ws.close()
    })
  }

  t.test('one output of 100 kB arrives at 4 kB/s, in one connection', { timeout: 120_000 }, async t => {
    const line = await openLine(t, 4000)
    const { socket, hello } = await connectFull(line.url)
    await delay(300)
    await fetch(`${server.url}/sessions/${hello.payload.sessionId as string}/messages`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ event: 'large', payload: 'x'.repeat(100_000) })
    })
    const message = await within(60_000, async () => await socket.nextOf('message'))
    t.equal((message.payload as string).length, 100_000)
    socket.ws.close()
  })

  t.test('a line that dies in the middle of a replay is found within its time', { timeout: 60_000 }, async t => {
    const first = await connectFull(server.wsUrl)
    const { sessionId } = first.hello.payload as { sessionId: string }
    for (let id = 1; id <= 20; id++) {
      first.socket.send({ command: 'echo', id, payload: 'x'.repeat(5000) })
      await first.socket.nextOf('result')
    }
    first.socket.ws.terminate()
    const line = await openLine(t, 4000)
    await connectFull(line.url, [resumeEntry(first.hello)])
    await delay(3000)
    line.die()
    const diedAt = Date.now()
    while ((await stateOf(sessionId)) === 'active') {
      if (Date.now() - diedAt > 40_000) break
      await delay(100)
    }
    const took = Date.now() - diedAt
    t.ok(took < HEARTBEAT_MS + GRACE_MS + 10_000, `found after ${took} ms`)
  })
})

t.test('P-43 a server that stood still for 15 s drops nobody', { timeout: 90_000 }, async t => {
  const full = await connectFull(server.wsUrl)
  const basic = await connectSocket(server.wsUrl)
  await basic.next()
  await delay(1500)
  process.kill(server.pid, 'SIGSTOP')
  await delay(15_000)
  process.kill(server.pid, 'SIGCONT')
  full.socket.send({ type: 'ack', seq: 0 })
  await delay(4000)
  for (const socket of [full.socket, basic]) {
    t.equal(socket.ws.readyState, socket.ws.OPEN)
    t.strictSame(socket.waiting.filter(({ type }) => type === 'goodbye'), [])
  }
  full.socket.ws.close()
  basic.ws.close()
})

async function stateOf (sessionId: string): Promise<string | undefined> {
  return (await (await fetch(`${server.url}/sessions/${sessionId}`)).json() as { state?: string }).state
}

/**
 * Frames come slowly here; each wait of the socket helper ends after ten seconds, this one when it
 * is told.
 */
async function within<T> (ms: number, wait: () => Promise<T>): Promise<T> {
  const deadline = Date.now() + ms
  for (;;) {
    try {
      return await wait()
    } catch (error) {
      if (Date.now() > deadline || !/^no frame within/.test((error as Error).message)) throw error
    }
  }
}
