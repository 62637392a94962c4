// Sessions without a connection, the longest detached first: of each user, and of all. They are
// what gives way when a quota is met (P-54). Intrusive lists, so that finding, filing and removing
// cost the same however many there are, and only a user who has detached sessions costs an entry.
//
// Invariants: a session is in both orders or in neither; times of detaching never decrease from the
// first to the last.

import type { UserId } from '../types.js'

/** What a session carries for its two places; nobody else writes these. */
export interface DetachedItem {
  readonly userId: UserId
  detachedNext: DetachedItem | null
  detachedPrevious: DetachedItem | null
  userDetachedNext: DetachedItem | null
  userDetachedPrevious: DetachedItem | null
}

export interface DetachedSessions<T extends DetachedItem> {
  /** Puts the session behind all others. It must not be filed already. */
  file(session: T): void
  /** Does nothing for a session that is not filed. */
  remove(session: T): void
  /** The session that has been detached longest, of all or of a user. */
  oldest(): T | undefined
  oldestOf(userId: UserId): T | undefined
}

type Next = 'detachedNext' | 'userDetachedNext'
type Previous = 'detachedPrevious' | 'userDetachedPrevious'

interface Order { first: DetachedItem | null, last: DetachedItem | null }

export function createDetachedSessions<T extends DetachedItem> (): DetachedSessions<T> {
  const all: Order = { first: null, last: null }
  const byUser = new Map<UserId, Order>()

  return {
    file (session) {
      let own = byUser.get(session.userId)
      if (own === undefined) byUser.set(session.userId, own = { first: null, last: null })
      push(all, session, 'detachedNext', 'detachedPrevious')
      push(own, session, 'userDetachedNext', 'userDetachedPrevious')
    },

    remove (session) {
      if (session.detachedPrevious === null && all.first !== session) return
      const own = byUser.get(session.userId) as Order
      take(all, session, 'detachedNext', 'detachedPrevious')
      take(own, session, 'userDetachedNext', 'userDetachedPrevious')
      if (own.first === null) byUser.delete(session.userId)
    },

    oldest: () => (all.first ?? undefined) as T | undefined,
    oldestOf: userId => (byUser.get(userId)?.first ?? undefined) as T | undefined
  }
}

function push (order: Order, item: DetachedItem, next: Next, previous: Previous): void {
  item[previous] = order.last
  if (order.last === null) order.first = item
  else order.last[next] = item
  order.last = item
}

function take (order: Order, item: DetachedItem, next: Next, previous: Previous): void {
  const { [next]: after, [previous]: before } = item
  if (before === null) order.first = after
  else before[next] = after
  if (after === null) order.last = before
  else after[previous] = before
  item[next] = item[previous] = null
}
