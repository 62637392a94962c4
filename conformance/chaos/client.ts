// One strict resuming client of the chaos run. It connects through its lane, sends its numbered
// commands a few at a time, acknowledges what it handled, and after every break resumes with the
// newest token it has read and sends again what the server says it has not accepted. It records
// what it sends and sees and judges nothing; checker.ts does. It gives up only when the whole run
// does.

import type { ClientEvent } from '../checker.js'
import type { ServerFrame, Span } from '../peer.js'
import type { Lane } from '../proxy.js'
import { upgrade, type Link } from '../socket.js'
import { LATE_MS, type ClientPlan, type CoreFault } from './plan.js'

/** Commands sent and not answered at a time. */
const WINDOW = 4
/**
 * A connection on which nothing comes for this time is left, as a user would reload; a ping is due
 * long before (P-43).
 */
/** Between two tries of a server that does not listen. */
const RECONNECT_MS = 50
const STUCK_MS = 40_000

export interface ChaosClient {
  readonly events: readonly ClientEvent[]
  readonly finalSeq: number | undefined
  readonly sessionId: string | undefined
  /** Connections that were left because nothing more came on them. */
  readonly stuck: number
  /** Handshakes answered with a status other than 101. */
  readonly refusedHandshakes: number
  /** Answers that say so. */
  unknownOutcomes(): number
  /** Where it stands, in words. */
  state(): string
  /** Settles when everything was answered, the last output came and the session was ended. */
  run(): Promise<void>
  stop(): void
}

export interface ChaosClientParts {
  plan: ClientPlan
  lane: Lane
  timeoutMs: number
  headers: Record<string, string>
  /** False if no core takes orders: commands are echoes then. */
  hasCore: boolean
  /** Called as soon as the session has an id. */
  onSession(sessionId: string): void
  /** Called while no connection is open, before each new one. */
  beforeConnect(broken: number): Promise<void>
  onAnswered(answered: number): void
  /** True once nothing but the client's own answers is still to come. */
  isQuiet(): boolean
}

