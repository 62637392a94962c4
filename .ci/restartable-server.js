// The built server on a fixed port, for chaos runs with kills: each blow (strikes.js) kills it with
// SIGKILL and starts it again with the same options.
// Usage: PORT=… STRIKE_PORT=… node .ci/restartable-server.js

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { listenForStrikes, untilOk } from './strikes.js'

const program = fileURLToPath(new URL('../dist/src/server.js', import.meta.url))
let server = start()
let ending = false

function start () {
  const child = spawn(process.execPath, [program], { stdio: 'inherit' })
  child.on('exit', (code, signal) => {
    if (ending) process.exit(code ?? 1)
    if (signal === 'SIGKILL') server = start()
    else process.exit(code ?? 1)
  })
  return child
}

await listenForStrikes(Number(process.env.STRIKE_PORT), async () => {
  const killed = server
  killed.kill('SIGKILL')
  await once(killed, 'exit')
  await untilOk(`http://127.0.0.1:${process.env.PORT}/health/ready`)
  return 'the server is killed'
})
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    ending = true
    server.kill(signal)
  })
}
