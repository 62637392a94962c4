// The life of sessions on this node: opened, attached to a connection, detached, ended. Every
// change of a SessionRecord's state happens in one turn without an await, so "replay, then live",
// "answer, then output" and "who is attached" cannot be seen half done. What the store has to keep
// of it is the committer's part; who waits for that says so.
//
// Order of calls: `open` or `take` → `attach` → … → `detach` → … → `end`, or the sweep (`purge`).
// Not here: sockets (gateway), commands (dispatcher), handshakes (entry), what applications call
// (manager).

import type { CloseCode } from '../protocol/close-codes.js'
import { HoldfastError } from '../errors.js'
import type {
  Clock, EndReason, JsonObject, Log, MaybePromise, Millis, Profile, Seq, SessionId, UserId
} from '../types.js'
import { createFeed, type Feed } from '../events/feed.js'
import { createCommitter, type Committer } from './committer.js'
import { EMPTY, NOTHING, readContext } from './context.js'
import { createDelivery, largestOutputBytes, type Delivery, type DeliveryLimits } from './delivery.js'
import { createDetachedSessions } from './detached.js'
import { createDirectory, type Directory } from './directory.js'
import { createExpiry, type Expiry, type ExpiryLimits } from './expiry.js'
import { createQuota, type Quota, type QuotaLimits } from './quota.js'
import { END_CLOSE } from './endings.js'
import { createLife } from './life.js'
import { createRecord, type AttachedConnection, type JournalState, type SessionRecord } from './record.js'
import type { ReplayPlan } from './replay-log.js'
import { isShared, type Deadline, type SharedSessionStore } from './shared-store.js'
import type { EndResult, SessionStore, StoredTombstone } from './store.js'
import type { ConvertTime } from './stored.js'
import { createWallTime } from './view.js'

export interface SessionLimits extends DeliveryLimits, ExpiryLimits, QuotaLimits {
  /** The context of one session, as JSON. */
  maxContextBytes: number
}

export interface SessionRuntimeOptions {
  store: SessionStore
  /** Default: an empty one; replaced in tests that look into it. */
  directory?: Directory
  clock: Clock
  log: Log
  limits: SessionLimits
  /** Gives session ids: at least 122 random bits, URL- and header-safe. */
  createId: (userId: UserId) => SessionId
  /** Of the sessions that are opened here; of one life of the process. */
  generation: string
  /** Runs a callback after the present turn; lifecycle events are told then (events/feed.ts). */
  defer: (callback: () => void) => void
  /** Runs a callback after other events had their turn. */
  yieldTurn: (callback: () => void) => void
  /** A user to whom `maxSessionsPerUser` does not apply: the placeholder, who is everybody. */
  unlimitedUserId?: UserId
}

/** Totals since the start, for metrics. */
export interface SessionTotals {
  created: number
  ended: Record<EndReason, number>
  attached: number
  detached: number
  resumed: number
  resumeRefused: number
  /** Sessions that were found to be another node's, or that the store does not have any more. */
  lost: Record<'fenced' | 'missing', number>
  readonly outputs: number
  readonly outputsDropped: number
}

/** What a session starts with. */
export interface SessionSeed {
  /** Default: empty. */
  context?: JsonObject
}

/** What an attach gives the connection to tell its client. */
export interface Attachment extends ReplayPlan {
  /** Highest seq at the moment of the attach: what is above it is new (P-30). */
  readonly lastSeq: Seq
}

export interface SessionRuntime {
  readonly limits: SessionLimits
  readonly totals: SessionTotals
  readonly directory: Directory
  readonly delivery: Delivery
  readonly committer: Committer
  readonly expiry: Expiry
  readonly quota: Quota
  readonly feed: Feed
  readonly toWall: ConvertTime
  now(): Millis
  /** Sessions with a connection. */
  readonly active: number
  /** @throws USER_QUOTA, SERVER_FULL, CONTEXT_TOO_LARGE */
  open(userId: UserId, profile: Profile, seed?: SessionSeed & { labels?: JsonObject }): SessionRecord
  /** Takes in a session that the store gave back and that the directory has: it is detached. */
  adopt(session: SessionRecord): void
  /** The session is about to be attached: until then it is detached, and may give way or expire. */
  expect(session: SessionRecord): void
  /**
   * A new resume token; null where the session cannot be resumed. The one before it is valid until
   * `confirmAttach`.
   */
  rotateToken(session: SessionRecord): string | null
  /**
   * Joins connection and session. `lastSeen` is null for a new session. Outputs leave at the end of
   * the turn, behind the first frame.
   */
  attach(session: SessionRecord, connection: AttachedConnection, lastSeen: Seq | null): Attachment
  /**
   * The connection is gone. `end` when its way of going terminates the session (P-37, P-38), or
   * null.
   */
  detach(session: SessionRecord, connection: AttachedConnection, reason: string, end: EndReason | null): void
  /**
   * The first frame on a new connection proves that its token arrived: the one before it is dead
   * (P-28).
   */
  confirmAttach(session: SessionRecord): void
  /** Drops the connection for a reason of the server's own. False if there is none. */
  dismiss(session: SessionRecord, code: CloseCode): boolean
  /** @throws SESSION_ENDED, CONTEXT_TOO_LARGE */
  changeContext(session: SessionRecord, change: (context: JsonObject) => JsonObject): JsonObject
  /** The session is another node's now, or the store has lost it: its client may come back. */
  lose(session: SessionRecord, result: 'fenced' | 'missing'): void
  /**
   * A shared store does not know the session: takes over its end, or gives it to the store again
   * (S-21).
   */
  lookFor(session: SessionRecord): Promise<void>
  /** Another node, or the store, has ended the session; nothing is left to be kept of it. */
  endedElsewhere(session: SessionRecord, tombstone: StoredTombstone): void
  /**
   * Ends the session at once. Its connection is told when the store has answered, and so is the
   * caller.
   */
  end(session: SessionRecord, reason: EndReason, note?: string): MaybePromise<EndResult>
  /** The close code of a session that ended. */
  closeOf(reason: EndReason): CloseCode
}

