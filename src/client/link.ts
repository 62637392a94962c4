// One connection at a time: credentials, handshake, frames in and out, and whether the line lives.
// Whether and when a further connection follows is session-machine.ts; frames are parsed here and
// judged there.
//
// `open` begins an attempt, and `lost` or `failed` is told exactly once for it, unless `close` or
// the next `open` came first. Life is whatever a runtime shows of it: every message, bytes of a
// message that is not complete yet (`ws`), and bytes that the network took of what waits to be
// sent. A slow line is thereby not silence.

import { closeAction, type CloseAction } from '../io/protocol/close-codes.js'
import type { Millis } from '../io/types.js'
import type { Reason } from './api.js'
import type { SocketConstructor, SocketLike, Timers, Timing } from './environment.js'

export interface Loss {
  readonly code: number
  readonly reason: Reason
  readonly action: CloseAction
  /** What the runtime says of it. */
  readonly message?: string | undefined
}

export interface LinkPort {
  readonly url: string
  readonly Socket: SocketConstructor
  readonly timing: Timing
  readonly timers: Timers
  token (): string | undefined | Promise<string | undefined>
  /** The credentials of this attempt are there. */
  identified (subject: string | undefined): void
  /** Entries of the offer beside protocol and credentials. Read at the last moment. */
  entries (): string[]
  /**
   * May throw what it likes about a frame that is not shaped as it should be; the connection is
   * then dropped.
   */
  receive (frame: object): void
  lost (loss: Loss): void
  /** No credentials could be had, or no socket can be made of them and the address. */
  failed (reason: 'token_failed' | 'handshake_invalid', cause: unknown): void
}

export interface Link {
  open (): void
  send (text: string): void
  /** The server named its heartbeat (P-43), and whether it answers `ping` (P-52). */
  expect (heartbeatMs: Millis, canPing: boolean): void
  /**
   * Asks whether the line lives, with a deadline much shorter than the heartbeat's.
   *
   * @param isSure  there is reason for doubt, so a server that cannot be asked is resumed instead
   */
  probe (isSure: boolean): void
  /**
   * Gives up whatever there is, and tells nobody. 1000 ends the session, any other code keeps it
   * (P-38, P-39).
   */
  close (code: number): void
}

const SUBPROTOCOL = 'holdfast.v1'
/**
 * The client's own code for a close that keeps the session; browsers allow only 1000 and 3000–4999.
 */
export const DETACH_CODE = 4900
/**
 * What the server's silence may exceed its heartbeat by (P-43), and the heartbeat assumed until it
 * names one.
 */
const GRACE_MS = 10_000
const FIRST_HEARTBEAT_MS = 10_000
const MAX_HEARTBEAT_MS = 600_000
/**
 * The line is looked at that often, so that bytes are seen to move, and a machine that slept is
 * noticed on waking.
 */
const LOOK_MS = 5_000
/** A look that comes later than that means that the machine, or the page, stood still. */
const SLEPT_MS = 3_000
/** Short enough for a page to tell the truth within two seconds of a hint. */
const PROBE_MS = 1_500
/** `token()` may ask a person who is away for a moment, but not for ever. */
const TOKEN_MS = 60_000
/** A session that nobody wants any more is waited for that long, to be ended. */
const LINGER_MS = 10_000
/**
 * Silence in the middle of one large output cannot be seen in browsers; patience doubles until one
 * has come.
 */
const MAX_PATIENCE = 8

/**
 * P-3: a JWT stands for itself, any other token travels as base64url. `auth64` is younger, and used
 * only where it must.
 */
function authEntry (token: string): string {
  if (/^[\w-]*\.[\w.-]*$/.test(token)) return 'auth.' + token
  const base64 = btoa(String.fromCharCode(...new TextEncoder().encode(token)))
  return (token.includes('.') ? 'auth64.' : 'auth.') + base64.replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, '')
}

