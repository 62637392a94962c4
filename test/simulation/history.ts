// One history of a simulated fleet, drawn from its seed: clients talk, operators push, nodes die,
// stand still and are cut off, Redis goes away; then everything is calm, and what is left is
// checked.

import { createRandom } from '../../contract/random.js'
import type { StoredSession } from '../../src/io/session/store.js'
import { fieldsOf } from '../../src/stores/redis/layout.js'
import { PROGRESS } from '../helpers/redis-node.js'
import { createClient, createClients, type Client } from './clients.js'
import { createModelRedis, type ModelRedis } from './model-redis.js'
import { createSimulatedNode, hashed, type SimulatedNode } from './node.js'
import { checkOutcome } from './outcome.js'
import { createWorld, inProcess, type Flaw, type Network } from './world.js'

const NODES = 3
const SESSIONS = 3
const TROUBLE_MS = 15_000
const CALM_MS = 10_000

export interface History {
  /** What is wrong; empty where nothing is. */
  readonly problems: readonly string[]
  readonly outputs: number
  readonly claims: number
}

/** `flaw`: something that the fleet does wrong, for a look at whether that is found. */
export async function runHistory (seed: number, flaw: Flaw = 'none'): Promise<History> {
  const random = createRandom(seed)
  const world = createWorld(random)
  const redis = createModelRedis(() => 1e12 + Math.floor(world.now()), flaw)
  const network: Network = { world, redis, flaw, awayUntil: 0, lossPercent: 20, channels: new Map() }
  const problems: string[] = []
  let started = 0
  const startNode = (): SimulatedNode => createSimulatedNode(network, `n${++started}`)
  const nodes = Array.from({ length: NODES }, startNode)
  const accepted = new Map<string, string[]>()
  const terminated = new Map<string, number>()
  const upTo = (most: number): number => Math.floor(random() * most)
  const clients = Array.from({ length: SESSIONS }, (_, i) => createClient(idOf(i)))
  const { connect, hangUp, talk } = createClients(
    network, nodes, ({ id }) => terminated.has(id), sentence => { problems.push(sentence) }
  )

  async function push (client: Client, number: number): Promise<void> {
    const node = nodes[upTo(nodes.length)] as SimulatedNode
    const content = `push ${number}`
    for (let attempt = 0; attempt < 20; attempt++) {
      const result = await node.store.push(client.id, { pushId: content, tail: content })
      if (result === 'unavailable') {
        await world.sleep(200)
        continue
      }
      if (result === 'duplicate' || typeof result === 'object') accepted.get(client.id)?.push(content)
      return
    }
  }

  async function terminate (client: Client): Promise<void> {
    terminated.set(client.id, -1)
    const result = await (nodes[upTo(nodes.length)] as SimulatedNode).store.terminate(client.id, 'ended_by_operator')
    // An answer that was lost may have ended it as well.
    terminated.set(client.id, typeof result === 'object' ? redis.history.get(client.id)?.length ?? 0 : -1)
  }

  function trouble (): void {
    const i = upTo(nodes.length)
    const { process } = nodes[i] as SimulatedNode
    const kind = random()
    if (kind < 0.25) {
      process.isAlive = false
      for (const client of clients) {
        if (client.node?.process === process && client.line !== null) {
          client.line.isOpen = false
          client.line = null
        }
      }
      nodes[i] = startNode()
    } else if (kind < 0.55) process.frozenUntil = world.now() + random() * 6000
    else if (kind < 0.85) process.cutUntil = world.now() + random() * 6000
    else network.awayUntil = world.now() + random() * 2500
  }

  await world.runUntil(500)
  for (const { id, token } of clients) {
    accepted.set(id, [])
    keepOwnerless(redis, id, token)
  }

  let pushes = 0
  let tokens = 0
  let isCalm = false
  const during = (everyMs: number, act: () => void): void => {
    world.after(random() * everyMs * 2, () => {
      act()
      during(everyMs, act)
    })
  }
  for (const client of clients) {
    during(150, () => { if (client.line === null) void connect(client) })
    during(60, () => { if (!isCalm) talk(client) })
    during(900, () => { if (!isCalm) hangUp(client) })
    during(500, () => { if (!isCalm) void push(client, ++pushes) })
    during(150, () => {
      const { node } = client
      if (!isCalm && node !== null) inProcess(world, node.process, () => node.stream(client.id, `token ${++tokens}`))
    })
  }
  during(1500, () => { if (!isCalm) trouble() })
  if (random() < 0.3) world.after(random() * TROUBLE_MS, () => { void terminate(clients[0] as Client) })
  await world.runUntil(500 + TROUBLE_MS)
  isCalm = true
  network.lossPercent = 0
  network.awayUntil = 0
  for (const { process } of nodes) {
    process.cutUntil = 0
    process.frozenUntil = Math.min(process.frozenUntil, world.now())
  }
  await world.runUntil(500 + TROUBLE_MS + CALM_MS)

  problems.push(...checkOutcome({ redis, nodes, clients, accepted, terminated }))
  return {
    problems,
    outputs: clients.reduce((sum, { contents }) => sum + contents.length, 0),
    claims: nodes.reduce((sum, { store }) => sum + store.stats.claims.claimed, 0)
  }
}

/** A session of a node of the past, which has released it. */
function keepOwnerless (redis: ModelRedis, id: string, token: string): void {
  const session: StoredSession = {
    id,
    userId: 'ann',
    profile: 'full',
    createdAt: 1,
    generation: 'g',
    context: {},
    access: { labels: {}, tokenHash: hashed(token), previousTokenHash: null },
    progress: { ...PROGRESS, heard: true },
    outputs: []
  }
  const fields = [...fieldsOf(session.progress, session.context, session.access), 'p', 'full', 'g', 'g']
  redis.run('create', keysOf(id, 'past'), ['past', id, 'ann', '0', '1', '0', '0', String(fields.length), ...fields])
  redis.run('orphan', keysOf(id, 'past'), [id, 'past', '60000', '3600000', '60000', '1', '1', '1', ''])
}

/** In the form of those that the store gives, so that it need not hash them. */
const idOf = (i: number): string => 'aa'.padEnd(27, 'x') + 'abc'.charAt(i)

function keysOf (id: string, node: string): string[] {
  return [...'svoiqtcux'].map(name => `holdfast:{0}:${name}:${id}`).with(8, 'past:x').concat(`holdfast:{0}:n:${node}`)
}
