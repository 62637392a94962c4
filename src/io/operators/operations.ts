// What operators do with sessions, wherever those are: the port under the REST API. Everything is
// answered when the store has it, so what an operator was told stays true after a crash. `local.ts`
// is the one for a node that has all sessions itself.

import type { ListQuery, SessionCounts, SessionPage } from '../session/manager.js'
import type {
  JsonObject, JsonValue, SendOptions, Seq, SessionId, SessionView, Target, Tombstone, UserId
} from '../types.js'

/** A session, or what is left of it. */
export type FoundSession = { readonly view: SessionView } | { readonly tombstone: Tombstone }

export interface SessionOperations {
  /** As an operator sees it. No activity. Undefined for one that is not, or not any more, known. */
  find(id: SessionId): Promise<FoundSession | undefined>
  /** @throws INVALID_CURSOR */
  list(query: ListQuery): Promise<SessionPage>
  count(): Promise<SessionCounts>
  /**
   * Ends the session: false if there is none.
   *
   * @throws STORE_UNAVAILABLE  it ended here, and the store is told when it is back
   */
  terminate(id: SessionId, note?: string): Promise<boolean>
  /**
   * Ends the sessions that a user has now, or all but one; returns how many.
   *
   * @throws SESSION_NOT_FOUND  `except` is not a session of the user; nothing was ended
   * @throws STORE_UNAVAILABLE  they ended here, and the store is told when it is back
   */
  terminateUser(userId: UserId, except?: SessionId, note?: string): Promise<number>
  /**
   * Drops the connection and keeps the session (basic profile: ends it). False if there is none
   * attached.
   *
   * @throws SESSION_NOT_FOUND, SESSION_ENDED
   */
  detach(id: SessionId): Promise<boolean>
  /**
   * Sends an output to a session, to those of a user, or to all. The seq is that of a single
   * session. With `behind` it is answered before the store has it, unless another node has the
   * session.
   *
   * @throws SESSION_NOT_FOUND, SESSION_ENDED, PAYLOAD_TOO_LARGE
   * @throws STORE_UNAVAILABLE  not kept so far; it may be delivered all the same when the store is
   *                            back
   */
  send(
    target: Target, event: string, payload: JsonValue, options?: SendOptions
  ): Promise<{ sessions: number, seq: Seq | null }>
  /**
   * Applies a merge patch (RFC 7396) to the context.
   *
   * @throws SESSION_NOT_FOUND, SESSION_ENDED, CONTEXT_TOO_LARGE, STORE_UNAVAILABLE
   */
  patchContext(id: SessionId, patch: JsonObject): Promise<SessionView>
}
