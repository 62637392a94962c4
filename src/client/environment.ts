// What differs between runtimes: the clock, sockets, the state of the page, where a session is kept across a reload, and whose it is.
//
// Every type here is the smallest slice of the real thing, so that neither DOM types nor a driver is needed and tests pass their own.
// Nothing here knows the protocol. A page without one of these things lacks only what depends on it.

import type { Millis, Seq, SessionId, UserId } from '../io/types.js'

export interface Timing {
  /** Milliseconds that are never set back. Default: `performance.now`. */
  readonly now: () => Millis
  readonly setTimeout: (run: () => void, ms: Millis) => unknown
  readonly clearTimeout: (handle: unknown) => void
  /** 0 up to, but not including, 1. */
  readonly random: () => number
}

/** What the client uses of a WebSocket. The handlers are only assigned, and the libraries disagree about their events: hence unknown. */
export interface SocketLike {
  onmessage: unknown
  onclose: unknown
  onerror: unknown
  send (data: string): void
  close (code?: number): void
  /** Of the package `ws`: drops the connection without a closing handshake, which a dead peer never answers. */
  terminate? (): void
}
export type SocketConstructor = new (url: string, protocols: string[]) => SocketLike

export interface AbortSignalLike {
  readonly aborted: boolean
  readonly reason?: unknown
  addEventListener (type: 'abort', listener: () => void): void
  removeEventListener (type: 'abort', listener: () => void): void
}

interface Listenable {
  addEventListener? (type: string, listener: () => void): void
  removeEventListener? (type: string, listener: () => void): void
}

/** What the client uses of `globalThis` in a browser. */
export interface Page extends Listenable {
  readonly document?: Listenable & { readonly visibilityState?: string }
  readonly navigator?: { readonly onLine?: boolean, readonly locks?: Locks }
  readonly sessionStorage?: { getItem (key: string): string | null, setItem (key: string, value: string): void, removeItem (key: string): void }
}

interface Locks {
  request (name: string, options: { ifAvailable: true }, held: (lock: object | null) => Promise<void> | undefined): Promise<unknown>
}

/** What outlives a page. JSON; the next command id is not in it, since the server's watermark tells it at the resume (P-31). */
export interface SavedSession {
  readonly sessionId: SessionId
  /** Whose it is; missing from what version 0.1 saved. */
  readonly userId?: UserId
  readonly resumeToken: string
  readonly lastSeq: Seq
  /** Numbered and unanswered, lowest id first. `body` is the frame up to its id. */
  readonly commands: readonly { readonly id: number, readonly command: string, readonly body: string }[]
}

/**
 * Keeps one session across restarts. `save` and `clear` have taken effect when they return: what is saved is relied upon by the very next frame,
 * which acknowledges outputs (P-21) or uses up a resume token (P-28).
 */
export interface Persistence {
  load (): SavedSession | null | undefined | Promise<SavedSession | null | undefined>
  save (session: SavedSession): void
  clear (): void
  /** Whether other clients may save to the same place; it is then left alone when one of them takes the session over. Default false. */
  readonly isShared?: boolean
}

const BACKOFF_BASE_MS = 500
const BACKOFF_CAP_MS = 30_000
/** Longer delays overflow the timers of every runtime and would fire at once. */
export const MAX_DELAY_MS = 2 ** 31 - 1
const LOCK_RETRY_MS = 150

/** Full jitter, so that clients that were cut off together do not come back together: 0–500 ms at first, 0–30 s from the seventh on. */
export function backoffMs (attempt: number, random: () => number): Millis {
  return random() * Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** attempt)
}

/** Timers by name: arming a name again moves it, and `disarm()` without names leaves none behind. */
export interface Timers {
  arm (name: string, ms: Millis, run: () => void): void
  disarm (...names: string[]): void
}

export function createTimers ({ setTimeout, clearTimeout }: Timing): Timers {
  const armed = new Map<string, unknown>()
  function disarm (...names: string[]): void {
    for (const name of names.length > 0 ? names : [...armed.keys()]) {
      clearTimeout(armed.get(name))
      armed.delete(name)
    }
  }
  return {
    arm (name, ms, run) {
      if (armed.has(name)) disarm(name)
      armed.set(name, setTimeout(() => { armed.delete(name); run() }, Math.min(ms, MAX_DELAY_MS)))
    },
    disarm
  }
}

/** Tells when an attempt is worth making at once (`wake`), and when the page may go for good (`hide`). Returns the way out. */
export function watchPage (page: Page, wake: () => void, hide: () => void): () => void {
  const { document } = page
  const onVisible = (): void => { if (document?.visibilityState === 'visible') wake() }
  page.addEventListener?.('online', wake)
  page.addEventListener?.('pagehide', hide)
  document?.addEventListener?.('visibilitychange', onVisible)
  return () => {
    page.removeEventListener?.('online', wake)
    page.removeEventListener?.('pagehide', hide)
    document?.removeEventListener?.('visibilitychange', onVisible)
  }
}

/** The session of a tab, in its sessionStorage; undefined outside browsers and where a page may not store anything. */
export function tabPersistence (page: Page, key: string): Persistence | undefined {
  if (page.document === undefined) return undefined
  let storage: Page['sessionStorage']
  try {
    storage = page.sessionStorage
  } catch {
    // The getter throws in frames without an origin of their own.
  }
  return storage && {
    load: () => JSON.parse(storage.getItem(key) ?? 'null') as SavedSession | null,
    save: session => storage.setItem(key, JSON.stringify(session)),
    clear: () => storage.removeItem(key)
  }
}

/** Storages are written by users and by older versions too. */
export function isSavedSession (value: SavedSession | null | undefined): value is SavedSession {
  return typeof value?.sessionId === 'string' && typeof value.resumeToken === 'string' && Number.isSafeInteger(value.lastSeq) &&
    Array.isArray(value.commands) && value.commands.every(({ id, body }) => id > 0 && typeof body === 'string')
}

export interface SessionLock {
  /** True when no other page holds the session, or nobody can tell. */
  acquire (sessionId: SessionId): Promise<boolean>
  release (): void
}

/**
 * Says whose a saved session is: a duplicated tab starts with a copy of the storage, and must not take the session from the tab it was made of.
 * A reload asks twice, since the lock of the page before it may be let go a moment late.
 */
export function createSessionLock (locks: Locks | undefined, timers: Timers): SessionLock {
  let free: (() => void) | undefined
  /** Changes with each release, so that a lock that is granted after it is not kept. */
  let turn = 0
  function request (name: string): Promise<boolean> {
    const mine = turn
    return new Promise(resolve => {
      const held = (lock: object | null): Promise<void> | undefined => {
        resolve(lock !== null)
        return lock === null || mine !== turn ? undefined : new Promise(_resolve => { free = _resolve })
      }
      Promise.resolve(locks?.request(name, { ifAvailable: true }, held)).then(() => resolve(true), () => resolve(true))
    })
  }
  return {
    async acquire (sessionId) {
      const name = `holdfast.${sessionId}`
      if (await request(name)) return true
      await new Promise<void>(resolve => timers.arm('lock', LOCK_RETRY_MS, resolve))
      return request(name)
    },
    release () {
      turn++
      free?.()
      free = undefined
    }
  }
}
