// Tells a supervisor whether this process lives, and a load balancer whether to send it anyone.
// Live: the event loop answers. Ready: not draining, not under pressure, and every check passes.
// Nobody has to be an operator for it, it counts towards no limit and leaves no line in the log; in
// exchange it says nothing but these words.

import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import fp from 'fastify-plugin'
import { Type } from 'typebox'
import type { MaybePromise } from '../src/io/types.js'
import { anObject, checkPluginOptions, milliseconds, type OptionCheck } from '../src/option-checks.js'
import type {} from './load-shedding.js'
import type {} from './websocket-gateway.js'
import { strictValidatorCompiler } from './schemas/validation.js'

export interface HealthOptions {
  /**
   * What has to work beside the process itself, by name, such as `store`. Asked at each request for
   * readiness; false, a throw or `checkTimeoutMs` without an answer is a failure.
   */
  checks?: Record<string, () => MaybePromise<boolean>>
  /** Default 1000; 1 to 600,000. */
  checkTimeoutMs?: number
}

const CHECKS: Record<keyof HealthOptions, OptionCheck> = {
  checks: {
    is: value => anObject.is(value) && Object.values(value as object).every(check => typeof check === 'function'),
    expected: 'an object of functions by name'
  },
  checkTimeoutMs: milliseconds(1, 600_000)
}

const NoQuery = Type.Object({}, { additionalProperties: true })
const Live = Type.Object({ status: Type.Literal('ok') }, { description: 'The process is alive.' })
const Ready = Type.Object({ status: Type.Literal('ready') }, { description: 'The node accepts clients.' })
const NotReady = Type.Object({
  status: Type.Literal('not_ready'),
  reasons: Type.Array(
    Type.String({ description: 'draining, store_unavailable, under_pressure, or the name of a check that failed.' }),
    { minItems: 1 }
  )
}, { description: 'The node accepts no clients; the reasons say why.' })

export default fp<HealthOptions>(async function health (fastify, options) {
  checkPluginOptions('holdfast/health', options, CHECKS)
  const { checks = {}, checkTimeoutMs = 1000 } = options
  const scope = fastify.withTypeProvider<TypeBoxTypeProvider>()
  scope.setValidatorCompiler(strictValidatorCompiler)
  // Under pressure every route is answered 503, and a supervisor would take that for a dead
  // process.
  const config = { shedLoad: false }

  scope.get('/health/live', {
    config,
    logLevel: 'warn',
    schema: {
      summary: 'Whether the process lives',
      tags: ['health'],
      security: [],
      querystring: NoQuery,
      response: { 200: Live }
    }
  }, async (_request, reply) => {
    reply.header('cache-control', 'no-store')
    return { status: 'ok' as const }
  })

  scope.get('/health/ready', {
    config,
    logLevel: 'warn',
    schema: {
      summary: 'Whether the node takes clients',
      description: 'False from the start of a drain on (P-48), before the first connection is closed.',
      tags: ['health'],
      security: [],
      querystring: NoQuery,
      response: { 200: Ready, 503: NotReady }
    }
  }, async (_request, reply) => {
    reply.header('cache-control', 'no-store')
    const reasons: string[] = []
    if (fastify.gateway.draining) reasons.push('draining')
    if (!fastify.sessionInternals.sessions.committer.isAvailable) reasons.push('store_unavailable')
    if (fastify.hasDecorator('isUnderPressure') && fastify.isUnderPressure()) reasons.push('under_pressure')
    reasons.push(...await failedChecks(checks, checkTimeoutMs))
    if (reasons.length === 0) return { status: 'ready' as const }
    return reply.code(503).send({ status: 'not_ready' as const, reasons })
  })
}, {
  name: 'holdfast/health',
  fastify: '5.x',
  encapsulate: true,
  dependencies: ['holdfast/websocket-gateway'],
  decorators: { fastify: ['gateway'] }
})

async function failedChecks (checks: Required<HealthOptions>['checks'], timeoutMs: number): Promise<string[]> {
  const answers = await Promise.all(Object.entries(checks).map(async ([name, check]) => {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<boolean>(resolve => { timer = setTimeout(resolve, timeoutMs, false) })
    try {
      return { name, passed: await Promise.race([Promise.resolve().then(check), late]) }
    } catch {
      return { name, passed: false }
    } finally {
      clearTimeout(timer)
    }
  }))
  return answers.filter(({ passed }) => !passed).map(({ name }) => name)
}
