// The Lua scripts, one file per atomic step, with lib.lua in front of each. They are called by
// their hash; a server that has not got one yet is sent its text (ioredis.ts).

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

export interface Script {
  readonly name: ScriptName
  readonly source: string
  /** SHA-1 of the source, as EVALSHA takes it. */
  readonly sha: string
  /** A success of it proves that the store keeps what it is given. */
  readonly writes: boolean
}

const WRITES = ['create', 'commit', 'release', 'claim', 'end', 'push', 'context', 'lease'] as const
const OTHERS = [
  'terminate', 'expire', 'orphan', 'inbox', 'touch', 'find', 'page', 'user', 'count', 'due', 'members', 'leave', 'meta'
] as const

export type ScriptName = typeof WRITES[number] | typeof OTHERS[number]

function read (name: string): string {
  return readFileSync(new URL(`./scripts/${name}.lua`, import.meta.url), 'utf8')
}

const lib = read('lib')

function load (name: ScriptName, writes: boolean): Script {
  const source = `${lib}\n${read(name)}`
  return { name, source, sha: createHash('sha1').update(source).digest('hex'), writes }
}

export const SCRIPTS = Object.fromEntries([
  ...WRITES.map(name => [name, load(name, true)]),
  ...OTHERS.map(name => [name, load(name, false)])
]) as Readonly<Record<ScriptName, Script>>
