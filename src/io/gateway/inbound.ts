// What a message of a client asks for: is it a frame, of this session? Then its ack is taken, and
// its command goes to the dispatcher. All of it is synchronous, so two frames of one socket can
// never be handled in the wrong order.

import type { Dispatcher } from '../dispatcher/dispatcher.js'
import { CLOSE } from '../protocol/close-codes.js'
import { errorFrame, readClientFrame, readFrameId, refusalFrame } from '../protocol/codec.js'
import { MAX_BAD_FRAMES, type ClientFrame, type CommandFrame } from '../protocol/frames.js'
import type { SessionRecord } from '../session/record.js'
import { outputAt } from '../session/replay-log.js'
import type { SessionRuntime } from '../session/runtime.js'
import type { Clock, Millis, Seq } from '../types.js'
import type { Closing } from './closing.js'
import type { Connection } from './connection.js'
import type { LastEvent, Sender } from './sender.js'

export interface InboundOptions {
  sessions: Pick<SessionRuntime, 'confirmAttach' | 'delivery' | 'end'>
  dispatcher: Pick<Dispatcher, 'submit'>
  sender: Pick<Sender, 'sendAgain' | 'sendPong' | 'sendText'>
  closing: Pick<Closing, 'close'>
  clock: Pick<Clock, 'now'>
  lastEvent: LastEvent
}

export interface Inbound {
  receive(connection: Connection, data: Buffer, isBinary: boolean): void
  readonly badFrames: number
}

export function createInbound ({ sessions, dispatcher, sender, closing, clock, lastEvent }: InboundOptions): Inbound {
  let badFrames = 0

  function receive (connection: Connection, data: Buffer, isBinary: boolean): void {
    const now = clock.now()
    connection.receivedAt = lastEvent.at = Math.floor(now)
    const { session } = connection
    if (session === null || connection.closed) return
    if (connection.unconfirmed) {
      connection.unconfirmed = false
      sessions.confirmAttach(session)
    }
    // P-7, and P-6 for everything else that is no frame.
    const frame = isBinary ? 'Binary messages are not supported.' : readClientFrame(data)
    if (typeof frame === 'string') {
      malformed(connection, frame, data)
      return
    }
    if (frame.sessionId !== session.id && (frame.sessionId !== undefined || connection.profile === 'basic')) {
      sender.sendText(connection, errorFrame('SESSION_INVALID'))
      closing.close(connection, CLOSE.sessionInvalid)
      return
    }
    const ack = ackOf(frame)
    if (ack !== undefined) connection.unprobedBytes = 0
    if (ack !== undefined && connection.profile === 'full' && !sessions.delivery.acknowledge(session, ack)) {
      sender.sendText(connection, errorFrame('BAD_ACK'))
      closing.close(connection, CLOSE.badFrame)
      return
    }
    if ('command' in frame) command(connection, session, frame, now)
    else if (frame.type === 'end') void sessions.end(session, 'ended_by_client')
    else if (frame.type === 'ping') sender.sendPong(connection)
  }

  function malformed (connection: Connection, sentence: string, data: Buffer): void {
    badFrames++
    sender.sendText(connection, errorFrame('BAD_FRAME', { id: readFrameId(data), message: sentence }))
    if (++connection.badFrames > MAX_BAD_FRAMES) closing.close(connection, CLOSE.badFrame)
  }

  function command (connection: Connection, session: SessionRecord, frame: CommandFrame, now: Millis): void {
    const verdict = dispatcher.submit(session, frame.command, frame.payload, frame.id, now)
    if (verdict === undefined) return
    if (verdict.kind === 'refused') {
      sender.sendText(connection, refusalFrame(frame.id, verdict.refusal))
      if (verdict.abusive) closing.close(connection, CLOSE.rateLimited, verdict.refusal.retryAfterMs)
      return
    }
    const { answerSeq } = verdict
    // What has not been sent yet comes in its order anyway.
    if (answerSeq === null || answerSeq > connection.sentSeq || session.log === null) return
    const output = outputAt(session.log, answerSeq)
    if (output !== undefined) sender.sendAgain(connection, output, answerSeq)
  }

  return {
    receive,
    get badFrames () { return badFrames }
  }
}

function ackOf (frame: ClientFrame): Seq | undefined {
  if ('command' in frame) return frame.ack
  return frame.type === 'ack' ? frame.seq : frame.type === 'end' ? frame.ack : undefined
}
