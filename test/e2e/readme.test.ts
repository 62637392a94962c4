// The application that the README shows, with its two typed commands, and a page in Chromium that
// runs the client that the README shows: what the page asks for while its line is cut is done once,
// in the same session.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { connect as connectTcp, type AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { clientBundle, launchBrowser, layLine, sessionIdOf, shows, isLive } from '../helpers/browser.js'
import { freePort } from '../helpers/free-port.js'
import { readBlocks } from '../helpers/markdown.js'

const browser = await launchBrowser(t)
const root = fileURLToPath(new URL('../../', import.meta.url))
const blocks = readBlocks(readFileSync(`${root}README.md`, 'utf8'), 'js')
const blockWith = (text: string): string => blocks.find(block => block.includes(text)) as string

/** Starts the README's application as a reader would; gives its port. */
async function startDesk (t: Test): Promise<number> {
  const port = await freePort()
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(TAP|NODE_)/.test(name)))
  const child = spawn(process.execPath, ['--input-type=module'], { cwd: root, env, stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(() => { child.kill('SIGKILL') })
  child.stdin.end(blockWith('desk.mjs').replace('3001', String(port)))
  await new Promise<void>((resolve, reject) => {
    child.stdout.setEncoding('utf8').once('data', () => resolve())
    child.once('close', code => reject(new Error(`the application ended with ${code}`)))
  })
  return port
}

/** Serves the files of a page and passes handshakes on, as the proxy before an application does. */
async function serveBefore (
  t: Test, port: number, files: Record<string, [type: string, body: string]>
): Promise<number> {
  const proxy = createHttpServer((request, response) => {
    const [type, body] = files[request.url ?? ''] ?? ['text/plain', '']
    response.writeHead(200, { 'content-type': type }).end(body)
  })
  proxy.on('upgrade', ({ url, rawHeaders }, client) => {
    const upstream = connectTcp(port, '127.0.0.1')
    const lines = rawHeaders.flatMap((name, n) => n % 2 === 0 ? `${name}: ${rawHeaders[n + 1]}` : [])
    upstream.write(`GET ${url} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`)
    upstream.pipe(client).pipe(upstream)
    for (const [one, other] of [[client, upstream], [upstream, client]] as const) {
      one.on('error', () => {}).on('close', () => other.destroy())
    }
  })
  await once(proxy.listen(0, '127.0.0.1'), 'listening')
  t.teardown(() => {
    proxy.closeAllConnections()
    proxy.close()
  })
  return (proxy.address() as AddressInfo).port
}

/**
 * The README's client as a page runs it: the socket is the browser's own, and the session stays
 * open.
 */
const script = blockWith('holdfast/client')
  .replace(/^import WebSocket .*$/m, '')
  .replace("'holdfast/client'", "'/client.js'")
  .replace("'ws://127.0.0.1:3001/ws'", "location.origin.replace('http', 'ws') + '/ws'")
  .replace('session.close()', '')
  .replaceAll('console.log(', 'shown.push(')

t.test('an application of 15 lines is used, and resumed, by a page', async t => {
  const line = await layLine(t, await serveBefore(t, await startDesk(t), {
    '/': ['text/html', '<!doctype html><script type="module" src="/page.js"></script>'],
    '/page.js': [
      'text/javascript', script.replace('\n\n', '\nglobalThis.shown = []\n') + '\nglobalThis.session = session'
    ],
    '/client.js': ['text/javascript', await clientBundle]
  }))
  const context = await browser.newContext()
  t.teardown(() => context.close())
  const page = await context.newPage()
  page.on('pageerror', error => { t.fail(error.message) })
  await page.goto(`http://127.0.0.1:${line.port}/`)
  await isLive(page)
  await shows(page, 'shown.length === 3')
  t.same(await page.evaluate('shown'), [{ draft: 7 }, { draft: 7, state: 'filed' }, { approved: 7 }])
  const before = await sessionIdOf(page)

  line.cut()
  await shows(page, 'session.state !== "live"')
  await page.evaluate('void session.send("review.approve", { draft: 8 }).then(answer => shown.push(answer))')
  line.mend()
  await shows(page, 'shown.length === 5')
  t.same((await page.evaluate('shown') as object[]).slice(3), [{ draft: 8, state: 'filed' }, { approved: 8 }])
  t.equal(await sessionIdOf(page), before)
})
