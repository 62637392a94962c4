// Every error that a peer can see, once: on the wire, in REST answers and in the log under the same
// code. Codes are stable, sentences are not; a retired code stays listed and is never given another
// meaning. docs/errors.md is held to this table by test/docs. HoldfastError is what the domain
// throws; anything else that reaches a border is logged whole and shown as INTERNAL.

export interface ErrorRow {
  /** What went wrong, for a human. */
  readonly message: string
  /** HTTP status where the error answers a request; 500 where it only exists on the wire. */
  readonly status: number
  /** `no`: unchanged it fails again. `later`: the same request may work after a while. */
  readonly retry: 'no' | 'later'
  /** The first thing to do about it. */
  readonly remedy: string
}

export const ERRORS = {
  // frames and commands
  BAD_FRAME: {
    message: 'The frame is not a valid client frame.',
    status: 400,
    retry: 'no',
    remedy: 'Send one JSON object per text message, shaped as docs/protocol.md section 3.2.'
  },
  BAD_ACK: {
    message: 'The ack is above the highest seq of the session.',
    status: 400,
    retry: 'no',
    remedy: 'Acknowledge only seqs that were received.'
  },
  SESSION_INVALID: {
    message: 'Invalid or expired session.',
    status: 410,
    retry: 'no',
    remedy: 'Name the sessionId that this connection was given, or connect again.'
  },
  UNKNOWN_COMMAND: {
    message: 'No such command.',
    status: 404,
    retry: 'no',
    remedy: 'Check the name against the commands the platform registers.'
  },
  INVALID_PAYLOAD: {
    message: 'The payload does not match the schema of the command.',
    status: 400,
    retry: 'no',
    remedy: 'Correct the member that the sentence names.'
  },
  COMMAND_GAP: {
    message: 'An earlier numbered command is missing.',
    status: 409,
    retry: 'no',
    remedy: 'Send the commands from `expected` on, in order.'
  },
  RESULT_EXPIRED: {
    message: 'The command was executed; its answer is no longer kept.',
    status: 410,
    retry: 'no',
    remedy: 'Acknowledge answers only once handled; raise HOLDFAST_OUTBOX_MESSAGES if they are dropped.'
  },
  COMMAND_TIMEOUT: {
    message: 'The command was not answered in time.',
    status: 504,
    retry: 'no',
    remedy: 'Raise timeoutMs of the command, or find out what its handler waits for.'
  },
  CORE_UNAVAILABLE: {
    message: 'The Platform Core could not be reached; the command was not executed.',
    status: 503,
    retry: 'later',
    remedy: 'Check HOLDFAST_CORE_URL and the core; the command may be sent again under a new id.'
  },
  OUTCOME_UNKNOWN: {
    message: 'The command may have been executed; its answer is lost.',
    status: 504,
    retry: 'no',
    remedy: 'Look at what the command changes before sending it again; see docs/core.md on idempotent cores.'
  },
  CORE_REFUSED: {
    message: 'The Platform Core refused the command.',
    status: 422,
    retry: 'no',
    remedy: 'Let the core answer 4xx with {code, message}; the log has its status.'
  },
  INVALID_RESULT: {
    message: 'The answer does not match its schema, or JSON cannot carry it.',
    status: 502,
    retry: 'no',
    remedy: 'Correct the handler or the core; the log names the member.'
  },
  RESULT_TOO_LARGE: {
    message: 'The answer is larger than an output may be.',
    status: 507,
    retry: 'no',
    remedy: 'Return less; raise HOLDFAST_OUTBOX_BYTES, or what the client asks for (P-50).'
  },
  CONTEXT_TOO_LARGE: {
    message: 'The session context would exceed its limit.',
    status: 413,
    retry: 'no',
    remedy: 'Keep less in the context, or raise HOLDFAST_MAX_CONTEXT_BYTES.'
  },
  RATE_LIMITED: {
    message: 'Too many commands.',
    status: 429,
    retry: 'later',
    remedy: 'Wait for retryAfterMs, or raise HOLDFAST_COMMANDS_PER_SECOND.'
  },
  TOO_MANY_IN_FLIGHT: {
    message: 'Too many commands are waiting for their answers.',
    status: 429,
    retry: 'later',
    remedy: 'Wait for answers, or raise HOLDFAST_MAX_IN_FLIGHT.'
  },
  STORE_UNAVAILABLE: {
    message: 'The session store does not answer.',
    status: 503,
    retry: 'later',
    remedy: 'Send the same command id again after retryAfterMs; check the store.'
  },
  DRAINING: {
    message: 'This node is shutting down.',
    status: 503,
    retry: 'later',
    remedy: 'Connect again; another node or the restarted one answers.'
  },
  INTERNAL: {
    message: 'Something failed inside the server.',
    status: 500,
    retry: 'later',
    remedy: 'Find the log line with the same session id.'
  },

  // upgrade
  UPGRADE_REQUIRED: {
    message: 'This address speaks WebSocket only.',
    status: 426,
    retry: 'no',
    remedy: 'Connect with a WebSocket client.'
  },
  BAD_HANDSHAKE: {
    message: 'The handshake is malformed.',
    status: 400,
    retry: 'no',
    remedy: 'Send one Host header, HTTP/1.1, and no body.'
  },
  SUBPROTOCOL_UNSUPPORTED: {
    message: 'None of the offered subprotocols is supported.',
    status: 400,
    retry: 'no',
    remedy: 'Offer holdfast.v1, or no subprotocol for the basic profile.'
  },
  UNAUTHENTICATED: {
    message: 'Valid credentials are required.',
    status: 401,
    retry: 'no',
    remedy: 'Send a valid token; see docs/protocol.md P-3.'
  },
  AUTH_UNAVAILABLE: {
    message: 'Credentials cannot be checked at the moment.',
    status: 503,
    retry: 'later',
    remedy: 'Check that HOLDFAST_JWKS_URL answers; the handshake may be tried again.'
  },
  FORBIDDEN: { message: 'Not allowed.', status: 403, retry: 'no', remedy: 'Use credentials that carry the right.' },
  ORIGIN_FORBIDDEN: {
    message: 'Connections from this origin are not allowed.',
    status: 403,
    retry: 'no',
    remedy: 'Add the origin to HOLDFAST_ALLOWED_ORIGINS.'
  },
  TOO_MANY_REQUESTS: {
    message: 'Too many requests from this address.',
    status: 429,
    retry: 'later',
    remedy: 'Wait for the time in Retry-After.'
  },
  USER_QUOTA: {
    message: 'The user has too many sessions.',
    status: 429,
    retry: 'later',
    remedy: 'End a session, or raise HOLDFAST_MAX_SESSIONS_PER_USER.'
  },
  SERVER_FULL: {
    message: 'The server has reached its session limit.',
    status: 503,
    retry: 'later',
    remedy: 'Raise HOLDFAST_MAX_SESSIONS, or add a node.'
  },

  // REST
  INVALID_REQUEST: {
    message: 'The request does not match its schema.',
    status: 400,
    retry: 'no',
    remedy: 'Correct the member that the sentence names.'
  },
  INVALID_CURSOR: {
    message: 'The cursor is not one that this list gave.',
    status: 400,
    retry: 'no',
    remedy: 'Use nextCursor of the previous page, with the same filters and sort.'
  },
  OPERATOR_REQUIRED: {
    message: 'The operator API needs its token.',
    status: 401,
    retry: 'no',
    remedy: 'Send Authorization: Bearer with the value of HOLDFAST_ADMIN_TOKEN.'
  },
  HOST_FORBIDDEN: {
    message: 'Without a token the operator API answers only loopback addresses.',
    status: 403,
    retry: 'no',
    remedy: 'Use http://127.0.0.1, or set HOLDFAST_ADMIN_TOKEN.'
  },
  SESSION_NOT_FOUND: {
    message: 'No such session.',
    status: 404,
    retry: 'no',
    remedy: 'List the sessions with GET /sessions.'
  },
  NODE_NOT_FOUND: {
    message: 'No such node.',
    status: 404,
    retry: 'no',
    remedy: 'List the nodes with GET /nodes; a node has another id after each start.'
  },
  SESSION_ENDED: {
    message: 'The session has ended.',
    status: 410,
    retry: 'no',
    remedy: 'The answer names the reason; a client starts a new session.'
  },
  NOT_ATTACHED: {
    message: 'The session has no connection.',
    status: 409,
    retry: 'no',
    remedy: 'Nothing is to be done: it is detached already.'
  },
  PAYLOAD_TOO_LARGE: {
    message: 'The message is larger than an output may be.',
    status: 413,
    retry: 'no',
    remedy: 'Send less; raise HOLDFAST_OUTBOX_BYTES, or what the client asks for (P-50).'
  },
  ROUTE_MOVED: {
    message: 'This route has another path now.',
    status: 410,
    retry: 'no',
    remedy: 'Use the path that the sentence names.'
  },
  IDEMPOTENCY_KEY_REUSED: {
    message: 'The idempotency key was used with another body.',
    status: 422,
    retry: 'no',
    remedy: 'Use a new key for each message, and the same one only to repeat it.'
  },
  IDEMPOTENCY_KEY_IN_USE: {
    message: 'A request with this idempotency key is under way.',
    status: 409,
    retry: 'later',
    remedy: 'Ask again after the time in Retry-After; the answer is that of the first request.'
  },
  TOO_MANY_KEYS: {
    message: 'As many idempotency keys as allowed are remembered.',
    status: 429,
    retry: 'later',
    remedy: 'Wait for the time in Retry-After, or raise HOLDFAST_MAX_IDEMPOTENCY_KEYS.'
  },
  ROUTE_NOT_FOUND: { message: 'No such route.', status: 404, retry: 'no', remedy: 'See /openapi.json for the routes.' },

  // start
  CONFIG_INVALID: {
    message: 'The configuration is not valid.',
    status: 500,
    retry: 'no',
    remedy: 'Correct the options that the message lists; see docs/operations.md.'
  },
  PLUGIN_MISUSED: {
    message: 'A plugin was registered in a way that cannot work.',
    status: 500,
    retry: 'no',
    remedy: 'Register each plugin once, in the order of docs/api.md.'
  }
} as const satisfies Record<string, ErrorRow>

