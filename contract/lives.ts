// S-7 to S-9: what comes back in the next life of a store, and what happens while it cannot write.

import { buildBatch, buildStored, buildTombstone, NO_PROGRESS, print, randomAccess, randomJson } from './forms.js'
import { answerOf } from './histories.js'
import {
  create, follow, type Cases, type ContractTest, type Life, type StoreUnderTest, type Successor
} from './life.js'
import { createRandom, randomBytes } from './random.js'

export const LIVES: Cases = {
  'S-7 S-9 everything kept comes back after a close': (t, under, life) => comeBack(t, under, life, 'closed'),
  'S-7 everything kept comes back after a kill': (t, under, life) => comeBack(t, under, life, 'killed'),

  'S-22 what the owner may have given ahead of its batches is known to the next one': async (t, under, life) => {
    const fence = await create(life.store, buildStored({ id: 'one' }))
    const batch = buildBatch({ id: 'one', fence, progress: { lastSeq: 1, reservedSeq: 5 } }, 'a')
    t.equal(await answerOf(() => life.store.commit(batch)), 'kept')
    const further = { lastSeq: 2, reservedSeq: 9 }
    const second = buildBatch({ id: 'one', fence, prevSeq: 1, progress: further }, 'b')
    t.equal(await answerOf(() => life.store.commit(second)), 'kept')
    const next = await follow(t, under, life, 'killed')
    if (next === undefined) return
    const found = next.restored.get('one')?.progress
    t.equal(Math.max(found?.lastSeq ?? 0, found?.reservedSeq ?? 0), 9)
    const filled = Array.from({ length: 9 - (found?.lastSeq ?? 9) }, () => 'gap')
    const claimed = next.fences.get('one') as number
    const fill = buildBatch({ id: 'one', fence: claimed, prevSeq: found?.lastSeq ?? 0 }, ...filled, 'c')
    t.equal(await answerOf(() => next.store.commit(fill)), 'kept')
    const last = await follow(t, under, next, 'closed')
    t.equal(last?.restored.get('one')?.progress.lastSeq, 10)
    t.equal(last?.restored.get('one')?.progress.reservedSeq, undefined, 'what is numbered is not reserved')
    t.equal(last?.restored.get('one')?.outputs.length, 10)
  },

  'S-7 a session lives on through many lives': async (t, under, life) => {
    let current = life
    let fence = await create(current.store, buildStored({ id: 'one' }))
    for (let seq = 0; seq < 5; seq++) {
      const batch = buildBatch({ id: 'one', fence, prevSeq: seq }, `${seq + 1}`)
      t.equal(await answerOf(() => current.store.commit(batch)), 'kept')
      const next = await follow(t, under, current, seq % 2 === 0 ? 'killed' : 'closed')
      if (next === undefined) return
      t.equal(next.restored.get('one')?.outputs.length, seq + 1)
      const former = fence
      fence = next.fences.get('one') as number
      if (former !== fence) {
        const stale = buildBatch({ id: 'one', fence: former, prevSeq: seq + 1 }, 'stale')
        t.equal(await answerOf(() => next.store.commit(stale)), 'fenced', 'the owner before is refused')
      }
      current = next
    }
  },

  'S-7 tombstones come back as they were': async (t, under, life) => {
    const whole = buildTombstone('one', {
      userId: 'ž 🦊',
      reason: 'ended_by_operator',
      lastCommand: 2 ** 40,
      note: 'why\n„so“',
      tokenHash: 'a',
      previousTokenHash: 'b'
    })
    const plain = buildTombstone('two')
    for (const tombstone of [whole, plain]) {
      const fence = await create(life.store, buildStored({ id: tombstone.id, outputs: [], context: { gone: true } }))
      t.equal(await answerOf(() => life.store.commit(buildBatch({ id: tombstone.id, fence }, 'a', 'b'))), 'kept')
      t.equal(await life.store.end(tombstone.id, fence, tombstone), 'ended')
    }
    const next = await follow(t, under, life, 'killed')
    if (next === undefined) return
    t.same(next.restored.size, 0, 'and nothing of their sessions')
    t.equal(print([next.buried.get('one'), next.buried.get('two')]), print([whole, plain]))
  },

  'S-7 values of every width come back as they were': async (t, under, life) => {
    const random = createRandom(1)
    const everyByte = Array.from({ length: 256 }, (_, code) => String.fromCharCode(code)).join('')
    const tails = ['', everyByte, everyByte.repeat(5000), randomBytes(random, 33_000), '\u0000', ',"a":"\u00c3\u00a4"}']
    const huge = Number.MAX_SAFE_INTEGER
    const sessions = [
      buildStored({ id: 'x'.repeat(64), userId: '🦊'.repeat(64), generation: 'ä'.repeat(100) }),
      buildStored({ id: '_', context: { text: '\u0000\u2028"\\😀'.repeat(10_000) } }),
      buildStored({ id: '-', context: randomJson(random), access: randomAccess(random), profile: 'basic' }),
      buildStored({
        id: 'far',
        progress: {
          ...NO_PROGRESS,
          lastSeq: huge,
          releasedSeq: huge - 2,
          ackedSeq: huge - 3,
          watermark: huge,
          dropped: huge,
          detachedAt: 0
        },
        outputs: [{ tail: 'a', commandId: huge }, { tail: 'b', commandId: 0 }]
      })
    ]
    for (const session of sessions) await create(life.store, session)
    const outputs = tails.map((tail, commandId) => ({ tail, commandId }))
    const fence = await create(life.store, buildStored({ id: 'outputs' }))
    t.equal(await answerOf(() => life.store.commit(buildBatch({ id: 'outputs', fence, outputs }))), 'kept')
    const next = await follow(t, under, life, 'killed')
    if (next === undefined) return
    for (const session of sessions) t.equal(print(next.restored.get(session.id)), print(session))
    t.equal(print(next.restored.get('outputs')?.outputs), print(outputs))
  },

  'S-7 a large batch is whole, and its outputs go when they are released': async (t, under, life) => {
    const fence = await create(life.store, buildStored({ id: 'one' }))
    const tails = Array.from({ length: 10_000 }, (_, index) => `,"n":${index + 1}}`)
    t.equal(await answerOf(() => life.store.commit(buildBatch({ id: 'one', fence }, ...tails))), 'kept')
    const next = await follow(t, under, life, 'killed')
    if (next === undefined) return
    t.equal(print(next.restored.get('one')?.outputs), print(tails.map(tail => ({ tail, commandId: 0 }))))
    const claimed = next.fences.get('one') as number
    const progress = { lastSeq: 10_000, releasedSeq: 9_999, ackedSeq: 9_999 }
    const release = buildBatch({ id: 'one', fence: claimed, prevSeq: 10_000, progress })
    t.equal(await answerOf(() => next.store.commit(release)), 'kept')
    const last = await follow(t, under, next, 'closed')
    t.equal(print(last?.restored.get('one')?.outputs), print([{ tail: ',"n":10000}', commandId: 0 }]))
  },

  'S-7 a batch whose outputs were partly dropped before it was kept': async (t, under, life) => {
    const fence = await create(life.store, buildStored({ id: 'one' }))
    t.equal(await answerOf(() => life.store.commit(buildBatch({ id: 'one', fence }, 'a', 'b'))), 'kept')
    const progress = { lastSeq: 6, releasedSeq: 5, dropped: 5 }
    const dropped = buildBatch({ id: 'one', fence, prevSeq: 2, progress }, 'f')
    t.equal(await answerOf(() => life.store.commit(dropped)), 'kept')
    const all = buildBatch({ id: 'one', fence, prevSeq: 6, progress: { lastSeq: 9, releasedSeq: 9, dropped: 9 } })
    const middle = await follow(t, under, life, 'killed')
    if (middle === undefined) return
    t.same(middle.restored.get('one')?.outputs, [{ tail: 'f', commandId: 0 }])
    const claimed = { ...all, fence: middle.fences.get('one') as number }
    t.equal(await answerOf(() => middle.store.commit(claimed)), 'kept')
    const last = await follow(t, under, middle, 'closed')
    t.same(last?.restored.get('one')?.outputs, [])
    t.equal(last?.restored.get('one')?.progress.lastSeq, 9)
  }
}

