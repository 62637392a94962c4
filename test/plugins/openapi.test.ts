import type { AddressInfo } from 'node:net'
import helmet from '@fastify/helmet'
import { STATUS_CODES } from 'node:http'
import t from 'tap'
import { ERRORS } from '../../src/io/errors.js'
import { asker, buildRestApp } from '../helpers/rest.js'

interface Operation {
  summary?: string
  security?: unknown[]
  parameters?: Array<{ name: string, in: string, required?: boolean }>
  responses: Record<string, { content?: Record<string, { schema: object }> }>
}
interface Document {
  openapi: string
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, object>, securitySchemes: object }
  security: unknown[]
}

t.test('the description is OpenAPI 3.1 and has every route with every status', async t => {
  const app = await buildRestApp(t)
  const answer = await app.inject('/openapi.json')
  t.equal(answer.statusCode, 200)
  const document: Document = answer.json()
  t.equal(document.openapi, '3.1.0')
  const operations = Object.entries(document.paths).flatMap(([path, methods]) => Object.keys(methods).map(
    method => `${method.toUpperCase()} ${path}`
  ))
  t.same(operations.sort(), [
    'DELETE /sessions/{id}', 'DELETE /sessions/{id}/connection', 'DELETE /users/{userId}/sessions', 'GET /health/live',
    'GET /health/ready', 'GET /metrics', 'GET /nodes', 'GET /nodes/{id}', 'GET /sessions', 'GET /sessions/stats',
    'GET /sessions/{id}', 'GET /users/{userId}/sessions', 'GET /ws', 'PATCH /sessions/{id}/context', 'POST /broadcast',
    'POST /nodes/{id}/drain', 'POST /sessions/{id}/messages', 'POST /users/{userId}/messages'
  ])
  t.same(Object.keys(document.paths['/sessions/{id}']?.get?.responses ?? {}), [
    '200', '400', '401', '403', '404', '410', '429', '500', '503'
  ])
  t.same(document.paths['/sessions']?.get?.parameters?.filter(({ required }) => required === true), [])
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, { summary }] of Object.entries(methods)) t.ok(summary, `${method} ${path} has a summary`)
  }
})

t.test('components have names, and every reference leads to one', async t => {
  const app = await buildRestApp(t)
  const { body } = await app.inject('/openapi.json')
  const document: Document = JSON.parse(body)
  t.same(Object.keys(document.components.schemas).sort(), ['EndedError', 'Error', 'Session'])
  const references = new Set([...body.matchAll(/"\$ref":"([^"]+)"/g)].map(([, target]) => target))
  t.same([...references].sort(), [
    '#/components/schemas/EndedError', '#/components/schemas/Error', '#/components/schemas/Session'
  ])
  t.notMatch(body, 'def-')
})

t.test('operators need their token, probes and clients do not', async t => {
  const app = await buildRestApp(t, { auth: { adminToken: 'x'.repeat(32) } })
  const answer = await app.inject('/openapi.json')
  t.equal(answer.statusCode, 200)
  t.notMatch(answer.body, 'xxxx')
  const { paths, security }: Document = answer.json()
  t.same(security, [{ operatorToken: [] }])
  t.same(paths['/health/live']?.get?.security, [])
  t.same(paths['/ws']?.get?.security, [])
  t.equal(paths['/sessions']?.get?.security, undefined)
})

t.test('routes of the host are left out', async t => {
  const app = await buildRestApp(t, { after: app => { app.get('/own', async () => 'own') } })
  t.notMatch((await app.inject('/openapi.json')).body, '/own')
})

t.test('the answers of the API match what the description says of them', async t => {
  const app = await buildRestApp(t)
  const ask = asker(app)
  const { id } = app.sessionManager.createSession('alice')
  const {
    components
  }: { components: { schemas: Record<string, { properties: object, required: string[] }> } } = (await app.inject(
    '/openapi.json'
  )).json()
  const session = (await ask('GET', `/sessions/${id}`)).json()
  t.same(Object.keys(session).sort(), Object.keys(components.schemas.Session?.properties ?? {}).sort())
  const error = (await ask('GET', '/sessions/none')).json()
  t.same(Object.keys(error).sort(), Object.keys(components.schemas.Error?.properties ?? {}).sort())
})

t.test('the page loads from this server only and runs under its own policy', async t => {
  const app = await buildRestApp(t, { before: async app => { await app.register(helmet) } })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const base = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
  const page = await fetch(`${base}/docs/`)
  t.equal(page.status, 200)
  const policy = page.headers.get('content-security-policy') ?? ''
  t.match(policy, "script-src 'self'")
  t.notMatch(policy, /https?:|upgrade-insecure-requests|unsafe-eval|validator/)
  t.equal(page.headers.get('x-content-type-options'), 'nosniff')
  const html = await page.text()
  const sources = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, source]) => source as string)
  t.ok(sources.length > 3)
  for (const source of sources) {
    t.notMatch(source, /^(https?:)?\/\//)
    const asset = await fetch(new URL(source, `${base}/docs/`))
    await asset.arrayBuffer()
    t.equal(asset.status, 200, source)
  }
  t.notMatch(html, /<script>[^<]/)
})

// Every one said SESSION_NOT_FOUND, and statusCode 0.
t.test('each error is shown with an example of its own code, status and sentence', async t => {
  const { paths } = (await (await buildRestApp(t)).inject('/openapi.json')).json() as {
    paths: Record<string, Record<string, {
      responses: Record<string, {
        content?: Record<string, { examples?: Record<string, { value: Record<string, unknown> }> }>
      }>
    }>>
  }
  let count = 0
  // A node that is not ready is not an error.
  for (const [path, methods] of Object.entries(paths).filter(([path]) => path !== '/health/ready')) {
    for (const [method, { responses }] of Object.entries(methods)) {
      for (const [status, { content }] of Object.entries(responses).filter(([status]) => Number(status) >= 400)) {
        const examples = Object.entries(content?.['application/json']?.examples ?? {})
        t.ok(examples.length > 0, `${method} ${path} ${status}`)
        for (const [code, { value }] of examples) {
          count++
          t.match(value, {
            statusCode: Number(status),
            code,
            error: STATUS_CODES[status],
            message: ERRORS[code as keyof typeof ERRORS].message
          })
        }
      }
    }
  }
  t.ok(count > 50)
})
