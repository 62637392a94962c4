// Every number of the client: waits, limits and codes. docs/client.md tells those that a user can
// meet.

// Lines

/**
 * What the server's silence may exceed its heartbeat by (P-43), and the heartbeat assumed until it
 * names one.
 */
export const GRACE_MS = 10_000
export const FIRST_HEARTBEAT_MS = 10_000
export const MAX_HEARTBEAT_MS = 600_000
/**
 * The line is looked at that often, so that bytes are seen to move, and a machine that slept is
 * noticed on waking.
 */
export const LOOK_MS = 5_000
/** A look that comes later than that means that the machine, or the page, stood still. */
export const SLEPT_MS = 3_000
/** Short enough for a page to tell the truth within two seconds of a hint. */
export const PROBE_MS = 1_500
/**
 * Silence in the middle of one large output cannot be seen in browsers; patience doubles until one
 * has come.
 */
export const MAX_PATIENCE = 8

// Connections

/**
 * The client's own code for a close that keeps the session; browsers allow only 1000 and 3000–4999.
 */
export const DETACH_CODE = 4900
/** `token()` may ask a person who is away for a moment, but not for ever. */
export const TOKEN_MS = 60_000
/** A session that nobody wants any more is waited for that long, to be ended. */
export const LINGER_MS = 10_000

// Storage and locks

/**
 * How long a storage may take to answer, and a lock. Without an answer the session goes on without
 * what it was asked for.
 */
export const LOAD_MS = 3_000
export const LOCK_MS = 2_000
export const LOCK_RETRY_MS = 150

// Timers

/** Longer delays overflow the timers of every runtime and would fire at once. */
export const MAX_DELAY_MS = 2 ** 31 - 1

// Attempts

export const REPLACED_CODE = 4003
/**
 * A connection that was live for less does not reset the back-off, or a server that closes at once
 * would be asked at once.
 */
export const STABLE_MS = 5_000
export const BACKOFF_BASE_MS = 500
export const BACKOFF_CAP_MS = 30_000
/**
 * `navigator.onLine` is wrong on some systems: while it is false attempts are slower, and never
 * end.
 */
export const OFFLINE_BACKOFF_MS = 5_000

// Acknowledgements and refusals

/**
 * An ack frame follows that many outputs, or the first of them after that time, unless a command
 * takes the ack along.
 */
export const ACK_OUTPUTS = 32
export const ACK_DELAY_MS = 200
/** For refusals that name no time. */
export const REFUSAL_DELAY_MS = 500
/** P-53b. What a server or a gateway says is taken for at most that long. */
export const MAX_RETRY_AFTER_MS = 3_600_000

// Commands

/** Of the client itself, where a server complains of a frame and does not say which. */
export const BAD_FRAME_CODE = 4901
/** Objects and arrays inside one another in a payload: P-6 allows 32 in a frame. */
export const MAX_PAYLOAD_DEPTH = 31
export const MAX_NAME_LENGTH = 128
export const MAX_SAVED_COMMANDS = 256
export const MAX_SAVED_CHARS = 262_144
/** Room for `,"id":` and `,"ack":` with their numbers. */
export const FRAME_TAIL_BYTES = 48
/** A second, and what the network may push together. */
export const RATE_WINDOW_MS = 1050

// Codes

export const TOO_LARGE_CODE = 1009
export const INTERNAL_CODE = 4100
/** P-49c. */
export const MAX_STRIKES = 3
