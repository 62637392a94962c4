// What one client of the chaos run says and hears on one connection: its commands, a few at a time,
// and what the server sends. What outlives the connection is in `Progress`.

import type { ClientEvent } from '../checker.js'
import type { ServerFrame, Span } from '../peer.js'
import type { Lane } from '../proxy.js'
import type { Link } from '../socket.js'
import { LATE_MS, type ClientPlan, type CoreFault } from './plan.js'

/** Commands sent and not answered at a time. */
const WINDOW = 4

/** What a client knows of its session, whatever becomes of its connections. */
export interface Progress {
  readonly events: ClientEvent[]
  readonly answered: Set<number>
  sessionId: string | undefined
  token: string
  lastSeq: number
  ackedSeq: number
  hadGap: boolean
  finalSeq: number | undefined
  /** The run stopped it, or its session is lost. */
  stopped: boolean
}

export interface TalkParts {
  readonly plan: ClientPlan
  readonly lane: Lane
  /** False if no core takes orders: commands are echoes then. */
  readonly hasCore: boolean
  /** Called as soon as the session has an id. */
  onSession(sessionId: string): void
  onAnswered(answered: number): void
  /** True once nothing but the client's own answers is still to come. */
  isQuiet(): boolean
}

export interface Talk {
  heardAt(): number
  end(): void
  onFrame(frame: ServerFrame): void
}

/** `broken` connections came before this one; it offered the seq `offered` to resume from. */
export function createTalk (parts: TalkParts, progress: Progress, link: Link, broken: number, offered: number): Talk {
  const { events, answered } = progress
  const commands = createCommands(parts, progress, link, broken)
  const timer = setInterval(commands.step, 100)
  let heard = performance.now()

  function onOpening (frame: ServerFrame): void {
    const facts: Record<string, any> = { ...frame, ...frame.payload }
    if (frame.type === 'session_created' && progress.sessionId === undefined) {
      events.push({ kind: 'created' })
      progress.sessionId = String(facts['sessionId'])
      parts.onSession(progress.sessionId)
    } else if (frame.type === 'session_created') {
      events.push({ kind: 'ended', reason: String(facts['previous']?.reason) })
      progress.stopped = true
      return link.close(1000)
    } else {
      const gap = facts['gap'] as Span | null
      const lastCommand = Number(facts['lastCommand'])
      events.push({ kind: 'resumed', offered, lastCommand, replay: facts['replay'] as Span | null, gap })
      if (gap !== null) {
        progress.hadGap = true
        progress.lastSeq = Math.max(progress.lastSeq, gap.to)
      }
      commands.goOnAfter(lastCommand)
    }
    progress.token = String(facts['resumeToken'])
    commands.ready = true
  }

  function onGoodbye ({ payload }: ServerFrame): void {
    // Any other one is followed by a resume.
    if (payload?.action === 'new') events.push({ kind: 'ended', reason: String(payload.reason) })
  }

  function onOutput (frame: ServerFrame): void {
    const seq = frame.seq!
    const id = typeof frame.id === 'number' ? frame.id : undefined
    events.push({ kind: 'output', seq, id, mark: readMark(frame), at: performance.now() })
    if (seq > progress.lastSeq) progress.lastSeq = seq
    if (id !== undefined && !answered.has(id)) {
      answered.add(id)
      parts.onAnswered(answered.size)
      if (parts.plan.commands[id - 1]?.repeat === 'when answered') commands.send(id)
    }
    if (frame.id === 'final') {
      progress.finalSeq = seq
      commands.sendFrame({ type: 'end', ack: progress.lastSeq })
    }
  }

  return {
    heardAt: () => heard,
    end () {
      commands.over = true
      clearInterval(timer)
    },
    onFrame (frame) {
      heard = performance.now()
      if (frame.type === 'goodbye') onGoodbye(frame)
      else if (!commands.ready) onOpening(frame)
      else if (frame.type === 'ping') {
        link.sendText(JSON.stringify({ type: 'ack', seq: progress.ackedSeq = progress.lastSeq }))
      } else if (frame.type === 'live') events.push({ kind: 'live' })
      else if (frame.seq !== undefined) onOutput(frame)
      else if (frame.type === 'error') commands.onRefusal(frame)
      commands.step()
    }
  }
}

