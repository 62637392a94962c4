// The vocabulary of the domain, types only. Each word is defined in docs/protocol.md, section 1.
// Times are milliseconds. `Clock.now` is monotonic and decides everything; `Clock.wall` is only
// ever shown to people.

export type Millis = number
/** 1-based number of an output in its session; 0 means "none yet". */
export type Seq = number
export type SessionId = string
export type UserId = string

export type JsonValue = null | boolean | number | string | JsonValue[] | { [key: string]: JsonValue }
export type JsonObject = { [key: string]: JsonValue }

/**
 * `T` itself where JSON can carry it, for parameters: also an `interface`, which has no index
 * signature, and a `readonly` array. Dates and others with `toJSON` are carried as what it returns,
 * members that are undefined are left out. What JSON would lose is `never`.
 */
export type JsonCompatible<T> =
  T extends JsonValue | undefined ? T
    : T extends { toJSON(): unknown } ? T
      : T extends bigint | symbol | ((...args: never[]) => unknown) ? never
        : T extends object ? { [K in keyof T]: JsonCompatible<T[K]> } : never

/** The same for a value whose type is known: its arrays and members may be read-only. */
export type Sendable<T> =
  JsonValue extends T ? AnyJson : T extends object ? { readonly [K in keyof T]: Sendable<T[K]> } : T
/** Where nothing is known of the payload: objects and arrays of any type, but not functions. */
export type AnyJson =
  | JsonValue
  | { readonly [key: string]: AnyJson | undefined }
  | readonly AnyJson[]
  | (object & { readonly call?: never })

/** What JSON makes of a value on its way to the other side: a Date is a string there. */
export type Jsonify<T> =
  T extends JsonValue ? T
    : T extends { toJSON(): infer R } ? Jsonify<R>
      : T extends undefined | void ? null
        : T extends bigint | symbol | ((...args: never[]) => unknown) ? never
          : T extends readonly unknown[] ? { [I in keyof T]: Jsonify<T[I]> }
            : T extends object ? JsonifyMembers<T> : T
/** A member that may be undefined may be absent; one that is never anything else is. */
type JsonifyMembers<T> = Flat<
  { [K in keyof T as undefined extends T[K] ? never : NamedBy<K, T[K]>]: Jsonify<T[K]> } &
  { [K in keyof T as undefined extends T[K] ? NamedBy<K, T[K]> : never]?: Jsonify<Exclude<T[K], undefined>> }
>
type NamedBy<K, V> = K extends symbol ? never
  : [Exclude<V, undefined | symbol | ((...args: never[]) => unknown)>] extends [never] ? never : K
type Flat<T> = { [K in keyof T]: T[K] }

/**
 * A value that is there already, or a promise of it. Local stores answer at once; nothing is
 * awaited for them.
 */
export type MaybePromise<T> = T | Promise<T>

export interface Clock {
  /**
   * Monotonic milliseconds from an arbitrary start; never set back, unmoved by changes of the
   * system's clock.
   */
  now(): Millis
  /** Milliseconds since 1970-01-01 UTC, for display only. */
  wall(): Millis
}

/**
 * The slice of pino that the domain uses: the object first, a constant lower-case message second.
 */
export interface Log {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

/**
 * A session as the founding note describes it. A snapshot: it does not change after it was handed
 * out.
 */
export interface Session {
  readonly id: SessionId
  readonly userId: UserId
  /** Milliseconds since 1970-01-01 UTC. */
  readonly createdAt: Millis
  /** Milliseconds since 1970-01-01 UTC of the last accepted command or dispatched output (P-40). */
  readonly lastActivityAt: Millis
  readonly context: JsonObject
}

/** What a client asks for, as the founding note describes it. */
export interface InboundMessage {
  readonly command: string
  readonly payload: JsonValue
}

/** `basic`: the founding note. `full`: the subprotocol `holdfast.v1` (P-2). */
export type Profile = 'basic' | 'full'

/**
 * `active`: a connection is attached. `detached`: kept for a resume. `ended`: only its tombstone is
 * left.
 */
export type SessionState = 'active' | 'detached' | 'ended'

/**
 * Why a session ended; told to operators, counted in metrics and, to a holder of the token, in
 * `previous.reason` (P-33).
 */
export type EndReason =
  | 'idle'
  | 'resume_window'
  | 'ended_by_client'
  | 'ended_by_operator'
  | 'disconnected'
  | 'quota'
  | 'overloaded'
  | 'state_lost'
  | 'shutdown'

/** What operators see of a session. A snapshot. */
export interface SessionView extends Session {
  /** What the credentials of the latest handshake say of the user, such as roles. */
  readonly labels: JsonObject
  readonly state: SessionState
  readonly profile: Profile
  /**
   * Number of lifecycle events of this session so far; a consumer drops an event with a lower
   * number than it has seen.
   */
  readonly revision: number
  /** Highest seq given. */
  readonly lastSeq: Seq
  /** Outputs held until acknowledged. */
  readonly outboxMessages: number
  readonly outboxBytes: number
  /** Highest numbered command accepted (P-11). */
  readonly lastCommand: number
  /** Commands accepted and not yet answered. */
  readonly inFlight: number
  /** Outputs dropped unacknowledged (P-25). */
  readonly dropped: number
  readonly detachedAt: Millis | null
}

/** What is left of an ended session for a while, so that a late question gets its reason. */
export interface Tombstone {
  readonly id: SessionId
  readonly userId: UserId
  readonly reason: EndReason
  readonly endedAt: Millis
  readonly lastCommand: number
  /** Text an operator gave with the termination. */
  readonly note?: string
}

export type LifecycleEventType = 'created' | 'attached' | 'detached' | 'ended'

export interface LifecycleEvent {
  readonly type: LifecycleEventType
  readonly sessionId: SessionId
  readonly userId: UserId
  readonly revision: number
  /** Milliseconds since 1970-01-01 UTC. */
  readonly at: Millis
  /** `ended`: the EndReason. `detached`: the name of the close code. */
  readonly reason?: string
}

/** How an output is sent. */
export interface SendOptions {
  /**
   * It leaves without waiting for the store, which keeps it about a second later together with
   * others: for tokens, cursors, progress. A node that dies meanwhile takes it along, and its
   * client is told of a `gap` in its place (P-55). Default false. Where nothing is kept anyway, it
   * changes nothing.
   */
  readonly behind?: boolean
}

/** Whom an output is for. */
export type Target = { sessionId: SessionId } | { userId: UserId } | { all: true }

/**
 * UTF-8 bytes, one per character (Web IDL's term; Node calls the encoding latin1). ASCII text is
 * its own ByteString.
 */
export type ByteString = string

/**
 * One output. `tail` is its JSON text without the leading `{"seq":<n>`, so a broadcast to many
 * sessions shares one Output and only the number differs.
 */
export interface Output {
  readonly tail: ByteString
  /** Length of `tail`. */
  readonly bytes: number
  /** The numbered command that this answers; 0 for anything else. */
  readonly commandId: number
}
