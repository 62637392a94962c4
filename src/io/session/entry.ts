// What a handshake is given: a new session, or the one that its client comes back to (P-27 to
// P-36). It is decided, and kept by the store, before the upgrade, so that a refusal is an HTTP
// answer and a client is never told of a session, or of a token, that a crash would forget. The
// connection attaches afterwards, in one turn.
//
// A session that is not on this node may be in a store that several share; it is claimed then
// (claim.ts).
//
// Between the two the session is detached: it may be ended, or be given to a later handshake of the
// same client, here or on another node. `obstacle` tells; the latest handshake wins.

import { CLOSE, type CloseCode } from '../protocol/close-codes.js'
import type { ResumeOffer } from '../protocol/handshake.js'
import { HoldfastError } from '../errors.js'
import { isPromise } from '../maybe-promise.js'
import type { EndReason, JsonObject, MaybePromise, Profile, Seq, SessionId, UserId } from '../types.js'
import type { Claims } from './claim.js'
import { NOTHING } from './context.js'
import { lastSeqOf, watermarkOf, type SessionRecord } from './record.js'
import { hashResumeToken, isPrevious, previousAfter, sameHash } from './resume-token.js'
import type { SessionRuntime } from './runtime.js'

export interface EntryRequest {
  profile: Profile
  userId: UserId
  /**
   * What the credentials say of the user; frozen. They replace those of a session that is resumed.
   */
  labels?: JsonObject
  /** What a new session starts with; a session that is resumed keeps its own. */
  context?: JsonObject
  resume?: ResumeOffer | 'malformed'
}

/** The session that a resume was refused for (P-33). */
export interface Previous {
  readonly sessionId: SessionId
  readonly reason: EndReason | 'unknown'
  readonly lastCommand?: number
}

export interface Entry {
  readonly session: SessionRecord
  /** Highest seq that the client has; null for a new session. */
  readonly lastSeen: Seq | null
  /** Null where the session cannot be resumed: basic profile, or a resume window of 0. */
  readonly resumeToken: string | null
  /** Of a resume that was refused. */
  readonly previous: Previous | undefined
  /** Which of the handshakes with this session it is. */
  readonly claim: number
}

export interface Entrance {
  /**
   * Gives a handshake its session. At once where nothing has to be waited for.
   *
   * @throws USER_QUOTA, SERVER_FULL, CONTEXT_TOO_LARGE, STORE_UNAVAILABLE  also as a rejection;
   *                                                                        nothing is left behind
   */
  enter(request: EntryRequest): MaybePromise<Entry>
  /** Why the session of this entry waits for it no more; undefined where it does. */
  obstacle(entry: Entry): CloseCode | undefined
}

/** What a client is told when the store is away. It may be back the next moment. */
const STORE_RETRY_MS = 1000

