// Describes the REST API as OpenAPI 3.1 at `/openapi.json`, from the schemas of the routes
// themselves, and shows it at `/docs`. Register it before every route it shall describe: it listens
// to their declaration. The description holds no secret and needs no operator; what it describes
// does. The page loads nothing from other hosts.

import type {} from '@fastify/rate-limit'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { RouteOptions } from 'fastify'
import fp from 'fastify-plugin'
import { SUBPROTOCOL } from '../src/io/protocol/frames.js'
import { aPath, aText, checkPluginOptions, type OptionCheck } from '../src/option-checks.js'
import { SCHEMA_PREFIX, errorAnswer } from './schemas/rest.js'

export interface OpenapiOptions {
  /** Version of the server, shown in the description. */
  version: string
  /** Where the page is; default `/docs`. */
  pagePath?: string
}

const CHECKS: Record<keyof OpenapiOptions, OptionCheck> = {
  version: { ...aText('a version'), required: true }, pagePath: aPath
}

/**
 * Styles are inline because the page's own scripts set them; scripts come from this server only.
 */
const PAGE_CSP = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; connect-src " +
  "'self'; font-src 'self' data:; " +
  "img-src 'self' data:; script-src 'self'; style-src 'self' 'unsafe-inline'"

const DESCRIPTION =
  'Operators see, end, detach and write to sessions. Clients do not use this API: they speak ' +
  `WebSocket (docs/protocol.md).

Every error has the form \`{statusCode, code, error, message}\`; docs/errors.md says what to do about each code.`

const SOCKET_DESCRIPTION =
  `The WebSocket endpoint of clients (P-1). Offer the subprotocol \`${SUBPROTOCOL}\` for sessions that can be ` +
  `resumed, or none for the basic profile. What is refused is refused
before the upgrade, as HTTP. Frames, rules and close codes are in docs/protocol.md.`

export default fp<OpenapiOptions>(async function openapi (fastify, options) {
  checkPluginOptions('holdfast/openapi', options, CHECKS)
  const { version, pagePath = '/docs' } = options
  // One budget with everything else that needs no operator. Files are cheap to serve, and still not
  // for nothing.
  const limit = fastify.hasDecorator('rateLimit') ? { onRequest: fastify.rateLimit() } : {}
  await fastify.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Holdfast operator API',
        version,
        description: DESCRIPTION,
        license: { name: 'MIT', identifier: 'MIT' }
      },
      tags: [
        { name: 'sessions', description: 'One session at a time.' },
        { name: 'users', description: 'All sessions of a user.' },
        { name: 'messages', description: 'Output to clients.' },
        { name: 'nodes', description: 'The nodes that share a store.' },
        { name: 'health', description: 'For supervisors, load balancers and Prometheus.' },
        { name: 'clients', description: 'The WebSocket endpoint.' }
      ],
      components: {
        securitySchemes: {
          operatorToken: {
            type: 'http',
            scheme: 'bearer',
            description: 'HOLDFAST_ADMIN_TOKEN. Without one the server answers loopback only, and no token is asked ' +
              'for.'
          }
        }
      },
      security: [{ operatorToken: [] }]
    },
    // A host's own routes, the page and static files are not this API.
    hideUntagged: true,
    refResolver: {
      buildLocalReference: (schema, _base, _fragment, i) => typeof schema.$id === 'string'
        ? schema.$id.replace(SCHEMA_PREFIX, '')
        : `def-${i}`
    },
    transform: ({ schema, url, route }) => ({ schema: isSocketRoute(route) ? socketSchema() : schema ?? {}, url })
  })
  await fastify.register(swaggerUi, {
    routePrefix: pagePath,
    staticCSP: PAGE_CSP,
    uiConfig: {
      layout: 'BaseLayout', docExpansion: 'list', deepLinking: true, displayRequestDuration: true, validatorUrl: null
    },
    theme: { title: 'Holdfast operator API' },
    uiHooks: limit,
    logLevel: 'warn'
  })
  await fastify.register(async scope => {
    scope.get('/openapi.json', { ...limit, logLevel: 'warn', schema: { hide: true } }, async () => fastify.swagger())
  })
}, { name: 'holdfast/openapi', fastify: '5.x' })

function isSocketRoute (route: RouteOptions): boolean {
  return route.config?.holdfastSocket === true
}

function socketSchema () {
  const answers = {
    400: ['BAD_HANDSHAKE', 'SUBPROTOCOL_UNSUPPORTED'],
    401: ['UNAUTHENTICATED'],
    403: ['ORIGIN_FORBIDDEN', 'FORBIDDEN'],
    426: ['UPGRADE_REQUIRED'],
    429: ['TOO_MANY_REQUESTS', 'USER_QUOTA'],
    503: ['SERVER_FULL', 'AUTH_UNAVAILABLE', 'DRAINING']
  } as const
  return {
    summary: 'Connects a client',
    description: SOCKET_DESCRIPTION,
    tags: ['clients'],
    security: [],
    response: {
      101: { description: 'Upgraded; the server speaks first (P-5).', type: 'null' },
      ...Object.fromEntries(Object.entries(answers).map(([status, codes]) => [status, errorAnswer(codes)]))
    }
  }
}
