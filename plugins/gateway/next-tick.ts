// Keeps `process.nextTick` as fast as it starts. V8 remembers the hidden class of the object that
// Node makes for each tick, and lets go of it in a full garbage collection that finds no tick
// alive, as in an idle server; from then on each tick costs 300 ns instead of 55, for the rest of
// the process, and a round trip has two or three. So one object of that class is kept alive. Of
// Node's internals it uses two symbols that any AsyncResource shows; should they change, it is a
// small object without effect.

import { AsyncResource } from 'node:async_hooks'

let kept: object | undefined

/** Once for the process; further calls do nothing. Returns what is kept. */
export function keepNextTickFast (): object {
  if (kept !== undefined) return kept
  const [asyncId, triggerAsyncId] = Object.getOwnPropertySymbols(new AsyncResource('HOLDFAST')) as [symbol, symbol]
  // The same literal as in Node's lib/internal/process/task_queues.js: the order of its members
  // makes the class.
  kept = { [asyncId]: 0, [triggerAsyncId]: 0, callback: keepNextTickFast, args: undefined }
  return kept
}
