// Names of keys, and how a session is written in them. A session lives in one partition; the number
// of the partition is the hash tag of each of its keys, so that one script reaches all of them in a
// cluster. The id begins with the partition, and the partition follows from the user: whatever is
// asked about the sessions of one user is asked of one server.
//
// Fields of the head, each at most 64 bytes; a longer one is in the hash of long values, and
// named in `lg`:
//   u user · p profile · c createdAt · g generation · x context · l labels · th, pt token hashes
//   o owner or '' · f fence · n the owner's number of the call that gave it the session
//   dl deadline and er reason of the end then, both '' while owned
//   ls lastSeq · rs releasedSeq · ob bytes of outputs held · ib inbox entries taken
//   iy bytes of the rest
//   re reservedSeq, absent where nothing ever was; it says nothing below ls
//   as ackedSeq · dr dropped · wm watermark · op open commands · rv revision · la lastActiveAt
//   da detachedAt or '' · he heard · bl blame · at the server's time of the last write
// Fields of a tombstone: u, p, th, pt, wm, rv as above · r reason · e endedAt · n note
// An output is `<command id>:<tail>`, and so is an inbox entry, whose command id is 0.

import { createHash, randomBytes } from 'node:crypto'
import type { EndReason, JsonObject, Profile, SessionId, UserId } from '../../io/types.js'
import type {
  OpenCommand, StoredAccess, StoredBlame, StoredOutput, StoredProgress, StoredSession, StoredTombstone
} from '../../io/session/store.js'
import type { NodeId, StoredSummary } from '../../io/session/shared-store.js'
import type { Argument, Reply } from './redis-port.js'

/** Changes with the names of keys and fields. A node refuses to start on another one. */
export const LAYOUT = '1'

const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567'
const RANDOM_CHARACTERS = 26
const ID = new RegExp(`^[${BASE32}]{${2 + RANDOM_CHARACTERS}}$`)

export interface Layout {
  readonly partitions: number
  /** A random id in the partition of the user. */
  newId(userId: UserId): SessionId
  partitionOf(id: SessionId): number
  partitionOfUser(userId: UserId): number
  /** The first four keys of a session: what a commit touches. */
  commitKeys(id: SessionId): string[]
  /** All keys of a session, in the order of lib.lua, and the sets of the nodes. */
  sessionKeys(id: SessionId, ...nodes: NodeId[]): string[]
  head(id: SessionId): string
  byCreation(partition: number): string
  byUser(partition: number): string
  deadlines(partition: number): string
  ofNode(partition: number, nodeId: NodeId): string
  readonly nodes: string[]
  readonly meta: string
  channel(nodeId: NodeId): string
}

/** `scattered`: the user that everybody is; his sessions are spread over all partitions. */
export function createLayout (prefix: string, partitions: number, scattered: UserId | undefined): Layout {
  const key = (partition: number, name: string): string => `${prefix}:{${partition}}:${name}`
  const partitionOfUser = (userId: UserId): number => {
    return createHash('sha1').update(userId).digest().readUInt32BE() % partitions
  }

  function partitionOf (id: SessionId): number {
    if (ID.test(id)) {
      const partition = BASE32.indexOf(id[0] as string) * 32 + BASE32.indexOf(id[1] as string)
      if (partition < partitions) return partition
    }
    // An id that is not of this store's making.
    return partitionOfUser(id)
  }

  function commitKeys (id: SessionId): string[] {
    const start = `${prefix}:{${partitionOf(id)}}:`
    return [`${start}s:${id}`, `${start}v:${id}`, `${start}o:${id}`, `${start}i:${id}`]
  }

  return {
    partitions,
    partitionOf,
    partitionOfUser,
    commitKeys,
    newId (userId) {
      const random = randomBytes(RANDOM_CHARACTERS + 4)
      const any = random.readUInt32BE(RANDOM_CHARACTERS) % partitions
      const partition = userId === scattered ? any : partitionOfUser(userId)
      let id = (BASE32[partition >> 5] as string) + (BASE32[partition & 31] as string)
      for (let i = 0; i < RANDOM_CHARACTERS; i++) id += BASE32[(random[i] as number) & 31] as string
      return id
    },
    sessionKeys (id, ...nodes) {
      const p = partitionOf(id)
      return [
        ...commitKeys(id), key(p, `q:${id}`), key(p, `t:${id}`), key(p, 'c'), key(p, 'u'), key(p, 'x'),
        ...nodes.map(node => key(p, `n:${node}`))
      ]
    },
    head: id => key(partitionOf(id), `s:${id}`),
    byCreation: partition => key(partition, 'c'),
    byUser: partition => key(partition, 'u'),
    deadlines: partition => key(partition, 'x'),
    ofNode: (partition, nodeId) => key(partition, `n:${nodeId}`),
    nodes: ['l', 'd', 'i', 't'].map(name => `${prefix}:{nodes}:${name}`),
    meta: `${prefix}:meta`,
    channel: nodeId => `${prefix}:{n:${nodeId}}:in`
  }
}

export function entryOf (tail: string, commandId: number): Buffer {
  return Buffer.from(`${commandId}:${tail}`, 'latin1')
}

