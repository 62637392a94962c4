// The project's own sources, for tests that hold documents and code to each other.

import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

export interface Source { readonly path: string, readonly text: string }

/** Every TypeScript file under these folders. */
export function readSources (...folders: string[]): Source[] {
  return folders.flatMap(folder => readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith('.ts'))
    .sort()
    .map(name => ({ path: join(folder, name), text: readFileSync(join(folder, name), 'utf8') })))
}
