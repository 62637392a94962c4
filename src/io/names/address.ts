// What the address of a peer is, in canonical form: as it is logged, compared and counted. Proxies
// write addresses in many ways (`ip:port` at Azure's gateway, brackets around IPv6, capital
// letters, IPv4 as `::ffff:1.2.3.4`); each of them must be the same key, or limits by address have
// no effect.

import ipaddr from 'ipaddr.js'
import { HoldfastError } from '../errors.js'

type Parsed = ipaddr.IPv4 | ipaddr.IPv6

const BRACKETED = /^\[([^\]]+)\](?::\d{1,5})?$/
const OCTET = '(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)'
/** Canonical as it stands. */
const PLAIN_IPV4 = new RegExp(`^(?:${OCTET}\\.){3}${OCTET}$`)
const IPV4_WITH_PORT = /^([^:]+):\d{1,5}$/

/** The longest text worth a look: an IPv6 address, its zone, brackets and a port. */
const MAX_LENGTH = 128

/**
 * The address in a text of a proxy or a socket: IPv4 as four numbers, IPv6 as RFC 5952 has it,
 * without port, brackets and zone. Undefined for everything else, such as `unknown`.
 */
export function canonicalAddress (text: string | undefined): string | undefined {
  if (text === undefined) return undefined
  // As sockets say it; taking it apart to print it again costs a twentieth of a handshake.
  return PLAIN_IPV4.test(text) ? text : parse(text)?.toString()
}

function parse (text: string): Parsed | undefined {
  if (text.length > MAX_LENGTH) return undefined
  const plain = unwrap(text.trim())
  // No other form: `010.0.0.1` is octal to some, and `10.1` an address.
  if (ipaddr.IPv4.isValidFourPartDecimal(plain)) return ipaddr.IPv4.parse(plain)
  // A zone names an interface of whoever wrote it; here it would make one address many.
  const [zoneless = ''] = plain.includes(':') ? plain.split('%', 1) : []
  if (!ipaddr.IPv6.isValid(zoneless)) return undefined
  const address = ipaddr.IPv6.parse(zoneless)
  return address.isIPv4MappedAddress() ? address.toIPv4Address() : address
}

function unwrap (text: string): string {
  const quoted = text.length > 1 && text.startsWith('"') && text.endsWith('"') ? text.slice(1, -1) : text
  return BRACKETED.exec(quoted)?.[1] ?? IPV4_WITH_PORT.exec(quoted)?.[1] ?? quoted
}

/**
 * The host to listen on: people write addresses of IPv6 in brackets, as in URLs, and systems take
 * them without.
 */
export function withoutBrackets (host: string): string {
  const inner = /^\[(.*)\]$/.exec(host)?.[1]
  return inner !== undefined && ipaddr.IPv6.isValid(inner) ? inner : host
}

/**
 * A request as far as its peer goes. `ips`: from the socket's address on to the one that is taken
 * for the client's; there behind trusted proxies only.
 */
export interface Peer { readonly ip: string | undefined, readonly ips?: readonly string[] | undefined }

/**
 * The address of the client. Where a trusted proxy wrote something that is not an address, the last
 * one on the way that is, in the end that of the socket. Empty without a socket, as in tests.
 */
export function addressOfPeer (peer: Peer): string {
  return canonicalAddress(peer.ip) ?? peer.ips?.map(canonicalAddress).findLast(address => address !== undefined) ?? ''
}

/**
 * What limits by address count by. Of IPv6 it is the /64: whoever has one address has at least that
 * many, and may take another one for each connection. Behind NAT64 all of IPv4 is within one /64,
 * so that each address counts there.
 *
 * @param address in canonical form
 */
export function limitKeyOf (address: string): string {
  if (!address.includes(':') || ipaddr.IPv6.parse(address).range() === 'rfc6052') return address
  return `${ipaddr.IPv6.networkAddressFromCIDR(`${address}/64`).toString()}/64`
}

/** A range of addresses, canonical: without host bits, and a single address without a length. */
interface Range { readonly text: string, readonly network: Parsed, readonly bits: number }

/**
 * Why a text is not the address or the range of a proxy, to be read after it; undefined if it is.
 */
export function proxyRangeProblem (text: string): string | undefined {
  const range = parseRange(text)
  return typeof range === 'string' ? range : undefined
}

/** `10.0.0.7/8` is `10.0.0.0/8`; of what has a problem, the text itself. */
export function canonicalRange (text: string): string {
  const range = parseRange(text)
  return typeof range === 'string' ? text : range.text
}

function parseRange (text: string): Range | string {
  const [base = '', length, ...rest] = text.split('/')
  if (base.includes('%')) return 'has a zone, which no peer can be told by'
  const address = /[[\]"]/.test(base) || IPV4_WITH_PORT.test(base) ? undefined : parse(base)
  if (address === undefined || rest.length > 0 || (length !== undefined && !/^\d{1,3}$/.test(length))) {
    return 'is neither an IP address nor a CIDR range'
  }
  const most = address.kind() === 'ipv4' ? 32 : 128
  // A range that was written around an IPv4 address in IPv6 counts the 96 bits in front of it.
  const bits = length === undefined ? most : Number(length) - (base.includes(':') && most === 32 ? 96 : 0)
  if (bits > most || bits < 0) return `is not a range: its length is from 0 to ${base.includes(':') ? 128 : 32}`
  if (bits === 0) return 'holds every address, so that each client could choose its own'
  const network = address.kind() === 'ipv4'
    ? ipaddr.IPv4.networkAddressFromCIDR(`${address.toString()}/${bits}`)
    : ipaddr.IPv6.networkAddressFromCIDR(`${address.toString()}/${bits}`)
  return { text: bits === most ? network.toString() : `${network.toString()}/${bits}`, network, bits }
}

/**
 * Tells whether an address, in whatever form a proxy wrote it, is in one of these ranges.
 *
 * @throws CONFIG_INVALID
 */
export function createAddressMatcher (ranges: readonly string[]): (text: string | undefined) => boolean {
  const parsed = ranges.map(range => {
    const read = parseRange(range)
    if (typeof read === 'string') {
      throw new HoldfastError('CONFIG_INVALID', { message: `The proxy ${JSON.stringify(range)} ${read}.` })
    }
    return read
  })
  return text => {
    const address = text === undefined ? undefined : parse(text)
    return address !== undefined &&
      parsed.some(({ network, bits }) => network.kind() === address.kind() && address.match(network, bits))
  }
}
