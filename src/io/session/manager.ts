// The life of sessions: created, attached to a connection, detached, resumed, ended, and what is sent to them meanwhile. Every change of a
// SessionRecord happens here or in the dispatcher's admission, in one turn without an await, so that "replay, then live", "answer, then output" and
// "who is attached" cannot be seen half done.
//
// Order of calls: `open` or `resume` → `attach` → (`receive`, `acknowledge`, `send`)* → `detach` → … → `terminateSession`, or the sweep.
// The founding note's four are createSession, getSession, terminateSession, purgeStaleSessions; they act at once on sessions of this node.
// Not here: sockets (gateway), commands (dispatcher), finding sessions (directory), keeping them (store).

import { CLOSE, type CloseCode } from '../protocol/close-codes.js'
import { HoldfastError } from '../errors.js'
import type {
  Clock, EndReason, JsonObject, JsonValue, LifecycleEvent, LifecycleEventType, Log, Millis, Output, Profile, Seq, Session, SessionId,
  SessionState, SessionView, Target, Tombstone, UserId
} from '../types.js'
import { createFeed } from '../events/feed.js'
import { userIdProblem } from '../names/ids.js'
import { frameBytes, messageOutput } from '../protocol/codec.js'
import { UNHEARD_WINDOW_MS } from '../protocol/frames.js'
import { lastSeqOf, watermarkOf, type AttachedConnection, type SessionRecord } from './record.js'
import { createDirectory, type Directory, type KeptTombstone } from './directory.js'
import { EMPTY, NOTHING, readContext } from './context.js'
import { createDelivery, largestOutputBytes, type Delivery, type DeliveryLimits } from './delivery.js'
import { createDetachedSessions } from './detached.js'
import { bindCursor, fingerprintOf, unbindCursor } from './list-cursor.js'
import { planReplay, type ReplayPlan } from './replay-log.js'
import { createResumeToken, hashResumeToken, sameHash } from './resume-token.js'
import type { SessionStore } from './former-store.js'
import { createTimingWheel } from './timing-wheel.js'
import { createWallTime, snapshotOf, viewOf } from './view.js'

export interface SessionLimits extends DeliveryLimits {
  /** The context of one session, as JSON. */
  maxContextBytes: number
  /** A session without activity for longer ends (P-40). */
  idleTimeoutMs: Millis
  /** A detached session is kept that long, and never beyond its idle timeout; 0: every close terminates (P-36). */
  resumeWindowMs: Millis
  maxSessions: number
  maxSessionsPerUser: number
}

export interface SessionManagerOptions {
  store: SessionStore
  /** Default: an empty one; replaced in tests that look into it. */
  directory?: Directory
  clock: Clock
  log: Log
  limits: SessionLimits
  /** Gives session ids: at least 122 random bits, URL- and header-safe. */
  createId: () => SessionId
  /** Runs a callback after the present turn; lifecycle events are told then (events/feed.ts). */
  defer: (callback: () => void) => void
  /** Runs a callback after other events had their turn. */
  yieldTurn: (callback: () => void) => void
  /** A user to whom `maxSessionsPerUser` does not apply: the placeholder, who is everybody. */
  unlimitedUserId?: UserId
}

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
  /** It has `limit` sessions, or as many contexts as a page holds; else nothing more was found in one step. */
  isFull: boolean
}
export interface SessionCounts { active: number, detached: number, total: number, outboxBytes: number }
/** Totals since the start, for metrics. */
export interface SessionTotals {
  created: number
  ended: Record<EndReason, number>
  attached: number
  detached: number
  resumed: number
  resumeRefused: number
  readonly outputs: number
  readonly outputsDropped: number
}

/** What a session starts with. */
export interface SessionSeed {
  /** Default: empty. */
  context?: JsonObject
}

export interface ResumeRequest {
  sessionId: SessionId
  token: string
  lastSeq: Seq
  userId: UserId
  /** Those of the new credentials, which replace the former ones. */
  labels?: JsonObject
}
export type ResumeAnswer =
  | { ok: true, session: SessionRecord }
  | { ok: false, previous: { sessionId: SessionId, reason: EndReason | 'unknown', lastCommand?: number } }

