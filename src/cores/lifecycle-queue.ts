// Tells the Platform Core about sessions: created, attached, detached, ended. `push` queues an
// event and returns; a few deliveries run at a time, never two of one session, and each session's
// events go out by revision, so the core sees each session's life in order. An event that is not
// taken is tried again, with pauses in which other sessions have their turn, until it is MAX_AGE_MS
// old. It may arrive more than once: telling twice harms nobody who compares revisions.
//
// The queue is bounded: an event that finds it full is dropped, as is one that a core refuses or
// does not take in time. Whoever needs certainty compares revisions, in which a dropped event
// leaves a hole. Nothing here survives the process.

import type { Clock, LifecycleEvent, Millis, SessionId } from '../io/types.js'
import { backoffMs, systemTiming, type RetryTiming } from './backoff.js'
import type { WebhookReply, WebhookSender } from './webhook.js'

export interface LifecycleQueueOptions {
  sender: WebhookSender
  /** Events waiting or being delivered, at most. */
  maxEvents: number
  /** Sessions whose events are delivered at the same time. */
  concurrency: number
  /** Time for one attempt. */
  timeoutMs: Millis
  clock: Clock
  timing: RetryTiming
  /** Takes one call per dropped event, however many there are. */
  warn: (fields: object, message: string) => void
}

export interface LifecycleQueue {
  /** Queues an event. Never throws; drops the event if the queue is full or closed. */
  push(event: LifecycleEvent): void
  /**
   * Delivers for up to `ms` what is queued, then gives up on the rest. Returns how many events were
   * given up.
   */
  flush(ms: Millis): Promise<number>
}

/** A core that asks for more patience than this is asked again all the same. */
const MAX_PAUSE_MS = 30_000
/**
 * An event that waited longer is dropped: long enough for a deploy of the core, and an end for what
 * it never takes.
 */
const MAX_AGE_MS = 300_000

interface Entry { readonly event: LifecycleEvent, readonly queuedAt: Millis }

/**
 * The events of one session, by revision. The first one is being delivered if `attempts` is above
 * 0.
 */
interface Line { readonly entries: Entry[], attempts: number }

export function createLifecycleQueue (options: LifecycleQueueOptions): LifecycleQueue {
  const { sender, maxEvents, concurrency, timeoutMs, clock, timing, warn } = options
  /** A session is listed as long as it has events, the one under way included. */
  const lines = new Map<SessionId, Line>()
  /** Lines that may have their next attempt, longest waiting first. */
  const ready = new Set<Line>()
  const gaveUp = new AbortController()
  let queued = 0
  let delivering = 0
  let closed = false
  let onIdle: (() => void) | undefined

  function push (event: LifecycleEvent): void {
    if (closed) return
    if (queued >= maxEvents) {
      warn({ ...about(event), maxEvents }, 'lifecycle event dropped, queue full')
      return
    }
    queued++
    const entry = { event, queuedAt: clock.now() }
    const line = lines.get(event.sessionId)
    if (line === undefined) {
      const created = { entries: [entry], attempts: 0 }
      lines.set(event.sessionId, created)
      ready.add(created)
    } else {
      insertByRevision(line.entries, entry, line.attempts > 0 ? 1 : 0)
    }
    pump()
  }

  function pump (): void {
    for (const line of ready) {
      if (delivering >= concurrency) return
      ready.delete(line)
      delivering++
      line.attempts++
      void attempt(line)
    }
  }

  async function attempt (line: Line): Promise<void> {
    const { event, queuedAt } = line.entries[0] as Entry
    const reply = await sender.post({
      id: `${event.sessionId}.${event.revision}`,
      body: bodyOf(event),
      startWithinMs: timeoutMs,
      answerWithinMs: timeoutMs,
      signal: gaveUp.signal
    })
    delivering--
    if (gaveUp.signal.aborted) return
    const pauseMs = isTaken(reply) ? undefined : pauseAfter(reply, line.attempts)
    if (pauseMs !== undefined && clock.now() + pauseMs < queuedAt + MAX_AGE_MS) {
      pump()
      await timing.sleep(pauseMs, gaveUp.signal)
      // Let go of meanwhile: flush has given up.
      if (gaveUp.signal.aborted) return
    } else {
      if (!isTaken(reply)) {
        const fields = { ...about(event), ...faultOf(reply), attempts: line.attempts }
        warn(fields, 'lifecycle event dropped, not taken')
      }
      line.entries.shift()
      line.attempts = 0
      queued--
    }
    if (line.entries.length === 0) lines.delete(event.sessionId)
    else ready.add(line)
    pump()
    if (queued === 0) onIdle?.()
  }

  /** How long to wait for the next attempt; undefined if there is no use in one. */
  function pauseAfter (reply: WebhookReply, attempts: number): Millis | undefined {
    if (!mayRepeat(reply)) return undefined
    const askedMs = 'retryAfterMs' in reply ? reply.retryAfterMs ?? 0 : 0
    return Math.min(Math.max(backoffMs(attempts, timing.random), askedMs), MAX_PAUSE_MS)
  }

  async function flush (ms: Millis): Promise<number> {
    closed = true
    if (queued > 0) {
      const timeUp = new AbortController()
      await Promise.race([
        new Promise<void>(resolve => { onIdle = resolve }),
        systemTiming.sleep(ms, timeUp.signal)
      ])
      timeUp.abort()
    }
    const left = queued
    gaveUp.abort()
    ready.clear()
    if (left > 0) warn({ dropped: left }, 'lifecycle events dropped, closing')
    return left
  }

  return { push, flush }
}

function about ({ sessionId, type, revision }: LifecycleEvent): object {
  return { sid: sessionId, type, revision }
}

/** A core takes an event with any 2xx; its body is of no interest, not even its size. */
function isTaken (reply: WebhookReply): boolean {
  return (reply.kind === 'answer' || reply.kind === 'too_large') && reply.status >= 200 && reply.status < 300
}

function mayRepeat (reply: WebhookReply): boolean {
  if (reply.kind === 'failed') return true
  return reply.kind !== 'aborted' && (reply.status >= 500 || reply.status === 429)
}

function faultOf (reply: WebhookReply): object {
  if (reply.kind === 'failed') return { reason: reply.reason }
  return reply.kind === 'aborted' ? {} : { status: reply.status }
}

// Events come in order but for rare races, so the search starts at the end. The first `fixed`
// entries are under way and stay in front.
function insertByRevision (entries: Entry[], entry: Entry, fixed: number): void {
  let at = entries.length
  while (at > fixed && (entries[at - 1]?.event.revision ?? 0) > entry.event.revision) at--
  entries.splice(at, 0, entry)
}

function bodyOf (event: LifecycleEvent): string {
  const { sessionId, userId, revision, reason } = event
  return JSON.stringify({
    type: `session.${event.type}`,
    timestamp: new Date(event.at).toISOString(),
    data: { session: { id: sessionId, userId }, revision, reason }
  })
}
