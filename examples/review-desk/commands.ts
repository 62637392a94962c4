// What reviewers may ask of the platform and what it tells them: the one place where both are
// written down. The server checks payloads and results by these schemas, and the page takes its
// types from here: `connect<Commands, typeof events>(url)`.

import { Type, type Static } from 'typebox'
import { defineCommand, type CommandContext } from '../../src/io/dispatcher/command.js'
import type { Order, Platform } from './platform.js'

const DraftId = Type.Integer({ minimum: 1 })
const Verdict = Type.Union([Type.Literal('approved'), Type.Literal('rejected')])

export const Draft = Type.Object({
  id: DraftId,
  topic: Type.String(),
  customer: Type.String(),
  channel: Type.String(),
  question: Type.String(),
  answer: Type.String(),
  /** 0 to 1, as the model rates itself. */
  confidence: Type.Number({ minimum: 0, maximum: 1 }),
  /** What the platform wants a human to look at. */
  flags: Type.Array(Type.String()),
  at: Type.Integer()
})

export const Decision = Type.Object({
  draft: DraftId,
  topic: Type.String(),
  verdict: Verdict,
  reason: Type.Union([Type.String(), Type.Null()]),
  reviewer: Type.String(),
  sessionId: Type.String(),
  command: Type.Union([Type.Integer(), Type.Null()]),
  at: Type.Integer()
})

/** The desk as it is at one moment; the events that follow it tell what changes. */
export const Desk = Type.Object({ waiting: Type.Array(Draft), decided: Type.Array(Decision), total: Type.Integer() })

export type Draft = Static<typeof Draft>
export type Decision = Static<typeof Decision>
export type Desk = Static<typeof Desk>
export type Verdict = Static<typeof Verdict>

const MIN_REASON = 3
const MAX_REASON = 400

export const events = { 'draft.added': Draft, 'draft.decided': Decision }

export function createCommands (platform: Platform) {
  return {
    'desk.open': defineCommand({ payload: Type.Null(), result: Desk }, () => platform.view()),

    'draft.approve': defineCommand({ payload: Type.Object({ draft: DraftId }), result: Decision },
      context => platform.decide({ ...orderOf(context), verdict: 'approved', reason: null })),

    'draft.reject': defineCommand({
      payload: Type.Object({ draft: DraftId, reason: Type.String({ minLength: MIN_REASON, maxLength: MAX_REASON }) }),
      result: Decision
    }, context => platform.decide({ ...orderOf(context), verdict: 'rejected', reason: context.payload.reason }))
  }
}

export type Commands = ReturnType<typeof createCommands>

function orderOf ({
  payload, session, id
}: CommandContext<{ draft: number }>): Pick<Order, 'draft' | 'reviewer' | 'sessionId' | 'command'> {
  return {
    draft: payload.draft, reviewer: session.userId, sessionId: session.id, command: typeof id === 'number' ? id : null
  }
}
