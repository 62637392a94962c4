// The words of the client: what an application passes in, hears and gets back. Types, and the one
// error of the client.
//
// Nothing here decides anything; the session is client.ts, its commands are command-queue.ts, what
// differs between runtimes is environment.ts.

import type { CommandMap, EventMap, PayloadOf, ResultOf } from '../io/dispatcher/command.js'
import type { WireOf } from '../io/dispatcher/schema.js'
import type { JsonValue, Millis, Sendable, Seq, SessionId, UserId } from '../io/types.js'
import type { AbortSignalLike, Page, Persistence, SocketConstructor, Timing } from './environment.js'

/**
 * Why a promise of `send` was rejected by the client; any other code is an answer of the server
 * (docs/errors.md) or of the platform.
 */
export type ClientErrorCode =
  /** As many commands as `maxQueue` are waiting to be sent. */
  | 'QUEUE_FULL'
  /** `timeoutMs` went by. If the command had been sent, it may still run. */
  | 'TIMEOUT'
  /** The signal was aborted. If the command had been sent, it may still run. */
  | 'ABORTED'
  /**
   * The payload is no JSON, is nested too deep for P-6, or the command has no name of 1–128
   * characters. It was not sent.
   */
  | 'BAD_PAYLOAD'
  /**
   * The frame exceeds `limits.maxMessageBytes` (P-8) and was not sent; or a gateway closes with
   * 1009 when it is. It did not run.
   */
  | 'MESSAGE_TOO_LARGE'
  /**
   * The server does not take the frame (P-6). It did not run. Told by the server, or found by the
   * client where it names no command.
   */
  | 'BAD_FRAME'
  /** Connections are closed or break whenever it is sent (P-49). It did not run. */
  | 'UNDELIVERABLE'
  /** The session ended before the command could be sent. It did not run. */
  | 'SESSION_ENDED'
  /**
   * The session, or the answer of the server's core, was lost behind the command. It may have run,
   * or not.
   */
  | 'OUTCOME_UNKNOWN'
  /** Another user is signed in than the one who queued the command. It was not sent. */
  | 'USER_CHANGED'
  /**
   * `dispose()` was called. If the command had been sent, its answer comes to the next `connect()`
   * as `orphanResult`.
   */
  | 'DISPOSED'

/** The one way in which a promise of `send` is rejected. */
export class CommandError extends Error {
  override readonly name = 'CommandError'
  /** A ClientErrorCode, a code of docs/errors.md, or the platform's own. */
  readonly code: string
  readonly command: string

  constructor (code: string, message: string, command: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
    this.command = command
  }
}

/**
 * `connecting`: a socket is being opened, or the replay of a resume runs. `live`: commands flow.
 * `detached`: no socket; the session is kept, and the next attempt is due unless `detach()` was
 * called. `ended`: for good.
 */
export type ClientState = 'connecting' | 'live' | 'detached' | 'ended'

/**
 * Why a connection or a session is gone. The first block is the client's own finding, the second
 * what the server says (docs/protocol.md section 10); a newer server, or a gateway, may say others.
 */
export type Reason =
  /** The page is offline. */
  | 'offline'
  /** An open connection broke. */
  | 'connection_lost'
  /**
   * No connection came about, and the runtime does not tell why. Of a session: `maxAttempts` went
   * by.
   */
  | 'unreachable'
  /** Something answered the upgrade with another HTTP status than 401 or 403. */
  | 'refused'
  /** Nothing came from the server in time. */
  | 'heartbeat_missed'
  /** `token()` failed or did not answer. */
  | 'token_failed'
  /** What came breaks the protocol. */
  | 'malformed_frame' | 'seq_jump' | 'bad_frame'
  /** The page is hidden for good, or is in the back/forward cache. */
  | 'page_hidden'
  | 'detached_by_client' | 'ended_by_client' | 'disposed'
  /** No socket can be made of the address or the token. */
  | 'handshake_invalid'
  | 'unauthenticated' | 'forbidden' | 'credentials_expired' | 'auth_unavailable'
  | 'quota' | 'overloaded' | 'draining' | 'rate_limited' | 'slow_consumer' | 'internal'
  | 'detached_by_operator' | 'moved' | 'ended_by_operator' | 'replaced'
  | 'idle' | 'resume_window' | 'unknown_session' | 'state_lost'
  | 'session_invalid' | 'shutdown' | 'unknown'
  | (string & {})

/** A range of seqs, both ends included. */
export interface SeqRange { readonly from: Seq, readonly to: Seq }
export interface Gap extends SeqRange {
  /** What the server says of a single one: `too_large` (P-50), `not_kept` (P-55), or others. */
  readonly reason?: string | undefined
}

/**
 * What `session.on` tells. Everything here is for display and logs; no application has to act on it
 * to stay connected.
 */
