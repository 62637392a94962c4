// What npm would publish, as a stranger meets it: packed, installed into an empty project beside
// Fastify, type-checked without skipLibCheck by three compilers in two ways of finding modules,
// imported, and started; then once more as strict as it gets: each package sees its own
// dependencies alone, and the Node.js that each asks for is enforced. Needs a build and, for the
// packages, a registry or npm's cache.

import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const { version, devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const COMPILERS = { ts5: 'npm:typescript@~5.9.3', ts6: 'npm:typescript@~6.0.3', ts7: 'npm:typescript@~7.0.2' }
const RESOLUTIONS = { bundler: 'esnext', nodenext: 'nodenext' }

/**
 * The packages that may have a script that runs at an installation; docs/operations.md says what to
 * answer npm.
 */
const INSTALL_SCRIPTS = ['classic-level']

const PROJECTS = [['consumer.ts', 'desk.ts', 'desk-client.ts', 'desk-types.ts'], ['minimal.ts']]

const folder = mkdtempSync(join(tmpdir(), 'holdfast-package-'))
const run = (command, args, options = {}) => execFileSync(command, args, {
  cwd: folder,
  encoding: 'utf8',
  stdio: ['ignore', 'pipe', 'pipe'],
  ...options
})

/** The block of the README with that text. */
function readmeBlock (text) {
  const blocks = readFileSync(join(root, 'README.md'), 'utf8').matchAll(/^```js\n([\s\S]*?)^```$/gm)
  return [...blocks].map(([, code]) => code).find(code => code.includes(text)) ??
    `throw new Error('README.md has no block with ${text}')`
}

/**
 * What operations.md tells a project to add so that `engine-strict` passes on the oldest Node.js.
 */
function documentedOverrides () {
  const [, json] = /^"overrides": (\{.*\})$/m.exec(readFileSync(join(root, 'docs/operations.md'), 'utf8'))
  return JSON.parse(json)
}

/** Runs one step and says how it went; a failing one shows what it printed. */
function step (name, act) {
  try {
    act()
    console.log(`ok   ${name}`)
  } catch (error) {
    process.exitCode = 1
    console.log(
      `FAIL ${name}\n${error.stdout ?? ''}${error.stderr ?? ''}${error.stdout === undefined ? error.stack : ''}`
    )
  }
}

function imports () {
  step('gives what its exports say, and nothing else', () => run('node', ['exports.js']))
}

function answers () {
  step('answers on the command line', () => {
    const printed = run('npx', ['--no-install', 'holdfast', '--version']).trim()
    if (printed !== version) throw new Error(`holdfast --version printed ${printed}`)
    const usage = run('npx', ['--no-install', 'holdfast-conformance', '--help'])
    if (!usage.startsWith('usage: holdfast-conformance ')) {
      throw new Error(`holdfast-conformance --help printed ${usage}`)
    }
  })
}

/** A server whose log goes to a pipe, as under every supervisor. */
async function starts () {
  const server = spawn(join(folder, 'node_modules/.bin/holdfast'), { cwd: folder, env: { ...process.env, PORT: '0' } })
  const closed = once(server, 'close')
  const stop = setTimeout(() => server.kill(), 30_000)
  let printed = ''
  const read = text => {
    printed += text
    if (printed.includes('Server listening')) server.kill()
  }
  server.stdout.on('data', read)
  server.stderr.on('data', read)
  await closed
  clearTimeout(stop)
  step('starts', () => {
    if (!printed.includes('Server listening')) throw new Error(`the server printed ${printed}`)
  })
}

try {
  const tarball = join(folder, `holdfast-${version}.tgz`)
  run('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', folder], { cwd: root })
  cpSync(join(root, 'scripts/consumer'), folder, { recursive: true })
  // What the README shows is TypeScript as it stands.
  writeFileSync(join(folder, 'desk.ts'), readmeBlock('// desk.mjs'))
  writeFileSync(join(folder, 'desk-client.ts'), readmeBlock('holdfast/client'))
  writeFileSync(join(folder, 'package.json'), JSON.stringify({
    name: 'consumer',
    private: true,
    type: 'module',
    dependencies: { holdfast: `file:${tarball}`, fastify: devDependencies.fastify, typebox: '^1.4.3' },
    devDependencies: {
      '@types/node': devDependencies['@types/node'],
      '@types/ws': devDependencies['@types/ws'],
      ...COMPILERS
    },
    overrides: documentedOverrides()
  }))
  step(`installs, and has no install script but that of ${INSTALL_SCRIPTS.join()}`, () => {
    // npm warns on stderr.
    const args = ['install', '--no-audit', '--no-fund', '--prefer-offline']
    const { status, stdout, stderr } = spawnSync('npm', args, { cwd: folder, encoding: 'utf8' })
    const printed = stdout + stderr
    if (status !== 0) throw new Error(`npm install exited with ${status}:\n${printed}`)
    const warned = [...printed.matchAll(/^npm warn install-scripts +(\S+)@\S+ \(/gm)].map(([, name]) => name)
    // An npm that does not warn of them still notes them.
    const read = path => JSON.parse(readFileSync(join(folder, 'node_modules', path), 'utf8'))
    const { packages } = read('.package-lock.json')
    const noted = Object.keys(packages).filter(path => packages[path].hasInstallScript)
      .map(path => path.slice('node_modules/'.length))
    const own = Object.keys(read('holdfast/package.json').scripts)
      .filter(name => /^(pre|post)?(install|prepare)$/.test(name))
    if (own.length > 0) throw new Error(`scripts of holdfast that run at an installation: ${own.join(', ')}`)
    const others = [...warned, ...noted].filter(name => !INSTALL_SCRIPTS.includes(name))
    if (others.length > 0) throw new Error(`install scripts: ${others.join(', ')}\n${printed}`)
    const missing = INSTALL_SCRIPTS.filter(name => !noted.includes(name))
    if (missing.length > 0) {
      throw new Error(`docs/operations.md names ${missing.join(', ')}, without an install script now`)
    }
  })
  for (const [resolution, module] of Object.entries(RESOLUTIONS)) {
    for (const [compiler, range] of Object.entries(COMPILERS)) {
      // Each on its own: what one project imports must not be what makes another one compile.
      for (const files of PROJECTS) {
        step(`${files[0]} type-checks with ${range.slice('npm:'.length)}, ${resolution}`, () => run('node', [
          `node_modules/${compiler}/bin/tsc`, '--noEmit', '--strict', '--exactOptionalPropertyTypes', '--target',
          'es2022',
          '--lib', 'es2023,dom', '--types', 'node', '--module', module, '--moduleResolution', resolution, ...files
        ]))
      }
    }
  }
  imports()
  answers()
  await starts()
  step('installs with npm ci, engine-strict and no dependency but its own', () => run('npm', [
    'ci', '--engine-strict', '--install-strategy=linked', '--omit=dev', '--no-audit', '--no-fund', '--prefer-offline'
  ]))
  imports()
  answers()
  await starts()
} finally {
  rmSync(folder, { recursive: true, force: true })
}
