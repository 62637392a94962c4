// Options given in code are checked as those of the environment are. They were not: limits that
// were given in part left the others undefined, which compares as "no limit", and a negative
// heartbeat or a misspelt name was taken without a word.

import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { placeholderAuthenticator } from '../../src/auth/authenticate.js'
import { configWith } from '../../src/config.js'
import {
  completeCommandLimits, completeConnectionLimits, completeLimits, completeSessionLimits, limitsOf
} from '../../src/limits.js'
import dispatcher from '../../plugins/dispatcher.js'
import sessionManager from '../../plugins/session-manager.js'
import websocketGateway from '../../plugins/websocket-gateway.js'
import health from '../../plugins/health.js'
import loadShedding from '../../plugins/load-shedding.js'
import metrics from '../../plugins/metrics.js'
import nodesApi from '../../plugins/nodes-api.js'
import openapi from '../../plugins/openapi.js'
import operatorAuth from '../../plugins/operator-auth.js'
import rateLimit from '../../plugins/rate-limit.js'
import securityHeaders from '../../plugins/security-headers.js'
import sessionsApi from '../../plugins/sessions-api.js'
import startPage from '../../plugins/start-page.js'
import usersApi from '../../plugins/users-api.js'

function appFor (t: Test): FastifyInstance {
  const app = Fastify()
  t.teardown(() => app.close())
  return app
}

t.test('limits given in part are completed by the defaults of the server', async t => {
  const defaults = limitsOf(configWith())
  t.same(completeSessionLimits(), { ...defaults.sessions })
  t.same(completeSessionLimits({ idleTimeoutMs: 60_000 }), {
    ...defaults.sessions,
    idleTimeoutMs: 60_000,
    resumeWindowMs: 60_000
  })
  t.same(completeCommandLimits({ maxInFlight: undefined }), defaults.commands)
  t.same(completeConnectionLimits({ heartbeatMs: 5000 }), { ...defaults.connections, heartbeatMs: 5000 })
  t.same(completeLimits({ maxSessions: 7, maxInFlight: 3 }), {
    ...defaults, sessions: { ...defaults.sessions, maxSessions: 7 }, commands: { ...defaults.commands, maxInFlight: 3 }
  })
})

t.test('a session manager with one limit given holds every other one', async t => {
  const app = appFor(t)
  await app.register(sessionManager, { limits: { idleTimeoutMs: 60_000 } })
  for (let i = 0; i < 64; i++) app.sessionManager.createSession('ada')
  t.throws(() => app.sessionManager.createSession('ada'), { code: 'USER_QUOTA' })
  t.throws(
    () => app.sessionManager.send({ userId: 'ada' }, 'large', 'x'.repeat(5_000_000)),
    { code: 'PAYLOAD_TOO_LARGE' }
  )
})

t.test('every plugin works without any limit given', async t => {
  const app = appFor(t)
  await app.register(sessionManager)
  await app.register(dispatcher)
  await app.register(websocketGateway, { authenticate: placeholderAuthenticator() })
  await app.ready()
  t.same(app.dispatcher.limits, limitsOf(configWith()).commands)
})

