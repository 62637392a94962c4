// What applications and operators' code call: the founding note's four, which act at once on
// sessions of this node, and what belongs to them. The life of sessions itself is runtime.ts.

import { HoldfastError } from '../errors.js'
import { isPromise } from '../maybe-promise.js'
import { userIdProblem } from '../names/ids.js'
import { CLOSE } from '../protocol/close-codes.js'
import { frameBytes, messageOutput } from '../protocol/codec.js'
import type {
  EndReason, JsonObject, JsonValue, LifecycleEvent, MaybePromise, Millis, Output, SendOptions, Seq, Session, SessionId,
  SessionState, SessionView, Target, Tombstone, UserId
} from '../types.js'
import { largestOutputBytes } from './delivery.js'
import { bindCursor, fingerprintOf, unbindCursor } from './list-cursor.js'
import { lastSeqOf, type SessionRecord } from './record.js'
import { createResumeToken, hashResumeToken } from './resume-token.js'
import type { SessionLimits, SessionRuntime, SessionSeed, SessionTotals } from './runtime.js'
import type { EndResult } from './store.js'
import { snapshotOf, viewOf } from './view.js'

export interface ListQuery {
  state?: Exclude<SessionState, 'ended'>
  userId?: UserId
  createdBefore?: Millis
  createdAfter?: Millis
  /** Only sessions idle for at least that long. */
  idleForMs?: Millis
  newestFirst?: boolean
  /** 1 to 500; default 50. */
  limit?: number
  /** Contexts of the page as JSON; default 1 MiB. A single larger one is on a page of its own. */
  maxContextBytes?: number
  cursor?: string
}

export interface SessionPage {
  data: SessionView[]
  nextCursor: string | null
  /** Of the contexts, as JSON. A page that would have more than a mebibyte of them ends early. */
  contextBytes: number
  /**
   * It has `limit` sessions, or as many contexts as a page holds; else nothing more was found in
   * one step.
   */
  isFull: boolean
}

export interface SessionCounts { active: number, detached: number, total: number, outboxBytes: number }

export interface SessionManager {
  /**
   * Creates a session without a connection. It ends by its idle timeout unless a connection takes
   * it up.
   *
   * With a store that takes time the session is there at once; if the store then refuses it, it
   * ends with `state_lost`.
   *
   * @throws USER_QUOTA, SERVER_FULL, CONTEXT_TOO_LARGE, STORE_UNAVAILABLE
   * @throws INVALID_REQUEST  for what cannot be a user id
   */
  createSession(userId: UserId, seed?: SessionSeed): Session
  /**
   * A resume token for a session, so that a client of the same user can take it up:
   * `resume.<id>.<token>.0` (P-28). It works once, and until the session is resumed or another one
   * is issued; a token that the session's present client holds stays valid beside it.
   *
   * @throws SESSION_NOT_FOUND, SESSION_ENDED
   */
  issueResumeToken(id: SessionId): string
  /**
   * Replaces the context by what `change` makes of the current one, in one step. No activity.
   *
   * @throws SESSION_NOT_FOUND, SESSION_ENDED, CONTEXT_TOO_LARGE
   */
  updateContext(id: SessionId, change: (context: JsonObject) => JsonObject): JsonObject
  /** The session, or undefined if there is none. Counts as activity. */
  getSession(id: SessionId): Session | undefined
  /** Ends the session: true if it existed. Its connection receives `goodbye` and is closed. */
  terminateSession(id: SessionId, reason?: EndReason, note?: string): boolean
  /**
   * Ends sessions idle for longer than their timeout, or detached for longer than the window;
   * returns how many. With a limit, at most that many, and those of the last second are left to a
   * later call; `purgeBehind` tells whether there may be more.
   */
  purgeStaleSessions(limit?: number): number
  readonly purgeBehind: boolean

