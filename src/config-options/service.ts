// Options of the service as a whole: what one address may ask for, pressure and stopping.

import { option, seconds, whole } from './option.js'

export const SERVICE_OPTIONS = {
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
    what: 'Requests of one address (IPv6: one /64) to operators\' routes, `/metrics` among them; and as many ' +
      'again to `/`, `/docs`, `/openapi.json` and paths without a route. `/ws` has a limit of its own, `/health` ' +
      'none. Bounds scripts that went wild and guessing of HOLDFAST_ADMIN_TOKEN; leaves room for a platform that ' +
      'sends 100 messages a second over REST.',
    hit: '429 `TOO_MANY_REQUESTS` with Retry-After',
    tune: 'Raise for a platform that sends more.'
  }),
  idempotencyKeySeconds: option({
    env: 'HOLDFAST_IDEMPOTENCY_KEY_SECONDS',
    schema: seconds(1, 86_400),
    unit: 'seconds',
    default: 600,
    what: 'How long the answer to a message with an Idempotency-Key is remembered; a repeat meanwhile sends ' +
      'nothing and gets that answer.',
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
    what: 'Time for the headers of a request, upgrades included. Bounds what connections cost that never say ' +
      'what they want.',
    hit: '408, and the connection is closed',
    tune: 'Raise for peers on very slow lines.'
  }),
  maxEventLoopDelaySeconds: option({
    env: 'HOLDFAST_MAX_EVENT_LOOP_DELAY_SECONDS',
    schema: seconds(0.02, 60),
    unit: 'seconds',
    default: 1,
    what: 'How far the event loop may lag, on average over a second and for two seconds in a row, before new ' +
      'requests and handshakes are sent away. Open connections are not affected.',
    hit: '503 `SERVER_FULL` with Retry-After; `/health/ready` says `under_pressure`',
    tune: 'Lower to send clients to another node earlier.'
  }),
  drainSeconds: option({
    env: 'HOLDFAST_DRAIN_SECONDS',
    schema: seconds(0, 600),
    unit: 'seconds',
    default: 10,
    what: 'How long a stop may take: clients are sent away over the first half, and running commands have the ' +
      'rest. Keep the supervisor\'s grace period 5 s above it.',
    hit: 'close 4200 `draining`',
    tune: 'Raise for many clients or long commands; 0 stops at once.'
  })
}
