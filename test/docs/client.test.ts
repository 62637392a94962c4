// docs/client.md, held to the examples it quotes.

import { readFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import t from 'tap'

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')

t.test('quotes the React example as it is', t => {
  const [, quoted] = /^## React$[\s\S]*?^```tsx\n([\s\S]*?)^```$/m.exec(read('docs/client.md')) ?? []
  const example = read('examples/react/page/notes.tsx').split('\n').map(line => line.trim())
  const lines = (quoted ?? '').trim().split('\n').map(line => line.trim())
  t.ok(lines.length > 3)
  t.same(lines.filter(line => !example.includes(line)), [])
  t.end()
})

t.test('says how large the client is', async t => {
  const [, kilobytes] = /minified and gzipped it is under ([\d.]+) KB/.exec(read('docs/client.md')) ?? []
  const { outputFiles: [bundle] } = await build({
    entryPoints: ['src/client/client.ts'], bundle: true, minify: true, format: 'esm', write: false
  })
  const bytes = gzipSync(bundle?.contents ?? '', { level: 9 }).length
  t.ok(bytes > 1000 && bytes < Number(kilobytes) * 1000, `${bytes} bytes`)
})