  /** As an operator sees it. No activity. */
  peekSession(id: SessionId): SessionView | undefined
  /** What is left of an ended session, while it is remembered. */
  tombstoneOf(id: SessionId): Tombstone | undefined
  /** @throws INVALID_CURSOR */
  listSessions(query: ListQuery): SessionPage
  sessionsOfUser(userId: UserId): SessionView[]
  countSessions(): SessionCounts
  /**
   * Drops the connection and keeps the session (basic profile: ends it). False if there is none
   * attached.
   */
  detachSession(id: SessionId): boolean
  /**
   * Ends the sessions that a user has now; resolves with how many when it is done. A few are ended
   * before it returns, many over several turns of the event loop.
   *
   * @throws SESSION_NOT_FOUND  `except` is not a session of the user; nothing was ended
   */
  terminateUser(userId: UserId, except?: SessionId, note?: string): Promise<number>
  /**
   * Sends an output to sessions of this node; `dispatcher.deliver` reaches those of others as well,
   * where several share a store. Returns the number of sessions that there were when it was sent,
   * those that get a `gap` in its place included (P-50), and for a single one the seq.
   *
   * @throws SESSION_NOT_FOUND, SESSION_ENDED  for an unknown sessionId; other targets may match
   *                                           nobody
   * @throws PAYLOAD_TOO_LARGE                 larger than the session takes, or with other targets
   *                                           than any session (P-50)
   */
  send(
    target: Target, event: string, payload: JsonValue, options?: SendOptions
  ): { sessions: number, seq: Seq | null }
  /**
   * Calls back for every lifecycle event from now on, at the end of its turn; returns a function
   * that unsubscribes.
   */
  subscribe(listener: (event: LifecycleEvent) => void): () => void
  readonly totals: SessionTotals
  readonly limits: SessionLimits
}

/**
 * Up to so many sessions get an output in the turn; more get it in slices, so that answers to
 * commands go between them.
 */
const MOST_AT_ONCE = 64
/** Sessions of one user that end in one turn: about three milliseconds. */
const ENDS_PER_TURN = 256

/** Runs a callback after other events had their turn. */
export type YieldTurn = (callback: () => void) => void

export function createSessionManager (runtime: SessionRuntime, yieldTurn: YieldTurn): SessionManager {
  const { directory, expiry, committer, limits, toWall } = runtime
  const view = (session: SessionRecord): SessionView => viewOf(session, toWall)

  return {
    limits,
    totals: runtime.totals,
    ...createReading(runtime),
    subscribe: runtime.feed.subscribe,
    send: createSend(runtime),

    createSession (userId, seed) {
      const problem = userIdProblem(userId)
      if (problem !== undefined) throw new HoldfastError('INVALID_REQUEST', { message: `The user id ${problem}.` })
      if (!committer.isAvailable) throw new HoldfastError('STORE_UNAVAILABLE')
      const session = runtime.open(userId, 'full', seed)
      const kept = committer.create(session)
      if (isPromise(kept)) void kept.then(refusal => refusal === undefined || runtime.end(session, 'state_lost'))
      return snapshotOf(session, toWall)
    },

    issueResumeToken (id) {
      const session = presentIn(directory, id)
      const token = createResumeToken()
      session.previousTokenHash = session.tokenHash
      session.tokenHash = hashResumeToken(token)
      committer.accessChanged(session)
      committer.commit(session)
      return token
    },

    updateContext: (id, change) => runtime.changeContext(presentIn(directory, id), change),

    getSession (id) {
      const session = directory.get(id)
      if (session === undefined || expiry.isStale(session)) return undefined
      session.lastActiveAt = runtime.now()
      return snapshotOf(session, toWall)
    },

    terminateSession (id, reason = 'ended_by_operator', note) {
      const session = directory.get(id)
      if (session === undefined) return false
      void runtime.end(session, reason, note)
      return true
    },

    purgeStaleSessions (limit = Infinity) {
      return expiry.sweep(limit, session => {
        if (!session.ended) void runtime.end(session, expiry.staleReason(session))
      })
    },

    get purgeBehind () { return expiry.behind },

    sessionsOfUser: userId => Array.from(directory.ofUser(userId), view),

    detachSession (id) {
      const session = directory.get(id)
      return session !== undefined && runtime.dismiss(session, CLOSE.detached)
    },

    async terminateUser (userId, except, note) {
      const next = (): Promise<void> => new Promise(resolve => { yieldTurn(resolve) })
      return (await endSessionsOfUser(runtime, next, userId, except, note)).length
    }
  }
}

/**
 * Ends the sessions that a user has now, in slices; resolves with the answers of the store.
 *
 * @throws SESSION_NOT_FOUND  `except` is not a session of the user; nothing was ended
 */
