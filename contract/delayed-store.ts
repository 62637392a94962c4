// A store in front of another one: writes of different sessions take effect late and in a random
// order, and answers come later still. The writes of one session keep their order, and so do its
// answers (S-6). What is built on the port has to work behind it.

import type { SessionStore } from '../src/io/session/store.js'
import type { SessionId } from '../src/io/types.js'
import type { Random } from './random.js'

type Step = () => void

export function delayed (inner: SessionStore, random: Random): SessionStore {
  /** By session: what has to happen, in this order. */
  const lines = new Map<SessionId, Step[]>()
  let unanswered = 0
  const idle: Step[] = []
  let scheduled = false
  let closing = false

  function schedule (): void {
    if (scheduled || lines.size === 0) return
    scheduled = true
    setImmediate(run)
  }

  /** Some of the lines move by one step; the others wait for another turn. */
  function run (): void {
    scheduled = false
    for (const [id, steps] of shuffled([...lines], random)) {
      if (random() < 0.5) continue
      const step = steps.shift()
      if (steps.length === 0) lines.delete(id)
      step?.()
    }
    schedule()
  }

  function later (id: SessionId, step: Step): void {
    const line = lines.get(id)
    if (line === undefined) lines.set(id, [step])
    else line.push(step)
    schedule()
  }

  function write<T> (id: SessionId, act: () => T | Promise<T>): Promise<T> {
    unanswered++
    return new Promise<T>((resolve, reject) => {
      const answer = (settle: Step): void => later(id, () => {
        settle()
        if (--unanswered > 0) return
        for (const callback of idle.splice(0)) callback()
      })
      later(id, () => {
        new Promise<T>(resolve => { resolve(act()) })
          .then(result => answer(() => resolve(result)), (error: unknown) => answer(() => reject(error)))
      })
    })
  }

  return {
    traits: inner.traits,
    ...(inner.newId === undefined ? {} : { newId: inner.newId }),
    open: hooks => inner.open(hooks),
    health: () => inner.health(),
    async close () {
      closing = true
      if (unanswered > 0) await new Promise<void>(resolve => { idle.push(resolve) })
      await inner.close()
    },
    create: session => closing ? 'unavailable' : write(session.id, () => inner.create(session)),
    commit: async batch => closing ? 'unavailable' : await write(batch.id, () => inner.commit(batch)),
    end: (id, fence, tombstone) => closing ? 'unavailable' : write(id, () => inner.end(id, fence, tombstone))
  }
}

function shuffled<T> (items: T[], random: Random): T[] {
  for (let at = items.length - 1; at > 0; at--) {
    const other = Math.floor(random() * (at + 1))
    const item = items[at] as T
    items[at] = items[other] as T
    items[other] = item
  }
  return items
}
