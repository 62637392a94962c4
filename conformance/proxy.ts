// A TCP proxy that breaks connections at chosen places: at a frame boundary or after any byte of a
// frame, in either direction. Each client gets a lane, which is a listening port of its own, so
// that the faults of a connection are known before its first byte. It reads frame headers to know
// where it is and never changes a byte. Faults are taken in the order given, each at most once; a
// lane can be told to fire the one that waits, for a client that has nothing more to say.

import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { measureFrame } from './frames.js'

/** `up`: client to server. `down`: server to client. */
export type Direction = 'up' | 'down'

/**
 * What happens at the place of a fault.
 *
 * cut: both sides end. reset: both sides are reset (RST). half-close: the receiver is told that no
 * more comes, the other direction goes on. stall: nothing more passes, the client is cut off after
 * `ms`, the server after twice that. delay: everything behind waits for `ms`.
 */
export type FaultKind = 'cut' | 'reset' | 'half-close' | 'stall' | 'delay'

export interface Fault {
  readonly kind: FaultKind
  readonly direction: Direction
  /** 0 is the HTTP head, 1 the first WebSocket frame. */
  readonly frame: number
  /**
   * Bytes of that frame that still pass; 0 is the boundary before it, any number above its length
   * the boundary behind it.
   */
  readonly offset: number
  readonly ms: number
}

export interface Lane {
  readonly url: URL
  /** Fires the next fault of the newest connection where it stands. False if there is none. */
  fire(): boolean
  /** Faults that took effect so far, delays not counted. */
  readonly broken: number
}

export interface Proxy {
  /** Opens a lane; `script` gives the faults of each connection in turn. */
  lane(script: (connection: number) => readonly Fault[]): Promise<Lane>
  close(): Promise<void>
}

const HALF_CLOSED_MS = 1000

export function createProxy (target: URL): Proxy {
  const port = Number(target.port === '' ? 80 : target.port)
  const servers: ReturnType<typeof createServer>[] = []
  const sockets = new Set<Socket>()

  function keep (socket: Socket): Socket {
    sockets.add(socket)
    socket.setNoDelay(true)
    socket.on('close', () => sockets.delete(socket))
    // An error is followed by close, which is all that matters here.
    socket.on('error', () => {})
    return socket
  }
  return {
    async lane (script) {
      let connections = 0
      let broken = 0
      let newest: { fire(): boolean } | undefined
      const server = createServer({ allowHalfOpen: true }, (client) => {
        const faults = script(connections++)
        const upstream = connect({ port, host: target.hostname, allowHalfOpen: true })
        newest = createPair(keep(client), keep(upstream), faults, () => { broken++ })
      })
      servers.push(server)
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      const url = new URL(target)
      url.hostname = '127.0.0.1'
      url.port = String((server.address() as AddressInfo).port)
      return { url, fire: () => newest?.fire() ?? false, get broken () { return broken } }
    },
    async close () {
      for (const socket of sockets) socket.destroy()
      await Promise.all(servers.map((server) => new Promise<void>((resolve) => server.close(() => resolve()))))
    }
  }
}