export function createSessionRuntime (options: SessionRuntimeOptions): SessionRuntime {
  const { store, clock, log, limits, defer, yieldTurn } = options
  const now = (): Millis => Math.floor(clock.now())
  const toWall = createWallTime(clock)
  const directory = options.directory ?? createDirectory({ clock })
  const detached = createDetachedSessions<SessionRecord>()
  const feed = createFeed({ log, defer })
  const totals = createTotals(() => delivery)
  const expiry = createExpiry({ limits, now })
  const committer: Committer = createCommitter({
    store,
    log,
    clock,
    toWall,
    defer,
    yieldTurn,
    limits,
    onLost: (session, result) => {
      if (result === 'missing' && isShared(store)) void lookFor(store, session)
      else life.lose(session, result)
    },
    catchUp: session => delivery.catchUp(session, now()),
    onParted: session => life.depart(session),
    deadlineOf: (session): Deadline => expiry.deadlineOf(session)
  })
  const delivery: Delivery = createDelivery({
    commit: committer.commit,
    commitBehind: committer.commitBehind,
    log,
    limits,
    dismiss: (session, code) => life.dismiss(session, code),
    yieldTurn,
    now
  })
  const life = createLife({ clock, log, limits, directory, detached, feed, totals, expiry, committer, delivery, now })
  const quota = createQuota({
    directory,
    detached,
    limits,
    unlimitedUserId: options.unlimitedUserId,
    end: (session, reason) => { void life.end(session, reason) }
  })

  /**
   * An operator may have ended it from another node, whose message has not come yet; else the store
   * has lost it (S-21).
   */
  async function lookFor (shared: SharedSessionStore, session: SessionRecord): Promise<void> {
    const { id } = session
    const journal = session.journal as JournalState
    const { fence } = journal
    if (fence < 0) return
    const found = await shared.find(id)
    // It may have ended, or been given again, while the store was asked.
    if (session.ended || journal.fence !== fence) return
    if (typeof found === 'object') {
      if ('reason' in found) life.endedElsewhere(session, found)
      else life.lose(session, 'fenced')
      return
    }
    log.warn({ sid: id }, 'session store has lost a session, giving it again')
    await committer.giveAgain(session)
  }

  function changeContext (session: SessionRecord, change: (context: JsonObject) => JsonObject): JsonObject {
    const { context, bytes } = readContext(change(session.context), limits.maxContextBytes)
    if (session.ended) throw new HoldfastError('SESSION_ENDED')
    session.context = context
    session.contextBytes = bytes
    committer.contextChanged(session)
    committer.commit(session)
    return context
  }

  function open (
    userId: UserId, profile: Profile, seed: SessionSeed & { labels?: JsonObject } = NOTHING
  ): SessionRecord {
    const { context, bytes } = seed.context === undefined ? EMPTY : readContext(seed.context, limits.maxContextBytes)
    quota.makeRoom(userId)
    const session = createRecord({
      id: options.createId(userId),
      userId,
      profile,
      createdAt: clock.wall(),
      generation: options.generation,
      now: now(),
      context,
      contextBytes: bytes,
      labels: seed.labels ?? NOTHING,
      journal: committer.journalFor(profile, -1, 0),
      maxOutputBytes: largestOutputBytes(limits),
      fanOut: delivery.latestFanOut
    })
    directory.add(session)
    expiry.file(session)
    totals.created++
    life.emit('created', session)
    return session
  }

  return {
    ...life,
    limits,
    totals,
    directory,
    delivery,
    committer,
    expiry,
    quota,
    feed,
    toWall,
    now,
    get active () { return life.active },
    open,
    changeContext,
    lookFor: session => isShared(store) ? lookFor(store, session) : Promise.resolve(),
    closeOf: reason => END_CLOSE[reason]
  }
}

function createTotals (delivery: () => Delivery): SessionTotals {
  return {
    created: 0,
    ended: {
      idle: 0,
      resume_window: 0,
      ended_by_client: 0,
      ended_by_operator: 0,
      disconnected: 0,
      quota: 0,
      overloaded: 0,
      state_lost: 0,
      shutdown: 0
    },
    attached: 0,
    detached: 0,
    resumed: 0,
    resumeRefused: 0,
    lost: { fenced: 0, missing: 0 },
    get outputs () { return delivery().outputs },
    get outputsDropped () { return delivery().dropped }
  }
}
