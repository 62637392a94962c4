// Every load, in the order of docs/performance.md.

import type { Load } from '../lib/context.js'
import { connectLoad } from './connect.js'
import { echoLoads } from './echo.js'
import { idleLoads } from './idle.js'
import { interferenceLoads } from './interference.js'
import { pushLoad } from './push.js'
import { resumeLoads } from './resume.js'

export const LOADS: readonly Load[] = [
  ...echoLoads, pushLoad, connectLoad, ...idleLoads, ...resumeLoads, ...interferenceLoads
]
