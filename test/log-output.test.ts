// Lines were written synchronously: a log shipper that stalled held up every session after some 380
// lines. The reader here is the test's.

import t from 'tap'
import { createLogOutput, type LogOutput } from '../src/log-output.js'

const WARN = 40
const FATAL = 60

interface Reader {
  output: LogOutput
  read: () => string
  room: number
  failure: string | undefined
  fatal: string[]
  recovered: number[]
  slept: number
}

/** A reader with room for so many bytes; it takes what fits, as a pipe does. */
function createReader (room: number, maxBufferedBytes = 1000): Reader {
  let text = ''
  const reader: Reader = {
    room,
    failure: undefined,
    fatal: [],
    recovered: [],
    slept: 0,
    read: () => text,
    output: createLogOutput({
      maxBufferedBytes,
      writeSync (data) {
        if (reader.failure !== undefined) throw Object.assign(new Error('no'), { code: reader.failure })
        const bytes = Buffer.from(data)
        const taken = Math.min(bytes.length, reader.room)
        if (taken === 0) throw Object.assign(new Error('full'), { code: 'EAGAIN' })
        text += bytes.subarray(0, taken).toString('latin1')
        reader.room -= taken
        return taken
      },
      writeFatal: line => { reader.fatal.push(line) },
      onRecovered: lost => {
        reader.recovered.push(lost)
        reader.output.write(`lost ${lost}\n`)
      },
      sleep: ms => { reader.slept += ms }
    })
  }
  return reader
}

t.test('a line is written at once, so that an exit neither loses nor overtakes it', t => {
  const { output, read } = createReader(Infinity)
  output.write('one\n')
  t.equal(read(), 'one\n')
  output.write('two\n')
  t.equal(read(), 'one\ntwo\n')
  t.end()
})

t.test('lines wait for a reader that stalls, in their order, also one that was cut in two', t => {
  const reader = createReader(6)
  for (const line of ['one\n', 'two\n', 'three\n']) reader.output.write(line)
  t.equal(reader.read(), 'one\ntw')
  reader.room = Infinity
  reader.output.flushSync()
  t.equal(reader.read(), 'one\ntwo\nthree\n')
  t.equal(reader.output.lostLines, 0)
  t.same(reader.recovered, [])
  t.end()
})

t.test('lines flow again by themselves when the reader does', async t => {
  const reader = createReader(0)
  reader.output.write('one\n')
  reader.room = Infinity
  const deadline = Date.now() + 60_000
  while (reader.read() === '' && Date.now() < deadline) await new Promise(resolve => setTimeout(resolve, 10))
  t.equal(reader.read(), 'one\n')
})

t.test('lines beyond the bound are lost whole, counted, and told when lines flow again', t => {
  const reader = createReader(2, 10)
  for (const line of ['one\n', 'two\n', 'three\n', 'four\n', 'five\n']) reader.output.write(line)
  t.equal(reader.output.lostLines, 3, 'the rest of a line that has begun is kept in any case')
  reader.room = Infinity
  reader.output.flushSync()
  t.equal(reader.read(), 'one\ntwo\nlost 3\n')
  t.same(reader.recovered, [3])
  reader.output.write('six\n')
  t.same(reader.recovered, [3], 'once')
  t.end()
})

t.test('an exit waits for a stalled reader, but not for long', t => {
  const reader = createReader(0)
  reader.output.write('one\n')
  reader.output.flushSync()
  t.ok(reader.slept > 0 && reader.slept <= 500, `${reader.slept} ms`)
  t.same(reader.fatal, [], 'what is not fatal stays where it is')
  t.end()
})

for (const [what, maxBufferedBytes] of [['waits', 1000], ['would be lost', 1]] as const) {
  t.test(`a fatal line that ${what} goes to the standard error`, t => {
    const reader = createReader(0, maxBufferedBytes)
    reader.output.lastLevel = WARN
    reader.output.write('warned\n')
    reader.output.lastLevel = FATAL
    reader.output.write('died\n')
    reader.output.flushSync()
    t.same(reader.fatal, ['died\n'])
    reader.output.flushSync()
    t.same(reader.fatal, ['died\n'], 'once')
    t.end()
  })
}

t.test('a fatal line that is read after all is not said twice', t => {
  const reader = createReader(0)
  reader.output.lastLevel = FATAL
  reader.output.write('died\n')
  reader.room = Infinity
  reader.output.flushSync()
  t.equal(reader.read(), 'died\n')
  t.same(reader.fatal, [])
  t.end()
})

for (const failure of ['EPIPE', 'ENOSPC', 'EIO']) {
  t.test(`lines that fail with ${failure} are counted, and tried again with the next one`, t => {
    const reader = createReader(3)
    reader.output.write('one\n')
    reader.failure = failure
    reader.output.flushSync()
    reader.output.write('two\n')
    t.equal(reader.output.lostLines, 2)
    reader.failure = undefined
    reader.room = Infinity
    reader.output.write('three\n')
    t.equal(reader.read(), 'onethree\nlost 2\n')
    t.end()
  })
}

t.test('asks pino for levels', t => {
  t.equal((createReader(1).output as unknown as Record<symbol, unknown>)[Symbol.for('pino.metadata')], true)
  t.end()
})
