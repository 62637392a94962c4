// The supervisor of workers, with processes that the test starts and ends and a clock of its own.

import t from 'tap'
import {
  createSupervisor, MAX_QUICK_DEATHS, type ListeningAddress, type WorkerEnd, type WorkerProcess
} from '../src/workers.js'
import { createManualClock } from './helpers/clock.js'

const AT: ListeningAddress = { address: '127.0.0.1', port: 3000, addressType: 4 }

interface FakeWorker extends WorkerProcess {
  readonly signals: NodeJS.Signals[]
  listen (): void
  end (end: Partial<WorkerEnd>): void
}

function createFakeWorker (id: number): FakeWorker {
  let whenListening: (at: ListeningAddress) => void
  let whenEnded: (end: WorkerEnd) => void
  const signals: NodeJS.Signals[] = []
  return {
    id,
    pid: 1000 + id,
    signals,
    kill (signal) { signals.push(signal) },
    onListening (listener) { whenListening = listener },
    onEnd (listener) { whenEnded = listener },
    listen () { whenListening(AT) },
    end (end) { whenEnded({ exitCode: null, signal: null, ...end }) }
  }
}

function createWorld (count: number) {
  const clock = createManualClock()
  const workers: FakeWorker[] = []
  const logged: { level: string, message: string, fields: object }[] = []
  const listening: ListeningAddress[] = []
  let timers: { dueAt: number, callback: () => void }[] = []
  let givenUp = 0
  const write = (level: string) => (fields: object, message: string) => { logged.push({ level, fields, message }) }
  const supervisor = createSupervisor({
    count,
    fork () {
      const worker = createFakeWorker(workers.length + 1)
      workers.push(worker)
      return worker
    },
    log: {
      debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error'), fatal: write('fatal')
    },
    clock,
    after (ms, callback) {
      const timer = { dueAt: clock.now() + ms, callback }
      timers.push(timer)
      return () => { timers = timers.filter(one => one !== timer) }
    },
    onListening (at) { listening.push(at) },
    onGivenUp () { givenUp++ }
  })
  return {
    supervisor,
    workers,
    logged,
    listening,
    givenUp: () => givenUp,
    last: () => workers.at(-1) as FakeWorker,
    advance (ms: number) {
      clock.advance(ms)
      const due = timers.filter(({ dueAt }) => dueAt <= clock.now())
      timers = timers.filter(timer => !due.includes(timer))
      for (const { callback } of due) callback()
    },
    /** All of them listen. */
    startAll () {
      supervisor.start()
      for (let i = 0; i < count; i++) workers[i]?.listen()
      return workers.slice(0, count)
    }
  }
}

t.test('one worker starts alone, and the others when it listens', async t => {
  const { supervisor, workers, listening } = createWorld(3)
  supervisor.start()
  t.equal(workers.length, 1)
  workers[0]?.listen()
  t.equal(workers.length, 3)
  workers[1]?.listen()
  t.equal(workers.length, 3)
  t.same(listening, [AT])
})

t.test('a first worker that cannot start ends everything', async t => {
  const { supervisor, workers, givenUp, logged } = createWorld(3)
  supervisor.start()
  workers[0]?.end({ exitCode: 1 })
  t.equal(givenUp(), 1)
  t.equal(workers.length, 1)
  t.match(logged.at(-1), {
    level: 'fatal',
    message: 'no worker could start, exiting',
    fields: { worker: 1, exitCode: 1 }
  })
  t.equal(await supervisor.stop(), false)
})

t.test('a worker that dies after a while is replaced at once', async t => {
  const { startAll, advance, workers, logged } = createWorld(2)
  const [, second] = startAll()
  advance(30_000)
  second?.end({ signal: 'SIGKILL' })
  advance(0)
  t.equal(workers.length, 3)
  t.match(logged.at(-1), {
    level: 'error',
    message: 'worker died, another one is started',
    fields: { worker: 2, workerPid: 1002, signal: 'SIGKILL', pauseMs: 0 }
  })
})

t.test('pauses double, up to 30 s, while workers die at their start', async t => {
  const { startAll, advance, workers, last, logged } = createWorld(1)
  startAll()
  const pausesMs: number[] = []
  for (let deaths = 1; deaths < MAX_QUICK_DEATHS; deaths++) {
    last().end({ exitCode: 1 })
    const { pauseMs } = logged.at(-1)?.fields as { pauseMs: number }
    pausesMs.push(pauseMs)
    advance(pauseMs - 1)
    t.equal(workers.length, deaths, 'not before its time')
    advance(1)
    t.equal(workers.length, deaths + 1)
  }
  t.same(pausesMs, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000, 30_000])
})

