// What a node does unasked, driven by `tick`: it renews its lease, by which it learns who else is
// there, sees to the sessions of dead nodes (burials.ts) and looks after its own (touch.ts).

import type { JsonObject, Millis } from '../../io/types.js'
import type { NodeId, StoreNode } from '../../io/session/shared-store.js'
import { createBurials } from './burials.js'
import type { Bus } from './bus.js'
import { textOf } from './layout.js'
import type { RedisNode } from './node.js'
import type { Reply } from './redis-port.js'
import { createTouch } from './touch.js'

export interface FleetOptions {
  readonly leaseMs: Millis
  /** Before the end of the lease; a node that is so late is not `ok` any more (S-17). */
  readonly leaseMarginMs: Millis
  readonly renewMs: Millis
  /** Every owned session is looked at once in that time. */
  readonly touchMs: Millis
  /** Whether the last write was carried out. */
  readonly keeps: () => boolean
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

export function createFleet (node: RedisNode, bus: Bus, options: FleetOptions): Fleet {
  const { gate, layout, clock, stats } = node
  const burials = createBurials(node)
  const touch = createTouch(node, options.touchMs)
  let nodes: StoreNode[] = []
  let dead: NodeId[] = []
  let leaseUntil = -Infinity
  let renewAt = -Infinity
  let probeAt = -Infinity
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
    burials.learn(nodes.map(({ nodeId }) => nodeId), dead)
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

  async function tickOnce (): Promise<void> {
    // A store that was away is asked with a write: who has no client writes nothing else, and gets
    // none before it knows that the store is back.
    const isDue = clock.now() >= renewAt || !options.keeps()
    if (isDue && !await renew() && !await renew()) return
    if (clock.now() >= probeAt) {
      probeAt = clock.now() + options.renewMs
      bus.probe()
    }
    await burials.orphanDead()
    await burials.expireDue()
    await burials.undoDoubtful()
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
