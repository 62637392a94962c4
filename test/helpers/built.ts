// Where the built server is, for tests that run it. Without a build they would wait for a server
// that never comes, each until its time limit; so the first one that asks says what is missing.

import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** Path of a built file. */
export function built (path: string): string {
  const file = fileURLToPath(new URL(`../../dist/${path}`, import.meta.url))
  if (!existsSync(file)) throw new Error(`dist/${path} is missing: run \`npm run build\` first`)
  return file
}
