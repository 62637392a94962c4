// Whoever listens for upgrades on a server, in one place: Node calls every listener, and two that
// both know a path would write into each other's answer. Here each is asked in its order until one
// has taken the request.

import type { IncomingMessage } from 'node:http'
import type { Server } from 'node:net'
import type { Duplex } from 'node:stream'
import type { AnsweringSocket } from './http-sockets.js'

type UpgradeListener = (request: IncomingMessage, socket: Duplex, head: Buffer) => void

export interface UpgradeListeners {
  readonly count: number
  ask(request: IncomingMessage, socket: AnsweringSocket, head: Buffer): void
}

/** Puts `upgrade` in the place of all others, also of those that come later. */
export function replaceUpgradeListeners (
  server: Server, upgrade: (request: IncomingMessage, socket: AnsweringSocket, head: Buffer) => void
): UpgradeListeners {
  const listeners = server.listeners('upgrade') as UpgradeListener[]
  server.removeAllListeners('upgrade')
  server.on('upgrade', upgrade)
  server.on('newListener', (event: string | symbol, listener: UpgradeListener) => {
    if (event !== 'upgrade') return
    listeners.push(listener)
    // It is added only after this event.
    queueMicrotask(() => { server.off('upgrade', listener) })
  })

  return {
    get count () { return listeners.length },

    ask (request, socket, head) {
      const writtenBefore = socket.bytesWritten
      for (const listener of [...listeners]) {
        listener.call(server, request, socket, head)
        const isAnswered = socket._httpMessage != null || socket.bytesWritten !== writtenBefore
        if (isAnswered || isRead(socket) || socket.destroyed) return
      }
    }
  }
}

/** Somebody other than HTTP reads it: Node lets go of a socket whose request wants an upgrade. */
export function isRead (socket: Duplex): boolean {
  return socket.listenerCount('data') > 0
}
