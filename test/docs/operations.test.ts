// docs/operations.md against the code: the option table both ways, the log messages, and names that are mentioned anywhere.

import { readFileSync, readdirSync } from 'node:fs'
import t from 'tap'
import { renderTable } from '../../src/config-help.js'
import { OPTION_KEYS, OPTIONS } from '../../src/config-options.js'
import { ERRORS } from '../../src/io/errors.js'

const root = new URL('../../', import.meta.url)
const read = (path: string) => readFileSync(new URL(path, root), 'utf8')
const operations = read('docs/operations.md')
const names = OPTION_KEYS.map(key => OPTIONS[key].env) as string[]

/** Every TypeScript file below a folder, in one text. */
function source (folder: string): string {
  return readdirSync(new URL(`${folder}/`, root), { recursive: true, encoding: 'utf8' })
    .filter(path => path.endsWith('.ts'))
    .map(path => read(`${folder}/${path}`))
    .join('\n')
}

t.test('the option table is the one of the code', async t => {
  const table = operations.split('\n').filter(line => /^\| (name|`(HOST|PORT|LOG_LEVEL|HOLDFAST_))/.test(line))
  const expected = renderTable().split('\n').filter(line => !line.startsWith('| ---'))
  t.same(table, expected)
})

t.test('documents name no option that does not exist', async t => {
  const files = ['README.md', 'SECURITY.md', 'CONTRIBUTING.md', ...readdirSync(new URL('docs/', root)).filter(name => name.endsWith('.md')).map(name => `docs/${name}`)]
  for (const file of files) {
    const unknown = [...read(file).matchAll(/\bHOLDFAST_[A-Z_]+\b/g)].map(([name]) => name).filter(name => !names.includes(name))
    // An example of what Kubernetes puts there, and the bare prefix.
    t.same(unknown.filter(name => name !== 'HOLDFAST_PORT' && name !== 'HOLDFAST_'), [], file)
  }
})

t.test('error messages name no option that does not exist', async t => {
  for (const [code, { remedy }] of Object.entries(ERRORS)) {
    for (const [name] of remedy.matchAll(/\bHOLDFAST_[A-Z_]+\b/g)) t.ok(names.includes(name), `${code}: ${name}`)
  }
})

t.test('every log message that it lists is one of the code', async t => {
  const code = source('src') + source('plugins')
  const rows = operations.split('\n').filter(line => /^\| (info|warn|error|fatal)[a-z, ]* \|/.test(line))
  t.ok(rows.length > 5)
  for (const row of rows) {
    for (const [, message] of (row.split('|')[2] as string).matchAll(/`([^`]+)`/g)) t.ok(code.includes(message as string) || message === 'request completed', String(message))
  }
})

t.test('every warning and error of the code is listed', async t => {
  const code = source('src') + source('plugins')
  for (const [, message] of code.matchAll(/\b(?:log|logger)\.(?:warn|error|fatal)\([^\n]*'([a-z][^']*)'\)/g)) t.ok(operations.includes(`\`${message}\``), String(message))
})

t.test('every code that it names is one of the table', async t => {
  for (const [, code] of operations.matchAll(/`([A-Z]+(?:_[A-Z]+)+)`/g)) {
    t.ok(Object.hasOwn(ERRORS, code as string) || names.includes(code as string) || /^(NO_COLOR|HOLDFAST_.*)$/.test(code as string), String(code))
  }
})

t.test('every section that it links to exists', async t => {
  const anchors = [...operations.matchAll(/^#+ (.+)$/gm)].map(([, title]) => (title as string).toLowerCase().replace(/[^\w\s-]/g, '').replaceAll(' ', '-'))
  for (const [, anchor] of operations.matchAll(/\]\(#([^)]+)\)/g)) t.ok(anchors.includes(anchor as string), String(anchor))
})
