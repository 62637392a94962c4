// docs/client.md, held to the examples it quotes.

import { readFileSync } from 'node:fs'
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
