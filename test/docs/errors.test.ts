// docs/errors.md is held to src/io/errors.ts, both ways and word for word.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { ERRORS, type ErrorCode } from '../../src/io/errors.js'
import { readSources } from '../helpers/sources.js'
import { readTables } from '../helpers/markdown.js'

const doc = readFileSync('docs/errors.md', 'utf8')
const rows = readTables(doc).filter(({ header }) => header[0] === 'code').flatMap(({ rows }) => rows)

t.test('every error is documented once, with its meaning, status, retry and remedy, and nothing else is', async t => {
  t.same(rows.map(([code]) => code), Object.keys(ERRORS))
  for (const [code = '', meaning, status, retry, remedy] of rows) {
    const row = ERRORS[code as ErrorCode]
    t.same(
      { meaning, status, retry, remedy },
      { meaning: row.message, status: String(row.status), retry: row.retry, remedy: row.remedy.replaceAll('`', '') },
      code
    )
  }
})

t.test('codes that the document mentions in its text exist', async t => {
  const mentioned = [...doc.matchAll(/`([A-Z]+_[A-Z_]+)`/g)].map(([, code]) => code as string).filter(
    code => !code.startsWith('HOLDFAST_')
  )
  for (const code of mentioned) t.ok(code in ERRORS, code)
})

t.test('every error is thrown or answered somewhere', async t => {
  const sources = readSources('src', 'plugins')
    .filter(({ path }) => path !== 'src/io/errors.ts')
    .map(({ text }) => text)
    .join('\n')
  for (const code of Object.keys(ERRORS)) t.ok(sources.includes(`'${code}'`), code)
})
