// One client of the load generator: a plain TCP socket that speaks WebSocket and one dialect.
// Opening checks what the server says; afterwards frames are counted and told apart by a byte, so
// that the generator costs less than the server it loads.

import { connect, type Socket } from 'node:net'
import { OTHER, PING, PUSH, REPLY, type Dialect, type Greeting } from './dialects.js'
import {
  OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT, closeFrame, countDigits, createFrameReader, frame, masked,
  writeHeader, writeMaskedInteger
} from './frames.js'

export interface Conversation extends Greeting {
  readonly dialect: Dialect
  /** Outputs received so far; the seq of the latest where the server numbers them. */
  seq: number
  /**
   * Called with the number of replies and of pushes that one read brought; replaced by each load.
   */
  onReplies: (replies: number) => void
  onPushes: (pushes: number) => void
  /** Sends the next `count` commands in one write. */
  sendCommands(count: number): void
  sendText(text: string): void
  /** Resolves with the text of the next reply, which is not counted otherwise. */
  nextReply(): Promise<string>
  /** Closes by the protocol, with 1000; resolves when the socket is gone. */
  close(): Promise<void>
  /**
   * Drops the socket without a close frame, as a failing network does; resolves when it is gone.
   */
  drop(): Promise<void>
}

export interface OpenOptions {
  port: number
  dialect: Dialect
  /** JSON text of the commands' payload. */
  payload?: string
  /** Offered to resume a session. */
  resume?: { sessionId: string, resumeToken: string, seq: number }
  /** Answers each push with the acknowledgement of the dialect. 0: never; n: every n-th. */
  ackEvery?: number
  /** What ends a conversation that should go on: an unexpected close or a frame nobody expected. */
  onFailure?: (error: Error) => void
}

const HEAD_END = Buffer.from('\r\n\r\n')
const READ_BYTES = 65536
const FRAME_HEAD_BYTES = 8
const MOST_DIGITS = 16

// Reads are handled to their end before the next one starts, so all sockets share one buffer.
const readBuffer = Buffer.allocUnsafe(READ_BYTES)

function ignore (): void {}

