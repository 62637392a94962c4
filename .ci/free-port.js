// Prints a port on which nobody listens, below those that the system gives to whoever asks for any:
// nothing takes it before its server starts, nor while that is started again.

import { once } from 'node:events'
import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'

export async function freePort () {
  for (;;) {
    // Above 10,080, the highest port that browsers and `fetch` refuse to ask.
    const port = 11_000 + Math.floor(Math.random() * 20_000)
    const server = createServer().listen(port, '127.0.0.1')
    if (!await once(server, 'listening').then(() => true, () => false)) continue
    server.close()
    await once(server, 'close')
    return port
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(await freePort())
