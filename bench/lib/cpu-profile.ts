// Takes a V8 CPU profile of a server under load and sums the time that each function spent itself,
// without those it called.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Context } from './context.js'
import type { Server } from './servers.js'
import type { Turn } from './turns.js'

interface CallFrame {
  functionName: string
  url: string
  lineNumber: number
}

interface CpuProfile {
  nodes: Array<{ id: number, callFrame: CallFrame }>
  samples: number[]
  /** Microseconds before each sample. */
  timeDeltas: number[]
}

interface SelfTime {
  /** Function, file and line; `(program)` is native code outside JavaScript. */
  where: string
  /** Part of the time in which the process was busy with its own work. */
  share: number
}

/** Waiting, and the profiler's own work at its start and end. */
const NOT_COUNTED = new Set(['(idle)', 'dispatch'])

function whereOf ({ functionName, url, lineNumber }: CallFrame): string {
  const name = functionName === '' ? '(anonymous)' : functionName
  if (url === '') return name
  const file = url.replace(/^.*\/node_modules\//, '').replace(/^.*\/dist\//, '')
  return `${name} ${file}:${lineNumber + 1}`
}

/** The functions with the most self time, at most `count`. */
function selfTimes (file: string, count: number): SelfTime[] {
  const profile: CpuProfile = JSON.parse(readFileSync(file, 'utf8'))
  const names = new Map(profile.nodes.map(({ id, callFrame }) => [id, whereOf(callFrame)]))
  const spentUs = new Map<string, number>()
  let totalUs = 0
  profile.samples.forEach((id, i) => {
    const where = names.get(id)
    const deltaUs = profile.timeDeltas[i]
    if (where === undefined || deltaUs === undefined || NOT_COUNTED.has(where)) return
    spentUs.set(where, (spentUs.get(where) ?? 0) + deltaUs)
    totalUs += deltaUs
  })
  return [...spentUs]
    .sort(([, a], [, b]) => b - a)
    .slice(0, count)
    .map(([where, us]) => ({ where, share: us / totalUs }))
}

const TURNS = 4
const LINES = 25

/**
 * Profiles some turns and tells the hottest functions; does nothing unless a folder for profiles
 * was asked for.
 */
export async function profileTurns (
  load: string, server: Server, turn: Turn, { profileDir, say }: Context
): Promise<void> {
  if (profileDir === undefined) return
  const file = join(profileDir, `${load}-${server.kind.name}.cpuprofile`)
  await server.startProfile()
  for (let i = 0; i < TURNS; i++) await turn()
  await server.stopProfile(file)
  say(`self time of ${server.kind.name} under ${load} (${file})`)
  for (const { share, where } of selfTimes(file, LINES)) say(`${(share * 100).toFixed(1).padStart(6)} %  ${where}`)
  say('')
}
