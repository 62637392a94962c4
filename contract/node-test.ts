// The suite on node:test, for projects without tap.

import { deepStrictEqual, strictEqual } from 'node:assert/strict'
import type { ContractTest } from './life.js'

/** The part of node:test's TestContext that is used. */
export interface NodeTestContext {
  test(name: string, run: (context: NodeTestContext) => Promise<void>): Promise<void>
  after(callback: () => void | Promise<void>): void
}

/** `test('my store', t => sessionStoreContract(onNodeTest(t), makeStore))` */
export function onNodeTest (context: NodeTestContext): ContractTest {
  return {
    test: (name, run) => context.test(name, inner => run(onNodeTest(inner))),
    equal: strictEqual,
    same: deepStrictEqual,
    teardown: callback => context.after(callback)
  }
}
