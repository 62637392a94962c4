// A page's whole life in Chromium: networks that go and come, machines that sleep, pages that are
// put away and brought back, copies of tabs, and credentials that end. What is asserted is what a
// person sees: what the session says of itself, how soon, and that nothing is lost or asked for in
// vain.

import t from 'tap'
import { signToken } from '../../conformance/token.js'
import {
  ask, createSite, isLive, launchBrowser, notesOf, rendererPids, sessionIdOf, shows, stateOf, type Note
} from '../helpers/browser.js'
import { eventually } from '../helpers/server.js'
import type { Page } from 'playwright-core'

/** Promised to people: a state tells the truth so soon after the platform has given a hint. */
const SOON_MS = 2_000
/**
 * What a busy machine may add before a test calls it late. Without a hint it would take half a
 * minute.
 */
const SLACK_MS = 15_000
const JWT_SECRET = 'a-secret-of-this-test-file-only-32-bytes'

const browser = await launchBrowser(t)

/** Source that puts something else in the place of a part of the platform. */
const replaced = (owner: string, name: string, descriptor: string): string =>
  `Object.defineProperty(${owner}, '${name}', ${descriptor})`
const NEVER = 'new Promise(() => {})'
const REFUSAL = 'throw new DOMException("", "SecurityError")'

const pause = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
const last = (notes: readonly Note[], type: string): Note | undefined => notes.findLast(({ on }) => on === type)

/** Milliseconds from one thing that a page wrote down to the first of another kind after it. */
async function between (page: Page, from: (note: Note) => boolean, to: (note: Note) => boolean): Promise<number> {
  const notes = await notesOf(page)
  const start = notes.findLastIndex(from)
  const end = notes.slice(start).find(to)
  if (start < 0 || end === undefined) throw new Error(`not written down; the page has ${JSON.stringify(notes)}`)
  return end.atMs - notes[start]!.atMs
}
const platform = (type: string) => (note: Note): boolean => note.page === type
const event = (type: string) => (note: Note): boolean => note.on === type

t.test('says within two seconds that it is offline, and is back within two seconds of `online`', async t => {
  const site = await createSite(t, browser)
  const page = await site.open()
  await isLive(page)
  const before = await sessionIdOf(page)
  site.line.stall()
  await site.context.setOffline(true)
  await shows(page, 'session.state === "detached"', SOON_MS + SLACK_MS)
  t.ok(await between(page, platform('offline'), event('detached')) <= SOON_MS + SLACK_MS)
  t.match(last(await notesOf(page), 'detached'), { reason: 'offline' })
  await page.evaluate('run("echo", { n: 1 })')
  site.line.mend()
  await site.context.setOffline(false)
  await shows(page, 'session.state === "live" && results[0].value !== undefined', SOON_MS + SLACK_MS)
  t.ok(await between(page, platform('online'), event('live')) <= SOON_MS + SLACK_MS)
  t.equal(await sessionIdOf(page), before)
})

t.test('finds within two seconds of `online` that a change of network has left its socket dead', async t => {
  const site = await createSite(t, browser)
  const page = await site.open()
  await isLive(page)
  const before = await sessionIdOf(page)
  site.line.stall()
  site.line.mend()
  await page.evaluate('run("echo", { n: 1 }); dispatchEvent(new Event("online"))')
  await shows(page, 'results[0].value !== undefined', 2 * SOON_MS + SLACK_MS)
  t.equal(await sessionIdOf(page), before)
})

t.test('stays in its session, on its socket, when hints of the platform are wrong', async t => {
  const site = await createSite(t, browser)
  const page = await site.open()
  await isLive(page)
  const before = await sessionIdOf(page)
  for (const hint of ['offline', 'online', 'pageshow', 'online']) {
    await page.evaluate(`dispatchEvent(new Event('${hint}'))`)
  }
  t.same(await ask(page, 'echo', { n: 1 }), { n: 1 })
  await isLive(page)
  t.equal(await sessionIdOf(page), before)
})

