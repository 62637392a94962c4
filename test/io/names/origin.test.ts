// Origins: what a browser sends, what an operator writes, and when the two are the same.

import t from 'tap'
import {
  canonicalOrigin, canonicalOriginEntry, createOriginMatcher, isOriginOfHost, originEntryProblem
} from '../../../src/io/names/origin.js'

t.test('an origin is one text, however it is written', async t => {
  const forms: Record<string, string[]> = {
    'https://app.example': [
      'https://app.example', 'https://app.example:443', 'HTTPS://App.Example', 'https://app.example:'
    ],
    'http://app.example': ['http://app.example:80'],
    'https://app.example:80': ['https://app.example:80'],
    'https://xn--bcher-kva.example': ['https://bücher.example'],
    'http://[2001:db8::1]:8080': ['http://[2001:DB8:0::1]:8080'],
    'capacitor://localhost': ['capacitor://localhost', 'Capacitor://LOCALHOST'],
    'chrome-extension://abcdefghijklmnopabcdefghijklmnop': ['chrome-extension://abcdefghijklmnopabcdefghijklmnop'],
    'moz-extension://0f5dd7f3-27e2-4d0c-8a56-6f1f3f1c9b2a': ['moz-extension://0f5dd7f3-27e2-4d0c-8a56-6f1f3f1c9b2a'],
    'ionic://localhost:8080': ['ionic://localhost:8080'],
    'file://': ['file://'],
    null: ['null']
  }
  for (const [canonical, texts] of Object.entries(forms)) {
    for (const text of texts) t.equal(canonicalOrigin(text), canonical, text)
  }
})

t.test('what is not an origin is none', async t => {
  for (const text of [
    '', 'app.example', '//app.example', 'https://', 'https://app.example/', 'https://app.example/path',
    'https://app.example?q', 'https://app.example#f', 'https://ada@app.example',
    'https://app.example\\evil', 'https://a b', 'https://a, https://b', 'https://a https://b', 'data:text/html,x',
    'file:///etc', 'capacitor://', 'NULL', 'https://app.example:99999'
  ]) t.equal(canonicalOrigin(text), undefined, text)
})

// `Host: app.example:443` with `Origin: https://app.example` was refused.
t.test('a page served under the called name is the server\'s own, whichever default port is spelled out', async t => {
  for (const [text, host] of [
    ['https://app.example', 'app.example'], ['https://app.example', 'app.example:443'],
    ['https://app.example:443', 'app.example'], ['https://app.example', 'APP.example'],
    ['http://app.example', 'app.example:80'], ['http://127.0.0.1:3000', '127.0.0.1:3000'],
    ['http://[::1]:3000', '[::1]:3000']
  ] as const) t.ok(isOriginOfHost(canonicalOrigin(text) as string, host), `${text} at ${host}`)
  for (const [text, host] of [
    ['https://evil.example', 'app.example'], ['https://app.example', 'app.example:80'],
    ['http://app.example', 'app.example:443'], ['https://app.example:8443', 'app.example'],
    ['capacitor://localhost', 'localhost'], ['file://', ''], ['null', 'null'], ['https://app.example', undefined],
    ['https://app.example', ''], ['https://app.example', 'evil@app.example'],
    ['https://app.example', 'app.example/x'], ['https://sub.app.example', 'app.example']
  ] as const) t.notOk(isOriginOfHost(canonicalOrigin(text) ?? '', host), `${text} at ${String(host)}`)
})

t.test('an entry that means one thing is written in one way', async t => {
  for (const [entry, canonical] of [
    ['https://app.example/', 'https://app.example'], ['https://APP.example:443', 'https://app.example'],
    ['capacitor://localhost', 'capacitor://localhost'], ['null', 'null'], ['*', '*'],
    ['https://*.Preview.example', 'https://*.preview.example'],
    ['https://*.preview.example:8443/', 'https://*.preview.example:8443'],
    ['https://*.preview.example:443', 'https://*.preview.example'],
    ['file:///', 'file://']
  ] as const) {
    t.equal(originEntryProblem(entry), undefined, entry)
    t.equal(canonicalOriginEntry(entry), canonical)
    t.equal(canonicalOriginEntry(canonical), canonical)
  }
})

// `https://*.preview.example` was taken and never matched.
t.test('an entry that could have no effect is refused, with the form that is right', async t => {
  for (const [entry, sentence] of [
    ['app.example', /scheme is missing/], ['*.app.example', /scheme is missing/],
    ['https://app.example/login', /its origin is https:\/\/app\.example$/], ['https://app.example//', /its origin is/],
    ['https://app.example/?a#b', /its origin is https:\/\/app\.example$/], ['wss://app.example', /https or http/],
    ['ftp://app.example', /https or http/], ['https://', /not an origin/],
    ['https://*', /not a whole first label/], ['https://pr-*.app.example', /first label/],
    ['https://a.*.example', /first label/], ['http://localhost:*', /first label/],
    ['https://*.', /not an origin/], ['https://*.10.0.0.1', /no sub-domains/],
    ['chrome-extension://*.abc', /no sub-domains/], ['https://ada@app.example', /not an origin/],
    ['', /scheme is missing/],
    ['https://app.example https://b.example', /not an origin|its origin is/]
  ] as const) {
    t.match(originEntryProblem(entry), sentence, entry)
    t.throws(() => createOriginMatcher([entry]), { code: 'CONFIG_INVALID' }, entry)
  }
})

t.test('an entry allows what it says and nothing beside', async t => {
  const isAllowed = createOriginMatcher([
    'https://app.example', 'https://*.preview.example', 'http://*.test:8080', 'capacitor://localhost', 'null'
  ])
  for (const origin of [
    'https://app.example', 'https://pr-7.preview.example', 'https://a.b.preview.example', 'http://x.test:8080',
    'capacitor://localhost', 'null'
  ]) t.ok(isAllowed(origin), origin)
  for (const origin of [
    'http://app.example', 'https://app.example:8443', 'https://preview.example', 'https://.preview.example',
    'https://evilpreview.example', 'http://pr-7.preview.example',
    'https://pr-7.preview.example:8443', 'https://pr-7.preview.example.evil.example', 'http://x.test',
    'capacitor://localhost:1', 'ionic://localhost', 'file://', ''
  ]) t.notOk(isAllowed(origin), origin)
  const every = createOriginMatcher(['*'])
  for (const origin of ['https://evil.example', 'null', '']) t.ok(every(origin), origin)
  t.notOk(createOriginMatcher([])('https://app.example'))
})
