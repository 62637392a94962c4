// How the connections to Redis behave where no real server can be made to behave like that.

import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { connectRedis } from '../../../src/stores/redis/ioredis.js'
import { addressOf } from '../../helpers/redis-node.js'

const LOADING = 'loading:1\r\nloading_eta_seconds:600\r\n'
const LOADED = 'loading:0\r\n'

// Chaos killed Redis, which was back in half a second, and a node took no clients for ten more: it
// had been told that reading the file would take so long.
t.test('a server that has read its file is used at once, whatever it had guessed', async t => {
  let asked = 0
  const server = createServer(socket => {
    socket.on('error', () => {})
    socket.on('data', data => {
      // Commands come as arrays of bulk strings, several in one piece.
      for (const [, name] of data.toString('latin1').matchAll(/\*\d+\r\n\$\d+\r\n(\w+)\r\n/g)) {
        const info = asked === 0 ? LOADING : LOADED
        if (name?.toLowerCase() === 'info') asked++
        socket.write(name?.toLowerCase() === 'info' ? `$${info.length}\r\n${info}\r\n` : '+OK\r\n')
      }
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const port = connectRedis(addressOf(`redis://127.0.0.1:${(server.address() as AddressInfo).port}`))
  t.teardown(async () => {
    await port.close()
    server.close()
  })
  const connected = await Promise.race([port.connect().then(() => 'connected'), delay(8000, 'waits', { ref: false })])
  t.strictSame([connected, asked], ['connected', 3], 'each of the two connections asks, the first once more')
})
