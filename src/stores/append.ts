// How a batch meets what a store has of its session already (S-5), for the stores of one process.

import type { CommitBatch } from '../io/session/store.js'
import type { Seq } from '../io/types.js'

/**
 * `append`: it follows. `repeat`: the store has its outputs, and takes its progress. `late`: a
 * newer batch was kept meanwhile, so there is nothing to take. A number: a gap, and what the store
 * ends with.
 */
export type Meeting = 'append' | 'repeat' | 'late' | { readonly gap: Seq }

export function meet (lastSeq: Seq, { prevSeq, progress }: CommitBatch): Meeting {
  if (progress.lastSeq === lastSeq) return 'repeat'
  if (progress.lastSeq < lastSeq) return 'late'
  return prevSeq === lastSeq ? 'append' : { gap: lastSeq }
}