export const FAULTS: Cases = {
  'S-8 a failing store answers unavailable and says so; mended, it keeps everything again': async (t, under, life) => {
    const { store, health } = life
    if (under.breakDown === undefined) {
      t.equal(store.traits.survives, 'nothing', 'only what survives nothing has nothing under it')
      return
    }
    const fence = await create(store, buildStored({ id: 'one' }))
    const doomed = await create(store, buildStored({ id: 'doomed' }))
    t.equal(await answerOf(() => store.commit(buildBatch({ id: 'one', fence }, 'a'))), 'kept')
    await under.breakDown()
    const batch = buildBatch({ id: 'one', fence, prevSeq: 1 }, 'b')
    t.equal(await answerOf(() => store.commit(batch)), 'unavailable')
    t.equal(await answerOf(() => store.create(buildStored({ id: 'two' }))), 'unavailable')
    t.equal(await answerOf(() => store.end('doomed', doomed, buildTombstone('doomed'))), 'unavailable')
    t.equal(store.health() === 'ok', false)
    t.equal(health.length > 0 && health[0]?.error instanceof Error, true, 'operators are told why')
    if (under.mend === undefined) return
    await under.mend()
    await life.becomes('ok')
    t.equal(await answerOf(() => store.commit(batch)), 'kept', 'the same batch')
    t.equal(['created', 'exists'].includes(await answerOf(() => store.create(buildStored({ id: 'two' })))), true)
    const ended = await answerOf(() => store.end('doomed', doomed, buildTombstone('doomed')))
    t.equal(['ended', 'missing'].includes(ended), true, ended)
    const next = await follow(t, under, life, 'closed')
    t.same(next?.restored.get('one')?.outputs.map(({ tail }) => tail), ['a', 'b'])
    t.same([...next?.restored.keys() ?? []].sort(), ['one', 'two'])
    t.same([...next?.buried.keys() ?? []], ['doomed'])
  },

  'S-9 writes are unavailable after close, and a second close does nothing': async (t, _, { store }) => {
    const fence = await create(store, buildStored({ id: 'one' }))
    await store.close()
    t.equal(await answerOf(() => store.create(buildStored({ id: 'two' }))), 'unavailable')
    t.equal(await answerOf(() => store.commit(buildBatch({ id: 'one', fence }, 'a'))), 'unavailable')
    t.equal(await answerOf(() => store.end('one', fence, buildTombstone('one'))), 'unavailable')
    await store.close()
  },

  'S-9 close waits for the writes under way': async (t, under, life) => {
    const { store } = life
    const fence = await create(store, buildStored({ id: 'one' }))
    const commit = answerOf(() => store.commit(buildBatch({ id: 'one', fence }, 'a')))
    await store.close()
    t.equal(await commit, 'kept')
    const next = await follow(t, under, life, 'closed')
    if (next !== undefined) t.equal(next.restored.get('one')?.outputs.length, 1)
  }
}