export function createChaosClient (parts: ChaosClientParts): ChaosClient {
  const { plan, lane } = parts
  const events: ClientEvent[] = []
  const total = plan.commands.length
  const answered = new Set<number>()
  let sessionId: string | undefined
  let token = ''
  let lastSeq = 0
  let ackedSeq = 0
  let hadGap = false
  let finalSeq: number | undefined
  let connections = 0
  let stuck = 0
  let refusedHandshakes = 0
  let done = false
  let stopped = false
  let link: Link | undefined

  const isOver = () => done || stopped

  async function run (): Promise<void> {
    while (!isOver()) {
      connections++
      await parts.beforeConnect(lane.broken)
      await connectOnce(lane.broken)
    }
  }
  async function connectOnce (broken: number): Promise<void> {
    const offered = lastSeq
    const protocols = ['holdfast.v1', ...(sessionId === undefined ? [] : [`resume.${sessionId}.${token}.${offered}`])]
    const result = await upgrade(lane.url, { protocols, headers: parts.headers, timeoutMs: parts.timeoutMs }).catch(
      () => undefined
    )
    if (result?.link === undefined) {
      if (result === undefined) {
        // Nobody listens: it was killed, and comes back.
        await pause(RECONNECT_MS)
      } else {
        refusedHandshakes++
        await pause(1000 * Math.min(5, Number(result.answer.headers.get('retry-after') ?? 0.2)))
      }
      return
    }
    link = result.link
    await converse(link, broken, offered)
    link = undefined
    events.push({ kind: 'closed' })
  }
  function converse (open: Link, broken: number, offered: number): Promise<void> {
    return new Promise((resolve) => {
      const talk = createTalk(open, broken)
      const watchdog = setInterval(() => {
        if (performance.now() - talk.heardAt() < STUCK_MS) return
        stuck++
        open.destroy()
      }, 1000)
      open.handle({
        text: (text) => talk.onFrame(JSON.parse(text) as ServerFrame, offered),
        breach: (sentence) => { events.push({ kind: 'ended', reason: sentence }) },
        end () {
          clearInterval(watchdog)
          talk.end()
          resolve()
        }
      })
    })
  }

  function createTalk (open: Link, broken: number) {
    /** Commands allowed so far: the work is spread over the connections that will break. */
    const quota = broken >= plan.faults.length ? total : Math.ceil(total * (broken + 1) / (plan.faults.length + 1))
    let nextToSend = 1
    let waitUntil = 0
    let heard = performance.now()
    let ready = false
    let finalSent = false
    let framesSinceAck = 0
    let over = false
    const sentHere = new Set<number>()
    const timer = setInterval(step, 100)

    function send (frame: Record<string, unknown>): void {
      if (++framesSinceAck >= plan.ackEvery && lastSeq > ackedSeq && frame['type'] === undefined) {
        frame['ack'] = ackedSeq = lastSeq
        framesSinceAck = 0
      }
      open.sendText(JSON.stringify(frame))
    }
    function sendCommand (id: number): void {
      const { delayMs, messages, fault } = plan.commands[id - 1]!
      const marks = Array.from({ length: messages }, (_, n) => ({
        event: 'along', payload: markOf(plan.client, id, n)
      }))
      const payload = { tag: 'chaos', n: id, delayMs, ...ORDERS[fault], ...(messages === 0 ? {} : { messages: marks }) }
      events.push({ kind: 'sent', id, at: performance.now() })
      send({ command: parts.hasCore ? 'kit' : 'echo', id, payload })
    }
    function step (): void {
      if (!ready || over || performance.now() < waitUntil) return
      let open = 0
      for (let id = 1; id < nextToSend; id++) if (!answered.has(id)) open++
      while (open < WINDOW && nextToSend <= quota) {
        const id = nextToSend++
        if (answered.has(id)) continue
        open++
        sendCommand(id)
        if (plan.commands[id - 1]!.repeat === 'while running' && !sentHere.has(id)) sendCommand(id)
        sentHere.add(id)
      }
      if (open > 0 || nextToSend <= quota) return
      if (broken < plan.faults.length) {
        // Nothing is left to say on this connection, and its fault was not reached.
        lane.fire()
      } else if (answered.size === total && parts.isQuiet() && !finalSent) {
        finalSent = true
        send({ command: 'echo', id: 'final', payload: 'final' })
      }
    }
    function onOpening (frame: ServerFrame, offered: number): void {
      const facts: Record<string, any> = { ...frame, ...frame.payload }
      if (frame.type === 'session_created' && sessionId === undefined) {
        events.push({ kind: 'created' })
        sessionId = String(facts['sessionId'])
        parts.onSession(sessionId)
      } else if (frame.type === 'session_created') {
        events.push({ kind: 'ended', reason: String(facts['previous']?.reason) })
        stopped = true
        return open.close(1000)
      } else {
        const gap = facts['gap'] as Span | null
        const lastCommand = Number(facts['lastCommand'])
        events.push({ kind: 'resumed', offered, lastCommand, replay: facts['replay'] as Span | null, gap })
        if (gap !== null) {
          hadGap = true
          lastSeq = Math.max(lastSeq, gap.to)
        }
        nextToSend = lastCommand + 1
        // An answer may have been in a gap, of this resume or an earlier one: asking again tells,
        // and executes nothing.
        if (hadGap) for (let id = 1; id <= lastCommand; id++) if (!answered.has(id)) sendCommand(id)
      }
      token = String(facts['resumeToken'])
      ready = true
    }
    function onGoodbye ({ payload }: ServerFrame): void {
      // Any other one is followed by a resume.
      if (payload?.action === 'new') events.push({ kind: 'ended', reason: String(payload.reason) })
    }
    function onOutput (frame: ServerFrame): void {
      const seq = frame.seq!
      const id = typeof frame.id === 'number' ? frame.id : undefined
      events.push({ kind: 'output', seq, id, mark: readMark(frame), at: performance.now() })
      if (seq > lastSeq) lastSeq = seq
      if (id !== undefined && !answered.has(id)) {
        answered.add(id)
        parts.onAnswered(answered.size)
        if (plan.commands[id - 1]?.repeat === 'when answered') sendCommand(id)
      }
      if (frame.id === 'final') finish(seq)
    }
    function finish (seq: number): void {
      finalSeq = seq
      send({ type: 'end', ack: lastSeq })
    }
    function onRefusal (frame: ServerFrame): void {
      waitUntil = performance.now() + (frame.retryAfterMs ??
        (frame.code === 'RESULT_EXPIRED' || frame.code === 'COMMAND_GAP' ? 0 : 50))
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
    return {
      heardAt: () => heard,
      end () {
        over = true
        clearInterval(timer)
        if (finalSeq !== undefined) done = true
      },
      onFrame (frame: ServerFrame, offered: number): void {
        heard = performance.now()
        if (frame.type === 'goodbye') onGoodbye(frame)
        else if (!ready) onOpening(frame, offered)
        else if (frame.type === 'ping') open.sendText(JSON.stringify({ type: 'ack', seq: ackedSeq = lastSeq }))
        else if (frame.type === 'live') events.push({ kind: 'live' })
        else if (frame.seq !== undefined) onOutput(frame)
        else if (frame.type === 'error') onRefusal(frame)
        step()
      }
    }
  }
  return {
    events,
    run,
    state: () =>
      `connection ${connections}, ${lane.broken} of ${plan.faults.length} broken, ${answered.size} of ${total} ` +
        `answered, ${link === undefined ? 'away' : 'open'}`,
    get finalSeq () { return finalSeq },
    get sessionId () { return sessionId },
    get stuck () { return stuck },
    unknownOutcomes: () => events.filter((event) => event.kind === 'output' &&
      event.mark.endsWith(' OUTCOME_UNKNOWN')).length,
    get refusedHandshakes () { return refusedHandshakes },
    stop () {
      stopped = true
      link?.destroy()
    }
  }
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

function pause (ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
