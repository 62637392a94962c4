// Keeps server and generator on different cores, so that neither pays for the other's wake-ups.

import { spawnSync } from 'node:child_process'
import { cpus } from 'node:os'

export const SERVER_CPU = 0
export const GENERATOR_CPU = 1

/**
 * Binds all threads of a process to one core. Does nothing where taskset is missing or there is one
 * core only.
 */
export function pin (pid: number, cpu: number): boolean {
  // Not availableParallelism: that counts the cores this process may use, which is one as soon as
  // it is pinned itself.
  if (cpus().length < 2) return false
  return spawnSync('taskset', ['-acp', String(cpu), String(pid)], { stdio: 'ignore' }).status === 0
}
