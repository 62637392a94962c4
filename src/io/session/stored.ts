// Between a live record and what a store keeps of it. Stored forms hold wall-clock times, since
// monotonic ones mean nothing to another process, and nothing of this node: no connection, no
// running calls, no places in lists.

import type { Millis, Seq } from '../types.js'
import { NOT_KEPT } from '../protocol/codec.js'
import { createRecord, lastSeqOf, NEVER, watermarkOf, type JournalState, type SessionRecord } from './record.js'
import { append, createReplayLog, firstSeq, outputAt, type ReplayLog } from './replay-log.js'
import type {
  Fence, OpenCommand, StoredAccess, StoredBlame, StoredOutput, StoredProgress, StoredSession, WallMillis
} from './store.js'

/** Converts a monotonic time into wall-clock time, or back. */
export type ConvertTime = (time: Millis) => Millis

export function toStored (session: SessionRecord, toWall: ConvertTime): StoredSession {
  const progress = progressOf(session, toWall)
  return {
    id: session.id,
    userId: session.userId,
    profile: session.profile,
    createdAt: session.createdAt,
    generation: session.generation,
    context: session.context,
    access: accessOf(session),
    progress,
    outputs: outputsAfter(session, progress.releasedSeq)
  }
}

/** Of a session whose commands are abandoned in this turn, so that none of them begins any more. */
export function lastProgressOf (session: SessionRecord, toWall: ConvertTime): StoredProgress {
  return { ...progressOf(session, toWall), open: openCommands(session, true) }
}

/** `reservedSeq`: up to which seqs may be given ahead; nothing below `lastSeq` says anything. */
export function progressOf (session: SessionRecord, toWall: ConvertTime, reservedSeq: Seq = 0): StoredProgress {
  const { log } = session
  return {
    lastSeq: lastSeqOf(session),
    releasedSeq: log === null ? 0 : firstSeq(log) - 1,
    ackedSeq: log === null ? 0 : log.ackedSeq,
    dropped: log === null ? 0 : log.dropped,
    watermark: watermarkOf(session),
    open: openCommands(session, false),
    revision: session.revision,
    lastActiveAt: toWall(session.lastActiveAt),
    detachedAt: session.detachedAt === NEVER ? null : toWall(session.detachedAt),
    heard: session.heard,
    ...(log === null || (log.strikes === 0 && log.suspicion === 0) ? {} : { blame: blameOf(log) }),
    ...(reservedSeq > lastSeqOf(session) ? { reservedSeq } : {})
  }
}

function blameOf ({ strikes, suspicion, suspectedTo }: ReplayLog): StoredBlame {
  return { strikes, suspicion, suspectedTo }
}

const NONE: readonly OpenCommand[] = Object.freeze([])

function openCommands ({ calls, log }: SessionRecord, isOver: boolean): readonly OpenCommand[] {
  const running = calls === null ? NONE : calls.open(isOver)
  const reopened = log?.reopened
  return reopened == null ? running : [...reopened].map((id): OpenCommand => ({ id, idempotent: true })).concat(running)
}

export function accessOf ({ labels, tokenHash, previousTokenHash }: SessionRecord): StoredAccess {
  return { labels, tokenHash, previousTokenHash }
}

/** The outputs held above a seq. */
export function outputsAfter (session: SessionRecord, seq: Seq): StoredOutput[] {
  const outputs: StoredOutput[] = []
  const { log } = session
  if (log === null) return outputs
  for (let at = Math.max(seq + 1, firstSeq(log)); at <= log.lastSeq; at++) {
    const output = outputAt(log, at)
    if (output !== undefined) outputs.push(output)
  }
  return outputs
}

/**
 * The session of an owner that has died: what it may have given ahead of its last batch is a `gap`
 * each, the same whoever fills it and however often (S-22).
 */
export function fillReserved (stored: StoredSession): StoredSession {
  const { reservedSeq = 0, ...progress } = stored.progress
  const missing = reservedSeq - progress.lastSeq
  if (missing <= 0) return stored
  const { tail, commandId } = NOT_KEPT
  const gaps: StoredOutput[] = new Array<StoredOutput>(missing).fill({ tail, commandId })
  return { ...stored, progress: { ...progress, lastSeq: reservedSeq }, outputs: stored.outputs.concat(gaps) }
}

/**
 * Events that were told and not kept before a crash: an attach or a detach each come with a commit.
 */
const UNKEPT_REVISIONS = 2

export interface RevivalOptions {
  fromWall: (time: WallMillis) => Millis
  now: Millis
  maxOutputBytes: number
  /** Those under way are not for it. */
  fanOut: number
  contextBytes: (context: StoredSession['context']) => number
  journal: (fence: Fence, storedSeq: Seq) => JournalState | null
}

/**
 * A record out of what was kept. Commands that may be executed again are open to be sent again;
 * those that may not are left to the caller, who answers them (`stored.progress.open`).
 */
export function revive (found: StoredSession, fence: Fence, options: RevivalOptions): SessionRecord {
  const stored = fillReserved(found)
  const { progress, access } = stored
  const record = createRecord({
    id: stored.id,
    userId: stored.userId,
    profile: stored.profile,
    createdAt: stored.createdAt,
    generation: stored.generation,
    now: Math.max(NEVER + 1, options.fromWall(progress.lastActiveAt)),
    context: stored.context,
    contextBytes: options.contextBytes(stored.context),
    labels: access.labels,
    journal: options.journal(fence, found.progress.lastSeq),
    maxOutputBytes: options.maxOutputBytes,
    fanOut: options.fanOut
  })
  record.rateFilledAt = options.now
  record.heard = progress.heard
  record.revision = progress.revision + UNKEPT_REVISIONS
  record.tokenHash = access.tokenHash
  record.previousTokenHash = access.previousTokenHash
  record.sendableSeq = progress.lastSeq
  // Its connection went with the process that had it.
  record.detachedAt = progress.detachedAt === null
    ? options.now
    : Math.max(NEVER + 1, options.fromWall(progress.detachedAt))
  if (progress.lastSeq > 0 || progress.watermark > 0) record.log = reviveLog(stored)
  return record
}

function reviveLog ({ progress, outputs }: StoredSession): ReplayLog {
  const log = createReplayLog()
  log.lastSeq = progress.releasedSeq
  for (const { tail, commandId } of outputs) append(log, { tail, bytes: tail.length, commandId })
  log.ackedSeq = progress.ackedSeq
  log.dropped = progress.dropped
  log.watermark = progress.watermark
  if (progress.blame !== undefined) Object.assign(log, progress.blame)
  const again = progress.open.filter(({ idempotent }) => idempotent).map(({ id }) => id)
  if (again.length > 0) log.reopened = new Set(again)
  return log
}
