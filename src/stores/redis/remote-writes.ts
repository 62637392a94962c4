// What a node may do to a session that it does not own: push, replace the context of one without an
// owner, and terminate. The owner is told, and finds it at its next write if it was not reached.

import type { SessionId } from '../../io/types.js'
import type { Fence, StoredTombstone } from '../../io/session/store.js'
import type {
  NodeId, PushResult, ReplaceResult, SharedSessionStore, TerminateResult
} from '../../io/session/shared-store.js'
import type { Bus } from './bus.js'
import { tellEnded } from './expire.js'
import { entryOf, readFields, readTombstone, textOf } from './layout.js'
import { disown, type RedisNode } from './node.js'
import type { Reply } from './redis-port.js'

type RemoteWrites = Pick<SharedSessionStore, 'push' | 'replaceContext' | 'terminate'>

const INBOX_ENTRIES = 1000
const PUSH_ID_MS = 600_000
/** A session that changes hands between two calls is asked for again, this often. */
const TERMINATE_ATTEMPTS = 5

export function createRemoteWrites (node: RedisNode, bus: Bus): RemoteWrites {
  const { gate, layout, limits, stats } = node

  async function ownerOf (id: SessionId): Promise<NodeId | null | undefined> {
    const [word, head] = (await gate.call('find', layout.sessionKeys(id), []) ?? []) as Reply[]
    if (word === undefined) return undefined
    return textOf(word) === 'session' ? readFields(head as Reply).get('o') ?? '' : null
  }

  return {
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

    async replaceContext (id, former, next) {
      const args = [JSON.stringify(former), JSON.stringify(next)]
      const reply = await gate.call('context', layout.sessionKeys(id), args)
      return reply === undefined ? 'unavailable' : textOf((reply as Reply[])[0]) as ReplaceResult
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
