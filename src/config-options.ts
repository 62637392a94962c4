// Every option of the server, once: its environment name, schema, unit, default, and what an
// operator needs to know about it. The type of the configuration, its validation, the flags,
// `--help` and the table in docs/operations.md all follow from this table.
//
// Reading and judging values is config.ts; printing is config-help.ts. Nothing here reads the
// environment.

import { Type, type Static, type TSchema } from 'typebox'
import { MAX_JSON_BYTES } from './io/json.js'
import { canonicalRange, proxyRangeProblem, withoutBrackets } from './io/names/address.js'
import { MAX_PARTITIONS, readRedisUrl } from './stores/redis/url.js'
import { canonicalOriginEntry, originEntryProblem } from './io/names/origin.js'

export interface Option<S extends TSchema = TSchema, D = unknown> {
  /**
   * Name in the environment and in `.env`; the flag is `--` and the same in kebab-case, without the
   * prefix.
   */
  readonly env: string
  /** Of the value once it is read: bounds and alternatives are part of it. */
  readonly schema: S
  /** Undefined: not set. */
  readonly default: D
  /** For numbers. */
  readonly unit?: 'seconds' | 'bytes' | 'messages' | 'commands' | 'sessions' | 'keys' | 'partitions' | 'processes'
    | 'per second' | 'per minute'
  /**
   * Masked wherever configuration is printed, and not taken from the command line, which every user
   * of the machine can read.
   */
  readonly secret?: true
  /** What it decides, or which failure or attack it bounds. */
  readonly what: string
  /** What the peer sees when the limit is hit. */
  readonly hit?: string
  /** When to raise and when to lower it. */
  readonly tune?: string
  /** What is wrong with a value that its schema allows; undefined when nothing is. */
  readonly problem?: (value: never) => string | undefined
  /**
   * The one way of writing a value without a problem: what is compared with, and what
   * --print-config shows.
   */
  readonly canonical?: (value: never) => unknown
}

function option<S extends TSchema, const D extends Static<S> | undefined> (row: Option<S, D>): Option<S, D> {
  return row
}

/** Decimals down to a millisecond are taken. */
function seconds (minimum: number, maximum: number) {
  return Type.Number({ minimum, maximum })
}

function whole (minimum: number, maximum: number) {
  return Type.Integer({ minimum, maximum })
}

const list = () => Type.Array(Type.String({ minLength: 1 }))
const text = (maxLength = 2048) => Type.String({ minLength: 1, maxLength })

const KIB = 1024
const MIB = 1024 * KIB
const YEAR_SECONDS = 31_536_000