const wrong: [string, (app: FastifyInstance) => PromiseLike<unknown>, RegExp][] = [
  ['a negative limit', app => app.register(sessionManager, { limits: { maxSessions: -1 } }),
    /limits\.maxSessions of holdfast\/session-manager: -1 is not valid\. Expected an integer from 1 to 10000000\./],
  ['a limit in another unit', app => app.register(sessionManager, { limits: { idleTimeoutMs: 60 } }),
    /limits\.idleTimeoutMs .*: 60 is not valid\. Expected an integer from 100 to/],
  ['a misspelt limit', app => app.register(sessionManager, { limits: { idleTimeout: 60_000 } as object }),
    /limits\.idleTimeout is not a limit of holdfast\/session-manager; did you mean idleTimeoutMs\?/],
  ['a limit of another plugin', app => app.register(sessionManager, { limits: { maxInFlight: 5 } as object }),
    /limits\.maxInFlight .*; it belongs to holdfast\/dispatcher\./],
  [
    'a limit that is text',
    app => app.register(sessionManager, { limits: { maxSessions: '5' } as object }),
    /"5" is not valid/
  ],
  [
    'limits that are a number',
    app => app.register(sessionManager, { limits: 5 as never }),
    /limits of .*: 5 is not valid\. Expected an object/
  ],
  [
    'an outbox larger than all of them',
    app => app.register(sessionManager, { limits: { outboxTotalBytes: 4096 } }),
    /limits\.outboxBytes is 1048576, more than/
  ],
  [
    'a misspelt option',
    app => app.register(sessionManager, { stor: {} } as object),
    /stor is not an option of holdfast\/session-manager; did you mean store\?/
  ],
  [
    'a store that is none',
    app => app.register(sessionManager, { store: {} } as object),
    /store .* Expected a session store, with the methods/
  ],
  [
    'a clock that is none',
    app => app.register(sessionManager, { clock: Date.now } as object),
    /clock .*: a function is not valid/
  ]
]
const wrongLater: typeof wrong = [
  [
    'a core that is none',
    app => app.register(dispatcher, { core: { execute () {} } } as object),
    /core .* Expected a Platform Core/
  ],
  [
    'a time limit of zero',
    app => app.register(dispatcher, { limits: { commandTimeoutMs: 0 } }),
    /limits\.commandTimeoutMs .*: 0 is not valid/
  ]
]
const wrongLast: typeof wrong = [
  [
    'no authenticate',
    app => app.register(websocketGateway, {} as never),
    /authenticate of holdfast\/websocket-gateway is missing\. Expected a function/
  ],
  [
    'an authenticate that is none',
    app => app.register(websocketGateway, { authenticate: 'jwt' as never }),
    /authenticate .*: "jwt" is not valid/
  ],
  [
    'a negative heartbeat',
    app => app.register(websocketGateway, { ...AUTH, limits: { heartbeatMs: -4 } }),
    /limits\.heartbeatMs .*: -4 is not valid/
  ],
  [
    'seconds for milliseconds',
    app => app.register(websocketGateway, { ...AUTH, limits: { heartbeatSeconds: 25 } as object }),
    /did you mean heartbeatMs\?/
  ],
  [
    'a rate given to the second plugin',
    app => app.register(websocketGateway, { ...AUTH, limits: { commandsPerSecond: 5 } as object }),
    /it belongs to holdfast\/dispatcher/
  ],
  [
    'a path without a slash',
    app => app.register(websocketGateway, { ...AUTH, path: 'ws' }),
    /path .* Expected a path that begins with \//
  ],
  [
    'an origin that is none',
    app => app.register(websocketGateway, { ...AUTH, allowedOrigins: ['app.example'] }),
    /allowedOrigins .* Expected an array of origins/
  ],
  [
    'a budget of nothing',
    app => app.register(websocketGateway, { ...AUTH, upgradesPerMinute: 0 }),
    /upgradesPerMinute .*: 0 is not valid/
  ]
]
const AUTH = { authenticate: placeholderAuthenticator() }
const HOST = { host: '127.0.0.1' }

