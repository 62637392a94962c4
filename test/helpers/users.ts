// Users of a fleet: typed clients that talk all the time, note what they are told, and when.

import { setTimeout as delay } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { connect, type Session } from '../../src/client/client.js'

export interface User {
  readonly session: Session
  readonly id: string
  /** Numbers that were pushed to it, in the order of their arrival. */
  readonly heard: number[]
  /** When commands were answered. */
  readonly answeredAt: number[]
  readonly errors: string[]
  readonly wrong: unknown[]
  stop(): Promise<void>
}

export async function startUser (url: string): Promise<User> {
  const session = connect(url, { WebSocket: WebSocket as never })
  const heard: number[] = []
  const answeredAt: number[] = []
  const errors: string[] = []
  const wrong: unknown[] = []
  const control = { stopped: false }
  session.onMessage('tick', n => { heard.push(n as number) })
  await session.send('echo', 0)
  const talking = (async () => {
    for (let n = 1; !control.stopped; n++) {
      try {
        const answer = await session.send('echo', n)
        if (answer !== n) wrong.push([n, answer])
        answeredAt.push(performance.now())
      } catch (error) {
        errors.push((error as { code: string }).code)
      }
      await delay(10)
    }
  })()
  return {
    session,
    id: session.sessionId as string,
    heard,
    answeredAt,
    errors,
    wrong,
    async stop () {
      control.stopped = true
      await talking
    }
  }
}

/** Sends a message over REST; returns the status. */
export async function post (url: string, body: object): Promise<number> {
  const answer = await fetch(url, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body)
  })
  await answer.text()
  return answer.status
}

/** The longest wait of each user between two answers that ends after `from`, ascending. */
export function outages (users: readonly User[], from: number): number[] {
  return users.map(({ answeredAt }) => {
    let longest = 0
    for (let i = 1; i < answeredAt.length; i++) {
      if ((answeredAt[i] as number) >= from) {
        longest = Math.max(longest, (answeredAt[i] as number) - (answeredAt[i - 1] as number))
      }
    }
    return longest
  }).sort((a, b) => a - b)
}

export const p95 = (sorted: readonly number[]): number => Math.round(sorted[Math.floor(sorted.length * 0.95)] as number)
