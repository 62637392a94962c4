// Questions that several subjects ask of a session once its connection is gone.

import { expect, expectEqual, notTested } from '../expect.js'
import type { Scope, SessionKey } from '../kit.js'
import type { Peer, ServerFrame } from '../peer.js'

/** The session can be resumed: it was detached, not ended. Gives the resumed connection. */
export async function expectDetached (scope: Scope, session: SessionKey & { highestSeq?: number }): Promise<Peer> {
  return scope.resumed(session, session.highestSeq ?? 0)
}

/** The session is gone for the operator (basic profile, which has no token to ask with). */
export async function expectTerminated (scope: Scope, session: { sessionId: string }): Promise<void> {
  await scope.eventually('the session to be gone for the operator (404 or 410)', async () => {
    const { status, body } = await scope.admin.session(session.sessionId)
    return status === 404 || status === 410 || body?.state === 'ended' ? true : undefined
  })
}

/** A resume is refused with this reason; gives the connection, which goes on with a new session. */
export async function expectRefused (scope: Scope, session: SessionKey, reason: string, lastSeq = 0): Promise<Peer> {
  if (scope.facts.resumeWindowMs === 0) notTested('resumeWindowMs above 0')
  const peer = await scope.resume(session, lastSeq)
  expectPrevious(peer, session.sessionId, reason)
  return peer
}

export function expectPrevious (peer: Peer, sessionId: string, reason: string): void {
  expectEqual(peer.opening.type, 'session_created', 'after a refused resume, the first frame')
  const { previous } = peer.facts
  expectEqual(previous?.reason, reason, 'previous.reason')
  expectEqual(previous?.sessionId, sessionId, 'previous.sessionId')
  expect(peer.sessionId !== sessionId, 'a new sessionId', peer.sessionId)
}

/** Takes the frames of a replay; they have to be the outputs `from`..`to` in order, then `live`. */
export async function takeReplay (peer: Peer): Promise<ServerFrame[]> {
  const replayed: ServerFrame[] = []
  for (let frame = await peer.take(
    'the replay'
  ); frame.type !== 'live'; frame = await peer.take('the replay or live')) {
    replayed.push(frame)
  }
  const { replay } = peer.facts
  const seqs = replayed.map(({ seq }) => seq)
  if (replay === null) {
    expectEqual(seqs, [], 'with replay null, the outputs before live')
  } else {
    expectEqual(seqs, span(replay.from, replay.to), `with replay ${replay.from}..${replay.to}, the outputs before live`)
  }
  return replayed
}

export function span (from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, to - from + 1) }, (_, n) => from + n)
}

/**
 * Numbered echoes in bursts until one is refused for rate; gives the refusal and the id that is due
 * next.
 */
export async function provokeRateLimit (scope: Scope, peer: Peer): Promise<{ refusal: ServerFrame, next: number }> {
  const { commandsPerSecond, maxInFlight } = scope.facts
  if (commandsPerSecond > 2000) notTested('commandsPerSecond ≤ 2000')
  let refusal: ServerFrame | undefined
  let next = 1
  // Bursts, since one at a time would never empty a bucket that refills meanwhile; small ones, so
  // that maxInFlight is not met first.
  const deadline = performance.now() + scope.options.timeoutMs
  while (refusal === undefined && performance.now() < deadline) {
    const burst = span(next, next + Math.min(10, maxInFlight) - 1)
    for (const id of burst) peer.command('echo', id, id)
    for (let n = 0; n < burst.length; n++) {
      const answer = await peer.until(({ id }) => id !== undefined, 'an answer or a refusal')
      if (answer.code === 'RATE_LIMITED') refusal ??= answer
      if (answer.seq !== undefined) next++
    }
  }
  return { refusal: refusal ?? notTested('a rate limit that bursts of echoes can reach'), next }
}
