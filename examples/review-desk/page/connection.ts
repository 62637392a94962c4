// Shows how the connection fares: the pill, the banner, and what an outage brought. Told by main.ts
// what the client's events say; offers one action at a time. The words are for people who have
// never heard of a socket.

import { byId, duration, setText } from './view.js'

export type Shown = 'connecting' | 'live' | 'reconnecting' | 'offline' | 'signed-out' | 'replaced' | 'ended'

const LABELS: Record<Shown, string> = {
  connecting: 'Connecting',
  live: 'Live',
  reconnecting: 'Reconnecting',
  offline: 'Offline',
  'signed-out': 'Signed out',
  replaced: 'Open elsewhere',
  ended: 'Ended'
}

/** Why there is no connection now, by the client's reason; the desk goes on by itself. */
const LOSSES: Partial<Record<string, { readonly shown: Shown, readonly text: string }>> = {
  offline: { shown: 'offline', text: 'This device is offline.' },
  heartbeat_missed: { shown: 'reconnecting', text: 'The server has stopped answering.' },
  unreachable: { shown: 'reconnecting', text: 'The server cannot be reached.' },
  draining: { shown: 'reconnecting', text: 'The server is restarting.' },
  shutdown: { shown: 'reconnecting', text: 'The server is restarting.' },
  overloaded: { shown: 'reconnecting', text: 'The server is busy.' },
  rate_limited: { shown: 'reconnecting', text: 'The server is busy.' },
  detached_by_operator: { shown: 'reconnecting', text: 'An operator has dropped the connection.' },
  credentials_expired: { shown: 'reconnecting', text: 'Your sign-in is being renewed.' },
  refused: { shown: 'reconnecting', text: 'The server does not accept connections now.' },
  quota: { shown: 'reconnecting', text: 'You have too many desks open.' },
  unauthenticated: { shown: 'signed-out', text: 'The server does not accept your sign-in.' },
  token_failed: { shown: 'signed-out', text: 'Your sign-in cannot be renewed.' }
}
const LOST = { shown: 'reconnecting', text: 'The connection was lost.' } as const

export const lossOf = (reason: string): { readonly shown: Shown, readonly text: string } => LOSSES[reason] ?? LOST

/** Why a session is over, by the reason in `ended`. */
const ENDINGS: Partial<Record<string, string>> = {
  ended_by_operator: 'An operator ended this session.',
  ended_by_client: 'You ended this session.',
  idle: 'The session ended because nothing happened for a long time.',
  resume_window: 'The session ended because you were away for too long.',
  quota: 'The session ended because you have too many desks open.',
  state_lost: 'The server was restarted and has forgotten the old session.',
  shutdown: 'The server was shut down.',
  unknown: 'The server was restarted and has forgotten the old session.',
  unreachable: 'The server could not be reached.',
  unauthenticated: 'The server does not accept your sign-in.',
  credentials_expired: 'Your sign-in has expired.',
  forbidden: 'You are not allowed to review here.',
  page_hidden: 'This page was put away.',
  disposed: 'This page was closed.'
}

export const endingOf = (reason: string): string => ENDINGS[reason] ?? 'The server ended this session.'

/** What came between the loss of a connection and `live` of the next one. */
export interface Arrivals { drafts: number, decisions: number, answers: number, lost: number }

export interface Banner {
  readonly tone: 'warn' | 'good' | 'stop'
  readonly title: string
  readonly text: string
  readonly action: string
  readonly run: () => void
  /** Page clock; a countdown is shown up to it. */
  readonly untilMs?: number
}

export interface ConnectionView {
  show (shown: Shown): void
  /** Says it to a screen reader as well, unless the same is being said already. */
  banner (banner: Banner | null): void
  /** Says the banner again to somebody who tries what it rules out. */
  insist (): void
  tick (): void
}

const plural = (count: number, one: string, many = `${one}s`): string => `${count} ${count === 1 ? one : many}`

export function describeArrivals ({ drafts, decisions, answers, lost }: Arrivals): string {
  const parts = [
    drafts > 0 ? plural(drafts, 'draft') : '',
    answers > 0 ? `${plural(answers, 'answer')} to your decisions` : '',
    decisions > 0 ? plural(decisions, 'decision of others', 'decisions of others') : ''
  ].filter(part => part !== '')
  const came = parts.length === 0 ? 'Nothing arrived meanwhile.' : `Arrived meanwhile: ${parts.join(', ')}.`
  if (lost === 0) return `${came} Nothing was lost.`
  return `${came} ${plural(lost, 'older update')} could not be kept for you, so the desk was loaded afresh: the ` +
    'lists are complete.'
}

export function createConnectionView (speak: (text: string) => void): ConnectionView {
  const element = byId('banner')
  let current: Banner | null = null
  byId('banner-action').addEventListener('click', () => current?.run())

  const said = (banner: Banner | null): string => banner === null ? '' : `${banner.title} ${banner.text}`

  function tick (): void {
    const left = current?.untilMs === undefined ? 0 : Math.max(0, current.untilMs - performance.now())
    setText(
      byId('banner-countdown'),
      left > 500 ? `Next attempt in ${duration(Math.ceil(left / 1000) * 1000).replace('.0', '')}.` : ''
    )
  }
  return {
    show (shown) {
      byId('state').dataset['state'] = shown
      setText(byId('state-text'), LABELS[shown])
    },
    banner (banner) {
      const isNews = said(banner) !== said(current)
      current = banner
      const hadFocus = document.activeElement === byId('banner-action')
      element.hidden = banner === null
      // The button that took the focus is gone; what was read before is where a keyboard goes on.
      if (banner === null && hadFocus) byId('reader').focus()
      if (banner === null) return
      element.dataset['tone'] = banner.tone
      setText(byId('banner-title'), banner.title)
      setText(byId('banner-text'), banner.text)
      setText(byId('banner-action'), banner.action)
      if (isNews) speak(said(banner))
      tick()
    },
    insist () {
      if (current === null) return
      speak(said(current))
      element.classList.remove('insist')
      void element.offsetWidth
      element.classList.add('insist')
    },
    tick
  }
}
