// The state machine of connections (docs/protocol.md section 9): accepted → attached to a session →
// left. This file accepts them and puts the rooms together: inbound.ts reads, sender.ts writes,
// hub.ts has the list and the heartbeats, closing.ts says goodbye.
//
// Order of calls: `accept` once the socket is open; `receive` per message; `heard` per ping and
// pong; `closed` once. `sweep` turns by a timer of the plugin; `closeSome` drains. Not here:
// sockets, timers, HTTP, authentication.

import type { Dispatcher } from '../dispatcher/dispatcher.js'
import type { HoldfastError } from '../errors.js'
import { CLOSE } from '../protocol/close-codes.js'
import { createGreeting } from '../protocol/greeting.js'
import { largestOutputBytes } from '../session/delivery.js'
import type { Entrance, Entry } from '../session/entry.js'
import { resumePoint } from '../session/replay-log.js'
import type { SessionRuntime } from '../session/runtime.js'
import type { Clock, Log, Millis } from '../types.js'
import { createClosing } from './closing.js'
import { Connection, type ConnectionOwner } from './connection.js'
import { createHub } from './hub.js'
import { createInbound } from './inbound.js'
import { createSender, type LastEvent } from './sender.js'
import type { Transport } from './transport.js'

export interface GatewayOptions {
  sessions: SessionRuntime
  entrance: Entrance
  dispatcher: Dispatcher
  clock: Clock
  log: Log
  /** See SenderOptions. */
  defer: (callback: () => void) => void
  yieldTurn: (callback: () => void) => void
  limits: GatewayLimits
}

export interface GatewayLimits {
  maxMessageBytes: number
  /** Bytes that may wait in one socket before it is left alone until it drains. */
  maxBufferedBytes: number
  heartbeatMs: Millis
}

export interface AcceptRequest {
  transport: Transport
  /** What the handshake was given. */
  entry: Entry
  /** Monotonic; absent for credentials that do not expire. */
  credentialsExpireAt?: Millis
  /** Largest output that the client takes (P-50); absent or Infinity if it does not say. */
  maxOutputBytes?: number
}

export interface Gateway {
  /** A socket is open: gives it its session and speaks first (P-5). */
  accept(request: AcceptRequest): Connection
  /** Tells a client that cannot read an HTTP status why it is refused, and closes (P-53). */
  refuse(transport: Transport, refusal: HoldfastError): void
  receive(connection: Connection, data: Buffer, isBinary: boolean): void
  /** A WebSocket ping or pong has come: a sign of life in either profile (P-43a). */
  heard(connection: Connection): void
  /**
   * The WebSocket layer closes the connection by itself, with this code, since the peer sent what
   * it must not: 1009 for a message that is too large. `closed` follows, and most often knows only
   * of 1006.
   */
  violated(connection: Connection, code: number): void
  /** The socket is closed; `code` as the WebSocket layer reports it. */
  closed(connection: Connection, code: number): void
  /**
   * Heartbeats, dead peers, expired credentials: looks at the share of connections that `elapsedMs`
   * is of a round.
   */
  sweep(elapsedMs: Millis): void
  /**
   * Closes up to `count` connections with 4200; those with commands running only if `force`.
   * Returns how many are left (P-48).
   */
  closeSome(count: number, retryAfterMs: Millis, force: boolean): number
  readonly connections: number
  /** Closes by code: the server's own, and the peers'. */
  readonly closes: Map<number, number>
  readonly badFrames: number
}

export function createGateway (options: GatewayOptions): Gateway {
  const { sessions, entrance, dispatcher, clock, log, limits } = options
  const lastEvent: LastEvent = { at: Math.floor(clock.now()) }
  const { idleTimeoutMs, resumeWindowMs } = sessions.limits
  const greeting = createGreeting({
    idleTimeoutMs,
    resumeWindowMs,
    heartbeatMs: limits.heartbeatMs,
    maxMessageBytes: limits.maxMessageBytes,
    commandsPerSecond: dispatcher.limits.commandsPerSecond,
    maxInFlight: dispatcher.limits.maxInFlight
  })
  const sender = createSender({
    maxBufferedBytes: limits.maxBufferedBytes,
    defer: options.defer,
    yieldTurn: options.yieldTurn,
    lastEvent,
    onSent: sessions.delivery.releaseSent,
    onOverflow: connection => { closing.close(connection, CLOSE.slowConsumer) }
  })
  const closing = createClosing({ sessions, sender, clock })
  const hub = createHub({ closing, sender, clock, lastEvent, log, heartbeatMs: limits.heartbeatMs })
  const inbound = createInbound({ sessions, dispatcher, sender, closing, clock, lastEvent })
  const owner: ConnectionOwner = { wake: sender.wake, flush: sender.flush, dismiss: closing.dismiss }

  function greet (connection: Connection, { session, lastSeen, resumeToken, previous }: Entry): void {
    connection.session = session
    const { replay, gap, lastSeq } = sessions.attach(session, connection, lastSeen)
    if (lastSeen === null) {
      sender.sendText(connection, greeting.created(session, resumeToken, previous))
      return
    }
    connection.sentSeq = replay === null ? lastSeq : replay.from - 1
    connection.liveAfterSeq = lastSeq
    const lastCommand = session.log === null ? 0 : resumePoint(session.log)
    sender.sendText(connection, greeting.resumed(session, resumeToken, { lastCommand, replay, gap }))
  }

  return {
    accept ({ transport, entry, credentialsExpireAt = Infinity, maxOutputBytes = Infinity }) {
      lastEvent.at = Math.floor(clock.now())
      const connection = new Connection(
        owner, transport, entry.session.profile, lastEvent.at, credentialsExpireAt,
        Math.min(maxOutputBytes, largestOutputBytes(sessions.limits))
      )
      hub.add(connection)
      const obstacle = entrance.obstacle(entry)
      if (obstacle === undefined) greet(connection, entry)
      else closing.dismiss(connection, obstacle)
      return connection
    },

    receive: inbound.receive,

    heard (connection) {
      connection.receivedAt = Math.floor(clock.now())
    },

    refuse: closing.refuse,
    violated: closing.violated,

    closed (connection, code) {
      hub.remove(connection)
      closing.closed(connection, code)
    },

    sweep: hub.sweep,
    closeSome: hub.closeSome,
    get connections () { return hub.size },
    closes: closing.counts,
    get badFrames () { return inbound.badFrames }
  }
}
