// Executes accepted commands: finds who answers, keeps their order, and keeps their time (P-17 to
// P-19).
//
// A synchronous handler is answered in the same turn: no promise, no timer, no call record. Only a
// handler that gives a promise costs a Call, whose deadline lies in a timing wheel that `sweep`
// turns. A throwing, hanging or lying handler harms only its own command.

import { HoldfastError } from '../errors.js'
import { isThenable } from '../maybe-promise.js'
import { firstProblem } from '../protocol/codec.js'
import type { Committer } from '../session/committer.js'
import type { SessionRecord } from '../session/record.js'
import { createTimingWheel, type TimingWheel, type WheelItem } from '../session/timing-wheel.js'
import type { Clock, Millis } from '../types.js'
import type { Answers, CommandId } from './answers.js'
import { createSessionCalls, type Call, type SessionCalls } from './calls.js'
import { abort, HandlerContext } from './handler-context.js'
import type { RegisteredCommand, Registry } from './registry.js'
import { handleOf, type HandlePorts } from './session-handle.js'

export interface ExecutionOptions {
  registry: Registry
  answers: Answers
  clock: Clock
  committer: Committer
  /** Runs a callback after the present turn. */
  defer: (callback: () => void) => void
  /** What the sessions of handlers are made of. */
  handles: HandlePorts
}

export interface Execution {
  /**
   * Starts an accepted command, or queues it behind those it has to wait for; it will be answered.
   */
  execute(session: SessionRecord, name: string, payload: unknown, id: CommandId, startedAt: Millis): void
  /** Answers the commands whose time is over. Returns how many. */
  sweep(): number
  /** Accepted and not yet answered, over all sessions. */
  readonly inFlight: number
}

/** What commands under way share. */
interface Engine {
  readonly answers: Answers
  readonly committer: Committer
  readonly defer: (callback: () => void) => void
  readonly deadlines: TimingWheel<Call>
  inFlight: number
}

export function createExecution (options: ExecutionOptions): Execution {
  const { registry, answers, clock, defer, committer, handles } = options
  const deadlines = createTimingWheel<Call>({
    deadlineOf: call => call.deadlineAt, tickMs: 100, buckets: 1024, now: clock.now()
  })
  const engine: Engine = { answers, committer, defer, deadlines, inFlight: 0 }

  function execute (session: SessionRecord, name: string, payload: unknown, id: CommandId, startedAt: Millis): void {
    const command = registry.find(name)
    if (command === undefined) {
      registry.unknown.outcomes.unknown++
      answers.error(session, id, 'UNKNOWN_COMMAND', `No command is named ${JSON.stringify(name)}.`)
      return
    }
    if (command.payload !== null && !command.payload.Check(payload)) {
      command.stats.outcomes.invalid++
      const problem = firstProblem(command.payload.Errors(payload))
      answers.error(session, id, 'INVALID_PAYLOAD', `The payload does not match: ${problem}.`)
      return
    }
    const context = new HandlerContext(name, payload, handleOf(session, handles), id)
    if (session.calls !== null || mustRecord(session, command, id)) {
      callsOf(session).submit(new PendingCall(engine, session, command, context, startedAt))
      return
    }
    const outcome = run(answers, session, command, context, startedAt)
    if (outcome === undefined) return
    // The handler may have ended its own session before it gave the promise.
    if (session.ended) {
      abortLater(defer, context, 'SESSION_ENDED')
      outcome.catch(() => {})
      return
    }
    const call = new PendingCall(engine, session, command, context, startedAt)
    callsOf(session).adopt(call)
    call.follow(outcome)
  }

  return {
    execute,
    sweep: () => deadlines.sweep(clock.now(), Infinity, call => call.expire()),
    get inFlight () { return engine.inFlight }
  }
}

function callsOf (session: SessionRecord): SessionCalls {
  return (session.calls ??= createSessionCalls()) as SessionCalls
}

/**
 * Whether the store has to know of the command before it is executed: else a crash in between would
 * let it be executed a second time (P-11).
 */
function mustRecord ({ journal, profile }: SessionRecord, command: RegisteredCommand, id: CommandId): boolean {
  return journal !== null && profile === 'full' && typeof id === 'number' && !command.idempotent
}

