// The commands that are not answered yet, in the order of `send`, and their numbers.
//
// A command waits without a number until it is first transmitted; from then on its id is its own
// for the life of the session (P-11), also when its promise is gone: a timed out or aborted command
// keeps its place, or the ids behind it would never be accepted. Only a command that is rejected as
// such gives its number to the next one, and only while nothing behind it is on its way, since a
// number must not mean two commands at once. `cursor` is the id to transmit next. It moves on with
// each transmission and back with each refusal, which is the whole of resending.

import { CommandError, type ClientErrorCode } from './api.js'
import { MAX_SAVED_CHARS, MAX_SAVED_COMMANDS } from './bounds.js'
import type { Outcome } from './command-frame.js'
import type { SavedCommand } from './environment.js'

export interface Item {
  /** 0 until first transmitted. */
  id: number
  readonly command: string
  /** The frame up to its id. */
  body: string
  /**
   * Transmissions on this connection that no refusal came for. A refusal that leaves one is about
   * an older transmission.
   */
  open: number
  /**
   * Connections in a row that were lost with this as the first of its commands, and brought
   * nothing.
   */
  strikes: number
  /** Sent alone, since the connection was lost by it or by one that was sent with it. */
  isSuspect: boolean
  /** Undefined once the promise has settled. */
  settle: ((outcome: Outcome) => void) | undefined
}

export interface CommandList {
  /** Those with a number come first. */
  items: Item[]
  nextId: number
  cursor: number
  /**
   * Id that is free since its command was rejected; the commands behind it move up once none of
   * them is on its way.
   */
  hole: number | undefined
}

export const createItem = (id: number, command: string, body = ''): Item =>
  ({ id, command, body, open: 0, strikes: 0, isSuspect: false, settle: undefined })

export const isWaiting = ({ id }: Item): boolean => id === 0

export const find = ({ items }: CommandList, id: number): Item | undefined => items.find(item => item.id === id)

/** Transmitted on this connection and not refused. */
export const onTheirWay = ({ items }: CommandList, from = 0): Item[] =>
  items.filter(({ id, open }) => id >= from && open > 0)

export function remove (list: CommandList, item: Item): void {
  list.items = list.items.filter(other => other !== item)
}

export function settle (item: Item, outcome: Outcome): void {
  const { settle } = item
  item.settle = undefined
  settle?.(outcome)
}

/** Settles with an error. What was sent keeps its place. */
export function fail (list: CommandList, item: Item, code: ClientErrorCode, message: string, cause?: unknown): void {
  if (isWaiting(item)) remove(list, item)
  settle(item, { error: new CommandError(code, message, item.command, cause) })
}

function failUnknown (list: CommandList, item: Item): void {
  fail(list, item, 'OUTCOME_UNKNOWN', 'The session was lost; the command may have run.')
}

/** What to transmit next. */
export const next = ({ items, cursor }: CommandList): Item | undefined =>
  items.find(item => isWaiting(item) || item.id >= cursor)

export const inFlight = ({ items, cursor }: CommandList): number =>
  items.filter(item => !isWaiting(item) && item.id < cursor).length

/** Takes note of a transmission; the first one numbers the command. */
export function pass (list: CommandList, item: Item): void {
  item.id ||= list.nextId++
  item.open++
  list.cursor = item.id + 1
}

/**
 * Numbers commands afresh from an id that the server has not accepted. Those that nobody waits
 * for any more fall out.
 */
export function renumber (list: CommandList, from: number): void {
  list.items = list.items.filter(({ id, settle }) => id < from || settle !== undefined)
  list.nextId = from
  for (const item of list.items) if (item.id >= from) item.id = list.nextId++
  list.cursor = Math.min(list.cursor, from)
  list.hole = undefined
}

/** What a new session may be sent: commands up to the watermark were accepted by the one before. */
export function renew (list: CommandList, watermark: number): void {
  for (const item of list.items) {
    if (isWaiting(item)) continue
    const isUntouched = item.id > watermark && item.settle !== undefined
    if (!isUntouched) {
      failUnknown(list, item)
      remove(list, item)
    }
    item.id = item.open = 0
  }
  list.nextId = list.cursor = 1
  list.hole = undefined
}

/** Another user is signed in: what waits is not sent any more. */
export function disown (list: CommandList): void {
  for (const item of list.items.filter(isWaiting)) {
    fail(list, item, 'USER_CHANGED', 'Another user is signed in now.')
  }
}

/** No command is sent any more. */
export function end (list: CommandList, code: 'SESSION_ENDED' | 'DISPOSED', message: string): void {
  for (const item of list.items) {
    if (isWaiting(item) || code === 'DISPOSED') fail(list, item, code, message)
    else failUnknown(list, item)
  }
  list.items = []
}

export function savedOf ({ items }: CommandList): SavedCommand[] {
  let chars = 0
  return items.filter(item => !isWaiting(item)).slice(0, MAX_SAVED_COMMANDS)
    .filter(({ body }) => (chars += body.length) <= MAX_SAVED_CHARS)
    .map(({ id, command, body, settle }) => ({ id, command, body, ...(settle === undefined && { isDropped: true }) }))
}

/**
 * Goes on where another page stands: its commands have no promise here, and those it no longer
 * knows are answered there.
 */
export function restore (
  list: CommandList, saved: readonly SavedCommand[], orphan: (id: number, command: string, outcome: Outcome) => void
): void {
  const ours = list.items
  const restored = saved.map(({ id, command, body, isDropped }) => {
    const known = ours.find(item => item.id === id && item.body === body)
    const item = known ?? createItem(id, command, body)
    if (known === undefined && !isDropped) item.settle = outcome => orphan(id, command, outcome)
    item.open = 0
    list.nextId = list.cursor = id + 1
    return item
  })
  list.items = [...restored, ...ours.filter(isWaiting)]
  for (const item of ours) if (!list.items.includes(item)) failUnknown(list, item)
}