/** What an attach gives the connection to tell its client. */
export interface Attachment extends ReplayPlan {
  /** Highest seq at the moment of the attach: what is above it is new (P-30). */
  readonly lastSeq: Seq
  /** Null where the session cannot be resumed: basic profile, or a resume window of 0. */
  readonly resumeToken: string | null
}

export interface SessionManager {
  /**
   * Creates a session without a connection. It ends by its idle timeout unless a connection takes it up.
   *
   * @throws USER_QUOTA, SERVER_FULL, CONTEXT_TOO_LARGE
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
  /** Ends the session: true if it existed. Its connection is told and closed. */
  terminateSession(id: SessionId, reason?: EndReason, note?: string): boolean
  /**
   * Ends sessions idle for longer than their timeout, or detached for longer than the window; returns how many. With a limit, at most that many, and those of the
   * last second are left to a later call; `purgeBehind` tells whether there may be more.
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
  /** Drops the connection and keeps the session (basic profile: ends it). False if there is none attached. */
  detachSession(id: SessionId): boolean
  /**
   * Ends the sessions that a user has now; resolves with how many when it is done. A few are ended before it returns,
   * many over several turns of the event loop.
   *
   * @throws SESSION_NOT_FOUND  `except` is not a session of the user; nothing was ended
   */
  terminateUser(userId: UserId, except?: SessionId, note?: string): Promise<number>
  /**
   * Sends an output. Returns the number of sessions that there were when it was sent, those that
   * get a `gap` in its place included (P-50), and for a single one the seq.
   *
   * @throws SESSION_NOT_FOUND, SESSION_ENDED  for an unknown sessionId; other targets may match nobody
   * @throws PAYLOAD_TOO_LARGE                 larger than the session takes, or with other targets than any session (P-50)
   */
  send(target: Target, event: string, payload: JsonValue): { sessions: number, seq: Seq | null }
  /** Calls back for every lifecycle event from now on, at the end of its turn; returns a function that unsubscribes. */
  subscribe(listener: (event: LifecycleEvent) => void): () => void
  readonly totals: SessionTotals
  readonly limits: SessionLimits

  // What follows is the gateway's and the dispatcher's side.
  /** @throws USER_QUOTA, SERVER_FULL  while no further session may be made for this user, since every one that counts is attached */
  checkQuota(userId: UserId): void
  open(userId: UserId, profile: Profile, seed?: SessionSeed & { labels?: JsonObject }): SessionRecord
  /** Decides a resume; the session is attached by `attach`. Takes the session over from its present connection, if any (P-35). */
  resume(request: ResumeRequest): ResumeAnswer
  /** Joins connection and session. `lastSeen` is null for a new session. Outputs leave at the end of the turn, behind the first frame. */
  attach(session: SessionRecord, connection: AttachedConnection, lastSeen: Seq | null): Attachment
  /** The connection is gone. `end` when its way of going terminates the session (P-37, P-38), or null. */
  detach(session: SessionRecord, connection: AttachedConnection, reason: string, end: EndReason | null): void
  /** The first frame on a new connection proves that its token arrived: the one before it is dead (P-28). */
  confirmAttach(session: SessionRecord): void
  readonly delivery: Delivery
  /** @throws SESSION_ENDED, CONTEXT_TOO_LARGE */
  changeContext(session: SessionRecord, change: (context: JsonObject) => JsonObject): JsonObject
  end(session: SessionRecord, reason: EndReason, note?: string): void
  snapshot(session: SessionRecord): Session
}

/** Up to so many sessions get an output in the turn; more get it in slices, so that answers to commands go between them. */
const MOST_AT_ONCE = 64
const WHEEL_TICK_MS = 1000
/** For callers in this process; clients are told when a dead connection has been found for sure (P-54c). */
const QUOTA_RETRY_MS = 5000
const WHEEL_BUCKETS = 4096
const END_CLOSE: Record<EndReason, CloseCode> = {
  idle: CLOSE.idle,
  resume_window: CLOSE.idle,
  ended_by_client: CLOSE.ended,
  ended_by_operator: CLOSE.terminated,
  disconnected: CLOSE.ended,
  quota: CLOSE.quota,
  overloaded: CLOSE.overloaded,
  state_lost: CLOSE.stateLost,
  shutdown: CLOSE.draining
}