t.test('connects, and comes back, where navigator.onLine is stuck at false', async t => {
  const site = await createSite(t, browser, { init: replaced('Navigator.prototype', 'onLine', '{ get: () => false }') })
  const page = await site.open()
  await isLive(page)
  const before = await sessionIdOf(page)
  site.line.cut()
  await shows(page, 'session.state !== "live"')
  site.line.mend()
  await isLive(page)
  t.equal(await sessionIdOf(page), before)
})

for (const [what, init] of [
  ['locks that never answer', replaced('Navigator.prototype', 'locks', `{ value: { request: () => ${NEVER} } }`)],
  ['locks that throw', replaced('Navigator.prototype', 'locks', `{ value: { request () { ${REFUSAL} } } }`)],
  ['no locks', replaced('Navigator.prototype', 'locks', '{ value: undefined }')],
  ['a storage that may not be touched', replaced('window', 'sessionStorage', `{ get () { ${REFUSAL} } }`)],
  ['a storage that is full', `Storage.prototype.setItem = () => { ${REFUSAL} }`],
  ['a storage full of something else', 'for (const key of Object.keys(sessionStorage)) sessionStorage[key] = "}{"']
] as const) {
  t.test(`is live within seconds, also after a reload, with ${what}`, async t => {
    const site = await createSite(t, browser, { init })
    const page = await site.open()
    await isLive(page, 20_000)
    await page.reload()
    await isLive(page, 20_000)
    t.same(await ask(page, 'echo', { n: 1 }), { n: 1 })
  })
}

t.test('is live within seconds with a persistence whose load never settles', async t => {
  const persistence = '{ load: () => new Promise(() => {}), save () {}, clear () {} }'
  const site = await createSite(t, browser, { options: `{ persistence: ${persistence} }` })
  const page = await site.open()
  await isLive(page, 15_000)
  t.ok(last(await notesOf(page), 'error'), 'the application is told')
})

for (const hint of [
  'document.dispatchEvent(new Event("resume"))',
  'dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }))'
]) {
  t.test(`finds a dead socket within seconds of a return: ${hint}`, async t => {
    const site = await createSite(t, browser)
    const page = await site.open()
    await isLive(page)
    const before = await sessionIdOf(page)
    site.line.stall()
    site.line.mend()
    await page.evaluate(hint)
    await shows(page, 'notes.some(note => note.on === "live" && note.resumed)', 2 * SOON_MS + SLACK_MS)
    t.equal(await sessionIdOf(page), before)
  })
}

t.test('finds a dead socket within seconds of waking, where nothing tells that the machine slept', async t => {
  const site = await createSite(t, browser)
  const page = await site.open()
  await isLive(page)
  const before = await sessionIdOf(page)
  const pids = await rendererPids(browser)
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  site.line.stall()
  site.line.mend()
  await pause(15_000)
  for (const pid of pids) process.kill(pid, 'SIGCONT')
  await shows(page, 'notes.some(note => note.on === "live" && note.resumed)', 20_000)
  t.equal(await sessionIdOf(page), before)
})

/** Leaves by a link, as people do, and waits for the next page. */
async function leaveFor (page: Page, url: string): Promise<void> {
  await page.goto(url)
}

/** Presses the back button. Playwright waits for a load that a page from the cache never has. */
async function goBack (page: Page, path: string): Promise<void> {
  await page.evaluate('void setTimeout(() => history.back())')
  await eventually('the page is back', async () => {
    try {
      return await page.evaluate(`location.pathname === '${path}' && notes.some(({ page, persisted }) =>
        page === 'pageshow' && persisted === true)`)
    } catch {
      return false
    }
  })
}

/** The session that holds the lock of this tab, if any page does. */
const locks = (page: Page): Promise<string[]> =>
  page.evaluate('navigator.locks.query().then(({ held }) => held.map(({ name }) => name))')

