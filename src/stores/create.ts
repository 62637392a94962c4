// The store that the configuration asks for.

import type { SessionStore } from '../io/session/store.js'
import { createEmbeddedStore, type Durability, type EmbeddedStoreOptions } from './embedded/store.js'
import { createMemoryStore } from './memory.js'

/** The members of the configuration that decide. */
export interface StoreConfig {
  readonly store: 'memory' | 'embedded'
  readonly dataDir: string | undefined
  readonly durability: Durability
}

/** The store; it is not open yet, and nothing was made on the disk. */
export function createStore (
  { store, dataDir, durability }: StoreConfig, hooks: Pick<EmbeddedStoreOptions, 'onProgress' | 'onDamaged'> = {}
): SessionStore {
  // The configuration refuses an embedded store without a directory.
  if (store === 'memory' || dataDir === undefined) return createMemoryStore()
  return createEmbeddedStore({ directory: dataDir, durability, ...hooks })
}