function upgradeRequest ({ port, dialect, resume }: OpenOptions): string {
  const offers = dialect.subprotocol === undefined ? [] : [dialect.subprotocol]
  if (resume !== undefined) offers.push(`resume.${resume.sessionId}.${resume.resumeToken}.${resume.seq}`)
  return `GET ${dialect.path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
    'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n' +
    (offers.length === 0 ? '' : `Sec-WebSocket-Protocol: ${offers.join(', ')}\r\n`) + '\r\n'
}

interface CommandWriter {
  /** One buffer with `count` commands, numbered on from the last. */
  write(count: number, ack: number): Buffer
}

function createCommandWriter (dialect: Dialect, greeting: Greeting, payload: string): CommandWriter {
  const parts = dialect.command(greeting, payload).map(masked)
  const [beforeId, afterId, afterAck] = parts
  if (beforeId === undefined || afterId === undefined) throw new TypeError('a command has at least two parts')
  const partBytes = parts.reduce((sum, part) => sum + part.length, 0)
  let id = 0

  return {
    write (count, ack) {
      const target = Buffer.allocUnsafe(count * (FRAME_HEAD_BYTES + partBytes + 2 * MOST_DIGITS))
      const ackDigits = afterAck === undefined ? 0 : countDigits(ack)
      let at = 0
      for (let i = 0; i < count; i++) {
        id++
        const idDigits = countDigits(id)
        at = writeHeader(target, at, OPCODE_TEXT, partBytes + idDigits + ackDigits)
        at += beforeId.copy(target, at)
        at = writeMaskedInteger(target, at, id, idDigits)
        at += afterId.copy(target, at)
        if (afterAck === undefined) continue
        at = writeMaskedInteger(target, at, ack, ackDigits)
        at += afterAck.copy(target, at)
      }
      return target.subarray(0, at)
    }
  }
}

/** What one read brought. */
function createTally () {
  const tally = {
    replies: 0,
    pushes: 0,
    report (conversation: Conversation): void {
      const { replies, pushes } = tally
      tally.replies = 0
      tally.pushes = 0
      if (pushes > 0) conversation.onPushes(pushes)
      if (replies > 0) conversation.onReplies(replies)
    }
  }
  return tally
}

/** What follows the head of the answer; undefined while the head is not complete. */
type HeadReader = (bytes: Buffer) => Buffer | undefined

/** Throws if the server refuses the upgrade. */
function createHeadReader (): HeadReader {
  let head: Buffer = Buffer.alloc(0)
  return bytes => {
    head = Buffer.concat([head, bytes])
    const end = head.indexOf(HEAD_END)
    if (end < 0) return undefined
    if (!head.toString('latin1', 0, 12).endsWith(' 101')) {
      throw new Error(`the upgrade was refused: ${head.toString()}`)
    }
    return head.subarray(end + HEAD_END.length)
  }
}

/** Connects, upgrades and waits for the greeting. Rejects if the server refuses or closes. */
export function openConversation (options: OpenOptions): Promise<Conversation> {
  const { dialect, payload = 'null', ackEvery = 0, onFailure = ignore } = options
  return new Promise((resolve, reject) => {
    let readHead: HeadReader | undefined = createHeadReader()
    let isOpen = false
    let isClosing = false
    let writer: CommandWriter | undefined
    let replyWaiter: ((text: string) => void) | undefined
    let unacknowledged = 0
    const tally = createTally()

    const socket: Socket = connect({
      port: options.port,
      host: '127.0.0.1',
      noDelay: true,
      onread: { buffer: readBuffer, callback: (length, buffer) => { onRead(length, buffer as Buffer); return true } }
    })
    const whenGone = new Promise<void>(resolve => socket.once('close', () => resolve()))

    const conversation: Conversation = {
      dialect,
      sessionId: '',
      resumeToken: '',
      seq: options.resume?.seq ?? 0,
      onReplies: ignore,
      onPushes: ignore,
      sendCommands (count) {
        writer ??= createCommandWriter(dialect, conversation, payload)
        socket.write(writer.write(count, conversation.seq))
      },
      sendText (text) { socket.write(frame(OPCODE_TEXT, text)) },
      nextReply: () => new Promise(resolve => { replyWaiter = resolve }),
      close () {
        isClosing = true
        socket.write(closeFrame(1000))
        return whenGone
      },
      drop () {
        isClosing = true
        socket.resetAndDestroy()
        return whenGone
      }
    }

    function fail (error: Error): void {
      socket.destroy()
      if (!isOpen) reject(error)
      else if (!isClosing) onFailure(error)
      isClosing = true
    }

    function onRead (length: number, bytes: Buffer): void {
      try {
        if (readHead !== undefined) {
          const rest = readHead(bytes.subarray(0, length))
          if (rest === undefined) return
          readHead = undefined
          bytes = rest
          length = rest.length
        }
        read(bytes, length)
        tally.report(conversation)
      } catch (error) {
        fail(error as Error)
      }
    }

    const read = createFrameReader((opcode, bytes, start, end) => {
      if (opcode !== OPCODE_TEXT) return onControlFrame(opcode, bytes, start, end)
      const kind = dialect.kindOf(bytes, start, end)
      if (kind === REPLY) onReply(bytes, start, end)
      else if (kind === PUSH) onPush(bytes, start, end)
      else if (kind === PING) conversation.sendText(dialect.pong(conversation.seq))
      else if (kind === OTHER && !isOpen) onGreeting(bytes.toString('utf8', start, end))
    })

    function onControlFrame (opcode: number, bytes: Buffer, start: number, end: number): void {
      if (opcode === OPCODE_PING) socket.write(frame(OPCODE_PONG, masked(bytes.toString('latin1', start, end))))
      if (opcode !== OPCODE_CLOSE) return
      if (isClosing) socket.end()
      else fail(new Error(`the server closed with ${end - start < 2 ? 1005 : bytes.readUInt16BE(start)}`))
    }

    function onGreeting (text: string): void {
      const answer = dialect.greet(text, conversation)
      if (typeof answer === 'string') conversation.sendText(answer)
      if (answer !== true) return
      isOpen = true
      resolve(conversation)
    }

    function onReply (bytes: Buffer, start: number, end: number): void {
      conversation.seq++
      if (replyWaiter === undefined) {
        tally.replies++
        return
      }
      const waiter = replyWaiter
      replyWaiter = undefined
      waiter(bytes.toString('utf8', start, end))
    }

    function onPush (bytes: Buffer, start: number, end: number): void {
      conversation.seq++
      tally.pushes++
      if (ackEvery === 0 || ++unacknowledged < ackEvery) return
      unacknowledged = 0
      const acknowledgement = dialect.acknowledge(conversation.seq, bytes.toString('latin1', start, end))
      if (acknowledgement !== undefined) conversation.sendText(acknowledgement)
    }

    socket.on('error', fail)
    socket.on('end', () => fail(new Error('the server ended the connection')))
    socket.on('close', () => fail(new Error('the connection is gone')))
    socket.write(upgradeRequest(options), 'latin1')
  })
}

/** Sends one command and checks that its payload comes back. */
export async function checkEcho (conversation: Conversation, payload: string): Promise<void> {
  const reply = conversation.nextReply()
  conversation.sendCommands(1)
  const text = await reply
  const echoed = conversation.dialect.payloadOf(text)
  if (echoed !== payload) throw new Error(`sent ${payload}, got back ${text}`)
}
