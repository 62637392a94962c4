// Joins the typed client, the desk and what is drawn. One session at a time; `start` makes the next
// one, which only a person asks for. The client reconnects, resumes, replays and sends again by
// itself: what is here only shows it, and asks for the desk where no replay can bring it, which is
// after a load of the page, in a new session, and after a gap.
//
// Invariant: what a person has typed or decided is in `reasons` or in `desk.unsettled()`, and
// thereby in the tab's storage, until the platform has recorded it.

import { connect, type CommandError, type Session } from '../../../src/client/client.js'
import type { Commands, Decision, Draft, Verdict, events } from '../commands.js'
import { createConnectionView, describeArrivals, endingOf, lossOf, type Arrivals } from './connection.js'
import { createDeskModel, type Entry, type SavedEntry } from './desk.js'
import { installKeys } from './keys.js'
import { createReasons, readStored, store } from './reasons.js'
import { createRejectDialog, type Obstacle } from './reject-dialog.js'
import { byId, createView, duration, setText } from './view.js'

type DeskSession = Session<Commands, typeof events>

const SAVED_KEY = 'review-desk.unsettled'
const TICK_MS = 200
/** A message that all is well goes away by itself. */
const GOOD_NEWS_MS = 20_000

const now = (): number => performance.now()
const url = `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`
const storage = tabStorage()
const desk = createDeskModel(now)
const reasons = createReasons(storage)
const connection = createConnectionView(speak)
const view = createView({
  onSelect: id => { desk.select(id); draw(); view.showDraft() },
  reasonOf: draft => reasons.of(draft)
})
const dialog = createRejectDialog({
  reasons,
  obstacle,
  remark: () => isLive() ? '' : 'There is no connection now. Your decision waits here and is sent once it is back.',
  reject: (draft, reason) => decide('rejected', reason, draft)
})

let session: DeskSession
let userId: string | undefined
/** Why this session is over, in words; null while it is not. */
let ending: string | null = null
/**
 * The client tells of answers to the page before only while it restores, and of an old session only
 * if it had one.
 */
let isFirstLive = true
let hadSession = false
let needsDesk = true
/** A person asked for this session, and it is not live yet. */
let isAsked = false
let lostAtMs: number | null = null
let arrivals: Arrivals = { drafts: 0, decisions: 0, answers: 0, lost: 0 }
let renewal: string | null = null
let goodNews: ReturnType<typeof setTimeout> | undefined

/** A page that may not store anything still works until it is reloaded. */
function tabStorage (): Storage {
  try {
    return sessionStorage
  } catch {
    const items = new Map<string, string>()
    return {
      get length () { return items.size },
      key: index => [...items.keys()][index] ?? null,
      getItem: key => items.get(key) ?? null,
      setItem: (key, value) => { items.set(key, value) },
      removeItem: key => { items.delete(key) },
      clear: () => items.clear()
    }
  }
}

const isLive = (): boolean => session.state === 'live'

function speak (text: string): void {
  setText(byId('spoken'), text)
}

function draw (): void {
  view.draw(desk.state, { canDecide: ending === null, isLive: isLive(), userId })
  const unsettled = desk.unsettled()
  store(storage, SAVED_KEY, unsettled.length === 0 ? undefined : unsettled)
  dialog.refresh()
  guardLeaving()
}

/** Why this draft cannot be rejected now. The dialog says it, and keeps what was typed. */
function obstacle (draft: Draft): Obstacle | undefined {
  if (ending !== null) {
    return {
      text: `${ending} Your reason is kept. To send it, start a new session and press Reject again.`,
      action: 'Start a new session',
      run: restart
    }
  }
  if (!desk.state.isLoaded || desk.waits(draft.id) !== undefined) return undefined
  const entry = desk.entryOf(draft.id)
  const how = entry?.phase === 'recorded'
    ? `was ${entry.verdict} by ${entry.isMine ? 'you' : 'another reviewer'} meanwhile`
    : 'is no longer on the desk'
  return {
    text: `This draft ${how}, so your reason will not be sent. It is kept with the decision; copy it if you need it ` +
      'elsewhere.'
  }
}

async function openDesk (): Promise<void> {
  needsDesk = false
  try {
    desk.open(await session.send('desk.open'), session.sessionId)
    showOrphans()
    draw()
    resumeDialog()
  } catch {
    // The session was lost under way; the next one asks again.
    needsDesk = true
  }
}

/** Reasons for drafts that are nowhere on the desk any more. */
function showOrphans (): void {
  for (const { id, topic, text } of reasons.all()) {
    const isWaiting = desk.waits(id)?.topic === topic
    if (!isWaiting && desk.entryOf(id)?.topic !== topic) desk.orphan(id, topic, text.trim())
  }
}

/** The dialog that was open when the page was reloaded. */
function resumeDialog (): void {
  if (dialog.isOpen || reasons.asking === null) return
  const draft = desk.waits(reasons.asking)
  if (draft === undefined || reasons.of(draft) === '') reasons.asking = null
  else ask(draft)
}

function ask (draft: Draft | undefined = desk.state.selected): void {
  if (draft === undefined) return
  if (ending !== null) return connection.insist()
  dialog.open(draft)
}

