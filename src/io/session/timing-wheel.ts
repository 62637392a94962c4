// Deadlines without timers. Items lie in buckets by the tick of their deadline, and a sweep looks
// only at buckets that have fallen due, so it costs time proportional to what expires, not to what
// is filed. A deadline that moves later costs nothing: the item stays where it is and is filed
// again when its old bucket comes up (a touch writes one number). Intrusive lists, so filing and
// removing allocate nothing.
//
// Invariants: an item is in at most one wheel; an item whose deadline has passed lies in a bucket
// at or before the current tick.

import type { Millis } from '../types.js'

/** What an item carries for the wheel; nobody else writes these. */
export interface WheelItem {
  wheelNext: WheelItem | null
  wheelPrevious: WheelItem | null
  /** Index of the bucket, -1 when filed nowhere. */
  wheelBucket: number
}

export interface TimingWheel<T extends WheelItem> {
  /** Files the item, or files it anew: needed when it is new or its deadline moved *earlier*. */
  file(item: T): void
  remove(item: T): void
  /**
   * Calls `expire` for items whose deadline has passed; they are out of the wheel by then. Returns
   * how many there were.
   *
   * Without a limit it is exact to the millisecond. With one, it expires at most that many, looks
   * at no more than eight times as many, and leaves the tick that is not over yet to a later call,
   * so that nothing is looked at again and again; `behind` tells whether it stopped short.
   */
  sweep(now: Millis, limit: number, expire: (item: T) => void): number
  /** Whether the last sweep met its limit before it was through. */
  readonly behind: boolean
}

export interface TimingWheelOptions<T> {
  /**
   * When the item is due, as far as known now. It may be later at the next call, not earlier
   * without `file`.
   */
  deadlineOf(item: T): Millis
  /** Width of a bucket, ms. */
  tickMs: Millis
  /**
   * Number of buckets, at least 2; deadlines beyond `tickMs * buckets` are looked at once per
   * round.
   */
  buckets: number
  now: Millis
}

export function createTimingWheel<T extends WheelItem> (options: TimingWheelOptions<T>): TimingWheel<T> {
  const { deadlineOf, tickMs, buckets } = options
  // One list more than there are buckets: what a sweep has looked at in a tick that is not over. A
  // list like the others, so that an item in it can be removed or filed anew from within `expire`.
  const looked = buckets
  const heads = new Array<WheelItem | null>(buckets + 1).fill(null)
  let tick = Math.floor(options.now / tickMs)
  let behind = false

  function bucketOf (item: T): number {
    // A deadline is passed only when the clock is beyond it, hence the tick that contains deadline
    // + 1.
    const due = Math.floor((deadlineOf(item) + 1) / tickMs)
    return Math.min(Math.max(due, tick), tick + buckets - 1) % buckets
  }

  function insert (item: T, at: number): void {
    const head = heads[at] as WheelItem | null
    item.wheelBucket = at
    item.wheelPrevious = null
    item.wheelNext = head
    if (head !== null) head.wheelPrevious = item
    heads[at] = item
  }

  function remove (item: T): void {
    if (item.wheelBucket === -1) return
    if (item.wheelPrevious === null) heads[item.wheelBucket] = item.wheelNext
    else item.wheelPrevious.wheelNext = item.wheelNext
    if (item.wheelNext !== null) item.wheelNext.wheelPrevious = item.wheelPrevious
    item.wheelNext = item.wheelPrevious = null
    item.wheelBucket = -1
  }

  function restore (at: number): void {
    while (heads[looked] !== null) {
      const item = heads[looked] as T
      remove(item)
      insert(item, at)
    }
  }

  return {
    get behind () { return behind },
    file (item) {
      remove(item)
      insert(item, bucketOf(item))
    },
    remove,
    sweep (now, limit, expire) {
      const exact = limit === Infinity
      const target = Math.floor(now / tickMs)
      const last = exact ? target : target - 1
      // After a long sleep one full round sees everything.
      if (target - tick >= buckets) tick = target - buckets + 1
      let expired = 0
      let looks = limit * LOOKS_PER_EXPIRY
      behind = false
      for (; tick <= last; tick++) {
        const at = tick % buckets
        while (heads[at] !== null) {
          if (expired >= limit || looks-- <= 0) {
            behind = true
            return expired
          }
          const item = heads[at] as T
          remove(item)
          if (deadlineOf(item) < now) {
            expired++
            expire(item)
          } else {
            const due = bucketOf(item)
            insert(item, due === at ? looked : due)
          }
        }
        restore(at)
        if (tick === target) break
      }
      return expired
    }
  }
}

const LOOKS_PER_EXPIRY = 8
