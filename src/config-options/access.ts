// Options of listening, and of who may come in.

import { Type } from 'typebox'
import { canonicalRange, proxyRangeProblem, withoutBrackets } from '../io/names/address.js'
import { canonicalOriginEntry, originEntryProblem } from '../io/names/origin.js'
import { list, option, seconds, text, urlProblem, whole } from './option.js'

export const ACCESS_OPTIONS = {
  host: option({
    env: 'HOST',
    schema: text(255),
    default: '127.0.0.1',
    what: 'Address or name to listen on. `0.0.0.0` listens on every interface and then needs HOLDFAST_ADMIN_TOKEN.',
    canonical: (host: string) => withoutBrackets(host)
  }),
  port: option({
    env: 'PORT',
    schema: whole(0, 65_535),
    default: 3000,
    what: 'TCP port to listen on; 0 takes any free one.'
  }),
  logLevel: option({
    env: 'LOG_LEVEL',
    schema: Type.Enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']),
    default: 'info',
    what: 'The least important log lines that are written.',
    tune: 'Lower to `debug` to see attaches, refusals and each retry towards the core.'
  }),
  adminToken: option({
    env: 'HOLDFAST_ADMIN_TOKEN',
    schema: Type.String({ minLength: 16, maxLength: 512, pattern: '^[\\x21-\\x7e]+$' }),
    default: undefined,
    secret: true,
    what: 'Bearer token of the operator API: 16 to 512 visible ASCII characters. Without it the operator API ' +
      'answers on loopback only.',
    hit: '401 `OPERATOR_REQUIRED`'
  }),
  allowedOrigins: option({
    env: 'HOLDFAST_ALLOWED_ORIGINS',
    schema: list(),
    default: [] as string[],
    what: 'Origins of pages that may connect beside the server\'s own, such as `https://app.example` or ' +
      '`capacitor://localhost`. `https://*.app.example` is every sub-domain of app.example; `null` is every ' +
      'sandboxed or local page; `*` is every page. Programs that send no Origin are not affected.',
    hit: '403 `ORIGIN_FORBIDDEN`',
    problem: (origins: string[]) => originsProblem(origins),
    canonical: (origins: string[]) => unique(origins.map(canonicalOriginEntry))
  }),
  trustProxy: option({
    env: 'HOLDFAST_TRUST_PROXY',
    schema: list(),
    default: [] as string[],
    what: 'Addresses or CIDR ranges of the proxies whose X-Forwarded-* headers are believed, such as ' +
      '`10.0.0.0/8`. Neither `true` nor a number of hops is taken: with both a client could choose its own ' +
      'address.',
    problem: (proxies: string[]) => firstOf(proxies, proxy => about(proxy, proxyRangeProblem(proxy))),
    canonical: (proxies: string[]) => unique(proxies.map(canonicalRange))
  }),
  jwtSecret: option({
    env: 'HOLDFAST_JWT_SECRET',
    schema: text(),
    default: undefined,
    secret: true,
    what: 'Shared secret of the tokens that users connect with (HS256, HS384, HS512): 32 bytes at least. With ' +
      'neither this nor HOLDFAST_JWKS_URL everybody is the user `human_reviewer_1`.',
    hit: '401 `UNAUTHENTICATED`',
    problem: (secret: string) => Buffer.byteLength(secret) >= 32
      ? undefined
      : `it is ${Buffer.byteLength(secret)} bytes long; the minimum is 32`
  }),
  jwksUrl: option({
    env: 'HOLDFAST_JWKS_URL',
    schema: text(),
    default: undefined,
    what: 'Where the issuer of the tokens publishes its public keys.',
    hit: '401 `UNAUTHENTICATED`; 503 `AUTH_UNAVAILABLE` while there are no keys, or for a key that is not there yet',
    problem: urlProblem
  }),
  jwksMaxStaleSeconds: option({
    env: 'HOLDFAST_JWKS_MAX_STALE_SECONDS',
    schema: seconds(0, 7 * 86_400),
    unit: 'seconds',
    default: 86_400,
    what: 'While the key set cannot be fetched, the keys at hand are used until they are so old. Bounds how long ' +
      'a key that the issuer has withdrawn is believed. Keys are fetched anew every 600 s; with up to 600 an ' +
      'outage stops all handshakes after that time.',
    hit: '503 `AUTH_UNAVAILABLE`',
    tune: 'Raise to outlast longer outages of the issuer; lower where withdrawn keys must not live for a day.'
  }),
  jwtClockToleranceSeconds: option({
    env: 'HOLDFAST_JWT_CLOCK_TOLERANCE_SECONDS',
    schema: seconds(0, 300),
    unit: 'seconds',
    default: 10,
    what: 'How far the clocks of issuer and server may differ: a token is taken so long before its `nbf` and ' +
      'after its `exp`. Clocks that are kept by NTP differ by less than a second, those of machines just started ' +
      'by a few.',
    hit: '401 `UNAUTHENTICATED`',
    tune: 'Raise for an issuer whose clock is not kept; lower to hold tokens to their last second.'
  }),
  jwtIssuer: option({
    env: 'HOLDFAST_JWT_ISSUER',
    schema: text(),
    default: undefined,
    what: 'What the `iss` of a token must be. Not set: anything.',
    hit: '401 `UNAUTHENTICATED`'
  }),
  jwtAudience: option({
    env: 'HOLDFAST_JWT_AUDIENCE',
    schema: text(),
    default: undefined,
    what: 'What the `aud` of a token must be or contain. Not set: anything.',
    hit: '401 `UNAUTHENTICATED`'
  })
}

function firstOf (items: string[], problem: (item: string) => string | undefined): string | undefined {
  for (const item of items) {
    const found = problem(item)
    if (found !== undefined) return found
  }
  return undefined
}

function about (item: string, problem: string | undefined): string | undefined {
  return problem === undefined ? undefined : `"${item}" ${problem}`
}

function originsProblem (origins: string[]): string | undefined {
  if (origins.includes('*') && origins.length > 1) return '* allows every origin, so the other entries have no effect'
  return firstOf(origins, origin => about(origin, originEntryProblem(origin)))
}

function unique<T> (items: T[]): T[] {
  return [...new Set(items)]
}
