// docs/testing.md, run: its tests are tests, and pass.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { writeDocModules } from '../helpers/doc-modules.js'
import { readBlocks } from '../helpers/markdown.js'

const PATH = 'docs/testing.md'

t.test('every block is a program, and every test on the page passes', async t => {
  const doc = readFileSync(PATH, 'utf8')
  t.equal(readBlocks(doc, 'js').length, [...doc.matchAll(/^```\w/gm)].length)
  const { folder, names } = writeDocModules(t, PATH)
  const files = names.filter(name => name.endsWith('.test.js'))
  const tests = [...doc.matchAll(/^test\('/gm)].length
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(TAP|NODE_)/.test(name)))
  const child = spawn(process.execPath, ['--test', '--test-reporter=tap', ...files], { cwd: folder, env })
  t.teardown(() => { child.kill('SIGKILL') })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => { output += text })
  }
  const [code] = await once(child, 'close') as [number | null]
  t.equal(code, 0, output)
  t.match(output, new RegExp(`^# pass ${tests}$`, 'm'), output)
  const unused = names.filter(name => !files.includes(name) && !doc.includes(`from './${name}'`))
  t.same(unused, [], 'what is no test is used by one')
})
