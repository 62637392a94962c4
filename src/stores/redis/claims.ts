// Taking a session that is not this node's (S-10 to S-12). Most are ownerless and are taken in one
// step. One that another node owns is asked for first: that node may have outputs that it has not
// committed yet, and a command that is nearly done.

import type { SessionId } from '../../io/types.js'
import type { Fence } from '../../io/session/store.js'
import type { ClaimRequest, ClaimResult, NodeId, SharedSessionStore } from '../../io/session/shared-store.js'
import type { Bus } from './bus.js'
import { readFields, readSession, readTombstone, textOf } from './layout.js'
import { disown, doubt, type RedisNode } from './node.js'
import type { Reply } from './redis-port.js'
import { tellEnded } from './expire.js'

interface Owner { readonly id: NodeId, readonly fence: Fence }

export function createClaims (node: RedisNode, bus: Bus): Pick<SharedSessionStore, 'claim'> {
  const { stats } = node

  async function attempt (
    request: ClaimRequest, self: NodeId, call: number, expected: Owner | null
  ): Promise<ClaimResult | { owner: Owner }> {
    const { limits, layout } = node
    const { id } = request
    const keys = layout.sessionKeys(id, self, ...expected === null ? [] : [expected.id])
    const reply = await node.gate.call('claim', keys, [
      id, self, request.userId, request.tokenHash, request.nextTokenHash, String(request.lastSeen),
      JSON.stringify(request.labels), expected?.id ?? '', String(expected?.fence ?? ''),
      String(limits.outboxMessages), String(limits.outboxBytes), String(limits.tombstoneMs), String(call)
    ])
    if (reply === undefined) return 'unavailable'
    const [word, ...rest] = reply as Reply[]
    switch (textOf(word)) {
      case 'claimed':
        return readClaimed(request, rest)
      case 'owned':
        return { owner: { id: textOf(rest[0]), fence: Number(textOf(rest[1])) } }
      case 'ended':
        return readEnded(request, rest)
      default:
        return 'unknown'
    }
  }

  function readClaimed ({ id }: ClaimRequest, [fence, from, head, long, outputs]: Reply[]): ClaimResult {
    const fields = readFields(head as Reply, long as Reply)
    const former = textOf(from)
    return {
      session: readSession(id, fields, outputs as Buffer[]),
      fence: Number(textOf(fence)),
      from: former === '' ? null : former
    }
  }

  function readEnded ({ id, userId, tokenHash }: ClaimRequest, [stone, byThisCall]: Reply[]): ClaimResult {
    const ended = readTombstone(id, readFields(stone as Reply))
    if (textOf(byThisCall) === '1') tellEnded(node, id, stone as Reply)
    const holds = ended.tokenHash === tokenHash || ended.previousTokenHash?.split(' ').includes(tokenHash) === true
    return ended.userId === userId && holds ? { ended } : 'unknown'
  }

  async function take (request: ClaimRequest, self: NodeId, call: number): Promise<ClaimResult> {
    const { id } = request
    const first = await attempt(request, self, call, null)
    if (typeof first === 'string' || !('owner' in first)) return first
    const { owner } = first
    if (owner.id === self) {
      // Another claim of this node has won; or else a former one whose answer was lost.
      if (node.owned.get(id) === owner.fence) return 'moved'
    } else if (node.isAlive(owner.id)) {
      const released = await bus.requestHandOff(owner.id, id, owner.fence)
      if (released) stats.handOffs.released++
      else stats.handOffs.taken++
    }
    const second = await attempt(request, self, call, owner)
    // The former owner may not know yet; its next write or `touch` tells it where this does not
    // arrive.
    if (typeof second === 'object' && 'session' in second && second.from === owner.id && owner.id !== self) {
      bus.evict(owner.id, id, owner.fence, null)
    }
    return typeof second === 'string' || !('owner' in second) ? second : 'moved'
  }

  /** This node has owned the session before, and has not noticed that another one took it. */
  function supersede (id: SessionId): void {
    const former = node.owned.get(id)
    if (former === undefined) return
    disown(node, id, former)
    stats.evicted++
    node.hooks.evicted(id, former, null)
  }

  return {
    async claim (request) {
      const self = node.id
      const call = ++node.lastCall
      let result = await take(request, self, call)
      if (typeof result === 'object' && 'session' in result) {
        if (node.id === self) {
          supersede(request.id)
          node.owned.set(request.id, result.fence)
        } else {
          // Taken for dead meanwhile: the session goes the way of all the others.
          result = 'unavailable'
        }
      }
      if (result === 'unavailable') doubt(node, request.id, call)
      stats.claims[typeof result === 'string' ? result : 'session' in result ? 'claimed' : 'ended']++
      return result
    }
  }
}
