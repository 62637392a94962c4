// The clients of a simulated fleet: each connects to any node, sends numbered commands, hangs up
// now and then, comes back with the newest token it has heard of, and tells when something came
// that may not come.

import type { Network } from './world.js'
import { inProcess } from './world.js'
import type { Line, SimulatedNode } from './node.js'

export interface Client {
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

export interface Clients {
  connect(client: Client): Promise<void>
  hangUp(client: Client): void
  talk(client: Client): void
}

export function createClient (id: string): Client {
  return {
    id,
    token: `${id}-0`,
    tokens: 0,
    lastSeen: 0,
    contents: [],
    answered: 0,
    line: null,
    node: null,
    isConnecting: false,
    endedAs: null
  }
}

/** `nodes` changes: a node that dies gives its place to another one. */
export function createClients (
  {
    world
  }: Network, nodes: readonly SimulatedNode[], mayEnd: (client: Client) => boolean, problem: (sentence: string) => void
): Clients {
  const { random } = world

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
      problem(`${client.id}: seq ${seq} was "${known}" and is "${content}"`)
    }
    if (seq > client.lastSeen + 1) problem(`${client.id}: seq ${seq} follows ${client.lastSeen}`)
    client.contents[seq] = content
    client.lastSeen = Math.max(client.lastSeen, seq)
    const command = /^answer (\d+) /.exec(content)
    if (command !== null) client.answered = Math.max(client.answered, Number(command[1]))
  }

  async function connect (client: Client): Promise<void> {
    if (client.isConnecting || client.endedAs !== null) return
    const node = nodes[Math.floor(random() * nodes.length)] as SimulatedNode
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
      problem(`${client.id}: ${token} is unknown at ${world.now()}`)
    }
    if (typeof result === 'object') {
      client.endedAs = result.ended
      if (!mayEnd(client)) problem(`${client.id}: ended as ${result.ended}`)
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

  return { connect, hangUp, talk }
}
