// What a chaos run will do, drawn from its seed before it starts: which connections break how and
// where, which commands take how long and send what along, which are sent twice. Equal numbers and
// an equal seed give an equal plan; the network and the server still decide how the events
// interleave.

import type { ChaosOptions } from '../options.js'
import type { Fault, FaultKind } from '../proxy.js'
import { createRandom, type Random } from '../random.js'

/**
 * What the core does to a command, beside executing it: nothing, or its answer gets lost (the
 * connection closed, or cut in the middle), is a 500, or comes after ten seconds, the default of
 * the server; or it is turned away once with 503 and Retry-After, and executed afterwards.
 */
export type CoreFault = 'none' | 'lost' | 'cut' | 'fails' | 'late' | 'busy'

export const LATE_MS = 10_500

export interface CommandPlan {
  readonly fault: CoreFault
  /** How long the core takes. */
  readonly delayMs: number
  /** Outputs that come with the answer. */
  readonly messages: number
  /** Sent again at once, or once its answer is there. */
  readonly repeat: 'no' | 'while running' | 'when answered'
}

export interface ClientPlan {
  readonly client: number
  /** Faults of the client's connections in turn; none after the last. */
  readonly faults: readonly (readonly Fault[])[]
  readonly commands: readonly CommandPlan[]
  /** Outputs by the operator API: after how many answers. */
  readonly notes: readonly number[]
  /**
   * While detached before this connection, the operator sends more than an outbox holds; undefined
   * for most clients.
   */
  readonly floodBefore: number | undefined
  /** An ack goes with every nth frame. */
  readonly ackEvery: number
}

const KINDS: readonly FaultKind[] = ['cut', 'cut', 'cut', 'reset', 'reset', 'half-close', 'stall']

export function planChaos ({ clients, commands, cuts, seed, coreFaults }: ChaosOptions): ClientPlan[] {
  const random = createRandom(seed)
  return Array.from({ length: clients }, (_, client) => {
    const own = random.fork()
    // Of its own, so that a plan without faults of the core stays what it was for its seed.
    const faults = coreFaults ? createRandom(seed + 1 + client) : undefined
    const connections = share(cuts, clients, client)
    return {
      client,
      faults: Array.from({ length: connections }, () => planFaults(own)),
      commands: Array.from({ length: share(commands, clients, client) }, () => planCommand(own, faults)),
      notes: Array.from({ length: Math.floor(share(commands, clients, client) / 10) }, () => own.between(
        0, Math.max(0, share(commands, clients, client) - 1)
      )).sort((a, b) => a - b),
      floodBefore: client % 50 === 7 && connections > 1 ? own.between(1, connections - 1) : undefined,
      ackEvery: own.between(1, 6)
    }
  })
}

/** The part of `total` that the nth of `shares` gets; all parts together are `total`. */
function share (total: number, shares: number, n: number): number {
  return Math.floor(total * (n + 1) / shares) - Math.floor(total * n / shares)
}

function planFaults (random: Random): Fault[] {
  const faults: Fault[] = []
  if (random.next() < 0.2) faults.push({ ...place(random), kind: 'delay', ms: random.between(1, 40) })
  faults.push({ ...place(random), kind: random.pick(KINDS), ms: random.between(10, 120) })
  return faults
}

function place (random: Random): Pick<Fault, 'direction' | 'frame' | 'offset'> {
  const direction = random.next() < 0.4 ? 'up' as const : 'down' as const
  const frame = random.between(0, direction === 'up' ? 6 : 9)
  // A third before a frame, a third behind it, a third anywhere inside, header included.
  const third = random.between(0, 2)
  return { direction, frame, offset: third === 0 ? 0 : third === 1 ? Number.MAX_SAFE_INTEGER : random.between(1, 160) }
}

function planCoreFault (random: Random): CoreFault {
  const at = random.next()
  if (at < 0.06) return 'lost'
  if (at < 0.12) return 'cut'
  if (at < 0.18) return 'fails'
  if (at < 0.24) return 'busy'
  return at < 0.244 ? 'late' : 'none'
}

function planCommand (random: Random, faults: Random | undefined): CommandPlan {
  const repeats = random.next()
  const fault = faults === undefined ? 'none' : planCoreFault(faults)
  const planned = drawCommand(random, repeats)
  // What a lost answer would have brought along never comes.
  return { ...planned, fault, messages: isAnswered(fault) ? planned.messages : 0 }
}

/** Whether the core's answer to such a command reaches the server. */
export function isAnswered (fault: CoreFault): boolean {
  return fault === 'none' || fault === 'busy'
}

function drawCommand (random: Random, repeats: number): Omit<CommandPlan, 'fault'> {
  return {
    delayMs: random.next() < 0.5 ? 0 : random.between(1, 30),
    messages: random.next() < 0.2 ? random.between(1, 3) : 0,
    repeat: repeats < 0.05 ? 'while running' : repeats < 0.1 ? 'when answered' : 'no'
  }
}
