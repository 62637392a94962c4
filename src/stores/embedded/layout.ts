// How sessions lie in the journal: keys, texts, and putting them together again. A journal is a
// sorted list of keys, so the parts of one session lie side by side and are read in one pass.
//
// | key | text |
// | --- | --- |
// | m!format | number of this layout |
// | m!openings | how often the journal was opened; the fence of every session |
// | s!<id>!a | access; absent while nobody may take the session up and it has no labels |
// | s!<id>!c | context; absent while it is empty |
// | s!<id>!h | what never changes: user, profile, time, generation |
// | s!<id>!o!<seq> | one output: command id, `!`, tail. The seq has 14 hexadecimal digits |
// | s!<id>!p | progress |
// | t!<id> | tombstone |
//
// Ids consist of A–Z, a–z, 0–9, `_` and `-`, which all sort behind `!`. Other first letters are for
// records that are not sessions; this version leaves them alone.

import type {
  CommitBatch, StoredAccess, StoredOutput, StoredProgress, StoredSession, StoredTombstone
} from '../../io/session/store.js'
import type { JsonObject, Seq, SessionId } from '../../io/types.js'

/** Rises with every change that a version before it cannot read. */
export const FORMAT = 1

export const FORMAT_KEY = 'm!format'
export const OPENINGS_KEY = 'm!openings'
/** Ranges of keys: from, up to. */
export const EVERYTHING = ['', '\u{7f}'] as const
export const SESSIONS = ['s!', 's"'] as const
export const TOMBSTONES = ['t!', 't"'] as const

/** All but the outputs. */
const PARTS = ['a', 'c', 'h', 'p']

/** Where the parts of a write go: a group of the journal. */
export interface Parts {
  put(key: string, text: string): unknown
  delete(key: string): unknown
}

/** What the store has to know of a session to write to it. */
export interface Place {
  /** Highest seq that the journal has. */
  readonly lastSeq: Seq
  /** Outputs up to this one are not in the journal any more. */
  readonly releasedSeq: Seq
}

export function tombstoneKey (id: SessionId): string {
  return `t!${id}`
}

/** Everything of one session, as a range. */
export function sessionRange (id: SessionId): [from: string, upTo: string] {
  return [`s!${id}!`, `s!${id}"`]
}

function outputKey (id: SessionId, seq: Seq): string {
  return `s!${id}!o!${seq.toString(16).padStart(14, '0')}`
}

export function putSession (parts: Parts, session: StoredSession): void {
  const { id, userId, profile, createdAt, generation, context, access, progress, outputs } = session
  parts.put(`s!${id}!h`, JSON.stringify({ userId, profile, createdAt, generation }))
  if (Object.keys(context).length > 0) parts.put(`s!${id}!c`, JSON.stringify(context))
  if (!isNobody(access)) parts.put(`s!${id}!a`, JSON.stringify(access))
  parts.put(`s!${id}!p`, JSON.stringify(progress))
  putOutputs(parts, id, outputs, progress.lastSeq)
}

/** A batch that appends to, or repeats, what is at this place already. */
export function putBatch (parts: Parts, { lastSeq, releasedSeq }: Place, batch: CommitBatch, isRepeat: boolean): void {
  const { id, progress, outputs, context, access } = batch
  if (context !== undefined) parts.put(`s!${id}!c`, JSON.stringify(context))
  if (access !== undefined) parts.put(`s!${id}!a`, JSON.stringify(access))
  if (!isRepeat) putOutputs(parts, id, outputs, progress.lastSeq)
  parts.put(`s!${id}!p`, JSON.stringify(progress))
  deleteOutputs(parts, id, releasedSeq, Math.min(progress.releasedSeq, lastSeq))
}

/** The session goes, and its tombstone comes. */
export function putEnd (parts: Parts, { lastSeq, releasedSeq }: Place, tombstone: StoredTombstone): void {
  const { id } = tombstone
  for (const part of PARTS) parts.delete(`s!${id}!${part}`)
  deleteOutputs(parts, id, releasedSeq, lastSeq)
  parts.put(tombstoneKey(id), JSON.stringify(tombstone))
}

function putOutputs (parts: Parts, id: SessionId, outputs: readonly StoredOutput[], lastSeq: Seq): void {
  let seq = lastSeq - outputs.length
  for (const { commandId, tail } of outputs) parts.put(outputKey(id, ++seq), `${commandId}!${tail}`)
}

function deleteOutputs (parts: Parts, id: SessionId, after: Seq, upTo: Seq): void {
  for (let seq = after + 1; seq <= upTo; seq++) parts.delete(outputKey(id, seq))
}

