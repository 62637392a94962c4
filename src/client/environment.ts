// What differs between runtimes: the clock, sockets, the state of the page, where a session is kept
// across a reload, and whose it is.
//
// Every type here is the smallest slice of the real thing, so that neither DOM types nor a driver
// is needed and tests pass their own. Nothing here knows the protocol. A page without one of these
// things lacks only what depends on it.

import type { Millis, Seq, SessionId, UserId } from '../io/types.js'

export interface Timing {
  /** Milliseconds that are never set back. Default: `performance.now`. */
  readonly now: () => Millis
  /**
   * Milliseconds of the clock on the wall, which goes on while a machine sleeps. Default:
   * `Date.now`.
   */
  readonly wall: () => Millis
  readonly setTimeout: (run: () => void, ms: Millis) => unknown
  readonly clearTimeout: (handle: unknown) => void
  /** 0 up to, but not including, 1. */
  readonly random: () => number
}

/**
 * What the client uses of a WebSocket. The handlers are only assigned, and the libraries disagree
 * about their events.
 */
export interface SocketLike {
  onmessage: unknown
  onclose: unknown
  onerror: unknown
  /** Bytes that the network has not taken yet. */
  readonly bufferedAmount?: number
  /**
   * Of the package `ws`: the TCP connection, which counts bytes of messages that are not complete
   * yet.
   */
  readonly _socket?: { readonly bytesRead: number } | null
  send (data: string): void
  close (code?: number): void
  /**
   * Of the package `ws`: drops the connection without a closing handshake, which a dead peer never
   * answers.
   */
  terminate? (): void
}
export type SocketConstructor = new (url: string, protocols: string[]) => SocketLike

export interface AbortSignalLike {
  readonly aborted: boolean
  readonly reason?: unknown
  addEventListener (type: 'abort', listener: () => void): void
  removeEventListener (type: 'abort', listener: () => void): void
}

type PageListener = (event: { readonly persisted?: boolean }) => void
interface Listenable {
  addEventListener? (type: string, listener: PageListener): void
  removeEventListener? (type: string, listener: PageListener): void
}

/** What the client uses of `globalThis` in a browser. */
export interface Page extends Listenable {
  readonly document?: Listenable & { readonly visibilityState?: string }
  readonly navigator?: { readonly onLine?: boolean, readonly locks?: Locks }
  readonly sessionStorage?: {
    getItem (key: string): string | null
    setItem (key: string, value: string): void
    removeItem (key: string): void
  }
}

interface Locks {
  request (
    name: string, options: { ifAvailable: true }, held: (lock: object | null) => Promise<void> | undefined
  ): Promise<unknown>
}

/**
 * What outlives a page. JSON; the next command id is not in it, since the server's watermark tells
 * it (P-31).
 */
export interface SavedSession {
  readonly sessionId: SessionId
  /** Whose it is; missing from what version 0.1 saved. */
  readonly userId?: UserId
  readonly resumeToken: string
  readonly lastSeq: Seq
  /** Numbered and unanswered, lowest id first. `body` is the frame up to its id. */
  readonly commands: readonly SavedCommand[]
}
export interface SavedCommand {
  readonly id: number
  readonly command: string
  readonly body: string
  /** Its promise had settled: it is not sent again, and its answer is told to nobody. */
  readonly isDropped?: boolean
}

/**
 * Keeps one session across restarts. `save` and `clear` have taken effect when they return: what is
 * saved is relied upon by the very next frame, which acknowledges outputs (P-21) or uses up a
 * resume token (P-28).
 */
export interface Persistence {
  load (): SavedSession | null | undefined | Promise<SavedSession | null | undefined>
  save (session: SavedSession): void
  clear (): void
  /**
   * Whether other clients may save to the same place; it is then left alone when one of them takes
   * the session over. Default false.
   */
  readonly isShared?: boolean
}

/** Longer delays overflow the timers of every runtime and would fire at once. */
export const MAX_DELAY_MS = 2 ** 31 - 1
/**
 * How long a storage may take to answer, and a lock. Without an answer the session goes on without
 * what it was asked for.
 */
const LOAD_MS = 3_000
const LOCK_MS = 2_000
const LOCK_RETRY_MS = 150

/**
 * Timers by name: arming a name again moves it, and `disarm()` without names leaves none behind.
 */
export interface Timers {
  arm (name: unknown, ms: Millis, run: () => void): void
  has (name: unknown): boolean
  disarm (...names: unknown[]): void
  /** The value, or a rejection after `ms`; nothing at all if the timers are disarmed before. */
  within<T> (ms: Millis, value: () => T | Promise<T>): Promise<T>
}

