// Which pages may connect. Browsers send an Origin, and no CORS rule protects a WebSocket: a
// foreign page must not speak for its visitor.

import type { FastifyRequest } from 'fastify'
import { HoldfastError } from '../../src/io/errors.js'
import { canonicalOrigin, createOriginMatcher, isOriginOfHost } from '../../src/io/names/origin.js'
import { isLoopbackHost } from '../../src/loopback.js'

export interface OriginCheckOptions {
  /** Entries as of src/io/names/origin.ts. */
  allowedOrigins: readonly string[]
  /**
   * Browsers have to call the server by a loopback name; for servers that take everybody on this
   * machine for the placeholder user.
   */
  loopbackHostOnly: boolean
}

/** The check throws ORIGIN_FORBIDDEN. */
export function createOriginCheck ({ allowedOrigins, loopbackHostOnly }: OriginCheckOptions): (
  request: Pick<FastifyRequest, 'headers' | 'host'>
) => void {
  const isAllowed = createOriginMatcher(allowedOrigins)
  return ({ headers: { origin: text, host }, host: forwardedHost }) => {
    if (text === undefined) return
    const origin = canonicalOrigin(text)
    if (isAllowed(origin ?? '')) return
    // A trusted proxy may have put another name into Host; then it says which one the page used.
    const own = origin === undefined ? undefined : [host, forwardedHost].find(name => isOriginOfHost(origin, name))
    // A page whose name was made to resolve to this machine is its own origin too.
    if (own !== undefined && (!loopbackHostOnly || isLoopbackHost(own))) return
    throw new HoldfastError('ORIGIN_FORBIDDEN')
  }
}
