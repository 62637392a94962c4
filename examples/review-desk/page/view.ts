// Draws the desk: state in, DOM out. Every text goes in as text, never as markup. Rows of lists are
// kept by key and only changed where they differ, so that focus, scroll position and selection
// survive every update. Decides nothing.

import type { Draft } from '../commands.js'
import type { DeskState, Entry, Phase } from './desk.js'

export const byId = <E extends HTMLElement = HTMLElement>(id: string): E => document.getElementById(id) as E

const PHASES: Record<Phase, string> = {
  queued: 'not sent yet',
  sending: 'no answer yet',
  recorded: 'recorded',
  refused: 'refused',
  unsent: 'never sent',
  unknown: 'not known if recorded'
}
const VERBS = { approved: 'Approved', rejected: 'Rejected' } as const

/** Writes only what differs, so that a screen reader hears of changes alone. */
export function setText (target: Element, value: string): void {
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
  return ms < 60_000
    ? `${(ms / 1000).toFixed(1)} s`
    : `${Math.floor(ms / 60_000)} min ${Math.round(ms % 60_000 / 1000)} s`
}

function age (ms: number): string {
  const minutes = Math.floor(ms / 60_000)
  if (minutes < 1) return 'now'
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h`
}

interface ListPort<T> {
  keyOf (item: T): number
  create (item: T): HTMLElement
  update (row: HTMLElement, item: T): void
}

/** Keeps one element per key, in the order of the items. */
function createList<T> (parent: HTMLElement, { keyOf, create, update }: ListPort<T>): (items: readonly T[]) => void {
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

function detailOf (entry: Entry, nowMs: number, userId: string | undefined): string {
  if (entry.phase === 'sending' || entry.phase === 'queued') {
    return Number.isNaN(entry.startedAtMs)
      ? 'since before the reload'
      : duration(Math.floor((nowMs - entry.startedAtMs) / 100) * 100)
  }
  if (entry.phase !== 'recorded') return ''
  const parts = [
    entry.isMine ? '' : entry.reviewer === userId ? 'by you, elsewhere' : `by ${entry.reviewer}`,
    entry.latencyMs === null ? '' : duration(entry.latencyMs),
    entry.isLate ? 'after the outage' : ''
  ]
  // Lines break between the parts only, behind a dot.
  return parts.filter(each => each !== '').map(each => each.replaceAll(' ', '\u00a0')).join('\u00a0· ')
}

function updateLogRow (
  row: HTMLElement, entry: Entry, nowMs: number, { userId, typed }: { userId: string | undefined, typed: string }
): void {
  row.dataset['phase'] = entry.phase
  row.dataset['verdict'] = entry.verdict
  row.dataset['mine'] = String(entry.isMine)
  setText(part(row, 'verdict'), VERBS[entry.verdict])
  setText(part(row, 'phase'), PHASES[entry.phase])
  setText(part(row, 'detail'), detailOf(entry, nowMs, userId))
  // A reason that was begun for a draft that somebody else has decided.
  const begun = entry.phase === 'recorded' && typed !== '' && typed !== entry.reason &&
    entry.note?.includes(typed) !== true
  const note = begun ? `${entry.note ?? ''} You had begun a reason: “${typed}”`.trim() : entry.note
  for (const [name, value] of [['reason', entry.reason], ['entry-note', note]] as const) {
    const line = part(row, name)
    setText(line, value ?? '')
    line.hidden = value === null
  }
}

export interface View {
  draw (state: DeskState, page: { canDecide: boolean, isLive: boolean, userId: string | undefined }): void
  /** Redraws what changes by itself: ages and running times. */
  tick (state: DeskState): void
  /** Brings the top of the draft into view, and on a phone folds the list away. */
  showDraft (): void
}

export interface ViewPort {
  onSelect (id: number): void
  /** What was typed for a draft and is not recorded. */
  reasonOf (subject: Pick<Draft, 'id' | 'topic'>): string
}

export function createView ({ onSelect, reasonOf }: ViewPort): View {
  let shown: Draft | undefined
  let latest: DeskState | undefined
  let userId: string | undefined

  function chipOf (draft: Draft): string {
    const last = latest?.entries.find(entry => entry.draft === draft.id)
    if (last !== undefined) return PHASES[last.phase]
    if (reasonOf(draft) !== '') return 'reason begun'
    return latest?.arrivedAway.has(draft.id) === true ? 'arrived while away' : ''
  }

  const drawQueue = createList<Draft>(byId('queue'), {
    keyOf: ({ id }) => id,
    create: draft => createQueueRow(draft, onSelect),
    update (row, draft) {
      const button = row.firstElementChild as HTMLElement
      if (latest?.selected?.id === draft.id) button.setAttribute('aria-current', 'true')
      else button.removeAttribute('aria-current')
      row.dataset['away'] = String(latest?.arrivedAway.has(draft.id) === true)
      setText(part(row, 'sub'), `${draft.customer} · ${draft.channel} · ${age(Date.now() - draft.at)}`)
      setText(part(row, 'chip'), chipOf(draft))
    }
  })
  const drawLog = createList<Entry>(byId('log'), {
    keyOf: ({ key }) => key,
    create: createLogRow,
    update: (row, entry) => {
      const typed = reasonOf({ id: entry.draft, topic: entry.topic }).trim()
      updateLogRow(row, entry, performance.now(), { userId, typed })
    }
  })

  const toggle = byId('queue-toggle')
  function fold (isOpen: boolean): void {
    toggle.setAttribute('aria-expanded', String(isOpen))
    setText(toggle, isOpen ? 'Hide list' : 'Show list')
    byId('waiting').dataset['open'] = String(isOpen)
  }
  toggle.addEventListener('click', () => fold(toggle.getAttribute('aria-expanded') !== 'true'))

  /** On a phone the decisions are far below the draft: the latest one is told above it. */
  function drawLatest (entry: Entry | undefined): void {
    const line = byId('latest')
    line.hidden = entry === undefined
    if (entry === undefined) return
    line.dataset['phase'] = entry.phase
    setText(line, `${VERBS[entry.verdict]}, ${PHASES[entry.phase]}: ${entry.topic}`)
  }

  function drawDraft (draft: Draft): void {
    setText(byId('draft-age'), age(Date.now() - draft.at))
    if (shown?.id === draft.id) return
    setText(byId('draft-id'), `#${draft.id}`)
    setText(byId('draft-channel'), draft.channel)
    setText(byId('draft-topic'), draft.topic)
    setText(byId('draft-customer'), draft.customer)
    setText(byId('draft-question'), draft.question)
    setText(byId('draft-answer'), draft.answer)
    setText(byId('draft-confidence'), `${Math.round(draft.confidence * 100)} % sure`)
    byId('draft-bar').setAttribute('width', String(draft.confidence * 100))
    byId('draft-flags').replaceChildren(...draft.flags.map(flag => make('li', 'flag', flag)))
    byId('draft').dataset['draft'] = String(draft.id)
    byId('reader').scrollTo(0, 0)
  }

  function drawNote (draft: Draft, entries: readonly Entry[]): void {
    const last = entries.find(entry => entry.draft === draft.id)
    const isOpen = last !== undefined &&
      (last.phase === 'unknown' || last.phase === 'refused' || last.phase === 'unsent')
    const note = byId('draft-note')
    note.hidden = !isOpen
    setText(note, isOpen ? `You ${last.verdict} this draft before: ${PHASES[last.phase]}. ${last.note ?? ''}` : '')
    setText(byId('reject-label'), reasonOf(draft) === '' ? 'Reject' : 'Go on rejecting')
  }

  return {
    draw (state, { canDecide, isLive, userId: user }) {
      latest = state
      userId = user
      const { waiting, entries, selected } = state
      setText(byId('queue-count'), String(waiting.length))
      setText(byId('log-count'), String(state.total))
      drawQueue(waiting)
      drawLog(entries)
      const at = waiting.findIndex(({ id }) => id === selected?.id)
      setText(byId('position'), at < 0 ? '' : `${at + 1} of ${waiting.length}`)
      byId('walk').hidden = at < 0
      if (at < 0) fold(false)
      drawLatest(entries.find(({ isMine }) => isMine))
      const hadFocus = document.activeElement?.closest('#actions, #queue') !== null
      byId('draft').hidden = byId('actions').hidden = selected === undefined
      byId('empty').hidden = selected !== undefined
      byId('log-empty').hidden = entries.length > 0
      if (selected !== undefined) {
        drawDraft(selected)
        drawNote(selected, entries)
      } else if (state.isLoaded) {
        setText(byId('empty-title'), isLive ? 'All drafts are decided' : 'Nothing is left to decide here')
        setText(
          byId('empty-text'),
          isLive
            ? 'The next one appears here as soon as the platform has it.'
            : 'What the platform has meanwhile comes with the connection.'
        )
      }
      shown = selected
      // What had the keyboard is gone, with the last draft for instance: the reader is where one
      // goes on.
      if (hadFocus && document.activeElement === document.body) byId('reader').focus()
      // Not `disabled`: it would lose the focus, and could not say why.
      for (const id of ['approve', 'reject']) byId(id).setAttribute('aria-disabled', String(!canDecide))
      document.title = waiting.length === 0 ? 'Review desk' : `(${waiting.length}) Review desk`
    },

    tick (state) {
      latest = state
      drawQueue(state.waiting)
      drawLog(state.entries)
      if (state.selected !== undefined) setText(byId('draft-age'), age(Date.now() - state.selected.at))
    },

    showDraft () {
      fold(false)
      if (byId('reader').getBoundingClientRect().top < 0) byId('reader').scrollIntoView()
    }
  }
}
