// One connection as a client sees it: the frames received so far, in order, and ways to wait for
// the next one. What holds for every connection whatever the rule under test (numbering, goodbye
// before close, clean framing) is watched here and reported as breaches. A peer never resumes,
// retries or acknowledges by itself; the strict resuming client of the chaos run is
// chaos/client.ts.

import { Failure, show } from './expect.js'
import { OPCODE } from './frames.js'
import type { Link, LinkEnd } from './socket.js'

export type Profile = 'basic' | 'full'

export interface Span { from: number, to: number }

/** Any frame from the server; members are looked at only where a rule names them. */
export interface ServerFrame {
  type?: string
  seq?: number
  id?: number | string
  code?: string
  event?: string
  // Untyped on purpose: what a server sends is what is to be found out.
  payload?: any
  expected?: number
  retryAfterMs?: number
  resumeToken?: string
  lastCommand?: number
  replay?: Span | null
  gap?: Span | null
  previous?: { sessionId?: string, reason?: string, lastCommand?: number }
}

export interface Ending extends LinkEnd {
  readonly goodbye: ServerFrame | undefined
  /** Frames that came after `goodbye`. */
  readonly afterGoodbye: readonly ServerFrame[]
}

export interface Peer {
  readonly profile: Profile
  readonly localPort: number
  /** Everything received, pings included. */
  readonly frames: readonly ServerFrame[]
  /** Milliseconds (monotonic) at which each of `frames` arrived. */
  readonly arrivals: readonly number[]
  /** Number of WebSocket pings received, and when the last one came. */
  readonly wirePings: readonly number[]
  readonly opening: ServerFrame
  /** Members of the opening frame, wherever the server put them: beside `type` or in `payload`. */
  readonly facts: Record<string, any>
  readonly sessionId: string
  readonly token: string
  readonly isOpen: boolean
  readonly highestSeq: number
  readonly link: Link
  /** The next frame that is no ping. */
  take(what?: string): Promise<ServerFrame>
  /** Takes frames up to the first for which `match` holds; gives that one. */
  until(match: (frame: ServerFrame) => boolean, what: string, timeoutMs?: number): Promise<ServerFrame>
  /** The answer or refusal that carries this id, among the frames not taken yet. */
  answer(id: number | string): Promise<ServerFrame>
  send(frame: object): void
  sendText(text: string): void
  sendBinary(bytes: Uint8Array): void
  /** Sends a command, with `sessionId` where the profile requires it. */
  command(command: string, payload?: unknown, id?: number | string, more?: object): void
  ack(seq: number): void
  /**
   * Sends an echo and takes everything up to its answer: what has not come by then was not sent
   * before it.
   */
  fence(): Promise<ServerFrame[]>
  closed(what?: string, timeoutMs?: number): Promise<Ending>
}

export interface PeerOptions {
  timeoutMs: number
  /** Told of every behaviour that no connection may show, with the rule it breaks. */
  breach(rule: string, sentence: string): void
}

export type FramesOfPeer = Pick<Peer, 'frames'>

let fences = 0

/** Waits for the opening frame (P-5) and gives the peer. */
export async function createPeer (link: Link, profile: Profile, options: PeerOptions): Promise<Peer> {
  const frames: ServerFrame[] = []
  const arrivals: number[] = []
  const wirePings: number[] = []
  const watch = createWatch(options.breach)
  let taken = 0
  let ending: Ending | undefined
  let wake = () => {}

  async function waitFor (ready: () => boolean, what: string, timeoutMs = options.timeoutMs): Promise<void> {
    const deadline = performance.now() + timeoutMs
    while (!ready()) {
      if (ending !== undefined) {
        throw new Failure(
          `expected ${what}, got the connection closed with ${ending.code} ${show(ending.goodbye ?? '')}`
        )
      }
      const leftMs = deadline - performance.now()
      if (leftMs <= 0) {
        throw new Failure(
          `expected ${what}, got nothing of it within ${timeoutMs} ms; last frames ${show(frames.slice(-3))}`
        )
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs)
        const before = wake
        wake = () => { clearTimeout(timer); before(); resolve() }
      })
    }
  }
  function skipPings () {
    while (frames[taken]?.type === 'ping') taken++
  }
  link.handle({
    text (text) {
      const frame = readFrame(text, options.breach)
      frames.push(frame)
      arrivals.push(performance.now())
      watch.frame(frame)
      signal()
    },
    ping: () => { wirePings.push(performance.now()); signal() },
    breach: (sentence) => options.breach('P-1', `expected only what RFC 6455 allows, got ${sentence}`),
    end (end) {
      const at = frames.findIndex((frame) => frame.type === 'goodbye')
      ending = { ...end, goodbye: at < 0 ? undefined : frames[at], afterGoodbye: at < 0 ? [] : frames.slice(at + 1) }
      watch.end(ending)
      signal()
    }
  })
  function signal () {
    const call = wake
    wake = () => {}
    call()
  }
  await waitFor(() => frames.length > 0, 'session_created or session_resumed as the first frame')
  const opening = frames[0]!
  taken = 1
  const facts: Record<string, any> = { ...opening, ...opening.payload }

  const peer: Peer = {
    profile,
    link,
    frames,
    arrivals,
    wirePings,
    opening,
    facts,
    localPort: link.localPort,
    sessionId: String(facts['sessionId']),
    token: String(facts['resumeToken']),
    get isOpen () { return ending === undefined },
    get highestSeq () { return watch.highestSeq() },
    async take (what = 'another frame') {
      await waitFor(() => { skipPings(); return taken < frames.length }, what)
      return frames[taken++]!
    },
    async until (match, what, timeoutMs) {
      let found: ServerFrame | undefined
      await waitFor(() => {
        while (found === undefined && taken < frames.length) {
          const frame = frames[taken++]!
          if (match(frame)) found = frame
        }
        return found !== undefined
      }, what, timeoutMs)
      return found!
    },
    answer: (id) => peer.until((frame) => frame.id === id, `an answer to command ${show(id)}`),
    send: (frame) => link.sendText(JSON.stringify(frame)),
    sendText: link.sendText,
    sendBinary: (bytes) => link.sendFrame(OPCODE.binary, bytes),
    command (command, payload, id, more = {}) {
      const frame: Record<string, unknown> = { command, ...more }
      if (payload !== undefined) frame['payload'] = payload
      if (id !== undefined) frame['id'] = id
      if (profile === 'basic' && !Object.hasOwn(frame, 'sessionId')) frame['sessionId'] = peer.sessionId
      peer.send(frame)
    },
    ack: (seq) => peer.send({ type: 'ack', seq }),
    async fence () {
      const id = `fence-${++fences}`
      const from = taken
      peer.command('echo', id, id)
      await peer.answer(id)
      return frames.slice(from, taken - 1).filter((frame) => frame.type !== 'ping')
    },
    async closed (what = 'the connection closed', timeoutMs) {
      await waitFor(() => ending !== undefined, what, timeoutMs)
      return ending!
    }
  }
  return peer
}

