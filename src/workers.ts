// All cores of a machine: a first process that serves nobody, and workers that share its port, each
// a node of the fleet. The only file that knows node:cluster.
//
// The first worker starts alone. What would keep a server from starting keeps it, is said once, and
// ends everything; the others follow when it listens. From then on a worker that dies is replaced,
// while the others resume its sessions.
//
// Not here: signals, the end of the process, and the time limit of a stop (server.ts).

import cluster from 'node:cluster'
import type { Clock, Log, Millis } from './io/types.js'

/**
 * Number of this process among all that its primary has started; undefined where node:cluster did
 * not start it.
 */
export const workerNumber: number | undefined = cluster.worker?.id

export interface ListeningAddress { address: string, port: number, addressType: number }

/** How a process ended: by itself, by a signal, or because it could not be made. */
export interface WorkerEnd { exitCode: number | null, signal: string | null, err?: Error | undefined }

export interface WorkerProcess {
  readonly id: number
  /** Undefined for a process that could not be made. */
  readonly pid: number | undefined
  kill (signal: NodeJS.Signals): void
  /** Called once, when it takes connections. */
  onListening (listener: (at: ListeningAddress) => void): void
  /** Called once. */
  onEnd (listener: (end: WorkerEnd) => void): void
}

export interface SupervisorOptions {
  count: number
  fork: () => WorkerProcess
  log: Log & { fatal (fields: object, message: string): void }
  clock: Clock
  /** Calls back after that time; returns what cancels it. */
  after: (ms: Millis, callback: () => void) => () => void
  /** The first worker takes connections. */
  onListening: (at: ListeningAddress) => void
  /** Starting workers makes no sense any more; the log says why. */
  onGivenUp: () => void
}

export interface Supervisor {
  start (): void
  /**
   * Asks every worker to drain and starts no others. Resolves when the last one has ended: whether
   * all has gone as it should since the start.
   */
  stop (): Promise<boolean>
  /** Ends every worker at once. */
  kill (): void
}

/** A worker that lived so long is not counted among those that die at their start. */
const STEADY_MS = 30_000
const FIRST_PAUSE_MS = 1000
const MAX_PAUSE_MS = 30_000
/** In a row, in one place: with the pauses before them they take three minutes. */
export const MAX_QUICK_DEATHS = 10

export function createSupervisor (options: SupervisorOptions): Supervisor {
  const { count, fork, log, clock, after, onListening, onGivenUp } = options
  const running = new Set<WorkerProcess>()
  const pauses = new Set<() => void>()
  let hasListened = false
  let isStopping = false
  let isInOrder = true
  let whenEmpty = (): void => {}

  function giveUp (): void {
    isInOrder = false
    onGivenUp()
  }

  /**
   * `quickDeaths`: how many workers in this place have died at their start, one after the other.
   */
  function fill (quickDeaths: number): void {
    const worker = fork()
    running.add(worker)
    let listeningSince: Millis | undefined
    worker.onListening(at => {
      listeningSince = clock.now()
      log.info({ worker: worker.id, workerPid: worker.pid }, 'worker started')
      if (hasListened || isStopping) return
      hasListened = true
      onListening(at)
      for (let others = count - 1; others > 0; others--) fill(0)
    })
    worker.onEnd(({ exitCode, signal, err }) => {
      running.delete(worker)
      const fields = { worker: worker.id, workerPid: worker.pid, exitCode, signal, err }
      if (isStopping) noteStop(fields)
      else if (!hasListened) {
        log.fatal(fields, 'no worker could start, exiting')
        giveUp()
      } else if (exitCode === 0 && listeningSince !== undefined) {
        log.info(fields, 'worker stopped, another one is started')
        fill(0)
      } else {
        const isSteady = listeningSince !== undefined && clock.now() - listeningSince >= STEADY_MS
        replace(fields, isSteady ? 0 : quickDeaths + 1)
      }
    })
  }

  function replace (fields: object, quickDeaths: number): void {
    if (quickDeaths === MAX_QUICK_DEATHS) {
      log.fatal({ ...fields, attempts: quickDeaths }, 'workers die at their start, exiting')
      giveUp()
      return
    }
    const pauseMs = quickDeaths === 0 ? 0 : Math.min(FIRST_PAUSE_MS * 2 ** (quickDeaths - 1), MAX_PAUSE_MS)
    log.error({ ...fields, pauseMs }, 'worker died, another one is started')
    const cancel = after(pauseMs, () => {
      pauses.delete(cancel)
      fill(quickDeaths)
    })
    pauses.add(cancel)
  }

  /** One that was still starting knows no drain, and ends by the signal. */
  function noteStop (fields: WorkerEnd): void {
    if (fields.exitCode !== 0 && fields.signal !== 'SIGTERM' && fields.signal !== 'SIGINT') {
      isInOrder = false
      log.error(fields, 'worker did not stop in order')
    }
    if (running.size === 0) whenEmpty()
  }

  return {
    start () {
      fill(0)
    },

    async stop () {
      isStopping = true
      for (const cancel of pauses) cancel()
      for (const worker of running) worker.kill('SIGTERM')
      if (running.size > 0) await new Promise<void>(resolve => { whenEmpty = resolve })
      return isInOrder
    },

    kill () {
      for (const worker of running) worker.kill('SIGKILL')
    }
  }
}

/** Starts this program once more, with `env` beside the environment of this process. */
export function forkWorker (env: NodeJS.Dict<string>): WorkerProcess {
  // Whatever the platform and NODE_CLUSTER_SCHED_POLICY say: left to the kernel, the sockets of
  // clients that come one after the other gather on a few workers.
  cluster.schedulingPolicy = cluster.SCHED_RR
  const worker = cluster.fork(env)
  return {
    id: worker.id,
    pid: worker.process.pid,
    kill (signal) { worker.process.kill(signal) },
    onListening (listener) { worker.once('listening', listener) },
    onEnd (listener) {
      worker.once('exit', (exitCode: number | null, signal: string | null) => { listener({ exitCode, signal }) })
      // Also for a socket that was meant for a worker which has just died; its end follows.
      worker.on('error', err => {
        if (worker.process.pid === undefined) listener({ exitCode: null, signal: null, err })
      })
    }
  }
}
