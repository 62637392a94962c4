// What the owner of a session writes: the session itself, its batches, its release and its end; and
// what others may do to it without owning it: push and terminate.

import type { SessionId } from '../../io/types.js'
import type { CommitBatch, CommitResult, Fence, StoredTombstone } from '../../io/session/store.js'
import type {
  InboxEntry, NodeId, PushResult, SharedBatch, SharedSessionStore, TerminateResult
} from '../../io/session/shared-store.js'
import type { Bus } from './bus.js'
import { entryOf, fieldsOf, outputArguments, outputOf, readFields, readTombstone, textOf } from './layout.js'
import { disown, doubt, type RedisNode } from './node.js'
import type { Argument, Reply } from './redis-port.js'

type Writes = Pick<SharedSessionStore, 'create' | 'commit' | 'release' | 'end' | 'push' | 'inbox' | 'terminate'>

const INBOX_PAGE = 100
const INBOX_ENTRIES = 1000
const PUSH_ID_MS = 600_000
/** A session that changes hands between two calls is asked for again, this often. */
const TERMINATE_ATTEMPTS = 5

/**
 * Ends an ownerless session by the script, for the given reason or at its deadline; true if it did.
 */
export async function expire (node: RedisNode, id: SessionId, reason: '' | 'quota'): Promise<boolean> {
  const args = [id, reason, String(node.limits.tombstoneMs)]
  const reply = await node.gate.call('expire', node.layout.sessionKeys(id), args)
  const [word, stone] = (reply ?? []) as Reply[]
  if (textOf(word) !== 'ended') return false
  tellEnded(node, id, stone as Reply)
  return true
}

export function tellEnded (node: RedisNode, id: SessionId, stone: Reply): void {
  const fields = readFields(stone)
  node.stats.expired++
  node.hooks.ended(readTombstone(id, fields), fields.get('p') === 'basic' ? 'basic' : 'full', Number(fields.get('rv')))
}

function batchArguments (node: RedisNode, batch: CommitBatch | SharedBatch): Argument[] {
  const fields = fieldsOf(batch.progress, batch.context, batch.access)
  return [
    node.id, String(batch.fence), String(batch.prevSeq), String(batch.progress.lastSeq),
    String(batch.progress.releasedSeq),
    'inboxTo' in batch ? String(batch.inboxTo) : '', String(fields.length), ...fields, ...outputArguments(batch.outputs)
  ]
}