/** Sessions of one user that end in one turn: about three milliseconds. */
const ENDS_PER_TURN = 256

export function createSessionManager (options: SessionManagerOptions): SessionManager {
  const { store, clock, log, limits, createId, defer, yieldTurn, unlimitedUserId } = options
  const { directory = createDirectory({ clock }) } = options
  const feed = createFeed({ log, defer })
  const epoch = createId().slice(0, 8)
  const totals: SessionTotals = {
    created: 0,
    ended: { idle: 0, resume_window: 0, ended_by_client: 0, ended_by_operator: 0, disconnected: 0, quota: 0, overloaded: 0, state_lost: 0, shutdown: 0 },
    attached: 0,
    detached: 0,
    resumed: 0,
    resumeRefused: 0,
    get outputs () { return delivery.outputs },
    get outputsDropped () { return delivery.dropped }
  }
  const detached = createDetachedSessions<SessionRecord>()
  let active = 0
  const toWall = createWallTime(clock)
  const delivery = createDelivery({ store, log, limits, dismiss, yieldTurn, now })
  const wheel = createTimingWheel<SessionRecord>({ deadlineOf, tickMs: WHEEL_TICK_MS, buckets: WHEEL_BUCKETS, now: now() })

  function now (): Millis {
    return Math.floor(clock.now())
  }

  function deadlineOf (session: SessionRecord): Millis {
    const idle = session.lastActiveAt + limits.idleTimeoutMs
    return session.detachedAt === -1 ? idle : Math.min(idle, session.detachedAt + windowOf(session))
  }

  /** A client that closed while it connected may never have seen its token; one that did loses nothing but the id (P-36b). */
  function windowOf ({ heard, log }: SessionRecord): Millis {
    return heard || log !== null ? limits.resumeWindowMs : Math.min(limits.resumeWindowMs, UNHEARD_WINDOW_MS)
  }

  function emit (type: LifecycleEventType, session: SessionRecord, reason?: string): void {
    session.revision++
    if (!feed.isHeard) return
    const { id: sessionId, userId, revision } = session
    const at = clock.wall()
    // Written out: a literal that begins with a spread is slow in V8, and a connection has four events.
    const event: LifecycleEvent = reason === undefined
      ? { type, sessionId, userId, revision, at }
      : { type, sessionId, userId, revision, at, reason }
    feed.append(event)
  }

  function isAtQuota (userId: UserId): boolean {
    return userId !== unlimitedUserId && directory.countOfUser(userId) >= limits.maxSessionsPerUser
  }

  function checkQuota (userId: UserId): void {
    if (detached.oldestOf(userId) !== undefined) return
    if (isAtQuota(userId)) throw new HoldfastError('USER_QUOTA', { retryAfterMs: QUOTA_RETRY_MS })
    if (directory.count() >= limits.maxSessions && detached.oldest() === undefined) throw new HoldfastError('SERVER_FULL', { retryAfterMs: QUOTA_RETRY_MS })
  }

  /** Ends the session that gives way to a new one of this user: his own, then anybody's; never one with a connection (P-54). */
  function makeRoom (userId: UserId): void {
    checkQuota(userId)
    const own = detached.oldestOf(userId)
    if (isAtQuota(userId)) end(own as SessionRecord, 'quota')
    else if (directory.count() >= limits.maxSessions) end((own ?? detached.oldest()) as SessionRecord, 'overloaded')
  }

  function open (userId: UserId, profile: Profile, seed: SessionSeed & { labels?: JsonObject } = NOTHING): SessionRecord {
    const { context, bytes } = seed.context === undefined ? EMPTY : readContext(seed.context, limits.maxContextBytes)
    makeRoom(userId)
    const at = now()
    const session: SessionRecord = {
      id: createId(),
      userId,
      profile,
      createdAt: clock.wall(),
      ordinal: 0,
      epoch,
      ended: false,
      heard: false,
      lastActiveAt: at,
      detachedAt: -1,
      revision: 0,
      context,
      contextBytes: bytes,
      labels: seed.labels ?? NOTHING,
      connection: null,
      log: null,
      keptSeq: 0,
      calls: null,
      maxOutputBytes: largestOutputBytes(limits),
      fanOut: delivery.latestFanOut,
      tokenHash: null,
      previousTokenHash: null,
      rateCredit: -1,
      rateFilledAt: at,
      rateRefusals: 0,
      handle: null,
      wheelNext: null,
      wheelPrevious: null,
      wheelBucket: -1,
      detachedNext: null,
      detachedPrevious: null,
      userDetachedNext: null,
      userDetachedPrevious: null
    }
    const kept = store.add(session)
    directory.add(session)
    kept?.catch(error => {
      log.error({ err: error, sid: session.id }, 'session store refused a session')
      end(session, 'state_lost')
    })
    wheel.file(session)
    totals.created++
    emit('created', session)
    return session
  }

  function end (session: SessionRecord, reason: EndReason, note?: string): void {
    if (session.ended) return
    // What was sent before the end arrives before the goodbye.
    if (session.connection !== null) {
      delivery.catchUp(session, now())
      session.connection?.flush()
    }
    // A basic connection that did not drain took its session along (P-26).
    if (session.ended) return
    session.ended = true
    wheel.remove(session)
    detached.remove(session)
    const connection = leave(session)
    session.calls?.abandon()
    delivery.discard(session)
    const tombstone: KeptTombstone = {
      id: session.id,
      userId: session.userId,
      reason,
      endedAt: clock.wall(),
      lastCommand: watermarkOf(session),
      tokenHash: session.tokenHash,
      previousTokenHash: session.previousTokenHash,
      buriedAt: now(),
      ...(note === undefined ? {} : { note })
    }
    directory.remove(session, tombstone)
    forget(session, tombstone)
    totals.ended[reason]++
    emit('ended', session, reason)
    connection?.dismiss(END_CLOSE[reason])
  }

  /** A store that cannot remove a session says so in the log; the session is over all the same. */
  function forget (session: SessionRecord, tombstone: KeptTombstone): void {
    const refused = (error: unknown): void => log.error({ err: error, sid: session.id }, 'session store refused a removal')
    try {
      store.remove(session, tombstone)?.catch(refused)
    } catch (error) {
      refused(error)
    }
  }

  /** The session has no connection from here on; the caller tells the one it had. */
  function leave (session: SessionRecord): AttachedConnection | null {
    const connection = session.connection
    if (connection === null) return null
    session.connection = null
    session.detachedAt = now()
    active--
    totals.detached++
    return connection
  }

  function resumable (session: SessionRecord): boolean {
    return session.profile === 'full' && limits.resumeWindowMs > 0
  }

  function detach (session: SessionRecord, connection: AttachedConnection, reason: string, endReason: EndReason | null): void {
    // A connection that was taken over, or whose session ended, left before its socket closed.
    if (session.connection !== connection) return
    if (endReason === null && !resumable(session)) endReason = 'disconnected'
    leave(session)
    emit('detached', session, reason)
    if (endReason !== null) {
      end(session, endReason)
      return
    }
    wheel.file(session)
    detached.file(session)
  }

  function view (session: SessionRecord): SessionView {
    return viewOf(session, toWall)
  }

  /** Drops the connection for a reason of the server's own. */
  function dismiss (session: SessionRecord, code: CloseCode): boolean {
    const connection = session.connection
    if (connection === null) return false
    detach(session, connection, code.reason, null)
    connection.dismiss(code)
    return true
  }

  /** What a refused client is told depends on whether it holds the token of the session that was (P-33). */
  function refuse ({ sessionId, userId }: ResumeRequest, hash: string): ResumeAnswer {
    totals.resumeRefused++
    const tombstone = directory.tombstone(sessionId)
    return tombstone !== undefined && holds(hash, userId, tombstone)
      ? { ok: false, previous: { sessionId, reason: tombstone.reason, lastCommand: tombstone.lastCommand } }
      : { ok: false, previous: { sessionId, reason: 'unknown' } }
  }

  function resume (request: ResumeRequest): ResumeAnswer {
    const { sessionId, token, lastSeq, userId } = request
    const session = directory.get(sessionId)
    const hash = hashResumeToken(token)
    if (session === undefined || !holds(hash, userId, session)) return refuse(request, hash)
    // The sweep runs once a tick; a session past its deadline is over all the same. A client that has seen more than there is means lost state (P-34).
    const stale = deadlineOf(session) < now()
    if (stale || lastSeq > lastSeqOf(session)) {
      totals.resumeRefused++
      const reason = stale ? staleReason(session) : 'state_lost'
      end(session, reason)
      return { ok: false, previous: { sessionId, reason, lastCommand: watermarkOf(session) } }
    }
    // Whichever token was presented stays valid until the new connection speaks: the answer with the next one may be lost (P-28).
    session.previousTokenHash = hash
    dismiss(session, CLOSE.replaced)
    session.labels = request.labels ?? NOTHING
    totals.resumed++
    return { ok: true, session }
  }

  function staleReason (session: SessionRecord): EndReason {
    return now() - session.lastActiveAt > limits.idleTimeoutMs ? 'idle' : 'resume_window'
  }

  function attach (session: SessionRecord, connection: AttachedConnection, lastSeen: Seq | null): Attachment {
    session.connection = connection
    session.detachedAt = -1
    detached.remove(session)
    active++
    totals.attached++
    let resumeToken: string | null = null
    if (resumable(session)) {
      resumeToken = createResumeToken()
      session.tokenHash = hashResumeToken(resumeToken)
    }
    if (lastSeen !== null) {
      delivery.acknowledge(session, lastSeen)
      delivery.judge(session)
    }
    delivery.limitOutputs(session, connection.maxOutputBytes)
    const { replay, gap } = session.log === null || lastSeen === null ? NOTHING_TO_REPLAY : planReplay(session.log, lastSeen)
    if (session.keptSeq < lastSeqOf(session)) delivery.commit(session)
    emit('attached', session)
    return { resumeToken, lastSeq: lastSeqOf(session), replay, gap }
  }

  /** @throws SESSION_NOT_FOUND, SESSION_ENDED */
  function present (id: SessionId): SessionRecord {
    const session = directory.get(id)
    if (session !== undefined) return session
    const tombstone = directory.tombstone(id)
    if (tombstone === undefined) throw new HoldfastError('SESSION_NOT_FOUND')
    throw new HoldfastError('SESSION_ENDED', { details: { reason: tombstone.reason } })
  }

  function changeContext (session: SessionRecord, change: (context: JsonObject) => JsonObject): JsonObject {
    const { context, bytes } = readContext(change(session.context), limits.maxContextBytes)
    if (session.ended) throw new HoldfastError('SESSION_ENDED')
    session.context = context
    session.contextBytes = bytes
    delivery.commit(session)
    return context
  }

  function sendToOne (id: SessionId, output: Output): { sessions: number, seq: Seq } {
    const session = present(id)
    if (!delivery.append(session, output, now())) throw new HoldfastError('PAYLOAD_TOO_LARGE')
    // It ended instead of taking the output: a basic connection that did not drain.
    if (session.ended) throw new HoldfastError('SESSION_ENDED', { details: { reason: 'disconnected' } })
    return { sessions: 1, seq: lastSeqOf(session) }
  }

  function sendToMany (userId: UserId | null, output: Output): { sessions: number, seq: null } {
    const count = userId === null ? directory.count() : directory.countOfUser(userId)
    const sessions = userId === null ? directory.all() : directory.ofUser(userId)
    if (count > MOST_AT_ONCE) {
      delivery.fanOut(sessions, userId, output)
      return { sessions: count, seq: null }
    }
    const at = now()
    for (const session of sessions) delivery.appendOrGap(session, output, at)
    return { sessions: count, seq: null }
  }

  return {
    limits,
    totals,
    checkQuota,
    open,
    resume,
    attach,
    detach,
    end,
    snapshot: session => snapshotOf(session, toWall),
    delivery,

    createSession (userId, seed) {
      const problem = userIdProblem(userId)
      if (problem !== undefined) throw new HoldfastError('INVALID_REQUEST', { message: `The user id ${problem}.` })
      return snapshotOf(open(userId, 'full', seed), toWall)
    },

    issueResumeToken (id) {
      const session = present(id)
      const token = createResumeToken()
      session.previousTokenHash = session.tokenHash
      session.tokenHash = hashResumeToken(token)
      delivery.commit(session)
      return token
    },

    updateContext: (id, change) => changeContext(present(id), change),

    getSession (id) {
      const session = directory.get(id)
      if (session === undefined || deadlineOf(session) < now()) return undefined
      session.lastActiveAt = now()
      return snapshotOf(session, toWall)
    },

    terminateSession (id, reason = 'ended_by_operator', note) {
      const session = directory.get(id)
      if (session === undefined) return false
      end(session, reason, note)
      return true
    },

    purgeStaleSessions (limit = Infinity) {
      return wheel.sweep(now(), limit, session => {
        if (!session.ended) end(session, staleReason(session))
      })
    },

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

    get purgeBehind () { return wheel.behind },

    listSessions ({ cursor, limit = 50, maxContextBytes, ...query }) {
      const { idleForMs, newestFirst = false, ...filter } = query
      const list = fingerprintOf(query)
      const page = directory.list({
        ...filter,
        newestFirst,
        limit,
        ...(maxContextBytes === undefined ? {} : { maxContextBytes }),
        ...(idleForMs === undefined ? {} : { activeBefore: now() - idleForMs + 1 }),
        ...(cursor === undefined ? {} : { cursor: unbindCursor(cursor, list) })
      })
      const nextCursor = page.nextCursor === null ? null : bindCursor(page.nextCursor, list)
      return { data: page.records.map(view), nextCursor, contextBytes: page.contextBytes, isFull: page.isFull }
    },

    sessionsOfUser: userId => Array.from(directory.ofUser(userId), view),

    countSessions () {
      const total = directory.count()
      return { active, detached: total - active, total, outboxBytes: delivery.heldBytes }
    },

    detachSession (id) {
      const session = directory.get(id)
      return session !== undefined && dismiss(session, CLOSE.detached)
    },

    async terminateUser (userId, except, note) {
      // Whoever names a session to be spared means to keep one: with a wrong id none would be left.
      if (except !== undefined && directory.get(except)?.userId !== userId) {
        throw new HoldfastError('SESSION_NOT_FOUND', { message: 'The user has no such session to spare; nothing was ended.' })
      }
      let ended = 0
      for (const [i, session] of [...directory.ofUser(userId)].entries()) {
        if (i > 0 && i % ENDS_PER_TURN === 0) await new Promise<void>(resolve => { yieldTurn(resolve) })
        if (session.id === except || session.ended) continue
        end(session, 'ended_by_operator', note)
        ended++
      }
      return ended
    },

    send (target, event, payload) {
      const output = messageOutput(event, payload)
      // Refused also where nobody is addressed, so that a sender learns it at once.
      if (frameBytes(output, 1) > largestOutputBytes(limits)) throw new HoldfastError('PAYLOAD_TOO_LARGE')
      if ('sessionId' in target) return sendToOne(target.sessionId, output)
      // With room for any seq: who asked for no less gets no `gap`, however many outputs there were (P-50d).
      if (frameBytes(output, Number.MAX_SAFE_INTEGER) > largestOutputBytes(limits)) throw new HoldfastError('PAYLOAD_TOO_LARGE')
      return sendToMany('userId' in target ? target.userId : null, output)
    },

    subscribe: feed.subscribe,

    confirmAttach (session) {
      session.heard = true
      session.previousTokenHash = null
    },

    changeContext
  }
}

const NOTHING_TO_REPLAY: ReplayPlan = Object.freeze({ replay: null, gap: null })

function holds (hash: string, userId: UserId, kept: { userId: UserId, tokenHash: string | null, previousTokenHash: string | null }): boolean {
  return kept.userId === userId && (sameHash(hash, kept.tokenHash) || sameHash(hash, kept.previousTokenHash))
}
