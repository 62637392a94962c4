// Draws the desk: state in, DOM out. Every text goes in as text, never as markup. Rows of lists are kept by key and only changed where they differ, so that focus,
// scroll position and selection survive every update. Decides nothing.

import type { Draft } from '../commands.js'
import type { DeskState, Entry, Phase } from './desk.js'

export const byId = <E extends HTMLElement = HTMLElement>(id: string): E => document.getElementById(id) as E

const PHASES: Record<Phase, string> = {
  queued: 'not sent yet',
  sending: 'no answer yet',
  recorded: 'recorded',
  refused: 'refused',
  unsent: 'never sent',
  unknown: 'outcome unknown'
}
const VERBS = { approved: 'Approved', rejected: 'Rejected' } as const

function text (target: Element, value: string): void {
  if (target.textContent !== value) target.textContent = value
}

function make (tag: string, className: string, content = ''): HTMLElement {
  const made = document.createElement(tag)
  made.className = className
  made.textContent = content
  return made
}

export function duration (ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`
  return ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.floor(ms / 60_000)} min ${Math.round(ms % 60_000 / 1000)} s`
}

function age (ms: number): string {
  const minutes = Math.floor(ms / 60_000)
  if (minutes < 1) return 'now'
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`
}

/** Keeps one element per key, in the order of the items. */
function createList<T> (parent: HTMLElement, keyOf: (item: T) => number, create: (item: T) => HTMLElement, update: (row: HTMLElement, item: T) => void): (items: readonly T[]) => void {
  const rows = new Map<number, HTMLElement>()
  return items => {
    const keys = new Set(items.map(keyOf))
    for (const [key, row] of rows) {
      if (keys.has(key)) continue
      row.remove()
      rows.delete(key)
    }
    let before: Element | null = parent.firstElementChild
    for (const item of items) {
      const row = rows.get(keyOf(item)) ?? create(item)
      rows.set(keyOf(item), row)
      if (row === before) before = row.nextElementSibling
      else parent.insertBefore(row, before)
      update(row, item)
    }
  }
}

function part (row: Element, className: string): HTMLElement {
  return row.querySelector(`.${className}`) as HTMLElement
}

function createQueueRow (draft: Draft, onSelect: (id: number) => void): HTMLElement {
  const row = document.createElement('li')
  const button = document.createElement('button')
  button.type = 'button'
  button.append(make('span', 'topic', draft.topic), make('span', 'sub'), make('span', 'chip'))
  button.addEventListener('click', () => onSelect(draft.id))
  row.dataset['draft'] = String(draft.id)
  row.append(button)
  return row
}

function createLogRow (entry: Entry): HTMLElement {
  const row = document.createElement('li')
  const status = make('p', 'status')
  status.append(make('span', 'verdict'), make('span', 'phase'), make('span', 'detail'))
  row.append(make('p', 'topic', entry.topic), status, make('p', 'reason'), make('p', 'entry-note'))
  row.dataset['entry'] = String(entry.key)
  row.dataset['draft'] = String(entry.draft)
  return row
}

function detailOf (entry: Entry, nowMs: number): string {
  if (entry.phase === 'sending' || entry.phase === 'queued') {
    return Number.isNaN(entry.startedAtMs) ? 'since before the reload' : duration(Math.floor((nowMs - entry.startedAtMs) / 100) * 100)
  }
  if (entry.phase !== 'recorded') return ''
  const parts = [
    entry.isMine ? '' : 'by another session',
    entry.latencyMs === null ? '' : duration(entry.latencyMs),
    entry.isMine && entry.command !== null ? `command ${entry.command}` : '',
    entry.isLate ? 'after the outage' : ''
  ]
  // Lines break between the parts only, behind a dot.
  return parts.filter(each => each !== '').map(each => each.replaceAll(' ', '\u00a0')).join('\u00a0· ')
}

function updateLogRow (row: HTMLElement, entry: Entry, nowMs: number): void {
  row.dataset['phase'] = entry.phase
  row.dataset['verdict'] = entry.verdict
  row.dataset['mine'] = String(entry.isMine)
  text(part(row, 'verdict'), VERBS[entry.verdict])
  text(part(row, 'phase'), PHASES[entry.phase])
  text(part(row, 'detail'), detailOf(entry, nowMs))
  for (const [name, value] of [['reason', entry.reason], ['entry-note', entry.note]] as const) {
    const line = part(row, name)
    text(line, value ?? '')
    line.hidden = value === null
  }
}

export interface View {
  draw (state: DeskState, connection: { canDecide: boolean, isLive: boolean }): void
  /** Redraws what changes by itself: ages and running times. */
  tick (state: DeskState): void
  /** Brings the draft into view where the list is below it. */
  showDraft (): void
}

export function createView (onSelect: (id: number) => void): View {
  let shown: Draft | undefined
  let latest: DeskState | undefined

  const drawQueue = createList<Draft>(byId('queue'), ({ id }) => id, draft => createQueueRow(draft, onSelect), (row, draft) => {
    const isUnknown = latest?.entries.find(entry => entry.draft === draft.id)?.phase === 'unknown'
    const isNew = latest?.arrivedAway.has(draft.id) === true
    const button = row.firstElementChild as HTMLElement
    if (latest?.selected?.id === draft.id) button.setAttribute('aria-current', 'true')
    else button.removeAttribute('aria-current')
    row.dataset['away'] = String(isNew)
    text(part(row, 'sub'), `${draft.customer} · ${draft.channel} · ${age(Date.now() - draft.at)}`)
    text(part(row, 'chip'), isUnknown ? 'outcome unknown' : isNew ? 'arrived while away' : '')
  })
  const drawLog = createList<Entry>(byId('log'), ({ key }) => key, createLogRow, (row, entry) => updateLogRow(row, entry, performance.now()))

  function drawDraft (draft: Draft): void {
    text(byId('draft-age'), age(Date.now() - draft.at))
    if (shown?.id === draft.id) return
    text(byId('draft-id'), `#${draft.id}`)
    text(byId('draft-channel'), draft.channel)
    text(byId('draft-topic'), draft.topic)
    text(byId('draft-customer'), draft.customer)
    text(byId('draft-question'), draft.question)
    text(byId('draft-answer'), draft.answer)
    text(byId('draft-confidence'), `${Math.round(draft.confidence * 100)} % sure`)
    byId('draft-bar').setAttribute('width', String(draft.confidence * 100))
    byId('draft-flags').replaceChildren(...draft.flags.map(flag => make('li', 'flag', flag)))
    byId('draft').dataset['draft'] = String(draft.id)
    byId('reader').scrollTo(0, 0)
  }

  function drawNote (draft: Draft, entries: readonly Entry[]): void {
    const last = entries.find(entry => entry.draft === draft.id)
    const isOpen = last !== undefined && (last.phase === 'unknown' || last.phase === 'refused' || last.phase === 'unsent')
    const note = byId('draft-note')
    note.hidden = !isOpen
    text(note, isOpen ? `You ${last.verdict} this draft before: ${PHASES[last.phase]}. ${last.note ?? ''}` : '')
  }

  return {
    draw (state, { canDecide, isLive }) {
      latest = state
      const { waiting, entries, selected } = state
      text(byId('queue-count'), String(waiting.length))
      text(byId('log-count'), String(state.total))
      drawQueue(waiting)
      drawLog(entries)
      byId('draft').hidden = byId('actions').hidden = selected === undefined
      byId('empty').hidden = selected !== undefined
      byId('log-empty').hidden = entries.length > 0
      if (selected !== undefined) {
        drawDraft(selected)
        drawNote(selected, entries)
      } else if (state.isLoaded) {
        text(byId('empty-title'), isLive ? 'All drafts are decided' : 'Nothing is left to decide here')
        text(byId('empty-text'), isLive ? 'The next one appears here as soon as the platform has it.' : 'What the platform has meanwhile comes with the connection.')
      }
      shown = selected
      for (const id of ['approve', 'reject']) byId<HTMLButtonElement>(id).disabled = !canDecide
      document.title = waiting.length === 0 ? 'Review desk' : `(${waiting.length}) Review desk`
    },

    tick (state) {
      latest = state
      drawQueue(state.waiting)
      drawLog(state.entries)
      if (state.selected !== undefined) text(byId('draft-age'), age(Date.now() - state.selected.at))
    },

    showDraft () {
      if (byId('reader').getBoundingClientRect().top < 0) byId('reader').scrollIntoView()
    }
  }
}
