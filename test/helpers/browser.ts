// Pages in a real Chromium, against the built server, over a line that can be cut, stalled and
// mended. The pages come from a small server of their own, which stays reachable when the line is
// not, and hold one session each, whose whole life they write down with the page's clock.
//
// CHROMIUM names the browser; default /usr/bin/chromium. Everything that is started here is stopped
// by the teardown of the test that started it.

import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { connect as connectTcp, createServer, type AddressInfo, type Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core'
import type { Test } from 'tap'
import { startServer, type ServerProcess } from './server.js'

const ARGS = [
  '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update',
  '--disable-sync'
]
/** What a step of a page may take before its test gives up; generous, since machines are busy. */
const WITHIN_MS = 30_000

/**
 * Launches one browser for a test file. Back/forward cache is on, as it is for people; Playwright
 * switches it off.
 */
export async function launchBrowser (t: Test): Promise<Browser> {
  const browser = await chromium.launch({
    executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium',
    args: ARGS,
    ignoreDefaultArgs: ['--disable-back-forward-cache']
  })
  t.teardown(async () => { await browser.close() })
  return browser
}

/** A TCP line in front of a server. */
export interface Line {
  readonly port: number
  /** Connections so far, those that found a line that was cut included. */
  readonly attempts: number
  /** Drops what runs through it, and takes nothing new. */
  cut (): void
  /**
   * Lets nothing pass and tells nobody, as a network that is gone does. Connections made meanwhile
   * are taken and stay silent.
   */
  stall (): void
  /** New connections pass again; those that were stalled stay dead. */
  mend (): void
  /** Closes every WebSocket from the middle, as a gateway does that has limits of its own. */
  closeWith (code: number): void
}

export async function layLine (t: Test, targetPort: number): Promise<Line> {
  const clients = new Set<Socket>()
  /** What a mended line lets through belongs to new connections: these never speak again. */
  const dead = new WeakSet<Socket>()
  let state: 'open' | 'cut' | 'stalled' = 'open'
  let attempts = 0
  const server = createServer(client => {
    attempts++
    client.on('error', () => {})
    if (state === 'cut') return client.destroy()
    clients.add(client)
    client.setNoDelay(true).on('close', () => clients.delete(client))
    if (state === 'stalled') return
    const upstream = connectTcp(targetPort, '127.0.0.1')
    upstream.setNoDelay(true).on('error', () => {})
    client.on('data', bytes => { if (state === 'open' && !dead.has(client)) upstream.write(bytes) })
    upstream.on('data', bytes => { if (state === 'open' && !dead.has(client)) client.write(bytes) })
    client.on('close', () => upstream.destroy())
    upstream.on('close', () => { if (state === 'open' && !dead.has(client)) client.destroy() })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const cut = (): void => {
    state = 'cut'
    for (const client of clients) client.destroy()
  }
  t.teardown(() => {
    cut()
    server.close()
  })
  return {
    port: (server.address() as AddressInfo).port,
    get attempts () { return attempts },
    cut,
    stall () {
      state = 'stalled'
      for (const client of clients) dead.add(client)
    },
    mend () { state = 'open' },
    closeWith (code) {
      for (const client of clients) {
        // The gateway's closing handshake is its own: the server sees a connection that breaks.
        dead.add(client)
        client.end(Buffer.from([0x88, 2, code >> 8, code & 255]))
      }
    }
  }
}

/**
 * What a page wrote down: an event of its session (`on`), or one of the platform (`page`), with the
 * page's clock.
 */
export interface Note {
  readonly atMs: number
  readonly on?: string
  readonly page?: string
  readonly [member: string]: unknown
}

export interface Site {
  readonly server: ServerProcess
  readonly line: Line
  /** The pages: `/` and `/next` hold a session, `/plain` holds none. */
  readonly origin: string
  readonly context: BrowserContext
  /**
   * The credentials that pages of this site get when they ask; undefined: they need none. Asked
   * before every attempt.
   */
  token: (() => string) | undefined
  open (path?: string): Promise<Page>
}

export interface SiteOptions {
  /** Environment of the server. */
  readonly env?: Record<string, string>
  /** Runs in every page before its scripts. */
  readonly init?: string
  readonly token?: () => string
  /** Source of the options that the page connects with. */
  readonly options?: string
  /** Pages connect only when a test calls `start()`. */
  readonly isManual?: boolean
}

/** The script of every page. It connects at load; `sessions` and `notes` are what tests look at. */
const SCRIPT = `
  import { connect } from './client.js'
  const EVENTS = [
    'state', 'connecting', 'live', 'detached', 'resumed', 'gap', 'replaced', 'ended', 'error', 'orphanResult',
    'userChanged'
  ]
  const { url, hasToken, options, isManual } = SITE
  window.notes = []
  window.results = []
  const note = entry => notes.push({ atMs: Date.now(), ...entry })
  const ofError = (key, each) => each instanceof Error ? { code: each.code, message: each.message } : each
  const plain = value => JSON.parse(JSON.stringify(value, ofError) ?? 'null')
  window.start = (more = {}) => {
    const token = hasToken ? { token: async () => (await fetch('/token')).text() } : {}
    const session = window.session = connect(url, { ...token, ...options(), ...more })
    for (const type of EVENTS) session.on(type, event => note({ ...plain(event), on: type }))
    return session
  }
  window.run = (command, payload, sendOptions) => {
    const entry = { command, payload }
    results.push(entry)
    session.send(command, payload, sendOptions)
      .then(value => { entry.value = value }, error => { entry.code = error.code })
  }
  const onPage = event => note({ page: event.type, persisted: event.persisted })
  for (const type of ['offline', 'online', 'pageshow', 'pagehide']) addEventListener(type, onPage)
  for (const type of ['freeze', 'resume', 'visibilitychange']) document.addEventListener(type, onPage)
  if (!isManual) start()
`

/** The client as one module for a page. */
export const clientBundle = build({
  entryPoints: [fileURLToPath(new URL('../../src/client/client.ts', import.meta.url))],
  bundle: true,
  write: false,
  format: 'esm',
  target: 'es2022',
  logLevel: 'silent'
}).then(({ outputFiles }) => outputFiles[0]?.text ?? '')

/** A server, a line to it, and a site whose pages hold sessions over that line. */
export async function createSite (t: Test, browser: Browser, options: SiteOptions = {}): Promise<Site> {
  const client = await clientBundle
  let source = ''
  const site = {
    token: options.token
  } as { -readonly [K in keyof Site]: Site[K] }
  const pages = createHttpServer((request, response) => {
    const path = new URL(request.url ?? '/', 'http://site').pathname
    const answer = (type: string, body: string): void => {
      response.writeHead(200, { 'content-type': `${type}; charset=utf-8` }).end(body)
    }
    const script = path === '/plain' ? '' : '<script type="module" src="/page.js"></script>'
    if (path === '/client.js') answer('text/javascript', client)
    else if (path === '/page.js') answer('text/javascript', source)
    else if (path === '/token') answer('text/plain', site.token?.() ?? '')
    else answer('text/html', `<!doctype html><title>${path}</title><p>${path}</p>${script}`)
  })
  pages.listen(0, '127.0.0.1')
  await once(pages, 'listening')
  t.teardown(() => {
    pages.closeAllConnections()
    pages.close()
  })
  site.origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`
  site.server = await startServer({
    HOLDFAST_ALLOWED_ORIGINS: site.origin,
    HOLDFAST_UPGRADES_PER_MINUTE: '10000',
    HOLDFAST_COMMANDS_PER_SECOND: '500',
    ...options.env
  })
  t.teardown(async () => {
    site.server.child.kill('SIGCONT')
    await site.server.stop('SIGKILL')
  })
  site.line = await layLine(t, site.server.port)
  const settings = JSON.stringify({
    url: `ws://127.0.0.1:${site.line.port}/ws`,
    hasToken: options.token !== undefined,
    isManual: options.isManual === true
  })
  source = `const SITE = { ...${settings}, options: () => (${options.options ?? '{}'}) }\n${SCRIPT}`
  site.context = await browser.newContext()
  t.teardown(async () => { await site.context.close() })
  site.context.setDefaultTimeout(WITHIN_MS)
  if (options.init !== undefined) await site.context.addInitScript(options.init)
  site.open = async (path = '/') => {
    const page = await site.context.newPage()
    await page.goto(site.origin + path)
    return page
  }
  return site
}

export const notesOf = (page: Page): Promise<Note[]> => page.evaluate('notes')
export const stateOf = (page: Page): Promise<string> => page.evaluate('session.state')
export const sessionIdOf = (page: Page): Promise<string> => page.evaluate('session.sessionId')

/** Waits for an expression of the page to be true. */
export async function shows (page: Page, expression: string, withinMs = WITHIN_MS): Promise<void> {
  await page.waitForFunction(expression, undefined, { timeout: withinMs, polling: 20 })
}
export const isLive = (page: Page, withinMs?: number): Promise<void> =>
  shows(page, 'globalThis.session?.state === "live"', withinMs)

/** Sends a command and gives its result. */
export const ask = (page: Page, command: string, payload: unknown = null): Promise<unknown> =>
  page.evaluate(`session.send(${JSON.stringify(command)}, ${JSON.stringify(payload)})`)

/** The renderer processes of a browser, to be stopped and continued as a machine that sleeps. */
export async function rendererPids (browser: Browser): Promise<number[]> {
  const cdp = await browser.newBrowserCDPSession()
  const { processInfo } = await cdp.send('SystemInfo.getProcessInfo')
  await cdp.detach()
  return processInfo.filter(({ type }) => type === 'renderer').map(({ id }) => id)
}
