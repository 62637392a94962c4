// A process that commits as fast as it can until it is killed. It says what was kept, one line
// each: `<session> <seq> <watermark>`. Run with a data directory.

import { createEmbeddedStore } from '../../src/stores/embedded/store.js'
import { buildBatch, buildStored } from './stored.js'

const SESSIONS = 40

const [directory = '', life = ''] = process.argv.slice(2)
const store = createEmbeddedStore({ directory })
await store.open({ restore () {}, bury () {}, healthChanged () {} })

/** Every third batch releases all but the last two outputs; every fifth brings a context. */
async function write (id: string): Promise<never> {
  const created = await store.create(buildStored({ id, userId: life }))
  if (typeof created === 'string') throw new Error(`create ${id}: ${created}`)
  for (let seq = 0, releasedSeq = 0, watermark = 1; ; watermark++) {
    const tails = Array.from({ length: watermark % 4 }, (_, index) => `${id} ${seq + index + 1}`)
    const lastSeq = seq + tails.length
    if (watermark % 3 === 0) releasedSeq = Math.max(0, lastSeq - 2)
    const result = await store.commit(buildBatch({
      id,
      fence: created.fence,
      prevSeq: seq,
      progress: { lastSeq, releasedSeq, watermark },
      outputs: tails.map(tail => ({ tail, commandId: watermark })).slice(Math.max(0, releasedSeq - seq)),
      ...(watermark % 5 === 0 ? { context: { watermark } } : {})
    }))
    if (result !== 'kept') throw new Error(`commit ${id}: ${JSON.stringify(result)}`)
    seq = lastSeq
    process.stdout.write(`${id} ${seq} ${watermark}\n`)
  }
}

await Promise.all(Array.from({ length: SESSIONS }, (_, index) => write(`life-${life}-${index}`)))
