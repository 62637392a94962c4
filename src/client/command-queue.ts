// The commands of one client, from `send` to the settled promise: numbering, order, pace, refusals,
// what becomes of them when a session is lost, and which of them is to blame when a connection is.
//
// A command waits without a number until it is first transmitted; from then on its id is its own
// for the life of the session (P-11), also when its promise is gone: a timed out or aborted command
// keeps its place, or the ids behind it would never be accepted. Only a command that is rejected as
// such gives its number to the next one, and only while nothing behind it is on its way, since a
// number must not mean two commands at once. `cursor` is the id to transmit next. It moves on with
// each transmission and back with each refusal, which is the whole of resending. This file knows no
// sockets.

import type { Millis } from '../io/types.js'
import { CommandError, type ClientErrorCode, type SendOptions } from './api.js'
import { MAX_DELAY_MS, type SavedCommand, type Timers, type Timing } from './environment.js'

/** `limits` of the server's session frame; a limit it does not name does not bind. */
export interface Limits {
  readonly maxMessageBytes?: number
  readonly commandsPerSecond?: number
  readonly maxInFlight?: number
}

/** How a command ended. */
export interface Outcome { readonly error?: CommandError, readonly payload?: unknown }

export interface AnswerFrame { readonly type?: string, readonly code?: string, readonly payload?: unknown }

export interface CommandQueuePort {
  readonly timing: Timing
  readonly timers: Timers
  readonly maxQueue: number
  readonly timeoutMs: Millis | undefined
  /** Frames but for their end (`ack` may follow), in order, to be written at once. */
  transmit (heads: string[]): void
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
  open (limits: Limits): void
  pause (): void
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
   * P-16). False if `expected` was answered long ago: the server has lost what it had accepted, and
   * no resending can mend that.
   */
  refuse (id: number, retryAfterMs: Millis, expected?: number): boolean
  /** Will never be accepted: settles, and its number goes to the next command (P-6). */
  reject (id: number, frame: AnswerFrame): void
  /**
   * Whether a command is on its way that may be the malformed frame a server complains of without
   * naming it.
   */
  isSending (): boolean
  /**
   * The session is lost. `watermark` undefined: nobody knows what it accepted. What it surely did
   * not waits for the new session.
   */
  renew (watermark: number | undefined): void
  /** Another user is signed in: what waits is not sent any more. */
  disown (): void
  /**
   * No command will be sent any more; those that were not yet end with `code`, as later ones do.
   */
  end (code: 'SESSION_ENDED' | 'DISPOSED', reason: string): void
  saved (): SavedCommand[]
  /**
   * Goes on where another page stands: its commands have no promise here, and those it no longer
   * knows are answered there.
   */
  restore (commands: readonly SavedCommand[]): void
}

