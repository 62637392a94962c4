// Reasons that somebody began to type, by draft, until the platform has recorded the decision. Each
// keystroke is kept, so neither a reload, a lost session nor a faster reviewer takes away what a
// person wrote.
//
// Invariants: a text leaves this store only when the platform has recorded it or its author has
// emptied the field. A storage that cannot be written costs the reload, not the text.

import type { Draft } from '../commands.js'

export type Subject = Pick<Draft, 'id' | 'topic'>

interface Kept { readonly topic: string, readonly text: string }
interface Saved { readonly asking: number | null, readonly texts: readonly (readonly [number, Kept])[] }

export interface Reasons {
  /** Draft whose dialog is open, also across a reload. */
  asking: number | null
  /** What was typed for this draft; empty if nothing was. */
  of (subject: Subject): string
  keep (subject: Subject, text: string): void
  /** The platform has recorded this text for this draft, so it is safe there. */
  recorded (draft: number, text: string): void
  all (): readonly { readonly id: number, readonly topic: string, readonly text: string }[]
}

const KEY = 'review-desk.reasons'

/** What a storage holds under a key; undefined if it cannot be read or holds something else. */
export function readStored (storage: Storage, key: string): unknown {
  try {
    return JSON.parse(storage.getItem(key) ?? 'null') ?? undefined
  } catch {
    return undefined
  }
}

/** Stores a value, or nothing where the browser refuses. */
export function store (storage: Storage, key: string, value: unknown): void {
  try {
    if (value === undefined) storage.removeItem(key)
    else storage.setItem(key, JSON.stringify(value))
  } catch {
    // The page works without; what it shows is still in memory.
  }
}

export function createReasons (storage: Storage): Reasons {
  const saved = readStored(storage, KEY) as Partial<Saved> | undefined
  const texts = new Map<number, Kept>(Array.isArray(saved?.texts) ? saved.texts : [])
  let asking = saved?.asking ?? null

  function save (): void {
    store(storage, KEY, texts.size === 0 && asking === null ? undefined : { asking, texts: [...texts] } satisfies Saved)
  }
  return {
    get asking () { return asking },
    set asking (draft) {
      asking = draft
      save()
    },
    of ({ id, topic }) {
      const kept = texts.get(id)
      // A platform that starts anew gives the same numbers to other drafts.
      return kept?.topic === topic ? kept.text : ''
    },
    keep ({ id, topic }, text) {
      if (text.trim() === '') texts.delete(id)
      else texts.set(id, { topic, text })
      save()
    },
    recorded (draft, text) {
      if (texts.get(draft)?.text.trim() !== text) return
      texts.delete(draft)
      save()
    },
    all: () => [...texts].map(([id, { topic, text }]) => ({ id, topic, text }))
  }
}
