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
// | s!<id>!p | progress; behind a line break the newest outputs, while they are few and small |
// | t!<id> | tombstone |
//
// Most sessions hold one small output at a time, which the next commit releases: with the progress
// it is one write instead of a write, another one, and a deletion. Each is its command id, `!`, the
// length of its tail, `!`, and the tail.
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
  /**
   * The outputs that lie with the progress; they end with `lastSeq`. Those before have keys of
   * their own.
   */
  readonly inline: readonly StoredOutput[]
}

/** The place of a session that has nothing but what is deleted of it anyway. */
export const NOWHERE: Place = { lastSeq: 0, releasedSeq: 0, inline: [] }

/** What lies with the progress is written anew with each commit. */
const MAX_INLINE = 8
const MAX_INLINE_BYTES = 2048

function fitsInline (outputs: readonly StoredOutput[]): boolean {
  if (outputs.length > MAX_INLINE) return false
  let bytes = 0
  for (const { tail } of outputs) bytes += tail.length
  return bytes <= MAX_INLINE_BYTES
}

export interface Advance {
  readonly place: Place
  /** Outputs that get keys of their own now; they end with the place's `lastSeq`. */
  readonly spilled: readonly StoredOutput[]
}

/** Where a batch that appends to, or repeats, what is at a place takes it. */
export function advance (place: Place, { progress, outputs }: CommitBatch, isRepeat: boolean): Advance {
  const { lastSeq } = progress
  const releasedSeq = Math.max(place.releasedSeq, progress.releasedSeq)
  const held = place.inline.slice(Math.max(0, releasedSeq - firstInline(place) + 1))
  const all = isRepeat ? held : held.concat(outputs)
  return fitsInline(all)
    ? { place: { lastSeq, releasedSeq, inline: all }, spilled: [] }
    : { place: { lastSeq, releasedSeq, inline: [] }, spilled: all }
}

function firstInline ({ lastSeq, inline }: Place): Seq {
  return lastSeq - inline.length + 1
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
  const isInline = fitsInline(outputs)
  putProgress(parts, id, progress, isInline ? outputs : [])
  if (!isInline) putOutputs(parts, id, outputs, progress.lastSeq)
}

/** A batch takes its session from one place to another. */
export function putBatch (parts: Parts, from: Place, { place, spilled }: Advance, batch: CommitBatch): void {
  const { id, progress, context, access } = batch
  if (context !== undefined) parts.put(`s!${id}!c`, JSON.stringify(context))
  if (access !== undefined) parts.put(`s!${id}!a`, JSON.stringify(access))
  if (spilled.length > 0) putOutputs(parts, id, spilled, place.lastSeq)
  putProgress(parts, id, progress, place.inline)
  deleteOutputs(parts, id, from.releasedSeq, Math.min(place.releasedSeq, firstInline(from) - 1))
}

function putProgress (parts: Parts, id: SessionId, progress: StoredProgress, inline: readonly StoredOutput[]): void {
  let text = printProgress(progress)
  if (inline.length > 0) text += '\n'
  for (const { commandId, tail } of inline) text += `${commandId}!${tail.length}!${tail}`
  parts.put(`s!${id}!p`, text)
}

/** As JSON, by hand: it is printed for each commit, in a third of the time. */
export function printProgress (progress: StoredProgress): string {
  const { open, blame, reservedSeq } = progress
  return `{"lastSeq":${progress.lastSeq},"releasedSeq":${progress.releasedSeq},"ackedSeq":${progress.ackedSeq},` +
    `"dropped":${progress.dropped},"watermark":${progress.watermark},` +
    `"open":${open.length === 0 ? '[]' : JSON.stringify(open)},"revision":${progress.revision},` +
    `"lastActiveAt":${progress.lastActiveAt},"detachedAt":${progress.detachedAt},"heard":${progress.heard}` +
    (blame === undefined ? '' : `,"blame":${JSON.stringify(blame)}`) +
    (reservedSeq === undefined ? '}' : `,"reservedSeq":${reservedSeq}}`)
}

/** The session goes, and its tombstone comes. */
export function putEnd (parts: Parts, from: Place, tombstone: StoredTombstone): void {
  const { id } = tombstone
  for (const part of PARTS) parts.delete(`s!${id}!${part}`)
  deleteOutputs(parts, id, from.releasedSeq, firstInline(from) - 1)
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

export type Assembled = { readonly session: StoredSession, readonly place: Place } | { readonly problem: string }

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
    const inline = inlineOf(parts.get('p') ?? '')
    const held = outputs.map(({ seq }) => seq).concat(inline.map((_, index) => lastSeq - inline.length + 1 + index))
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
        outputs: outputs.map(({ text }) => outputOf(text)).concat(inline)
      },
      place: { lastSeq, releasedSeq, inline }
    }
  } catch (error) {
    return { problem: `session ${id}: ${error instanceof Error ? error.message : String(error)}` }
  }
}

/** Of a session that was put as a whole. */
export function placeOf ({ progress: { lastSeq, releasedSeq }, outputs }: StoredSession): Place {
  return { lastSeq, releasedSeq, inline: fitsInline(outputs) ? outputs : [] }
}

/** @throws SyntaxError */
export function readTombstone (text: string): StoredTombstone {
  return JSON.parse(text) as StoredTombstone
}

/** Of the first line, which is all but the outputs. @throws SyntaxError */
export function parse<T> (parts: ReadonlyMap<string, string>, part: string): T | undefined {
  const text = parts.get(part)
  if (text === undefined) return undefined
  const end = text.indexOf('\n')
  return JSON.parse(end === -1 ? text : text.slice(0, end)) as T
}

/** Throws for what was not written by `putProgress`. */
function inlineOf (text: string): StoredOutput[] {
  const outputs: StoredOutput[] = []
  const head = /(\d+)!(\d+)!/y
  for (let at = text.indexOf('\n') + 1; at > 0 && at < text.length;) {
    head.lastIndex = at
    const found = head.exec(text)
    const end = head.lastIndex + Number(found?.[2])
    if (found === null || end > text.length) throw new Error('the outputs with its progress cannot be read')
    outputs.push({ commandId: Number(found[1]), tail: text.slice(head.lastIndex, end) })
    at = end
  }
  return outputs
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
