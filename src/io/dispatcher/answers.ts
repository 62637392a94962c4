// How a command comes to its answer: exactly one output, which delivery numbers and holds. Handlers
// throw, this file maps; nobody else turns failures into answers (P-15).

import { COMMAND_ERROR_CODE, ERRORS, HoldfastError } from '../errors.js'
import { errorOutput, firstProblem, resultOutput } from '../protocol/codec.js'
import type { Delivery } from '../session/delivery.js'
import type { SessionRecord } from '../session/record.js'
import type { Clock, Log, Millis } from '../types.js'
import type { RegisteredCommand } from './registry.js'
import { countOutcome } from './stats.js'

export type CommandId = number | string | undefined

export interface Answers {
  /** Answers with a value, or with the error that it cannot be one. Counts it. */
  value(session: SessionRecord, command: RegisteredCommand, id: CommandId, value: unknown, startedAt: Millis): void
  /** Answers with what was thrown, as far as the thrower meant it to be seen. Counts it. */
  failure(session: SessionRecord, command: RegisteredCommand, id: CommandId, error: unknown, startedAt: Millis): void
  /** Answers that its time is over. Counts it. */
  timeout(session: SessionRecord, command: RegisteredCommand, id: CommandId, startedAt: Millis): void
  /** Answers a command that was not started. */
  error(session: SessionRecord, id: CommandId, code: string, message: string): void
}

export function createAnswers ({ delivery, clock, log }: { delivery: Delivery, clock: Clock, log: Log }): Answers {
  function error (session: SessionRecord, id: CommandId, code: string, message: string): void {
    const now = Math.floor(clock.now())
    if (delivery.append(session, errorOutput(id, code, message), now)) return
    // The sentence is the platform's own, and may be longer than what the client takes. The code is
    // what counts.
    delivery.append(session, errorOutput(id, code, ERRORS.RESULT_TOO_LARGE.message), now)
  }

  /** Whether the value could be sent. */
  function trySend (
    session: SessionRecord, { result, stats }: RegisteredCommand, id: CommandId, value: unknown, now: Millis
  ): boolean {
    let output
    try {
      // A getter of the value may throw in the check as well as in the printing.
      if (result !== null && !result.Check(value)) throw new TypeError(firstProblem(result.Errors(value)))
      output = resultOutput(id, value)
    } catch (err) {
      log.error({ err, sid: session.id, command: stats.name }, 'command result failed validation')
      error(session, id, 'INVALID_RESULT', ERRORS.INVALID_RESULT.message)
      return false
    }
    if (delivery.append(session, output, now)) return true
    error(session, id, 'RESULT_TOO_LARGE', ERRORS.RESULT_TOO_LARGE.message)
    return false
  }

  return {
    error,

    value (session, command, id, value, startedAt) {
      const now = clock.now()
      const sent = trySend(session, command, id, value, Math.floor(now))
      countOutcome(command.stats, sent ? 'ok' : 'error', now - startedAt)
    },

    failure (session, { stats }, id, thrown, startedAt) {
      const shown = readShownError(thrown)
      if (shown === undefined) {
        log.error({ err: asError(thrown), sid: session.id, command: stats.name }, 'command handler failed')
      }
      error(session, id, shown?.code ?? 'INTERNAL', shown?.message ?? ERRORS.INTERNAL.message)
      countOutcome(stats, shown?.code === 'INVALID_PAYLOAD' ? 'invalid' : 'error', clock.now() - startedAt)
    },

    timeout (session, { stats }, id, startedAt) {
      error(session, id, 'COMMAND_TIMEOUT', ERRORS.COMMAND_TIMEOUT.message)
      countOutcome(stats, 'timeout', clock.now() - startedAt)
    }
  }
}

/** For the log: the error itself, unless it is not one or breaks when it is looked at. */
function asError (thrown: unknown): Error {
  try {
    if (thrown instanceof Error) return thrown
  } catch {}
  return new TypeError('the handler threw something that is not an error')
}

/**
 * Code and sentence of an error that its thrower meant to be seen; undefined for every other, and
 * for what throws when it is looked at.
 */
function readShownError (thrown: unknown): { code: string, message: string } | undefined {
  if (typeof thrown !== 'object' || thrown === null) return undefined
  try {
    if (thrown instanceof HoldfastError) return { code: thrown.code, message: thrown.message }
    const { code, expose, message } = thrown as { code?: unknown, expose?: unknown, message?: unknown }
    if (expose !== true || typeof code !== 'string' || !COMMAND_ERROR_CODE.test(code)) return undefined
    return { code, message: String(message).slice(0, 1024) }
  } catch {
    return undefined
  }
}
