// What has to be true of a simulated fleet when everything is calm again.

import { NOT_KEPT } from '../../src/io/protocol/codec.js'
import type { Client } from './clients.js'
import type { ModelRedis } from './model-redis.js'
import type { SimulatedNode } from './node.js'

export interface Outcome {
  readonly redis: ModelRedis
  readonly nodes: readonly SimulatedNode[]
  readonly clients: readonly Client[]
  /** Pushes that were answered, by session. */
  readonly accepted: ReadonlyMap<string, readonly string[]>
  /**
   * Sessions that an operator ended, with the length of their history then; -1 where he got no
   * answer.
   */
  readonly terminated: ReadonlyMap<string, number>
}

export function checkOutcome ({ redis, nodes, clients, accepted, terminated }: Outcome): string[] {
  const problems: string[] = []

  function checkSession (client: Client): void {
    const { id } = client
    const kept = redis.history.get(id) ?? []
    const contents = kept.map(entry => entry.slice(entry.indexOf(':') + 1))
    for (const [seq, content] of client.contents.entries()) {
      // What was told ahead of the store may have died with its node, or ended with its session;
      // nothing else has its number.
      const isLost = contents[seq] === NOT_KEPT.tail || (terminated.has(id) && contents[seq] === undefined)
      if (content?.startsWith('token ') === true && isLost) continue
      if (content !== undefined && contents[seq] !== content) {
        problems.push(`${id}: the client has seen "${content}", kept is "${contents[seq]}"`)
      }
    }
    const commands = contents.flatMap(content => /^answer (\d+) /.exec(content)?.[1] ?? [])
    if (new Set(commands).size !== commands.length) {
      problems.push(`${id}: a command was answered twice: ${commands.join()}`)
    }
    const length = terminated.get(id)
    if (length !== undefined) {
      const wentOn = redis.sessions.has(id) || kept.length !== length
      if (length >= 0 && wentOn) problems.push(`${id}: went on after its end`)
      return
    }
    for (const content of new Set(accepted.get(id))) {
      const times = contents.filter(each => each === content).length
      if (times !== 1) problems.push(`${id}: "${content}" is there ${times} times`)
    }
    if (!redis.sessions.has(id)) problems.push(`${id}: is gone`)
    else if (client.line === null) problems.push(`${id}: its client has not come back`)
    else if (client.lastSeen !== kept.length - 1) {
      problems.push(`${id}: the client has seen ${client.lastSeen} of ${kept.length - 1}`)
    }
  }

  function checkSets (): void {
    const owned = [...redis.ofNodes].flatMap(([key, ids]) => {
      return [...ids].map(id => ({ id, node: key.slice(key.lastIndexOf(':') + 1) }))
    })
    for (const { id, node } of owned) {
      const owner = redis.sessions.get(id)?.fields.get('o')
      if (owner !== node) problems.push(`${id}: in the set of ${node}, and owned by ${owner}`)
    }
    for (const [id, { fields }] of redis.sessions) {
      const owner = fields.get('o') as string
      if ((owner === '') !== redis.deadlines.has(id)) problems.push(`${id}: owner "${owner}" and deadline do not agree`)
      if (owner !== '' && !nodes.some(({ store, records }) => store.nodeId === owner && records.has(id))) {
        problems.push(`${id}: ${owner} does not know that it owns it`)
      }
    }
  }

  for (const client of clients) checkSession(client)
  checkSets()
  return problems
}