/** Whom a JWT was issued to; undefined for any other token. */
function subjectOf (token: string | undefined): string | undefined {
  try {
    const { sub } = JSON.parse(atob(token!.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/'))) as { sub?: unknown }
    return typeof sub === 'string' ? sub : undefined
  } catch {
    return undefined
  }
}

/**
 * A refused upgrade, as far as the runtime shows it; `ws` says the HTTP status in the message of
 * its error (P-53a).
 */
function refusal (message: string | undefined): Loss {
  const status = Number(/response: (\d{3})$/.exec(message ?? '')?.[1])
  const known = status > 0 ? 'refused' : 'unreachable'
  const reason = status === 401 ? 'unauthenticated' : status === 403 ? 'forbidden' : known
  const code = [400, 401, 403, 426].includes(status) ? 4000 + status : 1006
  return { code, reason, action: closeAction(code), message }
}

export function createLink (port: LinkPort): Link {
  const { timing, timers } = port
  let socket: SocketLike | undefined
  let turn = 0
  /** A frame has come, and one behind the first. */
  let isOpen = false
  let canPing = false
  let heardAt = 0
  let lookedAt = 0
  let silenceMs = 0
  let patience = 1
  let bytesRead = 0
  let bytesWaiting = 0

  /** Notes whether bytes have moved since the last time. */
  function observe (): void {
    const { bufferedAmount = 0, _socket } = socket!
    const read = _socket?.bytesRead ?? 0
    if (read > bytesRead || bufferedAmount < bytesWaiting) heardAt = timing.now()
    bytesRead = read
    bytesWaiting = bufferedAmount
  }

  function look (): void {
    const slept = timing.wall() - lookedAt > LOOK_MS + SLEPT_MS
    observe()
    const left = heardAt + silenceMs * patience - timing.now()
    if (left > 0) {
      lookedAt = timing.wall()
      timers.arm('look', Math.min(left, LOOK_MS), look)
      if (slept) probe(false)
    } else {
      if (isOpen) patience = Math.min(MAX_PATIENCE, patience * 2)
      drop(isOpen ? 'heartbeat_missed' : 'unreachable', 'resume_later', 1006)
    }
  }

  function probe (isSure: boolean): void {
    // An earlier question stands, and credentials are waited for as long as they take.
    if (socket === undefined || timers.has('probe') || (!isOpen && !isSure)) return
    if (isOpen && !canPing) {
      if (isSure) drop('connection_lost')
      return
    }
    // Before the question: that a socket takes its bytes proves nothing, it does so without a network as well.
    observe()
    if (isOpen) socket.send('{"type":"ping"}')
    awaitLife(timing.now())
  }

  function awaitLife (since: Millis): void {
    timers.arm('probe', PROBE_MS, () => {
      observe()
      if (heardAt > since) awaitLife(heardAt)
      else drop(isOpen ? 'connection_lost' : 'unreachable')
    })
  }

  function release (): SocketLike | undefined {
    const released = socket
    socket = undefined
    turn++
    timers.disarm('look', 'probe')
    return released
  }

  function drop (reason: Reason, action: CloseAction = 'resume', code = DETACH_CODE): void {
    const dropped = release()
    // A closing handshake with a dead peer takes `ws` half a minute, and holds the process for as
    // long.
    dropped?.terminate?.()
    dropped?.close(DETACH_CODE)
    port.lost({ code, reason, action })
  }

  /**
   * Who leaves during the handshake would leave a session at the server that nobody knows. It is
   * waited for, and ended.
   */
  function linger (left: SocketLike, code: number): void {
    const timer = timing.setTimeout(() => left.close(code), LINGER_MS)
    left.onclose = () => timing.clearTimeout(timer)
    left.onmessage = ({ data }: { data: string }) => {
      timing.clearTimeout(timer)
      left.onmessage = undefined
      const isUnwanted = code === 1000 || String(data).includes('"session_created"')
      if (isUnwanted) left.send('{"type":"end"}')
      left.close(isUnwanted ? 1000 : code)
    }
  }

  function close (code: number): void {
    const closed = release()
    if (closed === undefined) return
    if (isOpen) closed.close(code)
    else linger(closed, code)
  }

  async function open (): Promise<void> {
    const mine = ++turn
    const protocols = [SUBPROTOCOL]
    let token: string | undefined
    try {
      token = await timers.within(TOKEN_MS, () => port.token())
      if (token !== undefined) protocols.push(authEntry(token))
    } catch (cause) {
      if (mine === turn) port.failed('token_failed', cause)
      return
    }
    if (mine !== turn) return
    port.identified(subjectOf(token))
    // Entries that a server does not know are ignored.
    protocols.push(...port.entries(), 'refuse.goodbye')
    try {
      listen(new port.Socket(port.url, protocols))
    } catch (cause) {
      port.failed('handshake_invalid', cause)
    }
  }

  // The handlers stay for good: `ws` throws errors that nobody listens to, also those of a socket
  // that was given up.
  function listen (opened: SocketLike): void {
    let message: string | undefined
    /** An error of this end, so whatever the close says is not about what was sent. */
    let hasFailed = false
    socket = opened
    isOpen = false
    bytesRead = bytesWaiting = 0
    silenceMs = FIRST_HEARTBEAT_MS + GRACE_MS
    heardAt = timing.now()
    lookedAt = timing.wall()
    look()
    opened.onerror = (event: { message?: string }) => {
      hasFailed = true
      message = event.message || undefined
    }
    opened.onclose = ({ code, reason }: { code: number, reason: string }) => {
      if (socket !== opened) return
      release()
      port.lost(!isOpen && code === 1006
        ? refusal(message)
        : { code: hasFailed ? 1006 : code, reason: reason || 'connection_lost', action: closeAction(code), message })
    }
    opened.onmessage = ({ data }: { data: string }) => {
      if (socket !== opened) return
      heardAt = timing.now()
      timers.disarm('probe')
      if (isOpen) patience = 1
      isOpen = true
      try {
        port.receive(Object(JSON.parse(data)))
      } catch {
        if (socket === opened) drop('malformed_frame', 'resume_later')
      }
    }
  }

  return {
    open: () => { void open() },
    send: text => socket?.send(text),
    expect (heartbeatMs, given) {
      canPing = given
      silenceMs = GRACE_MS + (heartbeatMs > 0 ? Math.min(heartbeatMs, MAX_HEARTBEAT_MS) : FIRST_HEARTBEAT_MS)
      look()
    },
    probe,
    close
  }
}
