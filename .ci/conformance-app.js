// An application for the rules of the kit that the server by itself gives no occasion for: a serial
// command (P-18), a user who may not connect, and credentials that cannot be checked now (P-53d).
// Usage: CORE_URL=… JWT_SECRET=… node .ci/conformance-app.js; prints its address.

import Fastify from 'fastify'
import holdfast, { createHttpCore, createJwtAuthenticator, defineCommand, systemClock } from 'holdfast'

const { CORE_URL, JWT_SECRET } = process.env
const app = Fastify()
const checkToken = createJwtAuthenticator({ secret: JWT_SECRET })
const core = createHttpCore({
  url: CORE_URL, timeoutMs: 30_000, lifecycleEvents: [], maxAnswerBytes: 1_048_576, log: app.log, clock: systemClock
})

async function authenticate (handshake) {
  if (handshake.token === 'kit-unchecked') throw new Error('the key server does not answer')
  const principal = await checkToken(handshake)
  if (principal.userId === 'kit-forbidden') throw Object.assign(new Error('not invited'), { statusCode: 403 })
  return principal
}

await app.register(holdfast, {
  commands: { 'kit.serial': defineCommand({ serial: true }) },
  core,
  authenticate,
  operators: {},
  limits: { commandsPerSecond: 200 }
})
console.log(await app.listen({ host: '127.0.0.1', port: 0 }))