export function createWrites (node: RedisNode, bus: Bus): Writes {
  const { gate, layout, limits, stats } = node

  function readCommit (batch: CommitBatch, reply: Reply | undefined): CommitResult {
    const [word, detail] = (reply ?? []) as Reply[]
    switch (textOf(word)) {
      case 'kept':
        stats.commits.kept++
        stats.outputs += batch.outputs.length
        // The doorbell may have been lost.
        if (textOf(detail) === '1') node.hooks.doorbell(batch.id)
        return 'kept'
      case 'gap':
        stats.commits.gap++
        return { gap: Number(textOf(detail)) }
      case 'fenced':
        stats.commits.fenced++
        disown(node, batch.id, batch.fence)
        return 'fenced'
      case 'missing':
        stats.commits.missing++
        disown(node, batch.id, batch.fence)
        return 'missing'
      default:
        stats.commits.unavailable++
        return 'unavailable'
    }
  }

  async function ownerOf (id: SessionId): Promise<NodeId | null | undefined> {
    const [word, head] = (await gate.call('find', layout.sessionKeys(id), []) ?? []) as Reply[]
    if (word === undefined) return undefined
    return textOf(word) === 'session' ? readFields(head as Reply).get('o') ?? '' : null
  }

  return {
    async create (session) {
      const { id, userId, progress } = session
      const self = node.id
      const call = ++node.lastCall
      const fields = fieldsOf(progress, session.context, session.access)
      fields.push('p', session.profile, 'g', session.generation, 'n', String(call))
      const limit = userId === node.unlimitedUserId ? 0 : limits.maxSessionsPerUser
      const args: Argument[] = [
        self, id, userId, String(limit), String(session.createdAt), String(progress.lastSeq),
        String(progress.releasedSeq), String(fields.length), ...fields, ...outputArguments(session.outputs)
      ]
      for (;;) {
        const [word, detail] = (await gate.call('create', layout.sessionKeys(id, self), args) ?? []) as Reply[]
        if (textOf(word) === 'created' && node.id === self) {
          const fence = Number(textOf(detail))
          node.owned.set(id, fence)
          return { fence }
        }
        if (textOf(word) === 'exists') return 'exists'
        if (textOf(word) !== 'user_quota') {
          doubt(node, id, call)
          return 'unavailable'
        }
        const candidate = textOf(detail)
        if (candidate === '' || !await expire(node, candidate, 'quota')) return 'user_quota'
      }
    },

    async commit (batch) {
      return readCommit(batch, await gate.call('commit', layout.commitKeys(batch.id), batchArguments(node, batch)))
    },

    async release (batch, { keepForMs, reason }) {
      const { id } = batch
      const bounds = [String(limits.outboxMessages), String(limits.outboxBytes)]
      const args = [id, String(Math.ceil(keepForMs)), reason, ...bounds, ...batchArguments(node, batch)]
      const result = readCommit(batch, await gate.call('release', layout.sessionKeys(id, node.id), args))
      if (result === 'kept') disown(node, id, batch.fence)
      return result
    },

    async end (id, fence, tombstone) {
      const reply = await gate.call('end', layout.sessionKeys(id, node.id), endArguments(node, id, fence, tombstone))
      const word = textOf((reply as Reply[] | undefined)?.[0])
      if (word === '') return 'unavailable'
      disown(node, id, fence)
      return word === 'ended' || word === 'fenced' ? word : 'missing'
    },

    async push (id, message) {
      const reply = await gate.call('push', layout.sessionKeys(id), [
        message.pushId ?? '', entryOf(message.tail, 0), String(limits.outboxMessages), String(limits.outboxBytes),
        String(INBOX_ENTRIES), String(limits.outboxBytes), String(PUSH_ID_MS)
      ])
      const [word, detail] = (reply ?? []) as Reply[]
      const outcome = textOf(word) === '' ? 'unavailable' : textOf(word) as keyof typeof stats.pushes
      stats.pushes[outcome]++
      if (outcome === 'sequenced') return { seq: Number(textOf(detail)) }
      if (outcome !== 'queued') return outcome as Extract<PushResult, string>
      const owner = textOf(detail)
      if (owner === node.id) node.hooks.doorbell(id)
      else bus.doorbell(owner, id)
      return { owner }
    },

    async inbox (id, fence, after) {
      const args = [node.id, String(fence), String(after), String(INBOX_PAGE)]
      const reply = await gate.call('inbox', layout.commitKeys(id), args)
      const [word, first, entries] = (reply ?? []) as Reply[]
      if (textOf(word) === 'entries') {
        const number = Number(textOf(first))
        return (entries as Buffer[]).map((entry, i): InboxEntry => ({ number: number + i, tail: outputOf(entry).tail }))
      }
      if (word === undefined) return 'unavailable'
      disown(node, id, fence)
      return textOf(word) === 'fenced' ? 'fenced' : 'missing'
    },

    async terminate (id, reason, note = ''): Promise<TerminateResult> {
      for (let attempt = 0; attempt < TERMINATE_ATTEMPTS; attempt++) {
        const owner = await ownerOf(id)
        if (owner === undefined) return 'unavailable'
        if (owner === null) return 'missing'
        const keys = owner === '' ? layout.sessionKeys(id) : layout.sessionKeys(id, owner)
        const reply = await gate.call('terminate', keys, [id, owner, reason, note, String(limits.tombstoneMs)])
        if (reply === undefined) return 'unavailable'
        const [word, stone, , fence] = reply as Reply[]
        if (textOf(word) === 'missing') return 'missing'
        if (textOf(word) !== 'ended') continue
        const ended = readTombstone(id, readFields(stone as Reply))
        if (owner === '') tellEnded(node, id, stone as Reply)
        else evict(node, bus, owner, id, Number(textOf(fence)), ended)
        return { ended }
      }
      return 'unavailable'
    }
  }
}

function endArguments (node: RedisNode, id: SessionId, fence: Fence, tombstone: StoredTombstone): string[] {
  const { userId, reason, endedAt, note = '', lastCommand, tokenHash, previousTokenHash } = tombstone
  return [
    id, node.id, String(fence), reason, String(endedAt), note, String(node.limits.tombstoneMs),
    String(lastCommand), tokenHash ?? '', previousTokenHash ?? '', userId
  ]
}

/** The owner of an ended session drops it. */
function evict (node: RedisNode, bus: Bus, owner: NodeId, id: SessionId, fence: Fence, ended: StoredTombstone): void {
  if (owner !== node.id) {
    bus.evict(owner, id, fence, ended)
    return
  }
  disown(node, id, fence)
  node.stats.evicted++
  node.hooks.evicted(id, fence, ended)
}
