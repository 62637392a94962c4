// Recognises names and addresses of this machine. Without authentication, DNS rebinding is the
// threat: a foreign page can have its own host name resolve to 127.0.0.1 and then talk to a local
// server as same-origin. So code that trusts loopback peers also checks which name they used.

import { BlockList, isIPv4, isIPv6 } from 'node:net'

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8)
loopback.addAddress('::1', 'ipv6')

/** Whether a Host header names this machine: a loopback name or address, with or without a port. */
export function isLoopbackHost (header: string): boolean {
  const [, bracketed, plain] = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::\d{1,5})?$/.exec(header) ?? []
  return bracketed === undefined
    ? isLoopbackName(plain ?? '') && !isIPv6(plain ?? '')
    : isIPv6(bracketed) && isLoopbackAddress(bracketed)
}

/** Whether a name, as an operator configures it, is of this machine alone. */
export function isLoopbackName (name: string): boolean {
  return name.toLowerCase() === 'localhost' || isLoopbackAddress(name)
}

export function isLoopbackAddress (address: string): boolean {
  // A dual-stack socket shows IPv4 peers in this form.
  const plain = address.startsWith('::ffff:') ? address.slice('::ffff:'.length) : address
  return isIPv4(plain) ? loopback.check(plain) : isIPv6(plain) && loopback.check(plain, 'ipv6')
}