t.test('goes on in its session after the back button, and holds its lock again', async t => {
  const site = await createSite(t, browser)
  const page = await site.open()
  await isLive(page)
  const before = await sessionIdOf(page)
  await leaveFor(page, `${site.origin}/plain`)
  await goBack(page, '/')
  await isLive(page)
  t.same(await ask(page, 'echo', { n: 1 }), { n: 1 })
  t.equal(await sessionIdOf(page), before)
  t.ok((await locks(page)).some(name => name.includes(before)), 'the lock is held')
})

t.test('goes on in its session after the back button when another page of the site has used its token', async t => {
  const site = await createSite(t, browser)
  const page = await site.open()
  await isLive(page)
  const before = await sessionIdOf(page)
  await ask(page, 'echo', { n: 1 })
  await leaveFor(page, `${site.origin}/next`)
  await isLive(page)
  t.equal(await sessionIdOf(page), before, 'the next page of the site goes on')
  await ask(page, 'echo', { n: 2 })
  await goBack(page, '/')
  await isLive(page)
  t.same(await ask(page, 'echo', { n: 3 }), { n: 3 })
  t.equal(await sessionIdOf(page), before)
  t.notOk(last(await notesOf(page), 'ended'))
})

/** What "Duplicate tab" does: a new tab with a copy of the storage. */
async function duplicate (site: Awaited<ReturnType<typeof createSite>>, storage: string): Promise<Page> {
  const copy = await site.open('/plain')
  await copy.evaluate(`for (const [key, value] of Object.entries(${storage})) sessionStorage.setItem(key, value)`)
  await copy.goto(site.origin)
  return copy
}

t.test('gives a duplicated tab a session of its own while the original shows another page', async t => {
  const site = await createSite(t, browser)
  const page = await site.open()
  await isLive(page)
  await leaveFor(page, `${site.origin}/plain`)
  const copy = await duplicate(site, await page.evaluate('JSON.stringify(sessionStorage)'))
  await isLive(copy)
  await goBack(page, '/')
  await isLive(page)
  await pause(1_000)
  t.equal(await stateOf(page), 'live')
  t.equal(await stateOf(copy), 'live')
  t.not(await sessionIdOf(page), await sessionIdOf(copy))
  t.same(await ask(page, 'echo', { n: 1 }), { n: 1 })
  t.same(await ask(copy, 'echo', { n: 2 }), { n: 2 })
})

t.test('gives a duplicated tab a session of its own after the original came back by the back button', async t => {
  const site = await createSite(t, browser)
  const page = await site.open()
  await isLive(page)
  await leaveFor(page, `${site.origin}/plain`)
  await goBack(page, '/')
  await isLive(page)
  const before = await sessionIdOf(page)
  const copy = await duplicate(site, await page.evaluate('JSON.stringify(sessionStorage)'))
  await isLive(copy)
  t.not(await sessionIdOf(copy), before)
  t.same(await ask(page, 'echo', { n: 1 }), { n: 1 })
  t.equal(await sessionIdOf(page), before)
})

t.test('keeps the sessions of two pages of one site apart', async t => {
  const site = await createSite(t, browser)
  const [first, second] = [await site.open(), await site.open('/next')]
  await isLive(first)
  await isLive(second)
  const ids = [await sessionIdOf(first), await sessionIdOf(second)]
  t.not(ids[0], ids[1])
  await Promise.all([first.reload(), second.reload()])
  await isLive(first)
  await isLive(second)
  t.same([await sessionIdOf(first), await sessionIdOf(second)], ids)
})

t.test('comes back when a gateway in between closes with 1000', async t => {
  const site = await createSite(t, browser)
  const page = await site.open()
  await isLive(page)
  const before = await sessionIdOf(page)
  site.line.closeWith(1000)
  await shows(page, 'notes.filter(note => note.on === "live").length === 2')
  t.equal(await sessionIdOf(page), before)
})

