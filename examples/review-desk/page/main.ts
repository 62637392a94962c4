// Joins the typed client, the desk and what is drawn. One session at a time; `start` makes the next one, which only a person asks for. The client reconnects,
// resumes, replays and sends again by itself: what is here only shows it, and asks for the desk where no replay can bring it back, which is after a
// load of the page, in a new session, and after a gap.

import { connect, type CommandError, type Session } from '../../../src/client/client.js'
import type { Commands, Decision, Draft, Verdict, events } from '../commands.js'
import { createConnectionView, describeArrivals, reasonText, type Arrivals } from './connection.js'
import { createDeskModel, type SavedEntry } from './desk.js'
import { installKeys } from './keys.js'
import { byId, createView, duration } from './view.js'

type DeskSession = Session<Commands, typeof events>

const SAVED_KEY = 'review-desk.pending'
const TICK_MS = 200
/** A message that all is well goes away by itself. */
const GOOD_NEWS_MS = 20_000

const now = (): number => performance.now()
const url = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`
const desk = createDeskModel(now)
const connection = createConnectionView()
const view = createView(id => { desk.select(id); draw(); view.showDraft() })

let session: DeskSession
let isFinal = false
/** The client tells of answers to the page before only while it restores, and of an old session only if it had one. */
let isFirstLive = true
let hadSession = false
let needsDesk = true
/** A person asked for this session, and it is not live yet. */
let isAsked = false
let lostAtMs: number | null = null
let arrivals: Arrivals = { drafts: 0, decisions: 0, answers: 0, lost: 0 }
let renewal: string | null = null
let goodNews: ReturnType<typeof setTimeout> | undefined

const isLive = (): boolean => session.state === 'live'

function draw (): void {
  view.draw(desk.state, { canDecide: !isFinal, isLive: isLive() })
  const pending = desk.pending()
  if (pending.length === 0) sessionStorage.removeItem(SAVED_KEY)
  else sessionStorage.setItem(SAVED_KEY, JSON.stringify(pending))
}

function speak (text: string): void {
  byId('spoken').textContent = text
}

async function openDesk (): Promise<void> {
  needsDesk = false
  try {
    desk.open(await session.send('desk.open'), session.sessionId)
    draw()
  } catch {
    // The session was lost under way; the next one asks again.
    needsDesk = true
  }
}

function decide (verdict: Verdict, reason: string | null, draft: Draft | undefined = desk.state.selected): void {
  if (draft === undefined || isFinal) return
  const startedAtMs = now()
  const key = desk.submit(draft, verdict, reason, isLive())
  const answer = reason === null ? session.send('draft.approve', { draft: draft.id }) : session.send('draft.reject', { draft: draft.id, reason })
  const next = desk.state.selected
  speak(`${verdict}: ${draft.topic}. ${next === undefined ? 'No draft is left.' : `Next: ${next.topic}.`}`)
  draw()
  view.showDraft()
  answer.then(decision => {
    const isLate = !isLive()
    if (isLate) arrivals.answers++
    desk.answered(key, decision, isLate)
    byId('latency').textContent = duration(now() - startedAtMs)
    draw()
  }, (error: CommandError) => {
    desk.failed(key, error.code, error.message)
    speak(`${draft.topic}: ${error.message}`)
    draw()
    // The platform's record says what nobody here can know.
    if (!isFinal && isLive()) void openDesk()
  })
}

/** An answer to the page before the reload. */
function adoptOrphan (command: string | undefined, payload: unknown, error: CommandError | undefined): void {
  if (command === 'desk.open') return
  if (error === undefined) {
    desk.confirmed(payload as Decision)
  } else {
    const keys = desk.restoredPending(command === 'draft.approve' ? 'approved' : 'rejected')
    for (const key of keys) desk.failed(key, keys.length === 1 ? error.code : 'OUTCOME_UNKNOWN', error.message)
  }
  draw()
}

function listen (): void {
  session.onMessage('draft.added', draft => {
    const isLate = !isLive()
    if (isLate && lostAtMs !== null) arrivals.drafts++
    desk.add(draft, isLate)
    draw()
  })
  session.onMessage('draft.decided', decision => {
    const isLate = !isLive()
    if (isLate && lostAtMs !== null && decision.sessionId !== session.sessionId) arrivals.decisions++
    desk.decided(decision, session.sessionId, isLate)
    draw()
  })
  session.on('orphanResult', ({ command, payload, error }) => adoptOrphan(command, payload, error))
  session.on('gap', ({ from, to }) => {
    arrivals.lost += to - from + 1
    needsDesk = true
  })
  session.on('connecting', ({ resuming }) => {
    hadSession ||= resuming
    if (lostAtMs === null) connection.show('connecting')
  })
  session.on('live', showLive)
  session.on('detached', showLoss)
  session.on('replaced', () => showEnd('replaced', 'This session goes on in another tab.', 'This one takes no part in it any more.'))
  session.on('ended', ({ reason, renewing }) => {
    // One that a person left behind for this session is no news.
    if (renewing) renewal = isAsked ? null : reason
    else showEnd('ended', reasonText(reason), 'Your decisions so far are on the platform, unless this page says otherwise.')
  })
}

function showLive ({ sessionId, userId, resumed }: { sessionId: string, userId: string, resumed: boolean }): void {
  connection.show('live')
  byId('who').textContent = userId
  byId('session').textContent = sessionId.slice(0, 8)
  byId('session').title = sessionId
  document.body.dataset['session'] = sessionId
  if (isFirstLive) desk.claimRestored(resumed || hadSession)
  isFirstLive = isAsked = false
  desk.flow()
  if (lostAtMs !== null || renewal !== null) {
    const [awayMs, came, reason] = [lostAtMs === null ? 0 : now() - lostAtMs, arrivals, renewal]
    // Promises that the end of the old session has rejected are heard a moment later.
    queueMicrotask(() => showReturn(awayMs, came, reason))
  } else connection.banner(null)
  lostAtMs = renewal = null
  arrivals = { drafts: 0, decisions: 0, answers: 0, lost: 0 }
  if (needsDesk || !resumed) void openDesk()
  draw()
}

function showReturn (awayMs: number, came: Arrivals, renewed: string | null): void {
  const dismiss = (): void => connection.banner(null)
  const away = awayMs === 0 ? '' : ` after ${duration(awayMs)}`
  if (renewed === null) {
    connection.banner({ tone: came.lost > 0 ? 'warn' : 'good', title: `Back${away}.`, text: describeArrivals(came), action: 'Dismiss', run: dismiss })
    clearTimeout(goodNews)
    if (came.lost === 0) goodNews = setTimeout(() => { if (isLive()) dismiss() }, GOOD_NEWS_MS)
    return
  }
  const unknown = desk.state.entries.filter(({ phase }) => phase === 'unknown').length
  connection.banner({
    tone: 'warn',
    title: `Back${away}, in a new session.`,
    text: `${reasonText(renewed)} The desk is loaded afresh.${unknown === 0 ? '' : ` The outcome of ${unknown === 1 ? 'one decision is' : `${unknown} decisions is`} unknown; nothing was sent twice.`}`,
    action: 'Dismiss',
    run: dismiss
  })
}

function showLoss ({ retryInMs }: { retryInMs: number | null }): void {
  clearTimeout(goodNews)
  lostAtMs ??= now()
  const isOffline = !navigator.onLine
  connection.show(isOffline ? 'offline' : 'reconnecting')
  connection.banner({
    tone: 'warn',
    title: isOffline ? 'This computer is offline.' : 'The connection is gone.',
    text: 'You can go on: decisions wait here and are sent once it is back.',
    action: 'Try now',
    run: () => session.connect(),
    ...(retryInMs === null || isOffline ? {} : { untilMs: now() + retryInMs })
  })
  draw()
}

function showEnd (shown: 'replaced' | 'ended', title: string, text: string): void {
  clearTimeout(goodNews)
  isFinal = true
  connection.show(shown)
  connection.banner({ tone: 'stop', title, text: `${text} Nothing is sent from here until you start a new one.`, action: 'Start a new session', run: () => { isAsked = true; start() } })
  draw()
}

function start (): void {
  isFinal = false
  needsDesk = true
  lostAtMs = renewal = null
  connection.banner(null)
  connection.show('connecting')
  session = connect<Commands, typeof events>(url)
  listen()
  draw()
}

const saved = sessionStorage.getItem(SAVED_KEY)
if (saved !== null) desk.restore(JSON.parse(saved) as SavedEntry[])
start()
installKeys({
  selected: () => desk.state.selected,
  canDecide: () => !isFinal,
  approve: () => decide('approved', null),
  reject: (draft, reason) => decide('rejected', reason, draft),
  move: step => { desk.move(step); draw(); byId('queue').querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest' }) }
})
addEventListener('offline', () => { if (!isLive() && !isFinal) connection.show('offline') })
setInterval(() => { connection.tick(); view.tick(desk.state) }, TICK_MS)
