// The ownership of sessions in a fleet, searched for histories that break its promises: the store
// as it is, over a model of Redis, with several nodes whose messages come late, in another order or
// not at all, that die between any two steps, stand still past their lease and are cut off. A
// failing seed is printed; SIMULATION_SEED runs it alone.

import t from 'tap'
import type { StoredSession } from '../../src/io/session/store.js'
import { fieldsOf } from '../../src/stores/redis/layout.js'
import { createRandom } from '../../contract/random.js'
import { PROGRESS } from '../helpers/redis-node.js'
import { createModelRedis } from './model-redis.js'
import { createSimulatedNode, hashed, type Line, type SimulatedNode } from './node.js'
import { createWorld, inProcess, type Network } from './world.js'

const SEED = Number(process.env.SIMULATION_SEED ?? 0)
const HISTORIES = SEED > 0 ? 1 : Number(process.env.SIMULATIONS ?? 100)
const NODES = 3
const SESSIONS = 3
const TROUBLE_MS = 15_000
const CALM_MS = 15_000

interface Client {
  readonly id: string
  /** The newest token that the client has heard of. */
  token: string
  tokens: number
  lastSeen: number
  contents: string[]
  answered: number
  line: Line | null
  node: SimulatedNode | null
  isConnecting: boolean
  endedAs: string | null
}

