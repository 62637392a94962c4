// The state machine of connections (docs/protocol.md section 9): accepted → attached to a session →
// left. It reads frames, asks the session manager and the dispatcher, and says goodbye. All of it
// is synchronous, so two frames of one socket can never be handled in the wrong order.
//
// Order of calls: `accept` once the socket is open; `receive` per message; `heard` per ping and
// pong; `closed` once. `sweep` turns by a timer of the plugin; `closeSome` drains. Not here:
// sockets, timers, HTTP, authentication.

import { CLOSE, type CloseAction, type CloseCode } from '../protocol/close-codes.js'
import { errorFrame, goodbyeFrame, readClientFrame, readFrameId, refusalFrame, toBytes } from '../protocol/codec.js'
import { HEARTBEAT_GRACE_MS, MAX_BAD_FRAMES, type ClientFrame, type CommandFrame } from '../protocol/frames.js'
import { createGreeting } from '../protocol/greeting.js'
import { HoldfastError } from '../errors.js'
import type { Dispatcher } from '../dispatcher/dispatcher.js'
import { largestOutputBytes } from '../session/delivery.js'
import type { Entrance, Entry } from '../session/entry.js'
import type { SessionRecord } from '../session/record.js'
import { outputAt, resumePoint } from '../session/replay-log.js'
import type { SessionRuntime } from '../session/runtime.js'
import type { Clock, EndReason, Log, Millis, Seq } from '../types.js'
import { textFrame } from './frame-writer.js'
import { Connection, createSender, type ConnectionOwner, type Transport } from './sender.js'

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

/**
 * A round of the sweep visits every connection; eight of them fit into a heartbeat, so a ping is
 * early by an eighth at most, and never late.
 */
const ROUNDS_PER_HEARTBEAT = 8
/**
 * A sweep that is later by more: the process was stopped, its host was paused, or it computed. A
 * fifth of the grace of P-43.
 */
const STANDSTILL_MS = 2000