export interface SessionEvents {
  state: { readonly state: ClientState, readonly previous: ClientState }
  /**
   * `attempt`: how many came before it for nothing, or for a few seconds only. `resuming`: a
   * session is offered to the server.
   */
  connecting: { readonly attempt: number, readonly resuming: boolean }
  live: { readonly sessionId: SessionId, readonly userId: UserId, readonly resumed: boolean }
  /**
   * The socket is gone, the session is kept. `retryInMs` is null if nothing happens before
   * `connect()` is called; the event comes again when the time changes. `message`: what the runtime
   * says of the loss.
   */
  detached: {
    readonly code: number
    readonly reason: Reason
    readonly retryInMs: Millis | null
    readonly message?: string
  }
  resumed: {
    readonly sessionId: SessionId
    readonly lastCommand: number
    readonly replay: SeqRange | null
    readonly gap: SeqRange | null
  }
  /** Outputs that will never come (P-32). Whatever is built from outputs is to be loaded afresh. */
  gap: Gap
  /** Another connection took the session over (P-35). Final. */
  replaced: { readonly sessionId: SessionId | undefined }
  /** The session is over. `renewing`: a new one follows by itself; otherwise final. */
  ended: { readonly sessionId: SessionId | undefined, readonly reason: Reason, readonly renewing: boolean }
  /**
   * Another user is signed in than before. What the first one had queued is settled; what the page
   * shows of theirs should go.
   */
  userChanged: { readonly userId: UserId, readonly previous: UserId }
  /** Something failed that belongs to no promise. Nothing has to be done to go on. */
  error: { readonly code: string, readonly message: string, readonly cause?: unknown }
  /** Every message, also those with a handler of their own, before it. */
  message: { readonly event: string, readonly payload: unknown, readonly seq: Seq }
  /**
   * The answer to a command of the page before a reload: its promise is gone, so it is told here.
   */
  orphanResult: {
    readonly id: number
    readonly command: string | undefined
    readonly payload?: unknown
    readonly error?: CommandError
  }
}

export interface SendOptions {
  /** Aborting takes an unsent command back; of a sent one only the answer is dropped. */
  readonly signal?: AbortSignalLike | undefined
  /** From the call of `send` on, also while no connection is there. Default: that of `connect`. */
  readonly timeoutMs?: Millis | undefined
}

/** A payload that may be null may be left out (docs/protocol.md section 3.2). */
export type SendArguments<P> =
  null extends P ? [payload?: Sendable<P>, options?: SendOptions] : [payload: Sendable<P>, options?: SendOptions]
/** Payload type of an event in a registry of the platform's events. */
export type EventPayloadOf<S> = EventMap[string] extends S ? JsonValue : WireOf<S>

export interface ConnectOptions extends Partial<Timing> {
  /**
   * Credentials (P-3). A function is asked before every attempt, so that a resume carries fresh
   * ones (P-29, P-47).
   */
  readonly token?: string | (() => string | Promise<string>) | undefined
  /**
   * The class to open sockets with; needed where the runtime has none: `WebSocket` of the package
   * `ws`.
   */
  readonly WebSocket?: SocketConstructor | undefined
  /**
   * Where the session outlives the page. Default: sessionStorage in browsers, none elsewhere.
   * `false`: none.
   */
  readonly persistence?: Persistence | false | undefined
  /**
   * Key in sessionStorage; needed for a second session of one page to the same address. Default:
   * `holdfast:` and the address.
   */
  readonly persistenceKey?: string | undefined
  /** Start a new session when the old one is lost. Default true; false ends instead. */
  readonly renew?: boolean | undefined
  /**
   * For commands that name none of their own. Default: none, since a command may wait for a
   * network.
   */
  readonly timeoutMs?: Millis | undefined
  /**
   * Outputs that the application, or its WebSocket, can take (P-50). Default: whatever the server
   * sends.
   */
  readonly maxOutputBytes?: number | undefined
  /** Commands that may wait to be sent. Default 1000. */
  readonly maxQueue?: number | undefined
  /**
   * Attempts in a row without an answer of the server before the client gives up. Default: no end.
   */
  readonly maxAttempts?: number | undefined
  /** Events and state of the page that attempts depend on. Default: the globals of a browser. */
  readonly page?: Page | undefined
}

export interface Session<C extends CommandMap = CommandMap, E extends EventMap = EventMap> {
  readonly state: ClientState
  /** Undefined until the server gave one. */
  readonly sessionId: SessionId | undefined
  readonly userId: UserId | undefined
  /**
   * Sends a command, now or as soon as the session is live, in the order of the calls, and at most
   * once per session (P-11).
   *
   * The promise always settles: with the result, or with a CommandError. One that nobody waits for
   * raises no unhandled rejection.
   */
  send<K extends keyof C & string> (command: K, ...rest: SendArguments<PayloadOf<C[K]>>): Promise<ResultOf<C[K]>>
  /**
   * Hears one kind of output. The output counts as handled, and is acknowledged, once its handlers
   * have returned. Returns a function that unsubscribes.
   */
  onMessage<K extends keyof E & string> (
    event: K, handler: (payload: EventPayloadOf<E[K]>, seq: Seq) => void
  ): () => void
  on<K extends keyof SessionEvents> (type: K, handler: (event: SessionEvents[K]) => void): () => void
  /**
   * Attempts at once: after `detach()`, or instead of waiting for a back-off. No effect while
   * connecting, live or ended.
   */
  connect (): void
  /** Drops the socket; the server keeps the session for its resume window, and commands wait. */
  detach (): void
  /** Ends the session, here and, if a socket is open, at the server. Unanswered commands settle. */
  close (): void
  /**
   * Gives up socket, timers, listeners and locks, and leaves the session as it is, saved and at the
   * server: for the cleanup of a component or a module. Promises settle with `DISPOSED`; the next
   * `connect()` of the same place resumes, and hears the answers as `orphanResult`.
   */
  dispose (): void
}
