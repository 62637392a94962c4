import t from 'tap'
import { readRedisUrl } from '../../../src/stores/redis/url.js'

t.test('reads the address of a server, a cluster, and sentinels', async t => {
  t.same(readRedisUrl('redis://127.0.0.1'), {
    kind: 'single',
    tls: false,
    hosts: [{ host: '127.0.0.1', port: 6379 }],
    username: undefined,
    password: undefined,
    db: 0,
    primary: undefined
  })
  t.match(readRedisUrl('rediss://ann:p%40ss:word@[::1]:7000/3'), {
    tls: true, hosts: [{ host: '::1', port: 7000 }], username: 'ann', password: 'p@ss:word', db: 3
  })
  t.match(readRedisUrl('redis://:secret@h'), { username: undefined, password: 'secret' })
  t.match(readRedisUrl('redis+cluster://a:1,b'), {
    kind: 'cluster', hosts: [{ host: 'a', port: 1 }, { host: 'b', port: 6379 }]
  })
  t.match(readRedisUrl('rediss+sentinel://a,b:5/main/2'), {
    kind: 'sentinel', tls: true, hosts: [{ host: 'a', port: 26_379 }, { host: 'b', port: 5 }], primary: 'main', db: 2
  })
})

t.test('says what is wrong with a URL, and never its password', async t => {
  const wrong = {
    'http://h': /redis:\/\//,
    'redis://': /redis:\/\//,
    'redis://:hunter2@h:0': /a host and a port/,
    'redis://:hunter2@h:70000': /a host and a port/,
    'redis://a,b': /several hosts/,
    'redis+sentinel://a': /name of the primary/,
    'redis+cluster://a/1': /one database/,
    'redis://h/x': /number of a database/,
    'redis://h/1/2': /number of a database/,
    'redis://:%hunter2@h': /percent-encoded/
  }
  for (const [url, expected] of Object.entries(wrong)) {
    const result = readRedisUrl(url)
    t.match(result, { problem: expected }, url)
    t.notMatch(result, { problem: /hunter2/ })
  }
})
