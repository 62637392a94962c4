// Deadlines without timers. Items lie in buckets by the tick of their deadline; a sweep looks only at the buckets that have fallen due, so it
// costs what expires and not what lives. A deadline that moves later costs nothing: the item stays where it is and is filed again when its old bucket
// comes up (performance: a touch is the write of one number). Intrusive lists, so filing and removing allocate nothing.
//
// Kept true: an item is in at most one wheel; an item whose deadline has passed lies in a bucket at or before the current tick.

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
   * Calls `expire` for items whose deadline has passed, at most `limit` of them; they are out of the wheel by then. Returns how many there were;
   * `limit` means there may be more.
   */
  sweep(now: Millis, limit: number, expire: (item: T) => void): number
}

export interface TimingWheelOptions<T> {
  /** When the item is due, as far as known now. It may be later at the next call, not earlier without `file`. */
  deadlineOf(item: T): Millis
  /** Width of a bucket, ms. */
  tickMs: Millis
  /** Number of buckets; deadlines beyond `tickMs * buckets` are looked at once per round. */
  buckets: number
  now: Millis
}

export function createTimingWheel<T extends WheelItem> (options: TimingWheelOptions<T>): TimingWheel<T> {
  const { deadlineOf, tickMs, buckets } = options
  const heads = new Array<WheelItem | null>(buckets).fill(null)
  let tick = Math.floor(options.now / tickMs)

  function insert (item: T): void {
    // A deadline is passed only when the clock is beyond it, hence the tick that contains deadline + 1.
    const due = Math.floor((deadlineOf(item) + 1) / tickMs)
    const at = Math.min(Math.max(due, tick), tick + buckets - 1) % buckets
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

  return {
    file (item) {
      remove(item)
      insert(item)
    },
    remove,
    sweep (now, limit, expire) {
      const target = Math.floor(now / tickMs)
      // After a long sleep one full round sees everything.
      if (target - tick >= buckets) tick = target - buckets + 1
      let expired = 0
      for (;;) {
        const at = tick % buckets
        let kept: T | null = null
        while (heads[at] !== null) {
          if (expired >= limit) break
          const item = heads[at] as T
          remove(item)
          if (deadlineOf(item) < now) {
            expired++
            expire(item)
          } else {
            insert(item)
            // Due later in this very tick: out of the way until the bucket is empty, else this loop meets it for ever.
            if (item.wheelBucket === at) {
              remove(item)
              item.wheelNext = kept
              kept = item
            }
          }
        }
        while (kept !== null) {
          const item: T = kept
          kept = item.wheelNext as T | null
          insert(item)
        }
        if (expired >= limit || tick >= target) return expired
        tick++
      }
    }
  }
}
