// Three built servers over one Redis, behind haproxy with the configuration of deploy/: for chaos
// runs with kills. Each blow (strikes.js) is drawn from SEED: a node is killed with SIGKILL and
// started again on its port, or, for STORE_FAULTS of a hundred blows, Redis stands still for 1 to
// 3 s, is killed and started again with its file, loses all its connections, or takes no writes
// for a second. It is over when the whole fleet serves again. Prints the address of haproxy when
// everything listens, and every blow.
// Usage: SEED=… [STORE_FAULTS=0] PORT=… STRIKE_PORT=… node .ci/restartable-fleet.js

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import { createRandom } from '../dist/conformance/random.js'
import { freePort } from './free-port.js'
import { listenForStrikes, until, untilOk } from './strikes.js'

const at = path => fileURLToPath(new URL(path, import.meta.url))
const found = names => names.find(name => spawnSync(name, ['-v']).status === 0)
const random = createRandom(Number(process.env.SEED ?? 1))
const storeFaults = Number(process.env.STORE_FAULTS ?? 0)
const folder = mkdtempSync(join(tmpdir(), 'holdfast-fleet-'))
const counts = {}
let ending = false

const address = `127.0.0.1:${process.env.PORT}`
const redisPort = await freePort()
let redis = startRedis()
const admin = new Redis({ host: '127.0.0.1', port: redisPort, retryStrategy: () => 50, maxRetriesPerRequest: null })
admin.on('error', () => {})
await admin.ping()
const nodes = await Promise.all([1, 2, 3].map(async n => ({ name: `n${n}`, port: await freePort(), child: undefined })))
for (const node of nodes) startNode(node)
for (const node of nodes) await untilOk(`http://127.0.0.1:${node.port}/health/ready`)
const haproxy = spawn(found(['haproxy', '/usr/sbin/haproxy']), ['-db', '-f', at('../deploy/haproxy.cfg')], {
  env: {
    ...process.env,
    BIND: address,
    ...Object.fromEntries(nodes.map(({ port }, i) => [`NODE_${i + 1}`, `127.0.0.1:${port}`]))
  },
  stdio: 'ignore'
})
await untilOk(`http://${address}/health/ready`)

function startRedis () {
  const args = [
    '--port', redisPort, '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'yes', '--appendfsync',
    'always'
  ]
  return spawn(found(['redis-server', 'valkey-server']), args.map(String), { stdio: 'ignore' })
}

function startNode (node) {
  const { port, name } = node
  node.child = spawn(process.execPath, [at('../dist/src/server.js')], {
    env: {
      ...process.env,
      PORT: String(port),
      HOLDFAST_REDIS_URL: `redis://127.0.0.1:${redisPort}`,
      HOLDFAST_NODE_NAME: name
    },
    stdio: ['ignore', process.env.VERBOSE === undefined ? 'ignore' : 'inherit', 'inherit']
  })
  // A node that finds no Redis at its start ends, and a supervisor starts it again.
  node.child.on('exit', () => { if (!ending) setTimeout(() => { if (!ending) startNode(node) }, 100) })
}

const STORE = {
  async 'redis freezes' () {
    redis.kill('SIGSTOP')
    await delay(random.between(1000, 3000))
    redis.kill('SIGCONT')
  },
  async 'redis is killed' () {
    redis.kill('SIGKILL')
    await once(redis, 'exit')
    await delay(random.between(0, 500))
    redis = startRedis()
  },
  'redis drops its connections': () => admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes'),
  async 'redis is full' () {
    await admin.config('SET', 'maxmemory', '1')
    await delay(1000)
    await admin.config('SET', 'maxmemory', '0')
  }
}

async function strike () {
  const node = random.pick(nodes)
  const fault = random.pick(Object.keys(STORE))
  const blow = random.between(0, 99) < storeFaults ? fault : `${node.name} is killed`
  counts[blow] = (counts[blow] ?? 0) + 1
  if (blow === fault) await STORE[fault]()
  else await kill(node)
  await until('the fleet is as before', isWell)
  return blow
}

async function kill ({ child }) {
  child.kill('SIGKILL')
  await once(child, 'exit')
}

/** Connections of the nodes to Redis, and those that listen. */
async function countConnections () {
  const lines = (await admin.call('CLIENT', 'LIST')).split('\n').filter(line => / name=holdfast /.test(line))
  return { all: lines.length, listening: lines.filter(line => !/ sub=0 /.test(line)).length }
}

/**
 * Every node takes clients, and has its connections to Redis again: until it listens it hears
 * nobody who asks for a session of it.
 */
async function isWell () {
  const areReady = await Promise.all(nodes.map(({ port }) => fetch(`http://127.0.0.1:${port}/health/ready`)
    .then(({ ok }) => ok, () => false)))
  if (areReady.includes(false)) return false
  const { all, listening } = await countConnections()
  return all === connections && listening === nodes.length
}

const { all: connections } = await countConnections()
const { whenQuiet } = await listenForStrikes(Number(process.env.STRIKE_PORT), strike)
console.log(`the fleet listens on http://${address}`)
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, async () => {
    ending = true
    await whenQuiet()
    console.log(`blows: ${Object.entries(counts).map(([blow, count]) => `${blow} ${count}`).sort().join(', ')}`)
    admin.disconnect()
    haproxy.kill('SIGKILL')
    for (const { child } of nodes) child.kill('SIGKILL')
    redis.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
    process.exit(0)
  })
}
