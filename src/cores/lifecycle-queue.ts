// Tells the Platform Core about sessions: created, attached, detached, ended. `push` queues an event and returns; a few deliveries run at a
// time, never two of one session, and each session's events go out by revision, so the core sees each session's life in order. The
// queue is bounded: an event that finds it full is dropped, as is one that a core refuses or keeps failing to take. Whoever needs certainty
// compares revisions, in which a dropped event leaves a hole. Nothing here survives the process.

import type { LifecycleEvent, Millis, SessionId } from '../io/types.js'
import { backoffMs, systemTiming, type RetryTiming } from './backoff.js'
import type { WebhookReply, WebhookSender } from './webhook.js'

export interface LifecycleQueueOptions {
  sender: WebhookSender
  /** Events waiting or being delivered, at most. */
  maxEvents: number
  /** Sessions whose events are delivered at the same time. */
  concurrency: number
  /** Attempts per event beyond the first. */
  retries: number
  /** Time for one attempt. */
  timeoutMs: Millis
  timing: RetryTiming
  /** Takes one call per dropped event, however many there are. */
  warn: (fields: object, message: string) => void
}

export interface LifecycleQueue {
  /** Queues an event. Never throws; drops the event if the queue is full or closed. */
  push(event: LifecycleEvent): void
  /** Delivers for up to `ms` what is queued, then gives up on the rest. Returns how many events were given up. */
  flush(ms: Millis): Promise<number>
}

/** A core that asks for more patience than this is asked again all the same. */
const MAX_PAUSE_MS = 30_000

export function createLifecycleQueue (options: LifecycleQueueOptions): LifecycleQueue {
  const { sender, maxEvents, concurrency, retries, timeoutMs, timing, warn } = options
  /** Per session its events by revision; a session is listed as long as it has any, the one under way included. */
  const bySession = new Map<SessionId, LifecycleEvent[]>()
  /** Sessions with events and without a delivery under way, longest waiting first. */
  const ready = new Set<SessionId>()
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
    const events = bySession.get(event.sessionId)
    if (events === undefined) {
      bySession.set(event.sessionId, [event])
      ready.add(event.sessionId)
    } else {
      insertByRevision(events, event, ready.has(event.sessionId) ? 0 : 1)
    }
    pump()
  }

  function pump (): void {
    for (const sessionId of ready) {
      if (delivering >= concurrency) return
      ready.delete(sessionId)
      delivering++
      void deliverNext(sessionId)
    }
  }

  async function deliverNext (sessionId: SessionId): Promise<void> {
    const events = bySession.get(sessionId) ?? []
    const event = events[0]
    if (event !== undefined) await deliver(event)
    events.shift()
    delivering--
    queued--
    if (events.length === 0) bySession.delete(sessionId)
    else ready.add(sessionId)
    if (gaveUp.signal.aborted) return
    pump()
    if (queued === 0) onIdle?.()
  }

  async function deliver (event: LifecycleEvent): Promise<void> {
    const body = bodyOf(event)
    const id = `${event.sessionId}.${event.revision}`
    for (let repeat = 0; ; repeat++) {
      const reply = await sender.post({ id, body, limitMs: timeoutMs, signal: gaveUp.signal })
      if (reply.kind === 'aborted' || isTaken(reply)) return
      if (repeat === retries || !mayRepeat(reply)) {
        const status = reply.kind === 'failed' ? undefined : reply.status
        const reason = reply.kind === 'failed' ? reply.reason : undefined
        warn({ ...about(event), status, reason, attempts: repeat + 1 }, 'lifecycle event dropped, not taken')
        return
      }
      const pauseMs = backoffMs(repeat + 1, timing.random)
      const askedMs = reply.kind === 'answer' ? reply.retryAfterMs ?? 0 : 0
      await timing.sleep(Math.min(Math.max(pauseMs, askedMs), MAX_PAUSE_MS), gaveUp.signal)
    }
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

// Events come in order but for rare races, so the search starts at the end. The first `fixed` entries are under way and stay in front.
function insertByRevision (events: LifecycleEvent[], event: LifecycleEvent, fixed: number): void {
  let at = events.length
  while (at > fixed && (events[at - 1]?.revision ?? 0) > event.revision) at--
  events.splice(at, 0, event)
}

function bodyOf (event: LifecycleEvent): string {
  const { sessionId, userId, revision, reason } = event
  return JSON.stringify({
    type: `session.${event.type}`,
    timestamp: new Date(event.at).toISOString(),
    data: { session: { id: sessionId, userId }, revision, reason }
  })
}
