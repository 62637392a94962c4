// The head of a request as bytes, without its wish to upgrade: such as the `Upgrade: h2c` of Java's
// HTTP client.

import type { IncomingMessage } from 'node:http'

/** Hop-by-hop headers of another protocol's upgrade; `connection` loses the same names. */
const UPGRADE_HEADERS = ['upgrade', 'http2-settings']

/** Everything else stays as it came, byte by byte. */
export function withoutUpgrade ({ method, url, httpVersion, rawHeaders }: IncomingMessage): Buffer {
  const lines = [`${method} ${url} HTTP/${httpVersion}`]
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const [name, value] = [rawHeaders[i] as string, rawHeaders[i + 1] as string]
    const kept = name.toLowerCase() === 'connection' ? otherOptions(value) : value
    if (!UPGRADE_HEADERS.includes(name.toLowerCase()) && kept !== undefined) lines.push(`${name}: ${kept}`)
  }
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
}

function otherOptions (connection: string): string | undefined {
  const kept = connection.split(',')
    .map(token => token.trim())
    .filter(token => !UPGRADE_HEADERS.includes(token.toLowerCase()))
  return kept.length === 0 ? undefined : kept.join(', ')
}
