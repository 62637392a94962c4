// Every ending of a connection by the server, once. The hundreds digit is the instruction (P-49),
// so that a client knows what to do with a code it has never seen. Reasons are constant ASCII under
// 123 bytes, since RFC 6455 section 5.5 allows no more, and are never built from an exception.
// Codes are never reused. docs/protocol.md section 10 is held to this table by test/docs.

/**
 * What the client does next; sent in `goodbye`, since close codes get lost behind proxies (P-42).
 */
export type CloseAction = 'stop' | 'resume' | 'resume_later' | 'new'

export interface CloseCode {
  readonly code: number
  /** Stable name: in `goodbye.reason`, the close frame, metrics, logs and lifecycle events. */
  readonly reason: string
}

export const CLOSE = {
  ended: { code: 4000, reason: 'ended_by_client' },
  terminated: { code: 4001, reason: 'ended_by_operator' },
  replaced: { code: 4003, reason: 'replaced' },
  internal: { code: 4100, reason: 'internal' },
  slowConsumer: { code: 4101, reason: 'slow_consumer' },
  rateLimited: { code: 4102, reason: 'rate_limited' },
  heartbeatMissed: { code: 4103, reason: 'heartbeat_missed' },
  overloaded: { code: 4104, reason: 'overloaded' },
  authUnavailable: { code: 4105, reason: 'auth_unavailable' },
  storeUnavailable: { code: 4106, reason: 'store_unavailable' },
  draining: { code: 4200, reason: 'draining' },
  credentialsExpired: { code: 4202, reason: 'credentials_expired' },
  detached: { code: 4203, reason: 'detached_by_operator' },
  moved: { code: 4204, reason: 'moved' },
  idle: { code: 4300, reason: 'idle' },
  unknownSession: { code: 4301, reason: 'unknown_session' },
  stateLost: { code: 4302, reason: 'state_lost' },
  badFrame: { code: 4400, reason: 'bad_frame' },
  unauthenticated: { code: 4401, reason: 'unauthenticated' },
  forbidden: { code: 4403, reason: 'forbidden' },
  sessionInvalid: { code: 4409, reason: 'session_invalid' },
  quota: { code: 4429, reason: 'quota' }
} as const satisfies Record<string, CloseCode>

/**
 * The instruction in a close code, also for codes this version does not know (P-49).
 *
 * 40xx and 44xx: stop; 42xx: resume; 43xx: new; everything else: resume_later. That includes 1006,
 * and 1000, which a server never closes with by itself, but gateways do at their idle limit.
 */
export function closeAction (code: number): CloseAction {
  switch (Math.floor(code / 100)) {
    case 40:
    case 44: return 'stop'
    case 42: return 'resume'
    case 43: return 'new'
    default: return 'resume_later'
  }
}
