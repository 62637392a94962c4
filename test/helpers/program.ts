// A program as a child process that ends with its test, and what it has printed so far.

import { spawn, type ChildProcess } from 'node:child_process'
import type { Test } from 'tap'
import { eventually } from './server.js'

const START_MS = 60_000

export interface Program {
  readonly child: ChildProcess
  readonly output: () => string
  /** Resolves when the probe does; rejects with what was printed if the program ends before. */
  until (what: string, probe: () => boolean | Promise<boolean>): Promise<void>
  readonly exit: Promise<{ code: number | null, signal: NodeJS.Signals | null }>
}

export function spawnProgram (
  t: Test,
  command: string,
  args: readonly string[],
  { stdin = 'ignore', ...options }: { cwd?: string, env?: NodeJS.ProcessEnv, stdin?: 'ignore' | 'pipe' } = {}
): Program {
  const child = spawn(command, args, { ...options, stdio: [stdin, 'pipe', 'pipe'] })
  let printed = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (data: string) => { printed += data })
  }
  const exit = new Promise<{ code: number | null, signal: NodeJS.Signals | null }>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code, signal) => { resolve({ code, signal }) })
  })
  t.teardown(async () => {
    child.kill('SIGKILL')
    await exit
  })
  async function until (what: string, probe: () => boolean | Promise<boolean>): Promise<void> {
    await eventually(what, async () => {
      if (child.exitCode !== null) throw new Error(`${command} ended without "${what}":\n${printed}`)
      return await probe()
    }, START_MS).catch((error: unknown) => { throw new Error(`${String(error)}\n${printed}`) })
  }
  return { child, output: () => printed, until, exit }
}
