// P-33, P-34 and P-36: resumes that are refused, what is told to whom, and how long a detached
// session is kept.

import { randomBytes } from 'node:crypto'
import { FULL, check, type Check } from '../check.js'
import { expect, expectEqual, notTested } from '../expect.js'
import { pause, type Scope } from '../kit.js'
import type { Peer } from '../peer.js'
import { expectPrevious, expectRefused, takeReplay } from './shared.js'

/** How long a session is kept whose client may not know of it (P-36b). */
const UNKNOWN_MS = 30_000

/** A detached session with two answered commands. */
async function detached (scope: Scope): Promise<Peer> {
  if (scope.facts.resumeWindowMs === 0) notTested('resumeWindowMs above 0')
  const peer = await scope.connect()
  for (const id of [1, 2]) {
    peer.command('echo', id, id)
    await peer.answer(id)
  }
  peer.link.destroy()
  return peer
}

/** The resume is answered as one of a session that never was, and says nothing of the session. */
async function expectUnknown (scope: Scope, resume: string, what: string): Promise<Peer> {
  const peer = await scope.connect({ resume })
  expectEqual(peer.opening.type, 'session_created', `for ${what}, the first frame`)
  expectEqual(peer.facts['previous']?.reason, 'unknown', `for ${what}, previous.reason`)
  expectEqual(peer.facts['previous']?.lastCommand, undefined, `for ${what}, previous.lastCommand`)
  return peer
}

async function expectTold (scope: Scope, peer: Peer, reason: string): Promise<void> {
  const next = await expectRefused(scope, peer, reason, 2)
  expectEqual(next.facts['previous']?.lastCommand, 2, `with ${reason}, previous.lastCommand`)
  const stranger = await scope.resume({ sessionId: peer.sessionId, token: randomBytes(32).toString('base64url') }, 2)
  expectPrevious(stranger, peer.sessionId, 'unknown')
}

