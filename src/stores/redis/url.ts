// Where Redis is, in one URL: `redis://user:password@host:port/db` for a single server, `rediss://`
// with TLS; for a cluster `redis+cluster://host:port,host:port`, for Sentinel
// `redis+sentinel://host:port,host:port/name-of-the-primary/db`, and both with `rediss+`.

export const MAX_PARTITIONS = 1024

export interface RedisAddress {
  readonly kind: 'single' | 'cluster' | 'sentinel'
  readonly tls: boolean
  readonly hosts: readonly { readonly host: string, readonly port: number }[]
  readonly username: string | undefined
  readonly password: string | undefined
  readonly db: number
  /** Name of the primary that the sentinels know. */
  readonly primary: string | undefined
}

const FORM = /^redis(s?)(?:\+(cluster|sentinel))?:\/\/(?:([^@/]*)@)?([^/?#@]+)(?:\/([^?#]*))?$/
const HOST = /^(\[[0-9a-f:.]+\]|[^:[\]\s]+)(?::(\d{1,5}))?$/i

/**
 * The address, or what is wrong with the URL; never with the URL in it, since it has a password.
 */
export function readRedisUrl (url: string): RedisAddress | { readonly problem: string } {
  const found = FORM.exec(url)
  if (found === null) return { problem: 'it is not a redis://, rediss://, redis+cluster:// or redis+sentinel:// URL' }
  const [, tls, scheme = 'single', credentials, list = '', path = ''] = found
  const kind = scheme as RedisAddress['kind']
  const hosts: { host: string, port: number }[] = []
  for (const item of list.split(',')) {
    const [, host, port = kind === 'sentinel' ? '26379' : '6379'] = HOST.exec(item) ?? []
    if (host === undefined || Number(port) < 1 || Number(port) > 65_535) {
      return { problem: `"${item}" is not a host and a port` }
    }
    hosts.push({ host: host.replace(/^\[|\]$/g, ''), port: Number(port) })
  }
  if (kind === 'single' && hosts.length > 1) {
    return { problem: 'it has several hosts; a cluster is written redis+cluster://' }
  }
  const parts = path === '' ? [] : path.split('/')
  const primary = kind === 'sentinel' ? parts.shift() : undefined
  if (kind === 'sentinel' && (primary === undefined || primary === '')) {
    return { problem: 'it lacks the name of the primary, as in redis+sentinel://host:26379/mymaster' }
  }
  const [db = '0', ...rest] = parts
  if (!/^\d{1,5}$/.test(db) || rest.length > 0) return { problem: 'its path is not the number of a database' }
  if (kind === 'cluster' && db !== '0') return { problem: 'a cluster has one database, 0' }
  const names = readCredentials(credentials)
  if (names === undefined) return { problem: 'its name or password is not percent-encoded' }
  return { kind, tls: tls === 's', hosts, ...names, db: Number(db), primary }
}

function readCredentials (text: string | undefined): Pick<RedisAddress, 'username' | 'password'> | undefined {
  if (text === undefined) return { username: undefined, password: undefined }
  const colon = text.indexOf(':')
  const [name, password] = colon === -1 ? [text, undefined] : [text.slice(0, colon), text.slice(colon + 1)]
  try {
    return {
      username: name === '' ? undefined : decodeURIComponent(name),
      password: password === undefined ? undefined : decodeURIComponent(password)
    }
  } catch {
    return undefined
  }
}