export const OPTIONS = {
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
    what: 'Addresses or CIDR ranges of the proxies whose X-Forwarded-* headers are believed, such as `10.0.0.0/8`. ' +
      'Neither `true` nor a number of hops is taken: with both a client could choose its own address.',
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
      : `it has ${Buffer.byteLength(secret)} bytes, and 32 are the least`
  }),
  jwksUrl: option({
    env: 'HOLDFAST_JWKS_URL',
    schema: text(),
    default: undefined,
    what: 'Where the issuer of the tokens publishes its public keys.',
    hit: '401 `UNAUTHENTICATED`; 503 `AUTH_UNAVAILABLE` while there are no keys, or for a key that is not there yet',
    problem: (url: string) => httpUrlProblem(url) ?? bareUrlProblem(new URL(url))
  }),
  jwksMaxStaleSeconds: option({
    env: 'HOLDFAST_JWKS_MAX_STALE_SECONDS',
    schema: seconds(0, 7 * 86_400),
    unit: 'seconds',
    default: 86_400,
    what: 'While the key set cannot be fetched, the keys at hand are used until they are so old. Bounds how long a ' +
      'key that the issuer has withdrawn is believed. Keys are fetched anew every 600 s; with up to 600 an outage ' +
      'stops all handshakes after that time.',
    hit: '503 `AUTH_UNAVAILABLE`',
    tune: 'Raise to outlast longer outages of the issuer; lower where withdrawn keys must not live for a day.'
  }),
  jwtClockToleranceSeconds: option({
    env: 'HOLDFAST_JWT_CLOCK_TOLERANCE_SECONDS',
    schema: seconds(0, 300),
    unit: 'seconds',
    default: 10,
    what: 'How far the clocks of issuer and server may differ: a token is taken so long before its `nbf` and after ' +
      'its `exp`. Clocks that are kept by NTP differ by less than a second, those of machines just started by a few.',
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
  }),
  coreUrl: option({
    env: 'HOLDFAST_CORE_URL',
    schema: text(),
    default: undefined,
    what: 'Where commands are POSTed. Without it the built-in commands `ping`, `echo`, `context.get` and ' +
      '`context.set` answer.',
    hit: '`CORE_UNAVAILABLE` while the core does not answer',
    problem: (url: string) => httpUrlProblem(url) ?? bareUrlProblem(new URL(url))
  }),
  coreSecret: option({
    env: 'HOLDFAST_CORE_SECRET',
    schema: text(),
    default: undefined,
    secret: true,
    what: 'Signs every request to the core: `whsec_` and base64, or the key itself; 24 bytes at least. Without it ' +
      'requests are not signed.',
    problem: coreSecretProblem
  }),
  coreTimeoutSeconds: option({
    env: 'HOLDFAST_CORE_TIMEOUT_SECONDS',
    schema: seconds(0.001, 3600),
    unit: 'seconds',
    default: 10,
    what: 'Most time the core has to answer one request; the time limit of the command cuts it short.',
    hit: '`OUTCOME_UNKNOWN`; for an idempotent command another attempt',
    tune: 'Raise, up to the time limit of commands, for a core that thinks long; lower for an idempotent one, so ' +
      'that ' +
      'a hanging request leaves time for another.'
  }),
  coreIdempotent: option({
    env: 'HOLDFAST_CORE_IDEMPOTENT',
    schema: Type.Boolean(),
    default: false,
    what: 'Whether the core answers a repeated `webhook-id` from memory, for every command. Then a command that may ' +
      'have been executed is sent again while its time lasts; otherwise it never is.',
    hit: '`OUTCOME_UNKNOWN` when no attempt was answered',
    tune: 'Set to `true` only for a core built as in docs/core.md; single commands are declared with ' +
      '`idempotent: true` in code.'
  }),
  lifecycleEvents: option({
    env: 'HOLDFAST_LIFECYCLE_EVENTS',
    schema: Type.Array(Type.Enum(['session.created', 'session.attached', 'session.detached', 'session.ended'])),
    default: [] as string[] as ('session.created' | 'session.attached' | 'session.detached' | 'session.ended')[],
    what: 'Events the core is told of: `session.created`, `session.attached`, `session.detached`, `session.ended`.'
  }),
  store: option({
    env: 'HOLDFAST_STORE',
    schema: Type.Enum(['memory', 'embedded', 'redis']),
    default: 'memory',
    what: 'Where sessions are kept. `memory`: sessions outlive connections, not the process. `embedded`: they also ' +
      'outlive the process, in HOLDFAST_DATA_DIR; setting that is enough. `redis`: they also outlive any one node, ' +
      'in ' +
      'HOLDFAST_REDIS_URL; setting that is enough.'
  }),
  dataDir: option({
    env: 'HOLDFAST_DATA_DIR',
    schema: text(1024),
    default: undefined,
    what: 'Directory of the embedded store; it is made if there is none. On a local disk, for one process at a time.',
    hit: 'the server does not start, and says why; for a disk that fails later `STORE_UNAVAILABLE` until it is mended'
  }),
  durability: option({
    env: 'HOLDFAST_DURABILITY',
    schema: Type.Enum(['process', 'disk']),
    default: 'process',
    what: 'What an answered command survives with the embedded store. `process`: the death of the process. `disk`: ' +
      'also that of the host; each group of writes then waits for the disk.',
    tune: 'Set to `disk` where a power failure must not cost the last seconds.'
  }),
  redisUrl: option({
    env: 'HOLDFAST_REDIS_URL',
    schema: text(),
    default: undefined,
    secret: true,
    what: 'Redis (7.0 or later) or Valkey (7.2 or later) of the redis store: `redis://user:password@host:6379/0`, ' +
      '`rediss://` with TLS, `redis+cluster://host:6379,host:6379`, `redis+sentinel://host:26379,host:26379/primary`.',
    hit: 'the server does not start, and says why; for a Redis that fails later `STORE_UNAVAILABLE` until it is back',
    problem: (url: string) => {
      const address = readRedisUrl(url)
      return 'problem' in address ? address.problem : undefined
    }
  }),
  redisPrefix: option({
    env: 'HOLDFAST_REDIS_PREFIX',
    schema: Type.String({ minLength: 1, maxLength: 64, pattern: '^[A-Za-z0-9._:-]+$' }),
    default: 'holdfast',
    what: 'In front of every key in Redis. The same on all nodes of a deployment; another one for each deployment.'
  }),
  redisPartitions: option({
    env: 'HOLDFAST_REDIS_PARTITIONS',
    schema: whole(1, MAX_PARTITIONS),
    default: 256,
    unit: 'partitions',
    what: 'Parts that sessions are spread over, a power of two. Fixed by the first node that starts with a prefix.',
    hit: 'a node with another number does not start',
    tune: 'Set to 1024 for a Redis cluster of more than eight primaries, before the first start.',
    problem: (count: number) => Number.isInteger(Math.log2(count)) ? undefined : 'it is not a power of two'
  }),
  nodeName: option({
    env: 'HOLDFAST_NODE_NAME',
    schema: Type.String({ minLength: 1, maxLength: 64, pattern: '^[A-Za-z0-9._-]+$' }),
    default: 'node',
    what: 'Name of this node for people, with the redis store; a random part is added at each start.'
  }),
  workers: option({
    env: 'HOLDFAST_WORKERS',
    schema: whole(1, 128),
    default: 1,
    unit: 'processes',
    what: 'Processes that serve together on one port, each a node with limits of its own, so that a machine uses ' +
      'more than one core. More than one needs the redis store.',
    tune: 'Set to the number of cores, less one where Redis runs on the same machine.'
  }),
  sessionTimeoutSeconds: option({
    env: 'HOLDFAST_SESSION_TIMEOUT_SECONDS',
    schema: seconds(0.1, YEAR_SECONDS),
    unit: 'seconds',
    default: 3600,
    what: 'A session without a command accepted or an output dispatched for longer ends. Heartbeats and operators\' ' +
      'reads do not count.',
    hit: 'close 4300 `idle`',
    tune: 'Raise for people who read long; lower to free memory sooner.'
  }),
  resumeWindowSeconds: option({
    env: 'HOLDFAST_RESUME_WINDOW_SECONDS',
    schema: seconds(0, YEAR_SECONDS),
    unit: 'seconds',
    default: undefined,
    what: 'A session without a connection is kept so long, and never beyond HOLDFAST_SESSION_TIMEOUT_SECONDS, which ' +
      'is the default. With 0 every close ends the session.',
    hit: 'a new session with `previous.reason` `resume_window`',
    tune: 'Lower when clients rarely come back: a detached session costs its outbox.'
  }),
  heartbeatSeconds: option({
    env: 'HOLDFAST_HEARTBEAT_SECONDS',
    schema: seconds(0.1, 3600),
    unit: 'seconds',
    default: 25,
    what: 'Every connection hears something at least so often; a peer from which no byte has come for 10 s longer ' +
      'is dropped. Bounds what dead peers hold.',
    hit: 'close 4103 `heartbeat_missed`; the session is kept',
    tune: 'Lower below the idle time-out of proxies in between, often 60 s; raise to spare batteries.'
  }),
  maxSessions: option({
    env: 'HOLDFAST_MAX_SESSIONS',
    schema: whole(1, 10_000_000),
    unit: 'sessions',
    default: 100_000,
    what: 'Sessions of this node, attached and detached. Bounds memory. Beyond it a new session ends the longest ' +
      'detached one, of the same user if there is one; attached ones never give way.',
    hit: '503 `SERVER_FULL` while every session is attached; `overloaded` in `previous` and events for one that ' +
      'gave way',
    tune: 'Raise when there is memory for it; lower for a small container.'
  }),
  maxSessionsPerUser: option({
    env: 'HOLDFAST_MAX_SESSIONS_PER_USER',
    schema: whole(1, 1_000_000),
    unit: 'sessions',
    default: 64,
    what: 'Sessions of one user, so that one runaway client does not take all of HOLDFAST_MAX_SESSIONS. Beyond it a ' +
      'new one ends the longest detached one. Not applied to the placeholder user.',
    hit: '429 `USER_QUOTA` while every one is attached; `quota` in `previous` and events for one that gave way',
    tune: 'Raise for users that are programs; lower to hold people to a few tabs.'
  }),
  maxMessageBytes: option({
    env: 'HOLDFAST_MAX_MESSAGE_BYTES',
    schema: whole(256, MAX_JSON_BYTES),
    unit: 'bytes',
    default: 64 * KIB,
    what: 'One message from a client. Bounds what an unfinished message costs; refused from its header alone.',
    hit: 'close 1009; the session is kept',
    tune: 'Raise only as far as the largest command needs; a message is parsed in one piece, about 10 ms a MiB.'
  }),
  commandsPerSecond: option({
    env: 'HOLDFAST_COMMANDS_PER_SECOND',
    schema: whole(1, 1_000_000),
    unit: 'per second',
    default: 50,
    what: 'Sustained commands of one session; bursts of twice as many pass. Bounds what one client takes from the ' +
      'others.',
    hit: '`RATE_LIMITED` with `retryAfterMs`; close 4102 after 100 refusals in a row',
    tune: 'Raise for clients that are programs.'
  }),
  maxInFlight: option({
    env: 'HOLDFAST_MAX_IN_FLIGHT',
    schema: whole(1, 10_000),
    unit: 'commands',
    default: 64,
    what: 'Commands of one session that run at the same time.',
    hit: '`TOO_MANY_IN_FLIGHT` with `retryAfterMs`',
    tune: 'Lower to protect a slow core; raise when clients pipeline.'
  }),
  commandTimeoutSeconds: option({
    env: 'HOLDFAST_COMMAND_TIMEOUT_SECONDS',
    schema: seconds(0.001, 3600),
    unit: 'seconds',
    default: 30,
    what: 'Time limit of a command that declares none, all attempts at the core included.',
    hit: '`COMMAND_TIMEOUT`; what the handler returns later is discarded',
    tune: 'Raise for slow handlers, or better declare `timeoutMs` on those commands.'
  }),
  maxContextBytes: option({
    env: 'HOLDFAST_MAX_CONTEXT_BYTES',
    schema: whole(2, MAX_JSON_BYTES),
    unit: 'bytes',
    default: 64 * KIB,
    what: 'The context of one session, as JSON.',
    hit: '`CONTEXT_TOO_LARGE`, as for more than 16,384 members, arrays and objects',
    tune: 'Keep references in the context in place of documents before raising it.'
  }),
  outboxMessages: option({
    env: 'HOLDFAST_OUTBOX_MESSAGES',
    // A resume that asks for smaller outputs looks at each of them, at about a microsecond, in one
    // turn.
    schema: whole(1, 32_768),
    unit: 'messages',
    default: 1000,
    what: 'Outputs one session holds until they are acknowledged. Bounds what an absent client costs.',
    hit: 'the oldest outputs are dropped and named in `gap` at the next resume',
    tune: 'Raise for long absences under much output; lower when there are many sessions.'
  }),
  outboxBytes: option({
    env: 'HOLDFAST_OUTBOX_BYTES',
    schema: whole(KIB, 1024 * MIB),
    unit: 'bytes',
    default: MIB,
    what: 'The same in bytes, and thereby the largest single output, which never exceeds 1 MiB: it is printed in ' +
      'one piece.',
    hit: 'as above; `RESULT_TOO_LARGE` or 413 for one output that is larger',
    tune: 'As above.'
  }),
  outboxTotalBytes: option({
    env: 'HOLDFAST_OUTBOX_TOTAL_BYTES',
    schema: whole(KIB, 1024 * 1024 * MIB),
    unit: 'bytes',
    default: 256 * MIB,
    what: 'The outboxes of all sessions together. Bounds memory where many clients are absent at once.',
    hit: 'a session that appends beyond it drops its own oldest outputs',
    tune: 'Set to about a third of the memory the process may use.'
  }),
  maxBufferedBytes: option({
    env: 'HOLDFAST_MAX_BUFFERED_BYTES',
    schema: whole(KIB, 64 * MIB),
    unit: 'bytes',
    default: 256 * KIB,
    what: 'Bytes that wait in one socket before it is left alone until it drains. Bounds what a slow reader costs ' +
      'beside its outbox.',
    hit: 'output waits in the outbox; close 4101 `slow_consumer` when that is full',
    tune: 'Raise for few connections with large bursts over long lines.'
  }),
  upgradesPerMinute: option({
    env: 'HOLDFAST_UPGRADES_PER_MINUTE',
    schema: whole(1, 1_000_000),
    unit: 'per minute',
    default: 1200,
    what: 'Handshakes of one address (IPv6: one /64). Bounds what guessing tokens and reconnect loops cost. The ' +
      'default lets an office of 1,000 people behind one address come back within a minute of a deploy.',
    hit: '429 `TOO_MANY_REQUESTS` with Retry-After',
    tune: 'Raise for larger offices or a proxy that is not in HOLDFAST_TRUST_PROXY; lower on the open internet.'
  }),
  requestsPerMinute: option({
    env: 'HOLDFAST_REQUESTS_PER_MINUTE',
    schema: whole(1, 1_000_000),
    unit: 'per minute',
    default: 6000,
    what: 'Requests of one address (IPv6: one /64) to operators\' routes, `/metrics` among them; and as many again ' +
      'to `/`, `/docs`, `/openapi.json` and paths without a route. `/ws` has a limit of its own, `/health` none. ' +
      'Bounds scripts that went wild and guessing of HOLDFAST_ADMIN_TOKEN; leaves room for a platform that sends ' +
      '100 messages a second over REST.',
    hit: '429 `TOO_MANY_REQUESTS` with Retry-After',
    tune: 'Raise for a platform that sends more.'
  }),
  idempotencyKeySeconds: option({
    env: 'HOLDFAST_IDEMPOTENCY_KEY_SECONDS',
    schema: seconds(1, 86_400),
    unit: 'seconds',
    default: 600,
    what: 'How long the answer to a message with an Idempotency-Key is remembered; a repeat meanwhile sends nothing ' +
      'and gets that answer.',
    tune: 'Raise for platforms that repeat a request later than that; each key costs about half a kilobyte.'
  }),
  maxIdempotencyKeys: option({
    env: 'HOLDFAST_MAX_IDEMPOTENCY_KEYS',
    schema: whole(1, 10_000_000),
    unit: 'keys',
    default: 100_000,
    what: 'Idempotency keys remembered at the same time. Bounds memory.',
    hit: '429 `TOO_MANY_KEYS` with Retry-After for a new key; none is forgotten early',
    tune: 'Raise for a platform that sends more messages with a key than this in HOLDFAST_IDEMPOTENCY_KEY_SECONDS.'
  }),
  handshakeSeconds: option({
    env: 'HOLDFAST_HANDSHAKE_SECONDS',
    schema: seconds(0.1, 30),
    unit: 'seconds',
    default: 5,
    what: 'Time for the headers of a request, upgrades included. Bounds what connections cost that never say what ' +
      'they want.',
    hit: '408, and the connection is closed',
    tune: 'Raise for peers on very slow lines.'
  }),
  maxEventLoopDelaySeconds: option({
    env: 'HOLDFAST_MAX_EVENT_LOOP_DELAY_SECONDS',
    schema: seconds(0.02, 60),
    unit: 'seconds',
    default: 1,
    what: 'How far the event loop may lag, on average over a second and for two seconds in a row, before new ' +
      'requests and handshakes are sent away. Open connections are served on.',
    hit: '503 `SERVER_FULL` with Retry-After; `/health/ready` says `under_pressure`',
    tune: 'Lower to send clients to another node earlier.'
  }),
  drainSeconds: option({
    env: 'HOLDFAST_DRAIN_SECONDS',
    schema: seconds(0, 600),
    unit: 'seconds',
    default: 10,
    what: 'How long a stop may take: clients are sent away over the first half, and running commands have the rest. ' +
      'Keep the supervisor\'s grace period 5 s above it.',
    hit: 'close 4200 `draining`',
    tune: 'Raise for many clients or long commands; 0 stops at once.'
  })
}

