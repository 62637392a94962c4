// Reads what one client of a chaos run saw and did, and says what the server owed it and did not
// give: outputs lost, doubled, out of order, commands executed twice or never, gaps told wrongly.
// Pure: a list of events in, counts and sentences out; it trusts nothing but the events, and in
// particular not the client's own idea of where it stands.

import type { Span } from './peer.js'

export type ClientEvent =
  | { readonly kind: 'created' }
  /** What the client offered, and what it was told. */
  | {
    readonly kind: 'resumed'
    readonly offered: number
    readonly lastCommand: number
    readonly replay: Span | null
    readonly gap: Span | null
  }
  | { readonly kind: 'live' }
  /** `mark` is the content in short: equal for equal outputs. */
  | {
    readonly kind: 'output'
    readonly seq: number
    readonly id: number | undefined
    readonly mark: string
    readonly at?: number
  }
  | { readonly kind: 'sent', readonly id: number, readonly at?: number }
  | { readonly kind: 'refused', readonly id: number, readonly code: string }
  | { readonly kind: 'closed' }
  /** A resume was answered with a new session. */
  | { readonly kind: 'ended', readonly reason: string }

export interface ClientHistory {
  readonly client: number
  /** Commands 1..commands were to be executed, each once. */
  readonly commands: number
  readonly events: readonly ClientEvent[]
  /**
   * Seq of the answer to a last command, sent when all was done; undefined if the client never got
   * there.
   */
  readonly finalSeq: number | undefined
  /** Executions by command id, as the core counted them; undefined if nothing counted. */
  readonly executions: ReadonlyMap<number, number> | undefined
  /**
   * Outputs other than answers that the server was made to send; with their seq where the server
   * told it.
   */
  readonly produced: readonly { readonly mark: string, readonly seq: number | undefined }[]
  /**
   * The server was killed on the way: a command that had begun then is answered OUTCOME_UNKNOWN,
   * whether it was executed or not, and what would have come along with its answer does not come.
   */
  readonly serverDies?: boolean
}

export interface Verdict {
  resumes: number
  replayed: number
  repeats: number
  expired: number
  gaps: number
  gapOutputs: number
  lost: number
  doubled: number
  reordered: number
  /** A sentence for each thing that is wrong, the client named in it. */
  problems: string[]
}

interface Track {
  handled: number
  contents: Map<number, string>
  answers: Map<number, Set<number>>
  missing: Set<number>
  gaps: Span[]
  /** On this connection: how many answers to a command may come again, by its id. */
  repeatsDue: Map<number, number>
  /** lastCommand as told at the start of this connection. */
  toldWatermark: number
  everSent: number
  watermark: number
  replay: Span | null | undefined
  expired: Set<number>
}

function emptyVerdict (): Verdict {
  return {
    resumes: 0,
    replayed: 0,
    repeats: 0,
    expired: 0,
    gaps: 0,
    gapOutputs: 0,
    lost: 0,
    doubled: 0,
    reordered: 0,
    problems: []
  }
}

/** Checks one client; add the verdicts up for a run. */
export function checkHistory (history: ClientHistory): Verdict {
  const verdict = emptyVerdict()
  const track: Track = {
    handled: 0,
    contents: new Map(),
    answers: new Map(),
    missing: new Set(),
    gaps: [],
    repeatsDue: new Map(),
    toldWatermark: 0,
    everSent: 0,
    watermark: 0,
    replay: undefined,
    expired: new Set()
  }
  const problem = (sentence: string) => verdict.problems.push(`client ${history.client}: ${sentence}`)
  for (const event of history.events) {
    switch (event.kind) {
      case 'created': break
      case 'closed': track.repeatsDue = new Map(); break
      case 'sent': {
        // The first sending of a command that the server has not accepted yet brings its answer,
        // every further one may repeat it.
        const due = track.repeatsDue.get(event.id)
        track.repeatsDue.set(event.id, due === undefined && event.id > track.toldWatermark ? 0 : (due ?? 0) + 1)
        track.everSent = Math.max(track.everSent, event.id)
        break
      }
      case 'resumed': onResumed(track, verdict, event, problem); break
      case 'live':
        if (track.replay === undefined) problem('live without a resume before it')
        else if (track.replay !== null && track.handled < track.replay.to) {
          problem(`live after output ${track.handled}, though the replay goes to ${track.replay.to}`)
        }
        track.replay = undefined
        break
      case 'output': onOutput(track, verdict, event, problem); break
      case 'refused':
        if (event.code === 'RESULT_EXPIRED') {
          verdict.expired++
          track.expired.add(event.id)
        }
        break
      case 'ended':
        verdict.lost++
        problem(`the session was gone at a resume: ${event.reason}`)
    }
  }
  checkEnd(history, track, verdict, problem)
  return verdict
}

function onResumed (
  track: Track, verdict: Verdict, event: Extract<ClientEvent, { kind: 'resumed' }>, problem: (sentence: string) => void
): void {
  const { offered, lastCommand, replay, gap } = event
  verdict.resumes++
  track.repeatsDue = new Map()
  track.toldWatermark = lastCommand
  if (offered !== track.handled) problem(`resumed from ${offered}, though it had handled ${track.handled}`)
  if (lastCommand < track.watermark || lastCommand > track.everSent) {
    problem(`lastCommand ${lastCommand}, though ${track.watermark} were accepted and ${track.everSent} sent`)
  }
  track.watermark = Math.max(track.watermark, lastCommand)
  if (gap !== null) {
    verdict.gaps++
    verdict.gapOutputs += gap.to - gap.from + 1
    track.gaps.push(gap)
    if (gap.from !== track.handled + 1 || gap.to < gap.from) {
      problem(`gap ${gap.from}..${gap.to} after output ${track.handled}`)
    }
    track.handled = Math.max(track.handled, gap.to)
  }
  if (replay !== null && (replay.from !== track.handled + 1 || replay.to < replay.from)) {
    problem(`replay ${replay.from}..${replay.to} after output ${track.handled}`)
  }
  track.replay = replay
}

