// The one place that reads the process's clocks; everything else is handed a Clock (types.ts).

import { performance } from 'node:perf_hooks'
import type { Clock } from './io/types.js'

export const systemClock: Clock = {
  now: () => performance.now(),
  wall: Date.now
}
