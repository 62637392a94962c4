// Questions to other nodes, and their answers, over messages that arrive once or not at all. Who
// gets no answer in time does not know whether the other node did what it was asked.

import { HoldfastError } from '../errors.js'
import type { JsonObject, JsonValue, Log, Millis } from '../types.js'
import type { NodeId, SharedSessionStore } from '../session/shared-store.js'

export interface AskingOptions {
  tell: SharedSessionStore['tell']
  log: Log
  delay: (ms: Millis) => Promise<unknown>
  /** A word that no other question has, also of another life of this node. */
  createId: () => string
}

/**
 * A value, or an error of HoldfastError's shape. `unheard`: nobody listens, and nothing was done.
 * `no_answer`: it may have been done.
 */
export type Answer = { readonly value: JsonValue } | { readonly error: JsonObject } | 'unheard' | 'no_answer'

export interface Asking {
  ask(nodeId: NodeId, topic: string, body: JsonValue): Promise<Answer>
  /** Says what this node answers; an error that it throws is told to whoever asked. */
  on(topic: string, reply: (body: JsonObject) => Promise<JsonValue>): void
  /** For the hook `told` of the store. */
  told(topic: string, body: JsonValue, from: NodeId): void
}

const ANSWER = 'answer'
const ANSWER_MS = 3000

export function createAsking ({ tell, log, delay, createId }: AskingOptions): Asking {
  const waiting = new Map<string, (answer: Answer) => void>()
  const replies = new Map<string, (body: JsonObject) => Promise<JsonValue>>()

  async function reply (topic: string, body: JsonObject): Promise<JsonObject> {
    try {
      const handler = replies.get(topic)
      // A node of another version.
      if (handler === undefined) return { error: { code: 'INTERNAL' } }
      return { value: await handler(body['body'] as JsonObject) }
    } catch (error) {
      if (error instanceof HoldfastError) {
        return { error: { code: error.code, message: error.message, details: error.details ?? {} } }
      }
      log.error({ err: error, topic }, 'question of another node failed')
      return { error: { code: 'INTERNAL' } }
    }
  }

  return {
    on (topic, handler) {
      replies.set(topic, handler)
    },

    async ask (nodeId, topic, body) {
      const id = createId()
      const answer = new Promise<Answer>(resolve => { waiting.set(id, resolve) })
      if (!await tell(nodeId, topic, { id, body })) {
        waiting.delete(id)
        return 'unheard'
      }
      const found = await Promise.race([answer, delay(ANSWER_MS).then((): Answer => 'no_answer')])
      waiting.delete(id)
      return found
    },

    told (topic, body, from) {
      const message = body as JsonObject
      const id = message['id'] as string
      if (topic === ANSWER) waiting.get(id)?.(message['answer'] as Exclude<Answer, string>)
      else void reply(topic, message).then(answer => tell(from, ANSWER, { id, answer }))
    }
  }
}
