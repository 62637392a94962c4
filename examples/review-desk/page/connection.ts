// Shows how the connection fares: the pill, the banner, and what an outage brought. Told by main.ts what the client's events say; offers one action at a time.

import type { EndReason } from '../../../src/io/types.js'
import { byId, duration } from './view.js'

export type Shown = 'connecting' | 'live' | 'reconnecting' | 'offline' | 'replaced' | 'ended'

const LABELS: Record<Shown, string> = {
  connecting: 'Connecting',
  live: 'Live',
  reconnecting: 'Reconnecting',
  offline: 'Offline',
  replaced: 'Replaced',
  ended: 'Ended'
}

const REASONS: Partial<Record<EndReason | 'unknown' | 'unreachable', string>> = {
  ended_by_operator: 'An operator ended this session.',
  ended_by_client: 'You ended this session.',
  idle: 'The session ended because nothing happened for a long time.',
  resume_window: 'The session ended because you were away for too long.',
  state_lost: 'The server lost its state.',
  shutdown: 'The server was shut down.',
  unknown: 'The server no longer knows the old session, as after a restart.',
  unreachable: 'The server could not be reached.'
}

export const reasonText = (reason: string): string => REASONS[reason as EndReason] ?? `The session has ended: ${reason.replaceAll('_', ' ')}.`

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

const plural = (count: number, one: string, many = `${one}s`): string => `${count} ${count === 1 ? one : many}`

export function describeArrivals ({ drafts, decisions, answers, lost }: Arrivals): string {
  const parts = [
    drafts > 0 ? plural(drafts, 'draft') : '',
    answers > 0 ? `${plural(answers, 'answer')} to your decisions` : '',
    decisions > 0 ? plural(decisions, 'decision of others', 'decisions of others') : ''
  ].filter(part => part !== '')
  const came = parts.length === 0 ? 'Nothing arrived meanwhile.' : `Arrived meanwhile: ${parts.join(', ')}.`
  if (lost > 0) return `${came} ${plural(lost, 'older message')} did not fit into the outbox and will not come, so the desk was loaded afresh.`
  return `${came} Nothing was lost.`
}

export function createConnectionView (): { show (shown: Shown): void, banner (banner: Banner | null): void, tick (): void } {
  let current: Banner | null = null
  byId('banner-action').addEventListener('click', () => current?.run())

  function tick (): void {
    const left = current?.untilMs === undefined ? 0 : Math.max(0, current.untilMs - performance.now())
    byId('banner-countdown').textContent = left > 500 ? `Next attempt in ${duration(Math.ceil(left / 1000) * 1000).replace('.0', '')}.` : ''
  }
  return {
    show (shown) {
      byId('state').dataset['state'] = shown
      byId('state-text').textContent = LABELS[shown]
    },
    banner (banner) {
      current = banner
      const element = byId('banner')
      element.hidden = banner === null
      if (banner === null) return
      element.dataset['tone'] = banner.tone
      byId('banner-title').textContent = banner.title
      byId('banner-text').textContent = banner.text
      byId('banner-action').textContent = banner.action
      tick()
    },
    tick
  }
}
