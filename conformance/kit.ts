// What a check works with: connections to the server under test, the operator's side, the kit's
// core, and outputs on demand. Each check gets a scope of its own; whatever it opened is closed
// when it ends, so that checks can run side by side and leave no sessions behind. Refused
// handshakes of a busy server (429, 503 with a short Retry-After) are waited out, since no rule but
// P-4 is about them.

import { randomUUID } from 'node:crypto'
import type { Admin } from './admin.js'
import type { Core } from './core.js'
import { Failure, expect, notTested, show } from './expect.js'
import type { KitOptions } from './options.js'
import { createPeer, type Peer, type Profile, type ServerFrame } from './peer.js'
import { upgrade, type Link, type UpgradeOptions, type UpgradeResult } from './socket.js'
import { signToken } from './token.js'

/** What the server said about itself in the opening frame of a first connection. */
export interface Facts {
  readonly idleTimeoutMs: number
  readonly heartbeatMs: number
  readonly resumeWindowMs: number
  readonly maxMessageBytes: number
  readonly commandsPerSecond: number
  readonly maxInFlight: number
}

export interface ConnectOptions extends UpgradeOptions {
  /** Text of the `resume.` entry after the dot. */
  resume?: string
  /** Who connects, where the kit signs tokens; without it the one user of the check. */
  user?: string
  tokenLifetimeSeconds?: number
  /** Connects somewhere else than --url. */
  url?: URL
}

export interface SessionKey { sessionId: string, token: string }

export interface Scope {
  readonly profile: Profile
  readonly options: KitOptions
  readonly facts: Facts
  /** Ends the check as not tested if the run has none. */
  readonly core: Core
  readonly hasCore: boolean
  readonly admin: Admin
  readonly hasAdmin: boolean
  /** True if tokens of other users can be signed. */
  readonly signsTokens: boolean
  tag(): string
  handshake(options?: ConnectOptions): Promise<UpgradeResult>
  connect(options?: ConnectOptions): Promise<Peer>
  /** Asks to resume; what opens may be `session_resumed` or `session_created`. */
  resume(session: SessionKey, lastSeq: number, options?: ConnectOptions): Promise<Peer>
  /** As resume(), and fails the check unless the session was resumed. */
  resumed(session: SessionKey, lastSeq: number, options?: ConnectOptions): Promise<Peer>
  /**
   * Lets the server send `count` outputs of about `bytes` bytes each on this connection, by echo,
   * within its limits.
   */
  fill(peer: Peer, count: number, bytes: number): Promise<void>
  /** The same for a peer that does not read: paced by the clock. */
  fillBlindly(peer: Peer, count: number, bytes: number): Promise<void>
  /** Polls until `ready` gives something else than undefined. */
  eventually<T>(what: string, ready: () => Promise<T | undefined>): Promise<T>
  breach(rule: string, sentence: string): void
}

export interface ScopeParts {
  options: KitOptions
  profile: Profile
  facts: Facts
  core: Core | undefined
  admin: Admin | undefined
  breach(rule: string, sentence: string): void
}

const LIMITED_WAIT_SECONDS = 10