/** Answers a handler that gave a value or threw; returns the promise of one that gave a promise. */
function run (
  answers: Answers, session: SessionRecord, command: RegisteredCommand, context: HandlerContext, startedAt: Millis
): Promise<unknown> | undefined {
  let outcome: unknown
  try {
    outcome = command.handler(context)
    if (isThenable(outcome)) return Promise.resolve(outcome)
  } catch (error) {
    answers.failure(session, command, context.id, error, startedAt)
    return undefined
  }
  answers.value(session, command, context.id, outcome, startedAt)
  return undefined
}

// Listeners of an aborted signal are the platform's code: they hear of it when all is final.
function abortLater (
  defer: (callback: () => void) => void, context: HandlerContext, code: 'COMMAND_TIMEOUT' | 'SESSION_ENDED'
): void {
  defer(() => abort(context, new HoldfastError(code)))
}

/**
 * A command that waits for its turn or for its handler. It settles once; what comes after is
 * dropped.
 */
class PendingCall implements Call {
  readonly number: number
  readonly serial: boolean
  readonly idempotent: boolean
  readonly deadlineAt: Millis
  wheelNext: WheelItem | null = null
  wheelPrevious: WheelItem | null = null
  wheelBucket = -1
  hasBegun = false
  #settled = false
  readonly #engine: Engine
  readonly #calls: SessionCalls
  readonly #session: SessionRecord
  readonly #command: RegisteredCommand
  readonly #context: HandlerContext
  readonly #startedAt: Millis

  constructor (
    engine: Engine, session: SessionRecord, command: RegisteredCommand, context: HandlerContext, startedAt: Millis
  ) {
    this.number = typeof context.id === 'number' ? context.id : 0
    this.serial = command.serial
    this.idempotent = command.idempotent
    this.deadlineAt = Math.floor(startedAt) + command.timeoutMs
    this.#engine = engine
    this.#calls = callsOf(session)
    this.#session = session
    this.#command = command
    this.#context = context
    this.#startedAt = startedAt
    engine.inFlight++
    engine.deadlines.file(this)
  }

  start (): void {
    const { committer } = this.#engine
    const calls = this.#calls
    const isFirst = mustRecord(this.#session, this.#command, this.#context.id)
    // What comes behind a command that waits for its record waits with it, so that the order stays
    // (P-17).
    if (!isFirst && calls.recording === 0) {
      this.#begin()
      return
    }
    if (isFirst) committer.commit(this.#session)
    calls.recording++
    const kept = committer.whenKept(this.#session) ?? Promise.resolve(true)
    void kept.then(isKept => {
      calls.recording--
      // Else its session is over, and so is the call.
      if (isKept && !this.#settled) this.#begin()
    })
  }

  #begin (): void {
    this.hasBegun = true
    const outcome = run(this.#engine.answers, this.#session, this.#command, this.#context, this.#startedAt)
    if (outcome !== undefined) this.follow(outcome)
    else if (this.#settle()) this.#finish()
  }

  /** Its handler gave a promise: the call is answered when that settles. */
  follow (outcome: Promise<unknown>): void {
    const { answers } = this.#engine
    this.hasBegun = true
    outcome.then(value => this.#answer(answers.value, value), error => this.#answer(answers.failure, error))
  }

  expire (): void {
    if (!this.#settle()) return
    abortLater(this.#engine.defer, this.#context, 'COMMAND_TIMEOUT')
    this.#engine.answers.timeout(this.#session, this.#command, this.#context.id, this.#startedAt)
    this.#finish()
  }

  abandon (): void {
    if (this.#settle()) abortLater(this.#engine.defer, this.#context, 'SESSION_ENDED')
  }

  #answer (answer: Answers['value' | 'failure'], outcome: unknown): void {
    if (!this.#settle()) return
    answer(this.#session, this.#command, this.#context.id, outcome, this.#startedAt)
    this.#finish()
  }

  /** Whether this is the first to settle it, and may answer. */
  #settle (): boolean {
    if (this.#settled) return false
    this.#settled = true
    this.#engine.deadlines.remove(this)
    this.#engine.inFlight--
    return true
  }

  /** Starts what waited for it. */
  #finish (): void {
    this.#calls.settled(this)
    if (this.#calls.inFlight === 0 && this.#session.calls === this.#calls) this.#session.calls = null
  }
}
