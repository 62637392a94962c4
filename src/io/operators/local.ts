// Operations on the sessions of this node, which has them all.

import { HoldfastError } from '../errors.js'
import { mergePatch } from '../session/context.js'
import {
  endSessionsOfUser, presentIn, type ListQuery, type SessionManager, type SessionPage
} from '../session/manager.js'
import type { SessionRecord } from '../session/record.js'
import type { SessionRuntime } from '../session/runtime.js'
import type { EndResult } from '../session/store.js'
import type { Millis, SessionId, SessionView } from '../types.js'
import type { SessionOperations } from './operations.js'

export interface LocalOperationsOptions {
  sessions: SessionRuntime
  manager: SessionManager
  delay: (ms: Millis) => Promise<unknown>
  /** Lets other events have their turn. */
  yieldTurn: () => Promise<unknown>
}

/** How long an operator waits for a store that does not answer. */
const STORE_WAIT_MS = 5000
/** Contexts on a page; a single larger one is on a page of its own. */
const PAGE_CONTEXT_BYTES = 1_048_576

export function createLocalOperations ({
  sessions, manager, delay, yieldTurn
}: LocalOperationsOptions): SessionOperations {
  const { directory, committer } = sessions

  /** Waits until what was just changed is kept. Without a journal there is nothing to wait for. */
  async function kept (session: SessionRecord): Promise<void> {
    const answer = committer.whenKept(session)
    if (answer === undefined) return
    const isKept = await Promise.race([answer, delay(STORE_WAIT_MS).then(() => undefined)])
    if (isKept === undefined) throw away('It is not kept so far, and may take effect when the store is back.')
    if (!isKept) presentIn(directory, session.id)
  }

  function checkAvailable (): void {
    if (!committer.isAvailable) throw away('Nothing was changed.')
  }

  function checkEnded (result: EndResult): void {
    if (result === 'unavailable') {
      throw away('The session has ended on this node, and the store is told when it is back.')
    }
  }

  async function viewAfter (id: SessionId): Promise<SessionView> {
    presentIn(directory, id)
    return manager.peekSession(id) as SessionView
  }

  return {
    async find (id) {
      const view = manager.peekSession(id)
      if (view !== undefined) return { view }
      const tombstone = manager.tombstoneOf(id)
      return tombstone === undefined ? undefined : { tombstone }
    },

    list: async query => query.userId === undefined
      ? manager.listSessions(query)
      : await listOfUser(manager, query, yieldTurn),
    count: async () => manager.countSessions(),

    async terminate (id, note) {
      const session = directory.get(id)
      if (session === undefined) return false
      checkEnded(await sessions.end(session, 'ended_by_operator', note))
      return true
    },

    async terminateUser (userId, except, note) {
      const results = await endSessionsOfUser(sessions, yieldTurn, userId, except, note)
      for (const result of results) checkEnded(result)
      return results.length
    },

    async detach (id) {
      presentIn(directory, id)
      return manager.detachSession(id)
    },

    async send (target, event, payload, options = {}) {
      if ('sessionId' in target) presentIn(directory, target.sessionId)
      checkAvailable()
      const sent = manager.send(target, event, payload, options)
      if ('sessionId' in target && options.behind !== true) await kept(presentIn(directory, target.sessionId))
      return sent
    },

    async patchContext (id, patch) {
      presentIn(directory, id)
      checkAvailable()
      manager.updateContext(id, context => mergePatch(context, patch))
      await kept(presentIn(directory, id))
      return await viewAfter(id)
    }
  }
}

/**
 * A step looks at a bounded number of sessions, whosever they are; other events go between two of
 * them.
 */
async function listOfUser (
  manager: SessionManager, query: ListQuery, yieldTurn: LocalOperationsOptions['yieldTurn']
): Promise<SessionPage> {
  const { limit = 50 } = query
  let page = manager.listSessions(query)
  while (page.nextCursor !== null && !page.isFull) {
    await yieldTurn()
    const { data, contextBytes, nextCursor } = page
    const step = manager.listSessions({
      ...query, limit: limit - data.length, maxContextBytes: PAGE_CONTEXT_BYTES - contextBytes, cursor: nextCursor
    })
    page = { ...step, data: [...data, ...step.data], contextBytes: contextBytes + step.contextBytes }
  }
  return page
}

function away (consequence: string): HoldfastError {
  return new HoldfastError('STORE_UNAVAILABLE', {
    message: `The session store does not answer. ${consequence}`,
    retryAfterMs: 1000
  })
}