export function createScope (parts: ScopeParts): { scope: Scope, end: () => void } {
  const { options, profile, facts, core, admin } = parts
  const links: Link[] = []
  const user = `kit-${randomUUID()}`
  let ended = false
  const breach = (rule: string, sentence: string) => { if (!ended) parts.breach(rule, sentence) }

  async function handshake (given: ConnectOptions = {}): Promise<UpgradeResult> {
    const headers = { ...credentials(options, given.user ?? user, given.tokenLifetimeSeconds), ...given.headers }
    const result = await upgrade(given.url ?? new URL(options.url), { timeoutMs: options.timeoutMs, ...given, headers })
    if (result.link !== undefined) links.push(result.link)
    return result
  }
  async function connect (given: ConnectOptions = {}): Promise<Peer> {
    const protocols = given.protocols ??
      (profile === 'basic' ? [] : ['holdfast.v1', ...(given.resume === undefined ? [] : [`resume.${given.resume}`])])
    for (;;) {
      const { answer, link } = await handshake({ ...given, protocols })
      if (link !== undefined) return createPeer(link, profile, { timeoutMs: options.timeoutMs, breach })
      const retryAfterSeconds = Number(answer.headers.get('retry-after') ?? Number.NaN)
      if (!(answer.status === 429 || answer.status === 503) || !(retryAfterSeconds <= LIMITED_WAIT_SECONDS)) {
        throw new Failure(`expected an upgrade, got HTTP ${answer.status} ${show(answer.body)}`)
      }
      await pause(retryAfterSeconds * 1000 + 50)
    }
  }
  const resume = ({ sessionId, token }: SessionKey, lastSeq: number, given: ConnectOptions = {}) =>
    connect({ ...given, resume: `${sessionId}.${token}.${lastSeq}` })

  const scope: Scope = {
    profile,
    options,
    facts,
    handshake,
    connect,
    resume,
    breach,
    get core () { return core ?? notTested('--core') },
    hasCore: core !== undefined,
    get admin () { return admin ?? notTested('--admin') },
    hasAdmin: admin !== undefined,
    signsTokens: options.jwtSecret !== undefined,
    tag: () => randomUUID(),
    async resumed (session, lastSeq, given) {
      if (facts.resumeWindowMs === 0) notTested('resumeWindowMs above 0')
      const peer = await resume(session, lastSeq, given)
      expect(
        peer.opening.type === 'session_resumed' && peer.sessionId === session.sessionId,
        'session_resumed of the same session',
        peer.opening
      )
      return peer
    },
    fill: (peer, count, bytes) => fill(peer, facts, count, bytes),
    async fillBlindly (peer, count, bytes) {
      const payload = 'x'.repeat(bytes)
      for (let n = 0; n < count && peer.isOpen; n++) {
        peer.command('echo', payload, `blind-${n}`)
        await pause(Math.max(1, 1250 / Math.min(facts.commandsPerSecond, 1000)))
      }
    },
    async eventually (what, ready) {
      const deadline = performance.now() + options.timeoutMs
      for (;;) {
        const value = await ready()
        if (value !== undefined) return value
        if (performance.now() > deadline) {
          throw new Failure(`expected ${what} within ${options.timeoutMs} ms, got nothing of it`)
        }
        await pause(20)
      }
    }
  }
  function end () {
    ended = true
    for (const link of links) {
      link.resumeReading()
      link.close(1000)
    }
  }
  return { scope, end }
}

export function credentials (options: KitOptions, userId: string, lifetimeSeconds = 3600): Record<string, string> {
  if (options.jwtSecret !== undefined) {
    return {
      authorization: `Bearer ${signToken(options.jwtSecret, { userId, lifetimeSeconds, claims: options.jwtClaims })}`
    }
  }
  return options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }
}

export function pause (ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

async function fill (peer: Peer, facts: Facts, count: number, bytes: number): Promise<void> {
  const payload = 'x'.repeat(bytes)
  const windowSize = Math.max(1, Math.min(16, Math.floor(facts.maxInFlight / 2)))
  const gapMs = 1000 * windowSize / (0.8 * facts.commandsPerSecond)
  let answered = 0
  let sent = 0
  let open = 0
  while (answered < count) {
    const burst = Math.min(windowSize - open, count - answered - open)
    for (let n = 0; n < burst; n++) peer.command('echo', payload, `fill-${++sent}`)
    open += burst
    const paced = gapMs >= 1 ? pause(gapMs) : undefined
    while (open > 0) {
      const frame = await peer.until(isFillAnswer, 'an answer to an echo')
      open--
      if (frame.seq !== undefined) answered++
      else await pause(frame.retryAfterMs ?? 100)
    }
    await paced
  }
}

const isFillAnswer = (frame: ServerFrame) => typeof frame.id === 'string' && frame.id.startsWith('fill-')