function onOutput (
  track: Track, verdict: Verdict, event: Extract<ClientEvent, { kind: 'output' }>, problem: (sentence: string) => void
): void {
  const { seq, id, mark } = event
  if (track.gaps.some(({ from, to }) => seq >= from && seq <= to)) {
    problem(`output ${seq} came, though it was reported as a gap`)
  }
  const before = track.contents.get(seq)
  if (before !== undefined) {
    verdict.repeats++
    if (before !== mark) problem(`output ${seq} came with other content: ${before}, then ${mark}`)
    // Only the answer to a command that was sent again on this connection may come again (P-12).
    const due = id === undefined ? 0 : track.repeatsDue.get(id) ?? 0
    if (id !== undefined && due > 0) {
      track.repeatsDue.set(id, due - 1)
    } else {
      verdict.doubled++
      problem(`output ${seq} came again unasked`)
    }
    return
  }
  track.contents.set(seq, mark)
  if (id !== undefined) {
    track.answers.set(id, (track.answers.get(id) ?? new Set()).add(seq))
    track.watermark = Math.max(track.watermark, id)
  }
  if (track.replay !== undefined) {
    if (track.replay === null || seq > track.replay.to) {
      problem(`output ${seq} came before live and is no part of the replay`)
    } else {
      verdict.replayed++
    }
  }
  if (seq <= track.handled) {
    if (track.missing.delete(seq)) verdict.reordered++
    problem(`output ${seq} came after output ${track.handled}`)
    return
  }
  if (seq > track.handled + 1) problem(`output ${seq} came after output ${track.handled}`)
  for (let skipped = track.handled + 1; skipped < seq; skipped++) track.missing.add(skipped)
  track.handled = seq
}

function checkEnd (history: ClientHistory, track: Track, verdict: Verdict, problem: (sentence: string) => void): void {
  const { commands, executions, finalSeq } = history
  const unknown = history.serverDies === true ? commandsOfUnknownOutcome(track) : new Set<number>()
  const produced = history.produced.filter(({ mark }) => !unknown.has(Number(/^along-\d+-(\d+)-/.exec(mark)?.[1])))
  const inGap = (seq: number) => track.gaps.some(({ from, to }) => seq >= from && seq <= to)
  const lose = (sentence: string) => { verdict.lost++; problem(sentence) }
  for (const seq of track.missing) lose(`output ${seq} never came`)
  if (finalSeq === undefined) problem('did not finish')
  else if (track.handled < finalSeq) lose(`outputs ${track.handled + 1}..${finalSeq} never came`)
  for (let id = 1; id <= commands; id++) {
    const seqs = track.answers.get(id)
    const runs = executions?.get(id)
    if (seqs === undefined && !(track.expired.has(id) && track.gaps.length > 0)) lose(`command ${id} was not answered`)
    if (seqs !== undefined && seqs.size > 1) {
      verdict.doubled++
      problem(`command ${id} was answered ${seqs.size} times, in outputs ${[...seqs].join(', ')}`)
    }
    if (executions !== undefined && runs === undefined && !unknown.has(id)) lose(`command ${id} was not executed`)
    if (runs !== undefined && runs > 1) {
      verdict.doubled++
      problem(`command ${id} was executed ${runs} times`)
    }
  }
  const bySeq = new Map<string, number[]>()
  for (const [seq, mark] of track.contents) bySeq.set(mark, [...bySeq.get(mark) ?? [], seq])
  for (const { mark, seq } of produced) {
    const seqs = bySeq.get(mark) ?? []
    if (seqs.length > 1) {
      verdict.doubled++
      problem(`the output ${mark} came as ${seqs.join(' and ')}`)
    }
    if (seqs.length === 0 && (seq === undefined ? track.gaps.length === 0 : !inGap(seq))) {
      lose(`the output ${mark} never came`)
    }
    if (seq !== undefined && seqs[0] !== undefined && seqs[0] !== seq) {
      problem(`the output ${mark} was given seq ${seq} and came as ${seqs[0]}`)
    }
  }
  // Answers, what was produced, and the answer to the last command: no output more, none less.
  if (finalSeq !== undefined && finalSeq !== commands + produced.length + 1) {
    problem(`${finalSeq} outputs were numbered, ${commands + produced.length + 1} were due`)
  }
}

function commandsOfUnknownOutcome ({ answers, contents }: Track): Set<number> {
  const isUnknown = (seq: number) => contents.get(seq)?.endsWith(' OUTCOME_UNKNOWN') === true
  return new Set([...answers].filter(([, seqs]) => [...seqs].some(isUnknown)).map(([id]) => id))
}

export function addVerdicts (verdicts: readonly Verdict[]): Verdict {
  const sum = emptyVerdict()
  for (const { problems, ...counts } of verdicts) {
    sum.problems.push(...problems)
    for (const name of Object.keys(counts) as (keyof typeof counts)[]) sum[name] += counts[name]
  }
  return sum
}
