// Redis in the shapes that outlive a server: a cluster of three primaries and three replicas, and a
// primary with a replica that a sentinel watches. Real servers on the loopback, ended with the
// test. On a busy machine a server is silent for a second now and then, and none may be taken for
// dead that is not: how quickly a death is noticed is set when there is one.

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import { freePort } from './free-port.js'
import { redisBinary, startRedis, type RedisServer } from './redis.js'
import { eventually } from './server.js'

/** Elections take seconds, and much longer on a machine that does other things as well. */
const ELECTION_MS = 120_000
const CLUSTER = [
  '--cluster-enabled', 'yes', '--cluster-node-timeout', '60000', '--cluster-replica-validity-factor', '0'
]

export interface RedisCluster {
  readonly url: string
  /** Kills the primary that has such a key, and resolves when a replica has taken its place. */
  failOver(pattern: string): Promise<void>
}

export async function startCluster (t: Test): Promise<RedisCluster> {
  const servers = await Promise.all(Array.from({ length: 6 }, () => startRedis(t, CLUSTER)))
  const hosts = servers.map(({ port }) => `127.0.0.1:${port}`)
  const create = ['--cluster', 'create', ...hosts, '--cluster-replicas', '1', '--cluster-yes']
  execFileSync('redis-cli', create, { stdio: 'ignore' })
  await eventually('the cluster serves all slots', async () => {
    const infos = await Promise.all(servers.map(({ client }) => client.call('CLUSTER', 'INFO') as Promise<string>))
    return infos.every(info => info.includes('cluster_state:ok'))
  }, ELECTION_MS)
  return {
    url: `redis+cluster://${hosts.join()}`,
    async failOver (pattern) {
      const isPrimary = async ({ client }: RedisServer): Promise<boolean> => (await client.role())[0] === 'master'
      const holds = await Promise.all(servers.map(async server => {
        return await isPrimary(server) && (await server.client.keys(pattern)).length > 0
      }))
      const primary = servers[holds.indexOf(true)]
      if (primary === undefined) throw new Error(`no server has ${pattern}`)
      await isFollowed(primary)
      await Promise.all(servers.map(({ client }) => client.config('SET', 'cluster-node-timeout', '1000')))
      await primary.kill()
      const others = servers.filter(server => server !== primary)
      await eventually('a replica takes its place', async () => {
        return (await Promise.all(others.map(isPrimary))).filter(Boolean).length === 3
      }, ELECTION_MS)
    }
  }
}

async function isFollowed ({ client }: RedisServer): Promise<void> {
  await eventually('a replica follows', async () => {
    return (await client.call('INFO', 'replication') as string).includes('state=online')
  }, ELECTION_MS)
}

export interface WatchedRedis {
  readonly url: string
  /** Kills the present primary, and resolves when another one was elected. */
  failOver(): Promise<void>
}

export async function startWatched (t: Test): Promise<WatchedRedis> {
  const first = await startRedis(t)
  const second = await startRedis(t, ['--replicaof', '127.0.0.1', String(first.port)])
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-sentinel-'))
  const file = join(folder, 'sentinel.conf')
  writeFileSync(file, [
    `port ${port}`, 'bind 127.0.0.1', `dir ${folder}`, `sentinel monitor main 127.0.0.1 ${first.port} 1`,
    'sentinel down-after-milliseconds main 60000', 'sentinel failover-timeout main 10000', ''
  ].join('\n'))
  const child = spawn(redisBinary() as string, [file, '--sentinel'], { stdio: 'ignore' })
  const sentinel = new Redis({ host: '127.0.0.1', port, retryStrategy: () => 100, maxRetriesPerRequest: null })
  sentinel.on('error', () => {})
  t.teardown(async () => {
    sentinel.disconnect()
    const gone = once(child, 'exit')
    if (child.exitCode === null && child.kill('SIGKILL')) await gone
    rmSync(folder, { recursive: true, force: true })
  })
  const primaryPort = async (): Promise<number> => {
    const [, at] = await sentinel.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'main') as string[]
    return Number(at)
  }
  await eventually('the sentinel knows the replica', async () => {
    return (await sentinel.call('SENTINEL', 'REPLICAS', 'main') as unknown[]).length === 1
  }, ELECTION_MS)
  return {
    url: `redis+sentinel://127.0.0.1:${port}/main`,
    async failOver () {
      const former = await primaryPort()
      const primary = former === first.port ? first : second
      await isFollowed(primary)
      await sentinel.call('SENTINEL', 'SET', 'main', 'down-after-milliseconds', '1000')
      await primary.kill()
      await eventually('another primary is elected', async () => await primaryPort() !== former, ELECTION_MS)
    }
  }
}
