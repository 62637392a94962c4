// The end of a session that no node owns: by its deadline, or to make room for another of its user.

import type { SessionId } from '../../io/types.js'
import { readFields, readTombstone, textOf } from './layout.js'
import type { RedisNode } from './node.js'
import type { Reply } from './redis-port.js'

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