export function createTimers ({ setTimeout, clearTimeout }: Timing): Timers {
  const armed = new Map<unknown, unknown>()
  function disarm (...names: unknown[]): void {
    for (const name of names.length > 0 ? names : [...armed.keys()]) {
      clearTimeout(armed.get(name))
      armed.delete(name)
    }
  }
  function arm (name: unknown, ms: Millis, run: () => void): void {
    if (armed.has(name)) disarm(name)
    armed.set(name, setTimeout(() => { armed.delete(name); run() }, Math.min(ms, MAX_DELAY_MS)))
  }
  return {
    arm,
    has: name => armed.has(name),
    disarm,
    within: (ms, value) => new Promise((resolve, reject) => {
      const name = {}
      // In the executor, so that what throws at once rejects as well.
      Promise.resolve(value()).finally(() => disarm(name)).then(resolve, reject)
      arm(name, ms, () => reject(new Error(`No answer within ${ms} ms.`)))
    })
  }
}

/**
 * What a page tells: `wake` when an attempt or a question is worth making at once, `hide` when it
 * may go for good.
 */
export interface PageEvents {
  /** @param isSure  the network or the page was away, so the connection is in doubt */
  wake (isSure: boolean): void
  hide (): void
}

/** Returns a function that unsubscribes. */
export function watchPage (page: Page, { wake, hide }: PageEvents): () => void {
  const { document } = page
  const sure = (): void => wake(true)
  const listeners: Array<[Listenable | undefined, string, PageListener]> = [
    [page, 'online', sure],
    [page, 'offline', sure],
    [page, 'pageshow', ({ persisted }) => { if (persisted) sure() }],
    [page, 'pagehide', hide],
    [document, 'resume', sure],
    [document, 'visibilitychange', () => { if (document?.visibilityState === 'visible') wake(false) }]
  ]
  for (const [target, type, listener] of listeners) target?.addEventListener?.(type, listener)
  return () => { for (const [target, type, listener] of listeners) target?.removeEventListener?.(type, listener) }
}

/**
 * The session of a tab, in its sessionStorage; undefined outside browsers and where a page may not
 * store anything.
 */
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
function isSavedSession (value: SavedSession | null | undefined): value is SavedSession {
  return typeof value?.sessionId === 'string' && typeof value.resumeToken === 'string' &&
    Number.isSafeInteger(value.lastSeq) &&
    Array.isArray(value.commands) && value.commands.every(({ id, body }) => id > 0 && typeof body === 'string')
}

export interface Vault {
  /** What is saved, and whether this page may use it: false when another one holds the session. */
  load (): Promise<{ readonly saved?: SavedSession, readonly isFree: boolean }>
  save (session: SavedSession): void
  clear (): void
  /** Claims a session for this page. */
  claim (sessionId: SessionId): void
  release (): void
}

/**
 * Where the session of this page is kept, and the lock that says whose it is: a duplicated tab
 * starts with a copy of the storage, and must not take the session from the tab it was made of.
 *
 * @param failed  hears what cannot be read or saved; the session goes on without
 */
export function createVault (
  persistence: Persistence | undefined,
  locks: Locks | undefined,
  timers: Timers,
  failed: (message: string, cause: unknown) => void
): Vault {
  let free: (() => void) | undefined
  /** Changes with each release, so that a lock that is granted after it is not kept. */
  let turn = 0

  /** True when no other page holds the session, or nobody can tell. */
  function request (sessionId: SessionId): Promise<boolean> {
    const mine = turn
    return timers.within(LOCK_MS, () => new Promise<boolean>((resolve, reject) => {
      const held = (lock: object | null): Promise<void> | undefined => {
        resolve(lock !== null)
        return lock === null || mine !== turn ? undefined : new Promise(_resolve => { free = _resolve })
      }
      const asked = locks?.request(`holdfast.${sessionId}`, { ifAvailable: true }, held)
      Promise.resolve(asked).then(() => resolve(true), reject)
    })).catch(() => true)
  }

  function clear (): void {
    try {
      persistence?.clear()
    } catch {
      // Where nothing can be cleared, nothing could be saved either.
    }
  }

  function release (): void {
    turn++
    free?.()
    free = undefined
  }

  return {
    async load () {
      let isFree = true
      try {
        const mine = turn
        const saved = persistence && await timers.within(LOAD_MS, () => persistence!.load())
        if (!isSavedSession(saved) || mine !== turn) return { isFree }
        isFree = await request(saved.sessionId)
        if (!isFree) {
          // The lock of the page before a reload may be let go a moment late.
          await new Promise<void>(resolve => timers.arm('lock', LOCK_RETRY_MS, resolve))
          isFree = await request(saved.sessionId)
        }
        return { saved, isFree }
      } catch (cause) {
        failed('The saved session cannot be read.', cause)
        return { isFree }
      }
    },
    save (session) {
      try {
        persistence?.save(session)
      } catch (cause) {
        // A storage that is full now would bring back an older state later, which is worse than
        // none.
        clear()
        persistence = undefined
        failed('The session is no longer saved.', cause)
      }
    },
    clear,
    claim (sessionId) {
      release()
      if (persistence !== undefined && locks !== undefined) void request(sessionId)
    },
    release
  }
}