interface Item {
  /** 0 until first transmitted. */
  id: number
  readonly command: string
  readonly body: string
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

const MAX_SAVED_COMMANDS = 256
const MAX_SAVED_CHARS = 262_144
/** Objects and arrays inside one another in a payload: P-6 allows 32 in a frame. */
const MAX_PAYLOAD_DEPTH = 31
const MAX_NAME_LENGTH = 128
/** Room for `,"id":` and `,"ack":` with their numbers. */
const FRAME_TAIL_BYTES = 48
/** A second, and what the network may push together. */
const RATE_WINDOW_MS = 1050
/** P-49c. */
const MAX_STRIKES = 3
/** Of the client itself, where a server complains of a frame and does not say which. */
export const BAD_FRAME_CODE = 4901

/** Keys that P-6 forbids would make the frame malformed. */
function isSendable (value: unknown, depth: number): boolean {
  if (typeof value !== 'object' || value === null) return true
  return depth > 0 && Object.entries(value).every(([key, member]) => key !== '__proto__' &&
    !(key === 'constructor' && Object.hasOwn(Object(member), 'prototype')) && isSendable(member, depth - 1))
}

/** What JSON would change without a word is refused: NaN becomes null, and a function nothing. */
function checked (_key: string, value: unknown): unknown {
  const isLost = typeof value === 'function' || typeof value === 'symbol' ||
    (typeof value === 'number' && !Number.isFinite(value))
  if (isLost) throw new TypeError(`${String(value)} is not JSON.`)
  return value
}

/**
 * The frame up to its id. What is judged is the text that is sent, and not the object behind it,
 * whose `toJSON` and getters may say something else each time they are asked.
 */
function bodyOf (command: unknown, payload: unknown): string {
  const text = JSON.stringify({ command, payload }, checked)
  const { command: name, payload: value } = JSON.parse(text) as { command: unknown, payload: unknown }
  const isFrame = typeof name === 'string' && name.length > 0 && name.length <= MAX_NAME_LENGTH &&
    isSendable(value, MAX_PAYLOAD_DEPTH)
  if (!isFrame) throw new TypeError('P-6 does not allow it.')
  return text.slice(0, -1)
}

/** What a `result`, or an `error` that answers a command, says of it. */
export function outcomeOf ({ type, code = '', payload }: AnswerFrame, command: string): Outcome {
  return type === 'error' ? { error: new CommandError(code, String(payload), command) } : { payload }
}

export function createCommandQueue (port: CommandQueuePort): CommandQueue {
  const { timing, timers } = port
  const waiting = new Set<Item>()
  const numbered = new Map<number, Item>()
  /**
   * Times of the latest transmissions, oldest first. A window instead of a bucket: it satisfies
   * both kinds of server.
   */
  const recent: Millis[] = []
  let nextId = 1
  let cursor = 1
  let limits: Limits | undefined
  let blockedUntil = 0
  let isDoubtful = false
  /** An answer or a refusal came on this connection. */
  let wasAnswered = false
  /**
   * How the last connection was lost, until the watermark says which commands had been accepted.
   */
  let lossCode = Infinity
  /** Some command may be the one that a connection was lost by. */
  let isSuspected = false
  /**
   * Id that is free since its command was rejected; the commands behind it move up once none of
   * them is on its way.
   */
  let hole: number | undefined
  let ended: ((command: string) => Outcome) | undefined

  const failure = (code: ClientErrorCode, message: string, command: string, cause?: unknown): Outcome =>
    ({ error: new CommandError(code, message, command, cause) })
  const unknownOutcome = (command: string): Outcome =>
    failure('OUTCOME_UNKNOWN', 'The session was lost before the answer came; the command may have run.', command)

  function start (
    item: Item, given: SendOptions, resolve: (payload: unknown) => void, reject: (error: CommandError) => void
  ): void {
    const { signal, timeoutMs = port.timeoutMs } = given
    let timer: unknown
    const cancel = (code: ClientErrorCode, message: string, cause?: unknown): void => {
      waiting.delete(item)
      item.settle?.(failure(code, message, item.command, cause))
    }
    const onAbort = (): void => cancel('ABORTED', 'The command was aborted.', signal?.reason)
    item.settle = ({ error, payload }) => {
      item.settle = undefined
      timing.clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
      if (error === undefined) resolve(payload)
      else reject(error)
    }
    if (ended !== undefined) return item.settle(ended(item.command))
    if (signal?.aborted === true) return onAbort()
    if (waiting.size >= port.maxQueue) return cancel('QUEUE_FULL', `${port.maxQueue} commands are waiting already.`)
    signal?.addEventListener('abort', onAbort)
    const onTimeout = (): void => cancel('TIMEOUT', `No answer within ${timeoutMs} ms.`)
    if (timeoutMs !== undefined) timer = timing.setTimeout(onTimeout, Math.min(timeoutMs, MAX_DELAY_MS))
    waiting.add(item)
  }

  function send (command: string, payload: unknown, options?: SendOptions): Promise<unknown> {
    const promise = new Promise<unknown>((resolve, reject) => {
      try {
        start(itemOf(0, command, bodyOf(command, payload)), options ?? {}, resolve, reject)
      } catch (cause) {
        const name = typeof command === 'string' ? command : ''
        reject(new CommandError('BAD_PAYLOAD', 'The command cannot be sent as JSON.', name, cause))
      }
    })
    promise.catch(() => {})
    flush()
    return promise
  }

  const itemOf = (id: number, command: string, body: string): Item =>
    ({ id, command, body, open: 0, strikes: 0, isSuspect: false, settle: undefined })

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

  const onTheirWay = (from = 0): Item[] => [...numbered.values()].filter(({ id, open }) => id >= from && open > 0)

  function flush (): void {
    if (hole !== undefined && onTheirWay(hole).length === 0) moveUp(hole)
    if (limits === undefined || hole !== undefined) return
    isSuspected &&= [...numbered.values(), ...waiting].some(item => item.isSuspect)
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
      const sending = isSuspected && onTheirWay()
      if (sending && sending.some(other => other.isSuspect || item.isSuspect)) break
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

  function settleAll (items: Iterable<Item>, outcomeOf: (command: string) => Outcome): void {
    for (const item of items) item.settle?.(outcomeOf(item.command))
  }

  function pause (): void {
    limits = undefined
    timers.disarm('commands')
  }

  /**
   * Numbers commands afresh from an id that the server has not accepted. Those that nobody waits
   * for any more fall out.
   */
  function moveUp (from: number): void {
    const moved = [...numbered.values()].filter(item => item.id >= from)
    for (const item of moved) numbered.delete(item.id)
    nextId = from
    for (const item of moved) if (item.settle !== undefined) numbered.set(item.id = nextId++, item)
    cursor = Math.min(cursor, from)
    hole = undefined
  }

  /**
   * Settles the command that the last connection was lost by, now that it is known what had been
   * accepted (P-49b, P-49c).
   */
  function judge (watermark: number): void {
    const suspects = onTheirWay(watermark + 1)
    const [first] = suspects
    const isFault = lossCode === 1009 || lossCode === 1007 || lossCode === 1002 || lossCode === BAD_FRAME_CODE
    if (first === undefined) return
    if (!isFault) {
      first.strikes = wasAnswered ? 0 : first.strikes + Number(lossCode < 4000 || lossCode === 4100)
      if (first.strikes < MAX_STRIKES) return
    }
    const give = (item: Item, code: ClientErrorCode): void =>
      item.settle?.(failure(code, `Connections are closed when it is sent (${lossCode}).`, item.command))
    if (lossCode === 1009) give(suspects.reduce((a, b) => a.body.length < b.body.length ? b : a), 'MESSAGE_TOO_LARGE')
    else if (!isFault || suspects.length === 1) give(first, lossCode === BAD_FRAME_CODE ? 'BAD_FRAME' : 'UNDELIVERABLE')
    else for (const item of suspects) isSuspected = item.isSuspect = true
  }

  return {
    send,
    flush,
    pause,
    isSending: () => onTheirWay().length > 0,
    open (given) {
      limits = given
      blockedUntil = 0
      wasAnswered = false
      flush()
    },
    lose (code) {
      // Of an attempt that failed there is nothing to say; what was sent before it was lost by
      // another connection.
      if (limits !== undefined) lossCode = code
      pause()
    },
    resume (watermark, isLossy) {
      judge(watermark)
      moveUp(watermark + 1)
      isDoubtful ||= isLossy
      // A duplicate is never executed, and is the way to ask for an answer that may have been
      // dropped (P-12).
      cursor = isDoubtful ? Math.min(watermark + 1, ...[...numbered.keys()].slice(0, 1)) : watermark + 1
      for (const item of numbered.values()) item.open = 0
      lossCode = Infinity
    },
    answer (id, frame) {
      const item = numbered.get(id)
      wasAnswered = true
      numbered.delete(id)
      item?.settle?.(outcomeOf(frame, item.command))
      return item !== undefined
    },
    refuse (id, retryAfterMs, expected = id) {
      const item = numbered.get(id)
      wasAnswered = true
      if (item === undefined || --item.open > 0) return true
      cursor = Math.min(cursor, expected)
      if (retryAfterMs > 0) blockedUntil = Math.max(blockedUntil, timing.now() + retryAfterMs)
      return numbered.has(expected)
    },
    reject (id, frame) {
      const item = numbered.get(id)
      wasAnswered = true
      if (item === undefined) return
      item.open--
      item.settle?.(outcomeOf(frame, item.command))
      hole = Math.min(hole ?? id, id)
    },
    renew (watermark = Infinity) {
      judge(watermark)
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
      hole = undefined
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
      const sent = [...numbered.values()]
      const unsent = [...waiting]
      numbered.clear()
      waiting.clear()
      settleAll(sent, code === 'DISPOSED' ? ended : unknownOutcome)
      settleAll(unsent, ended)
    },
    saved () {
      let chars = 0
      const items = [...numbered.values()].slice(0, MAX_SAVED_COMMANDS)
      return items
        .filter(({ body }) => (chars += body.length) <= MAX_SAVED_CHARS)
        .map(({ id, command, body, settle }) => ({ id, command, body, ...(settle === undefined && { isDropped: true }) }))
    },
    restore (commands) {
      const ours = [...numbered.values()]
      numbered.clear()
      isDoubtful = true
      for (const { id, command, body, isDropped } of commands) {
        let item = ours.find(other => other.id === id && other.body === body)
        if (item === undefined) {
          const orphan = item = itemOf(id, command, body)
          if (!isDropped) orphan.settle = outcome => { orphan.settle = undefined; port.orphan(id, command, outcome) }
        }
        item.open = 0
        numbered.set(id, item)
        nextId = cursor = id + 1
      }
      settleAll(ours.filter(item => numbered.get(item.id) !== item), unknownOutcome)
    }
  }
}
