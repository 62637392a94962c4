// The form of an upgrade request (RFC 6455, section 4.2.1). Node checks little of it: without this,
// HTTP/1.0, two Host headers, or a body that is then read as frames would get through.

import type { IncomingMessage } from 'node:http'
import { HoldfastError } from '../../src/io/errors.js'

/** 16 bytes in base64. */
const KEY = /^[+/0-9A-Za-z]{22}==$/

/** @throws UPGRADE_REQUIRED, BAD_HANDSHAKE */
export function checkForm (raw: IncomingMessage): void {
  const { headers } = raw
  if (headers.upgrade?.toLowerCase() !== 'websocket') throw new HoldfastError('UPGRADE_REQUIRED')
  const isWellFormed = raw.httpVersion === '1.1' && countHosts(raw.rawHeaders) === 1 &&
    headers['content-length'] === undefined && headers['transfer-encoding'] === undefined &&
    String(headers['sec-websocket-version']) === '13' && KEY.test(headers['sec-websocket-key'] ?? '')
  if (!isWellFormed) throw new HoldfastError('BAD_HANDSHAKE')
}

/** Node keeps the first of several; a request of `inject` has no raw headers. */
function countHosts (rawHeaders: readonly string[] | undefined): number {
  if (rawHeaders === undefined) return 1
  let hosts = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    if (name.length === 4 && name.toLowerCase() === 'host') hosts++
  }
  return hosts
}
