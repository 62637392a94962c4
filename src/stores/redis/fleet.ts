// What a node does unasked, driven by `tick`: it renews its lease, makes the sessions of dead nodes
// ownerless, ends those whose deadline is over, and looks after its own. Each partition has one
// node that does the first three for it: the one that wins when all live nodes are hashed with its
// number. Two nodes that disagree for a while do the same work twice, which changes nothing.

import type { JsonObject, Millis, SessionId } from '../../io/types.js'
import type { NodeId, StoreNode } from '../../io/session/shared-store.js'
import type { Bus } from './bus.js'
import { readTombstone, readFields, textOf } from './layout.js'
import { disown, type RedisNode } from './node.js'
import type { Reply } from './redis-port.js'
import { expire, tellEnded } from './writes.js'

export interface FleetOptions {
  readonly leaseMs: Millis
  /** Before the end of the lease; a node that is so late is not `ok` any more (S-17). */
  readonly leaseMarginMs: Millis
  readonly renewMs: Millis
  /** Every owned session is looked at once in that time. */
  readonly touchMs: Millis
  /** What this node says of itself. */
  readonly describe: () => JsonObject
  /** A name for another life. */
  readonly rename: () => NodeId
}

export interface Fleet {
  tick(): Promise<void>
  /** Renews the lease; false where the store does not answer. */
  renew(): Promise<boolean>
  leave(): Promise<void>
  /** Until then the node may work, on the monotonic clock. */
  readonly leaseUntil: Millis
  readonly nodes: readonly StoreNode[]
  isDead(name: NodeId): boolean
}

const DEAD_MS = 86_400_000
/**
 * A dead node may have had a write on its way, so its sessions are looked for again, at this
 * interval.
 */
const DEAD_AGAIN_MS = 60_000
const PAGE = 100
const TOUCH_KEYS = 64

export function createFleet (node: RedisNode, bus: Bus, options: FleetOptions): Fleet {
  const { gate, layout, clock, limits, stats } = node
  const partitions = Array.from({ length: layout.partitions }, (_, partition) => partition)
  let nodes: StoreNode[] = []
  let dead: NodeId[] = []
  /** When the partitions of this node were found without sessions of a dead one. */
  const clean = new Map<NodeId, Millis>()
  let won: number[] = []
  let wonOf = ''
  let leaseUntil = -Infinity
  let renewAt = -Infinity
  let probeAt = -Infinity
  let touched = clock.now()
  let touchNext = 0
  let ticking: Promise<void> | null = null

  async function renew (): Promise<boolean> {
    const sentAt = clock.now()
    const self = node.id
    const { leaseMs, leaseMarginMs, renewMs, describe } = options
    const args = [self, String(leaseMs), JSON.stringify(describe()), String(DEAD_MS)]
    const reply = await gate.call('lease', layout.nodes, args)
    if (reply === undefined) return false
    const [word, , alive, infos, buried] = reply as Reply[]
    if (textOf(word) === 'dead') {
      await startAgain()
      return false
    }
    leaseUntil = sentAt + leaseMs - leaseMarginMs
    renewAt = sentAt + renewMs
    nodes = readNodes(alive as Reply[], infos as Reply[])
    dead = (buried as Reply[]).map(textOf)
    for (const name of clean.keys()) {
      if (!dead.includes(name)) clean.delete(name)
    }
    const names = nodes.map(each => each.nodeId).sort()
    if (names.join() !== wonOf) {
      wonOf = names.join()
      won = partitions.filter(partition => winnerOf(partition, names) === self)
      clean.clear()
    }
    return true
  }

  /**
   * Others have taken this node for dead and take its sessions: it drops them, and goes on under
   * another name.
   */
  async function startAgain (): Promise<void> {
    const former = node.id
    node.id = options.rename()
    stats.lives++
    leaseUntil = -Infinity
    renewAt = -Infinity
    const lost = [...node.owned]
    node.owned.clear()
    node.doubtful.clear()
    for (const [id, fence] of lost) {
      stats.evicted++
      node.hooks.evicted(id, fence, null)
    }
    await bus.rename(former).catch(() => {})
  }

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

  /** One page of each partition per tick, so that a large death does not stop everything else. */
  async function orphanDead (): Promise<void> {
    for (const name of dead) {
      if (clock.now() - (clean.get(name) ?? -Infinity) < DEAD_AGAIN_MS) continue
      const { ids, isWhole } = await pageOfEach('members', partition => layout.ofNode(partition, name))
      await Promise.all(ids.map(id => orphan(id, name)))
      if (ids.length === 0 && isWhole) clean.set(name, clock.now())
    }
  }

  async function expireDue (): Promise<void> {
    const { ids } = await pageOfEach('due', layout.deadlines)
    await Promise.all(ids.map(id => expire(node, id, '')))
  }

  async function undoDoubtful (): Promise<void> {
    const now = clock.now()
    const doubtful = [...node.doubtful]
    for (const [call, { until }] of doubtful) {
      if (until <= now) node.doubtful.delete(call)
    }
    await Promise.all(doubtful.map(([call, { id }]) => orphan(id, node.id, String(call))))
  }

  /** Partition after partition, as many as the time since the last call asks for. */
  async function touch (): Promise<void> {
    const due = Math.min(layout.partitions, Math.floor((clock.now() - touched) * layout.partitions / options.touchMs))
    if (due === 0) return
    touched += due * options.touchMs / layout.partitions
    if (clock.now() - touched > options.touchMs) touched = clock.now()
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
      // The server came back empty (S-21): whoever reads the inbox finds that out. So are the others missing.
      node.hooks.doorbell(id)
      touched = -Infinity
      return
    }
    disown(node, id, fence)
    stats.evicted++
    node.hooks.evicted(id, fence, textOf(word) === 'ended' ? readTombstone(id, readFields(detail as Reply)) : null)
  }

  async function tickOnce (): Promise<void> {
    if (clock.now() >= renewAt && !await renew() && !await renew()) return
    if (clock.now() >= probeAt) {
      probeAt = clock.now() + options.renewMs
      bus.probe()
    }
    await orphanDead()
    await expireDue()
    await undoDoubtful()
    await touch()
  }

  return {
    get leaseUntil () { return leaseUntil },
    get nodes () { return nodes },
    isDead: name => dead.includes(name),
    renew,

    tick () {
      ticking ??= tickOnce().finally(() => { ticking = null })
      return ticking
    },

    async leave () {
      leaseUntil = -Infinity
      await gate.call('leave', layout.nodes, [node.id])
    }
  }
}

function readNodes (alive: Reply[], infos: Reply[]): StoreNode[] {
  return infos.map((info, i) => ({
    nodeId: textOf(alive[i * 2]),
    info: JSON.parse(textOf(info)) as JsonObject,
    leaseUntil: Number(textOf(alive[i * 2 + 1]))
  }))
}

/** Rendezvous hashing: of a node that comes or goes, only its own share moves. */
export function winnerOf (partition: number, names: readonly NodeId[]): NodeId | undefined {
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
