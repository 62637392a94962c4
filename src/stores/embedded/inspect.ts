// Looks into a journal that no server uses, without changing what is in it.

import type { StoredSession, StoredTombstone } from '../../io/session/store.js'
import type { Seq } from '../../io/types.js'
import type { Journal } from './journal.js'
import {
  assemble, createAssembler, EVERYTHING, FORMAT, FORMAT_KEY, OPENINGS_KEY, readTombstone, SESSIONS, tombstoneKey,
  TOMBSTONES, type ReadSession
} from './layout.js'

export type Finding =
  | { readonly session: StoredSession }
  | { readonly tombstone: StoredTombstone }
  | { readonly problem: string }

/** Every session and tombstone, and what is wrong with those that cannot be read (S-7). */
export async function * inspect (journal: Journal): AsyncGenerator<Finding> {
  const format = await journal.get(FORMAT_KEY)
  if (format !== String(FORMAT)) {
    yield { problem: `format ${format ?? 'unknown'}: this version reads format ${FORMAT}` }
    return
  }
  const read: ReadSession[] = []
  const assembler = createAssembler(session => { read.push(session) })
  for await (const entries of journal.read(...SESSIONS)) {
    for (const [key, text] of entries) assembler.take(key, text)
    yield * await findingsOf(journal, read.splice(0))
  }
  assembler.finish()
  yield * await findingsOf(journal, read)
  for await (const entries of journal.read(...TOMBSTONES)) {
    for (const [key, text] of entries) yield tombstoneOf(key, text)
  }
}

async function findingsOf (journal: Journal, read: readonly ReadSession[]): Promise<Finding[]> {
  const findings: Finding[] = []
  for (const each of read) {
    findings.push(assemble(each))
    if (await journal.get(tombstoneKey(each.id)) !== undefined) {
      findings.push({ problem: `session ${each.id}: it has a tombstone as well` })
    }
  }
  return findings
}

function tombstoneOf (key: string, text: string): Finding {
  const id = key.slice(tombstoneKey('').length)
  try {
    const tombstone = readTombstone(text)
    return tombstone.id === id ? { tombstone } : { problem: `tombstone ${id}: it is of session ${tombstone.id}` }
  } catch (error) {
    return { problem: `tombstone ${id}: ${(error as Error).message}` }
  }
}

export interface JournalFigures {
  readonly format: string
  readonly openings: number
  readonly sessions: number
  readonly detached: number
  readonly outputs: number
  readonly outputBytes: number
  readonly contextBytes: number
  readonly tombstones: number
  readonly problems: number
  /** In the files; the newest writes are not counted. */
  readonly fileBytes: number
  /** The session with the most bytes of outputs. */
  readonly largest: { readonly id: string, readonly outputBytes: number } | undefined
}

export async function measure (journal: Journal): Promise<JournalFigures> {
  let sessions = 0; let detached = 0; let outputs = 0; let outputBytes = 0; let contextBytes = 0; let tombstones = 0
  let problems = 0
  let largest: JournalFigures['largest']
  for await (const finding of inspect(journal)) {
    if ('problem' in finding) problems++
    else if ('tombstone' in finding) tombstones++
    else {
      const { session } = finding
      const bytes = session.outputs.reduce((sum, { tail }) => sum + tail.length, 0)
      sessions++
      if (session.progress.detachedAt !== null) detached++
      outputs += session.outputs.length
      outputBytes += bytes
      contextBytes += Buffer.byteLength(JSON.stringify(session.context))
      if (largest === undefined || bytes > largest.outputBytes) largest = { id: session.id, outputBytes: bytes }
    }
  }
  return {
    format: await journal.get(FORMAT_KEY) ?? 'unknown',
    openings: Number(await journal.get(OPENINGS_KEY) ?? 0),
    sessions,
    detached,
    outputs,
    outputBytes,
    contextBytes,
    tombstones,
    problems,
    fileBytes: await journal.sizeOf(...EVERYTHING),
    largest
  }
}

/** A finding as one line of JSON; the outputs as the text that the client gets, without its seq. */
export function lineOf (finding: Finding): string {
  if (!('session' in finding)) return JSON.stringify(finding)
  const { session } = finding
  const first: Seq = session.progress.releasedSeq + 1
  const outputs = session.outputs.map(({ tail, commandId }, index) =>
    ({ seq: first + index, commandId, tail: Buffer.from(tail, 'latin1').toString('utf8') }))
  return JSON.stringify({ session: { ...session, outputs } })
}
