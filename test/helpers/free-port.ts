// A port on which nobody listens, for a server that is told its port before it starts, and for
// tests of what is done where nobody answers. Below the range from which the system gives ports to
// whoever asks for any: nothing takes it between the look and its use, nor while a server that has
// it is started again.

import { once } from 'node:events'
import { createServer } from 'node:net'

/** Above 10,080, the highest port that browsers and `fetch` refuse to ask. */
const FIRST = 11_000
const LAST = 21_999
/** A Redis in a cluster listens here too, above the port that it is told. */
const BUS = 10_000

export async function freePort (): Promise<number> {
  for (;;) {
    const port = FIRST + Math.floor(Math.random() * (LAST - FIRST + 1))
    if (await isFree(port) && await isFree(port + BUS)) return port
  }
}

async function isFree (port: number): Promise<boolean> {
  const server = createServer()
  try {
    await once(server.listen(port, '127.0.0.1'), 'listening')
  } catch {
    return false
  }
  await once(server.close(), 'close')
  return true
}
