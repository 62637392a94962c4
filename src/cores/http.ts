// The Platform Core behind a URL: each command is one signed POST (webhook.ts), its answer is checked (answer.ts), and lifecycle events
// follow the same way (lifecycle-queue.ts). This file decides what an outcome means: what is the command's answer, what is an error of
// the core, what is tried again and when it is given up. Every attempt carries the command's key as `webhook-id`; the contract with the core
// is that a repeated key is not executed again, so an attempt of unknown fate may be repeated. A failing core costs the commands sent to
// it and nothing else: every path settles within the command's own time, and memory is bounded per answer and per queue.
// It keeps no state about sessions, follows no redirect, and logs neither payloads, contexts, command names nor the secret.

import type { CoreAnswer, CoreRequest, PlatformCore } from '../io/dispatcher/core.js'
import { HoldfastError } from '../io/errors.js'
import type { Clock, LifecycleEventType, Log, Millis } from '../io/types.js'
import { readAnswer, readRefusal } from './answer.js'
import { backoffMs, systemTiming, type RetryTiming } from './backoff.js'
import { createLifecycleQueue } from './lifecycle-queue.js'
import { createWebhookSender, type WebhookReply } from './webhook.js'

export interface HttpCoreOptions {
  /** Where commands and events are POSTed: http or https, without credentials and fragment. */
  url: string
  /** Signs every request: `whsec_<base64>`, or the key itself as text; 24 bytes at least. Without it nothing is signed. */
  secret?: string | undefined
  /** Most time for one attempt; a command's own limit cuts it short. 1 to 3,600,000 ms. */
  timeoutMs: Millis
  /** Attempts beyond the first, for commands as for events. 0 to 10. */
  retries: number
  /** Events the core is told of: `session.created`, `session.attached`, `session.detached`, `session.ended`. */
  lifecycleEvents: readonly string[]
  /** Most bytes of one answer; more is INVALID_RESULT. */
  maxAnswerBytes: number
  log: Log
  clock: Clock
  /** Concurrent commands at the core; more wait inside their own time. Default 128. */
  connections?: number
  /** Events waiting for delivery; more are dropped. Default 10,000. */
  maxQueuedEvents?: number
  /** How long close() goes on delivering events. Default 2,000 ms. */
  flushMs?: Millis
  /** Replaced in tests. */
  timing?: RetryTiming
}

const EVENT_TYPES: Readonly<Record<string, LifecycleEventType>> = {
  'session.created': 'created',
  'session.attached': 'attached',
  'session.detached': 'detached',
  'session.ended': 'ended'
}

/** Deliveries of events at the same time, on connections of their own: events and commands do not hold each other up. */
const EVENT_CONCURRENCY = 8
/** A failing core fails every command; of lines that say the same, one in this time is a warning and the rest are debug. */
const WARN_EVERY_MS = 10_000

type Received = Extract<WebhookReply, { kind: 'answer' | 'too_large' }>

/** What one attempt came to: settled, or worth another one. */
type Outcome =
  | { readonly kind: 'answered', readonly answer: CoreAnswer }
  | { readonly kind: 'failed', readonly error: Error }
  | { readonly kind: 'repeat', readonly why: object, readonly retryAfterMs: Millis | undefined, readonly cause: unknown }

const DEADLINE_GRACE_MS = 1000

/**
 * A Platform Core that is reached over HTTP. Opens no connection until it is used.
 *
 * @throws CONFIG_INVALID  url, secret, or a name in lifecycleEvents is not as described above
 */
