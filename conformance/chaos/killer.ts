// Kills the server on the way of a chaos run, at equal parts of it: by what is answered and not by
// the clock, so that as many fit into a run of a quick machine. How that is done, and how it comes
// back, is a command of the one who runs it.

import { spawn } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'

const LOOK_MS = 20

/** One kill on the clock of `performance.now`: from its command's start to its end. */
export interface Kill { readonly from: number, readonly to: number }

export interface Killer {
  /** Resolves with the kills, when the last command is through. */
  stop(): Promise<readonly Kill[]>
}

/** `progress` goes from 0 to 1. */
export function startKiller (command: string, kills: number, progress: () => number): Killer {
  const stopping = new AbortController()

  async function run (): Promise<readonly Kill[]> {
    const done: Kill[] = []
    while (done.length < kills) {
      await delay(LOOK_MS)
      if (stopping.signal.aborted) break
      if (progress() < (done.length + 1) / (kills + 1)) continue
      const from = performance.now()
      await shell(command)
      done.push({ from, to: performance.now() })
    }
    return done
  }

  const running = run()
  return {
    stop () {
      stopping.abort()
      return running
    }
  }
}

function shell (command: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('/bin/sh', ['-c', command], { stdio: ['ignore', 'inherit', 'inherit'] })
    child.on('error', reject)
    child.on('exit', (code) => code === 0 ? resolve() : reject(new Error(`--kill-command ended with ${code}`)))
  })
}
