// One connection at a time: credentials, handshake, frames in and out. Whether its line lives is
// line.ts; whether and when a further connection follows is session-machine.ts. Frames are parsed
// here and judged there.
//
// `open` begins an attempt, and `lost` or `failed` is told exactly once for it, unless `close` or
// the next `open` came first.

import { closeAction, type CloseAction } from '../io/protocol/close-codes.js'
import type { Millis } from '../io/types.js'
import type { Reason } from './api.js'
import { DETACH_CODE, LINGER_MS, TOKEN_MS } from './bounds.js'
import { authEntry, subjectOf } from './credentials.js'
import type { SocketConstructor, SocketLike, Timing } from './environment.js'
import { createLine } from './line.js'
import type { Emit, Loss } from './session-state.js'
import type { Timers } from './timers.js'

export interface LinkPort {
  readonly url: string
  readonly Socket: SocketConstructor
  readonly timing: Timing
  readonly timers: Timers
  token (): string | undefined | Promise<string | undefined>
  /** Entries of the offer beside protocol and credentials. Read at the last moment. */
  entries (): string[]
  /**
   * May throw what it likes about a frame that is not shaped as it should be; the connection is
   * then dropped.
   */
  receive (frame: object): void
  /** `token` once the credentials are there, then `lost` or `failed`. */
  readonly emit: Emit
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
const REFUSED: Record<string, Reason> = { 401: 'unauthenticated', 403: 'forbidden' }
/**
 * A refused upgrade, as far as the runtime shows it; `ws` says the HTTP status in the message of
 * its error (P-53a).
 */
function refusal (message: string | undefined): Loss {
  const [, status] = /response: (\d{3})$/.exec(message ?? '') ?? []
  const reason = status === undefined ? 'unreachable' : REFUSED[status] ?? 'refused'
  const code = ['400', '401', '403', '426'].includes(status!) ? 4000 + Number(status) : 1006
  return { code, reason, action: closeAction(code), message }
}

/**
 * Who leaves during the handshake would leave a session at the server that nobody knows. It is
 * waited for, and ended.
 */
function linger (left: SocketLike, code: number, timing: Timing): void {
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

export function createLink (port: LinkPort): Link {
  const { timing, timers } = port
  const line = createLine({
    timing, timers, dead: (reason, isSilent) => isSilent ? drop(reason, 'resume_later', 1006) : drop(reason)
  })
  let socket: SocketLike | undefined
  let turn = 0

  function release (): SocketLike | undefined {
    const released = socket
    socket = undefined
    turn++
    line.leave()
    return released
  }

  function drop (reason: Reason, action: CloseAction = 'resume', code = DETACH_CODE): void {
    const dropped = release()
    // A closing handshake with a dead peer takes `ws` half a minute, and holds the process for as
    // long.
    dropped?.terminate?.()
    dropped?.close(DETACH_CODE)
    port.emit('lost', { code, reason, action })
  }

  async function open (): Promise<void> {
    const mine = ++turn
    const protocols = [SUBPROTOCOL]
    let token: string | undefined
    try {
      token = await timers.within(TOKEN_MS, () => port.token())
      if (token !== undefined) protocols.push(authEntry(token))
    } catch (cause) {
      if (mine === turn) port.emit('failed', 'token_failed', cause)
      return
    }
    if (mine !== turn) return
    port.emit('token', subjectOf(token))
    // Entries that a server does not know are ignored.
    protocols.push(...port.entries(), 'refuse.goodbye')
    try {
      listen(new port.Socket(port.url, protocols))
    } catch (cause) {
      port.emit('failed', 'handshake_invalid', cause)
    }
  }

  // The handlers stay for good: `ws` throws errors that nobody listens to, also those of a socket
  // that was given up.
  function listen (opened: SocketLike): void {
    let message: string | undefined
    /** An error of this end, so whatever the close says is not about what was sent. */
    let hasFailed = false
    socket = opened
    line.watch(opened)
    opened.onerror = (event: { message?: string }) => {
      hasFailed = true
      message = event.message || undefined
    }
    opened.onclose = ({ code, reason }: { code: number, reason: string }) => {
      if (socket !== opened) return
      release()
      port.emit('lost', !line.isOpen && code === 1006
        ? refusal(message)
        : { code: hasFailed ? 1006 : code, reason: reason || 'connection_lost', action: closeAction(code), message })
    }
    opened.onmessage = ({ data }: { data: string }) => {
      if (socket !== opened) return
      line.hear()
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
    expect: line.expect,
    probe: line.probe,
    close (code) {
      const closed = release()
      if (closed === undefined) return
      if (line.isOpen) closed.close(code)
      else linger(closed, code, timing)
    }
  }
}
