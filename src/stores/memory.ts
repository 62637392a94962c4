// The default store: one process, nothing survives it (docs/stores.md). The sessions are in this node's directory anyway, so there
// is nothing to keep, and every write is kept on return.

import { HoldfastError } from '../io/errors.js'
import type { SessionStore } from '../io/session/former-store.js'

export function createMemoryStore (): SessionStore {
  return {
    traits: { survives: 'nothing', shared: false },
    add () {},
    commit (record) {
      if (record.ended) return Promise.reject(new HoldfastError('STORE_UNAVAILABLE', { message: 'The session has ended.' }))
    },
    remove () {},
    async close () {}
  }
}
