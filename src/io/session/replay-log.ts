// The numbered conversation itself: which outputs are held, what a resuming client still has to
// get, and which commands were accepted. Both directions live here because they are one mechanism:
// an answer is an output, so the outputs held are also the answers that a repeated command is given
// again (P-12). Pure: plain records and functions, no time, no socket. A log is made when a session
// first needs one.
//
// Invariants: seqs are contiguous from `firstSeq` to `lastSeq`; an output leaves only by an ack, by
// overflow, or with its session; a seq is never given twice; `watermark` only grows, by one.

import type { Output, Seq } from '../types.js'

export interface ReplayLog {
  /** Ring of the outputs held; its length is a power of two. */
  ring: (Output | undefined)[]
  head: number
  count: number
  bytes: number
  /** Highest seq given; 0 before the first output. */
  lastSeq: Seq
  /** Highest seq acknowledged. */
  ackedSeq: Seq
  /** Outputs dropped by overflow before they were acknowledged. */
  dropped: number
  /** Highest numbered command accepted (P-11). */
  watermark: number
  /**
   * What connections that ended since the last progress count for against the oldest output held
   * (P-51).
   */
  strikes: number
  /**
   * What the end of the last connection counts for, and the highest seq that it was sent; judged at
   * the next resume.
   */
  suspicion: number
  suspectedTo: Seq
  /**
   * Commands that had begun when their node died, and that may be executed again when they are sent
   * again; null if there are none.
   */
  reopened: Set<number> | null
}

const SMALLEST_RING = 4

export function createReplayLog (): ReplayLog {
  return {
    ring: new Array<Output | undefined>(SMALLEST_RING).fill(undefined),
    head: 0,
    count: 0,
    bytes: 0,
    lastSeq: 0,
    ackedSeq: 0,
    dropped: 0,
    watermark: 0,
    strikes: 0,
    suspicion: 0,
    suspectedTo: 0,
    reopened: null
  }
}

/** Seq of the oldest output held; `lastSeq + 1` if none is. */
export function firstSeq (log: ReplayLog): Seq {
  return log.lastSeq - log.count + 1
}

/**
 * Gives the output the next seq and holds it. The caller has made room (`dropOldest`). Returns the
 * seq.
 */
export function append (log: ReplayLog, output: Output): Seq {
  if (log.count === log.ring.length) resize(log, log.ring.length * 2)
  log.ring[(log.head + log.count) & (log.ring.length - 1)] = output
  log.count++
  log.bytes += output.bytes
  return ++log.lastSeq
}

/** The output with this seq; undefined when it is not held. */
export function outputAt (log: ReplayLog, seq: Seq): Output | undefined {
  const offset = seq - firstSeq(log)
  return offset < 0 || offset >= log.count ? undefined : log.ring[(log.head + offset) & (log.ring.length - 1)]
}

/**
 * Puts another output in the place of a held one, under its seq. Returns by how many bytes that is
 * less.
 */
export function replaceAt (log: ReplayLog, seq: Seq, output: Output): number {
  const at = (log.head + seq - firstSeq(log)) & (log.ring.length - 1)
  const freed = (log.ring[at] as Output).bytes - output.bytes
  log.ring[at] = output
  log.bytes -= freed
  return freed
}

/**
 * The client has handled everything up to `seq` (P-21). Returns the bytes that this freed, 0 for an
 * ack that is not new; undefined for an ack of the future, which changes nothing (P-22).
 */
export function acknowledge (log: ReplayLog, seq: Seq): number | undefined {
  if (seq > log.lastSeq) return undefined
  if (seq <= log.ackedSeq) return 0
  log.ackedSeq = seq
  log.strikes = 0
  return releaseThrough(log, seq)
}

/** Lets go of every output up to `seq` and returns their bytes. */
export function releaseThrough (log: ReplayLog, seq: Seq): number {
  let freed = 0
  while (log.count > 0 && firstSeq(log) <= seq) freed += shift(log)
  // A busy hour must not pin a large ring to a session that is idle ever after.
  if (log.count === 0 && log.ring.length > SMALLEST_RING * 16) resize(log, SMALLEST_RING)
  return freed
}

/**
 * Overflow: the oldest output goes unacknowledged and will be part of a gap (P-25). Returns its
 * bytes.
 */
export function dropOldest (log: ReplayLog): number {
  if (log.count === 0) return 0
  log.dropped++
  return shift(log)
}

function shift (log: ReplayLog): number {
  const output = log.ring[log.head] as Output
  log.ring[log.head] = undefined
  log.head = (log.head + 1) & (log.ring.length - 1)
  log.count--
  log.bytes -= output.bytes
  return output.bytes
}

function resize (log: ReplayLog, capacity: number): void {
  const ring = new Array<Output | undefined>(capacity).fill(undefined)
  for (let i = 0; i < log.count; i++) ring[i] = log.ring[(log.head + i) & (log.ring.length - 1)]
  log.ring = ring
  log.head = 0
}

export interface Range { readonly from: Seq, readonly to: Seq }
export interface ReplayPlan {
  /** What will be sent again; null if nothing. */
  readonly replay: Range | null
  /** What was dropped and never comes; null if nothing (P-32). */
  readonly gap: Range | null
}

/**
 * What a client that has everything up to `lastSeen` is still to get. `lastSeen` is at most
 * `lastSeq`.
 */
export function planReplay (log: ReplayLog, lastSeen: Seq): ReplayPlan {
  const oldest = firstSeq(log)
  const from = Math.max(lastSeen + 1, oldest)
  return {
    replay: from <= log.lastSeq ? { from, to: log.lastSeq } : null,
    gap: lastSeen + 1 < oldest ? { from: lastSeen + 1, to: oldest - 1 } : null
  }
}

/** Where a numbered command stands against the watermark (P-11, P-12, P-13). */
export function placeOf (log: ReplayLog, id: number): 'next' | 'duplicate' | 'gap' {
  if (id === log.watermark + 1) return 'next'
  return id <= log.watermark ? 'duplicate' : 'gap'
}

/** Records a numbered command as accepted. `id` is `watermark + 1`. */
export function accept (log: ReplayLog, id: number): void {
  log.watermark = id
}

/**
 * Seq of the held answer of a numbered command; null when it is not held. Newest first: a retry
 * mostly asks for a recent one.
 */
export function findAnswer (log: ReplayLog, id: number): Seq | null {
  for (let i = log.count - 1; i >= 0; i--) {
    if (log.ring[(log.head + i) & (log.ring.length - 1)]?.commandId === id) return firstSeq(log) + i
  }
  return null
}

/** What a client that comes back need not send again: everything up to this number (P-31). */
export function resumePoint ({ reopened, watermark }: ReplayLog): number {
  let point = watermark
  if (reopened !== null) for (const id of reopened) point = Math.min(point, id - 1)
  return point
}
