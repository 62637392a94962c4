// Where log lines leave the process. A reader that stalls must not hold up sessions, so nothing
// here ever waits: a line is written at once, which keeps it ahead of an exit; what the reader does
// not take is kept, up to a bound; what is beyond that is lost, counted, and told once lines flow
// again.
//
// Not sonic-boom, pino's own: with `sync: true` it waits for the reader, and with `sync: false` the
// write that waits blocks a thread of libuv's pool, which process.exit() then waits for.

import { constants, fstatSync, openSync, writeSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Millis } from './io/types.js'

export interface LogOutput {
  write(line: string): void
  /** Lines that nobody will read: beyond the bound, or refused by the operating system. */
  readonly lostLines: number
  /**
   * Waits for the reader, but not for long; for exits. What is fatal goes to the standard error if
   * it must. pino calls it after fatal lines.
   */
  flushSync(): void
  /** The level of the line that is being written; pino sets it. */
  lastLevel: number
}

export interface LogOutputOptions {
  /** As in write(2): returns the bytes that were taken, and throws EAGAIN instead of waiting. */
  writeSync: (text: string | Buffer) => number
  /** The last resort of fatal lines. */
  writeFatal?: (text: string) => void
  /** Of a JSON line; default: as it is. */
  format?: (line: string) => string
  /** Lines flow again after `lost` were lost. */
  onRecovered: (lost: number) => void
  maxBufferedBytes?: number
  /** Blocks the thread. */
  sleep?: (ms: Millis) => void
}

/** About four thousand lines. */
export const LOG_BUFFER_BYTES = 1024 * 1024
const RETRY_MS = 50
/** Part of the second that a stop may take beyond its drain. */
const FLUSH_MS = 300
const FLUSH_STEP_MS = 5
const FATAL = 60

export function createLogOutput (options: LogOutputOptions): LogOutput {
  const { format = asItIs, writeFatal, onRecovered, maxBufferedBytes = LOG_BUFFER_BYTES, sleep = blockFor } = options
  let waiting: Buffer[] = []
  let waitingBytes = 0
  let lostLines = 0
  let toldLines = 0
  let unsentFatal = ''
  let retry: NodeJS.Timeout | undefined

  /** How many bytes were taken; undefined if they cannot be written at all. */
  function tryWrite (text: string | Buffer): number | undefined {
    try {
      return options.writeSync(text)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      return code === 'EAGAIN' || code === 'EBUSY' ? 0 : undefined
    }
  }

  function keep (rest: Buffer): void {
    waiting.push(rest)
    waitingBytes += rest.length
    retry ??= setInterval(drain, RETRY_MS).unref()
  }

  function drain (): void {
    const rest = Buffer.concat(waiting)
    const taken = tryWrite(rest)
    if (taken === undefined) lostLines += countLines(rest)
    waiting = taken === undefined || taken === rest.length ? [] : [rest.subarray(taken)]
    waitingBytes = waiting[0]?.length ?? 0
    if (waitingBytes > 0) return
    clearInterval(retry)
    retry = undefined
    unsentFatal = ''
    if (taken !== undefined) tellLosses()
  }

  function tellLosses (): void {
    const lost = lostLines - toldLines
    toldLines = lostLines
    if (lost > 0) onRecovered(lost)
  }

  const output: LogOutput = {
    lastLevel: 0,
    get lostLines () { return lostLines },

    write (json) {
      const line = format(json)
      const taken = retry === undefined ? tryWrite(line) : 0
      if (taken === undefined) {
        lostLines++
        return
      }
      const bytes = Buffer.byteLength(line)
      if (taken === bytes) {
        tellLosses()
        return
      }
      if (output.lastLevel === FATAL) unsentFatal += line
      // The rest of a line that has begun is kept in any case: half a line would spoil the next one
      // as well.
      if (taken > 0 || waitingBytes + bytes <= maxBufferedBytes) keep(Buffer.from(line).subarray(taken))
      else lostLines++
    },

    flushSync () {
      for (let waitedMs = 0; retry !== undefined && waitedMs < FLUSH_MS; waitedMs += FLUSH_STEP_MS) {
        drain()
        if (retry !== undefined) sleep(FLUSH_STEP_MS)
      }
      if (unsentFatal !== '') writeFatal?.(unsentFatal)
      unsentFatal = ''
    }
  }
  // Asks pino for `lastLevel`.
  return Object.defineProperty(output, Symbol.for('pino.metadata'), { value: true })
}

function asItIs (line: string): string {
  return line
}

function countLines (bytes: Buffer): number {
  let count = 0
  for (let at = bytes.indexOf(10); at !== -1; at = bytes.indexOf(10, at + 1)) count++
  return count
}

/**
 * A write to a descriptor that never waits for a reader. Files need nothing; pipes and terminals
 * are opened once more, so that whoever shares them keeps his own way of writing. What cannot be
 * opened again, such as the socket that systemd gives, is switched itself, and switched back by
 * Node at exit.
 */
export function writerWithoutWaiting (fd: number): (text: string | Buffer) => number {
  const own = openWithoutWaiting(fd)
  return text => typeof text === 'string' ? writeSync(own, text) : writeSync(own, text)
}

function openWithoutWaiting (fd: number): number {
  // With numbers instead of BigInts, Node.js 20 takes links for files from here on, where a module
  // is required: packages that a package manager has linked together do not find their
  // dependencies.
  if (fstatSync(fd, { bigint: true }).isFile()) return fd
  try {
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY)
  } catch {
    switched.push(new Socket({ fd, readable: false, writable: true }).unref())
    return fd
  }
}

/** Held for good: a handle that is collected closes its descriptor. */
const switched: Socket[] = []

function blockFor (ms: Millis): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}
