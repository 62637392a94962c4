// What the server logs of HTTP requests: one line each, when it is answered, and none for probes
// and scrapes, which come every few seconds for ever. Routes stand in it as they were declared,
// since paths hold ids and queries hold tokens.

import { LogController, type FastifyBaseLogger, type FastifyReply, type FastifyRequest } from 'fastify'
import { addressOfPeer } from './io/names/address.js'

class RequestLog extends LogController {
  constructor () {
    super({ disableRequestLogging: isProbe })
  }

  /** A request that is never answered shows here. */
  override incomingRequest (request: FastifyRequest): void {
    if (!isProbe(request)) request.log.debug({ req: request }, 'incoming request')
  }

  override requestCompleted (error: Error | null | undefined, request: FastifyRequest, reply: FastifyReply): void {
    if (isProbe(request)) return
    const answer = {
      method: request.method,
      route: request.routeOptions.url ?? '(none)',
      statusCode: reply.statusCode,
      responseTime: Math.round(reply.elapsedTime * 10) / 10
    }
    if (error == null) request.log.info(answer, 'request completed')
    else request.log.warn({ ...answer, err: error }, 'answer could not be sent')
  }

  /** Peers that leave in the middle of an answer are everyday. */
  override streamError (error: Error, request: FastifyRequest): void {
    request.log.debug({ err: error }, 'answer was cut short')
  }

  override serviceUnavailable (log: FastifyBaseLogger): void {
    log.debug({}, 'request refused, the instance closes')
  }
}

export function createRequestLog (): LogController {
  return new RequestLog()
}

/** For the `req` of log lines: without the query, where careless clients put tokens. */
export function describeRequest (request: FastifyRequest): object {
  return {
    method: request.method,
    url: pathOf(request.url),
    host: request.host,
    remoteAddress: addressOfPeer(request),
    remotePort: request.socket?.remotePort
  }
}

function isProbe (request: FastifyRequest): boolean {
  const path = pathOf(request.url)
  return path === '/metrics' || path.startsWith('/health/')
}

function pathOf (url: string): string {
  const query = url.indexOf('?')
  return query < 0 ? url : url.slice(0, query)
}
