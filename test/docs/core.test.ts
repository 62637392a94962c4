// docs/core.md against the code: each row of its tables of answers and times is provoked, its
// example of a request is what is sent, its SQL is the recipe that the Python example runs.

import { readFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import t from 'tap'
import { OPTIONS } from '../../src/config-options.js'
import type { HttpCoreOptions } from '../../src/cores/http.js'
import { ERRORS } from '../../src/io/errors.js'
import { codeOf, command, connect, json, startCore, unusedUrl } from '../cores/fake-core.js'
import { readBlocks, readTables, tableUnder } from '../helpers/markdown.js'

const doc = readFileSync('docs/core.md', 'utf8')
const python = readFileSync('examples/http-core/core.py', 'utf8')

type Behaviour = (response: ServerResponse) => void
const status = (code: number, body = '', headers: Record<string, string> = {}): Behaviour => response => {
  response.writeHead(code, headers).end(body)
}
const later = { 'retry-after': '1' }

/** How a core behaves that does what the first cell says, in one or more ways. */
const ROWS: Record<string, Behaviour[] | 'nobody'> = {
  '2xx': [status(200, '{"payload":1}'), status(201, '{}'), status(202), status(204), status(299, 'null')],
  '2xx with a body that is not as below': [status(200, 'OK'), status(202, 'Accepted'), status(200, '[]')],
  '2xx with a body larger than HOLDFAST_OUTBOX_BYTES or 1 MiB': [
    status(200, JSON.stringify({ payload: 'x'.repeat(70_000) }))
  ],
  '4xx with {code, message}': [
    status(404, '{"code":"ITS_OWN","message":"No."}'), status(429, '{"code":"ITS_OWN","message":"No."}')
  ],
  '4xx without them': [status(400), status(404, '<html>'), status(408), status(409, '{}'), status(429)],
  '429 with Retry-After': [status(429, '', later)],
  '503 with Retry-After': [status(503, '', later)],
  '503 without it, or another 5xx': [
    status(500), status(501), status(502), status(503), status(504), status(500, '', later)
  ],
  '3xx': [301, 302, 303, 304, 307, 308].map(code => status(code, '', { location: '/' })),
  'nothing: no connection could be made': 'nobody',
  'nothing: the connection broke': [
    response => { response.socket?.resetAndDestroy() },
    response => { response.socket?.end() }
  ],
  'half an answer': [
    response => { response.writeHead(200, { 'content-length': '9' }).write('{', () => response.destroy()) }
  ],
  'nothing for HOLDFAST_CORE_TIMEOUT_SECONDS': [() => {}]
}

t.test('every row of the answers is what happens', async t => {
  const { rows } = tableUnder(doc, 'Answers')
  t.same(rows.map(([says]) => says), Object.keys(ROWS))
  for (const [says = '', answered = '', again] of rows) {
    const behaviours = ROWS[says] as Behaviour[] | 'nobody'
    for (const [at, behave] of (behaviours === 'nobody' ? [undefined] : behaviours).entries()) {
      for (const idempotent of [false, true]) {
        await t.test(`${says} (${at}${idempotent ? ', idempotent' : ''})`, async t => {
          const fake = await startCore(t, (_, response) => behave?.(response))
          const timeoutMs = says.startsWith('nothing for') ? 1000 : 30_000
          const options: Partial<HttpCoreOptions> = { timeoutMs, idempotent }
          const { core, pauses } = connect(t, behave === undefined ? await unusedUrl() : fake.url, options)
          const outcome = await codeOf(core, command({ timeoutMs: 1500 }))
          const code = typeof outcome === 'string' ? outcome : 'result'
          const told = /\b([A-Z]+_[A-Z_]+|result)\b/.exec(answered)?.[1] ?? 'ITS_OWN'
          t.equal(code, told)
          const repeated = pauses.length > 0
          t.equal(repeated, again === 'always' || (again === 'if idempotent' && idempotent), `${pauses.length} repeats`)
        })
      }
    }
  }
})

t.test('codes of the answers, and what they say about execution, are those of the errors', async t => {
  const rows = readTables(doc).find(({ header }) => header[1] === 'it was executed')?.rows ?? []
  t.equal(rows.length, 3)
  for (const [codes = ''] of rows) for (const [code] of codes.matchAll(/\w+/g)) t.ok(code in ERRORS, code)
})

t.test('the example of a request is what is sent', async t => {
  const { url, calls } = await startCore(t, (_, response) => json(response, 200, {}))
  const { core } = connect(t, url)
  const [example = ''] = readBlocks(doc, 'http')
  const body = JSON.parse(example.slice(example.indexOf('{')))
  const { session, ...data } = body.data
  await core.execute(command({ ...data, session, key: 'c30eff02.b1f6a0c2.7' }))
  t.same(calls[0]?.body.data, body.data)
  t.same(Object.keys(calls[0]?.body), Object.keys(body))
  for (const [, name = ''] of example.matchAll(/^([\w-]+): /gm)) t.ok(name in (calls[0]?.headers ?? {}), name)
})

t.test('its example of an answer is one', async t => {
  const [answer = ''] = readBlocks(doc, 'json')
  const { url } = await startCore(t, (_, response) => { response.writeHead(200).end(answer) })
  t.same(await connect(t, url).core.execute(command()), JSON.parse(answer))
})

t.test('the recipe in SQL is the one that the Python example runs', async t => {
  const plain = (sql: string): string => sql.replace(/\s+/g, ' ').replace(/\( /g, '(').replace(/ \)/g, ')')
  const [create = '', ...steps] = readBlocks(doc.replace(/^ {3}/gm, ''), 'sql').map(plain)
  t.equal(steps.length, 4)
  const text = plain(python)
  t.ok(text.includes(create.replace('CREATE TABLE', 'CREATE TABLE IF NOT EXISTS').replace(/;\s*$/, '')), create)
  for (const step of steps) t.ok(text.includes(step.replace(/;\s*$/, '')), step)
})

t.test('times and options that it names are those of the code', async t => {
  const names = Object.values(OPTIONS).map(({ env }) => env) as string[]
  for (const [name] of doc.matchAll(/HOLDFAST_\w+/g)) t.ok(names.includes(name), name)
  t.match(doc, `\`HOLDFAST_CORE_TIMEOUT_SECONDS\`, ${OPTIONS.coreTimeoutSeconds.default} s`)
  t.match(doc, `\`HOLDFAST_COMMAND_TIMEOUT_SECONDS\`, ${OPTIONS.commandTimeoutSeconds.default} s`)
})