export function createGateway (options: GatewayOptions): Gateway {
  const { sessions, entrance, dispatcher, clock, log, limits } = options
  const live: Connection[] = []
  const closes = new Map<number, number>()
  let visited = 0
  let owed = 0
  let badFrames = 0
  /** Whole milliseconds: a fraction would be an object of its own in each connection. */
  let latest = Math.floor(clock.now())
  let sweptAt = latest
  /** The end of the last standstill; silence before it is not the peers' (P-43e). */
  let awakeSince = -Infinity
  const roundMs = limits.heartbeatMs / ROUNDS_PER_HEARTBEAT
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
    // Heartbeats ask for no more than the time of the last event.
    now: () => latest,
    onSent: sessions.delivery.releaseSent,
    onOverflow: connection => leave(connection, CLOSE.slowConsumer)
  })

  const owner: ConnectionOwner = {
    wake: sender.wake,
    flush: sender.flush,
    dismiss (connection, code) {
      connection.session = null
      goodbye(connection, code)
    }
  }

  function goodbye (connection: Connection, code: CloseCode, retryAfterMs?: number): void {
    if (connection.closed) return
    count(code.code)
    sender.sayGoodbye(connection, code, retryAfterMs)
  }

  function count (code: number): void {
    closes.set(code, (closes.get(code) ?? 0) + 1)
  }

  /** The server ends the connection; the session is kept if it can be (P-39). */
  function leave (connection: Connection, code: CloseCode, retryAfterMs?: number): void {
    const { session } = connection
    if (session !== null) sessions.delivery.catchUp(session, Math.floor(clock.now()))
    sender.flush(connection)
    connection.session = null
    if (session !== null) sessions.detach(session, connection, code.reason, null)
    goodbye(connection, code, retryAfterMs)
  }

  function remove (connection: Connection): void {
    const { place } = connection
    if (place === -1) return
    const last = live.pop() as Connection
    if (last !== connection) {
      live[place] = last
      last.place = place
    }
    connection.place = -1
  }

  function accept (request: AcceptRequest): Connection {
    const { transport, entry } = request
    const { session } = entry
    latest = Math.floor(clock.now())
    const maxOutputBytes = Math.min(request.maxOutputBytes ?? Infinity, largestOutputBytes(sessions.limits))
    const connection = new Connection(
      owner, transport, session.profile, latest, request.credentialsExpireAt ?? Infinity, maxOutputBytes
    )
    connection.place = live.push(connection) - 1
    const obstacle = entrance.obstacle(entry)
    if (obstacle === undefined) greet(connection, entry)
    else goodbye(connection, obstacle)
    return connection
  }

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

  function receive (connection: Connection, data: Buffer, isBinary: boolean): void {
    const now = clock.now()
    connection.receivedAt = latest = Math.floor(now)
    const { session } = connection
    if (session === null || connection.closed) return
    if (connection.unheard) {
      connection.unheard = false
      sessions.confirmAttach(session)
    }
    // P-7, and P-6 for everything else that is no frame.
    const frame = isBinary ? 'Binary messages are not spoken here.' : readClientFrame(data)
    if (typeof frame === 'string') {
      malformed(connection, frame, data)
      return
    }
    if (frame.sessionId !== session.id && (frame.sessionId !== undefined || connection.profile === 'basic')) {
      sender.sendText(connection, errorFrame('SESSION_INVALID'))
      leave(connection, CLOSE.sessionInvalid)
      return
    }
    const ack = ackOf(frame)
    if (ack !== undefined) connection.unprobedBytes = 0
    if (ack !== undefined && connection.profile === 'full' && !sessions.delivery.acknowledge(session, ack)) {
      sender.sendText(connection, errorFrame('BAD_ACK'))
      leave(connection, CLOSE.badFrame)
      return
    }
    if ('command' in frame) command(connection, session, frame, now)
    else if (frame.type === 'end') void sessions.end(session, 'ended_by_client')
    else if (frame.type === 'ping') sender.sendPong(connection)
  }

  function malformed (connection: Connection, sentence: string, data: Buffer): void {
    badFrames++
    sender.sendText(connection, errorFrame('BAD_FRAME', { id: readFrameId(data), message: sentence }))
    if (++connection.badFrames > MAX_BAD_FRAMES) leave(connection, CLOSE.badFrame)
  }

  function command (connection: Connection, session: SessionRecord, frame: CommandFrame, now: Millis): void {
    const verdict = dispatcher.submit(session, frame.command, frame.payload, frame.id, now)
    if (verdict === undefined) return
    if (verdict.kind === 'refused') {
      sender.sendText(connection, refusalFrame(frame.id, verdict.refusal))
      if (verdict.abusive) leave(connection, CLOSE.rateLimited, verdict.refusal.retryAfterMs)
      return
    }
    const { answerSeq } = verdict
    // What has not been sent yet comes in its order anyway.
    if (answerSeq === null || answerSeq > connection.sentSeq || session.log === null) return
    const output = outputAt(session.log, answerSeq)
    if (output !== undefined) sender.sendAgain(connection, output, answerSeq)
  }

  function closed (connection: Connection, code: number): void {
    remove(connection)
    if (!connection.closed && connection.session !== null && connection.profile === 'full') {
      suspectOutput(connection, connection.session, code)
    }
    const isGoodbye = code === 1000 || code === 1005
    lose(connection, PEER_CODES.has(code) ? code : 0, peerReason(code), isGoodbye ? 'ended_by_client' : null)
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

  /**
   * Whether bytes have come since the last visit, or the peer's TCP has made room in a socket that
   * was full (P-43a, P-43b). A socket that was not full takes bytes whether its peer lives or not.
   */
  function hasStirred (connection: Connection): boolean {
    const { transport, receivedBytes, takenBytes } = connection
    connection.receivedBytes = transport.receivedBytes
    connection.takenBytes = transport.bufferedBytes > 0 ? transport.takenBytes : -1
    return connection.receivedBytes !== receivedBytes || (takenBytes !== -1 && transport.takenBytes > takenBytes)
  }

  function visit (connection: Connection, now: Millis): void {
    if (connection.closed) return
    if (hasStirred(connection)) connection.receivedAt = now
    if (now >= connection.credentialsExpireAt) {
      leave(connection, CLOSE.credentialsExpired)
    } else if (now - Math.max(connection.receivedAt, awakeSince) > limits.heartbeatMs + HEARTBEAT_GRACE_MS) {
      log.debug({ sid: connection.session?.id }, 'peer went silent')
      leave(connection, CLOSE.heartbeatMissed)
    } else if (now + roundMs >= Math.min(connection.sentAt, connection.receivedAt) + limits.heartbeatMs) {
      if (connection.profile === 'full') sender.sendPing(connection)
      else connection.transport.ping()
      connection.sentAt = now
    }
  }

  return {
    closes,
    get connections () { return live.length },
    get badFrames () { return badFrames },
    accept,
    receive,

    refuse (transport, refusal) {
      const close = closeOf(refusal) ?? CLOSE.internal
      count(close.code)
      transport.write(textFrame(toBytes(goodbyeFrame(close, refusal.retryAfterMs, actionOf(refusal)))))
      transport.close(close.code, close.reason)
    },

    closed,

    violated (connection, code) {
      lose(connection, code, code === 1009 ? 'message_too_large' : 'protocol_violated', null)
    },

    heard (connection) {
      connection.receivedAt = Math.floor(clock.now())
    },

    sweep (elapsedMs) {
      const now = latest = Math.floor(clock.now())
      // What came while this process stood still is unread, and nobody was asked: everyone has a
      // whole round from now on.
      if (now - sweptAt > elapsedMs + STANDSTILL_MS) awakeSince = now
      sweptAt = now
      owed = Math.min(owed + live.length * elapsedMs / roundMs, live.length)
      for (; owed >= 1; owed--) {
        // From the end to the front: removing the visited one moves only one that was visited
        // already.
        visited = visited === 0 || visited > live.length ? live.length : visited
        const connection = live[--visited]
        if (connection === undefined) break
        visit(connection, now)
      }
    },

    closeSome (count, retryAfterMs, force) {
      let left = count
      for (let i = live.length - 1; i >= 0 && left > 0; i--) {
        const connection = live[i] as Connection
        if (connection.closed || (!force && connection.session !== null && connection.session.calls !== null)) continue
        leave(connection, CLOSE.draining, retryAfterMs)
        left--
      }
      return live.reduce((open, connection) => connection.closed ? open : open + 1, 0)
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

function ackOf (frame: ClientFrame): Seq | undefined {
  if ('command' in frame) return frame.ack
  return frame.type === 'ack' ? frame.seq : frame.type === 'end' ? frame.ack : undefined
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
