// Commands available when no platform code is registered, so that a first session works at once.
// `echo` and `ping` show the way there and back, the context pair shows what a session keeps. Each
// may be executed again: its effect is the same.

import { Type } from 'typebox'
import { defineCommand } from './command.js'
import { mergePatch } from '../session/context.js'
import type { JsonObject } from '../types.js'

export const BUILTIN_COMMANDS = {
  ping: defineCommand({ idempotent: true }, () => 'pong'),
  echo: defineCommand({ idempotent: true }, ({ payload }) => payload),
  'context.get': defineCommand({ idempotent: true }, ({ session }) => session.context),
  /**
   * The payload is a merge patch (RFC 7396): its members replace those of the context, null
   * removes.
   */
  'context.set': defineCommand(
    { payload: Type.Record(Type.String(), Type.Unknown()), idempotent: true },
    ({ payload, session }) => session.updateContext(context => mergePatch(context, payload as JsonObject))
  )
}
