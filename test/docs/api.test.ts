// docs/api.md is held to the server: routes, parameters, members, metrics, plugins; and every curl
// line is run.

import { readFileSync, readdirSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { Registry } from 'prom-client'
import t from 'tap'
import { OPTIONS } from '../../src/config-options.js'
import { OPTION_OF_LIMIT } from '../../src/limits.js'
import { buildTestApp } from '../helpers/app.js'
import { readBlocks, readHeadings, readTables, tableUnder } from '../helpers/markdown.js'
import { buildRestApp } from '../helpers/rest.js'
import { connectFull } from '../helpers/socket.js'

const doc = readFileSync('docs/api.md', 'utf8')
interface Description {
  paths: Record<string, Record<string, { parameters?: Array<{ name: string, in: string }> }>>
  components: { schemas: Record<string, { properties: Record<string, { enum?: string[] }> }> }
}

async function describe (app: FastifyInstance): Promise<Description> {
  return (await app.inject('/openapi.json')).json()
}

const isRoute = (heading: string): boolean => /^(GET|POST|DELETE|PUT|PATCH) \//.test(heading)

t.test('every route of the server is documented, and every documented route exists', async t => {
  const { paths } = await describe(await buildTestApp(t))
  const routes = Object.entries(paths).flatMap(([path, methods]) => Object.keys(methods).map(
    method => `${method.toUpperCase()} ${path.replace(/\{(\w+)\}/g, ':$1')}`
  ))
  t.same(readHeadings(doc).filter(isRoute).sort(), routes.sort())
})

t.test('every parameter of the list is documented, and nothing else', async t => {
  const { paths } = await describe(await buildTestApp(t))
  const parameters = paths['/sessions']?.get?.parameters?.filter(parameter => parameter.in === 'query').map(
    ({ name }) => name
  ) ?? []
  t.same(namesIn(tableUnder(doc, 'GET /sessions').rows).sort(), parameters.sort())
})

t.test('parameters of the other routes are mentioned with them', async t => {
  const { paths } = await describe(await buildTestApp(t))
  const sections = new Map(doc.split(/^### /m).map(section => [
    section.slice(0, section.indexOf('\n')).replaceAll('`', ''), section
  ]))
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, { parameters = [] }] of Object.entries(methods)) {
      const heading = `${method.toUpperCase()} ${path.replace(/\{(\w+)\}/g, ':$1')}`
      for (const { name } of parameters.filter(parameter => parameter.in === 'query')) {
        t.match(sections.get(heading), `\`${name}\``, `${heading}: ${name}`)
      }
    }
  }
})

t.test('every member of a session is documented, and nothing else', async t => {
  const { components } = await describe(await buildTestApp(t))
  t.same(
    namesIn(tableUnder(doc, 'A session').rows).sort(), Object.keys(components.schemas.Session?.properties ?? {}).sort()
  )
  const example = JSON.parse(readBlocks(doc, 'json')[0] as string)
  t.same(Object.keys(example).sort(), Object.keys(components.schemas.Session?.properties ?? {}).sort())
})

t.test('every reason for an end is documented, and nothing else', async t => {
  const app = await buildTestApp(t)
  const { components } = await describe(app)
  const documented = namesIn(tableUnder(doc, 'GET /sessions/:id').rows)
  t.same(documented, components.schemas.EndedError?.properties.reason?.enum)
  t.same([...documented].sort(), Object.keys(app.sessionManager.totals.ended).sort())
})

t.test('every metric is documented with its type and labels, and nothing else', async t => {
  const registry = new Registry()
  const app = await buildRestApp(t, { metrics: { registry } })
  app.sessionManager.createSession('alice')
  const text = await registry.metrics()
  const types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, type]) => [
    name as string, type as string
  ]))
  const { rows } = tableUnder(doc, 'Metrics')
  t.same(
    rows.map(([name, type]) => `${name} ${type}`).sort(), [...types].map(([name, type]) => `${name} ${type}`).sort()
  )
  for (const metric of registry.getMetricsAsArray()) {
    const { name } = metric
    const declared = (metric as unknown as { labelNames?: string[] }).labelNames ?? labelsIn(text, name)
    t.same(splitNames(rows.find(row => row[0] === name)?.[2] ?? '').sort(), [...declared].sort(), name)
  }
})

