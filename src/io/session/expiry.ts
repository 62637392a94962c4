// When sessions end by themselves: an idle one by P-40, a detached one by P-36. Deadlines lie in a
// timing wheel; nothing here ends anything.

import { UNHEARD_WINDOW_MS } from '../protocol/frames.js'
import type { Millis } from '../types.js'
import { NEVER, type SessionRecord } from './record.js'
import type { Deadline } from './shared-store.js'
import { createTimingWheel } from './timing-wheel.js'

export interface ExpiryLimits {
  /** A session without activity for longer ends (P-40). */
  idleTimeoutMs: Millis
  /**
   * A detached session is kept that long, and never beyond its idle timeout; 0: every close
   * terminates (P-36).
   */
  resumeWindowMs: Millis
}

export interface Expiry {
  /** Needed when a session is new, and when its deadline has moved earlier. */
  file(session: SessionRecord): void
  remove(session: SessionRecord): void
  /** See TimingWheel. */
  sweep(limit: number, expire: (session: SessionRecord) => void): number
  readonly behind: boolean
  /** The sweep runs once a tick; a session past its deadline is over all the same. */
  isStale(session: SessionRecord): boolean
  staleReason(session: SessionRecord): 'idle' | 'resume_window'
  /** How long the session is kept from now on if nothing happens, and why it ends then. */
  deadlineOf(session: SessionRecord): Deadline
}

const WHEEL_TICK_MS = 1000
const WHEEL_BUCKETS = 4096

export function createExpiry ({ limits, now }: { limits: ExpiryLimits, now: () => Millis }): Expiry {
  const wheel = createTimingWheel<SessionRecord>({
    deadlineOf, tickMs: WHEEL_TICK_MS, buckets: WHEEL_BUCKETS, now: now()
  })

  function deadlineOf (session: SessionRecord): Millis {
    const idle = session.lastActiveAt + limits.idleTimeoutMs
    return session.detachedAt === NEVER ? idle : Math.min(idle, session.detachedAt + windowOf(session))
  }

  /**
   * A client that closed while it connected may never have seen its token; one that did loses
   * nothing but the id (P-36b).
   */
  function windowOf ({ heard, log }: SessionRecord): Millis {
    return heard || log !== null ? limits.resumeWindowMs : Math.min(limits.resumeWindowMs, UNHEARD_WINDOW_MS)
  }

  return {
    file: wheel.file,
    remove: wheel.remove,
    sweep: (limit, expire) => wheel.sweep(now(), limit, expire),
    get behind () { return wheel.behind },
    deadlineOf (session) {
      const at = deadlineOf(session)
      return {
        keepForMs: Math.max(0, at - now()),
        reason: at < session.lastActiveAt + limits.idleTimeoutMs ? 'resume_window' : 'idle'
      }
    },
    isStale: session => deadlineOf(session) < now(),
    staleReason: session => now() - session.lastActiveAt > limits.idleTimeoutMs ? 'idle' : 'resume_window'
  }
}
