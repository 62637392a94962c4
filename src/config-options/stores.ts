// Options of where sessions are kept, and of the processes that share them.

import { Type } from 'typebox'
import { MAX_PARTITIONS, readRedisUrl } from '../stores/redis/url.js'
import { option, text, whole } from './option.js'

export const STORE_OPTIONS = {
  store: option({
    env: 'HOLDFAST_STORE',
    schema: Type.Enum(['memory', 'embedded', 'redis']),
    default: 'memory',
    what: 'Where sessions are kept. `memory`: sessions outlive connections, not the process. `embedded`: they ' +
      'also outlive the process, in HOLDFAST_DATA_DIR; setting that is enough. `redis`: they also outlive any ' +
      'one node, in HOLDFAST_REDIS_URL; setting that is enough.'
  }),
  dataDir: option({
    env: 'HOLDFAST_DATA_DIR',
    schema: text(1024),
    default: undefined,
    what: 'Directory of the embedded store; it is made if there is none. On a local disk, for one process at a time.',
    hit: 'the server does not start, and says why; for a disk that fails later `STORE_UNAVAILABLE` until it is mended'
  }),
  durability: option({
    env: 'HOLDFAST_DURABILITY',
    schema: Type.Enum(['process', 'disk']),
    default: 'process',
    what: 'What an answered command survives with the embedded store. `process`: the death of the process. `disk`: ' +
      'also that of the host; each group of writes then waits for the disk.',
    tune: 'Set to `disk` where a power failure must not cost the last seconds.'
  }),
  redisUrl: option({
    env: 'HOLDFAST_REDIS_URL',
    schema: text(),
    default: undefined,
    secret: true,
    what: 'Redis (7.0 or later) or Valkey (7.2 or later) of the redis store: `redis://user:password@host:6379/0`, ' +
      '`rediss://` with TLS, `redis+cluster://host:6379,host:6379`, `redis+sentinel://host:26379,host:26379/primary`.',
    hit: 'the server does not start, and says why; for a Redis that fails later `STORE_UNAVAILABLE` until it is back',
    problem: (url: string) => {
      const address = readRedisUrl(url)
      return 'problem' in address ? address.problem : undefined
    }
  }),
  redisCaFile: option({
    env: 'HOLDFAST_REDIS_CA_FILE',
    schema: text(1024),
    default: undefined,
    what: 'File with the certificate of the authority that signed the one of Redis, as PEM, for a URL with TLS. Not ' +
      'set: the authorities that Node.js trusts.',
    hit: 'the server does not start, and says that the certificate of Redis is not trusted'
  }),
  redisPrefix: option({
    env: 'HOLDFAST_REDIS_PREFIX',
    schema: Type.String({ minLength: 1, maxLength: 64, pattern: '^[A-Za-z0-9._:-]+$' }),
    default: 'holdfast',
    what: 'In front of every key in Redis. The same on all nodes of a deployment; another one for each deployment.'
  }),
  redisPartitions: option({
    env: 'HOLDFAST_REDIS_PARTITIONS',
    schema: whole(1, MAX_PARTITIONS),
    default: 256,
    unit: 'partitions',
    what: 'Parts that sessions are spread over, a power of two. Fixed by the first node that starts with a prefix.',
    hit: 'a node with another number does not start',
    tune: 'Set to 1024 for a Redis cluster of more than eight primaries, before the first start.',
    problem: (count: number) => Number.isInteger(Math.log2(count)) ? undefined : 'it is not a power of two'
  }),
  nodeName: option({
    env: 'HOLDFAST_NODE_NAME',
    schema: Type.String({ minLength: 1, maxLength: 64, pattern: '^[A-Za-z0-9._-]+$' }),
    default: 'node',
    what: 'Name of this node for people, with the redis store; a random part is added at each start.'
  }),
  workers: option({
    env: 'HOLDFAST_WORKERS',
    schema: whole(1, 128),
    default: 1,
    unit: 'processes',
    what: 'Processes that serve together on one port, each a node with limits of its own, so that a machine uses ' +
      'more than one core. More than one needs the redis store.',
    tune: 'Set to the number of cores, less one where Redis runs on the same machine.'
  })
}
