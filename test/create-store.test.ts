import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { loadConfig } from '../src/config.js'
import type { SessionStore, StoreSurroundings } from '../src/io/session/store.js'
import { createStore, redisStore } from '../src/create-store.js'
import { createEmbeddedStore } from '../src/stores/embedded/store.js'
import { systemClock } from '../src/system-clock.js'

const root = mkdtempSync(join(tmpdir(), 'holdfast-create-'))
t.teardown(() => { rmSync(root, { recursive: true, force: true }) })

const SURROUNDINGS: StoreSurroundings = {
  clock: systemClock,
  log: { debug () {}, info () {}, warn () {}, error () {} },
  limits: {
    resumeWindowMs: 60_000, idleTimeoutMs: 60_000, maxSessionsPerUser: 0, outboxMessages: 10, outboxBytes: 1000
  },
  describe: () => ({})
}

function storeOf (env: Record<string, string>): SessionStore {
  const store = createStore(loadConfig({ env, argv: [] }))
  return typeof store === 'function' ? store(SURROUNDINGS) : store
}

t.test('nothing set: memory', async t => {
  t.same(storeOf({}).traits, { survives: 'nothing', shared: false })
})

t.test('a data directory: embedded, with the durability that was asked for', async t => {
  const directory = join(root, 'data')
  t.same(storeOf({ HOLDFAST_DATA_DIR: directory }).traits, { survives: 'process', shared: false })
  const store = storeOf({ HOLDFAST_DATA_DIR: directory, HOLDFAST_DURABILITY: 'disk' })
  t.same(store.traits, { survives: 'host', shared: false })
  t.notOk(existsSync(directory), 'nothing is made before it is opened')
  await store.open({ restore () {}, bury () {}, healthChanged () {} })
  t.ok(existsSync(join(directory, 'journal', 'CURRENT')))
  await store.close()
})

t.test('a URL of Redis: redis, and nothing is connected before it is opened', async t => {
  const store = storeOf({ HOLDFAST_REDIS_URL: 'redis://127.0.0.1:1' })
  t.same(store.traits, { survives: 'node', shared: true })
  t.equal(store.health(), 'degraded')
  t.match(store.newId?.('ann'), /^[a-z2-7]{28}$/)
  await t.rejects(store.open({ restore () {}, bury () {}, healthChanged () {} }))
  await store.close()
})

t.test('an application gives a URL of Redis or a client, and is told what is wrong at once', async t => {
  const refused = (settings: object, message: string | RegExp): void => {
    t.throws(() => redisStore(settings), { code: 'CONFIG_INVALID', message })
  }
  refused({}, 'redisStore takes either a url or a client.')
  refused({ url: 'redis://a', client: { options: { host: 'a' } } }, /either a url or a client/)
  refused({ url: 'http://user:s3cret@a' }, /^The URL of Redis cannot be used: it is not (?!.*s3cret)/)
  refused({ ulr: 'redis://a' }, /ulr is not an option of redisStore; did you mean url/)
  refused({ url: 'redis://a', partitions: 3 }, /partitions of redisStore: 3 is not valid/)
  refused({ url: 'redis://a', prefix: 'a{1}' }, /prefix of redisStore/)
  refused({ url: 'redis://a', nodeName: 'my node' }, /nodeName of redisStore/)
  refused({ url: 'redis://a', ca: 'PEM' }, 'ca of redisStore needs a url with rediss://.')
})

// The options of other libraries have other names, and led to 127.0.0.1 without a word.
t.test('a client of another library is refused', async t => {
  const nodeRedis = { options: { url: 'redis://10.0.0.7', socket: { host: '10.0.0.7' } }, duplicate () {} }
  for (const client of [nodeRedis, { options: {} }, {}, null, 'redis://a']) {
    t.throws(() => redisStore({ client: client as never }), { message: /ioredis or iovalkey/ })
  }
})

t.test('an embedded store is told what is wrong with its options at once', async t => {
  const refused = (options: object, message: RegExp): void => {
    t.throws(() => createEmbeddedStore(options as never), { code: 'CONFIG_INVALID', message })
  }
  refused({}, /directory of createEmbeddedStore is missing/)
  refused({ directory: root, durability: 'fsync' }, /durability .* Expected process or disk/)
  refused({ dirctory: root }, /did you mean directory/)
})
