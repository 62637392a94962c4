// What an origin is (RFC 6454), in canonical form, and which ones a server lets in. Browsers send
// the origin of a page with every handshake; no CORS rule protects a WebSocket, so this is the only
// thing between a foreign page and its visitor's session.

import { HoldfastError } from '../errors.js'

/**
 * A scheme, `//` and a host with or without a port; no path, no credentials, nothing in between.
 */
const ORIGIN = /^([a-z][a-z\d+.-]*):\/\/([^\s/?#\\@]*)$/i
/** Schemes that no page is served from, or whose pages send `null`. */
const PAGELESS = new Set(['ws', 'wss', 'ftp', 'blob', 'data', 'javascript', 'mailto', 'about'])
const WILDCARD = '*.'

/**
 * An origin as browsers write it: lower case, without a default port, names in their ASCII form.
 * `null`, which sandboxed and local pages send, is an origin of its own. Schemes of apps and
 * extensions have no default port. Undefined for what is not an origin.
 */
export function canonicalOrigin (text: string): string | undefined {
  if (text === 'null') return text
  const [, scheme = '', authority = ''] = ORIGIN.exec(text) ?? []
  switch (scheme.toLowerCase()) {
    case '': return undefined
    case 'http':
    case 'https': return URL.canParse(text) ? new URL(text).origin : undefined
    case 'file': return authority === '' ? 'file://' : undefined
    default: return authority === '' ? undefined : `${scheme}://${authority}`.toLowerCase()
  }
}

/**
 * Whether a page of this origin was served under the name by which it now calls the server. Behind
 * a proxy that ends TLS the server's own scheme is not known, so the origin's is taken, and with it
 * what the default port is: `Host: app.example:443` and `Origin: https://app.example` are the same.
 *
 * @param origin in canonical form
 */
export function isOriginOfHost (origin: string, host: string | undefined): boolean {
  const scheme = /^https?:\/\//.exec(origin)?.[0]
  return scheme !== undefined && host !== undefined && canonicalOrigin(`${scheme}${host}`) === origin
}

/**
 * Why a text cannot be an entry of a list of allowed origins, to be read after it; undefined if it
 * can.
 */
export function originEntryProblem (entry: string): string | undefined {
  const read = readEntry(entry)
  return typeof read === 'string' ? undefined : read.problem
}

/** `HTTPS://App.Example:443/` is `https://app.example`; of what has a problem, the text itself. */
export function canonicalOriginEntry (entry: string): string {
  const read = readEntry(entry)
  return typeof read === 'string' ? read : entry
}

function readEntry (entry: string): string | { problem: string } {
  if (entry === '*' || entry === 'null') return entry
  // What people copy from an address bar ends so.
  const bare = entry.replace(/\/$/, '')
  const [, scheme, wildcard, rest = ''] = /^([a-z][a-z\d+.-]*:\/\/)?(\*\.)?(.*)$/i.exec(bare) ?? []
  if (scheme === undefined) return { problem: 'is not an origin: the scheme is missing, as in https://app.example' }
  if (PAGELESS.has(scheme.slice(0, -3).toLowerCase())) {
    return { problem: 'is not the origin of a page; pages are served over https or http' }
  }
  if (rest.includes('*')) {
    return {
      problem: 'has a * that is not a whole first label; https://*.app.example is every sub-domain of app.example, ' +
        'and * alone every origin'
    }
  }
  const origin = canonicalOrigin(`${scheme}${rest}`)
  if (origin === undefined) {
    const end = rest.search(/[/?#\\]/)
    const start = end > 0 ? canonicalOrigin(`${scheme}${rest.slice(0, end)}`) : undefined
    return {
      problem: start === undefined ? 'is not an origin such as https://app.example' : `is a URL; its origin is ${start}`
    }
  }
  if (wildcard === undefined) return origin
  const [, , host = ''] = ORIGIN.exec(origin) ?? []
  if (!/^https?:/.test(origin) || /^(?:\[|\d+\.\d+\.\d+\.\d+(?::|$))/.test(host)) {
    return { problem: 'has a * before something that has no sub-domains' }
  }
  return origin.replace('://', `://${WILDCARD}`)
}

/**
 * Tells whether an origin is allowed. An entry is an origin; `*` for every one;
 * `https://*.app.example` for every sub-domain of app.example, of whatever depth and not itself,
 * with that scheme and port.
 *
 * @throws CONFIG_INVALID
 */
export function createOriginMatcher (entries: readonly string[]): (origin: string) => boolean {
  const exact = new Set<string>()
  const wildcards: Array<{ scheme: string, suffix: string }> = []
  for (const text of entries) {
    const entry = readEntry(text)
    if (typeof entry !== 'string') {
      throw new HoldfastError('CONFIG_INVALID', { message: `The origin ${JSON.stringify(text)} ${entry.problem}.` })
    }
    const at = entry.indexOf(`//${WILDCARD}`)
    if (at === -1) exact.add(entry)
    else wildcards.push({ scheme: entry.slice(0, at + 2), suffix: entry.slice(at + 3) })
  }
  if (exact.has('*')) return () => true
  return origin => exact.has(origin) || wildcards.some(({ scheme, suffix }) => {
    // Longer than both: the label in front of the dot is not empty.
    return origin.length > scheme.length + suffix.length && origin.startsWith(scheme) && origin.endsWith(suffix)
  })
}
