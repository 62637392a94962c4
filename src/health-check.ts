// `holdfast --healthcheck`: asks the server of this configuration whether it is alive, for
// supervisors that know commands only, such as Docker.
//
// It asks for liveness. A supervisor restarts what is unhealthy, and a node that drains or is busy
// must not be restarted for that: readiness is for load balancers.

import type { Config } from './config.js'

const TIMEOUT_MS = 3000

export interface HealthCheck {
  readonly isHealthy: boolean
  /** One line for people. */
  readonly sentence: string
}

export async function checkHealth (
  { host, port }: Pick<Config, 'host' | 'port'>, timeoutMs = TIMEOUT_MS
): Promise<HealthCheck> {
  if (port === 0) {
    return { isHealthy: false, sentence: 'PORT is 0, any free port, so nobody knows which one to ask: set PORT.' }
  }
  const url = `http://${addressOf(host)}:${port}/health/live`
  try {
    const { status, body } = await fetch(url, { redirect: 'error', signal: AbortSignal.timeout(timeoutMs) })
    await body?.cancel()
    return { isHealthy: status === 200, sentence: `${url} answered ${status}.` }
  } catch (error) {
    return { isHealthy: false, sentence: `${url} did not answer: ${describe(error, timeoutMs)}.` }
  }
}

/** A server that listens on every interface is asked on the loopback. */
function addressOf (host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1'
  if (/^[0:]+$/.test(host)) return '[::1]'
  return host.includes(':') ? `[${host}]` : host
}

/** fetch wraps what the network says. */
function describe (error: unknown, timeoutMs: number): string {
  const { name, message, cause } = error as Error & { cause?: { code?: string, message?: string } }
  if (name === 'TimeoutError') return `no answer within ${timeoutMs} ms`
  return cause?.code ?? cause?.message ?? message
}
