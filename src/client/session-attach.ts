// From an attempt to a live session: what is saved, what the server gives, and whose it is.

import type { SavedSession } from './environment.js'
import { end, over } from './session-loss.js'
import { acknowledge } from './session-output.js'
import { act, enter, tell, type Draft, type SessionPayload } from './session-state.js'

export function attempt (s: Draft): void {
  s.isPaused = s.isAttached = false
  act(s, 'disarm', 'retry')
  enter(s, 'connecting')
  if (s.isLoading) return
  s.isLoading = s.isStale
  if (s.isStale) act(s, 'load')
  else begin(s)
}

function begin (s: Draft): void {
  tell(s, 'connecting', { attempt: s.attempts, resuming: s.resumeToken !== undefined })
  act(s, 'open')
}

export function loaded (s: Draft, saved: SavedSession | undefined, isFree: boolean): void {
  s.isLoading = s.isStale = false
  if (isFree) {
    if (saved !== undefined) join(s, saved)
  } else if (s.sessionId !== undefined) {
    // Another tab went on with the session while this page was away, as with one that is
    // duplicated.
    if (!s.renew) return end(s, 'replaced', true)
    act(s, 'renew')
    over(s, 'replaced')
    s.resumeToken = undefined
  }
  if (s.phase === 'connecting') begin(s)
}

/** Another page may have used the session since this one has read it. */
function join (s: Draft, saved: SavedSession): void {
  const { sessionId, userId, resumeToken, lastSeq, commands } = saved
  const isSame = sessionId === s.sessionId
  if (isSame && resumeToken === s.resumeToken) return
  if (!isSame) {
    if (s.sessionId !== undefined) act(s, 'renew')
    over(s, 'unknown')
    s.lastSeq = lastSeq
  } else if (lastSeq > s.lastSeq) {
    tell(s, 'gap', { from: s.lastSeq + 1, to: lastSeq })
    s.lastSeq = lastSeq
  }
  if (userId !== undefined) identify(s, userId)
  s.sessionId = sessionId
  s.userId = userId
  s.resumeToken = resumeToken
  s.isOver = false
  act(s, 'restore', commands)
}

/** What one user queued is never sent as another. */
export function identify (s: Draft, userId: string, previous = s.userId): void {
  if (previous === undefined || previous === userId) return
  act(s, 'disown')
  tell(s, 'userChanged', { userId, previous })
}

function adopt (s: Draft, { sessionId, userId, limits, resumeToken, heartbeatMs, revision }: SessionPayload): void {
  s.sessionId = sessionId
  s.userId = userId
  s.limits = limits ?? {}
  s.resumeToken = resumeToken ?? undefined
  s.isAttached = true
  s.isOver = false
  s.failures = s.denials = 0
  act(s, 'expect', heartbeatMs, revision !== undefined)
  // A resume window of 0 (P-36) leaves nothing worth keeping.
  if (s.resumeToken === undefined) act(s, 'forget', false)
  else act(s, 'save')
}

export function created (s: Draft, given: SessionPayload): void {
  const { reason = 'unknown', lastCommand } = given.previous ?? {}
  act(s, 'renew', lastCommand)
  if (s.sessionId !== undefined && !s.renew) {
    act(s, 'send', '{"type":"end"}')
    act(s, 'close', 1000)
    return end(s, reason)
  }
  identify(s, given.userId)
  over(s, reason)
  s.lastSeq = s.ackedSeq = 0
  adopt(s, given)
  act(s, 'claim', given.sessionId)
  live(s, false)
}

export function resumed (s: Draft, given: SessionPayload): void {
  const { sessionId, userId, lastCommand, replay, gap } = given
  s.ackedSeq = s.lastSeq
  if (gap !== null) s.lastSeq = gap.to
  if (s.userId !== undefined && s.userId !== userId) act(s, 'renew', lastCommand)
  identify(s, userId)
  act(s, 'resume', lastCommand, gap !== null)
  adopt(s, given)
  tell(s, 'resumed', { sessionId, lastCommand, replay, gap })
  if (gap !== null) tell(s, 'gap', gap)
}

export function live (s: Draft, resumed: boolean): void {
  s.liveAt = s.now
  // The first frame is what makes the presented token worthless (P-28).
  if (resumed) acknowledge(s)
  enter(s, 'live')
  tell(s, 'live', { sessionId: s.sessionId!, userId: s.userId!, resumed })
  act(s, 'flow', s.limits)
}