/**
 * Names of former options, and what to do in their place: a name that once had an effect is not
 * just unknown.
 */
export const WITHDRAWN: Readonly<Record<string, string>> = {
  HOLDFAST_CORE_RETRIES: 'commands that surely did not run are now repeated while their time limit lasts, and others ' +
    'not at all unless HOLDFAST_CORE_IDEMPOTENT is true; remove it'
}

export type OptionKey = keyof typeof OPTIONS
export const OPTION_KEYS = Object.keys(OPTIONS) as OptionKey[]

/** The row under a general type, for code that walks the table. */
export function optionOf (key: OptionKey): Option {
  return OPTIONS[key] as unknown as Option
}

/** `HOLDFAST_MAX_SESSIONS` is `max-sessions`. */
export function flagOf (key: OptionKey): string {
  return flagOfName(OPTIONS[key].env)
}

/** The same, for a name of the environment. */
export function flagOfName (env: string): string {
  return env.replace(/^HOLDFAST_/, '').toLowerCase().replaceAll('_', '-')
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

function httpUrlProblem (url: string): string | undefined {
  return URL.canParse(url) && /^https?:$/.test(new URL(url).protocol) ? undefined : 'it is not an http or https URL'
}

function bareUrlProblem (url: URL): string | undefined {
  return url.username === '' && url.password === '' && url.hash === ''
    ? undefined
    : 'it carries credentials or a fragment'
}

function coreSecretProblem (secret: string): string | undefined {
  const key = secret.startsWith('whsec_') ? Buffer.from(secret.slice(6), 'base64') : Buffer.from(secret)
  return key.length >= 24 ? undefined : `its key has ${key.length} bytes, and 24 are the least`
}