t.test('every plugin is documented with what it needs, and nothing else', async t => {
  const { rows } = tableUnder(doc, 'Plugins')
  const files = readdirSync('plugins').filter(name => name.endsWith('.ts')).map(name => name.slice(0, -'.ts'.length))
  t.same(rows.map(([name]) => name as string).sort(), files.sort())
  for (const [name = '', needs = ''] of rows) {
    const { default: plugin } = await import(`../../plugins/${name}.js`)
    const meta = plugin[Symbol.for('plugin-meta')]
    t.equal(meta.name, `holdfast/${name}`)
    t.same(splitNames(needs).map(need => `holdfast/${need}`).sort(), [...meta.dependencies ?? []].sort(), name)
  }
})

t.test('every limit of a plugin is documented with the option of the server that it is', async t => {
  const documented = tableUnder(doc, "Options of the domain's plugins").rows.map(([, name, option]) => [name, option])
  t.same(documented, Object.entries(OPTION_OF_LIMIT).map(([name, key]) => [name, OPTIONS[key].env]))
})

t.test('every documented member of a decorator exists', async t => {
  const app = await buildTestApp(t)
  for (const name of ['sessionManager', 'dispatcher', 'gateway'] as const) {
    for (const member of namesIn(tableUnder(doc, `fastify.${name}`).rows)) {
      t.ok(member in app[name], `${name}.${member}`)
    }
  }
})

t.test('every curl line does what its section says', async t => {
  const app = await buildTestApp(t, { config: { adminToken: undefined } })
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const base = `http://127.0.0.1:${port}`
  for (const section of doc.split(/^### /m).filter(section => isRoute(section.replaceAll('`', '')))) {
    const [method = '', path = ''] = section.slice(0, section.indexOf('\n')).replaceAll('`', '').split(' ')
    for (const block of readBlocks(section, 'sh')) {
      const { socket, hello } = await connectFull(`ws://127.0.0.1:${port}/ws`)
      const request = readCurl(block.replace(/\\\n/g, ' '), {
        BASE: base, ID: hello.payload.sessionId, HOLDFAST_ADMIN_TOKEN: ''
      })
      t.equal(request.method, method, section.slice(0, 40))
      t.match(new URL(request.url).pathname, new RegExp(`^${path.replace(/:\w+/g, '[^/]+')}$`))
      const answer = await fetch(request.url, request)
      const body = await answer.text()
      t.ok(answer.ok, `${method} ${path}: ${answer.status} ${body.slice(0, 200)}`)
      const shown = /^```json\n(\{.*\})\n```$/m.exec(section)?.[1]
      if (shown !== undefined && answer.headers.get('content-type')?.startsWith('application/json') === true &&
          !shown.includes('"statusCode"') && !shown.includes('not_ready')) {
        t.same(
          Object.keys(JSON.parse(body)).sort(),
          Object.keys(JSON.parse(shown.replace(/,…/g, ''))).sort(),
          `${method} ${path}: members`
        )
      }
      socket.ws.terminate()
    }
  }
})

t.test('documents use none of the words that judge the reader', async t => {
  for (const name of ['api', 'errors']) {
    t.notMatch(readFileSync(`docs/${name}.md`, 'utf8'), /\b(just|simply|obviously|easy|easily)\b/i, name)
  }
  t.ok(readTables(doc).length > 8)
})

/** Names in the first cells of a table: `a`, `b` is two, a call is its name. */
function namesIn (rows: string[][]): string[] {
  return rows.flatMap(([cell = '']) => splitNames(cell.replace(/\([^)]*\)/g, '')))
}

function splitNames (cell: string): string[] {
  return cell === '' ? [] : cell.split(',').map(name => name.trim())
}

function labelsIn (text: string, metric: string): string[] {
  const labels = new Set<string>()
  for (const [, list] of text.matchAll(new RegExp(`^${metric}\\w*\\{([^}]*)\\}`, 'gm'))) {
    for (const [, label] of (list as string).matchAll(/(\w+)="/g)) if (label !== 'le') labels.add(label as string)
  }
  return [...labels]
}

/** A curl line as a request: -X, -H, -d and one URL, quoted as a shell would have it. */
function readCurl (
  line: string, variables: Record<string, string>
): { method: string, url: string, headers: Record<string, string>, body?: string } {
  const words = [...line.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(([, single, double, bare]) => {
    return single ?? (double ?? bare ?? '').replace(/\$(\w+)/g, (_, name: string) => variables[name] ?? '')
  })
  const request: ReturnType<typeof readCurl> = { method: 'GET', url: '', headers: {} }
  for (let i = 1; i < words.length; i++) {
    const word = words[i] as string
    if (word === '-X') request.method = words[++i] as string
    else if (word === '-d') request.body = words[++i] as string
    else if (word === '-H') {
      const [name = '', value = ''] = (words[++i] as string).split(': ')
      request.headers[name] = value
    } else request.url = word
  }
  return request
}
