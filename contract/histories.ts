// Random histories of owners and their store, with the model beside them. Owners do what a node
// does: they give seqs, hold outputs, repeat writes whose answers were lost, fill gaps; and what a
// stale node does, which has to be refused.

import type { CommitBatch, SessionStore, StoredSession } from '../src/io/session/store.js'
import { buildStored, buildTombstone, print, randomAccess, randomJson, randomOutput } from './forms.js'
import { createModel, type Model } from './model.js'
import { advance, batchOf, type Owner } from './owner.js'
import { oneOf, upTo, type Random } from './random.js'

export interface Write { readonly expected: string, readonly what: string, readonly answer: Promise<string> }

export interface History {
  readonly model: Model
  /**
   * A few writes, none of which waits for another. The owners take the answers in before the
   * promise resolves.
   */
  burst(store: SessionStore): Promise<Write[]>
  /** The sessions got new fences from another life of the store. */
  claimed(fences: ReadonlyMap<string, number>): void
}

/** The answer in one word, also of a store that throws. */
export async function answerOf (act: () => unknown): Promise<string> {
  try {
    const answer = await act()
    if (typeof answer === 'string') return answer
    return 'fence' in (answer as object) ? 'created' : print(answer)
  } catch (error) {
    return `threw ${String(error)}`
  }
}

const textOf = (answer: string | object): string => typeof answer === 'string' ? answer : print(answer)

export function createHistory (random: Random, prefix: string): History {
  const model = createModel()
  const owners = new Map<string, Owner>()
  const ids: string[] = []

  function create (store: SessionStore): Write[] {
    const again = ids.length > 0 && random() < 0.2
    const id = again ? oneOf(random, ids) : `${prefix}-${ids.length}_${upTo(random, 1e9).toString(36)}`
    const whole = randomSession(random, id)
    const expected = model.create(whole)
    const answer = Promise.resolve(store.create(whole)).then(result => {
      if (typeof result === 'string') return result
      model.claimed(id, result.fence)
      owners.set(id, {
        session: whole,
        fence: result.fence,
        keptSeq: whole.progress.lastSeq,
        lastBatch: undefined,
        changed: { context: false, access: false }
      })
      return 'created'
    })
    if (!again) ids.push(id)
    return [{ expected, what: `create ${id}`, answer: answerOf(() => answer) }]
  }

  function send (store: SessionStore, owner: Owner, batch: CommitBatch, { answerLost = false } = {}): Write {
    const expected = textOf(model.commit(batch))
    owner.lastBatch = batch
    const answer = store.commit(batch).then(result => {
      if (answerLost) return result
      if (result === 'kept' && owner.lastBatch === batch) {
        owner.keptSeq = batch.progress.lastSeq
        owner.changed = { context: false, access: false }
      } else if (typeof result === 'object') owner.keptSeq = Math.min(result.gap, owner.session.progress.lastSeq)
      return result
    })
    const what = `commit ${batch.id} ${batch.prevSeq}+${batch.outputs.length}=${batch.progress.lastSeq}`
    return { expected, what, answer: answerOf(() => answer) }
  }

  /** Several commits in a row, each of which takes it that the ones before are kept (S-6). */
  function pipeline (store: SessionStore, owner: Owner): Write[] {
    const writes: Write[] = []
    for (let count = 1 + upTo(random, 3); count > 0; count--) {
      const batch = advance(owner, random)
      writes.push(send(store, owner, batch))
      if (writes.at(-1)?.expected !== 'kept') break
      owner.keptSeq = batch.progress.lastSeq
    }
    return writes
  }

  function end (store: SessionStore, owner: Owner, fence: number): Write[] {
    const tombstone = buildTombstone(owner.session.id, {
      userId: owner.session.userId,
      reason: oneOf(random, ['idle', 'ended_by_operator', 'quota']),
      lastCommand: upTo(random, 100),
      ...(random() < 0.5 ? {} : { note: 'Said „end“ 🦊' }),
      tokenHash: random() < 0.5 ? null : 'abc'
    })
    const expected = model.end(owner.session.id, fence, tombstone)
    const answer = store.end(owner.session.id, fence, tombstone)
    return [{ expected, what: `end ${owner.session.id}`, answer: answerOf(() => answer) }]
  }

  /** One thing that happens to a session; after its end everything is refused. */
  function step (store: SessionStore, owner: Owner): Write[] {
    const choice = random()
    if (choice < 0.5) return pipeline(store, owner)
    if (choice < 0.62) return [send(store, owner, advance(owner, random), { answerLost: true })]
    if (choice < 0.77) {
      const again = owner.lastBatch?.fence === owner.fence ? owner.lastBatch : batchOf(owner)
      return [send(store, owner, again)]
    }
    if (choice < 0.84) {
      // The store has lost its last answers, or never had them.
      owner.keptSeq = upTo(random, owner.session.progress.lastSeq)
      return [send(store, owner, batchOf(owner))]
    }
    if (choice < 0.92) {
      const batch = { ...batchOf(owner), fence: owner.fence + oneOf(random, [-1, 1]) }
      const expected = textOf(model.commit(batch))
      return [{ expected, what: `stale commit ${batch.id}`, answer: answerOf(() => store.commit(batch)) }]
    }
    if (choice < 0.94) return end(store, owner, owner.fence + 1)
    return choice < 0.97 ? end(store, owner, owner.fence) : []
  }

  return {
    model,
    async burst (store) {
      const writes: Write[] = []
      if (ids.length === 0 || random() < 0.3) writes.push(...create(store))
      const present = [...owners.values()]
      for (let count = upTo(random, 6); count > 0 && present.length > 0; count--) {
        const [owner] = present.splice(upTo(random, present.length - 1), 1)
        writes.push(...step(store, owner as Owner))
      }
      await Promise.all(writes.map(({ answer }) => answer))
      return writes
    },
    claimed (fences) {
      for (const [id, fence] of fences) {
        model.claimed(id, fence)
        const owner = owners.get(id)
        if (owner !== undefined) owner.fence = fence
      }
    }
  }
}

function randomSession (random: Random, id: string): StoredSession {
  const outputs = Array.from({ length: random() < 0.8 ? 0 : upTo(random, 5) }, () => randomOutput(random))
  const session = buildStored({
    id,
    userId: oneOf(random, ['ann', 'Ćao 🦊', 'u'.repeat(128)]),
    profile: oneOf(random, ['full', 'basic']),
    context: random() < 0.5 ? {} : randomJson(random),
    ...(random() < 0.5 ? {} : { access: randomAccess(random) }),
    outputs
  })
  return { ...session, progress: { ...session.progress, lastSeq: outputs.length } }
}
