// Whether the line of one connection lives.
//
// Life is whatever a runtime shows of it: every message, bytes of a message that is not complete
// yet (`ws`), and bytes that the network took of what waits to be sent. A slow line is thereby not
// silence.

import type { Millis } from '../io/types.js'
import type { Reason } from './api.js'
import { FIRST_HEARTBEAT_MS, GRACE_MS, LOOK_MS, MAX_HEARTBEAT_MS, MAX_PATIENCE, PROBE_MS, SLEPT_MS } from './bounds.js'
import type { SocketLike, Timing } from './environment.js'
import type { Timers } from './timers.js'

export interface LinePort {
  readonly timing: Timing
  readonly timers: Timers
  /** The line is dead, or in so much doubt that a new one is quicker than to find out. */
  dead (reason: Reason, isSilent: boolean): void
}

export interface Line {
  /** A message has come. */
  readonly isOpen: boolean
  watch (socket: SocketLike): void
  /** Nothing is told any more. */
  leave (): void
  /** A message comes. */
  hear (): void
  /** See Link. */
  expect (heartbeatMs: Millis, canPing: boolean): void
  probe (isSure: boolean): void
}

export function createLine ({ timing, timers, dead }: LinePort): Line {
  let socket: SocketLike | undefined
  let isOpen = false
  let canPing = false
  let heardAt = 0
  let lookedAt = 0
  let silenceMs = 0
  let patience = 1
  let bytesRead = 0
  let bytesWaiting = 0

  /** Notes whether bytes have moved since the last time. */
  function observe (): void {
    const { bufferedAmount = 0, _socket } = socket!
    const read = _socket?.bytesRead ?? 0
    if (read > bytesRead || bufferedAmount < bytesWaiting) heardAt = timing.now()
    bytesRead = read
    bytesWaiting = bufferedAmount
  }

  function look (): void {
    const slept = timing.wall() - lookedAt > LOOK_MS + SLEPT_MS
    observe()
    const left = heardAt + silenceMs * patience - timing.now()
    if (left > 0) {
      lookedAt = timing.wall()
      timers.arm('look', Math.min(left, LOOK_MS), look)
      if (slept) probe(false)
    } else {
      if (isOpen) patience = Math.min(MAX_PATIENCE, patience * 2)
      dead(isOpen ? 'heartbeat_missed' : 'unreachable', true)
    }
  }

  function probe (isSure: boolean): void {
    // An earlier question stands, and credentials are waited for as long as they take.
    if (socket === undefined || timers.has('probe') || (!isOpen && !isSure)) return
    if (isOpen && !canPing) {
      if (isSure) dead('connection_lost', false)
      return
    }
    // Before the question: that a socket takes its bytes proves nothing, it does so without a
    // network as well.
    observe()
    if (isOpen) socket.send('{"type":"ping"}')
    awaitLife(timing.now())
  }

  function awaitLife (since: Millis): void {
    timers.arm('probe', PROBE_MS, () => {
      observe()
      if (heardAt > since) awaitLife(heardAt)
      else dead(isOpen ? 'connection_lost' : 'unreachable', false)
    })
  }

  return {
    get isOpen () { return isOpen },
    probe,
    watch (opened) {
      socket = opened
      isOpen = false
      bytesRead = bytesWaiting = 0
      silenceMs = FIRST_HEARTBEAT_MS + GRACE_MS
      heardAt = timing.now()
      lookedAt = timing.wall()
      look()
    },
    leave () {
      socket = undefined
      timers.disarm('look', 'probe')
    },
    hear () {
      heardAt = timing.now()
      timers.disarm('probe')
      if (isOpen) patience = 1
      isOpen = true
    },
    expect (heartbeatMs, given) {
      canPing = given
      silenceMs = GRACE_MS + (heartbeatMs > 0 ? Math.min(heartbeatMs, MAX_HEARTBEAT_MS) : FIRST_HEARTBEAT_MS)
      look()
    }
  }
}
