// Ids in URLs as real clients write them: whoever a token may name, the operator reaches him and
// nobody else.

import { execFile } from 'node:child_process'
import { request } from 'node:http'
import { promisify } from 'node:util'
import { SignJWT } from 'jose'
import t from 'tap'
import { isUserId } from '../../src/io/names/ids.js'
import { rawUpgrade } from '../helpers/raw-socket.js'
import { startServer } from '../helpers/server.js'
import { connectFull } from '../helpers/socket.js'

const run = promisify(execFile)
const SECRET = 'x'.repeat(32)
const tokenOf = async (sub: string): Promise<string> => await new SignJWT({ sub }).setProtectedHeader({ alg: 'HS256' })
  .sign(new TextEncoder().encode(SECRET))

const IDS = [
  'ada', 'ada lovelace', 'ada@example.org', 'auth0|507f', 'DOMAIN\\ada', 'a/b', 'a//b', '/a', 'a/', 'a%2Fb', '%41da',
  '100%', '...', '.a', 'a..b', 'a;b', 'a?b', 'a#b', 'a+b', 'a&b=c', "a'b\"c",
  'ünal', '李', '🙂', 'messages', 'sessions', 'x'.repeat(128), 'é'.repeat(128)
]

const PYTHON = `
import json, sys, urllib.parse, urllib.request
base, ids = sys.argv[1], json.loads(sys.stdin.read())
for user in ids:
  url = base + '/users/' + urllib.parse.quote(user, safe='') + '/messages'
  body = json.dumps({'event': 'python', 'payload': user}).encode()
  with urllib.request.urlopen(urllib.request.Request(url, body, {'content-type': 'application/json'})) as answer:
    print(answer.status, json.loads(answer.read())['sessions'])
`

t.test('every id reaches its user, and nobody else, from fetch, node:http, curl and Python', async t => {
  const server = await startServer({ HOLDFAST_JWT_SECRET: SECRET, HOLDFAST_UPGRADES_PER_MINUTE: '100000' })
  t.teardown(async () => { await server.stop('SIGKILL') })
  const users = new Map<string, Awaited<ReturnType<typeof connectFull>>['socket']>()
  for (const id of IDS) {
    const { socket, hello } = await connectFull(server.wsUrl, [], { authorization: `Bearer ${await tokenOf(id)}` })
    t.equal(hello.payload.userId, id)
    users.set(id, socket)
    t.teardown(() => { socket.ws.terminate() })
  }
  const urlOf = (id: string): string => `${server.url}/users/${encodeURIComponent(id)}/messages`
  const bodyOf = (client: string, id: string): string => JSON.stringify({ event: client, payload: id })
  const headers = { 'content-type': 'application/json' }
  for (const id of IDS) {
    t.same(
      await (await fetch(urlOf(id), { method: 'POST', headers, body: bodyOf('fetch', id) })).json(),
      { sessions: 1 },
      `fetch ${id}`
    )
    const status = await new Promise(resolve => {
      request(
        { host: '127.0.0.1', port: server.port, method: 'POST', path: new URL(urlOf(id)).pathname, headers },
        answer => { resolve(answer.resume().statusCode) }
      ).end(bodyOf('http', id))
    })
    t.equal(status, 202, `node:http ${id}`)
    const { stdout } = await run('curl', [
      '-sS', '-X', 'POST', '-H', 'content-type: application/json', '-d', bodyOf('curl', id), urlOf(id)
    ])
    t.equal(stdout, '{"sessions":1}', `curl ${id}`)
  }
  const python = run('/usr/bin/python3', ['-c', PYTHON, server.url])
  python.child.stdin?.end(JSON.stringify(IDS))
  t.equal((await python).stdout, '202 1\n'.repeat(IDS.length))

  for (const [id, socket] of users) {
    const events = (await socket.take(4)).map(({ event, payload }) => [event, payload])
    t.same(events, ['fetch', 'http', 'curl', 'python'].map(client => [client, id]), id)
    t.same(socket.waiting, [], id)
  }
})

t.test('a token for an id that is not one is 401', async t => {
  const server = await startServer({ HOLDFAST_JWT_SECRET: SECRET })
  t.teardown(async () => { await server.stop('SIGKILL') })
  for (const id of ['.', '..', '%2e%2e', 'x/../..', 'a\u202eb', 'a\u200bb', 'a\u2028b', ' ada', 'cafe\u0301']) {
    t.notOk(isUserId(id))
    const { raw, answer } = await rawUpgrade(server.port, { Authorization: `Bearer ${await tokenOf(id)}` })
    raw.reset()
    t.equal(answer.status, 401, encodeURIComponent(id))
  }
  for (const path of ['/users/%2e%2e/messages', '/users/../messages', '/sessions/%2e/messages']) {
    const { stdout } = await run('curl', [
      '-sS', '--path-as-is', '-X', 'POST', '-H', 'content-type: application/json', '-d', '{"event":"x"}',
      `${server.url}${path}`
    ])
    const { statusCode } = JSON.parse(stdout) as { statusCode: number }
    t.ok(statusCode >= 400 && statusCode < 500, `${path}: ${statusCode}`)
  }
})
