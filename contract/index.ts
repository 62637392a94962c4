// `holdfast/contract`: the suite for whoever writes a store.

export { delayed } from './delayed-store.js'
export { onNodeTest, type NodeTestContext } from './node-test.js'
export { createRandom, type Random } from './random.js'
export type { ContractTest, MakeStore, StoreUnderTest, Successor } from './life.js'
export { sessionStoreContract, type ContractOptions } from './session-store.js'
export type {
  CommitBatch, CommitResult, CreateResult, EndResult, Fence, OpenCommand, SessionStore, StoredAccess, StoredOutput,
  StoredProgress, StoredSession, StoredTombstone, StoreHealth, StoreHooks, StoreTraits, WallMillis
} from '../src/io/session/store.js'
