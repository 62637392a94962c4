// docs/operations.md against the code: the option table both ways, the log messages, and names that
// are mentioned anywhere.

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
  const files = [
    'README.md',
    'SECURITY.md',
    'CONTRIBUTING.md',
    ...readdirSync(new URL('docs/', root)).filter(name => name.endsWith('.md')).map(name => `docs/${name}`)
  ]
  for (const file of files) {
    const unknown = [...read(file).matchAll(/\bHOLDFAST_[A-Z_]+\b/g)].map(([name]) => name).filter(
      name => !names.includes(name)
    )
    // An example of what Kubernetes puts there, and the bare prefix.
    t.same(unknown.filter(name => name !== 'HOLDFAST_PORT' && name !== 'HOLDFAST_'), [], file)
  }
})

t.test('error messages name no option that does not exist', async t => {
  for (const [code, { remedy }] of Object.entries(ERRORS)) {
    for (const [name] of remedy.matchAll(/\bHOLDFAST_[A-Z_]+\b/g)) t.ok(names.includes(name), `${code}: ${name}`)
  }
})

interface LogCall { level: string, message: string, fields: string }

/** Calls with a constant message; what goes through a helper of its own has none. */
function logCalls (): LogCall[] {
  const code = source('src') + source('plugins')
  return Array.from(
    code.matchAll(
      /\b(?:log|logger)\.(trace|debug|info|warn|error|fatal)\(\s*((?:(?!\blog\.)[^;\n])*?),\s*'([a-z][^'\n]*)'\s*\)/g
    ),
    ([, level, fields, message]) => ({ level: level as string, message: message as string, fields: fields as string })
  )
}

/** Level and messages of each row of the table. */
function logRows (): { level: string, message: string }[] {
  return operations.split('\n').filter(line => /^\| (debug|info|warn|error|fatal) \|/.test(line)).flatMap(row => {
    const [, level = '', messages = ''] = row.split('|')
    return Array.from(messages.matchAll(/`([^`]+)`/g), ([, message]) => ({
      level: level.trim(), message: message as string
    }))
  })
}

t.test('every log message that it lists is one of the code, at that level', async t => {
  const code = source('src') + source('plugins')
  const calls = logCalls()
  for (const { level, message } of logRows()) {
    t.ok(code.includes(`'${message}'`), message)
    const levels = calls.filter(call => call.message === message).map(call => call.level)
    if (levels.length > 0) t.ok(levels.includes(level), `${message}: ${level}`)
  }
})

t.test('every log message of the code is listed, with its level', async t => {
  const rows = logRows()
  const calls = logCalls()
  t.ok(calls.length > 25, `${calls.length} calls`)
  for (const { level, message } of calls) {
    t.ok(rows.some(row => row.level === level && row.message === message), `${level}: ${message}`)
  }
})

t.test('every field of a log line is listed, and every listed field is logged', async t => {
  const code = source('src').concat(source('plugins'))
  const objects = [
    ...logCalls().map(({ fields }) => fields),
    ...Array.from(code.matchAll(/const (?:fields|answer) = (\{[^}]*\})/g), ([, fields]) => fields as string),
    // By way of a helper that says the same thing once in a while.
    ...Array.from(code.matchAll(/\bwarn\((\{[^}]*\}),/g), ([, fields]) => fields as string),
    ...Array.from(code.matchAll(/log\.child\((\{[^}]*\})\)/g), ([, fields]) => fields as string)
  ]
  const logged = new Set(objects.flatMap(object => Array.from(
    object.matchAll(/(?:[{,])\s*(\w+)\s*(?=[:,}])/g),
    ([, name]) => name as string
  )))
  const inRows = /^\| `\w+`[^|]*\| (all|sessions|store|commands|errors|core|HTTP|operators|process)\b[^|]*\|/
  const listed = operations.split('\n')
    .filter(line => inRows.test(line))
    .flatMap(line => Array.from((line.split('|')[1] as string).matchAll(/`(\w+)`/g), ([, name]) => name as string))
  // Given by pino and Fastify, or handed to a helper that logs.
  const given = ['time', 'msg', 'reqId', 'key', 'reason']
  t.same([...logged].filter(name => !listed.includes(name)).sort(), [])
  t.same(listed.filter(name => !logged.has(name) && !given.includes(name)).sort(), [])
})

t.test('every code that it names is one of the table', async t => {
  for (const [, code] of operations.matchAll(/`([A-Z]+(?:_[A-Z]+)+)`/g)) {
    t.ok(
      Object.hasOwn(ERRORS, code as string) || names.includes(code as string) ||
        /^(NO_COLOR|HOLDFAST_.*)$/.test(code as string),
      String(code)
    )
  }
})

t.test('every section that it links to exists', async t => {
  const anchors = [...operations.matchAll(/^#+ (.+)$/gm)].map(([, title]) => (title as string).toLowerCase().replace(
    /[^\w\s-]/g, ''
  ).replaceAll(' ', '-'))
  for (const [, anchor] of operations.matchAll(/\]\(#([^)]+)\)/g)) {
    t.ok(anchors.includes(anchor as string), String(anchor))
  }
})
