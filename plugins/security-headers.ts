// Headers that keep browsers from misusing what operators look at (server only): helmet's own,
// without those that only make sense over TLS, which ends before this server. Not on handshakes,
// whose answer is no page. Register it after the socket route's plugin, which marks handshakes.
//
// Not @fastify/helmet: it merges its options and builds its middleware anew for every request,
// which was a fifth of a connect.

import fp from 'fastify-plugin'
import helmet from 'helmet'
import { checkPluginOptions } from '../src/option-checks.js'
import { ownSockets } from './gateway/sockets.js'

export default fp(async function securityHeaders (fastify, options) {
  checkPluginOptions('holdfast/security-headers', options, {})
  const setHeaders = helmet({ hsts: false, contentSecurityPolicy: { directives: { upgradeInsecureRequests: null } } })
  const sockets = ownSockets(fastify)
  fastify.addHook('onRequest', (request, reply, done) => {
    if (sockets.isHandshake(request.raw)) done()
    else setHeaders(request.raw, reply.raw, done as (error?: unknown) => void)
  })
}, { name: 'holdfast/security-headers', fastify: '5.x', dependencies: ['holdfast/websocket-gateway'] })