function isNobody ({ labels, tokenHash, previousTokenHash }: StoredAccess): boolean {
  return tokenHash === null && previousTokenHash === null && Object.keys(labels).length === 0
}

/** What never changes. */
type Head = Pick<StoredSession, 'userId' | 'profile' | 'createdAt' | 'generation'>

/** The parts of one session as they were read. */
export interface ReadSession {
  readonly id: SessionId
  readonly keys: string[]
  readonly parts: Map<string, string>
  readonly outputs: { readonly seq: Seq, readonly text: string }[]
}

export type Assembled = { readonly session: StoredSession } | { readonly problem: string }

export interface Assembler { take(key: string, text: string): void, finish(): void }

/**
 * Takes the entries of the sessions in their order and gives each session when its last part was
 * read.
 */
export function createAssembler (given: (read: ReadSession) => void): Assembler {
  let open: ReadSession | undefined
  const finish = (): void => {
    if (open !== undefined) given(open)
    open = undefined
  }
  return {
    take (key, text) {
      const end = key.indexOf('!', 2)
      const id = key.slice(2, end === -1 ? undefined : end)
      if (open?.id !== id) {
        finish()
        open = { id, keys: [], parts: new Map(), outputs: [] }
      }
      open.keys.push(key)
      const part = end === -1 ? '' : key.slice(end + 1)
      if (part.startsWith('o!')) open.outputs.push({ seq: parseInt(part.slice(2), 16), text })
      else open.parts.set(part, text)
    },
    finish
  }
}

/** The session, or the first thing that is wrong with its parts (S-7). */
export function assemble ({ id, parts, outputs }: ReadSession): Assembled {
  try {
    const problem = (text: string): Assembled => ({ problem: `session ${id}: ${text}` })
    const unknown = [...parts.keys()].find(part => !PARTS.includes(part))
    if (unknown !== undefined) return problem(`an unknown part "${unknown}"`)
    const head = parse<Head>(parts, 'h')
    if (typeof head?.userId !== 'string') return problem('who it belongs to is missing')
    const progress = parse<StoredProgress>(parts, 'p')
    if (progress === undefined) return problem('its progress is missing')
    const { ackedSeq, releasedSeq, lastSeq } = progress
    if (!(ackedSeq >= 0 && ackedSeq <= releasedSeq && releasedSeq <= lastSeq)) {
      return problem(`seqs out of order: acked ${ackedSeq}, released ${releasedSeq}, last ${lastSeq}`)
    }
    const held = outputs.map(({ seq }) => seq)
    if (held.length !== lastSeq - releasedSeq || held.some((seq, index) => seq !== releasedSeq + 1 + index)) {
      return problem(`it should hold the outputs ${releasedSeq + 1} to ${lastSeq}, and holds ${rangesOf(held)}`)
    }
    return {
      session: {
        id,
        ...head,
        context: parse<JsonObject>(parts, 'c') ?? {},
        access: parse<StoredAccess>(parts, 'a') ?? { labels: {}, tokenHash: null, previousTokenHash: null },
        progress,
        outputs: outputs.map(({ text }) => outputOf(text))
      }
    }
  } catch (error) {
    return { problem: `session ${id}: ${error instanceof Error ? error.message : String(error)}` }
  }
}

export function placeOf ({ progress }: StoredSession): Place {
  return { lastSeq: progress.lastSeq, releasedSeq: progress.releasedSeq }
}

/** @throws SyntaxError */
export function readTombstone (text: string): StoredTombstone {
  return JSON.parse(text) as StoredTombstone
}

/** @throws SyntaxError */
function parse<T> (parts: ReadonlyMap<string, string>, part: string): T | undefined {
  const text = parts.get(part)
  return text === undefined ? undefined : JSON.parse(text) as T
}

function outputOf (text: string): StoredOutput {
  const end = text.indexOf('!')
  const commandId = Number(text.slice(0, end))
  if (end < 1 || !Number.isSafeInteger(commandId)) throw new Error('an output has no command id')
  return { tail: text.slice(end + 1), commandId }
}

/** `1 to 3, 7`, or `none`. */
function rangesOf (seqs: readonly Seq[]): string {
  const ranges: [Seq, Seq][] = []
  for (const seq of seqs) {
    const last = ranges.at(-1)
    if (last !== undefined && last[1] === seq - 1) last[1] = seq
    else ranges.push([seq, seq])
  }
  return ranges.map(([from, to]) => from === to ? `${from}` : `${from} to ${to}`).join(', ') || 'none'
}
