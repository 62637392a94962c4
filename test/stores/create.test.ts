import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { loadConfig } from '../../src/config.js'
import { createStore } from '../../src/stores/create.js'

const root = mkdtempSync(join(tmpdir(), 'holdfast-create-'))
t.teardown(() => { rmSync(root, { recursive: true, force: true }) })

const storeOf = (env: Record<string, string>) => createStore(loadConfig({ env, argv: [] }))

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