export async function endSessionsOfUser (
  {
    directory, end
  }: SessionRuntime, yieldTurn: () => Promise<unknown>, userId: UserId, except?: SessionId, note?: string
): Promise<EndResult[]> {
  // Whoever names a session to be spared means to keep one: with a wrong id none would be left.
  if (except !== undefined && directory.get(except)?.userId !== userId) {
    throw new HoldfastError(
      'SESSION_NOT_FOUND', { message: 'The user has no such session to spare; nothing was ended.' }
    )
  }
  const results: MaybePromise<EndResult>[] = []
  for (const [i, session] of [...directory.ofUser(userId)].entries()) {
    if (i > 0 && i % ENDS_PER_TURN === 0) await yieldTurn()
    if (session.id !== except && !session.ended) results.push(end(session, 'ended_by_operator', note))
  }
  return await Promise.all(results)
}

type Reading = Pick<SessionManager, 'peekSession' | 'tombstoneOf' | 'listSessions' | 'countSessions'>

function createReading (runtime: SessionRuntime): Reading {
  const { directory, delivery, toWall } = runtime
  const view = (session: SessionRecord): SessionView => viewOf(session, toWall)

  return {
    peekSession (id) {
      const session = directory.get(id)
      return session === undefined ? undefined : view(session)
    },

    tombstoneOf (id) {
      const kept = directory.tombstone(id)
      if (kept === undefined) return undefined
      const { tokenHash: _, previousTokenHash: __, buriedAt: ___, ...tombstone } = kept
      return tombstone
    },

    listSessions ({ cursor, limit = 50, maxContextBytes, ...query }) {
      const { idleForMs, newestFirst = false, ...filter } = query
      const list = fingerprintOf(query)
      const page = directory.list({
        ...filter,
        newestFirst,
        limit,
        ...(maxContextBytes === undefined ? {} : { maxContextBytes }),
        ...(idleForMs === undefined ? {} : { activeBefore: runtime.now() - idleForMs + 1 }),
        ...(cursor === undefined ? {} : { cursor: unbindCursor(cursor, list) })
      })
      const nextCursor = page.nextCursor === null ? null : bindCursor(page.nextCursor, list)
      return { data: page.records.map(view), nextCursor, contextBytes: page.contextBytes, isFull: page.isFull }
    },

    countSessions () {
      const total = directory.count()
      const { active } = runtime
      return { active, detached: total - active, total, outboxBytes: delivery.heldBytes }
    }
  }
}

function createSend (runtime: SessionRuntime): SessionManager['send'] {
  const { directory, delivery, limits } = runtime

  function sendToOne (id: SessionId, output: Output, behind: boolean): { sessions: number, seq: Seq } {
    const session = presentIn(directory, id)
    if (!delivery.append(session, output, runtime.now(), behind)) throw new HoldfastError('PAYLOAD_TOO_LARGE')
    // It ended instead of taking the output: a basic connection that did not drain.
    if (session.ended) throw new HoldfastError('SESSION_ENDED', { details: { reason: 'disconnected' } })
    return { sessions: 1, seq: lastSeqOf(session) }
  }

  function sendToMany (userId: UserId | null, output: Output, behind: boolean): { sessions: number, seq: null } {
    const count = userId === null ? directory.count() : directory.countOfUser(userId)
    const sessions = userId === null ? directory.all() : directory.ofUser(userId)
    if (count > MOST_AT_ONCE) {
      delivery.fanOut(sessions, userId, output, behind)
      return { sessions: count, seq: null }
    }
    const at = runtime.now()
    for (const session of sessions) delivery.appendOrGap(session, output, at, behind)
    return { sessions: count, seq: null }
  }

  return (target, event, payload, { behind = false } = {}) => {
    const output = messageOutput(event, payload)
    // Refused also where nobody is addressed, so that a sender learns it at once.
    if (frameBytes(output, 1) > largestOutputBytes(limits)) throw new HoldfastError('PAYLOAD_TOO_LARGE')
    if ('sessionId' in target) return sendToOne(target.sessionId, output, behind)
    // With room for any seq: who asked for no less gets no `gap`, however many outputs there were
    // (P-50d).
    if (frameBytes(output, Number.MAX_SAFE_INTEGER) > largestOutputBytes(limits)) {
      throw new HoldfastError('PAYLOAD_TOO_LARGE')
    }
    return sendToMany('userId' in target ? target.userId : null, output, behind)
  }
}

/** @throws SESSION_NOT_FOUND, SESSION_ENDED */
export function presentIn (directory: SessionRuntime['directory'], id: SessionId): SessionRecord {
  const session = directory.get(id)
  if (session !== undefined) return session
  const tombstone = directory.tombstone(id)
  if (tombstone === undefined) throw new HoldfastError('SESSION_NOT_FOUND')
  throw new HoldfastError('SESSION_ENDED', { details: { reason: tombstone.reason } })
}