// The plugins of operators, and those around them, took any name and any value.
const wrongAround: typeof wrong = [
  [
    'a misspelt budget of operators',
    app => app.register(operatorAuth, { ...HOST, requestPerMinute: 5 } as object as typeof HOST),
    /^requestPerMinute is not an option of holdfast\/operator-auth; did you mean requestsPerMinute\?/
  ],
  [
    'a token that is no text',
    app => app.register(operatorAuth, { ...HOST, adminToken: 31337 as never }),
    /^adminToken of holdfast\/operator-auth: a value of the type number is not valid/
  ],
  ['no host', app => app.register(operatorAuth, {} as never), /^host of holdfast\/operator-auth is missing/],
  ['no budget', app => app.register(rateLimit, {} as never), /^requestsPerMinute of holdfast\/rate-limit is missing/],
  [
    'a budget as @fastify/rate-limit has it',
    app => app.register(rateLimit, { max: 100 } as never),
    /^max is not an option of holdfast\/rate-limit/
  ],
  [
    'misspelt checks',
    app => app.register(health, { check: {} } as object),
    /^check is not an option of holdfast\/health; did you mean checks\?/
  ],
  ['a check that is none', app => app.register(health, { checks: { db: true } as never }), /^checks of /],
  [
    'a lag in seconds',
    app => app.register(loadShedding, { maxEventLoopDelayMs: 1 }),
    /^maxEventLoopDelayMs .*: 1 is not valid\. Expected 20 to 60000 milliseconds/
  ],
  ['no lag', app => app.register(loadShedding, {} as never), /^maxEventLoopDelayMs .* is missing/],
  ['a registry that is none', app => app.register(metrics, { registry: {} as never }), /^registry of /],
  [
    'a drain that is text',
    app => app.register(nodesApi, { drainMs: '10000' as never }),
    /^drainMs of holdfast\/nodes-api: "10000" is not valid/
  ],
  [
    'a page without a slash',
    app => app.register(openapi, { version: '1', pagePath: 'docs' }),
    /^pagePath of holdfast\/openapi/
  ],
  ['no version', app => app.register(startPage, {} as never), /^version of holdfast\/start-page is missing/],
  ...Object.entries({ sessionsApi, usersApi, securityHeaders }).map(([name, plugin]): typeof wrong[number] => [
    `an option of ${name}, which has none`,
    app => app.register(plugin, { adminToken: 'x' } as object),
    /^adminToken is not an option of holdfast\/(sessions-api|users-api|security-headers)\./
  ])
]

for (const [name, register, message] of [...wrong, ...wrongLater, ...wrongLast, ...wrongAround]) {
  t.test(`${name} stops the registration and names the option`, async t => {
    const app = appFor(t)
    if (wrongAround.some(row => row[0] === name)) {
      await app.register(sessionManager)
      await app.register(dispatcher)
      await app.register(websocketGateway, AUTH)
      if (!message.source.includes('operator-auth')) await app.register(operatorAuth, HOST)
    }
    if (wrongLater.some(row => row[0] === name) || wrongLast.some(row => row[0] === name)) {
      await app.register(sessionManager)
    }
    if (wrongLast.some(row => row[0] === name)) await app.register(dispatcher)
    await t.rejects(async () => { await register(app) }, { code: 'CONFIG_INVALID', message })
  })
}

t.test('everything that is wrong is said at once', async t => {
  const app = appFor(t)
  const limits = { maxSessions: 0, outboxMesages: 5 } as object
  await t.rejects(
    async () => { await app.register(sessionManager, { limits }) },
    { message: /maxSessions.*\n|outboxMesages.*\n/ }
  )
})

t.test('what Fastify gives every plugin is not an unknown option', async t => {
  const app = appFor(t)
  await app.register(sessionManager, { prefix: '/x', logLevel: 'warn' } as object)
  t.ok(app.sessionManager)
})

t.test('a configuration made in code is checked as well', async t => {
  t.throws(
    () => configWith({ heartbeatSeconds: -4 }),
    { code: 'CONFIG_INVALID', message: /heartbeatSeconds: -4 is not valid\. Expected a number from 0\.1/ }
  )
  t.throws(
    () => configWith({ heartbeatSecs: 4 } as object),
    { code: 'CONFIG_INVALID', message: /heartbeatSecs is not an option; did you mean heartbeatSeconds\?/ }
  )
  t.throws(() => configWith({ jwtSecret: 'short' }), { code: 'CONFIG_INVALID', message: /^(?!.*short)/ })
  t.throws(() => configWith({ host: '0.0.0.0' }), { code: 'CONFIG_INVALID', message: /HOLDFAST_ADMIN_TOKEN/ })
  t.equal(configWith({ port: undefined }).port, 3000)
})