/** `claims`: with a store that several nodes share. */
export function createEntrance (runtime: SessionRuntime, claims?: Claims): Entrance {
  const { directory, committer, expiry, totals } = runtime

  function unavailable (): HoldfastError {
    return new HoldfastError('STORE_UNAVAILABLE', { retryAfterMs: STORE_RETRY_MS })
  }

  function open (request: EntryRequest, previous: Previous | undefined): MaybePromise<Entry> {
    const { userId, profile } = request
    const session = runtime.open(userId, profile, request)
    const entry = prepare(session, null, previous)
    const kept = committer.create(session)
    if (!isPromise(kept)) return entry
    return kept.then(problem => {
      if (problem === undefined) return entry
      void runtime.end(session, problem === 'user_quota' ? 'quota' : 'state_lost')
      if (problem === 'user_quota') throw new HoldfastError('USER_QUOTA')
      if (problem === 'full') throw new HoldfastError('SERVER_FULL', { retryAfterMs: STORE_RETRY_MS })
      throw unavailable()
    })
  }

  function prepare (session: SessionRecord, lastSeen: Seq | null, previous: Previous | undefined): Entry {
    const resumeToken = runtime.rotateToken(session)
    runtime.expect(session)
    return { session, lastSeen, resumeToken, previous, claim: session.claims }
  }

  /**
   * What a refused client is told depends on whether it holds the token of the session that was
   * (P-33).
   */
  function refuse ({ sessionId }: ResumeOffer, userId: UserId, hash: string): Previous {
    totals.resumeRefused++
    const tombstone = directory.tombstone(sessionId)
    return tombstone !== undefined && holds(hash, userId, tombstone)
      ? { sessionId, reason: tombstone.reason, lastCommand: tombstone.lastCommand }
      : { sessionId, reason: 'unknown' }
  }

  function resume (request: EntryRequest, offer: ResumeOffer): MaybePromise<Entry> {
    const { sessionId, token, lastSeq } = offer
    const { userId } = request
    const session = directory.get(sessionId)
    const hash = hashResumeToken(token)
    if (session === undefined || !holds(hash, userId, session)) {
      // A record that does not know the token may be of an ownership that was lost unnoticed
      // (S-11).
      return claims !== undefined && directory.tombstone(sessionId) === undefined
        ? claim(claims, request, offer, hash)
        : open(request, refuse(offer, userId, hash))
    }
    // A client that has seen more than there is means lost state (P-34).
    const isStale = expiry.isStale(session)
    if (isStale || lastSeq > lastSeqOf(session)) {
      totals.resumeRefused++
      const reason = isStale ? expiry.staleReason(session) : 'state_lost'
      void runtime.end(session, reason)
      return open(request, { sessionId, reason, lastCommand: watermarkOf(session) })
    }
    return takeUp(request, offer, session, hash)
  }

  async function claim (from: Claims, request: EntryRequest, offer: ResumeOffer, hash: string): Promise<Entry> {
    const { sessionId, lastSeq } = offer
    const claimed = await from.claim(request, offer, hash)
    if (claimed === 'here') return await resume(request, offer)
    if (claimed === 'unknown') return await open(request, refuse(offer, request.userId, hash))
    if ('ended' in claimed) {
      totals.resumeRefused++
      const { reason, lastCommand } = claimed.ended
      return await open(request, { sessionId, reason, lastCommand })
    }
    const { session, token } = claimed
    // Nobody was there to end it in time.
    if (expiry.isStale(session)) return await resume(request, offer)
    totals.resumed++
    session.claims++
    runtime.expect(session)
    return { session, lastSeen: lastSeq, resumeToken: token, previous: undefined, claim: session.claims }
  }

  function takeUp (
    request: EntryRequest, offer: ResumeOffer, session: SessionRecord, hash: string
  ): MaybePromise<Entry> {
    // Whichever token was presented stays valid until the new connection speaks: the answer with
    // the next one may be lost (P-28).
    session.previousTokenHash = previousAfter(hash, session.tokenHash, session.previousTokenHash)
    runtime.dismiss(session, CLOSE.replaced)
    session.labels = request.labels ?? NOTHING
    totals.resumed++
    const entry = prepare(session, offer.lastSeq, undefined)
    committer.commit(session)
    const kept = committer.whenKept(session)
    if (kept === undefined) return entry
    // It ended meanwhile, or another node has it now: what a later resume would be told.
    return kept.then(isKept => isKept ? entry : resume(request, offer))
  }

  return {
    enter (request) {
      if (!committer.isAvailable) throw unavailable()
      const { resume: offer } = request
      if (offer === undefined) return open(request, undefined)
      return offer === 'malformed' ? open(request, { sessionId: '', reason: 'unknown' }) : resume(request, offer)
    },

    obstacle ({ session, claim }) {
      if (!session.ended) return session.claims === claim ? undefined : CLOSE.replaced
      // Without a tombstone it lives on elsewhere.
      return claims !== undefined && directory.tombstone(session.id) === undefined ? CLOSE.moved : CLOSE.unknownSession
    }
  }
}

function holds (
  hash: string, userId: UserId, kept: { userId: UserId, tokenHash: string | null, previousTokenHash: string | null }
): boolean {
  return kept.userId === userId && (sameHash(hash, kept.tokenHash) || isPrevious(hash, kept.previousTokenHash))
}