async function comeBack (t: ContractTest, under: StoreUnderTest, life: Life, how: Successor): Promise<void> {
  const context = { draft: 7, nested: { list: [1, 'two', null] } }
  const access = { labels: { roles: ['a', 'b'] }, tokenHash: 'new', previousTokenHash: 'old' }
  const fence = await create(life.store, buildStored({ id: 'one', context }))
  const outputs = [{ tail: ',"type":"result"}', commandId: 3 }, { tail: ',"type":"message"}', commandId: 0 }]
  const progress = {
    lastSeq: 2,
    releasedSeq: 0,
    watermark: 4,
    open: [{ id: 4, idempotent: true }],
    revision: 3,
    detachedAt: 1,
    heard: true
  }
  t.equal(await answerOf(() => life.store.commit(buildBatch({ id: 'one', fence, access, outputs, progress }))), 'kept')
  await create(life.store, buildStored({ id: 'two', userId: 'bob' }))
  const next = await follow(t, under, life, how)
  if (next === undefined) return
  t.equal(print([...next.restored.values()].sort((a, b) => a.id < b.id ? -1 : 1)), print([
    buildStored({ id: 'one', context, access, outputs, progress: { ...NO_PROGRESS, ...progress } }),
    buildStored({ id: 'two', userId: 'bob' })
  ]))
  t.equal(next.store.health(), 'ok')
}
