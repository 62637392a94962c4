// Taking up a session that this node has not got: an ownerless one, or another node's (S-10, S-11).
// The store decides; here the answer becomes a live session, as if it had been here all the time.
//
// Invariant: one claim of a session is under way on this node. A later handshake waits for it and
// finds the session here, so the latest handshake wins as it does everywhere (P-29).

import { HoldfastError } from '../errors.js'
import type { SessionId } from '../types.js'
import type { ResumeOffer } from '../protocol/handshake.js'
import { NOTHING } from './context.js'
import type { EntryRequest } from './entry.js'
import type { SessionRecord } from './record.js'
import { answerOpenCommands, reviveOne } from './restore.js'
import { createResumeToken, hashResumeToken } from './resume-token.js'
import type { SessionRuntime } from './runtime.js'
import type { ClaimedSession, ClaimRequest, ClaimResult, SharedSessionStore } from './shared-store.js'
import type { StoredTombstone } from './store.js'

/** `here`: an earlier claim brought it. */
export type Claimed =
  { readonly session: SessionRecord, readonly token: string } | { readonly ended: StoredTombstone } | 'unknown' | 'here'

export interface Claims {
  /**
   * @throws STORE_UNAVAILABLE  the token that was presented is still valid
   * @throws SERVER_FULL
   */
  claim(request: EntryRequest, offer: ResumeOffer, hash: string): Promise<Claimed>
}

/** Of two nodes that claim at the same time one loses, and then asks the other to let go. */
const ATTEMPTS = 3
/** For a client whose claim met others all the time. */
const RETRY_MS = 200

export function createClaims (runtime: SessionRuntime, store: SharedSessionStore): Claims {
  const { directory, quota } = runtime
  const pending = new Map<SessionId, Promise<unknown>>()

  async function ask (request: ClaimRequest): Promise<Exclude<ClaimResult, 'moved' | 'unavailable'>> {
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const result = await store.claim(request)
      if (result === 'unavailable') break
      if (result !== 'moved') return result
    }
    throw new HoldfastError('STORE_UNAVAILABLE', { retryAfterMs: RETRY_MS })
  }

  function settle ({ session: stored, fence }: ClaimedSession): SessionRecord {
    const session = reviveOne(runtime, stored, fence)
    directory.add(session)
    runtime.adopt(session)
    answerOpenCommands(runtime, stored, session)
    return session
  }

  async function take (request: EntryRequest, { sessionId, lastSeq }: ResumeOffer, hash: string): Promise<Claimed> {
    quota.makeRoomForClaim(request.userId)
    const token = createResumeToken()
    const result = await ask({
      id: sessionId,
      userId: request.userId,
      tokenHash: hash,
      nextTokenHash: hashResumeToken(token),
      lastSeen: lastSeq,
      labels: request.labels ?? NOTHING
    })
    if (result === 'unknown' || 'ended' in result) return result
    return { session: settle(result), token }
  }

  return {
    async claim (request, offer, hash) {
      const { sessionId } = offer
      const earlier = pending.get(sessionId)
      if (earlier !== undefined) {
        await earlier.catch(() => {})
        if (directory.get(sessionId) !== undefined) return 'here'
        return await this.claim(request, offer, hash)
      }
      const claimed = take(request, offer, hash)
      pending.set(sessionId, claimed)
      try {
        return await claimed
      } finally {
        pending.delete(sessionId)
      }
    }
  }
}