function readFrame (text: string, breach: PeerOptions['breach']): ServerFrame {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    value = undefined
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    breach('P-1', `expected one JSON object in each text message, got ${show(text)}`)
    return {}
  }
  return value
}

/** P-20, P-42 and P-49 on any connection. */
function createWatch (breach: PeerOptions['breach']) {
  let highest: number | undefined
  let start: number | undefined
  return {
    highestSeq: () => highest ?? 0,
    frame (frame: ServerFrame) {
      if (frame.type === 'session_created') start = 0
      if (frame.type === 'session_resumed') {
        const replay = frame.replay ?? (frame.payload as { replay?: Span } | undefined)?.replay
        start = replay === undefined || replay === null ? undefined : replay.from - 1
      }
      if (frame.seq === undefined) return
      const previous = highest ?? start
      if (previous !== undefined && frame.seq > previous + 1) {
        breach('P-20', `expected the next new output of the connection to have seq ${previous + 1}, got ${show(frame)}`)
      }
      if (highest === undefined || frame.seq > highest) highest = frame.seq
    },
    end (end: Ending) {
      if (!end.byServer || end.code < 4000 || end.code > 4499) return
      const goodbye = end.goodbye?.payload as { code?: number, action?: string } | undefined
      if (goodbye === undefined) return breach('P-42', `expected goodbye before close ${end.code}, got none`)
      if (goodbye.code !== end.code) {
        breach('P-42', `expected goodbye to name close code ${end.code}, got ${show(goodbye)}`)
      }
      if (end.afterGoodbye.length > 0) {
        breach('P-42', `expected goodbye to be the last frame, got ${show(end.afterGoodbye)}`)
      }
      // A quota may be free again later, and a server may say so (section 10).
      const mayWait = end.code === 4429 && goodbye.action === 'resume_later'
      if (goodbye.action !== actionOf(end.code) && !mayWait) {
        breach('P-49', `expected action ${actionOf(end.code)} with ${end.code}, got ${show(goodbye.action)}`)
      }
    }
  }
}

/** What the hundreds digit of a close code tells a client to do (P-49). */
export function actionOf (code: number): string {
  if (code === 1000) return 'stop'
  return { 40: 'stop', 42: 'resume', 43: 'new', 44: 'stop' }[Math.floor(code / 100)] ?? 'resume_later'
}

/** Codes of the table in section 10, with their reasons. */
export const REASONS: Readonly<Record<number, string>> = {
  4000: 'ended_by_client',
  4001: 'ended_by_operator',
  4003: 'replaced',
  4100: 'internal',
  4101: 'slow_consumer',
  4102: 'rate_limited',
  4103: 'heartbeat_missed',
  4104: 'overloaded',
  4105: 'auth_unavailable',
  4106: 'store_unavailable',
  4200: 'draining',
  4202: 'credentials_expired',
  4203: 'detached_by_operator',
  4204: 'moved',
  4300: 'idle',
  4301: 'unknown_session',
  4302: 'state_lost',
  4400: 'bad_frame',
  4401: 'unauthenticated',
  4403: 'forbidden',
  4409: 'session_invalid',
  4429: 'quota'
}