function decide (verdict: Verdict, reason: string | null, draft: Draft | undefined = desk.state.selected): void {
  if (draft === undefined) return
  if (ending !== null) return connection.insist()
  if (reason !== null) reasons.keep(draft, reason)
  const startedAtMs = now()
  const key = desk.submit(draft, verdict, reason, isLive())
  const answer = reason === null
    ? session.send('draft.approve', { draft: draft.id })
    : session.send('draft.reject', { draft: draft.id, reason })
  const next = desk.state.selected
  speak(`${verdict}: ${draft.topic}. ${next === undefined ? 'No draft is left.' : `Next: ${next.topic}.`}`)
  draw()
  view.showDraft()
  answer.then(decision => {
    const isLate = !isLive()
    if (isLate) arrivals.answers++
    desk.answered(key, decision, isLate)
    settleReason(decision)
    setText(byId('latency'), duration(now() - startedAtMs))
    draw()
  }, (error: CommandError) => {
    desk.failed(key, error.code, error.message)
    speak(`${draft.topic}: ${desk.entryOf(draft.id)?.note ?? error.message}`)
    draw()
    // The platform's record says what nobody here can know.
    if (ending === null && isLive()) void openDesk()
  })
}

function settleReason ({ draft, reason }: Decision): void {
  if (reason !== null) reasons.recorded(draft, reason)
}

/** An answer to the page before the reload. */
function adoptOrphan (command: string | undefined, payload: unknown, error: CommandError | undefined): void {
  if (command === 'desk.open') return
  if (error === undefined) {
    desk.confirmed(payload as Decision)
    settleReason(payload as Decision)
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
    settleReason(decision)
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
  session.on('replaced', () => showEnd(
    'replaced', 'This desk is open in another tab, which has taken over.', 'Go on there.'
  ))
  session.on('ended', ({ reason, renewing }) => {
    // One that a person left behind for this session is no news.
    if (renewing) {
      renewal = isAsked ? null : reason
    } else {
      showEnd(
        'ended',
        endingOf(reason),
        'What you decided so far is on the platform, unless the list of decisions says otherwise.'
      )
    }
  })
}

function showLive ({
  sessionId, userId: user, resumed
}: { sessionId: string, userId: string, resumed: boolean }): void {
  userId = user
  connection.show('live')
  setText(byId('who'), user)
  setText(byId('session'), sessionId.slice(0, 8))
  byId('session').title = `Tell an operator this number if something goes wrong: ${sessionId}`
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
  const away = awayMs === 0 ? '' : ` after ${duration(Math.max(1, Math.round(awayMs / 1000)) * 1000).replace('.0', '')}`
  if (renewed === null) {
    connection.banner({
      tone: came.lost > 0 ? 'warn' : 'good',
      title: `Back${away}.`,
      text: describeArrivals(came),
      action: 'Dismiss',
      run: dismiss
    })
    clearTimeout(goodNews)
    if (came.lost === 0) goodNews = setTimeout(() => { if (isLive()) dismiss() }, GOOD_NEWS_MS)
    return
  }
  const unknown = desk.state.entries.filter(({ phase }) => phase === 'unknown').length
  const open = unknown === 0
    ? ''
    : ` Whether ${unknown === 1 ? 'one decision was' : `${unknown} decisions were`} recorded is not known; nothing ` +
      'was sent twice.'
  connection.banner({
    tone: 'warn',
    title: `Back${away}, in a new session.`,
    text: `${endingOf(renewed)} The desk is loaded afresh.${open}`,
    action: 'Dismiss',
    run: dismiss
  })
}

function showLoss ({ reason, retryInMs }: { reason: string, retryInMs: number | null }): void {
  clearTimeout(goodNews)
  lostAtMs ??= now()
  const { shown, text } = lossOf(reason)
  connection.show(shown)
  connection.banner({
    tone: 'warn',
    title: text,
    text: 'You can go on: decisions wait here and are sent once the connection is back.',
    action: 'Try now',
    run: () => session.connect(),
    ...(retryInMs === null ? {} : { untilMs: now() + retryInMs })
  })
  draw()
}

function showEnd (shown: 'replaced' | 'ended', title: string, text: string): void {
  clearTimeout(goodNews)
  ending = title
  connection.show(shown)
  connection.banner({
    tone: 'stop',
    title,
    text: `${text} Nothing is sent from here until you start a new session.`,
    action: 'Start a new session',
    run: restart
  })
  draw()
}

function restart (): void {
  isAsked = true
  start()
}

function start (): void {
  ending = null
  needsDesk = true
  lostAtMs = renewal = null
  connection.banner(null)
  connection.show('connecting')
  session = connect<Commands, typeof events>(url)
  listen()
  draw()
}

/**
 * What only this page knows is worth a question before the tab is closed. Nothing else is: browsers
 * ask reluctantly.
 */
function guardLeaving (): void {
  const isOpen = ({ phase, isMine }: Entry): boolean => isMine && (phase === 'queued' || phase === 'unsent')
  const isNeeded = reasons.asking !== null || desk.state.entries.some(isOpen)
  if (isNeeded) addEventListener('beforeunload', askBeforeLeaving)
  else removeEventListener('beforeunload', askBeforeLeaving)
}

function askBeforeLeaving (event: BeforeUnloadEvent): void {
  event.preventDefault()
}

const saved = readStored(storage, SAVED_KEY)
if (Array.isArray(saved)) desk.restore(saved as SavedEntry[])
start()
installKeys({
  approve: () => decide('approved', null),
  ask,
  isBusy: () => dialog.isOpen,
  move: step => {
    desk.move(step)
    draw()
    byId('queue').querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest' })
  }
})
setInterval(() => {
  connection.tick()
  view.tick(desk.state)
  guardLeaving()
}, TICK_MS)
