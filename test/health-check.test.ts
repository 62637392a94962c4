// What the health check makes of servers that answer otherwise, or not at all.

import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { checkHealth } from '../src/health-check.js'

async function listen (t: Test, host: string, answer: RequestListener): Promise<number> {
  const server = createServer(answer)
  await new Promise<void>(resolve => { server.listen(0, host, resolve) })
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

t.test('an answer other than 200 is unhealthy', async t => {
  const port = await listen(t, '127.0.0.1', (_, response) => { response.writeHead(503).end() })
  t.same(await checkHealth({ host: '127.0.0.1', port }), {
    isHealthy: false, sentence: `http://127.0.0.1:${port}/health/live answered 503.`
  })
})

t.test('a server that hangs is unhealthy after the time limit', async t => {
  const port = await listen(t, '127.0.0.1', () => {})
  t.same(await checkHealth({ host: '127.0.0.1', port }, 50), {
    isHealthy: false, sentence: `http://127.0.0.1:${port}/health/live did not answer: no answer within 50 ms.`
  })
})

t.test('a server on every IPv6 interface is asked on its loopback', async t => {
  const asked: (string | undefined)[] = []
  const port = await listen(t, '::1', (request, response) => {
    asked.push(request.url)
    response.end()
  })
  for (const host of ['::', '::0', '::1']) t.match(await checkHealth({ host, port }), { isHealthy: true })
  t.same(asked, Array(3).fill('/health/live'))
})
