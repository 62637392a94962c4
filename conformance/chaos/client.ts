// One strict resuming client of the chaos run. It connects through its lane, talks (talk.ts), and
// after every break resumes with the newest token it has read and sends again what the server says
// it has not accepted. It records what it sends and sees and judges nothing; checker.ts does. It
// gives up only when the whole run does.

import type { ClientEvent } from '../checker.js'
import type { ServerFrame } from '../peer.js'
import { upgrade, type Link } from '../socket.js'
import { createTalk, type Progress, type TalkParts } from './talk.js'

/** Between two tries of a server that does not listen. */
const RECONNECT_MS = 50
/**
 * A connection on which nothing comes for this time is left, as a user would reload; a ping is due
 * long before (P-43).
 */
const STUCK_MS = 40_000

export interface ChaosClient {
  readonly events: readonly ClientEvent[]
  readonly finalSeq: number | undefined
  readonly sessionId: string | undefined
  /** Commands that were answered. */
  readonly answered: number
  /** Connections that were left because nothing more came on them. */
  readonly stuck: number
  /** Handshakes answered with a status other than 101. */
  readonly refusedHandshakes: number
  /** Where it stands, in words. */
  state(): string
  /** Settles when everything was answered, the last output came and the session was ended. */
  run(): Promise<void>
  stop(): void
}

export interface ChaosClientParts extends TalkParts {
  readonly timeoutMs: number
  readonly headers: Record<string, string>
  /** Called while no connection is open, before each new one. */
  beforeConnect(broken: number): Promise<void>
}

export function createChaosClient (parts: ChaosClientParts): ChaosClient {
  const { plan, lane } = parts
  const progress: Progress = {
    events: [],
    answered: new Set(),
    sessionId: undefined,
    token: '',
    lastSeq: 0,
    ackedSeq: 0,
    hadGap: false,
    finalSeq: undefined,
    stopped: false
  }
  const { events, answered } = progress
  const total = plan.commands.length
  let connections = 0
  let stuck = 0
  let refusedHandshakes = 0
  let done = false
  let link: Link | undefined

  const isOver = () => done || progress.stopped

  async function run (): Promise<void> {
    while (!isOver()) {
      connections++
      await parts.beforeConnect(lane.broken)
      await connectOnce(lane.broken)
    }
  }

  async function connectOnce (broken: number): Promise<void> {
    const { sessionId, token, lastSeq: offered } = progress
    const protocols = ['holdfast.v1', ...(sessionId === undefined ? [] : [`resume.${sessionId}.${token}.${offered}`])]
    const { headers, timeoutMs } = parts
    const result = await upgrade(lane.url, { protocols, headers, timeoutMs }).catch(() => undefined)
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
      const talk = createTalk(parts, progress, open, broken, offered)
      const watchdog = setInterval(() => {
        if (performance.now() - talk.heardAt() < STUCK_MS) return
        stuck++
        open.destroy()
      }, 1000)
      open.handle({
        text: (text) => talk.onFrame(JSON.parse(text) as ServerFrame),
        breach: (sentence) => { events.push({ kind: 'ended', reason: sentence }) },
        end () {
          clearInterval(watchdog)
          talk.end()
          if (progress.finalSeq !== undefined) done = true
          resolve()
        }
      })
    })
  }

  return {
    events,
    run,
    state () {
      const broken = `${lane.broken} of ${plan.faults.length} broken`
      const line = link === undefined ? 'away' : 'open'
      return `connection ${connections}, ${broken}, ${answered.size} of ${total} answered, ${line}`
    },
    get finalSeq () { return progress.finalSeq },
    get sessionId () { return progress.sessionId },
    get answered () { return answered.size },
    get stuck () { return stuck },
    get refusedHandshakes () { return refusedHandshakes },
    stop () {
      progress.stopped = true
      link?.destroy()
    }
  }
}

function pause (ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
