// Kills the server every now and then while a chaos run goes on. How that is done, and how it comes
// back, is a command of the one who runs it.

import { spawn } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'

/** Between the end of a command and the next kill: time for clients to come back and go on. */
const PAUSE_MS = 700

/** One kill on the clock of `performance.now`: from its command's start to its end. */
export interface Kill { readonly from: number, readonly to: number }

export interface Killer {
  /** Resolves with the kills, when the last command is through. */
  stop(): Promise<readonly Kill[]>
}

export function startKiller (command: string, kills: number): Killer {
  const stopping = new AbortController()

  async function run (): Promise<readonly Kill[]> {
    const done: Kill[] = []
    while (done.length < kills) {
      await delay(PAUSE_MS)
      if (stopping.signal.aborted) break
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
