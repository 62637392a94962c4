// Who gives way when a quota is met: the longest detached session, of the user first, then of
// anybody; never one with a connection (P-54).

import { HoldfastError } from '../errors.js'
import type { UserId } from '../types.js'
import type { DetachedSessions } from './detached.js'
import type { Directory } from './directory.js'
import type { SessionRecord } from './record.js'

export interface QuotaLimits {
  maxSessions: number
  maxSessionsPerUser: number
}

export interface QuotaOptions {
  directory: Directory
  detached: DetachedSessions<SessionRecord>
  limits: QuotaLimits
  /** A user to whom `maxSessionsPerUser` does not apply: the placeholder, who is everybody. */
  unlimitedUserId: UserId | undefined
  end: (session: SessionRecord, reason: 'quota' | 'overloaded') => void
}

export interface Quota {
  /**
   * @throws USER_QUOTA, SERVER_FULL  while no further session may be made for this user, since
   * every one that counts is attached
   */
  check(userId: UserId): void
  /** Ends the session that gives way to a new one of this user. @throws as `check` */
  makeRoom(userId: UserId): void
  /**
   * For a session that comes from another node: it counts towards what this node holds, and its
   * user has it already.
   *
   * @throws SERVER_FULL
   */
  makeRoomForClaim(userId: UserId): void
}

/**
 * For callers in this process; clients are told when a dead connection has been found for sure
 * (P-54c).
 */
const RETRY_MS = 5000

export function createQuota ({ directory, detached, limits, unlimitedUserId, end }: QuotaOptions): Quota {
  function isAtQuota (userId: UserId): boolean {
    return userId !== unlimitedUserId && directory.countOfUser(userId) >= limits.maxSessionsPerUser
  }

  function isFull (): boolean {
    return directory.count() >= limits.maxSessions
  }

  function check (userId: UserId): void {
    if (detached.oldestOf(userId) !== undefined) return
    if (isAtQuota(userId)) throw new HoldfastError('USER_QUOTA', { retryAfterMs: RETRY_MS })
    if (isFull() && detached.oldest() === undefined) throw new HoldfastError('SERVER_FULL', { retryAfterMs: RETRY_MS })
  }

  return {
    check,

    makeRoomForClaim (userId) {
      if (!isFull()) return
      const oldest = detached.oldestOf(userId) ?? detached.oldest()
      if (oldest === undefined) throw new HoldfastError('SERVER_FULL', { retryAfterMs: RETRY_MS })
      end(oldest as SessionRecord, 'overloaded')
    },

    makeRoom (userId) {
      check(userId)
      const own = detached.oldestOf(userId)
      if (isAtQuota(userId)) end(own as SessionRecord, 'quota')
      else if (isFull()) end((own ?? detached.oldest()) as SessionRecord, 'overloaded')
    }
  }
}