export type ErrorCode = keyof typeof ERRORS

export interface ErrorOptions {
  /**
   * A sentence that names the value at fault; without it the row's message. Never text of a library
   * or a stack.
   */
  message?: string
  cause?: unknown
  /** When the same request may work; sent along where the frame or answer has room for it. */
  retryAfterMs?: number
  /** Members that travel with the error: `expected` of COMMAND_GAP, `reason` of SESSION_ENDED. */
  details?: Record<string, string | number>
}

/**
 * The one error of the domain. `code` is a row of ERRORS, or the code of the platform's own for
 * errors of a handler or core. `statusCode` is what Fastify answers with.
 */
export class HoldfastError extends Error {
  override readonly name = 'HoldfastError'
  readonly code: string
  readonly statusCode: number
  readonly retryAfterMs: number | undefined
  readonly details: Record<string, string | number> | undefined

  constructor (code: ErrorCode, options: ErrorOptions = {}) {
    super(options.message ?? ERRORS[code].message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.statusCode = ERRORS[code].status
    this.retryAfterMs = options.retryAfterMs
    this.details = options.details
  }
}

/**
 * An error of the platform's own, to be thrown by command handlers: the client is answered with
 * exactly this code and sentence (P-15). Codes are 1–64 characters of A–Z, 0–9 and _, so that they
 * cannot be taken for text; anything else is answered INTERNAL.
 */
export function commandError (code: string, message: string): Error & { code: string, expose: true } {
  return Object.assign(new Error(message), { code, expose: true as const })
}

export const COMMAND_ERROR_CODE = /^[A-Z][A-Z0-9_]{0,63}$/
