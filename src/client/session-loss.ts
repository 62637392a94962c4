// From the loss of a connection to the next attempt, or to the end. The instruction of the server
// (P-42, P-49) decides whether and when an attempt follows.

import type { Millis } from '../io/types.js'
import type { Reason, SessionEvents } from './api.js'
import {
  BACKOFF_BASE_MS, BACKOFF_CAP_MS, DETACH_CODE, OFFLINE_BACKOFF_MS, REPLACED_CODE, STABLE_MS
} from './bounds.js'
import { act, clamp, enter, tell, type Draft, type Loss } from './session-state.js'

/** Credentials that are not accepted, and a user who may not connect. */
const DENIED_CODES = [4401, 4403]
/**
 * Endings of the client and not of the session: it may be resumed with better credentials or at a
 * better time.
 */
const KEPT_ENDINGS = ['unauthenticated', 'forbidden', 'unreachable']
/** Losses that being offline explains. */
const LINE_LOSSES = ['connection_lost', 'heartbeat_missed', 'unreachable']
/** Closes the connection for what came of it. */
export function drop (s: Draft, reason: Reason, code = DETACH_CODE): void {
  act(s, 'close', DETACH_CODE)
  lost(s, { code, reason, action: 'resume' })
}

export function lost (s: Draft, { code, reason, action, message }: Loss, retryAfterMs?: Millis): void {
  act(s, 'disarm', 'ack')
  act(s, 'lose', code)
  if (s.liveAt !== Infinity) {
    if (s.now - s.liveAt >= STABLE_MS) s.unstable = 0
    s.attempts = s.unstable++
    s.liveAt = Infinity
  }
  // Fresh credentials are tried once (P-53a).
  if (DENIED_CODES.includes(code) && !s.hasStaticToken && s.denials++ === 0) action = 'resume_later'
  if (action === 'stop' || (action === 'new' && !s.renew)) return end(s, reason, code === REPLACED_CODE)
  if (!s.isAttached && ++s.failures >= s.maxAttempts) return end(s, 'unreachable')
  const wait = clamp(retryAfterMs, 0)
  // `resume` and `new` mean now, but a server that says so again and again is not believed.
  const backoff = action === 'resume_later' || s.attempts > 0
    ? s.random() * Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** s.attempts)
    : 0
  const retryInMs = wait + Math.max(backoff, s.isOffline ? OFFLINE_BACKOFF_MS : 0)
  s.attempts++
  s.isAttached = false
  s.notBefore = s.now + wait
  act(s, 'arm', 'retry', retryInMs)
  const told = s.isOffline && LINE_LOSSES.includes(reason) ? 'offline' : reason
  detached(s, { code, reason: told, retryInMs, ...(message !== undefined && { message }) })
  if (action === 'new') over(s, reason)
}

/** The session is over, and a new one is to follow. */
export function over (s: Draft, reason: Reason): void {
  const { sessionId } = s
  if (sessionId === undefined) return
  if (!s.isOver) tell(s, 'ended', { sessionId, reason, renewing: true })
  s.isOver = true
}

export function detached (s: Draft, event: SessionEvents['detached']): void {
  s.told = event
  enter(s, 'detached')
  tell(s, 'detached', event)
}

/** Gives up the connection without a reason to end the session. */
export function pause (s: Draft, reason: Reason): void {
  s.liveAt = Infinity
  s.isAttached = false
  act(s, 'close', DETACH_CODE)
  act(s, 'disarm', 'retry', 'ack')
  act(s, 'lose', DETACH_CODE)
  act(s, 'save')
  detached(s, { code: DETACH_CODE, reason, retryInMs: null })
}

export function end (
  s: Draft, reason: Reason, isReplaced = false, code: 'SESSION_ENDED' | 'DISPOSED' = 'SESSION_ENDED'
): void {
  const { sessionId } = s
  if (code === 'DISPOSED' || KEPT_ENDINGS.includes(reason)) act(s, 'save')
  else act(s, 'forget', isReplaced)
  act(s, 'leave')
  enter(s, 'ended')
  act(s, 'endCommands', code, reason)
  if (isReplaced) tell(s, 'replaced', { sessionId })
  else tell(s, 'ended', { sessionId, reason, renewing: false })
}
