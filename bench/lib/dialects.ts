// How each server is spoken to: its address, what happens until a conversation is open, the text of
// a command, and how the frames it sends are told apart by a byte or two. The JSON servers (bare
// ws, fastify) get the very frames that Holdfast's full profile gets.

/** What a frame of the server is to the load generator. */
export const OTHER = 0
export const REPLY = 1
export const PUSH = 2
export const PING = 3

/**
 * What the server told while the conversation was opened; empty strings where it tells no such
 * thing.
 */
export interface Greeting {
  sessionId: string
  resumeToken: string
}

export interface Dialect {
  readonly path: string
  /** Value of Sec-WebSocket-Protocol; undefined offers none. */
  readonly subprotocol: string | undefined
  /** Replies and pushes are numbered, and commands carry the number of the last one as `ack`. */
  readonly acks: boolean
  /**
   * Takes what it needs from a frame of kind OTHER before the conversation is open.
   *
   * @returns true once it is open, false to wait for more, or a text that is to be sent back
   */
  greet(text: string, greeting: Greeting): boolean | string
  /**
   * The text of a command, cut at its numbers: id between the first two parts and, with `acks`, ack
   * between the last two.
   */
  command(greeting: Greeting, payload: string): readonly string[]
  kindOf(bytes: Buffer, start: number, end: number): number
  /** The payload of a reply as JSON text, for the check before the load. */
  payloadOf(text: string): string
  /** Answer to the server's `PING` text frame. */
  pong(seq: number): string
  /**
   * An acknowledgement alone, or the answer to a push that asks for one; undefined where there is
   * none.
   */
  acknowledge(seq: number, pushed: string): string | undefined
}

const LETTER_E = 0x65
const LETTER_M = 0x6d
const LETTER_P = 0x70
const LETTER_R = 0x72
const LETTER_S = 0x73
const DIGIT_0 = 0x30
const DIGIT_9 = 0x39
/** Offset of the first letter of the type in `{"type":"result"…`. */
const TYPE_OFFSET = 9
/** In an output the type comes behind the seq: `{"seq":12,"type":"result"…`. */
const SEQ_OFFSET = 7

function kindOfJson (bytes: Buffer, start: number, end: number): number {
  let at = start + TYPE_OFFSET
  if (bytes[start + 2] === LETTER_S) {
    at = start + SEQ_OFFSET
    while (bytes[at]! >= DIGIT_0 && bytes[at]! <= DIGIT_9) at++
    at += TYPE_OFFSET
  }
  switch (bytes[at]) {
    case LETTER_R: return REPLY
    case LETTER_M: return PUSH
    case LETTER_P: return PING
    case LETTER_E: throw new Error(`the server answered ${bytes.toString('utf8', start, end)}`)
    default: return OTHER
  }
}

function greetJson (text: string, greeting: Greeting): boolean {
  const { type, payload } = JSON.parse(text)
  if (type === 'live') return true
  if (type !== 'session_created' && type !== 'session_resumed') throw new Error(`the server answered ${text}`)
  greeting.sessionId = payload.sessionId
  greeting.resumeToken = payload.resumeToken ?? ''
  return type === 'session_created'
}

function payloadOfJson (text: string): string {
  return JSON.stringify(JSON.parse(text).payload)
}

function ackFrame (seq: number): string {
  return `{"type":"ack","seq":${seq}}`
}

/**
 * `holdfast.v1`: numbered commands, each carrying the ack of the outputs before it. Bare ws and
 * fastify take the same frames.
 */
export const full: Dialect = {
  path: '/ws',
  subprotocol: 'holdfast.v1',
  acks: true,
  greet: greetJson,
  command: (_greeting, payload) => ['{"command":"echo","id":', `,"payload":${payload},"ack":`, '}'],
  kindOf: kindOfJson,
  payloadOf: payloadOfJson,
  pong: ackFrame,
  acknowledge: ackFrame
}

/** No subprotocol: commands name their session and have string ids; nothing is acknowledged. */
export const basic: Dialect = {
  ...full,
  subprotocol: undefined,
  acks: false,
  command: ({ sessionId }, payload) => [
    `{"sessionId":"${sessionId}","command":"echo","id":"`, `","payload":${payload}}`
  ],
  acknowledge: () => undefined
}

/**
 * `holdfast.v1` without a single ack: the outbox of the session fills and then drops its oldest.
 */
export const mute: Dialect = {
  ...full,
  acks: false,
  command: (_greeting, payload) => ['{"command":"echo","id":', `,"payload":${payload}}`],
  pong: () => ackFrame(0),
  acknowledge: () => undefined
}

const DIGIT_2 = 0x32
const DIGIT_3 = 0x33
const DIGIT_4 = 0x34

function skipDigits (text: string, from: number): number {
  while (text.charCodeAt(from) >= DIGIT_0 && text.charCodeAt(from) <= DIGIT_9) from++
  return from
}

/**
 * Engine.IO 4 and Socket.IO 5 packets over a WebSocket from the start: `42<id>["echo",…]` is
 * answered `43<id>[…]`.
 */
export const socketIo: Dialect = {
  path: '/socket.io/?EIO=4&transport=websocket',
  subprotocol: undefined,
  acks: false,
  greet (text, greeting) {
    if (text.startsWith('0{')) return '40'
    if (!text.startsWith('40')) throw new Error(`the server answered ${text}`)
    greeting.sessionId = JSON.parse(text.slice(2)).sid
    return true
  },
  command: (_greeting, payload) => ['42', `["echo",${payload}]`],
  kindOf (bytes, start) {
    if (bytes[start] === DIGIT_2) return PING
    if (bytes[start] !== DIGIT_4) return OTHER
    if (bytes[start + 1] === DIGIT_3) return REPLY
    return bytes[start + 1] === DIGIT_2 ? PUSH : OTHER
  },
  payloadOf: text => JSON.stringify(JSON.parse(text.slice(skipDigits(text, 2)))[0]),
  pong: () => '3',
  acknowledge (_seq, pushed) {
    const end = skipDigits(pushed, 2)
    return end === 2 ? undefined : `43${pushed.slice(2, end)}[]`
  }
}
