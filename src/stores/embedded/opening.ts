// What is read from a journal: everything at its opening, and single sessions after a fault.

import { HoldfastError } from '../../io/errors.js'
import type { StoredSession, StoredTombstone } from '../../io/session/store.js'
import type { Millis, SessionId } from '../../io/types.js'
import type { Journal } from './journal.js'
import {
  assemble, createAssembler, EVERYTHING, FORMAT, FORMAT_KEY, NOWHERE, OPENINGS_KEY, parse, putEnd, readTombstone,
  SESSIONS, sessionRange, tombstoneKey, TOMBSTONES, type Place, type ReadSession
} from './layout.js'

/** Turns a journal of one layout into one of the next, in a group of its own. */
export type Upgrade = (journal: Journal) => Promise<void>

/** By the layout that they begin with. The first layout is 1, so there is none yet. */
const UPGRADES: ReadonlyMap<number, Upgrade> = new Map()

/**
 * Makes a new journal one of this layout, or brings an older one to it. Returns how often the
 * journal has been opened, this time included.
 */
export async function openLayout (
  journal: Journal, directory: string, format = FORMAT, upgrades = UPGRADES
): Promise<number> {
  const found = await journal.get(FORMAT_KEY)
  let version = found === undefined ? format : Number(found)
  if (version > format || !(version >= 1)) throw unreadable(directory, found as string, format)
  for (; version < format; version++) {
    const upgrade = upgrades.get(version)
    if (upgrade === undefined) throw unreadable(directory, String(version), format)
    await upgrade(journal)
    await putSync(journal, FORMAT_KEY, String(version + 1))
  }
  const openings = Number(await journal.get(OPENINGS_KEY) ?? 0) + 1
  if (found === undefined) await putSync(journal, FORMAT_KEY, String(format))
  await putSync(journal, OPENINGS_KEY, String(openings))
  return openings
}

function unreadable (directory: string, found: string, format: number): HoldfastError {
  return new HoldfastError('STORE_UNAVAILABLE', {
    message: `The data directory ${directory} has format ${found}, and this version reads formats up to ${format}. ` +
      'Start the version that wrote it, or choose another HOLDFAST_DATA_DIR.'
  })
}

/** Whether the journal is still the one of this opening, and no other process had it meanwhile. */
export async function wasOpenedBy (journal: Journal, openings: number): Promise<boolean> {
  return await journal.get(OPENINGS_KEY) === String(openings)
}

/** Rejects if the journal takes no writes; afterwards everything in it is on the disk. */
export async function prove (journal: Journal): Promise<void> {
  const openings = await journal.get(OPENINGS_KEY)
  if (openings !== undefined) await putSync(journal, OPENINGS_KEY, openings)
}

async function putSync (journal: Journal, key: string, text: string): Promise<void> {
  const group = journal.group()
  group.put(key, text)
  await group.write(true)
}

/** Bytes of deleted records that nobody minds. */
const COMPACT_ABOVE = 16 * 1024 * 1024

export interface Reader {
  restore(session: StoredSession, place: Place): void
  bury(tombstone: StoredTombstone): void
  damaged(problem: string): void
}

export interface ReadingLimits {
  readonly now: Millis
  readonly tombstoneMs: Millis
  readonly maxTombstones: number
}

/**
 * Gives every session, then every tombstone that is young enough, oldest first. What is damaged or
 * too old leaves the journal: nobody would ever delete it.
 */
export async function readEverything (journal: Journal, reader: Reader, limits: ReadingLimits): Promise<void> {
  let living = 0
  const damaged: { read: ReadSession, problem: string }[] = []
  const assembler = createAssembler(read => {
    const result = assemble(read)
    if ('session' in result) reader.restore(result.session, result.place)
    else damaged.push({ read, problem: result.problem })
  })
  for await (const entries of journal.read(...SESSIONS)) {
    for (const [key, text] of entries) {
      living += key.length + text.length
      assembler.take(key, text)
    }
  }
  assembler.finish()

  const group = journal.group()
  const tombstones: StoredTombstone[] = []
  for await (const entries of journal.read(...TOMBSTONES)) {
    for (const [key, text] of entries) {
      const tombstone = readable(text)
      if (tombstone !== undefined && tombstone.endedAt >= limits.now - limits.tombstoneMs) tombstones.push(tombstone)
      else group.delete(key)
    }
  }
  for (const { read, problem } of damaged) {
    reader.damaged(problem)
    for (const key of read.keys) group.delete(key)
    const tombstone = tombstoneOfDamaged(read, limits.now)
    putEnd(group, NOWHERE, tombstone)
    tombstones.push(tombstone)
  }
  tombstones.sort((one, other) => one.endedAt - other.endedAt)
  const tooMany = Math.max(0, tombstones.length - limits.maxTombstones)
  for (const { id } of tombstones.slice(0, tooMany)) group.delete(tombstoneKey(id))
  for (const tombstone of tombstones.slice(tooMany)) reader.bury(tombstone)
  if (group.operations > 0) await group.write(false)
  // What was deleted takes space until LevelDB comes past it. This is the quiet moment to do it all
  // at once; nobody waits for it, and a failure shows in the next write.
  if (await journal.sizeOf(...EVERYTHING) > COMPACT_ABOVE + 2 * living) journal.compact(...EVERYTHING).catch(() => {})
}

function readable (text: string): StoredTombstone | undefined {
  try {
    return readTombstone(text)
  } catch {
    return undefined
  }
}

/**
 * Its client learns at its resume that the session is lost, if it can still prove that it was its
 * own.
 */
function tombstoneOfDamaged ({ id, parts }: ReadSession, now: Millis): StoredTombstone {
  const part = (name: string): Record<string, unknown> => {
    try {
      return parse<Record<string, unknown>>(parts, name) ?? {}
    } catch {
      return {}
    }
  }
  const textOf = (value: unknown): string | null => typeof value === 'string' ? value : null
  const { tokenHash, previousTokenHash } = part('a')
  const { watermark } = part('p')
  return {
    id,
    userId: textOf(part('h')['userId']) ?? '',
    reason: 'state_lost',
    endedAt: now,
    lastCommand: typeof watermark === 'number' ? watermark : 0,
    tokenHash: textOf(tokenHash),
    previousTokenHash: textOf(previousTokenHash)
  }
}

/** What the journal has of one id. */
export async function readSession (
  journal: Journal, id: SessionId
): Promise<{ place: Place | undefined, endedAt: Millis | undefined }> {
  let place: Place | undefined
  const assembler = createAssembler(read => {
    const result = assemble(read)
    if ('session' in result) place = result.place
  })
  for await (const entries of journal.read(...sessionRange(id))) {
    for (const [key, text] of entries) assembler.take(key, text)
  }
  assembler.finish()
  const tombstone = await journal.get(tombstoneKey(id))
  return { place, endedAt: tombstone === undefined ? undefined : readTombstone(tombstone).endedAt }
}
