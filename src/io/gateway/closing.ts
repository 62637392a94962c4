// How connections end: by the server with a goodbye, by their peer, by the WebSocket layer; and
// refused handshakes, which get the same goodbye (P-53). Counts every close by its code. Whether a
// session survives its connection is the session's to say.

import type { HoldfastError } from '../errors.js'
import { CLOSE, type CloseAction, type CloseCode } from '../protocol/close-codes.js'
import { goodbyeFrame, toBytes } from '../protocol/codec.js'
import type { SessionRecord } from '../session/record.js'
import type { SessionRuntime } from '../session/runtime.js'
import type { Clock, EndReason } from '../types.js'
import type { Connection } from './connection.js'
import { textFrame } from './frame-writer.js'
import type { Sender } from './sender.js'
import type { Transport } from './transport.js'

export interface ClosingOptions {
  sessions: Pick<SessionRuntime, 'delivery' | 'detach'>
  sender: Pick<Sender, 'flush' | 'sayGoodbye'>
  clock: Pick<Clock, 'now'>
}

export interface Closing {
  /** The server ends the connection; the session is kept if it can be (P-39). */
  close(connection: Connection, code: CloseCode, retryAfterMs?: number): void
  /** The same for a connection whose session has let go of it, or that never had one. */
  dismiss(connection: Connection, code: CloseCode): void
  /** Tells a client that cannot read an HTTP status why it is refused, and closes (P-53). */
  refuse(transport: Transport, refusal: HoldfastError): void
  /** The WebSocket layer closes the connection, since the peer sent what it must not. */
  violated(connection: Connection, code: number): void
  /** The socket is closed; `code` as the WebSocket layer reports it. */
  closed(connection: Connection, code: number): void
  /** Closes by code: the server's own, and the peers'. */
  readonly counts: Map<number, number>
}

export function createClosing ({ sessions, sender, clock }: ClosingOptions): Closing {
  const counts = new Map<number, number>()

  function count (code: number): void {
    counts.set(code, (counts.get(code) ?? 0) + 1)
  }

  function goodbye (connection: Connection, code: CloseCode, retryAfterMs?: number): void {
    if (connection.closed) return
    count(code.code)
    sender.sayGoodbye(connection, code, retryAfterMs)
  }

  /** Not by a goodbye of ours. */
  function lose (connection: Connection, code: number, reason: string, end: EndReason | null): void {
    if (connection.closed) return
    count(code)
    connection.closed = true
    const { session } = connection
    if (session === null) return
    connection.session = null
    sessions.detach(session, connection, reason, end)
  }

  /** P-51: an output that its client does not take must not keep what is behind it for ever. */
  function suspectOutput ({ transport, sentAt, sentSeq }: Connection, session: SessionRecord, code: number): void {
    const isRefusal = REFUSING_CODES.has(code)
    // A line that was too slow to take it all says nothing about the output.
    const isSuspicious = code === 1006 && transport.bufferedBytes === 0 && clock.now() - sentAt < LOST_AFTER_SENDING_MS
    if (isRefusal || isSuspicious) sessions.delivery.suspect(session, isRefusal, sentSeq)
  }

  return {
    counts,

    close (connection, code, retryAfterMs) {
      const { session } = connection
      if (session !== null) sessions.delivery.catchUp(session, Math.floor(clock.now()))
      sender.flush(connection)
      connection.session = null
      if (session !== null) sessions.detach(session, connection, code.reason, null)
      goodbye(connection, code, retryAfterMs)
    },

    dismiss (connection, code) {
      connection.session = null
      goodbye(connection, code)
    },

    refuse (transport, refusal) {
      const close = closeOf(refusal) ?? CLOSE.internal
      count(close.code)
      transport.write(textFrame(toBytes(goodbyeFrame(close, refusal.retryAfterMs, actionOf(refusal)))))
      transport.close(close.code, close.reason)
    },

    violated (connection, code) {
      lose(connection, code, code === 1009 ? 'message_too_large' : 'protocol_violated', null)
    },

    closed (connection, code) {
      if (!connection.closed && connection.session !== null && connection.profile === 'full') {
        suspectOutput(connection, connection.session, code)
      }
      const isGoodbye = code === 1000 || code === 1005
      lose(connection, PEER_CODES.has(code) ? code : 0, peerReason(code), isGoodbye ? 'ended_by_client' : null)
    }
  }
}

/**
 * The close code of a refused handshake; undefined for refusals that are answered over HTTP
 * whatever the client wants (P-53).
 */
export function closeOf ({ code }: HoldfastError): CloseCode | undefined {
  return REFUSALS[code]
}

const REFUSALS: Readonly<Record<string, CloseCode>> = {
  UNAUTHENTICATED: CLOSE.unauthenticated,
  FORBIDDEN: CLOSE.forbidden,
  USER_QUOTA: CLOSE.quota,
  SERVER_FULL: CLOSE.overloaded,
  DRAINING: CLOSE.draining,
  AUTH_UNAVAILABLE: CLOSE.authUnavailable,
  STORE_UNAVAILABLE: CLOSE.storeUnavailable
}

/**
 * A quota is no fault of the client: it may come back, as HTTP says by Retry-After. Undefined: what
 * the code says.
 */
function actionOf ({ code }: HoldfastError): CloseAction | undefined {
  return code === 'USER_QUOTA' ? 'resume_later' : undefined
}

/** Too large, not UTF-8, broken framing, not understood: what was sent is at fault (P-49b). */
const REFUSING_CODES = new Set([1002, 1003, 1007, 1009])
/** A loss that comes later has another cause. */
const LOST_AFTER_SENDING_MS = 10_000

/** Codes of peers that are counted one by one; the rest is whatever a client makes up. */
const PEER_CODES = new Set([1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011])

function peerReason (code: number): string {
  switch (code) {
    case 1000:
    case 1005: return 'ended_by_client'
    case 1001: return 'going_away'
    case 1006: return 'connection_lost'
    default: return 'closed_by_client'
  }
}
