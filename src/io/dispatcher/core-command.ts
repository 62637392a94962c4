// Commands that the Platform Core executes, as handlers like any other: the request is built from
// the session, and what the answer brings is applied to it.

import { HoldfastError } from '../errors.js'
import { mergePatch } from '../session/context.js'
import type { JsonValue, Millis } from '../types.js'
import type { CommandSession } from './command.js'
import type { CoreMessage, PlatformCore } from './core.js'
import type { Handler } from './handler-context.js'

export interface CoreCommand {
  idempotent: boolean
  timeoutMs: Millis
}

/** Makes the handlers of one core's commands. */
export function createCoreHandlers (core: PlatformCore): (command: CoreCommand) => Handler {
  // Commands without a number get a key that no other has, so that a core never takes one for a
  // repeat of another.
  let unnumbered = 0

  return ({ idempotent, timeoutMs }) => async ({ session, id, command, payload, signal }) => {
    const { userId, createdAt, lastActivityAt, labels, context } = session
    const answer = await core.execute({
      key: `${session.id}.${session.generation}.${typeof id === 'number' ? id : `u${++unnumbered}`}`,
      session: { id: session.id, userId, createdAt, lastActivityAt, labels, context },
      id: id ?? null,
      command,
      payload: payload as JsonValue,
      timeoutMs,
      idempotent,
      signal
    })
    // Answered COMMAND_TIMEOUT by now, or the session is gone: what comes late has no effect
    // (P-19).
    signal.throwIfAborted()
    const patch = answer.context
    if (patch !== undefined) session.updateContext(current => mergePatch(current, patch))
    for (const message of answer.messages) sendFromCore(session, message)
    return answer.payload
  }
}

/** @throws RESULT_TOO_LARGE  for the client the messages are part of the answer */
function sendFromCore (session: CommandSession, { event, payload, behind = false }: CoreMessage): void {
  try {
    session.send(event, payload, { behind })
  } catch (error) {
    const isTooLarge = error instanceof HoldfastError && error.code === 'PAYLOAD_TOO_LARGE'
    throw isTooLarge ? new HoldfastError('RESULT_TOO_LARGE', { cause: error }) : error
  }
}
