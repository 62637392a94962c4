// Whether each OUTCOME_UNKNOWN of a chaos run has a reason. The core lost the answer; or the
// session went to another process between the command and its answer, and a kill came upon it, or
// it ran for longer than a node waits that is to hand its session over. A session that stayed on
// its connection gives no reason for one.

import type { ClientEvent } from '../checker.js'
import type { Kill } from './killer.js'
import { isAnswered, type CommandPlan } from './plan.js'

/** What a node gives commands that run when another one asks for their session. */
const HAND_OVER_MS = 300
const SHOWN_KILLS = 2

/**
 * Why a command may be answered so; `none` is a fault, and `other answer` the fault that one whose
 * answer the core lost was answered otherwise.
 */
export type Reason = 'core' | 'kill' | 'hand-over' | 'none' | 'other answer'

export interface Unknown {
  readonly reason: Reason
  /** What there is to judge it by. */
  readonly sentence: string
}

export interface UnknownsOptions {
  readonly client: number
  readonly sessionId: string | undefined
  readonly commands: readonly Pick<CommandPlan, 'fault'>[]
  readonly events: readonly ClientEvent[]
  /** By id, as the core counted them; undefined if nothing counted. */
  readonly executions: ReadonlyMap<number, number> | undefined
}

export function findUnknowns (
  { client, sessionId, commands, events, executions }: UnknownsOptions, kills: readonly Kill[]
): Unknown[] {
  const found: Unknown[] = []
  const sent = new Map<number, { at: number, closed: number }>()
  const answered = new Set<number>()
  let closed = 0
  for (const event of events) {
    if (event.kind === 'closed') closed++
    if (event.kind === 'sent' && !sent.has(event.id)) sent.set(event.id, { at: event.at ?? 0, closed })
    if (event.kind !== 'output' || event.id === undefined || answered.has(event.id)) continue
    const { id, mark, at: to = 0 } = event
    answered.add(id)
    const fault = commands[id - 1]?.fault ?? 'none'
    const isUnknown = mark.endsWith(' OUTCOME_UNKNOWN')
    if (!isUnknown && isAnswered(fault)) continue
    const { at: from, closed: closedBefore } = sent.get(id) ?? { at: to, closed }
    const breaks = closed - closedBefore
    const reason = !isUnknown ? 'other answer' : isAnswered(fault) ? reasonOf(from, to, breaks, kills) : 'core'
    const runs = executions === undefined ? '' : `, executed ${executions.get(id) ?? 0} times`
    const sentence = `client ${client}, session ${sessionId}: command ${id} (${fault}) was answered ${mark}; sent ` +
      `${timeOf(from)}, answered ${timeOf(to)}, breaks between ${breaks}${runs}; nearest kills ` +
      showNearest(from, to, kills)
    found.push({ reason, sentence })
  }
  return found
}

function reasonOf (from: number, to: number, breaks: number, kills: readonly Kill[]): Reason {
  if (kills.length === 0 || breaks === 0) return 'none'
  if (kills.some((kill) => distanceOf(from, to, kill) === 0)) return 'kill'
  return to - from > HAND_OVER_MS ? 'hand-over' : 'none'
}

/** Between the command and the kill; 0 where they meet. */
function distanceOf (from: number, to: number, kill: Kill): number {
  return Math.max(0, kill.from - to, from - kill.to)
}

function showNearest (from: number, to: number, kills: readonly Kill[]): string {
  const nearest = [...kills].sort((a, b) => distanceOf(from, to, a) - distanceOf(from, to, b)).slice(0, SHOWN_KILLS)
  return nearest.map((kill) => `${timeOf(kill.from)} to ${timeOf(kill.to)}`).join(', ') || 'none'
}

/** The time of day, as logs have it. */
function timeOf (at: number): string {
  return new Date(performance.timeOrigin + at).toISOString().slice(11, 23)
}
