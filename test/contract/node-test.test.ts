// The suite as somebody without tap runs it: on node:test, in a process of its own.

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import t from 'tap'
import { sessionStoreContract } from '../../contract/index.js'
import { createMemoryStore } from '../../src/stores/memory.js'
import { UNCOUNTED } from '../helpers/uncounted.js'

const run = promisify(execFile)

async function runOnNode (body: string): Promise<{ code: number, printed: string }> {
  const script = `
    import { test } from 'node:test'
    import { onNodeTest, sessionStoreContract } from './contract/index.ts'
    import { createMemoryStore } from './src/stores/memory.ts'
    ${body}`
  const options = { cwd: process.cwd(), env: { ...process.env, ...UNCOUNTED, NODE_OPTIONS: '', NODE_TEST_CONTEXT: '' } }
  return await run(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', script], options)
    .then(({ stdout }) => ({ code: 0, printed: stdout }))
    .catch(({ code, stdout }: { code: number, stdout: string }) => ({ code, printed: stdout }))
}

t.test('a store that keeps the rules passes', async t => {
  const { code, printed } = await runOnNode(`
    test('mine', t => sessionStoreContract(onNodeTest(t), () => ({ store: createMemoryStore() }), { histories: 2 }))`)
  t.equal(code, 0, printed)
  t.match(printed, /# fail 0/)
  t.match(printed, /S-5 a repeated batch is kept once/)
})

t.test('options that would run other tests than were asked for are refused', async t => {
  const makeStore = () => ({ store: createMemoryStore() })
  for (const [options, message] of [
    [{ historys: 100 }, /^historys is not an option .*; did you mean histories\?/], [{ histories: NaN }, /^histories /]
  ] as const) {
    await t.rejects(sessionStoreContract(t, makeStore, options as object), { code: 'CONFIG_INVALID', message })
  }
})

t.test('a store that keeps everything fails', async t => {
  const { code, printed } = await runOnNode(`
    const credulous = () => ({ ...createMemoryStore(), commit: async () => 'kept' })
    test('mine', t => sessionStoreContract(onNodeTest(t), () => ({ store: credulous() }), { histories: 2 }))`)
  t.equal(code, 1)
  for (const rule of ['S-3 another fence is refused', 'S-5 a gap names', 'S-1 to S-7 in random history']) {
    t.match(printed, new RegExp(`not ok \\d+ - ${rule}`))
  }
})
