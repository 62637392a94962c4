// Commands available when no platform code is registered, so that a first session works at once.
// `echo` and `ping` show the way there and back, the context pair shows what a session keeps.

import { Type } from 'typebox'
import { defineCommand } from './command.js'
import { mergePatch } from '../session/context.js'
import type { JsonObject } from '../types.js'

export const BUILTIN_COMMANDS = {
  ping: defineCommand({}, () => 'pong'),
  echo: defineCommand({}, ({ payload }) => payload),
  'context.get': defineCommand({}, ({ session }) => session.context),
  /**
   * The payload is a merge patch (RFC 7396): its members replace those of the context, null
   * removes.
   */
  'context.set': defineCommand(
    { payload: Type.Record(Type.String(), Type.Unknown()) },
    ({ payload, session }) => session.updateContext(context => mergePatch(context, payload as JsonObject))
  )
}
