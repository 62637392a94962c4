// Between the store and its client: every call has a deadline, calls never pile up, and each
// outcome says how the store is. A call whose deadline is over counts until its answer has come or
// its connection is gone, since until then it takes memory.

import type { Clock, Millis } from '../../io/types.js'
import { sentenceOf } from './faults.js'
import type { Argument, RedisPort, Reply, Scheduler } from './redis-port.js'
import { SCRIPTS, type ScriptName } from './scripts.js'

export interface GateOptions {
  readonly port: RedisPort
  readonly clock: Clock
  readonly scheduler: Scheduler
  readonly deadlineMs: Millis
  readonly maxCalls: number
  readonly maxBytes: number
  /** A call has failed; the sentence is for operators. */
  readonly failed: (error: Error) => void
  /** A write was carried out. */
  readonly kept: () => void
}

export interface Gate {
  /** The reply, or undefined where there is none: the call may have taken effect all the same. */
  call(name: ScriptName, keys: readonly string[], args: readonly Argument[]): Promise<Reply | undefined>
  /** Calls without an answer, and their bytes. */
  readonly pending: { readonly calls: number, readonly bytes: number }
  /** Calls that were refused because of the bounds. */
  readonly refused: number
  /** Resolves when nothing waits any more; the deadline of the calls bounds it. */
  close(): Promise<void>
}

interface Waiting {
  readonly since: Millis
  settle: ((reply: Reply | undefined) => void) | null
}

const CHECK = 'Check that it runs and is not overloaded.'
/** What a call costs beside its arguments. */
const CALL_BYTES = 200

export function createGate (options: GateOptions): Gate {
  const { port, clock, scheduler, deadlineMs, maxCalls, maxBytes, failed, kept } = options
  /** In the order of the calls, so the first is the first whose deadline is over. */
  const waiting: Waiting[] = []
  let first = 0
  /** Calls whose callers wait; fewer than `calls` where deadlines were over. */
  let open = 0
  let calls = 0
  let bytes = 0
  let refused = 0
  let cancelSweep: (() => void) | null = null
  let drained: (() => void) | null = null

  function settle (call: Waiting, reply: Reply | undefined): void {
    if (call.settle === null) return
    call.settle(reply)
    call.settle = null
    if (--open === 0) drained?.()
  }

  function sweep (): void {
    cancelSweep = null
    const now = clock.now()
    let late = 0
    for (; first < waiting.length; first++) {
      const call = waiting[first] as Waiting
      if (call.settle === null) continue
      if (now - call.since < deadlineMs) break
      settle(call, undefined)
      late++
    }
    if (late > 0) failed(new Error(`Redis has not answered within ${deadlineMs} ms. ${CHECK}`))
    waiting.splice(0, first)
    first = 0
    if (waiting.length > 0) cancelSweep = scheduler.after(deadlineMs / 8, sweep)
  }

  return {
    get pending () { return { calls, bytes } },
    get refused () { return refused },

    call (name, keys, args) {
      let size = CALL_BYTES
      for (const arg of args) size += arg.length
      if (calls >= maxCalls || (calls > 0 && bytes + size > maxBytes)) {
        refused++
        failed(new Error(`${calls} calls wait for Redis, and no more are sent. ${CHECK}`))
        return Promise.resolve(undefined)
      }
      calls++
      open++
      bytes += size
      const script = SCRIPTS[name]
      return new Promise(resolve => {
        const call: Waiting = { since: clock.now(), settle: resolve }
        waiting.push(call)
        cancelSweep ??= scheduler.after(deadlineMs / 8, sweep)
        port.run(script, keys, args).then(reply => {
          calls--
          bytes -= size
          if (script.writes) kept()
          settle(call, reply)
        }, (error: unknown) => {
          calls--
          bytes -= size
          failed(new Error(sentenceOf(error), { cause: error }))
          settle(call, undefined)
        })
      })
    },

    async close () {
      if (open > 0) await new Promise<void>(resolve => { drained = resolve })
      cancelSweep?.()
    }
  }
}
