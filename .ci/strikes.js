// How a kill command asks for a blow and learns that it is over: each connection to a port of this
// machine is one blow, and the line that comes back, what it was, is sent when the server serves as
// before. A signal would be answered too early: a kill of the kit lasts as long as its command, and
// a blow of which the command does not know the end is laid to nobody. Asked for by .ci/strike.

import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/** One blow at a time. A blow that fails ends its connection without a line. */
export async function listenForStrikes (port, strike) {
  let striking = Promise.resolve()
  const server = createServer(socket => {
    socket.on('error', () => {})
    striking = striking.then(async () => {
      const from = new Date()
      const blow = await strike()
      const line = `${timeOf(from)} to ${timeOf(new Date())}: ${blow}`
      console.log(line)
      socket.end(`${line}\n`)
    }).catch(error => {
      console.error(error)
      socket.destroy()
    })
  })
  await once(server.listen(port, '127.0.0.1'), 'listening')
  return { whenQuiet: () => striking }
}

const timeOf = date => date.toISOString().slice(11, 23)

/** Asked again and again until it answers so; for a minute. */
export async function until (what, isSo) {
  for (let i = 0; i < 1200; i++) {
    if (await isSo()) return
    await delay(50)
  }
  throw new Error(`not within a minute: ${what}`)
}

export const untilOk = url => until(`${url} is ok`, () => fetch(url).then(({ ok }) => ok, () => false))
