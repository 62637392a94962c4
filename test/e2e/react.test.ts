// examples/react in Chromium, with React's StrictMode: one session survives what React does to
// components, reloads, and the exchange of code and of credentials.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { FastifyInstance } from 'fastify'
import type { Page } from 'playwright-core'
import t, { type Test } from 'tap'
import { createNotes } from '../../examples/react/app.js'
import { launchBrowser, layLine, shows, type Line } from '../helpers/browser.js'
import { eventually } from '../helpers/server.js'

const browser = await launchBrowser(t)
const root = fileURLToPath(new URL('../../', import.meta.url))

interface Rig { readonly app: FastifyInstance, readonly line: Line, readonly page: Page, open (): Promise<Page> }

/**
 * The example, reached over a line, and a page in which ada has signed in. `entry` is the source of
 * another script.
 */
async function rig (t: Test, entry?: string): Promise<Rig> {
  // Inside the project, so that React is found.
  await mkdir(join(root, '.tap'), { recursive: true })
  const folder = entry === undefined ? undefined : await mkdtemp(join(root, '.tap/react-'))
  if (folder !== undefined) await writeFile(join(folder, 'entry.tsx'), entry ?? '')
  const script = folder === undefined ? {} : { entry: join(folder, 'entry.tsx') }
  const app = await createNotes({ mode: 'development', ...script })
  if (folder !== undefined) await rm(folder, { recursive: true })
  await app.listen({ host: '127.0.0.1', port: 0 })
  t.teardown(() => app.close())
  const line = await layLine(t, (app.server.address() as AddressInfo).port)
  const context = await browser.newContext()
  t.teardown(() => context.close())
  const open = async (): Promise<Page> => {
    const page = await context.newPage()
    await page.goto(`http://127.0.0.1:${line.port}/`)
    await page.getByRole('button', { name: 'ada' }).click()
    await state(page, 'live')
    return page
  }
  return { app, line, page: await open(), open }
}

const state = (page: Page, name: string): Promise<void> => page.locator(`#status[data-state="${name}"]`).waitFor()
const notes = (page: Page): Promise<string[]> => page.locator('#notes li').allInnerTexts()
const sessions = (app: FastifyInstance): string[] => app.sessionManager.listSessions({}).data.map(({ id }) => id)
async function add (page: Page, text: string): Promise<void> {
  await page.locator('#text').fill(text)
  await page.keyboard.press('Enter')
}
const hasNote = (page: Page, text: string): Promise<void> => page.locator('#notes li', { hasText: text }).waitFor()

t.test('has one session, although StrictMode connects, cleans up and connects again', async t => {
  const { app, page } = await rig(t)
  await add(page, 'first')
  await hasNote(page, 'first')
  t.equal(sessions(app).length, 1)
  t.equal(app.sessionManager.totals.created, 1)
  t.same(await notes(page), ['ada first'])
})

t.test('goes on in its session after a reload, and loads what it shows', async t => {
  const { app, page } = await rig(t)
  await add(page, 'first')
  await hasNote(page, 'first')
  const before = sessions(app)
  await page.reload()
  await state(page, 'live')
  await hasNote(page, 'first')
  t.same(sessions(app), before)
  t.equal(app.sessionManager.totals.created, 1)
})

t.test('survives being unmounted and mounted again, as in a hot update, with nothing lost or done twice', async t => {
  const { app, page, open } = await rig(t, `
    import { StrictMode } from 'react'
    import { createRoot } from 'react-dom/client'
    import { App } from '../../examples/react/page/notes.js'
    const root = createRoot(document.getElementById('root'))
    let round = 0
    window.render = () => root.render(<StrictMode><App key={round++} /></StrictMode>)
    window.unmount = () => root.render(null)
    window.render()
  `)
  const other = await open()
  const before = sessions(app)
  for (let i = 0; i < 5; i++) {
    await page.evaluate('render()')
    await state(page, 'live')
  }
  await page.evaluate('unmount()')
  await add(other, 'meanwhile')
  await hasNote(other, 'meanwhile')
  await page.evaluate('render()')
  await hasNote(page, 'meanwhile')
  await add(page, 'again')
  await hasNote(other, 'again')
  t.same(await notes(other), ['ada meanwhile', 'ada again'])
  t.same(sessions(app), before)
  t.equal(app.sessionManager.totals.created, 2, 'one for each page')
})

t.test('tells what the connection does, and keeps what is typed until the server has it', async t => {
  const { line, page } = await rig(t)
  line.cut()
  await state(page, 'detached')
  await add(page, 'typed offline')
  await page.locator('#problem', { hasText: 'Waits for the connection' }).waitFor()
  t.equal(await page.locator('#text').inputValue(), 'typed offline')
  line.mend()
  await page.getByRole('button', { name: 'Try now' }).click({ timeout: 500 }).catch(() => {})
  await hasNote(page, 'typed offline')
  await shows(page, 'document.getElementById("text").value === ""')
})

t.test('starts again when a person asks, after an operator ended the session', async t => {
  const { app, page } = await rig(t)
  const [before] = sessions(app)
  await app.inject({ method: 'DELETE', url: `/sessions/${before}` })
  await state(page, 'ended')
  t.equal(await page.locator('#status').innerText(), 'An operator ended this session.')
  await page.getByRole('button', { name: 'Start again' }).click()
  await state(page, 'live')
  t.not(sessions(app)[0], before)
})

t.test('never sends as one user what another has queued', async t => {
  const { line, page } = await rig(t)
  line.cut()
  await state(page, 'detached')
  await add(page, 'of ada alone')
  await page.getByRole('button', { name: 'Sign out' }).click()
  await page.getByRole('button', { name: 'ben' }).click()
  line.mend()
  await state(page, 'live')
  await add(page, 'of ben')
  await hasNote(page, 'of ben')
  t.same(await notes(page), ['ben of ben'])
})

t.test('leaves no session behind when a person signs out', async t => {
  const { app, page } = await rig(t)
  await page.getByRole('button', { name: 'Sign out' }).click()
  await page.getByRole('button', { name: 'ben' }).waitFor()
  await eventually('the session has ended', () => sessions(app).length === 0)
})
