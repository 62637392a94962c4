// Whether the sessions of this node are still its own, asked of each within a while: an evict or a
// doorbell may have been lost on its way.

import type { Millis, SessionId } from '../../io/types.js'
import { readFields, readTombstone, textOf } from './layout.js'
import { disown, type RedisNode } from './node.js'
import type { Reply } from './redis-port.js'

const TOUCH_KEYS = 64

/** Returns what looks at as many partitions as the time since its last call asks for. */
export function createTouch (node: RedisNode, touchMs: Millis): () => Promise<void> {
  const { gate, layout, clock, stats } = node
  let touched = clock.now()
  let touchNext = 0

  async function touch (): Promise<void> {
    const due = Math.min(layout.partitions, Math.floor((clock.now() - touched) * layout.partitions / touchMs))
    if (due === 0) return
    touched += due * touchMs / layout.partitions
    if (clock.now() - touched > touchMs) touched = clock.now()
    const chosen = new Set(Array.from({ length: due }, (_, i) => (touchNext + i) % layout.partitions))
    touchNext = (touchNext + due) % layout.partitions
    const byPartition = new Map<number, SessionId[]>()
    for (const id of node.owned.keys()) {
      const partition = layout.partitionOf(id)
      if (!chosen.has(partition)) continue
      const ids = byPartition.get(partition)
      if (ids === undefined) byPartition.set(partition, [id])
      else ids.push(id)
    }
    for (const ids of byPartition.values()) {
      for (let i = 0; i < ids.length; i += TOUCH_KEYS) await touchSome(ids.slice(i, i + TOUCH_KEYS))
    }
  }

  async function touchSome (ids: SessionId[]): Promise<void> {
    const self = node.id
    const fences = ids.map(id => node.owned.get(id) ?? 0)
    const reply = await gate.call('touch', ids.map(layout.head), [self, ...fences.map(String)])
    if (reply === undefined || node.id !== self) return
    for (const [i, word] of (reply as Reply[]).map(textOf).entries()) {
      const id = ids[i] as SessionId
      const fence = fences[i] as number
      if (word === 'ok' || node.owned.get(id) !== fence) continue
      if (word === 'inbox') node.hooks.doorbell(id)
      else await lose(id, fence)
    }
  }

  /**
   * Whether it has ended or only moved, and why, is told apart here: an operator's end has another
   * close code.
   */
  async function lose (id: SessionId, fence: number): Promise<void> {
    const [word, detail] = (await gate.call('find', layout.sessionKeys(id), []) ?? []) as Reply[]
    if (word === undefined || node.owned.get(id) !== fence) return
    if (textOf(word) === 'missing') {
      // The server came back empty (S-21): whoever reads the inbox finds that out. So are the
      // others missing.
      node.hooks.doorbell(id)
      touched = -Infinity
      return
    }
    disown(node, id, fence)
    stats.evicted++
    node.hooks.evicted(id, fence, textOf(word) === 'ended' ? readTombstone(id, readFields(detail as Reply)) : null)
  }

  return touch
}
