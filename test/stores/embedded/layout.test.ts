// Where the outputs of a session lie in the journal: few and small ones with the progress, the
// others under keys of their own.

import t from 'tap'
import type { StoredProgress } from '../../../src/io/session/store.js'
import { buildBatch, buildStored } from '../../helpers/stored.js'
import {
  advance, assemble, createAssembler, placeOf, printProgress, putBatch, putSession, type Assembled, type Place
} from '../../../src/stores/embedded/layout.js'

/** A journal as a list of keys. */
function createParts () {
  const entries = new Map<string, string>()
  return {
    entries,
    put: (key: string, text: string) => entries.set(key, text),
    delete: (key: string) => entries.delete(key),
    outputKeys: () => [...entries.keys()]
      .filter(key => key.includes('!o!'))
      .map(key => parseInt(key.slice(-14), 16))
      .sort((a, b) => a - b),
    read (): Assembled | undefined {
      let found: Assembled | undefined
      const assembler = createAssembler(read => { found = assemble(read) })
      for (const key of [...entries.keys()].sort()) assembler.take(key, entries.get(key) as string)
      assembler.finish()
      return found
    }
  }
}

function start () {
  const parts = createParts()
  const session = buildStored({ id: 'a' })
  putSession(parts, session)
  let place: Place = placeOf(session)
  let lastSeq = 0
  return {
    ...parts,
    get place () { return place },
    commit (tails: string[], releasedSeq = place.releasedSeq) {
      const prevSeq = lastSeq
      lastSeq += tails.length
      const outputs = tails.map(tail => ({ tail, commandId: 0 })).slice(Math.max(0, releasedSeq - prevSeq))
      const batch = buildBatch({
        id: 'a',
        fence: 1,
        prevSeq,
        outputs,
        progress: { lastSeq, releasedSeq, ackedSeq: releasedSeq }
      })
      const next = advance(place, batch, false)
      putBatch(parts, place, next, batch)
      place = next.place
    },
    held () {
      const read = parts.read()
      if (read === undefined || 'problem' in read) throw new Error(JSON.stringify(read))
      t.same(read.place, place, 'read as it was written')
      return read.session.outputs.map(({ tail }) => tail)
    }
  }
}

t.test('a small output costs no key of its own, and no deletion', async t => {
  const journal = start()
  for (let n = 1; n <= 5; n++) {
    journal.commit([`,"n":${n}}`], n - 1)
    t.same(journal.held(), [`,"n":${n}}`])
    t.same(journal.outputKeys(), [])
  }
})

t.test('the ninth that is held sends all nine to keys of their own; the next begin anew', async t => {
  const journal = start()
  for (let n = 1; n <= 8; n++) journal.commit([`${n}`])
  t.same(journal.outputKeys(), [])
  journal.commit(['9'])
  t.same(journal.outputKeys(), [1, 2, 3, 4, 5, 6, 7, 8, 9])
  journal.commit(['10'])
  t.same(journal.held(), ['1', '2', '3', '4', '5', '6', '7', '8', '9', '10'])
  t.same(journal.outputKeys().length, 9)
})

t.test('released ones go, wherever they lie', async t => {
  const journal = start()
  journal.commit(Array.from({ length: 9 }, (_, n) => `${n + 1}`))
  journal.commit(['10', '11'], 4)
  t.same(journal.outputKeys(), [5, 6, 7, 8, 9])
  t.same(journal.held(), ['5', '6', '7', '8', '9', '10', '11'])
  journal.commit([], 10)
  t.same([journal.outputKeys(), journal.held()], [[], ['11']])
  journal.commit([], 11)
  t.same(journal.held(), [])
})

t.test('a large one has its own key at once, with those before it', async t => {
  const journal = start()
  journal.commit(['small'])
  journal.commit(['x'.repeat(3000)])
  t.same(journal.outputKeys(), [1, 2])
  t.same(journal.held(), ['small', 'x'.repeat(3000)])
})

t.test('tails may hold anything that bytes can be', async t => {
  const journal = start()
  const tails = ['\n', '1!2!', '', '\u00ff\u0000!', '3!\n!']
  journal.commit(tails)
  t.same(journal.held(), tails)
})

t.test('what was cut off behind the progress is a problem, not a session', async t => {
  const journal = start()
  journal.commit(['whole'])
  journal.put('s!a!p', (journal.entries.get('s!a!p') as string).slice(0, -1))
  t.match(journal.read(), { problem: 'session a: the outputs with its progress cannot be read' })
})

t.test('progress is printed as JSON prints it, with every member that there is', async t => {
  const all: Required<StoredProgress> = {
    lastSeq: 12,
    releasedSeq: 7,
    ackedSeq: 6,
    dropped: 1,
    watermark: 9,
    open: [{ id: 8, idempotent: true }, { id: 9, idempotent: false }],
    revision: 5,
    lastActiveAt: 1_764_093_745_123,
    detachedAt: 1_764_093_745_456.5,
    heard: true,
    blame: { strikes: 1, suspicion: 3, suspectedTo: 11 },
    reservedSeq: 64
  }
  const { blame: _blame, reservedSeq: _reservedSeq, ...least } = all
  for (const progress of [all, least, { ...least, open: [], detachedAt: null, heard: false }]) {
    t.equal(printProgress(progress), JSON.stringify(progress))
  }
})