export function createHttpCore (options: HttpCoreOptions): PlatformCore {
  const { timeoutMs, retries, log, clock, timing = systemTiming } = options
  const wanted = readEventTypes(options.lifecycleEvents)
  const { url, secret, maxAnswerBytes } = options
  const commands = createWebhookSender({ url, secret, maxAnswerBytes, clock, connections: options.connections ?? 128 })
  const events = createWebhookSender({ url, secret, maxAnswerBytes, clock, connections: EVENT_CONCURRENCY })
  const warn = createWarner(log, clock)
  const queue = createLifecycleQueue({
    sender: events, maxEvents: options.maxQueuedEvents ?? 10_000, concurrency: EVENT_CONCURRENCY, retries, timeoutMs, timing, warn
  })
  let closing: Promise<void> | undefined
  /** Commands that failed for want of an answer since the last answer; above 0 the core counts as down. */
  let unanswered = 0

  async function execute (request: CoreRequest): Promise<CoreAnswer> {
    const { key, session, signal } = request
    const deadline = clock.now() + request.timeoutMs
    const body = bodyOf(request, clock)
    for (let repeat = 0; ; repeat++) {
      signal.throwIfAborted()
      if (closing !== undefined) throw new HoldfastError('CORE_UNAVAILABLE')
      // A little beyond the command's own time, so that it is the dispatcher that ends a silent core's command, as COMMAND_TIMEOUT (P-19).
      const limitMs = Math.min(timeoutMs, deadline - clock.now() + DEADLINE_GRACE_MS)
      const reply = await commands.post({ id: key, body, limitMs, signal })
      signal.throwIfAborted()
      const outcome = readReply(reply, { sid: session.id, key, attempt: repeat + 1 })
      if (outcome.kind === 'answered') return outcome.answer
      if (outcome.kind === 'failed') throw outcome.error

      const pauseMs = Math.max(backoffMs(repeat + 1, timing.random), outcome.retryAfterMs ?? 0)
      // Waiting for an attempt that would have no time left helps nobody: the client hears of it now.
      if (repeat >= retries || clock.now() + pauseMs >= deadline) {
        unanswered++
        warn({ sid: session.id, key, attempts: repeat + 1, ...outcome.why }, 'core unavailable')
        throw unavailable(outcome.cause, outcome.retryAfterMs)
      }
      log.debug({ sid: session.id, key, attempt: repeat + 1, pauseMs: Math.round(pauseMs), ...outcome.why }, 'core attempt failed')
      await timing.sleep(pauseMs, signal)
    }
  }

  function readReply (reply: WebhookReply, about: object): Outcome {
    switch (reply.kind) {
      case 'aborted': return { kind: 'failed', error: new HoldfastError('CORE_UNAVAILABLE') }
      case 'failed': return { kind: 'repeat', why: { reason: reply.reason }, retryAfterMs: undefined, cause: reply.cause }
      default: return readStatus(reply, about)
    }
  }

  function readStatus (reply: Received, about: object): Outcome {
    const { status } = reply
    const retryAfterMs = reply.kind === 'answer' ? reply.retryAfterMs : undefined
    if (status >= 500 || status === 429) return { kind: 'repeat', why: { status }, retryAfterMs, cause: undefined }
    if (unanswered > 0) log.info({ unanswered }, 'core available again')
    unanswered = 0
    if (status === 204) return { kind: 'answered', answer: { payload: null, messages: [] } }
    if (status === 200) return readBody(reply, about)
    const refusal = status >= 400 && reply.kind === 'answer' ? readRefusal(reply.body) : undefined
    if (refusal !== undefined) return { kind: 'failed', error: refusal }
    // A redirect is not followed: it would carry the payload to where no operator sent it. Other statuses have no meaning here.
    warn({ ...about, status }, 'core refused without a code')
    return { kind: 'failed', error: new HoldfastError('CORE_REFUSED') }
  }

  function readBody (reply: Received, about: object): Outcome {
    if (reply.kind === 'too_large') {
      warn({ ...about, maxAnswerBytes }, 'core answer too large')
      return { kind: 'failed', error: new HoldfastError('INVALID_RESULT') }
    }
    try {
      return { kind: 'answered', answer: readAnswer(reply.body) }
    } catch (error) {
      const cause = error instanceof Error ? error.cause : undefined
      warn({ ...about, fault: cause instanceof Error ? cause.message : undefined }, 'core answer not valid')
      return { kind: 'failed', error: error as Error }
    }
  }

  async function shutDown (): Promise<void> {
    await queue.flush(options.flushMs ?? 2_000)
    await Promise.all([commands.close(), events.close()])
  }

  return {
    execute,
    notify (event) {
      if (closing === undefined && wanted.has(event.type)) queue.push(event)
    },
    close () {
      closing ??= shutDown()
      return closing
    }
  }
}

function unavailable (cause: unknown, retryAfterMs: Millis | undefined): HoldfastError {
  return new HoldfastError('CORE_UNAVAILABLE', { cause, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) })
}

function bodyOf (request: CoreRequest, clock: Clock): string {
  const { session, id, command, payload } = request
  return JSON.stringify({
    type: 'session.command',
    timestamp: new Date(clock.wall()).toISOString(),
    data: {
      session: {
        id: session.id,
        userId: session.userId,
        createdAt: session.createdAt,
        lastActivityAt: session.lastActivityAt,
        context: session.context
      },
      id,
      command,
      payload
    }
  })
}

function readEventTypes (names: readonly string[]): Set<LifecycleEventType> {
  const types = new Set<LifecycleEventType>()
  for (const name of names) {
    const type = Object.hasOwn(EVENT_TYPES, name) ? EVENT_TYPES[name] : undefined
    if (type === undefined) {
      throw new HoldfastError('CONFIG_INVALID', { message: `No such lifecycle event: ${name}. There are ${Object.keys(EVENT_TYPES).join(', ')}.` })
    }
    types.add(type)
  }
  return types
}

function createWarner (log: Log, clock: Clock): (fields: object, message: string) => void {
  const last = new Map<string, { at: Millis, quiet: number }>()
  return (fields, message) => {
    const before = last.get(message)
    if (before !== undefined && clock.now() - before.at < WARN_EVERY_MS) {
      before.quiet++
      log.debug(fields, message)
      return
    }
    last.set(message, { at: clock.now(), quiet: 0 })
    log.warn({ ...fields, notShown: before?.quiet ?? 0 }, message)
  }
}
