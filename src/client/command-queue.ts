// The way of a command, from `send` to the settled promise: its time limit, the pace that the
// server allows, answers and refusals, and what becomes of it when a session is lost. This file
// knows no sockets.

import type { Millis } from '../io/types.js'
import type { ClientErrorCode, SendOptions } from './api.js'
import { blame } from './command-blame.js'
import { bodyOf, outcomeOf, type AnswerFrame, type Outcome } from './command-frame.js'
import {
  createItem, disown, end, fail, find, isWaiting, onTheirWay, remove, renew, renumber, restore, savedOf, settle,
  type CommandList, type Item
} from './command-list.js'
import { take, type Limits, type Pace } from './command-pace.js'
import type { SavedCommand } from './environment.js'
import type { Emit } from './session-state.js'
import type { Timers } from './timers.js'

export interface CommandQueuePort {
  readonly now: () => Millis
  readonly timers: Timers
  readonly maxQueue: number
  readonly timeoutMs: Millis | undefined
  /** `transmit`, `blamed` and `stateLost`. */
  readonly emit: Emit
  /** A command that was restored, and has no promise, has ended. */
  orphan (id: number, command: string | undefined, outcome: Outcome): void
}

export interface CommandQueue {
  send (command: string, payload: unknown, options?: SendOptions): Promise<unknown>
  /**
   * Transmits what order, limits and refusals allow now; what they do not is tried again by itself.
   */
  flush (): void
  /** The session is live: lets commands flow. */
  flow (limits: Limits): void
  /**
   * The connection is lost. `code`: what it was closed with, which may be the fault of a command
   * (P-49b, P-49c).
   */
  lose (code: number): void
  /**
   * A resume succeeded: continues behind `watermark`. `isLossy`: answers may be among outputs that
   * never come.
   */
  resume (watermark: number, isLossy: boolean): void
  /** The frame that answers a numbered command; false if no such command is unanswered. */
  answer (id: number, frame: AnswerFrame): boolean
  /**
   * Not accepted: transmitted again from `expected`, or from `id` on, after `retryAfterMs` (P-13,
   * P-16). If `expected` was answered long ago, the server has lost what it had accepted, and no
   * resending can mend that.
   */
  refuse (id: number, retryAfterMs: Millis, expected?: number): void
  /** Will never be accepted: settles, and its number goes to the next command (P-6). */
  reject (id: number, frame: AnswerFrame): void
  /** A server complains of a malformed frame without naming it: a command may be to blame. */
  blame (): void
  /**
   * The session is lost. `watermark` undefined: nobody knows what it accepted. What it surely did
   * not waits for the new session.
   */
  renew (watermark?: number): void
  /** Another user is signed in: what waits is not sent any more. */
  disown (): void
  /**
   * No command will be sent any more; those that were not yet end with `code`, as later ones do.
   */
  endCommands (code: 'SESSION_ENDED' | 'DISPOSED', reason: string): void
  saved (): SavedCommand[]
  /**
   * Goes on where another page stands: its commands have no promise here, and those it no longer
   * knows are answered there.
   */
  restore (commands: readonly SavedCommand[]): void
}

type Cancel = (code: ClientErrorCode, message: string, cause?: unknown) => void

