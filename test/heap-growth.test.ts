// An idle server held 20 MiB of a space for young objects that only its start had used.

import { execFileSync } from 'node:child_process'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { built } from './helpers/built.js'

/**
 * A process of its own: a heap that has grown once stays so. It prints the size of its young space,
 * held and released.
 */
const PROGRAM = `
  import { getHeapSpaceStatistics } from 'node:v8'
  import { holdHeap, letHeapGrow } from '${pathToFileURL(built('src/heap-growth.js')).href}'

  function youngSpaceAfterMuch () {
    const held = []
    for (let n = 0; n < 1_000_000; n++) held.push({ n })
    return getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space').space_size
  }

  holdHeap()
  const held = youngSpaceAfterMuch()
  letHeapGrow()
  console.log(JSON.stringify({ held, grown: youngSpaceAfterMuch() }))
`

t.test('the space of young objects stays small while a server starts, and grows as ever later', async t => {
  const printed = execFileSync(
    process.execPath, ['--input-type=module', '--eval', PROGRAM], { encoding: 'utf8', env: {} }
  )
  const { held, grown } = JSON.parse(printed) as { held: number, grown: number }
  t.ok(held <= 4 * 2 ** 20, `held: ${held}`)
  t.ok(grown >= 2 * held, `grown: ${grown}`)
})
