// Builds the server before a start from a checkout, if there is no build or the sources are newer.
// A package that was installed has its build and never runs this.

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const BUILT = join(root, 'dist/src/server.js')
const SOURCES = ['src', 'plugins', 'conformance', 'package.json', 'tsconfig.json', 'tsconfig.build.json']

/** Time of the last change below a path. */
function changedAt (path) {
  const { mtimeMs } = statSync(path)
  if (!statSync(path).isDirectory()) return mtimeMs
  return Math.max(mtimeMs, ...readdirSync(path).map(name => changedAt(join(path, name))))
}

function hasCompiler () {
  try {
    createRequire(import.meta.url).resolve('typescript/package.json')
    return true
  } catch {
    return false
  }
}

const builtAt = existsSync(BUILT) ? statSync(BUILT).mtimeMs : 0
// A folder that is not there, in an image made of parts of a checkout, is no reason to build.
const isCurrent = builtAt > Math.max(...SOURCES.map(name => join(root, name)).filter(existsSync).map(changedAt))

if (!isCurrent && hasCompiler()) {
  process.stderr.write('Building, since the sources are newer than the build.\n')
  const { status } = spawnSync('npm', ['run', '--silent', 'build'], {
    cwd: root, stdio: 'inherit', shell: process.platform === 'win32'
  })
  if (status !== 0) process.exit(status ?? 1)
} else if (builtAt === 0) {
  process.stderr.write('There is no build (dist), and TypeScript, which makes it, is not installed here.\n' +
    'Run `npm ci && npm run build` with the development dependencies, then `npm prune --omit=dev`; or install the ' +
    'package, which has its build.\n')
  process.exit(1)
}
