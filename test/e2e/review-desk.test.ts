// The example desk in a real browser: what a reviewer sees while connections are cut, pages
// reloaded, tabs copied and servers restarted, and what the platform behind it has recorded. The
// page and its socket go through a cable that can be cut. CHROMIUM names the browser; default
// /usr/bin/chromium.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import type { FastifyInstance } from 'fastify'
import type { BrowserContext, Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { createReviewDesk, type ReviewDeskOptions } from '../../examples/review-desk/app.js'
import { buildPage } from '../../examples/review-desk/page-files.js'
import { createPlatform, type Platform } from '../../examples/review-desk/platform.js'
import { launchBrowser, layLine, type Line } from '../helpers/browser.js'
import { freePort } from '../helpers/free-port.js'

const WITHIN_MS = 40_000
/** Two seconds, and what a busy machine adds. */
const OFFLINE_MS = 17_000
const pageFiles = buildPage()
const browser = await launchBrowser(t)

/** Work of the platform that lasts until it is let go. */
function createGate (): { work (): Promise<void>, open (): void, shut (): void } {
  let waiting: (() => void)[] = []
  let isOpen = true
  return {
    work: async () => { if (!isOpen) await new Promise<void>(resolve => { waiting.push(resolve) }) },
    open () {
      isOpen = true
      for (const go of waiting) go()
      waiting = []
    },
    shut () { isOpen = false }
  }
}

async function until (what: string, probe: () => boolean | Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + WITHIN_MS; !await probe();) {
    if (Date.now() > deadline) throw new Error(`not within ${WITHIN_MS} ms: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}

async function startDesk (
  options: Partial<ReviewDeskOptions> & { platform: Platform }, port: number
): Promise<FastifyInstance> {
  const app = await createReviewDesk({ page: await pageFiles, ...options })
  await app.listen({ host: '127.0.0.1', port })
  return app
}

interface Rig {
  readonly app: FastifyInstance
  readonly port: number
  readonly platform: Platform
  readonly gate: ReturnType<typeof createGate>
  readonly cable: Line
  readonly url: string
  readonly context: BrowserContext
  readonly page: Page
}

/** A desk with three drafts, and one reviewer who sees them. */
async function rig (t: Test, options: Partial<ReviewDeskOptions> = {}, init?: string): Promise<Rig> {
  const gate = createGate()
  const platform = createPlatform({ work: gate.work })
  for (let i = 0; i < 3; i++) platform.feed()
  const port = await freePort()
  const app = await startDesk({ platform, ...options }, port)
  t.teardown(() => app.close())
  const cable = await layLine(t, port)
  const context = await browser.newContext({ viewport: { width: 1320, height: 820 } })
  t.teardown(() => context.close())
  context.setDefaultTimeout(WITHIN_MS)
  if (init !== undefined) await context.addInitScript(init)
  const page = await context.newPage()
  const url = `http://127.0.0.1:${cable.port}/`
  await page.goto(url)
  await shows(page, 'live')
  await page.locator('#draft[data-draft="1"]').waitFor()
  return { app, port, platform, gate, cable, url, context, page }
}

const shows = (page: Page, state: string): Promise<void> => page.locator(`#state[data-state="${state}"]`).waitFor()
/** Presses "Try now" for as long as it takes: the back-off alone may take half a minute. */
const comesBack = (page: Page): Promise<void> => until('live again', async () => {
  if (await page.locator('#state[data-state="live"]').isVisible()) return true
  await page.locator('#banner-action', { hasText: 'Try now' }).click({ timeout: 300 }).catch(() => {})
  return false
})
const sessionOf = async (page: Page): Promise<string> => await page.locator('body').getAttribute(
  'data-session'
) as string
const entry = (page: Page, draft: number, phase: string): Promise<void> => page.locator(
  `#log li[data-draft="${draft}"][data-phase="${phase}"]`
).waitFor()
const queueOf = (page: Page): Promise<number[]> =>
  page.evaluate("[...document.querySelectorAll('#queue li')].map(({ dataset }) => Number(dataset.draft))")
const bannerOf = (page: Page): Promise<string> => page.locator('#banner p').innerText()
const waits = (page: Page, draft: number): Promise<void> => page.locator(`#queue li[data-draft="${draft}"]`).waitFor()

async function reject (page: Page, reason: string): Promise<void> {
  await page.keyboard.press('r')
  await page.locator('#reject-dialog[open]').waitFor()
  await page.keyboard.type(reason)
  await page.keyboard.press('Control+Enter')
}

/** What the platform was asked to do, in its order. */
const callsOf = (platform: Platform): string[] => platform.calls.map(({
  draft, verdict, command
}) => `${command}: ${verdict} ${draft}`)

t.test('approves by key and rejects with a reason, each recorded once under its number', async t => {
  const { page, platform } = await rig(t)
  await page.keyboard.press('a')
  await entry(page, 1, 'recorded')
  await reject(page, 'Ask a pharmacist first.')
  await entry(page, 2, 'recorded')
  await page.locator('#approve').click()
  await entry(page, 3, 'recorded')

  t.same(callsOf(platform), ['2: approved 1', '3: rejected 2', '4: approved 3'])
  t.same(platform.decisions.map(({ draft, verdict, reason }) => ({ draft, verdict, reason })), [
    { draft: 1, verdict: 'approved', reason: null },
    { draft: 2, verdict: 'rejected', reason: 'Ask a pharmacist first.' },
    { draft: 3, verdict: 'approved', reason: null }
  ])
  t.equal(await page.locator('#empty-title').innerText(), 'All drafts are decided')
  platform.feed()
  await page.locator('#draft[data-draft="4"]').waitFor()
})

t.test('takes a decision off the list at once and settles it with the answer', async t => {
  const { page, gate, platform } = await rig(t)
  gate.shut()
  await page.keyboard.press('a')
  await entry(page, 1, 'sending')
  t.same(await queueOf(page), [2, 3])
  t.equal(platform.decisions.length, 0)
  gate.open()
  await entry(page, 1, 'recorded')
  t.match(await page.locator('#log li[data-draft="1"] .detail').innerText(), /^[\d.]+\sm?s$/)
})

t.test('decides once while a key is held down', async t => {
  const { page, platform } = await rig(t)
  for (let i = 0; i < 5; i++) await page.keyboard.down('a')
  await page.keyboard.up('a')
  await entry(page, 1, 'recorded')
  await page.keyboard.press('j')
  t.same(callsOf(platform), ['2: approved 1'])
})

t.test('loads nothing from elsewhere and breaks no rule of its content security policy', async t => {
  const { page, url } = await rig(t)
  const requested: string[] = []
  const said: string[] = []
  page.on('request', request => { requested.push(request.url()) })
  page.on('console', message => { said.push(message.text()) })
  page.on('pageerror', error => { said.push(error.message) })
  const answer = await page.goto(url)
  await page.locator('#draft[data-draft="1"]').waitFor()
  await page.keyboard.press('a')
  await entry(page, 1, 'recorded')
  t.match(answer?.headers()['content-security-policy'], /^default-src 'none'; script-src 'self';/)
  t.same(requested.filter(each => !each.startsWith(url) && !each.startsWith('data:')), [])
  t.same(said, [])
})

t.test('P-27 goes on in the same session after a reload, with nothing lost or done twice', async t => {
  const { page, platform, gate } = await rig(t)
  const before = await sessionOf(page)
  await page.keyboard.press('a')
  await entry(page, 1, 'recorded')
  gate.shut()
  await page.keyboard.press('a')
  await until('the second decision runs', () => platform.calls.length === 2)
  await page.reload()
  platform.feed()
  await shows(page, 'live')
  await entry(page, 2, 'sending')
  await waits(page, 4)
  gate.open()
  await entry(page, 2, 'recorded')

  t.equal(await sessionOf(page), before)
  t.same(await queueOf(page), [3, 4])
  t.same(callsOf(platform), ['2: approved 1', '3: approved 2'])
  t.equal(await page.locator('#log li').count(), 2)
})

t.test('says that a decision was never sent when the page was reloaded before it could be', async t => {
  // The page loads, and its sockets find nobody.
  const { page, platform, cable } = await rig(t, {}, `
    const Real = WebSocket
    window.WebSocket = class extends Real {
      constructor (url, protocols) { super(localStorage.cut ? url + '/nowhere' : url, protocols) }
    }
  `)
  await page.evaluate('localStorage.cut = 1')
  cable.cut()
  await shows(page, 'reconnecting')
  cable.mend()
  await page.keyboard.press('a')
  await entry(page, 1, 'queued')
  await page.reload()
  await entry(page, 1, 'queued')
  await page.evaluate('localStorage.clear()')
  await entry(page, 1, 'unsent')
  await waits(page, 1)
  t.equal(platform.calls.length, 0)
  await page.keyboard.press('a')
  await entry(page, 1, 'recorded')
  t.equal(platform.calls.length, 1)
})

t.test('P-31 delivers what was pushed and sends what was decided during an outage, once and in order', async t => {
  const { page, platform, gate, cable } = await rig(t)
  const before = await sessionOf(page)
  gate.shut()
  await page.keyboard.press('a')
  await until('the decision runs', () => platform.calls.length === 1)
  cable.cut()
  await shows(page, 'reconnecting')
  gate.open()
  await until('the decision is recorded', () => platform.decisions.length === 1)
  for (let i = 0; i < 3; i++) platform.feed()
  await reject(page, 'Against policy.')
  await page.keyboard.press('a')
  await entry(page, 2, 'queued')
  await entry(page, 3, 'queued')
  t.equal(platform.calls.length, 1)

  cable.mend()
  for (const draft of [1, 2, 3]) await entry(page, draft, 'recorded')
  await shows(page, 'live')
  t.equal(await sessionOf(page), before)
  t.match(await bannerOf(page), /Arrived meanwhile: 3 drafts, 1 answer to your decisions\. Nothing was lost\./)
  t.same(await queueOf(page), [4, 5, 6])
  t.equal(await page.locator('#queue li[data-away="true"]').count(), 3)
  t.same(callsOf(platform), ['2: approved 1', '3: rejected 2', '4: approved 3'])
})

t.test('keeps everything over ten outages in a row', async t => {
  const { page, platform, cable } = await rig(t)
  for (let i = 0; i < 10; i++) {
    platform.feed()
    await page.keyboard.press('a')
    cable.cut()
    await shows(page, 'reconnecting')
    platform.feed()
    cable.mend()
    await comesBack(page)
  }
  for (let draft = 1; draft <= 10; draft++) await entry(page, draft, 'recorded')
  t.same(callsOf(platform), Array.from({ length: 10 }, (_, i) => `${i + 2}: approved ${i + 1}`))
  await waits(page, 23)
  t.same(await queueOf(page), Array.from({ length: 13 }, (_, i) => i + 11))
})

t.test('P-32 says how much was dropped when an outage outlasts the outbox, and loads the desk afresh', async t => {
  const { page, platform, cable } = await rig(t, { limits: { outboxMessages: 4 } })
  cable.cut()
  await shows(page, 'reconnecting')
  for (let i = 0; i < 10; i++) platform.feed()
  cable.mend()
  await shows(page, 'live')
  await waits(page, 4)
  t.match(await bannerOf(page), /4 drafts\. 6 older updates could not be kept for you/)
  t.same(await queueOf(page), Array.from({ length: 13 }, (_, i) => i + 1))
})

t.test('gives a duplicated tab a session of its own, and both see every decision', async t => {
  const { page, context, platform, gate } = await rig(t)
  gate.shut()
  await page.keyboard.press('a')
  await until('the decision runs', () => platform.calls.length === 1)
  const opened = context.waitForEvent('page')
  await page.evaluate('void window.open(location.href)')
  const copy = await opened
  await copy.locator('#draft[data-draft="1"]').waitFor()
  await shows(copy, 'live')
  t.not(await sessionOf(copy), await sessionOf(page))
  t.equal(await copy.locator('#log li').count(), 0, 'what the other tab waits for is not its own')
  gate.open()
  await entry(page, 1, 'recorded')
  await copy.locator('#log li[data-draft="1"][data-phase="recorded"][data-mine="false"]').waitFor()
  await copy.keyboard.press('a')
  await page.locator('#log li[data-draft="2"][data-phase="recorded"][data-mine="false"]').waitFor()
  await shows(page, 'live')
  t.same(callsOf(platform), ['2: approved 1', '2: approved 2'])
})

t.test('P-35 stops the older tab where the browser has no locks, and the tabs do not fight', async t => {
  const { app, page, context } = await rig(
    t, {}, 'Object.defineProperty(Navigator.prototype, "locks", { value: undefined })'
  )
  const before = await sessionOf(page)
  const opened = context.waitForEvent('page')
  await page.evaluate('void window.open(location.href)')
  const copy = await opened
  await shows(page, 'replaced')
  await shows(copy, 'live')
  t.equal(await sessionOf(copy), before)
  t.ok(await page.locator('#approve').isDisabled())
  const { totals } = app.sessionManager
  t.equal(totals.resumed, 1)

  await page.locator('#banner-action').click()
  await shows(page, 'live')
  t.not(await sessionOf(page), before)
  await shows(copy, 'live')
  t.equal(totals.resumed, 1)
})

t.test('tells who was second when two reviewers decide the same draft', async t => {
  const { page, context, platform, gate, url } = await rig(t)
  const other = await context.newPage()
  await other.goto(url)
  await other.locator('#draft[data-draft="1"]').waitFor()
  gate.shut()
  await page.keyboard.press('a')
  await until('the first decision runs', () => platform.calls.length === 1)
  await reject(other, 'Too generous.')
  await until('the second decision runs', () => platform.calls.length === 2)
  gate.open()
  await entry(page, 1, 'recorded')
  await other.locator('#log li[data-draft="1"][data-verdict="approved"][data-mine="false"]').waitFor()
  const note = await other.locator('#log li[data-draft="1"] .entry-note').innerText()
  t.equal(note, 'You had rejected it; another reviewer was first. Your reason was: “Too generous.”')
  t.equal(platform.decisions.length, 1)
})

t.test('P-33 is honest about a restart: unanswered is unknown, unsent is sent, nothing runs twice', async t => {
  const { page, app, port, platform, gate } = await rig(t)
  const before = await sessionOf(page)
  gate.shut()
  await page.keyboard.press('a')
  await until('the decision runs', () => platform.calls.length === 1)
  await app.gateway.drain(600)
  await app.close()
  await shows(page, 'reconnecting')
  await page.keyboard.press('a')
  await entry(page, 2, 'queued')

  const restarted = await startDesk({ platform }, port)
  t.teardown(() => restarted.close())
  await shows(page, 'live')
  t.not(await sessionOf(page), before)
  await entry(page, 1, 'unknown')
  t.match(
    await bannerOf(page),
    /in a new session\. The server was restarted.* Whether one decision was recorded is not known; nothing was sent/
  )
  await page.locator('#log .entry-note', { hasText: 'no record of it so far' }).waitFor()
  await waits(page, 1)

  // The platform outlived the server in front of it, and finishes what it had begun.
  gate.open()
  await entry(page, 1, 'recorded')
  await entry(page, 2, 'recorded')
  t.same(platform.calls.map(({ draft }) => draft).sort(), [1, 2])
  t.same(platform.decisions.map(({ draft }) => draft).sort(), [1, 2])
  t.same(await queueOf(page), [3])
})

t.test('P-48 a drain answers what is running before it closes, and the outcome is known', async t => {
  const { page, app, port, platform, gate } = await rig(t)
  gate.shut()
  await page.keyboard.press('a')
  await until('the decision runs', () => platform.calls.length === 1)
  const drained = app.gateway.drain(5000)
  gate.open()
  await drained
  await app.close()
  await entry(page, 1, 'recorded')
  const restarted = await startDesk({ platform }, port)
  t.teardown(() => restarted.close())
  await shows(page, 'live')
  await waits(page, 2)
  await page.keyboard.press('a')
  await entry(page, 2, 'recorded')
  t.same(platform.calls.map(({ draft }) => draft), [1, 2])
})

t.test('P-41 shows that an operator ended the session, and starts a new one only when asked', async t => {
  const { page, app, port, platform, gate } = await rig(t)
  const before = await sessionOf(page)
  gate.shut()
  await page.keyboard.press('a')
  await until('the decision runs', () => platform.calls.length === 1)
  const { status } = await fetch(
    `http://127.0.0.1:${port}/sessions/${before}?reason=shift%20over`, { method: 'DELETE' }
  )
  t.equal(status, 204)
  await shows(page, 'ended')
  t.match(await bannerOf(page), /An operator ended this session\./)
  await entry(page, 1, 'unknown')
  t.ok(await page.locator('#approve').isDisabled())
  await page.keyboard.press('a')
  t.equal(platform.calls.length, 1)
  t.equal(app.sessionManager.countSessions().total, 0)

  gate.open()
  await page.locator('#banner-action').click()
  await shows(page, 'live')
  await entry(page, 1, 'recorded')
  t.not(await sessionOf(page), before)
  t.same(callsOf(platform), ['2: approved 1'])
})

t.test('P-41 comes back into its session after an operator dropped the connection', async t => {
  const { page, port, platform } = await rig(t)
  const before = await sessionOf(page)
  const { status } = await fetch(`http://127.0.0.1:${port}/sessions/${before}/connection`, { method: 'DELETE' })
  t.equal(status, 204)
  platform.feed()
  await waits(page, 4)
  await shows(page, 'live')
  t.equal(await sessionOf(page), before)
})

/** Opens the dialog and types, as a person who has not decided yet. */
async function beginReason (page: Page, reason: string): Promise<void> {
  await page.keyboard.press('r')
  await page.locator('#reject-dialog[open]').waitFor()
  await page.keyboard.type(reason)
}
const endedBy = async (port: number, session: string): Promise<void> => {
  const { status } = await fetch(`http://127.0.0.1:${port}/sessions/${session}`, { method: 'DELETE' })
  t.equal(status, 204)
}
const reasonIn = (page: Page): Promise<string> => page.locator('#reason').inputValue()

t.test('keeps a reason being typed when an operator ends the session, says so, and sends it in the next', async t => {
  const { page, port, platform } = await rig(t)
  const before = await sessionOf(page)
  await beginReason(page, 'Ask a pharmacist first.')
  await endedBy(port, before)
  await shows(page, 'ended')
  await page.keyboard.press('Control+Enter')
  t.ok(await page.locator('#reject-dialog[open]').isVisible(), 'the dialog stays')
  await page.locator('#reject-notice', { hasText: 'An operator ended this session. Your reason is kept.' }).waitFor()
  t.equal(await reasonIn(page), 'Ask a pharmacist first.')
  t.equal(platform.calls.length, 0)

  await page.locator('#reject-action').click()
  await shows(page, 'live')
  t.not(await sessionOf(page), before)
  t.equal(await reasonIn(page), 'Ask a pharmacist first.')
  await page.keyboard.press('Control+Enter')
  await entry(page, 1, 'recorded')
  t.match(platform.decisions, [{ draft: 1, verdict: 'rejected', reason: 'Ask a pharmacist first.' }])
})

t.test('keeps a reason over reloads and Esc, whether the session lived on or ended, until it is recorded', async t => {
  const { page, port, platform } = await rig(t)
  await beginReason(page, 'Against policy, see')
  await page.reload()
  await page.locator('#reject-dialog[open]').waitFor()
  t.equal(await reasonIn(page), 'Against policy, see')
  await page.keyboard.type(' section 4.')
  await page.keyboard.press('Escape')
  t.equal(await page.locator('#reject-label').innerText(), 'Go on rejecting')
  await page.locator('#queue li[data-draft="1"] .chip', { hasText: 'reason begun' }).waitFor()
  await endedBy(port, await sessionOf(page))
  await shows(page, 'ended')
  await page.reload()
  await shows(page, 'live')
  await page.locator('#draft[data-draft="1"]').waitFor()
  await page.keyboard.press('r')
  t.equal(await reasonIn(page), 'Against policy, see section 4.')
  await page.keyboard.press('Control+Enter')
  await entry(page, 1, 'recorded')
  t.match(platform.decisions, [{ draft: 1, reason: 'Against policy, see section 4.' }])
  t.equal(
    await page.evaluate('sessionStorage.getItem("review-desk.reasons")'), null, 'what is recorded is not kept here'
  )
})

t.test('keeps a reason when another reviewer decides first, and says who was faster', async t => {
  const { page, platform } = await rig(t)
  await beginReason(page, 'Too generous by half.')
  await platform.decide({
    draft: 1, verdict: 'approved', reason: null, reviewer: 'ada', sessionId: 'of-ada', command: null
  })
  await page.locator('#reject-dialog[data-blocked="true"]').waitFor()
  await page.keyboard.press('Control+Enter')
  await page.locator('#reject-notice', { hasText: 'was approved by another reviewer meanwhile' }).waitFor()
  t.equal(await reasonIn(page), 'Too generous by half.')
  await page.keyboard.press('Escape')
  const told = page.locator(
    '#log li[data-draft="1"] .entry-note', { hasText: 'You had begun a reason: “Too generous by half.”' }
  )
  await told.waitFor()
  await page.reload()
  await told.waitFor()
  t.equal(platform.calls.length, 1)
})

t.test('keeps the reason of a decision that could not be sent, and offers it again', async t => {
  const { page, port, cable, platform } = await rig(t)
  const before = await sessionOf(page)
  cable.cut()
  await shows(page, 'reconnecting')
  await reject(page, 'Facts are wrong: 489 is not 849.')
  await entry(page, 1, 'queued')
  await endedBy(port, before)
  cable.mend()
  await comesBack(page)
  await entry(page, 1, 'recorded')
  t.match(platform.decisions, [{ draft: 1, reason: 'Facts are wrong: 489 is not 849.' }])
})

t.test('shows decisions that failed after a reload too, with the reason in the dialog', async t => {
  const { page, port, gate, platform } = await rig(t)
  gate.shut()
  await reject(page, 'Tone does not fit: too cold.')
  await until('the decision runs', () => platform.calls.length === 1)
  await endedBy(port, await sessionOf(page))
  await shows(page, 'ended')
  await entry(page, 1, 'unknown')
  await page.reload()
  await shows(page, 'live')
  await entry(page, 1, 'unknown')
  t.equal(await page.locator('#log li[data-draft="1"] .reason').innerText(), 'Tone does not fit: too cold.')
  await page.locator('#draft[data-draft="1"]').waitFor()
  await page.keyboard.press('r')
  t.equal(await reasonIn(page), 'Tone does not fit: too cold.')
  gate.open()
  await entry(page, 1, 'recorded')
})

t.test('puts a common reason before what was typed, not in its place', async t => {
  const { page } = await rig(t)
  await beginReason(page, 'the amount is twice what was paid')
  await page.locator('[data-reason]', { hasText: 'Facts are wrong' }).click()
  t.equal(await reasonIn(page), 'Facts are wrong: the amount is twice what was paid')
  await page.locator('[data-reason]', { hasText: 'Against policy' }).click()
  t.equal(await reasonIn(page), 'Against policy: the amount is twice what was paid')
})

t.test('shows within two seconds that it is offline, and that it is live again', async t => {
  const { page, cable, context, platform } = await rig(t)
  cable.stall()
  await context.setOffline(true)
  await page.locator('#state[data-state="offline"]').waitFor({ timeout: OFFLINE_MS })
  t.match(await bannerOf(page), /This device is offline\. You can go on/)
  await page.keyboard.press('a')
  await entry(page, 1, 'queued')
  cable.mend()
  await context.setOffline(false)
  await page.locator('#state[data-state="live"]').waitFor({ timeout: OFFLINE_MS })
  await entry(page, 1, 'recorded')
  t.equal(platform.calls.length, 1)
})

t.test('answers a key that can do nothing now with the reason, and keeps the focus', async t => {
  const { page, port, platform } = await rig(t)
  await page.locator('#approve').focus()
  await endedBy(port, await sessionOf(page))
  await shows(page, 'ended')
  await page.evaluate('document.getElementById("spoken").textContent = ""')
  await page.keyboard.press('Enter')
  t.match(await page.locator('#spoken').textContent(), /An operator ended this session\./)
  t.equal(await page.evaluate('document.activeElement.id'), 'approve')
  t.equal(platform.calls.length, 0)
})

t.test('works, and asks before it is left, where nothing can be stored', async t => {
  const { page, cable } = await rig(
    t, {}, 'Object.defineProperty(window, "sessionStorage", { get () { throw new DOMException("", "SecurityError") } })'
  )
  cable.cut()
  await shows(page, 'reconnecting')
  await reject(page, 'Against policy.')
  await entry(page, 1, 'queued')
  const asked = page.waitForEvent('dialog')
  await page.evaluate('void setTimeout(() => location.reload())')
  const question = await asked
  t.equal(question.type(), 'beforeunload')
  await question.dismiss()
  cable.mend()
  await entry(page, 1, 'recorded')
})

for (const [width, height] of [[360, 740], [768, 1024], [1280, 800]] as const) {
  t.test(`shows the draft and what decides it at ${width} × ${height}, and the list within reach`, async t => {
    const { page } = await rig(t)
    await page.setViewportSize({ width, height })
    const seen = async (selector: string): Promise<boolean> => {
      const box = await page.locator(selector).boundingBox()
      return box !== null && box.x >= 0 && box.y >= 0 && box.x + box.width <= width && box.y + box.height <= height
    }
    for (const part of ['#draft-topic', '#draft-question', '#approve', '#reject', '#state']) {
      t.ok(await seen(part), part)
    }
    t.ok(await page.evaluate('document.documentElement.scrollWidth <= innerWidth'), 'nothing is cut off at the side')
    if (width > 960) return t.ok(await seen('#queue li:nth-child(2)'), 'the list is beside the draft')
    t.notOk(await page.locator('#queue').isVisible(), 'the list is folded')
    await page.locator('#queue-toggle').click()
    t.ok(await seen('#queue li:nth-child(2)'))
    await page.locator('#queue li:nth-child(2) button').click()
    await page.locator('#draft[data-draft="2"]').waitFor()
    t.notOk(await page.locator('#queue').isVisible(), 'choosing folds it again')
    t.equal(await page.locator('#position').innerText(), '2 of 3')
    await page.locator('#previous').click()
    await page.locator('#draft[data-draft="1"]').waitFor()
  })
}

const axe = (): string => readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
interface AxeResults { violations: { id: string, nodes: { html: string, failureSummary: string }[] }[] }

for (const colorScheme of ['light', 'dark'] as const) {
  t.test(`breaks no rule of accessibility that can be checked, in the ${colorScheme} scheme`, async t => {
    const { page, port } = await rig(t)
    // Colours are judged when they have come to rest.
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
    const check = async (what: string): Promise<void> => {
      await page.evaluate(axe())
      const { violations } = await page.evaluate('axe.run()') as AxeResults
      t.same(
        violations.map(({
          id, nodes
        }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('; ')}`),
        [],
        what
      )
    }
    await check('live')
    await page.keyboard.press('a')
    await entry(page, 1, 'recorded')
    await beginReason(page, 'Ask first.')
    await check('the dialog')
    await endedBy(port, await sessionOf(page))
    await shows(page, 'ended')
    await check('the dialog, after the end')
    await page.keyboard.press('Escape')
    await check('ended')
    await page.setViewportSize({ width: 360, height: 740 })
    await page.locator('#queue-toggle').click()
    await check('a phone, with the list unfolded')
  })
}

t.test('speaks to people, not to engineers', async t => {
  const { page, cable, port } = await rig(t)
  const words: string[] = []
  const read = async (): Promise<void> => {
    words.push(await page.locator('body').innerText(), await page.locator('#spoken').textContent() ?? '')
  }
  await page.keyboard.press('a')
  await entry(page, 1, 'recorded')
  await read()
  cable.cut()
  await shows(page, 'reconnecting')
  await read()
  cable.mend()
  await comesBack(page)
  await read()
  await endedBy(port, await sessionOf(page))
  await shows(page, 'ended')
  await read()
  t.notMatch(
    words.join('\n').replaceAll('human_reviewer_1', ''),
    /\b(command|socket|outbox|token|undefined|null|[a-z]+_[a-z]+)\b/i
  )
})

t.test('examples/minimal: the client prints what the server answered and pushed', async t => {
  const run = (file: string, env: Record<string, string>) => {
    const child = spawn(process.execPath, ['--import', 'tsx', file], {
      env: { PATH: process.env['PATH'], ...env },
      stdio: ['ignore', 'pipe', 'inherit']
    })
    t.teardown(() => { child.kill('SIGKILL') })
    return { child, lines: createInterface({ input: child.stdout })[Symbol.asyncIterator]() }
  }
  const server = run('examples/minimal/server.ts', { PORT: '0' })
  const { value: listening } = await server.lines.next()
  t.match(listening, /^ws:\/\/127\.0\.0\.1:\d+\/ws$/)
  const client = run('examples/minimal/client.ts', { URL: listening as string })
  const said: string[] = []
  for (let line = await client.lines.next(); line.done !== true; line = await client.lines.next()) {
    said.push(line.value as string)
  }
  t.equal(client.child.exitCode ?? (await once(client.child, 'exit'))[0], 0)
  t.same(said, ['approved draft 7', 'answer: draft 7, recorded as 1', 'refused: NO_SUCH_DRAFT'])
})