async function total (url: string): Promise<number> {
  const { data } = await (await fetch(`${url}/sessions`)).json() as { data: unknown[] }
  return data.length
}

t.test('leaves no session behind when it is closed while it connects', async t => {
  const site = await createSite(t, browser, { isManual: true })
  const page = await site.open()
  for (let waitMs = 0; waitMs < 20; waitMs++) {
    await page.evaluate(`new Promise(resolve => {
      start({ persistence: false })
      setTimeout(() => { session.close(); resolve() }, ${waitMs})
    })`)
    t.equal(await stateOf(page), 'ended')
  }
  await eventually('no session is left', async () => await total(site.server.url) === 0)
})

t.test('dispose() leaves the session as it is, and the next connect() goes on with it', async t => {
  const site = await createSite(t, browser, { isManual: true })
  const page = await site.open()
  await page.evaluate('void start()')
  await isLive(page)
  const before = await sessionIdOf(page)
  // What StrictMode does: connect, clean up, connect, all in one turn.
  await page.evaluate('session.dispose(); void start(); session.dispose(); void start()')
  await isLive(page)
  t.equal(await sessionIdOf(page), before)
  t.equal(await total(site.server.url), 1)
})

/** A server that asks for tokens. */
const AUTHENTICATED = { HOLDFAST_JWT_SECRET: JWT_SECRET, HOLDFAST_ADMIN_TOKEN: 'an-operator-token-of-this-test-only' }
const tokenFor = (lifetimeSeconds: number, secret = JWT_SECRET): string =>
  signToken(secret, { userId: 'ada', lifetimeSeconds })

t.test('P-53 tells credentials that were refused from a line that was lost', async t => {
  const token = (): string => tokenFor(60, `${JWT_SECRET}-of-somebody-else`)
  const wrong = await createSite(t, browser, { env: AUTHENTICATED, token })
  const page = await wrong.open()
  await shows(page, 'notes.some(note => note.on === "detached" || note.on === "ended")')
  t.match((await notesOf(page)).find(({ on }) => on === 'detached' || on === 'ended'), { reason: 'unauthenticated' })
  const attempts = wrong.line.attempts
  await pause(3_000)
  t.ok(wrong.line.attempts - attempts <= 3, 'it does not hammer')

  const right = await createSite(t, browser, { env: AUTHENTICATED, token: () => tokenFor(60) })
  const other = await right.open()
  await isLive(other)
  right.line.cut()
  await shows(other, 'notes.some(note => note.on === "detached")')
  t.match(last(await notesOf(other), 'detached'), { reason: 'connection_lost' })
})

t.test('P-47 goes on with fresh credentials when the old ones expire, and says so when there are none', async t => {
  const site = await createSite(t, browser, { env: AUTHENTICATED, token: () => tokenFor(2) })
  const page = await site.open()
  await isLive(page)
  const before = await sessionIdOf(page)
  await shows(page, 'notes.filter(note => note.on === "live").length >= 2')
  t.equal(await sessionIdOf(page), before)
  // From here on the page is given a token that has ended.
  site.token = () => tokenFor(-10)
  await shows(page, 'notes.some(({ on, reason }) => on !== "connecting" && reason === "unauthenticated")')
  // And signs in again.
  site.token = () => tokenFor(60)
  await page.evaluate('session.connect()')
  await isLive(page)
  t.equal(await sessionIdOf(page), before)
})

t.test('a page of an origin that is not allowed sees no more than that the server cannot be reached', async t => {
  const site = await createSite(t, browser, { env: { HOLDFAST_ALLOWED_ORIGINS: 'https://other.example' } })
  const page = await site.open()
  await shows(page, 'notes.some(({ on }) => on === "detached")')
  t.match(last(await notesOf(page), 'detached'), { reason: 'unreachable' })
})
