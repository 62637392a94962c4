// The commands of one client, from `send` to the settled promise: numbering, order, pace, refusals, and what becomes of them when a session is lost.
//
// A command waits without a number until it is first transmitted; from then on its id is its own for the life of the session (P-11), also when its
// promise is gone: a timed out or aborted command keeps its place, or the ids behind it would never be accepted. `cursor` is the id to transmit
// next. It moves on with each transmission and back with each refusal, which is the whole of resending. This file knows no sockets.

import type { Millis } from '../io/types.js'
import { CommandError, type ClientErrorCode, type SendOptions } from './api.js'
import { MAX_DELAY_MS, type SavedSession, type Timers, type Timing } from './environment.js'

/** `limits` of the server's session frame; a limit it does not name does not bind. */
export interface Limits { readonly maxMessageBytes?: number, readonly commandsPerSecond?: number, readonly maxInFlight?: number }

/** How a command ended. */
export interface Outcome { readonly error?: CommandError, readonly payload?: unknown }

export interface AnswerFrame { readonly type?: string, readonly code?: string, readonly payload?: unknown }

export interface CommandQueuePort {
  readonly timing: Timing
  readonly timers: Timers
  readonly maxQueue: number
  /** Frames but for their end (`ack` may follow), in order, to be written at once. */
  transmit (heads: string[]): void
  /** A command that was restored, and has no promise, has ended. */
  orphan (id: number, command: string | undefined, outcome: Outcome): void
}

export interface CommandQueue {
  send (command: string, payload: unknown, options?: SendOptions): Promise<unknown>
  /** Transmits what order, limits and refusals allow now; what they do not is tried again by itself. */
  flush (): void
  /** The session is live: lets commands flow. */
  open (limits: Limits): void
  pause (): void
  /** A resume succeeded: continues behind `watermark`. `isLossy`: answers may be among outputs that never come. */
  resume (watermark: number, isLossy: boolean): void
  /** The frame that answers a numbered command; false if no such command is unanswered. */
  answer (id: number, frame: AnswerFrame): boolean
  /**
   * Not accepted: transmitted again from `expected`, or from `id` on, after `retryAfterMs` (P-13, P-16). False if `expected` was answered long ago:
   * the server has lost what it had accepted, and no resending can mend that.
   */
  refuse (id: number, retryAfterMs: Millis, expected?: number): boolean
  /** The session is lost. `watermark` undefined: nobody knows what it accepted. What it surely did not waits for the new session. */
  renew (watermark: number | undefined): void
  /** Another user is signed in: what waits is not sent any more. */
  disown (): void
  /** No command will be sent any more; those that were not yet end with `code`, as later ones do. */
  end (code: 'SESSION_ENDED' | 'DISPOSED', reason: string): void
  saved (): SavedSession['commands']
  restore (commands: SavedSession['commands']): void
}

interface Item {
  /** 0 until first transmitted. */
  id: number
  readonly command: string
  readonly body: string
  /** Transmissions on this connection that no refusal came for. A refusal that leaves one is about an older transmission. */
  open: number
  /** Undefined once the promise has settled. */
  settle: ((outcome: Outcome) => void) | undefined
}

const MAX_SAVED_COMMANDS = 256
const MAX_SAVED_CHARS = 262_144
/** Objects and arrays inside one another in a payload: P-6 allows 32 in a frame. */
const MAX_PAYLOAD_DEPTH = 31
/** Room for `,"id":` and `,"ack":` with their numbers. */
const FRAME_TAIL_BYTES = 48
/** A second, and what the network may push together. */
const RATE_WINDOW_MS = 1050

/** Keys that P-6 forbids would make the frame malformed, and a malformed frame is answered without an id. */
function isSendable (value: unknown, depth: number): boolean {
  return typeof value !== 'object' || value === null || (depth > 0 && Object.entries(value).every(([key, member]) =>
    key !== '__proto__' && !(key === 'constructor' && Object.hasOwn(Object(member), 'prototype')) && isSendable(member, depth - 1)))
}