t.test('gives up after that many deaths in one place, and says why', async t => {
  const { supervisor, startAll, advance, last, givenUp, logged, workers } = createWorld(2)
  const [first] = startAll()
  for (let deaths = 1; deaths <= MAX_QUICK_DEATHS; deaths++) {
    t.equal(givenUp(), 0)
    last().end({ exitCode: 1 })
    advance(30_000)
  }
  t.equal(givenUp(), 1)
  t.match(logged.at(-1), {
    level: 'fatal',
    message: 'workers die at their start, exiting',
    fields: { attempts: MAX_QUICK_DEATHS }
  })
  t.equal(workers.length, MAX_QUICK_DEATHS + 1, 'no other one is started')
  const stopped = supervisor.stop()
  t.same(first?.signals, ['SIGTERM'], 'those that live drain')
  first?.end({ exitCode: 0 })
  t.equal(await stopped, false)
})

t.test('deaths are counted in each place by itself', async t => {
  const { startAll, advance, givenUp } = createWorld(MAX_QUICK_DEATHS)
  for (const worker of startAll()) worker.end({ exitCode: 1 })
  advance(1000)
  t.equal(givenUp(), 0)
})

t.test('a worker that has lived for 30 s clears the count', async t => {
  const { startAll, advance, last, logged } = createWorld(1)
  startAll()
  last().end({ exitCode: 1 })
  advance(1000)
  last().listen()
  advance(30_000)
  last().end({ exitCode: 1 })
  t.match(logged.at(-1)?.fields, { pauseMs: 0 })
})

t.test('a worker that was stopped by itself is replaced, and that is no death', async t => {
  const { startAll, workers, logged } = createWorld(2)
  const [, second] = startAll()
  second?.end({ exitCode: 0 })
  t.equal(workers.length, 3)
  t.match(logged.at(-1), { level: 'info', message: 'worker stopped, another one is started' })
})

t.test('a process that could not be made counts as a death', async t => {
  const { startAll, logged } = createWorld(2)
  const [, second] = startAll()
  const err = new Error('spawn EAGAIN')
  second?.end({ err })
  t.match(logged.at(-1), { level: 'error', fields: { err, pauseMs: 1000 } })
})

t.test('a stop asks every worker once, starts no other, and is in order when all exit 0', async t => {
  const { supervisor, startAll, advance, workers } = createWorld(3)
  const [first, second, third] = startAll()
  third?.end({ exitCode: 1 })
  const stopped = supervisor.stop()
  t.same(workers.map(({ signals }) => signals.join()), ['SIGTERM', 'SIGTERM', ''])
  advance(60_000)
  t.equal(workers.length, 3, 'the pause was cut short')
  first?.end({ exitCode: 0 })
  second?.end({ exitCode: 0 })
  t.equal(await stopped, true)
  t.equal(workers.length, 3)
})

t.test('a worker that was still starting ends by the signal, in order', async t => {
  const { supervisor, workers } = createWorld(2)
  supervisor.start()
  const stopped = supervisor.stop()
  workers[0]?.end({ signal: 'SIGTERM' })
  t.equal(await stopped, true)
})

t.test('a worker that listens during a stop brings no others', async t => {
  const { supervisor, workers, listening } = createWorld(2)
  supervisor.start()
  const stopped = supervisor.stop()
  workers[0]?.listen()
  t.equal(workers.length, 1)
  t.same(listening, [])
  workers[0]?.end({ exitCode: 0 })
  t.equal(await stopped, true)
})

t.test('a worker that does not stop in order is told, and spoils the exit code', async t => {
  const { supervisor, startAll, logged } = createWorld(2)
  const [first, second] = startAll()
  const stopped = supervisor.stop()
  first?.end({ exitCode: 1 })
  second?.end({ exitCode: 0 })
  t.equal(await stopped, false)
  t.match(logged.at(-1), {
    level: 'error',
    message: 'worker did not stop in order',
    fields: { worker: 1, exitCode: 1 }
  })
})

t.test('killing ends every worker at once', async t => {
  const { supervisor, startAll } = createWorld(2)
  const workers = startAll()
  supervisor.kill()
  t.same(workers.map(({ signals }) => signals), [['SIGKILL'], ['SIGKILL']])
})
