// Messages between nodes, over one channel of each: doorbells, requests to release a session,
// evictions, and what callers `tell` each other. A message arrives once or not at all, and nothing
// depends on it: inboxes, fences and `touch` find what was missed.

import type { JsonValue, Millis, SessionId } from '../../io/types.js'
import type { Fence, StoredTombstone } from '../../io/session/store.js'
import type { NodeId } from '../../io/session/shared-store.js'
import { disown, type RedisNode } from './node.js'
import type { RedisPort } from './redis-port.js'

type Message =
  | { kind: 'doorbell', id: SessionId }
  | { kind: 'hand_off', id: SessionId, fence: Fence, request: number, from: NodeId }
  | { kind: 'released', request: number }
  | { kind: 'evicted', id: SessionId, fence: Fence, tombstone: StoredTombstone | null }
  | { kind: 'told', topic: string, body: JsonValue, from: NodeId }
  | { kind: 'probe', number: number }

export interface Bus {
  /** Listens under the present name of the node. */
  open(): Promise<void>
  /** The node has another name now. */
  rename(former: NodeId): Promise<void>
  doorbell(to: NodeId, id: SessionId): void
  /**
   * Asks the owner to release a session; true when it says that it did, false after `handOffMs`, or
   * at once where nobody listens, unless the server was away a moment ago.
   */
  requestHandOff(to: NodeId, id: SessionId, fence: Fence): Promise<boolean>
  evict(to: NodeId, id: SessionId, fence: Fence, tombstone: StoredTombstone | null): void
  tell(to: NodeId, topic: string, body: JsonValue): Promise<boolean>
  /** Sends itself a message, and makes another connection when the last two did not arrive. */
  probe(): void
}

/** Probes that may be missing before the subscriber counts as dead. */
const MISSED_PROBES = 2

/** Until an owner that may be about to listen does. */
const ASK_AGAIN_MS = 100

export function createBus (node: RedisNode, port: RedisPort, handOffMs: Millis): Bus {
  const requests = new Map<number, (released: boolean) => void>()
  let lastRequest = 0
  let sent = 0
  let received = 0

  function send (to: NodeId, message: Message): Promise<boolean> {
    return port.publish(node.layout.channel(to), JSON.stringify(message)).then(receivers => receivers > 0, () => false)
  }

  function answer (message: Extract<Message, { kind: 'hand_off' }>): void {
    const { id, fence, request, from } = message
    const { requests: counted } = node.stats
    const isOwned = (): boolean => node.owned.get(id) === fence
    const done = (): void => { void send(from, { kind: 'released', request }) }
    if (!isOwned()) {
      counted.gone++
      done()
      return
    }
    const answered = (): void => {
      counted[isOwned() ? 'kept' : 'given']++
      done()
    }
    // Whoever asks finds out what the store says; a promise that fails is an owner that did not
    // release.
    node.hooks.handOff(id, fence).then(answered, answered)
  }

  function receive (text: string): void {
    const message = JSON.parse(text) as Message
    switch (message.kind) {
      case 'doorbell':
        if (node.owned.has(message.id)) node.hooks.doorbell(message.id)
        break
      case 'hand_off':
        answer(message)
        break
      case 'released':
        requests.get(message.request)?.(true)
        break
      case 'evicted':
        if (node.owned.get(message.id) !== message.fence) break
        disown(node, message.id, message.fence)
        node.stats.evicted++
        node.hooks.evicted(message.id, message.fence, message.tombstone)
        break
      case 'told':
        node.hooks.told(message.topic, message.body, message.from)
        break
      case 'probe':
        received = message.number
    }
  }

  return {
    open: () => port.subscribe(node.layout.channel(node.id), receive),

    async rename (former) {
      await port.subscribe(node.layout.channel(node.id), receive)
      await port.unsubscribe(node.layout.channel(former)).catch(() => {})
    },

    doorbell (to, id) {
      void send(to, { kind: 'doorbell', id })
    },

    requestHandOff (to, id, fence) {
      const request = ++lastRequest
      node.stats.handOffs.asked++
      return new Promise(resolve => {
        function settle (released: boolean): void {
          if (!requests.delete(request)) return
          cancel()
          resolve(released)
        }
        requests.set(request, settle)
        const cancel = node.scheduler.after(handOffMs, () => settle(false))
        async function ask (): Promise<void> {
          if (!requests.has(request) || await send(to, { kind: 'hand_off', id, fence, request, from: node.id })) return
          if (node.wasAway()) node.scheduler.after(ASK_AGAIN_MS, () => { void ask() })
          else settle(false)
        }
        void ask()
      })
    },

    evict (to, id, fence, tombstone) {
      void send(to, { kind: 'evicted', id, fence, tombstone })
    },

    tell: (to, topic, body) => send(to, { kind: 'told', topic, body, from: node.id }),

    probe () {
      if (sent - received >= MISSED_PROBES) {
        port.reconnectSubscriber()
        received = sent
      }
      void send(node.id, { kind: 'probe', number: ++sent })
    }
  }
}
