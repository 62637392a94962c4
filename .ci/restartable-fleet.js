// Three built servers over one Redis, behind haproxy with the configuration of deploy/: for chaos
// runs with kills. Each SIGUSR1 is one blow, drawn from SEED: a node is killed with SIGKILL and
// started again on its port, or, for STORE_FAULTS of a hundred blows, Redis stands still for 1 to
// 3 s, is killed and started again with its file, loses all its connections, or takes no writes
// for a second. Prints the address of haproxy when everything listens, and every blow.
// Usage: SEED=… [STORE_FAULTS=0] PORT=… node .ci/restartable-fleet.js

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
for (const node of nodes) await until(`http://127.0.0.1:${node.port}/health/ready`)
const haproxy = spawn(found(['haproxy', '/usr/sbin/haproxy']), ['-db', '-f', at('../deploy/haproxy.cfg')], {
  env: {
    ...process.env,
    BIND: address,
    ...Object.fromEntries(nodes.map(({ port }, i) => [`NODE_${i + 1}`, `127.0.0.1:${port}`]))
  },
  stdio: 'ignore'
})
await until(`http://${address}/health/ready`)
console.log(`the fleet listens on http://${address}`)

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

async function until (url) {
  for (let i = 0; i < 1200; i++) {
    if (await fetch(url).then(({ ok }) => ok, () => false)) return
    await delay(50)
  }
  throw new Error(`${url} does not answer`)
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
  console.log(blow)
  if (blow === fault) await STORE[fault]()
  else node.child.kill('SIGKILL')
}

let striking = Promise.resolve()
process.on('SIGUSR1', () => { striking = striking.then(strike) })
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, async () => {
    ending = true
    await striking
    console.log(`blows: ${Object.entries(counts).map(([blow, count]) => `${blow} ${count}`).sort().join(', ')}`)
    admin.disconnect()
    haproxy.kill('SIGKILL')
    for (const { child } of nodes) child.kill('SIGKILL')
    redis.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
    process.exit(0)
  })
}
