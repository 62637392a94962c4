// A Fastify application as any other, with the Holdfast plugins in it: sessions, commands, sockets,
// and the operators' REST. Drafts go out as events to every session, decisions come in as commands;
// the page is two routes and a stylesheet. Who the reviewers are is left to `authenticate`.
//
// The order: sessions → dispatcher → socket route, which comes before everything that can refuse a
// request → what is the application's own.

import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import dispatcher from '../../plugins/dispatcher.js'
import operatorAuth from '../../plugins/operator-auth.js'
import sessionManager from '../../plugins/session-manager.js'
import sessionsApi from '../../plugins/sessions-api.js'
import websocketGateway from '../../plugins/websocket-gateway.js'
import { placeholderAuthenticator, type Authenticate } from '../../src/auth/authenticate.js'
import { configWith, type Config } from '../../src/config.js'
import { limitsOf } from '../../src/limits.js'
import { createCommands } from './commands.js'
import type { PageFiles } from './page-files.js'
import type { Platform } from './platform.js'

export interface ReviewDeskOptions {
  platform: Platform
  page: PageFiles
  /** Default: everybody is the placeholder user. */
  authenticate?: Authenticate
  logger?: FastifyServerOptions['logger']
  /** Limits that differ from the server's defaults. */
  limits?: Partial<Config>
}

const REVIEWER = 'human_reviewer_1'

/** A reviewer is away for a break, not for a night, and decides no faster than a human. */
const DESK_LIMITS: Partial<Config> = {
  resumeWindowSeconds: 15 * 60, commandsPerSecond: 20, maxInFlight: 16, maxMessageBytes: 16_384, heartbeatSeconds: 15
}

/** Scripts, styles and sockets of this origin, and nothing else; data: is for the icon. */
const PAGE_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/** The application, loaded and not listening. */
export async function createReviewDesk (options: ReviewDeskOptions): Promise<FastifyInstance> {
  const { platform, page } = options
  const limits = limitsOf(configWith({ ...DESK_LIMITS, ...options.limits }))
  const app = Fastify({ logger: options.logger ?? false })

  // Everybody is this one user until there is authentication, so that no quota is theirs.
  await app.register(sessionManager, {
    limits: limits.sessions,
    ...(options.authenticate === undefined ? { unlimitedUserId: REVIEWER } : {})
  })
  await app.register(dispatcher, { limits: limits.commands, builtinCommands: false })
  await app.register(websocketGateway, {
    authenticate: options.authenticate ?? placeholderAuthenticator(REVIEWER),
    allowedOrigins: [],
    upgradesPerMinute: 600,
    limits: limits.connections
  })

  app.dispatcher.commands(createCommands(platform))
  const unsubscribe = platform.subscribe(({ type, payload }) => { app.dispatcher.send({ all: true }, type, payload) })
  app.addHook('onClose', async () => { unsubscribe() })

  await app.register(operatorAuth, { host: '127.0.0.1' })
  await app.register(sessionsApi)

  for (const [url, { type, body }] of Object.entries(page)) {
    app.get(url, async (_request, reply) => reply
      .headers({
        'content-security-policy': PAGE_POLICY,
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
        'cache-control': 'no-cache'
      })
      .type(type)
      .send(body))
  }
  return app
}