export function createCommandQueue (port: CommandQueuePort): CommandQueue {
  const { now, timers } = port
  const list: CommandList = { items: [], nextId: 1, cursor: 1, hole: undefined }
  const pace: Pace = { limits: undefined, blockedUntil: 0, recent: [] }
  /** Answers may be among outputs that never come. */
  let isDoubtful = false
  let wasAnswered = false
  /** How the last connection was lost, until the watermark says what had been accepted. */
  let lossCode = Infinity
  let ended: readonly ['SESSION_ENDED' | 'DISPOSED', string] | undefined

  function flush (): void {
    if (list.hole !== undefined && onTheirWay(list, list.hole).length === 0) renumber(list, list.hole)
    if (pace.limits === undefined || list.hole !== undefined) return
    const { heads, delayMs } = take(list, pace, now())
    if (delayMs > 0) timers.arm('commands', delayMs, flush)
    if (heads.length > 0) port.emit('transmit', heads)
  }

  function pause (): void {
    pace.limits = undefined
    timers.disarm('commands')
  }

  /** The command that a frame of the server names. */
  const heard = (id: number): Item | undefined => { wasAnswered = true; return find(list, id) }

  return {
    flush,
    blame: () => { if (onTheirWay(list).length > 0) port.emit('blamed') },
    send (command, payload, options) {
      const promise = new Promise<unknown>((resolve, reject) => {
        const { signal, timeoutMs = port.timeoutMs } = options ?? {}
        const item = createItem(0, typeof command === 'string' ? command : '')
        const cancel: Cancel = (...why) => fail(list, item, ...why)
        const onAbort = (): void => cancel('ABORTED', 'The command was aborted.', signal?.reason)
        const onTimeout = (): void => cancel('TIMEOUT', `No answer within ${timeoutMs} ms.`)
        item.settle = ({ error, payload }) => {
          timers.disarm(item)
          signal?.removeEventListener?.('abort', onAbort)
          if (error) reject(error)
          else resolve(payload)
        }
        try {
          item.body = bodyOf(command, payload)
          const isFull = list.items.filter(isWaiting).length >= port.maxQueue
          if (ended) return cancel(...ended)
          if (signal?.aborted) return onAbort()
          if (isFull) return cancel('QUEUE_FULL', `${port.maxQueue} commands are waiting already.`)
          signal?.addEventListener('abort', onAbort)
          if (timeoutMs !== undefined) timers.arm(item, timeoutMs, onTimeout)
          list.items.push(item)
        } catch (cause) {
          cancel('BAD_PAYLOAD', 'The command cannot be sent as JSON.', cause)
        }
      })
      promise.catch(() => {})
      flush()
      return promise
    },
    flow (given) {
      pace.limits = given
      pace.blockedUntil = 0
      wasAnswered = false
      flush()
    },
    lose (code) {
      // What was sent was not lost by an attempt that failed, but by the connection before it.
      if (pace.limits !== undefined) lossCode = code
      pause()
    },
    resume (watermark, isLossy) {
      blame(list, watermark, lossCode, wasAnswered)
      renumber(list, watermark + 1)
      isDoubtful ||= isLossy
      // A duplicate is never executed: it asks for an answer that may have been dropped (P-12).
      list.cursor = Math.min(watermark + 1, (isDoubtful && list.items[0]?.id) || Infinity)
      for (const item of list.items) item.open = 0
      lossCode = Infinity
    },
    answer (id, frame) {
      const item = heard(id)
      if (item === undefined) return false
      remove(list, item)
      settle(item, outcomeOf(frame, item.command))
      return true
    },
    refuse (id, retryAfterMs, expected = id) {
      const item = heard(id)
      if (item === undefined || --item.open > 0) return
      list.cursor = Math.min(list.cursor, expected)
      if (retryAfterMs > 0) pace.blockedUntil = Math.max(pace.blockedUntil, now() + retryAfterMs)
      if (find(list, expected) === undefined) port.emit('stateLost')
    },
    reject (id, frame) {
      const item = heard(id)
      if (item === undefined) return
      item.open--
      settle(item, outcomeOf(frame, item.command))
      list.hole = Math.min(list.hole ?? id, id)
    },
    renew (watermark = Infinity) {
      blame(list, watermark, lossCode, wasAnswered)
      pause()
      renew(list, watermark)
      isDoubtful = false
    },
    disown: () => disown(list),
    endCommands (code, reason) {
      pause()
      ended = [code, `The session has ended: ${reason}.`]
      end(list, ...ended)
    },
    saved: () => savedOf(list),
    restore (commands) {
      isDoubtful = true
      restore(list, commands, port.orphan)
    }
  }
}
