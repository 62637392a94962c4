// S-1 to S-6: what is answered to each write.

import { buildBatch, buildStored, buildTombstone, NO_PROGRESS, print } from './forms.js'
import { answerOf } from './histories.js'
import { create, follow, type Cases } from './life.js'

export const WRITES: Cases = {
  'traits and health say what can be relied on': async (t, under, { store }) => {
    t.equal(['nothing', 'process', 'host', 'node'].includes(store.traits.survives), true, store.traits.survives)
    t.equal(typeof store.traits.shared, 'boolean')
    t.equal(store.traits.survives === 'nothing', under.next === undefined, 'what survives comes back')
    t.equal(store.health(), 'ok')
  },

  'S-1 a known id is refused, and nothing of the session changes': async (t, under, life) => {
    const { store } = life
    const fence = await create(store, buildStored({ id: 'one', context: { first: true } }))
    t.equal(await answerOf(() => store.create(buildStored({ id: 'one', context: { first: false } }))), 'exists')
    t.equal(await answerOf(() => store.commit(buildBatch({ id: 'one', fence }, 'a'))), 'kept')
    const next = await follow(t, under, life, 'closed')
    if (next !== undefined) t.same(next.restored.get('one')?.context, { first: true })
  },

  'S-1 one of two simultaneous creations of an id is refused': async (t, _, { store }) => {
    const answers = await Promise.all([1, 2].map(() => answerOf(() => store.create(buildStored({ id: 'one' })))))
    t.same(answers.sort(), ['created', 'exists'])
  },

  'S-1 S-4 the id of an ended session is refused': async (t, under, life) => {
    const { store } = life
    const fence = await create(store, buildStored({ id: 'one' }))
    t.equal(await store.end('one', fence, buildTombstone('one')), 'ended')
    t.equal(await answerOf(() => store.create(buildStored({ id: 'one' }))), 'exists')
    const next = await follow(t, under, life, 'closed')
    if (next === undefined) return
    t.equal(await answerOf(() => next.store.create(buildStored({ id: 'one' }))), 'exists', 'by the next store as well')
  },

  'S-3 another fence is refused, and nothing of the write is kept': async (t, under, life) => {
    const { store } = life
    const fence = await create(store, buildStored({ id: 'one' }))
    for (const other of [fence + 1, fence - 1, -1]) {
      const batch = buildBatch({ id: 'one', fence: other, context: { stale: true } }, 'stale')
      t.equal(await answerOf(() => store.commit(batch)), 'fenced')
      t.equal(await answerOf(() => store.end('one', other, buildTombstone('one'))), 'fenced')
    }
    t.equal(await answerOf(() => store.commit(buildBatch({ id: 'one', fence }, 'a'))), 'kept', 'the owner goes on')
    const next = await follow(t, under, life, 'closed')
    if (next !== undefined) t.same(next.restored.get('one')?.outputs, [{ tail: 'a', commandId: 0 }])
  },

  'S-3 S-4 a session that is not there is missing': async (t, _, { store }) => {
    t.equal(await answerOf(() => store.commit(buildBatch({ id: 'none', fence: 1 }, 'a'))), 'missing')
    t.equal(await answerOf(() => store.end('none', 1, buildTombstone('none'))), 'missing')
    const fence = await create(store, buildStored({ id: 'one' }))
    t.equal(await answerOf(() => store.end('one', fence, buildTombstone('one'))), 'ended')
    t.equal(await answerOf(() => store.end('one', fence, buildTombstone('one'))), 'missing')
    t.equal(await answerOf(() => store.commit(buildBatch({ id: 'one', fence }, 'a'))), 'missing')
  },

  'S-5 a repeated batch is kept once': async (t, under, life) => {
    const { store } = life
    const fence = await create(store, buildStored({ id: 'one' }))
    const batch = buildBatch({ id: 'one', fence }, 'a', 'b')
    for (let time = 0; time < 3; time++) t.equal(await answerOf(() => store.commit(batch)), 'kept')
    t.equal(await answerOf(() => store.commit(buildBatch({ id: 'one', fence, prevSeq: 2 }, 'c'))), 'kept')
    const next = await follow(t, under, life, 'closed')
    if (next !== undefined) t.same(next.restored.get('one')?.outputs.map(({ tail }) => tail), ['a', 'b', 'c'])
  },

  'S-5 a repeated batch brings newer progress, context and access': async (t, under, life) => {
    const { store } = life
    const fence = await create(store, buildStored({ id: 'one' }))
    t.equal(await answerOf(() => store.commit(buildBatch({ id: 'one', fence }, 'a', 'b'))), 'kept')
    const access = { labels: { role: 'lead' }, tokenHash: 'new', previousTokenHash: 'old' }
    const progress = { lastSeq: 2, releasedSeq: 1, ackedSeq: 1, watermark: 9 }
    const repeated = buildBatch({ id: 'one', fence, prevSeq: 0, progress, context: { n: 2 }, access }, 'b')
    t.equal(await answerOf(() => store.commit(repeated)), 'kept')
    const next = await follow(t, under, life, 'closed')
    if (next === undefined) return
    t.equal(print(next.restored.get('one')), print(buildStored({
      id: 'one',
      context: { n: 2 },
      access,
      progress: { ...NO_PROGRESS, ...progress },
      outputs: [{ tail: 'b', commandId: 0 }]
    })))
  },

  'S-5 a gap names what the store ends with, and nothing is kept': async (t, under, life) => {
    const { store } = life
    const fence = await create(store, buildStored({ id: 'one' }))
    t.equal(await answerOf(() => store.commit(buildBatch({ id: 'one', fence }, 'a', 'b'))), 'kept')
    const ahead = buildBatch({ id: 'one', fence, prevSeq: 5, context: { ahead: true } }, 'f')
    t.same(await store.commit(ahead), { gap: 2 })
    const joined = buildBatch({ id: 'one', fence, prevSeq: 1 }, 'b', 'c')
    t.same(await store.commit(joined), { gap: 2 }, 'also where the batch begins before the end')
    t.equal(await answerOf(() => store.commit(buildBatch({ id: 'one', fence, prevSeq: 2 }, 'c'))), 'kept')
    const next = await follow(t, under, life, 'closed')
    if (next === undefined) return
    t.same(next.restored.get('one')?.outputs.map(({ tail }) => tail), ['a', 'b', 'c'])
    t.same(next.restored.get('one')?.context, {})
  },

  'S-5 an older batch that arrives late changes nothing': async (t, under, life) => {
    const { store } = life
    const fence = await create(store, buildStored({ id: 'one' }))
    const older = buildBatch({ id: 'one', fence, progress: { watermark: 1 } }, 'a')
    t.equal(await answerOf(() => store.commit(older)), 'kept')
    const context = { newer: true }
    const newer = buildBatch({ id: 'one', fence, prevSeq: 1, progress: { watermark: 2 }, context }, 'b')
    t.equal(await answerOf(() => store.commit(newer)), 'kept')
    await store.commit({ ...older, context: { older: true } })
    const next = await follow(t, under, life, 'closed')
    if (next === undefined) return
    t.equal(next.restored.get('one')?.progress.watermark, 2)
    t.equal(next.restored.get('one')?.progress.lastSeq, 2)
    t.same(next.restored.get('one')?.context, { newer: true })
  },

  'S-6 commits that do not wait take effect in their order': async (t, under, life) => {
    const { store } = life
    const fence = await create(store, buildStored({ id: 'one' }))
    const commits = Array.from({ length: 200 }, (_, prevSeq) => {
      const progress = { releasedSeq: Math.max(0, prevSeq - 3) }
      return store.commit(buildBatch({ id: 'one', fence, prevSeq, progress }, `${prevSeq + 1}`))
    })
    const ending = store.commit(buildBatch({ id: 'one', fence, prevSeq: 300 }, 'never'))
    t.same(new Set(await Promise.all(commits)), new Set(['kept']))
    t.same(await ending, { gap: 200 })
    const next = await follow(t, under, life, 'closed')
    if (next === undefined) return
    t.same(next.restored.get('one')?.outputs.map(({ tail }) => tail), ['197', '198', '199', '200'])
  },

  'S-3 S-6 a commit behind an end is missing, and the one before is kept': async (t, _, { store }) => {
    const fence = await create(store, buildStored({ id: 'one' }))
    const answers = [
      answerOf(() => store.commit(buildBatch({ id: 'one', fence }, 'a'))),
      answerOf(() => store.end('one', fence, buildTombstone('one'))),
      answerOf(() => store.commit(buildBatch({ id: 'one', fence, prevSeq: 1 }, 'b')))
    ]
    t.same(await Promise.all(answers), ['kept', 'ended', 'missing'])
  }
}
