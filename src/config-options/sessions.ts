// Options of one session and its connection: how long it lives, what it may send, what it holds.

import { MAX_JSON_BYTES } from '../io/json.js'
import { option, seconds, whole } from './option.js'

const KIB = 1024
const MIB = 1024 * KIB
const YEAR_SECONDS = 31_536_000

export const SESSION_OPTIONS = {
  sessionTimeoutSeconds: option({
    env: 'HOLDFAST_SESSION_TIMEOUT_SECONDS',
    schema: seconds(0.1, YEAR_SECONDS),
    unit: 'seconds',
    default: 3600,
    what: 'A session without a command accepted or an output dispatched for longer ends. Heartbeats and ' +
      'operators\' reads do not count.',
    hit: 'close 4300 `idle`',
    tune: 'Raise for people who read long; lower to free memory sooner.'
  }),
  resumeWindowSeconds: option({
    env: 'HOLDFAST_RESUME_WINDOW_SECONDS',
    schema: seconds(0, YEAR_SECONDS),
    unit: 'seconds',
    default: undefined,
    what: 'A session without a connection is kept so long, and never beyond HOLDFAST_SESSION_TIMEOUT_SECONDS, ' +
      'which is the default. With 0 every close ends the session.',
    hit: 'a new session with `previous.reason` `resume_window`',
    tune: 'Lower when clients rarely come back: a detached session costs its outbox.'
  }),
  heartbeatSeconds: option({
    env: 'HOLDFAST_HEARTBEAT_SECONDS',
    schema: seconds(0.1, 3600),
    unit: 'seconds',
    default: 25,
    what: 'Longest silence towards a client; a ping fills it. A peer from which no byte has come for 10 s longer ' +
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
    what: 'Sessions of one user, so that one runaway client does not take all of HOLDFAST_MAX_SESSIONS. Beyond ' +
      'it a new one ends the longest detached one. Not applied to the placeholder user.',
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
    what: 'Sustained commands of one session; bursts of twice as many pass. Bounds what one client takes from ' +
      'the others.',
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
    // A resume that asks for smaller outputs looks at each of them in one turn, 1 µs each.
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
    what: 'Bytes that wait in one socket before it is left alone until it drains. Bounds what a slow reader ' +
      'costs beside its outbox.',
    hit: 'output waits in the outbox; close 4101 `slow_consumer` when that is full',
    tune: 'Raise for few connections with large bursts over long lines.'
  })
}
