// What the server's own address shows to a person and to a program.

import Fastify from 'fastify'
import t from 'tap'
import startPage from '../../plugins/start-page.js'
import { buildTestApp } from '../helpers/app.js'

const BROWSER = 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8'

// Whoever opened the printed address in a browser got a JSON 404.
t.test('a browser gets a page whose links are all there, a program gets the same as JSON', async t => {
  const app = await buildTestApp(t, { version: '1.2.3' })
  const page = await app.inject({ url: '/', headers: { accept: BROWSER } })
  t.equal(page.statusCode, 200)
  t.match(page.headers, {
    'content-type': 'text/html; charset=utf-8', vary: 'accept', 'content-security-policy': String
  })
  t.match(page.body, /Holdfast 1\.2\.3/)
  const links = [...page.body.matchAll(/href="([^"]+)"/g)].map(([, href]) => href as string)
  t.ok(links.length >= 4)
  for (const link of links) t.ok((await app.inject(link)).statusCode < 400, link)

  for (const accept of [
    undefined, '*/*', 'application/json', 'application/json, text/plain, */*', 'application/json, text/html;q=0.5',
    'text/html;q=0'
  ]) {
    const answer = await app.inject({ url: '/', headers: accept === undefined ? {} : { accept } })
    t.match(
      answer.json(),
      { name: 'holdfast', version: '1.2.3', clients: '/ws', operators: '/sessions', description: '/openapi.json' },
      String(accept)
    )
  }
  for (const accept of ['text/html', 'TEXT/HTML', 'text/html, application/json', 'text/html;q=0.9, */*;q=0.1']) {
    t.match((await app.inject({ url: '/', headers: { accept } })).headers['content-type'], 'text/html', accept)
  }
})

t.test('it needs no operator, since it holds nothing of sessions', async t => {
  const app = await buildTestApp(t, { config: { host: '0.0.0.0', adminToken: 'sixteen-letters!' } })
  t.equal((await app.inject({ url: '/', remoteAddress: '203.0.113.9' })).statusCode, 200)
  t.equal((await app.inject({ method: 'HEAD', url: '/' })).statusCode, 200)
})

t.test('in an application it stands alone', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(startPage, { version: '<b>1</b>' })
  const answer = await app.inject({ url: '/', headers: { accept: BROWSER } })
  t.notMatch(answer.body, '<b>')
})
