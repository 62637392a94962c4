// Stored forms for the suite, and how two of them are compared.

import type {
  CommitBatch, StoredAccess, StoredOutput, StoredProgress, StoredSession, StoredTombstone
} from '../src/io/session/store.js'
import type { JsonObject, JsonValue } from '../src/io/types.js'
import { oneOf, randomBytes, upTo, type Random } from './random.js'

const WALL = Date.UTC(2026, 0, 1)

export const NO_PROGRESS: StoredProgress = {
  lastSeq: 0,
  releasedSeq: 0,
  ackedSeq: 0,
  dropped: 0,
  watermark: 0,
  open: [],
  revision: 1,
  lastActiveAt: WALL,
  detachedAt: null,
  heard: false
}

export const NO_ACCESS: StoredAccess = { labels: {}, tokenHash: null, previousTokenHash: null }

/** A new session, but for the members given. */
export function buildStored (members: Partial<StoredSession> & { id: string }): StoredSession {
  return {
    userId: 'ann',
    profile: 'full',
    createdAt: WALL,
    generation: 'g1',
    context: {},
    access: NO_ACCESS,
    progress: NO_PROGRESS,
    outputs: [],
    ...members
  }
}

/** A batch that appends these tails behind `prevSeq`, but for the members given. */
export function buildBatch (
  members: Partial<Omit<CommitBatch, 'progress'>> & { id: string, fence: number, progress?: Partial<StoredProgress> },
  ...tails: string[]
): CommitBatch {
  const { progress, prevSeq = 0, outputs = tails.map(tail => ({ tail, commandId: 0 })), ...rest } = members
  return {
    prevSeq,
    outputs,
    progress: { ...NO_PROGRESS, lastSeq: prevSeq + outputs.length, ...progress },
    ...rest
  }
}

export function buildTombstone (id: string, members: Partial<StoredTombstone> = {}): StoredTombstone {
  return {
    id,
    userId: 'ann',
    reason: 'idle',
    endedAt: Date.now(),
    lastCommand: 0,
    tokenHash: null,
    previousTokenHash: null,
    ...members
  }
}

const WORDS = ['', 'ä', '€', '😀', '\u0000', '\ud800', '"\\', 'constructor', 'a b', '\u2028']
const NUMBERS = [0, -1, 0.1, 1e21, 5e-324, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER]

/** One of each kind of value. */
const VALUES: readonly ((random: Random) => JsonValue)[] = [
  () => null,
  random => oneOf(random, NUMBERS),
  random => oneOf(random, WORDS).repeat(upTo(random, 30)),
  random => [true, false, oneOf(random, WORDS), { deep: [[]] }],
  random => ({ inner: oneOf(random, NUMBERS) }),
  random => random() < 0.5
]

export function randomJson (random: Random): JsonObject {
  const object: JsonObject = {}
  for (let count = upTo(random, 4); count > 0; count--) {
    object[oneOf(random, WORDS) + upTo(random, 9)] = oneOf(random, VALUES)(random)
  }
  return object
}

export function randomAccess (random: Random): StoredAccess {
  const hash = (): string | null => random() < 0.3 ? null : upTo(random, 1e9).toString(16)
  return { labels: randomJson(random), tokenHash: hash(), previousTokenHash: hash() }
}

export function randomOutput (random: Random): StoredOutput {
  // Most outputs are short, some are empty, and a few do not fit into one block of anything.
  const length = random() < 0.02 ? upTo(random, 70_000) : upTo(random, 60)
  return { tail: randomBytes(random, length), commandId: random() < 0.5 ? 0 : upTo(random, 2 ** 40) }
}

/**
 * One text for equal values, whatever the order of their members; long strings are given by their
 * length and sum.
 */
export function print (value: unknown): string {
  return JSON.stringify(value, (_, member: unknown) => {
    if (typeof member === 'string') return member.length > 200 ? shorten(member) : member
    if (member === null || typeof member !== 'object' || Array.isArray(member)) return member
    return Object.fromEntries(Object.entries(member).sort(([one], [other]) => one < other ? -1 : 1))
  }, 1)
}

function shorten (text: string): string {
  return `${text.slice(0, 40)}… ${text.length} ${sumOf(text)}`
}

/** FNV-1a. */
function sumOf (text: string): number {
  let sum = 0x811c9dc5
  for (let at = 0; at < text.length; at++) sum = Math.imul(sum ^ text.charCodeAt(at), 0x01000193) >>> 0
  return sum
}
