// The commands of one session that are accepted and not yet answered: which run, which wait, and in
// what order they may start (P-17, P-18). Made for the first command whose handler does not answer
// at once; a session of synchronous commands never has one.
//
// Invariants: commands start in order of arrival; a serial one runs alone; every call settles once,
// and what comes after is dropped.

import type { CallState } from '../session/record.js'
import type { WheelItem } from '../session/timing-wheel.js'
import type { Millis } from '../types.js'

/** One accepted command. */
export interface Call extends WheelItem {
  /** Numbered id, or 0. */
  readonly number: number
  readonly serial: boolean
  /** It may be executed again after its node has died. */
  readonly idempotent: boolean
  /** Its handler was called. */
  readonly hasBegun: boolean
  readonly deadlineAt: Millis
  /** Starts the handler. May settle the call before it returns. */
  start(): void
  /** Its time is over: it is answered COMMAND_TIMEOUT. */
  expire(): void
  /** The session is gone: nobody waits for the answer. */
  abandon(): void
}

export interface SessionCalls extends CallState {
  /** Calls that wait for the store to have recorded them. */
  recording: number
  /** Starts the call, or queues it behind those it has to wait for. */
  submit(call: Call): void
  /** Takes in a call whose handler is running already: it was the only one and gave a promise. */
  adopt(call: Call): void
  /** The call was answered: starts what waited for it. */
  settled(call: Call): void
}

export function createSessionCalls (): SessionCalls {
  const running = new Set<Call>()
  const waiting: Call[] = []

  function mayStart (call: Call): boolean {
    if (running.size === 0) return true
    // A serial one runs alone, so the first one running tells.
    const [first] = running
    return !call.serial && first?.serial === false
  }

  function start (call: Call): void {
    running.add(call)
    call.start()
  }

  return {
    recording: 0,
    get inFlight () { return running.size + waiting.length },

    isRunning (id) {
      for (const call of running) if (call.number === id) return true
      return waiting.some(call => call.number === id)
    },

    open (isOver) {
      const calls = [...running, ...waiting].filter(call => call.number > 0)
      return calls.map(({ number: id, idempotent, hasBegun }) => {
        return { id, idempotent: idempotent || (isOver && !hasBegun) }
      })
    },

    submit (call) {
      if (waiting.length === 0 && mayStart(call)) start(call)
      else waiting.push(call)
    },

    adopt (call) {
      running.add(call)
    },

    settled (call) {
      if (!running.delete(call)) {
        // It timed out while it waited, and never ran; or it was abandoned, and is in neither.
        const at = waiting.indexOf(call)
        if (at !== -1) waiting.splice(at, 1)
      }
      while (waiting[0] !== undefined && mayStart(waiting[0])) start(waiting.shift() as Call)
    },

    abandon () {
      const all = [...running, ...waiting]
      running.clear()
      waiting.length = 0
      for (const call of all) call.abandon()
    }
  }
}