export const refusedResumeChecks: readonly Check[] = [
  check('P-33', 'goes on with a new session after a refused resume', FULL, async (scope) => {
    if (scope.facts.resumeWindowMs === 0) notTested('resumeWindowMs above 0')
    const peer = await expectUnknown(
      scope, `nobody.${randomBytes(32).toString('base64url')}.0`, 'a session that never was'
    )
    peer.command('echo', 'new', 1)
    expectEqual((await peer.answer(1)).seq, 1, 'in the new session, the seq of the first answer')
    peer.link.destroy()
    await scope.resumed(peer, 1)
  }),
  check('P-33', 'answers wrong, foreign, cut and cast tokens alike: unknown', FULL, async (scope) => {
    const peer = await detached(scope)
    const foreign = await detached(scope)
    const { sessionId, token } = peer
    const flipped = (token.startsWith('A') ? 'B' : 'A') + token.slice(1)
    const wrong: Record<string, string> = {
      'a random token': randomBytes(32).toString('base64url'),
      'the token of another session': foreign.token,
      'a token cut at its end': token.slice(0, -1),
      'a token cut at its start': token.slice(1),
      'a token with one letter more': `${token}A`,
      'a token with one letter changed': flipped,
      'a token in upper case': token.toUpperCase(),
      'an empty token': '',
      'the token null': 'null',
      'the token undefined': 'undefined',
      'the token true': 'true',
      'the token 0': '0',
      'the token __proto__': '__proto__',
      'the session id as token': sessionId.replaceAll('.', '')
    }
    for (const [what, attempt] of Object.entries(wrong)) await expectUnknown(scope, `${sessionId}.${attempt}.2`, what)
    await expectUnknown(scope, `${foreign.sessionId}.${token}.2`, 'the token with another session id')
    await expectUnknown(scope, `__proto__.${token}.2`, 'the session id __proto__')
    const again = await scope.resumed(peer, 2)
    await again.fence()
  }),
  check('P-33', 'answers malformed entries: unknown', FULL, async (scope) => {
    const { sessionId, token } = await detached(scope)
    const entries = ['', '.', '..', '...', sessionId, `${sessionId}.${token}`, `${sessionId}.${token}.`, `.${token}.2`]
    const lastSeqs = [
      '-1', '1.5', '1e0', '0x1', 'abc', 'NaN', 'null', '+1', '2.2', '9007199254740992', '99999999999999999999999'
    ]
    for (const resume of [...entries, ...lastSeqs.map((lastSeq) => `${sessionId}.${token}.${lastSeq}`)]) {
      await expectUnknown(scope, resume, `the entry resume.${resume.replace(token, '<token>')}`)
    }
    const again = await scope.resumed({ sessionId, token }, 2)
    await takeReplay(again)
  }),
  check('P-33', 'tells ended_by_client and the watermark to the holder of the token only', FULL, async (scope) => {
    if (scope.facts.resumeWindowMs === 0) notTested('resumeWindowMs above 0')
    const peer = await scope.connect()
    for (const id of [1, 2]) {
      peer.command('echo', id, id)
      await peer.answer(id)
    }
    peer.send({ type: 'end' })
    await peer.closed()
    await expectTold(scope, peer, 'ended_by_client')
  }),
  check('P-33', 'tells ended_by_operator to the holder of the token only', FULL, async (scope) => {
    const { admin } = scope
    const peer = await detached(scope)
    expectEqual((await admin.terminate(peer.sessionId)).status, 204, 'status of DELETE')
    await expectTold(scope, peer, 'ended_by_operator')
  }),
  check('P-34', 'ends a session whose client is ahead of it: state_lost', FULL, async (scope) => {
    const peer = await detached(scope)
    const next = await expectRefused(scope, peer, 'state_lost', 3)
    expectEqual(next.facts['previous']?.lastCommand, 2, 'previous.lastCommand')
    const later = await scope.resume(peer, 2)
    expectPrevious(later, peer.sessionId, 'state_lost')
  }),
  check('P-34', 'does not end a session for a lastSeq of the future without its token', FULL, async (scope) => {
    const peer = await detached(scope)
    await expectUnknown(
      scope,
      `${peer.sessionId}.${randomBytes(32).toString('base64url')}.3`,
      'a wrong token with a lastSeq of the future'
    )
    await scope.resumed(peer, 2)
  }),
  check('P-36', 'issues no token and terminates at every close with a window of 0', FULL, async (scope) => {
    if (scope.facts.resumeWindowMs !== 0) notTested('resumeWindowMs 0')
    const peer = await scope.connect()
    expectEqual(peer.facts['resumeToken'] ?? null, null, 'resumeToken')
    peer.link.destroy()
    await scope.eventually('the session to be gone for the operator', async () => {
      const { status } = await scope.admin.session(peer.sessionId)
      return status === 404 || status === 410 ? true : undefined
    })
  }),
  check('P-36', 'keeps a detached session for the window and not longer', FULL, async (scope) => {
    const { resumeWindowMs, idleTimeoutMs } = scope.facts
    if (resumeWindowMs < 1000 || resumeWindowMs > 5000 || idleTimeoutMs < resumeWindowMs + 3000) {
      notTested('resumeWindowMs between 1000 and 5000 and an idleTimeoutMs 3000 above it')
    }
    const early = await detached(scope)
    const late = await detached(scope)
    await pause(resumeWindowMs / 4)
    await scope.resumed(early, 2)
    await pause(resumeWindowMs * 3 / 4 + 1500)
    await expectTold(scope, late, 'resume_window')
  }, { slow: true }),
  check('P-36', 'keeps a session whose client never sent a frame for 30 s at most', FULL, async (scope) => {
    const { resumeWindowMs, idleTimeoutMs } = scope.facts
    if (scope.options.patient !== true) notTested('--patient')
    if (Math.min(resumeWindowMs, idleTimeoutMs) < UNKNOWN_MS + 10_000) {
      notTested('resumeWindowMs and idleTimeoutMs ≥ 40000')
    }
    const silent = await scope.connect()
    const known = await detached(scope)
    silent.link.destroy()
    await pause(UNKNOWN_MS + 2000)
    await takeReplay(await scope.resumed(known, 2))
    const next = await scope.resume(silent, 0)
    expectPrevious(next, silent.sessionId, 'resume_window')
  }, { slow: true }),
  check('P-36', 'keeps a detached session not beyond its idle timeout', FULL, async (scope) => {
    const { resumeWindowMs, idleTimeoutMs } = scope.facts
    if (idleTimeoutMs > 5000 || resumeWindowMs < idleTimeoutMs) notTested('idleTimeoutMs ≤ 5000 and ≤ resumeWindowMs')
    const peer = await detached(scope)
    await pause(idleTimeoutMs + 1500)
    const later = await scope.resume(peer, 2)
    expectEqual(later.opening.type, 'session_created', 'for a resume after the idle timeout, the first frame')
    const { reason } = later.facts['previous'] ?? {}
    expect(reason === 'idle' || reason === 'resume_window', 'previous.reason idle or resume_window', reason)
  }, { slow: true })
]
