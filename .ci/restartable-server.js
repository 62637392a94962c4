// The built server on a fixed port, for chaos runs with kills: each SIGUSR1 kills it with SIGKILL
// and starts it again with the same options. Usage: PORT=… node .ci/restartable-server.js

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

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

process.on('SIGUSR1', () => { server.kill('SIGKILL') })
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    ending = true
    server.kill(signal)
  })
}
