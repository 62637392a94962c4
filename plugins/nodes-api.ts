// REST for operators, one node at a time: list, inspect, drain. Without a shared store there is one
// node, this one.

import fp from 'fastify-plugin'
import { Type } from 'typebox'
import { HoldfastError } from '../src/io/errors.js'
import type { JsonObject, Millis } from '../src/io/types.js'
import { defaultDrainMs, millisecondsLike } from '../src/limits.js'
import { aBoolean, checkPluginOptions, type OptionCheck } from '../src/option-checks.js'
import type {} from './operator-auth.js'
import { NoQuery, errorAnswer, errorAnswers, toIso } from './schemas/rest.js'
import { prepareRestScope } from './schemas/rest-scope.js'
import type {} from './session-manager.js'
import type {} from './websocket-gateway.js'

export interface NodesApiOptions {
  /** What a node has to end its connections; default 10,000, 0 to 600,000. */
  drainMs?: Millis
  /**
   * Whether other processes listen to the port of this one: a node that is drained leaves new
   * connections to them. Default false: it refuses them with a status, and readiness is red.
   */
  sharesPort?: boolean
}

const CHECKS: Record<keyof NodesApiOptions, OptionCheck> = {
  drainMs: millisecondsLike('drainSeconds'), sharesPort: aBoolean
}

const NodeParams = Type.Object({ id: Type.String({ minLength: 1, maxLength: 128, pattern: '^[A-Za-z0-9._-]+$' }) })
const NodeAnswer = Type.Object({
  id: Type.String({ description: 'Name of this life of the node.' }),
  self: Type.Boolean({ description: 'Whether it is the node that answers.' }),
  sessions: Type.Union([Type.Integer({ minimum: 0 }), Type.Null()], {
    description: 'Sessions that it owns; null for a node that went while it was asked.'
  }),
  leaseUntil: Type.Union([Type.String(), Type.Null()], {
    description: 'Until then no other node takes it for dead; null where no store is shared.'
  }),
  info: Type.Record(Type.String(), Type.Unknown(), { description: 'What the node says of itself.' })
})
const NodesAnswer = Type.Object({ data: Type.Array(NodeAnswer) }, { description: 'Those whose lease is not over.' })
const DrainAnswer = Type.Object({ draining: Type.Literal(true) }, { description: 'It has begun.' })

const NOT_FOUND = errorAnswer(['NODE_NOT_FOUND'])

interface NodeRow { id: string, self: boolean, sessions: number | null, leaseUntil: string | null, info: JsonObject }

export default fp<NodesApiOptions>(async function nodesApi (fastify, options) {
  checkPluginOptions('holdfast/nodes-api', options, CHECKS)
  const { drainMs = defaultDrainMs(), sharesPort = false } = options
  const { membership } = fastify.sessionInternals
  const scope = prepareRestScope(fastify)

  function drain (): void {
    if (fastify.gateway.draining) return
    fastify.log.warn({ drainMs }, 'node is drained by an operator')
    void fastify.gateway.drain(drainMs, { stopListening: sharesPort })
  }

  async function list (): Promise<NodeRow[]> {
    if (membership === undefined) {
      const { total } = fastify.sessionManager.countSessions()
      return [{
        id: 'node',
        self: true,
        sessions: total,
        leaseUntil: null,
        info: { draining: fastify.gateway.draining }
      }]
    }
    const { store } = membership
    const nodes = await store.nodes()
    // One after the other: sessions are counted of the nodes that are known by then.
    const counts = nodes === 'unavailable' ? nodes : await store.count()
    if (nodes === 'unavailable' || counts === 'unavailable') {
      throw new HoldfastError('STORE_UNAVAILABLE', { retryAfterMs: 1000 })
    }
    return nodes.map(({ nodeId, leaseUntil, info }) => ({
      id: nodeId,
      self: nodeId === store.nodeId,
      sessions: counts.byNode[nodeId] ?? null,
      leaseUntil: toIso(leaseUntil),
      info: nodeId === store.nodeId ? { ...info, draining: fastify.gateway.draining } : info
    }))
  }

  async function present (id: string): Promise<NodeRow> {
    const node = (await list()).find(one => one.id === id)
    if (node === undefined) throw new HoldfastError('NODE_NOT_FOUND')
    return node
  }

  membership?.asking.on('drain', async () => {
    drain()
    return true
  })

  scope.get('/nodes', {
    schema: {
      summary: 'Lists the nodes',
      tags: ['nodes'],
      querystring: NoQuery,
      response: { 200: NodesAnswer, ...errorAnswers() }
    }
  }, async () => ({ data: await list() }))

  scope.get('/nodes/:id', {
    schema: {
      summary: 'Shows a node',
      tags: ['nodes'],
      params: NodeParams,
      querystring: NoQuery,
      response: { 200: NodeAnswer, ...errorAnswers(), 404: NOT_FOUND }
    }
  }, async ({ params: { id } }) => await present(id))

  scope.post('/nodes/:id/drain', {
    schema: {
      summary: 'Drains a node',
      description: 'It takes no more clients and sends those it has to other nodes (P-48), until its process ends.',
      tags: ['nodes'],
      params: NodeParams,
      querystring: NoQuery,
      response: { 202: DrainAnswer, ...errorAnswers(), 404: NOT_FOUND }
    }
  }, async ({ params: { id } }, reply) => {
    const { self } = await present(id)
    if (self) drain()
    else if (typeof await membership?.asking.ask(id, 'drain', null) === 'string') {
      throw new HoldfastError('STORE_UNAVAILABLE', { message: 'The node does not answer.', retryAfterMs: 1000 })
    }
    return reply.code(202).send({ draining: true as const })
  })
}, {
  name: 'holdfast/nodes-api',
  fastify: '5.x',
  encapsulate: true,
  dependencies: ['holdfast/operator-auth', 'holdfast/websocket-gateway'],
  decorators: { fastify: ['sessionManager', 'gateway', 'operatorOnly'] }
})
