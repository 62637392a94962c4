// What a command handler is given: a private class, so that the accessor of the signal lives once
// on the prototype.

import type { CommandContext, CommandSession } from './command.js'

export type Handler = (context: HandlerContext) => unknown

/**
 * The signals of commands: 3 µs each to make on Node 20, so made when a handler looks or a command
 * is aborted. Not in the context, where each command would pay for the field.
 */
const controllers = new WeakMap<object, AbortController>()

function controllerOf (context: HandlerContext): AbortController {
  let controller = controllers.get(context)
  if (controller === undefined) controllers.set(context, controller = new AbortController())
  return controller
}

export class HandlerContext implements CommandContext<unknown> {
  readonly command: string
  /** What a schema that transforms made of it, once it was checked. */
  payload: unknown
  readonly session: CommandSession
  readonly id: number | string | undefined

  constructor (command: string, payload: unknown, session: CommandSession, id: number | string | undefined) {
    this.command = command
    this.payload = payload
    this.session = session
    this.id = id
  }

  get signal (): AbortSignal { return controllerOf(this).signal }
}

export function abort (context: HandlerContext, reason: Error): void {
  controllerOf(context).abort(reason)
}
