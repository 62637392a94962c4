// The Platform Core behind a URL: each command is one signed POST (webhook.ts), outcome.ts says
// what came of it, and lifecycle events follow the same way (lifecycle-queue.ts). This file decides
// what is tried again, how long, and what the command is answered in the end. docs/core.md is the
// contract with the core.
//
// Invariants: what may have been executed is sent again only if the core, or the command, is
// declared idempotent; every attempt of a command carries its key as `webhook-id`. An attempt that
// surely executed nothing is repeated as long as the command's own time allows. A failing core
// costs the commands sent to it and nothing else: every path settles within the command's time, and
// memory is bounded per answer and per queue. No state about sessions is kept, no redirect is
// followed, and neither payloads, contexts, command names nor the secret are logged.

import type { CoreAnswer, CoreRequest, PlatformCore } from '../io/dispatcher/core.js'
import { HoldfastError } from '../io/errors.js'
import type { Clock, LifecycleEventType, Log, Millis } from '../io/types.js'
import {
  aBoolean, aClock, aListOf, aLog, aWholeNumber, anObjectWith, checkOptions, hidden, milliseconds, type OptionCheck
} from '../option-checks.js'
import { backoffMs, systemTiming, type RetryTiming } from './backoff.js'
import { createLifecycleQueue } from './lifecycle-queue.js'
import { readOutcome } from './outcome.js'
import { createWebhookSender, isWebhookSecret, isWebhookUrl } from './webhook.js'

