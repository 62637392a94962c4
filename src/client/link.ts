// One connection at a time: credentials, handshake, frames in and out, and the server's silence. Whether and when a further one follows is client.ts.
//
// `open` begins an attempt, and `lost` is told exactly once for it, unless `close` or the next `open` came first. `turn` changes with each of these,
// so that whatever was awaited for an older attempt, or is still said by an older socket, is dropped. Frames are parsed here and judged elsewhere.

import { closeAction, type CloseAction } from '../io/protocol/close-codes.js'
import type { Millis } from '../io/types.js'
import type { SocketConstructor, SocketLike, Timers, Timing } from './environment.js'

export interface LinkPort {
  readonly url: string
  readonly Socket: SocketConstructor
  readonly timing: Timing
  readonly timers: Timers
  token (): string | undefined | Promise<string | undefined>
  /** The entry of P-27 but for its prefix; undefined asks for a new session. Read at the last moment. */
  resumeEntry (): string | undefined
  /** May throw what it likes about a frame that is not shaped as it should be; the connection is then dropped. */
  receive (frame: object): void
  lost (code: number, reason: string, action: CloseAction): void
  /** Credentials could not be had; an attempt that failed. */
  refused (cause: unknown): void
  /** No socket can be made of this address and these credentials; there is no sense in trying again. */
  impossible (cause: unknown): void
}

export interface Link {
  open (): void
  send (text: string): void
  /** The server named its heartbeat (P-43). */
  expect (heartbeatMs: Millis): void
  /** Gives up a connection that cannot be relied upon, and tells `lost`. The session is kept (P-39). */
  drop (reason: string): void
  /** Gives up whatever there is, and tells nobody. 1000 ends the session, any other code keeps it (P-38, P-39). */
  close (code: number): void
  turn (): number
}

const SUBPROTOCOL = 'holdfast.v1'
/** The client's own code for a close that keeps the session; browsers allow only 1000 and 3000–4999. */
export const DETACH_CODE = 4900
/** What the server's silence may exceed its heartbeat by (P-43), and the heartbeat assumed until it names one. */
const GRACE_MS = 10_000
const FIRST_HEARTBEAT_MS = 10_000

/** P-3: a JWT stands for itself, any other token travels as base64url. */
function authEntry (token: string): string {
  const text = token.includes('.') ? token : btoa(String.fromCharCode(...new TextEncoder().encode(token)))
  return 'auth.' + (text === token ? text : text.replace(/\+/g, '-').replace(/\//g, '_').replace(/=/g, ''))
}

export function createLink (port: LinkPort): Link {
  const { timing, timers } = port
  let socket: SocketLike | undefined
  let turn = 0
  let heardAt = 0
  let heartbeatMs = 0

  function watchSilence (): void {
    const left = heardAt + heartbeatMs + GRACE_MS - timing.now()
    if (left > 0) timers.arm('silence', left, watchSilence)
    else drop('heartbeat_missed')
  }

  function close (code: number): void {
    const closed = socket
    socket = undefined
    turn++
    timers.disarm('silence')
    closed?.close(code)
  }

  function drop (reason: string): void {
    // A closing handshake with a dead peer takes `ws` half a minute, and holds the process for as long.
    socket?.terminate?.()
    close(DETACH_CODE)
    port.lost(1006, reason, 'resume_later')
  }

  async function open (): Promise<void> {
    const mine = ++turn
    heardAt = timing.now()
    heartbeatMs = FIRST_HEARTBEAT_MS
    watchSilence()
    const protocols = [SUBPROTOCOL]
    try {
      const token = await port.token()
      if (token !== undefined) protocols.push(authEntry(token))
    } catch (cause) {
      if (mine === turn) port.refused(cause)
    }
    if (mine !== turn) return
    const entry = port.resumeEntry()
    if (entry !== undefined) protocols.push(`resume.${entry}`)
    try {
      listen(new port.Socket(port.url, protocols))
    } catch (cause) {
      port.impossible(cause)
    }
  }

  // The handlers stay for good: `ws` throws errors that nobody listens to, also those of a socket that was given up.
  function listen (opened: SocketLike): void {
    let failure = 'connection_lost'
    socket = opened
    opened.onerror = ({ message }: { message?: string }) => { failure = message || failure }
    opened.onclose = ({ code, reason }: { code: number, reason: string }) => {
      if (socket !== opened) return
      close(DETACH_CODE)
      port.lost(code, reason || failure, closeAction(code))
    }
    opened.onmessage = ({ data }: { data: string }) => {
      if (socket !== opened) return
      heardAt = timing.now()
      try {
        port.receive(Object(JSON.parse(data)))
      } catch {
        if (socket === opened) drop('malformed_frame')
      }
    }
  }

  return {
    open: () => { void open() },
    send: text => socket?.send(text),
    expect (given) {
      heartbeatMs = given
      watchSilence()
    },
    drop,
    close,
    turn: () => turn
  }
}
