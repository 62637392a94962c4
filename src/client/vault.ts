// Where the session of a page is kept across a reload, and whose it is.

import type { SessionId } from '../io/types.js'
import { LOAD_MS, LOCK_MS, LOCK_RETRY_MS } from './bounds.js'
import type { Locks, Page, Persistence, SavedSession } from './environment.js'
import type { Emit } from './session-state.js'
import type { Timers } from './timers.js'

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
  /** Tells `loaded`, unless the session is released before. */
  load (): void
  save (session: SavedSession): void
  /** @param isReplaced  the session lives on, with another holder */
  forget (isReplaced: boolean): void
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
  emit: Emit,
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

  async function load (): Promise<void> {
    const mine = turn
    let saved: SavedSession | undefined
    let isFree = true
    try {
      const found = await timers.within(LOAD_MS, () => persistence?.load())
      if (isSavedSession(found) && mine === turn) {
        isFree = await request(found.sessionId)
        if (!isFree) {
          // The lock of the page before a reload may be let go a moment late.
          await new Promise<void>(resolve => timers.arm('lock', LOCK_RETRY_MS, resolve))
          isFree = await request(found.sessionId)
        }
        saved = found
      }
    } catch (cause) {
      failed('The saved session cannot be read.', cause)
    }
    if (mine === turn) emit('loaded', saved, isFree)
  }

  return {
    load: () => { void load() },
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
    forget (isReplaced) {
      // A session that was taken over lives on. Where its new holder saves to the same place, that
      // is now theirs; what is this tab's alone must not take the session back at the next reload.
      if (!isReplaced || persistence?.isShared !== true) clear()
    },
    claim (sessionId) {
      release()
      if (persistence !== undefined && locks !== undefined) void request(sessionId)
    },
    release
  }
}
