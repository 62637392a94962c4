// Redis with TLS, and a certificate of an authority that nobody knows: on a real server.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { configWith } from '../../../src/config.js'
import { createStore, openRedisUrl } from '../../../src/create-store.js'
import { connectRedis, openRedis } from '../../../src/stores/redis/ioredis.js'
import { startTestApp } from '../../helpers/app.js'
import { makeCertificates, type Certificates } from '../../helpers/certificates.js'
import { freePort } from '../../helpers/free-port.js'
import { needsRedis, startRedis } from '../../helpers/redis.js'
import { addressOf, createdIn, startNode } from '../../helpers/redis-node.js'
import { connectFull } from '../../helpers/socket.js'

/** The address of the server with TLS. */
async function startWithTls (t: Test, { certificate, key }: Certificates): Promise<string> {
  const port = await freePort()
  await startRedis(t, [
    '--tls-port', String(port), '--tls-cert-file', certificate, '--tls-key-file', key, '--tls-ca-cert-file',
    certificate, '--tls-auth-clients', 'no'
  ])
  return `rediss://127.0.0.1:${port}`
}

const openWith = async (t: Test, url: string, ca?: string): Promise<void> => {
  await startNode(t, url, { port: connectRedis(addressOf(url), { ca }) })
}

t.test('TLS', needsRedis(), async t => {
  const certificates = makeCertificates(t as Test)
  const url = await startWithTls(t as Test, certificates)
  const ca = readFileSync(certificates.authority, 'utf8')

  t.test('an authority of one\'s own is trusted once it is named', async t => {
    const node = await startNode(t as Test, url, { port: connectRedis(addressOf(url), { ca }) })
    const { session: { id } } = await createdIn(node)
    t.match(await node.store.find(id), { owner: node.store.nodeId })
    t.equal(await node.store.tell(node.store.nodeId, 'ping', null), true, 'also by the connection that listens')
  })

  t.test('a server takes it from a file, for sessions and for counting requests', async t => {
    const config = { store: 'redis', redisUrl: url, redisPartitions: 16, redisCaFile: certificates.authority } as const
    const { app, port } = await startTestApp(t as Test, { config })
    const { socket } = await connectFull(`ws://127.0.0.1:${port}/ws`)
    t.equal((await app.inject('/sessions')).statusCode, 200)
    socket.ws.close()
  })

  t.test('what is wrong is said, with what to do', async t => {
    const other = makeCertificates(t as Test)
    const notTrusted = /not signed by an authority .* HOLDFAST_REDIS_CA_FILE/
    await t.rejects(openWith(t as Test, url), notTrusted)
    await t.rejects(openWith(t as Test, url, readFileSync(other.authority, 'utf8')), notTrusted)
    const named = makeCertificates(t as Test, 'DNS:redis.example')
    await t.rejects(
      openWith(t as Test, await startWithTls(t as Test, named), readFileSync(named.authority, 'utf8')),
      /certificate of Redis is for another name/
    )
  })

  t.test('a file that cannot be used is refused before anything is connected', async t => {
    const folder = t.testdir()
    const config = (redisCaFile: string) => configWith({ store: 'redis', redisUrl: url, redisCaFile })
    t.throws(() => createStore(config(join(folder, 'none'))), {
      code: 'CONFIG_INVALID', message: /HOLDFAST_REDIS_CA_FILE: it cannot be read: ENOENT/
    })
    writeFileSync(join(folder, 'empty'), 'no certificate')
    t.throws(() => openRedisUrl(url, config(join(folder, 'empty'))), { message: /holds no certificate/ })
  })

  t.test('sentinels and the nodes of a cluster are asked in the same way', async t => {
    const settings = (shape: string) => openRedis(addressOf(`rediss+${shape}`), { ca }).options as unknown as {
      tls?: object, sentinelTLS?: object, enableTLSForSentinelMode?: boolean, redisOptions?: { tls?: object }
    }
    t.match(settings('sentinel://127.0.0.1:1/primary'), {
      tls: { ca }, sentinelTLS: { ca }, enableTLSForSentinelMode: true
    })
    t.match(settings('cluster://127.0.0.1:1').redisOptions, { tls: { ca } })
  })
})
