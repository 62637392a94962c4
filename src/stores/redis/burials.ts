// Sessions whose node does not see to them any more: those of dead nodes become ownerless, those
// whose deadline is over end, and those whose creation was not answered are undone. Each partition
// has one node that does this for it: the one that wins when all live nodes are hashed with its
// number. Two nodes that disagree for a while do the same work twice, which changes nothing.

import type { Millis, SessionId } from '../../io/types.js'
import type { NodeId } from '../../io/session/shared-store.js'
import { expire, tellEnded } from './expire.js'
import { textOf } from './layout.js'
import type { RedisNode } from './node.js'
import type { Reply } from './redis-port.js'

export interface Burials {
  /** Who is there, this node among them, and who is dead. */
  learn(alive: readonly NodeId[], dead: readonly NodeId[]): void
  /** One page of each partition, so that a large death does not stop everything else. */
  orphanDead(): Promise<void>
  expireDue(): Promise<void>
  undoDoubtful(): Promise<void>
}

/**
 * A dead node may have had a write on its way, so its sessions are looked for again, at this
 * interval.
 */
const DEAD_AGAIN_MS = 60_000
const PAGE = 100

export function createBurials (node: RedisNode): Burials {
  const { gate, layout, clock, limits, stats } = node
  const partitions = Array.from({ length: layout.partitions }, (_, partition) => partition)
  let dead: readonly NodeId[] = []
  /** When the partitions of this node were found without sessions of a dead one. */
  const clean = new Map<NodeId, Millis>()
  let won: number[] = []
  let wonOf = ''

  async function orphan (id: SessionId, of: NodeId, call = ''): Promise<void> {
    const reply = await gate.call('orphan', layout.sessionKeys(id, of), [
      id, of, String(limits.resumeWindowMs), String(limits.idleTimeoutMs), String(limits.unheardWindowMs),
      String(limits.outboxMessages), String(limits.outboxBytes), String(limits.tombstoneMs), call
    ])
    const [word, stone] = (reply ?? []) as Reply[]
    if (textOf(word) === 'orphaned') stats.orphaned++
    if (textOf(word) === 'ended') tellEnded(node, id, stone as Reply)
  }

  /** Some ids of each partition that this node has won. */
  async function pageOfEach (
    script: 'members' | 'due', keyOf: (partition: number) => string
  ): Promise<{ ids: SessionId[], isWhole: boolean }> {
    const pages = await Promise.all(won.map(partition => gate.call(script, [keyOf(partition)], [String(PAGE)])))
    return {
      ids: pages.flatMap(page => page === undefined ? [] : (page as Reply[]).map(textOf)),
      isWhole: !pages.includes(undefined)
    }
  }

  return {
    learn (alive, buried) {
      dead = buried
      for (const name of clean.keys()) {
        if (!dead.includes(name)) clean.delete(name)
      }
      const names = [...alive].sort()
      if (names.join() === wonOf) return
      wonOf = names.join()
      won = partitions.filter(partition => winnerOf(partition, names) === node.id)
      clean.clear()
    },

    async orphanDead (): Promise<void> {
      for (const name of dead) {
        if (clock.now() - (clean.get(name) ?? -Infinity) < DEAD_AGAIN_MS) continue
        const { ids, isWhole } = await pageOfEach('members', partition => layout.ofNode(partition, name))
        await Promise.all(ids.map(id => orphan(id, name)))
        if (ids.length === 0 && isWhole) clean.set(name, clock.now())
      }
    },

    async expireDue (): Promise<void> {
      const { ids } = await pageOfEach('due', layout.deadlines)
      await Promise.all(ids.map(id => expire(node, id, '')))
    },

    async undoDoubtful (): Promise<void> {
      const now = clock.now()
      const doubtful = [...node.doubtful]
      for (const [call, { until }] of doubtful) {
        if (until <= now) node.doubtful.delete(call)
      }
      await Promise.all(doubtful.map(([call, { id }]) => orphan(id, node.id, String(call))))
    }
  }
}

/** Rendezvous hashing: of a node that comes or goes, only its own share moves. */
function winnerOf (partition: number, names: readonly NodeId[]): NodeId | undefined {
  let winner: NodeId | undefined
  let best = -1
  for (const name of names) {
    const weight = hashOf(`${name}/${partition}`)
    if (weight > best) {
      best = weight
      winner = name
    }
  }
  return winner
}

/** FNV-1a, and a last step that spreads the low bits of the last characters. */
function hashOf (text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