/** What a `result`, or an `error` that answers a command, says of it. */
export function outcomeOf ({ type, code = '', payload }: AnswerFrame, command: string): Outcome {
  return type === 'error' ? { error: new CommandError(code, String(payload), command) } : { payload }
}

export function createCommandQueue (port: CommandQueuePort): CommandQueue {
  const { timing, timers } = port
  const waiting = new Set<Item>()
  const numbered = new Map<number, Item>()
  /** Times of the latest transmissions, oldest first. A window instead of a bucket: it satisfies both kinds of server. */
  const recent: Millis[] = []
  let nextId = 1
  let cursor = 1
  let limits: Limits | undefined
  let blockedUntil = 0
  let isDoubtful = false
  let ended: ((command: string) => Outcome) | undefined

  const failure = (code: ClientErrorCode, message: string, command: string, cause?: unknown): Outcome =>
    ({ error: new CommandError(code, message, command, cause) })
  const unknownOutcome = (command: string): Outcome =>
    failure('OUTCOME_UNKNOWN', 'The session was lost before the answer came; the command may have run.', command)

  function start (item: Item, { signal, timeoutMs }: SendOptions, resolve: (payload: unknown) => void, reject: (error: CommandError) => void): void {
    let timer: unknown
    const cancel = (code: ClientErrorCode, message: string, cause?: unknown): void => {
      waiting.delete(item)
      item.settle?.(failure(code, message, item.command, cause))
    }
    const onAbort = (): void => cancel('ABORTED', 'The command was aborted.', signal?.reason)
    item.settle = ({ error, payload }) => {
      item.settle = undefined
      if (timer !== undefined) timing.clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
      if (error === undefined) resolve(payload)
      else reject(error)
    }
    if (ended !== undefined) return item.settle(ended(item.command))
    if (signal?.aborted === true) return onAbort()
    if (waiting.size >= port.maxQueue) return cancel('QUEUE_FULL', `${port.maxQueue} commands are waiting already.`)
    signal?.addEventListener('abort', onAbort)
    if (timeoutMs !== undefined) timer = timing.setTimeout(() => cancel('TIMEOUT', `No answer within ${timeoutMs} ms.`), Math.min(timeoutMs, MAX_DELAY_MS))
    waiting.add(item)
  }

  function send (command: string, payload: unknown, options: SendOptions = {}): Promise<unknown> {
    const promise = new Promise<unknown>((resolve, reject) => {
      let body: string
      try {
        if (command.length < 1 || command.length > 128 || !isSendable(payload, MAX_PAYLOAD_DEPTH)) throw new TypeError('The protocol has no room for it (P-6).')
        body = JSON.stringify({ command, payload }).slice(0, -1)
      } catch (cause) {
        return reject(new CommandError('BAD_PAYLOAD', 'The command cannot be sent as JSON.', command, cause))
      }
      start({ id: 0, command, body, open: 0, settle: undefined }, options, resolve, reject)
    })
    promise.catch(() => {})
    flush()
    return promise
  }

  function inFlight (): number {
    if (cursor === nextId) return numbered.size
    let count = 0
    for (const id of numbered.keys()) if (id < cursor) count++
    return count
  }

  /** Milliseconds until the next transmission is allowed; 0 for now. */
  function delayMs (now: Millis): Millis {
    const rate = limits?.commandsPerSecond ?? Infinity
    while (recent.length > 0 && recent[0]! <= now - RATE_WINDOW_MS) recent.shift()
    return Math.max(0, blockedUntil - now, recent.length < rate ? 0 : recent[0]! + RATE_WINDOW_MS - now)
  }

  /** What to transmit next; answered ids in between are behind the watermark already. */
  function next (): Item | undefined {
    while (cursor < nextId && !numbered.has(cursor)) cursor++
    return numbered.get(cursor) ?? waiting.values().next().value
  }

  function isTooLarge ({ id, body }: Item): boolean {
    const room = (limits?.maxMessageBytes ?? Infinity) - FRAME_TAIL_BYTES
    // A character takes three bytes at most, so most frames need no counting.
    return id === 0 && body.length * 3 > room && new TextEncoder().encode(body).length > room
  }

  function flush (): void {
    if (limits === undefined) return
    const heads: string[] = []
    const now = timing.now()
    for (let item = next(); item !== undefined; item = next()) {
      if (isTooLarge(item)) {
        waiting.delete(item)
        item.settle?.(failure('MESSAGE_TOO_LARGE', `A frame may have ${limits.maxMessageBytes} bytes.`, item.command))
        continue
      }
      const wait = delayMs(now)
      if (wait > 0) timers.arm('commands', wait, flush)
      // A full window opens with the next answer, which flushes.
      if (wait > 0 || inFlight() >= (limits.maxInFlight ?? Infinity)) break
      if (item.id === 0) {
        waiting.delete(item)
        item.id = nextId++
        numbered.set(item.id, item)
      }
      cursor = item.id + 1
      item.open++
      recent.push(now)
      heads.push(`${item.body},"id":${item.id}`)
    }
    if (heads.length > 0) port.transmit(heads)
  }

  function pause (): void {
    limits = undefined
    timers.disarm('commands')
  }

  function settleAll (items: Iterable<Item>, outcomeOf: (command: string) => Outcome): void {
    for (const item of items) item.settle?.(outcomeOf(item.command))
  }

  return {
    send,
    flush,
    pause,
    open (given) {
      limits = given
      blockedUntil = 0
      flush()
    },
    resume (watermark, isLossy) {
      isDoubtful ||= isLossy
      const ids = [...numbered.keys()]
      nextId = Math.max(watermark, ...ids.slice(-1)) + 1
      // A duplicate is never executed, and is the way to ask for an answer that may have been dropped (P-12).
      cursor = isDoubtful ? Math.min(watermark + 1, ...ids.slice(0, 1)) : watermark + 1
      for (const item of numbered.values()) item.open = 0
    },
    answer (id, frame) {
      const item = numbered.get(id)
      numbered.delete(id)
      item?.settle?.(outcomeOf(frame, item.command))
      return item !== undefined
    },
    refuse (id, retryAfterMs, expected = id) {
      const item = numbered.get(id)
      if (item === undefined || --item.open > 0) return true
      cursor = Math.min(cursor, expected)
      if (retryAfterMs > 0) blockedUntil = Math.max(blockedUntil, timing.now() + retryAfterMs)
      return numbered.has(expected)
    },
    renew (watermark = Infinity) {
      pause()
      const sent = [...numbered.values()]
      const unsent = [...waiting]
      numbered.clear()
      waiting.clear()
      const untouched = sent.filter(item => item.id > watermark && item.settle !== undefined)
      for (const item of [...untouched, ...unsent]) {
        item.id = item.open = 0
        waiting.add(item)
      }
      nextId = cursor = 1
      isDoubtful = false
      settleAll(sent.filter(item => item.id > 0), unknownOutcome)
    },
    disown () {
      const unsent = [...waiting]
      waiting.clear()
      settleAll(unsent, command => failure('USER_CHANGED', 'Another user is signed in now.', command))
    },
    end (code, reason) {
      pause()
      ended = command => failure(code, `The session has ended: ${reason}.`, command)
      const sent = [...numbered.values()].filter(({ settle }) => settle !== undefined)
      const unsent = [...waiting]
      numbered.clear()
      waiting.clear()
      settleAll(sent, code === 'DISPOSED' ? ended : unknownOutcome)
      settleAll(unsent, ended)
    },
    saved () {
      let chars = 0
      const items = [...numbered.values()].slice(0, MAX_SAVED_COMMANDS)
      return items.filter(({ body }) => (chars += body.length) <= MAX_SAVED_CHARS).map(({ id, command, body }) => ({ id, command, body }))
    },
    restore (commands) {
      isDoubtful = true
      for (const { id, command, body } of commands) {
        const item: Item = { id, command, body, open: 0, settle: undefined }
        item.settle = outcome => { item.settle = undefined; port.orphan(id, command, outcome) }
        numbered.set(id, item)
        nextId = cursor = id + 1
      }
    }
  }
}