async function runHistory (seed: number): Promise<{ outputs: number, claims: number }> {
  const random = createRandom(seed)
  const world = createWorld(random)
  const redis = createModelRedis(() => 1e12 + Math.floor(world.now()))
  const network: Network = { world, redis, awayUntil: 0, lossPercent: 20, channels: new Map() }
  const problems: string[] = []
  let started = 0
  const startNode = (): SimulatedNode => createSimulatedNode(network, `n${++started}`)
  const nodes = Array.from({ length: NODES }, startNode)
  const accepted = new Map<string, string[]>()
  const terminated = new Map<string, number>()
  const upTo = (most: number): number => Math.floor(random() * most)

  function lineOf (client: Client): Line {
    const line: Line = {
      isOpen: true,
      send (message) {
        lastAt = Math.max(lastAt, world.now() + 0.2 + random() * 4)
        world.after(lastAt - world.now(), () => {
          if (!line.isOpen || client.line !== line) return
          if (message.closed === true) {
            line.isOpen = false
            client.line = null
            return
          }
          if (message.token !== undefined) {
            client.token = message.token
            client.node?.confirm(client.id, line)
          }
          if (message.seq !== undefined) receive(client, message.seq, message.content as string)
        })
      }
    }
    let lastAt = 0
    return line
  }

  function receive (client: Client, seq: number, content: string): void {
    const known = client.contents[seq]
    if (known !== undefined && known !== content) {
      problems.push(`${client.id}: seq ${seq} was "${known}" and is "${content}"`)
    }
    if (seq > client.lastSeen + 1) problems.push(`${client.id}: seq ${seq} follows ${client.lastSeen}`)
    client.contents[seq] = content
    client.lastSeen = Math.max(client.lastSeen, seq)
    const command = /^answer (\d+) /.exec(content)
    if (command !== null) client.answered = Math.max(client.answered, Number(command[1]))
  }

  async function connect (client: Client): Promise<void> {
    if (client.isConnecting || client.endedAs !== null) return
    const node = nodes[upTo(nodes.length)] as SimulatedNode
    if (!node.process.isAlive || node.process.frozenUntil > world.now() || node.store.health() !== 'ok') return
    client.isConnecting = true
    const line = lineOf(client)
    client.line = line
    client.node = node
    // Nobody waits for a node that has died or does not answer.
    const cancel = world.after(1500, () => {
      client.isConnecting = false
      if (client.line !== line) return
      line.isOpen = false
      client.line = null
    })
    const { token } = client
    const next = `${client.id}-${++client.tokens}`
    const result = await node.connect(client.id, token, next, client.lastSeen, line)
    cancel()
    client.isConnecting = false
    if (result === 'attached') {
      if (!line.isOpen) inProcess(world, node.process, () => node.disconnect(client.id, line))
      return
    }
    line.isOpen = false
    if (client.line === line) client.line = null
    // An attempt that the client has given up may come too late; it has another token by then.
    if (result === 'unknown' && client.token === token) {
      problems.push(`${client.id}: ${token} is unknown at ${world.now()}`)
    }
    if (typeof result === 'object') {
      client.endedAs = result.ended
      if (!terminated.has(client.id)) problems.push(`${client.id}: ended as ${result.ended}`)
    }
  }

  function hangUp (client: Client): void {
    const { line, node } = client
    if (line === null || node === null) return
    line.isOpen = false
    client.line = null
    world.after(random() * 20, () => inProcess(world, node.process, () => node.disconnect(client.id, line)))
  }

  function talk (client: Client): void {
    const { line, node } = client
    if (line === null || node === null || !line.isOpen) return
    const command = client.answered + 1
    world.after(random() * 3, () => inProcess(world, node.process, () => node.command(client.id, line, command)))
  }

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

  const clients = Array.from({ length: SESSIONS }, (_, i): Client => ({
    id: `s${i}`,
    token: `s${i}-0`,
    tokens: 0,
    lastSeen: 0,
    contents: [],
    answered: 0,
    line: null,
    node: null,
    isConnecting: false,
    endedAs: null
  }))
  await world.runUntil(500)
  for (const client of clients) {
    const session: StoredSession = {
      id: client.id,
      userId: 'ann',
      profile: 'full',
      createdAt: 1,
      generation: 'g',
      context: {},
      access: { labels: {}, tokenHash: hashed(client.token), previousTokenHash: null },
      progress: { ...PROGRESS, heard: true },
      outputs: []
    }
    accepted.set(client.id, [])
    // Kept by a node of the past, which has released it.
    const fields = [...fieldsOf(session.progress, session.context, session.access), 'p', 'full', 'g', 'g']
    redis.run('create', keysOf(client.id, 'past'), [
      'past', client.id, 'ann', '0', '1', '0', '0', String(fields.length), ...fields
    ])
    const limits = ['60000', '3600000', '60000', '1', '1', '1', '']
    redis.run('orphan', keysOf(client.id, 'past'), [client.id, 'past', ...limits])
  }

  let pushes = 0
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

  for (const client of clients) checkSession(client)
  checkSets()
  if (problems.length > 0) throw new Error(`seed ${seed}: ${problems.slice(0, 5).join('; ')}`)
  return {
    outputs: clients.reduce((sum, { contents }) => sum + contents.length, 0),
    claims: nodes.reduce((sum, { store }) => sum + store.stats.claims.claimed, 0)
  }

  function checkSession (client: Client): void {
    const { id } = client
    const kept = redis.history.get(id) ?? []
    const contents = kept.map(entry => entry.slice(entry.indexOf(':') + 1))
    for (const [seq, content] of client.contents.entries()) {
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
}

function keysOf (id: string, node: string): string[] {
  return [...'svoiqtcux'].map(name => `holdfast:{0}:${name}:${id}`).with(8, 'past:x').concat(`holdfast:{0}:n:${node}`)
}

t.test(`no history of ${HISTORIES} breaks a promise`, async t => {
  let outputs = 0
  let claims = 0
  const startedAt = Date.now()
  for (let i = 0; i < HISTORIES; i++) {
    const result = await runHistory(SEED > 0 ? SEED : 1000 + i)
    outputs += result.outputs
    claims += result.claims
  }
  t.ok(outputs > HISTORIES * 20, `${outputs} outputs were seen`)
  t.ok(claims > HISTORIES * 3, `${claims} claims were made`)
  t.comment(`${HISTORIES} histories in ${Date.now() - startedAt} ms`)
})