export function outputOf (entry: Buffer): StoredOutput {
  const text = entry.toString('latin1')
  const colon = text.indexOf(':')
  return { commandId: Number(text.slice(0, colon)), tail: text.slice(colon + 1) }
}

function openText (open: readonly OpenCommand[]): string {
  return open.map(({ id, idempotent }) => idempotent ? `${id}!` : String(id)).join(',')
}

function blameText (blame: StoredBlame | undefined): string {
  return blame === undefined ? '' : `${blame.strikes},${blame.suspicion},${blame.suspectedTo}`
}

function readBlame (text: string): { blame?: StoredBlame } {
  if (text === '') return {}
  const [strikes = 0, suspicion = 0, suspectedTo = 0] = text.split(',').map(Number)
  return { blame: { strikes, suspicion, suspectedTo } }
}

function readOpen (text: string): OpenCommand[] {
  if (text === '') return []
  return text.split(',').map(item => ({ id: Number.parseInt(item, 10), idempotent: item.endsWith('!') }))
}

/**
 * Names and values in turn, of what a batch changes; seqs are not among them, since the script sees
 * to these.
 */
export function fieldsOf (progress: StoredProgress, context?: JsonObject, access?: StoredAccess): string[] {
  const fields = [
    'as', String(progress.ackedSeq), 'dr', String(progress.dropped), 'wm', String(progress.watermark),
    'op', openText(progress.open), 'rv', String(progress.revision), 'la', String(progress.lastActiveAt),
    'da', progress.detachedAt === null ? '' : String(progress.detachedAt), 'he', progress.heard ? '1' : '0',
    'bl', blameText(progress.blame)
  ]
  if (context !== undefined) fields.push('x', JSON.stringify(context))
  if (access !== undefined) {
    fields.push('l', JSON.stringify(access.labels), 'th', access.tokenHash ?? '', 'pt', access.previousTokenHash ?? '')
  }
  return fields
}

export function outputArguments (outputs: readonly StoredOutput[]): Argument[] {
  return outputs.map(({ tail, commandId }) => entryOf(tail, commandId))
}

/** A flat reply of names and values. */
export function readFields (...replies: Reply[]): Map<string, string> {
  const fields = new Map<string, string>()
  for (const reply of replies) {
    const items = reply as Buffer[]
    for (let i = 0; i + 1 < items.length; i += 2) fields.set(textOf(items[i]), textOf(items[i + 1]))
  }
  return fields
}

export function textOf (reply: Reply | undefined): string {
  return reply instanceof Buffer ? reply.toString('utf8') : String(reply ?? '')
}

function readProgress (fields: Map<string, string>): StoredProgress {
  const number = (name: string): number => Number(fields.get(name) ?? 0)
  const detachedAt = fields.get('da') ?? ''
  const [lastSeq, reservedSeq] = [number('ls'), number('re')]
  return {
    lastSeq,
    ...(reservedSeq > lastSeq ? { reservedSeq } : {}),
    releasedSeq: number('rs'),
    ackedSeq: number('as'),
    dropped: number('dr'),
    watermark: number('wm'),
    open: readOpen(fields.get('op') ?? ''),
    revision: number('rv'),
    lastActiveAt: number('la'),
    detachedAt: detachedAt === '' ? null : Number(detachedAt),
    heard: fields.get('he') === '1',
    ...readBlame(fields.get('bl') ?? '')
  }
}

const hashOrNull = (text: string | undefined): string | null => text === undefined || text === '' ? null : text

export function readSession (id: SessionId, fields: Map<string, string>, outputs: readonly Buffer[]): StoredSession {
  return {
    id,
    userId: fields.get('u') as string,
    profile: fields.get('p') as Profile,
    createdAt: Number(fields.get('c')),
    generation: fields.get('g') as string,
    context: JSON.parse(fields.get('x') as string) as JsonObject,
    access: {
      labels: JSON.parse(fields.get('l') as string) as JsonObject,
      tokenHash: hashOrNull(fields.get('th')),
      previousTokenHash: hashOrNull(fields.get('pt'))
    },
    progress: readProgress(fields),
    outputs: outputs.map(outputOf)
  }
}

export function readSummary (id: SessionId, fields: Map<string, string>): StoredSummary {
  const { outputs: _, access, ...session } = readSession(id, fields, [])
  const { lastSeq, releasedSeq } = session.progress
  return {
    ...session,
    labels: access.labels,
    owner: hashOrNull(fields.get('o')),
    outboxMessages: lastSeq - releasedSeq,
    outboxBytes: Number(fields.get('ob'))
  }
}

export function readTombstone (id: SessionId, fields: Map<string, string>): StoredTombstone {
  const note = fields.get('n')
  return {
    id,
    userId: fields.get('u') as string,
    reason: fields.get('r') as EndReason,
    endedAt: Number(fields.get('e')),
    lastCommand: Number(fields.get('wm')),
    ...note === undefined ? {} : { note },
    tokenHash: hashOrNull(fields.get('th')),
    previousTokenHash: hashOrNull(fields.get('pt'))
  }
}
