// Loaded into every measured server with `--import`, so that the server itself is not changed:
// answers questions about its own process over the IPC channel. Needs --expose-gc.

import { writeFile } from 'node:fs/promises'
import { Session } from 'node:inspector/promises'

export type ProbeQuestion =
  | { probe: 'cpu' }
  | { probe: 'memory' }
  | { probe: 'profileStart' }
  | { probe: 'profileStop', file: string }

export interface CpuAnswer {
  /** CPU time of the process since its start, user and system, all threads. */
  cpuUs: number
}

export interface MemoryAnswer {
  heapUsedBytes: number
  externalBytes: number
  rssBytes: number
}

let profiler: Session | undefined

async function answer (question: ProbeQuestion): Promise<object> {
  switch (question.probe) {
    case 'cpu': {
      const { user, system } = process.cpuUsage()
      return { cpuUs: user + system } satisfies CpuAnswer
    }
    case 'memory': {
      // Twice: finalizers of the first pass free what the second collects.
      globalThis.gc?.()
      globalThis.gc?.()
      const { heapUsed, external, rss } = process.memoryUsage()
      return { heapUsedBytes: heapUsed, externalBytes: external, rssBytes: rss } satisfies MemoryAnswer
    }
    case 'profileStart':
      profiler = new Session()
      profiler.connect()
      await profiler.post('Profiler.enable')
      await profiler.post('Profiler.setSamplingInterval', { interval: 200 })
      await profiler.post('Profiler.start')
      return {}
    case 'profileStop': {
      if (profiler === undefined) throw new Error('no profile was started')
      const { profile } = await profiler.post('Profiler.stop')
      profiler.disconnect()
      profiler = undefined
      await writeFile(question.file, JSON.stringify(profile))
      return {}
    }
  }
}

// A server whose measurer is gone has no purpose; it would keep its core busy for the next run.
process.on('disconnect', () => process.exit())

async function respond (question: ProbeQuestion): Promise<void> {
  process.send?.({ probe: question.probe, ...await answer(question) })
}

process.on('message', (question: ProbeQuestion) => {
  if (question?.probe !== undefined) void respond(question)
})
