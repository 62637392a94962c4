// What the owner of a session writes: the session itself, its batches, its release and its end; and
// how it reads what others have put into its inbox (remote-writes.ts).

import type { SessionId } from '../../io/types.js'
import type { CommitBatch, CommitResult, Fence, StoredTombstone } from '../../io/session/store.js'
import type { InboxEntry, SharedBatch, SharedSessionStore } from '../../io/session/shared-store.js'
import { expire } from './expire.js'
import { fieldsOf, outputArguments, outputOf, textOf } from './layout.js'
import { disown, doubt, type RedisNode } from './node.js'
import type { Argument, Reply } from './redis-port.js'

type Writes = Pick<SharedSessionStore, 'create' | 'commit' | 'release' | 'end' | 'inbox'>

const INBOX_PAGE = 100

function batchArguments (node: RedisNode, batch: CommitBatch | SharedBatch): Argument[] {
  const fields = fieldsOf(batch.progress, batch.context, batch.access)
  return [
    node.id, String(batch.fence), String(batch.prevSeq), String(batch.progress.lastSeq),
    String(batch.progress.releasedSeq),
    'inboxTo' in batch ? String(batch.inboxTo) : '', String(batch.progress.reservedSeq ?? ''), String(fields.length),
    ...fields, ...outputArguments(batch.outputs)
  ]
}

export function createWrites (node: RedisNode): Writes {
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

  return {
    async create (session) {
      const { id, userId, progress } = session
      const self = node.id
      const call = ++node.lastCall
      const fields = fieldsOf(progress, session.context, session.access)
      if (progress.reservedSeq !== undefined) fields.push('re', String(progress.reservedSeq))
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

    async inbox (id, fence, after) {
      const args = [node.id, String(fence), String(after), String(INBOX_PAGE)]
      const reply = await gate.call('inbox', layout.commitKeys(id), args)
      const [word, first, entries] = (reply ?? []) as Reply[]
      if (textOf(word) === 'entries') {
        const number = Number(textOf(first))
        stats.inboxEntries += (entries as Buffer[]).length
        return (entries as Buffer[]).map((entry, i): InboxEntry => ({ number: number + i, tail: outputOf(entry).tail }))
      }
      if (word === undefined) return 'unavailable'
      disown(node, id, fence)
      return textOf(word) === 'fenced' ? 'fenced' : 'missing'
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
