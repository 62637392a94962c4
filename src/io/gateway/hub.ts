// The live connections of this node, and their heartbeats: who is pinged, whose peer is gone, whose
// credentials have expired (P-43). The sweep goes round and looks at a share of them each time, so
// no turn is long, however many there are.

import { CLOSE } from '../protocol/close-codes.js'
import { HEARTBEAT_GRACE_MS } from '../protocol/frames.js'
import type { Clock, Log, Millis } from '../types.js'
import type { Closing } from './closing.js'
import type { Connection } from './connection.js'
import type { LastEvent, Sender } from './sender.js'

export interface HubOptions {
  closing: Pick<Closing, 'close'>
  sender: Pick<Sender, 'sendPing'>
  clock: Pick<Clock, 'now'>
  lastEvent: LastEvent
  log: Log
  heartbeatMs: Millis
}

export interface Hub {
  add(connection: Connection): void
  /** Nothing happens for one that is not in it any more. */
  remove(connection: Connection): void
  readonly size: number
  /** Looks at the share of connections that `elapsedMs` is of a round. */
  sweep(elapsedMs: Millis): void
  /**
   * Closes up to `count` connections with 4200; those with commands running only if `force`.
   * Returns how many are left (P-48).
   */
  closeSome(count: number, retryAfterMs: Millis, force: boolean): number
}

/**
 * A round of the sweep visits every connection; eight of them fit into a heartbeat, so a ping is
 * early by an eighth at most, and never late.
 */
const ROUNDS_PER_HEARTBEAT = 8
/**
 * A sweep that is later by more: the process was stopped, its host was paused, or it computed. A
 * fifth of the grace of P-43.
 */
const STANDSTILL_MS = 2000

export function createHub ({ closing, sender, clock, lastEvent, log, heartbeatMs }: HubOptions): Hub {
  const live: Connection[] = []
  const roundMs = heartbeatMs / ROUNDS_PER_HEARTBEAT
  /** Connections before this index are still to be visited in this round. */
  let unvisited = 0
  /** Visits that the time that has passed allows, with its fraction. */
  let visitsDue = 0
  let sweptAt = lastEvent.at
  /** The end of the last standstill; silence before it is not the peers' (P-43e). */
  let awakeSince = -Infinity

  function visit (connection: Connection, now: Millis): void {
    if (connection.closed) return
    if (hasStirred(connection)) connection.receivedAt = now
    if (now >= connection.credentialsExpireAt) {
      closing.close(connection, CLOSE.credentialsExpired)
    } else if (now - Math.max(connection.receivedAt, awakeSince) > heartbeatMs + HEARTBEAT_GRACE_MS) {
      log.debug({ sid: connection.session?.id }, 'peer went silent')
      closing.close(connection, CLOSE.heartbeatMissed)
    } else if (now + roundMs >= Math.min(connection.sentAt, connection.receivedAt) + heartbeatMs) {
      if (connection.profile === 'full') sender.sendPing(connection)
      else connection.transport.ping()
      connection.sentAt = now
    }
  }

  return {
    get size () { return live.length },

    add (connection) {
      connection.hubIndex = live.push(connection) - 1
    },

    remove (connection) {
      const { hubIndex } = connection
      if (hubIndex === -1) return
      const last = live.pop() as Connection
      if (last !== connection) {
        live[hubIndex] = last
        last.hubIndex = hubIndex
      }
      connection.hubIndex = -1
    },

    sweep (elapsedMs) {
      const now = lastEvent.at = Math.floor(clock.now())
      // What came while this process stood still is unread, and nobody was asked: everyone has a
      // whole round from now on.
      if (now - sweptAt > elapsedMs + STANDSTILL_MS) awakeSince = now
      sweptAt = now
      visitsDue = Math.min(visitsDue + live.length * elapsedMs / roundMs, live.length)
      for (; visitsDue >= 1; visitsDue--) {
        // From the end to the front: removing the visited one moves only one that was visited
        // already.
        if (unvisited <= 0 || unvisited > live.length) unvisited = live.length
        const connection = live[--unvisited]
        if (connection === undefined) break
        visit(connection, now)
      }
    },

    closeSome (count, retryAfterMs, force) {
      let left = count
      for (let i = live.length - 1; i >= 0 && left > 0; i--) {
        const connection = live[i] as Connection
        if (connection.closed || (!force && connection.session !== null && connection.session.calls !== null)) continue
        closing.close(connection, CLOSE.draining, retryAfterMs)
        left--
      }
      return live.reduce((open, connection) => connection.closed ? open : open + 1, 0)
    }
  }
}

/**
 * Whether bytes have come since the last visit, or the peer's TCP has made room in a socket that
 * was full (P-43a, P-43b). A socket that was not full takes bytes whether its peer lives or not.
 */
function hasStirred (connection: Connection): boolean {
  const { transport, receivedBytes, takenBytes } = connection
  connection.receivedBytes = transport.receivedBytes
  connection.takenBytes = transport.bufferedBytes > 0 ? transport.takenBytes : -1
  return connection.receivedBytes !== receivedBytes || (takenBytes !== -1 && transport.takenBytes > takenBytes)
}
