// What differs between runtimes: the clock, sockets, and what a page is, tells and can keep.
//
// Every type here is the smallest slice of the real thing, so that neither DOM types nor a driver
// is needed and tests pass their own. Nothing here knows the protocol. A page without one of these
// things lacks only what depends on it.

import type { Millis, Seq, SessionId, UserId } from '../io/types.js'
import type { Emit } from './session-state.js'

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

export interface Locks {
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

/**
 * Tells of a page: `wake` when an attempt or a question is worth making at once, `hide` when it may
 * go for good. Returns a function that unsubscribes.
 */
export function watchPage (page: Page, emit: Emit): () => void {
  const { document } = page
  const sure = (): void => emit('wake', true)
  const listeners: Array<[Listenable | undefined, string, PageListener]> = [
    [page, 'online', sure],
    [page, 'offline', sure],
    [page, 'pageshow', ({ persisted }) => { if (persisted) sure() }],
    [page, 'pagehide', () => emit('hide')],
    [document, 'resume', sure],
    [document, 'visibilitychange', () => { if (document?.visibilityState === 'visible') emit('wake', false) }]
  ]
  for (const [target, type, listener] of listeners) target?.addEventListener?.(type, listener)
  return () => { for (const [target, type, listener] of listeners) target?.removeEventListener?.(type, listener) }
}