/** The commands of one connection: which is sent when, and what a refusal makes of them. */
function createCommands (parts: TalkParts, progress: Progress, link: Link, broken: number) {
  const { plan, lane } = parts
  const { events, answered } = progress
  const total = plan.commands.length
  /** Commands allowed so far: the work is spread over the connections that will break. */
  const quota = broken >= plan.faults.length ? total : Math.ceil(total * (broken + 1) / (plan.faults.length + 1))
  let nextToSend = 1
  let waitUntil = 0
  let finalSent = false
  let framesSinceAck = 0
  const sentHere = new Set<number>()

  function sendFrame (frame: Record<string, unknown>): void {
    if (++framesSinceAck >= plan.ackEvery && progress.lastSeq > progress.ackedSeq && frame['type'] === undefined) {
      frame['ack'] = progress.ackedSeq = progress.lastSeq
      framesSinceAck = 0
    }
    link.sendText(JSON.stringify(frame))
  }

  function send (id: number): void {
    const { delayMs, messages, fault } = plan.commands[id - 1]!
    const marks = Array.from({ length: messages }, (_, n) => ({ event: 'along', payload: markOf(plan.client, id, n) }))
    const along = messages === 0 ? {} : { messages: marks }
    const payload = { tag: 'chaos', n: id, delayMs, ...ORDERS[fault], ...along }
    events.push({ kind: 'sent', id, at: performance.now() })
    sendFrame({ command: parts.hasCore ? 'kit' : 'echo', id, payload })
  }

  const commands = {
    ready: false,
    over: false,
    send,
    sendFrame,

    step (): void {
      if (!commands.ready || commands.over || performance.now() < waitUntil) return
      let open = 0
      for (let id = 1; id < nextToSend; id++) if (!answered.has(id)) open++
      while (open < WINDOW && nextToSend <= quota) {
        const id = nextToSend++
        if (answered.has(id)) continue
        open++
        send(id)
        if (plan.commands[id - 1]!.repeat === 'while running' && !sentHere.has(id)) send(id)
        sentHere.add(id)
      }
      if (open > 0 || nextToSend <= quota) return
      if (broken < plan.faults.length) {
        // Nothing is left to say on this connection, and its fault was not reached.
        lane.fire()
      } else if (answered.size === total && parts.isQuiet() && !finalSent) {
        finalSent = true
        sendFrame({ command: 'echo', id: 'final', payload: 'final' })
      }
    },

    /** The session was resumed, and the server has accepted the commands up to `lastCommand`. */
    goOnAfter (lastCommand: number): void {
      nextToSend = lastCommand + 1
      // An answer may have been in a gap, of this resume or an earlier one: asking again tells, and
      // executes nothing.
      if (progress.hadGap) for (let id = 1; id <= lastCommand; id++) if (!answered.has(id)) send(id)
    },

    onRefusal (frame: ServerFrame): void {
      const isSettled = frame.code === 'RESULT_EXPIRED' || frame.code === 'COMMAND_GAP'
      waitUntil = performance.now() + (frame.retryAfterMs ?? (isSettled ? 0 : 50))
      if (frame.id === 'final') {
        finalSent = false
        return
      }
      const id = Number(frame.id)
      events.push({ kind: 'refused', id, code: String(frame.code) })
      if (frame.code === 'RESULT_EXPIRED') {
        answered.add(id)
      } else if (frame.code === 'COMMAND_GAP') {
        nextToSend = Math.min(nextToSend, frame.expected ?? id)
      } else {
        nextToSend = Math.min(nextToSend, id)
      }
    }
  }
  return commands
}

const ORDERS: Readonly<Record<CoreFault, object>> = {
  none: {},
  lost: { drop: true },
  cut: { cut: true },
  fails: { status: 500 },
  late: { delayMs: LATE_MS },
  busy: { busy: 1 }
}

/** Names an output that comes along with the answer to a command. */
export const markOf = (client: number, id: number, n: number) => `along-${client}-${id}-${n}`

function readMark (frame: ServerFrame): string {
  if (frame.type !== 'message') {
    return `${frame.type} ${String(frame.id)} ${frame.code ?? frame.payload?.n ?? frame.payload}`
  }
  return String(frame.payload).slice(0, 60)
}