function createPair (
  client: Socket, server: Socket, faults: readonly Fault[], onBroken: () => void
): { fire(): boolean } {
  const waiting = [...faults]
  const stalled = { up: false, down: false }
  let brokenOnce = false

  function take (fault: Fault): void {
    waiting.splice(waiting.indexOf(fault), 1)
    if (fault.kind === 'delay' || brokenOnce) return
    brokenOnce = true
    onBroken()
  }
  function apply (fault: Fault): void {
    const sink = fault.direction === 'up' ? server : client
    if (fault.kind === 'cut') {
      client.destroy()
      server.destroy()
    } else if (fault.kind === 'reset') {
      client.resetAndDestroy()
      server.resetAndDestroy()
    } else if (fault.kind === 'half-close') {
      sink.end()
      setTimeout(() => { client.destroy(); server.destroy() }, HALF_CLOSED_MS).unref()
    } else {
      setTimeout(() => client.destroy(), fault.ms).unref()
      setTimeout(() => server.destroy(), 2 * fault.ms).unref()
    }
  }
  function flow (direction: Direction, source: Socket, sink: Socket): void {
    const cutter = createCutter()
    let delayed: Buffer[] | undefined
    function pass (bytes: Buffer): void {
      for (let rest = bytes; rest.length > 0 && !stalled[direction];) {
        if (delayed !== undefined) {
          delayed.push(rest)
          return
        }
        const fault = waiting.find((one) => one.direction === direction)
        const { passBytes, fires } = cutter.next(rest, fault)
        const piece = rest.subarray(0, passBytes)
        rest = rest.subarray(passBytes)
        if (!fires || fault === undefined) {
          if (!sink.write(piece)) hold(source, sink)
          continue
        }
        take(fault)
        if (fault.kind === 'delay') {
          if (piece.length > 0) sink.write(piece)
          delay(fault.ms)
          continue
        }
        stalled[direction] = true
        // What passes has to have left this process before the sink is destroyed.
        if (piece.length > 0 && sink.writable) sink.write(piece, () => apply(fault))
        else apply(fault)
      }
    }
    function delay (ms: number): void {
      delayed = []
      setTimeout(() => {
        const held = delayed ?? []
        delayed = undefined
        for (const bytes of held) pass(bytes)
      }, ms).unref()
    }
    source.on('data', pass)
    source.on('end', () => { if (!stalled[direction]) sink.end() })
    source.on('close', () => {
      // A stalled direction tells its other side nothing: that side learns of the end when the
      // stall is over.
      if (stalled.up || stalled.down) return
      if (sink.writableLength > 0) sink.end()
      else sink.destroy()
    })
  }
  flow('up', client, server)
  flow('down', server, client)
  return {
    fire () {
      const fault = waiting.find(({ kind }) => kind !== 'delay')
      if (fault === undefined || brokenOnce) return false
      take(fault)
      stalled[fault.direction] = true
      apply(fault)
      return true
    }
  }
}

function hold (source: Socket, sink: Socket): void {
  // One chunk may be written in many pieces; one wait is enough.
  if (source.isPaused()) return
  source.pause()
  sink.once('drain', () => source.resume())
}

/**
 * Follows one direction through its frames and says how many of the next bytes pass before the
 * fault.
 */
export function createCutter (): {
  next(bytes: Buffer, fault: Pick<Fault, 'frame' | 'offset'> | undefined): { passBytes: number, fires: boolean }
} {
  let frame = 0
  let within = 0
  // The head of frame 0, then the header of each frame: kept until the length is known.
  let header = Buffer.alloc(0)
  let totalBytes: number | undefined

  function measure (bytes: Buffer): void {
    if (totalBytes !== undefined) return
    if (frame > 0) {
      const known = Buffer.concat([header, bytes.subarray(0, 14 - header.length)])
      totalBytes = measureFrame(known, 0)?.totalBytes
      return
    }
    const end = Buffer.concat([header, bytes]).indexOf('\r\n\r\n')
    if (end >= 0) totalBytes = end + 4
  }
  return {
    next (bytes, fault) {
      measure(bytes)
      const leftBytes = totalBytes === undefined ? bytes.length : Math.min(bytes.length, totalBytes - within)
      let passBytes = leftBytes
      let fires = false
      if (fault?.frame === frame && (fault.offset <= within + leftBytes || within + leftBytes === totalBytes)) {
        passBytes = Math.min(leftBytes, Math.max(0, fault.offset - within))
        fires = true
      }
      // A frame that was skipped over, since an earlier fault had to fire first, is late but not
      // lost.
      if (fault !== undefined && fault.frame < frame) return { passBytes: 0, fires: true }
      if (totalBytes === undefined) header = Buffer.concat([header, bytes.subarray(0, passBytes)])
      within += passBytes
      if (within === totalBytes) {
        frame++
        within = 0
        totalBytes = undefined
        header = Buffer.alloc(0)
      }
      return { passBytes, fires }
    }
  }
}