export interface HttpCoreOptions {
  /** Where commands and events are POSTed: http or https, without credentials and fragment. */
  url: string
  /**
   * Signs every request: `whsec_<base64>`, or the key itself as text; 24 bytes at least. Without it
   * nothing is signed.
   */
  secret?: string | undefined
  /**
   * Most time the core has to answer one attempt; a command's own limit cuts it short. 1 to
   * 3,600,000 ms.
   */
  timeoutMs: Millis
  /**
   * The core recognises a repeated `webhook-id`, so every command of unknown fate may be sent to it
   * again. Default false: only those that the dispatcher knows as idempotent.
   */
  idempotent?: boolean
  /**
   * Events the core is told of: `session.created`, `session.attached`, `session.detached`,
   * `session.ended`.
   */
  lifecycleEvents: readonly string[]
  /** Most bytes of one answer, 1 or more; what is larger is RESULT_TOO_LARGE. */
  maxAnswerBytes: number
  log: Log
  clock: Clock
  /** Concurrent commands at the core, 1 or more; others wait inside their own time. Default 128. */
  connections?: number
  /** Events waiting for delivery, 1 or more; others are dropped. Default 10,000. */
  maxQueuedEvents?: number
  /** How long close() goes on delivering events. Default 2,000 ms; 0 to 600,000. */
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

const CHECKS: Record<keyof HttpCoreOptions, OptionCheck> = {
  url: {
    ...hidden({ is: isWebhookUrl, expected: 'an http or https URL without credentials and fragment, as a text' }),
    required: true
  },
  secret: hidden({ is: isWebhookSecret, expected: 'whsec_ and base64, or the key as a text; 24 bytes at least' }),
  timeoutMs: { ...milliseconds(1, 3_600_000), required: true },
  idempotent: aBoolean,
  lifecycleEvents: {
    ...aListOf(name => Object.hasOwn(EVENT_TYPES, String(name)), `events: ${Object.keys(EVENT_TYPES).join(', ')}`),
    required: true
  },
  maxAnswerBytes: { ...aWholeNumber(1), required: true },
  log: { ...aLog, required: true },
  clock: { ...aClock, required: true },
  // undici takes 0 for any number of them.
  connections: aWholeNumber(1),
  maxQueuedEvents: aWholeNumber(1),
  flushMs: milliseconds(0, 600_000),
  timing: anObjectWith(['sleep', 'random'], 'what pauses and draws')
}

/**
 * Deliveries of events at the same time, on connections of their own: events and commands do not
 * hold each other up.
 */
const EVENT_CONCURRENCY = 8
/**
 * A failing core fails every command; of lines that say the same, one in this time is a warning and
 * the rest are debug.
 */
const WARN_EVERY_MS = 10_000

/**
 * The dispatcher ends a command that the core is still executing, as COMMAND_TIMEOUT (P-19), so an
 * attempt may outlast the command by this. One that waits for a connection ends up to this much
 * earlier, so that the client hears that nothing was executed.
 */
const DEADLINE_MARGIN_MS = 1000

/**
 * A Platform Core that is reached over HTTP. Opens no connection until it is used.
 *
 * @throws CONFIG_INVALID  an option that is not as described above, or that there is none of; the
 *                         message lists every problem, one a line
 */
export function createHttpCore (options: HttpCoreOptions): PlatformCore {
  checkOptions('createHttpCore', options, CHECKS)
  const { timeoutMs, log, clock, timing = systemTiming } = options
  const wanted = new Set(options.lifecycleEvents.map(name => EVENT_TYPES[name]))
  const { url, secret, maxAnswerBytes } = options
  const commands = createWebhookSender({
    url, secret, maxAnswerBytes, clock, connections: options.connections ?? 128
  })
  const events = createWebhookSender({ url, secret, maxAnswerBytes, clock, connections: EVENT_CONCURRENCY })
  const warn = createWarner(log, clock)
  const queue = createLifecycleQueue({
    sender: events,
    maxEvents: options.maxQueuedEvents ?? 10_000,
    concurrency: EVENT_CONCURRENCY,
    timeoutMs,
    clock,
    timing,
    warn
  })
  let closing: Promise<void> | undefined
  /** Attempts without an answer since the last answer; above 0 the core counts as down. */
  let unanswered = 0

  async function execute (request: CoreRequest): Promise<CoreAnswer> {
    const { key, session, signal } = request
    const deadline = clock.now() + request.timeoutMs
    const mayRepeat = request.idempotent || options.idempotent === true
    const body = bodyOf(request, clock)
    /** What is known of the first attempt that may have been executed. */
    let unknown: string | undefined
    for (let attempt = 1; ; attempt++) {
      signal.throwIfAborted()
      const about = { sid: session.id, key, attempt }
      const restMs = deadline - clock.now()
      const reply = closing !== undefined
        ? { kind: 'aborted' as const, sent: false }
        : await commands.post({
          id: key,
          body,
          startWithinMs: Math.max(1, restMs - Math.min(DEADLINE_MARGIN_MS, restMs / 10)),
          answerWithinMs: Math.min(timeoutMs, restMs + DEADLINE_MARGIN_MS),
          signal
        })
      signal.throwIfAborted()
      if (reply.kind === 'aborted') {
        if (reply.sent) {
          unknown ??= 'The server stopped while the Platform Core had the command; it may have been executed.'
        }
        throw failure(unknown, undefined, undefined)
      }
      const outcome = readOutcome(reply)
      if (outcome.kind === 'answered' || outcome.kind === 'refused') {
        if (unanswered > 0) log.info({ unanswered }, 'core available again')
        unanswered = 0
      }
      if (outcome.kind === 'answered') return outcome.answer
      if (outcome.kind === 'refused') {
        if (outcome.fault !== undefined) warn({ ...about, ...outcome.why }, outcome.fault)
        // A refusal that says nothing of execution does not undo what an earlier attempt may have
        // done.
        if (unknown !== undefined && isRefusalWithoutCode(outcome.error)) {
          throw failure(unknown, outcome.error, undefined)
        }
        throw outcome.error
      }

      unanswered++
      if (outcome.kind === 'unknown') unknown ??= outcome.known
      const repeats = outcome.kind === 'not_executed' || (mayRepeat && outcome.again)
      const pauseMs = Math.max(backoffMs(attempt, timing.random), outcome.retryAfterMs ?? 0)
      // Waiting for an attempt that would have no time left helps nobody: the client hears of it
      // now.
      if (!repeats || clock.now() + pauseMs >= deadline) {
        warn({ ...about, ...outcome.why }, unknown === undefined ? 'core unavailable' : 'core outcome unknown')
        throw failure(unknown, outcome.cause, outcome.retryAfterMs)
      }
      warn({ ...about, pauseMs: Math.round(pauseMs), ...outcome.why }, 'core attempt failed')
      await timing.sleep(pauseMs, signal)
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

/**
 * `unknown`: what is known of an attempt that may have been executed; undefined if there was none.
 */
function failure (unknown: string | undefined, cause: unknown, retryAfterMs: Millis | undefined): HoldfastError {
  if (unknown !== undefined) return new HoldfastError('OUTCOME_UNKNOWN', { message: unknown, cause })
  return new HoldfastError('CORE_UNAVAILABLE', { cause, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) })
}

function isRefusalWithoutCode (error: Error): boolean {
  return error instanceof HoldfastError && error.code === 'CORE_REFUSED'
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
        labels: session.labels,
        context: session.context
      },
      id,
      command,
      payload
    }
  })
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
