// docs/architecture.md against the tree and the import rules of eslint.config.js: every module has
// a row, every row a module, and the two tables of imports know the same folders.

import { existsSync, readFileSync } from 'node:fs'
import t from 'tap'
import { tableUnder } from '../helpers/markdown.js'
import { readSources } from '../helpers/sources.js'

const doc = readFileSync('docs/architecture.md', 'utf8')
const eslint = readFileSync('eslint.config.js', 'utf8')
const files = readSources('src', 'plugins').map(({ path }) => path.replace(/\.ts$/, ''))

/** `io/session/manager`, or `calls` beside the one before it, as a pattern of a path. */
function modulesOf (cell: string): RegExp[] {
  let folder = ''
  return cell.split(', ').map(name => {
    if (name.includes('/')) folder = name.slice(0, name.lastIndexOf('/') + 1)
    const path = name.includes('/') ? name : folder + name
    const whole = path.startsWith('plugins/') ? path : `src/${path}`
    return new RegExp(`^${whole.replaceAll('*', '[^/]*')}$`)
  })
}

t.test('every module of the sources has a row, and every row a module', async t => {
  const patterns = tableUnder(doc, 'Modules').rows.flatMap(([cell = '']) => modulesOf(cell))
  t.same(
    files.filter(path => path.startsWith('src/') && !patterns.some(pattern => pattern.test(path))), [], 'without a row'
  )
  t.same(patterns.filter(pattern => !files.some(path => pattern.test(path))), [], 'without a module')
})

t.test('every folder that may import something exists, and has a rule', async t => {
  for (const [folder = ''] of tableUnder(doc, 'Who may import whom').rows) {
    for (const name of folder.split(', ')) {
      t.ok(existsSync(name) || existsSync(`${name}.ts`), name)
      if (name !== 'src/app' && name !== 'src/server') {
        t.ok(eslint.includes(`imports('${name}`), `eslint.config.js: ${name}`)
      }
    }
  }
})

t.test('every folder of the domain with a rule has a row', async t => {
  const rows = tableUnder(doc, 'Who may import whom').rows.flatMap(([folder = '']) => folder.split(', '))
  const ruled = [...eslint.matchAll(/imports\('(src\/io\/[\w-]+)/g)].map(([, folder]) => folder as string)
  t.same(ruled.filter(folder => !rows.includes(folder)), [])
})
