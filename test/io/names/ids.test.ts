// What a user id may be: what it looks like in a URL, in a terminal and on a page.

import fc from 'fast-check'
import t from 'tap'
import { isSessionId, isUserId, userIdProblem } from '../../../src/io/names/ids.js'
import { FUZZ_SEED } from '../../helpers/fuzz-seed.js'

/** Every code point as text, surrogate halves left out. */
const anyCharacter = fc.integer({ min: 1, max: 0x10ffff })
  .filter(code => code < 0xd800 || code > 0xdfff)
  .map(code => String.fromCodePoint(code))
/** Ids that are made to be awkward: dots, separators, escapes and letters of every script. */
const awkwardPart = fc.constantFrom(
  '.', '..', '/', '\\', '%', '%2e', '%2F', '?', '#', ';', '&', '+', ' ', ':', '@', '~', '"', '<', '|', 'é', '漢', '🙂'
)
const awkwardText = fc.array(fc.oneof(awkwardPart, anyCharacter), { minLength: 1, maxLength: 12 }).map(
  parts => parts.join('')
)

t.test('an id is 1 to 128 characters', async t => {
  const ids = [
    'a', 'x'.repeat(128), '🙂'.repeat(64), 'ada@example.org', 'auth0|507f1f77bcf86cd799439011', 'DOMAIN\\ada',
    'CN=Ada Lovelace,O=Example', 'a/b', '100%', 'ünal', '李', '...', '.a', 'a..b'
  ]
  for (const id of ids) {
    t.equal(userIdProblem(id), undefined, id)
  }
  for (const [id, problem] of [
    ['', /empty/], ['x'.repeat(129), /longer than 128/], [undefined, /not a text/], [7, /not a text/]
  ] as const) {
    t.match(userIdProblem(id), problem)
  }
})

// A token with `sub: ".."` was taken. `POST /users/%2e%2e/messages` then is `POST /messages` in
// every URL client, which was the broadcast.
t.test('an id has no segment that URL clients and proxies remove from a path', async t => {
  const ids = [
    '.', '..', '%2e', '%2E%2e', '.%2e', 'a/..', '../sessions', 'x/../../broadcast', '..\\x', 'a\\.', 'a%2f..%2fb',
    '..%5C'
  ]
  for (const id of ids) t.match(userIdProblem(id), /segment of dots/, id)
})

// An override turned the rest of an operator's line around, though the code said that ids cannot
// draw in a terminal.
t.test('an id has no character that is not seen or moves others', async t => {
  const unseen: Array<[string, string]> = [
    ['a control', '\u001b'], ['a C1 control', '\u009b'], ['a line separator', '\u2028'],
    ['a paragraph separator', '\u2029'],
    ['a direction override', '\u202e'], ['a direction isolate', '\u2066'], ['a direction mark', '\u200f'],
    ['a zero-width space', '\u200b'], ['a zero-width joiner', '\u200d'], ['a byte order mark', '\ufeff'],
    ['a soft hyphen', '\u00ad'],
    ['a tag letter', '\u{e0061}'], ['a variation selector', '\ufe0f'], ['a Hangul filler', '\u3164'],
    ['a blank Braille pattern', '\u2800'],
    ['a combining joiner', '\u034f'], ['a noncharacter', '\ufffe'], ['an unassigned code point', '\u0378'],
    ['a private one', '\ue000'],
    ['half a surrogate pair', '\ud800']
  ]
  for (const [name, character] of unseen) t.match(userIdProblem(`a${character}b`), /cannot be seen/, name)
  for (const space of ['\u00a0', '\u2003', '\u3000', '\u202f']) t.match(userIdProblem(`a${space}b`), /space other than/)
  for (const id of [' ada', 'ada ', ' ']) t.match(userIdProblem(id), /begins or ends/)
  t.ok(isUserId('ada lovelace'))
})

// Two ids that differ in form only would look the same to everybody; made into one, they would give
// one person the sessions of another.
t.test('an id is in normalization form C, and is refused, not changed, where it is not', async t => {
  t.ok(isUserId('caf\u00e9'))
  t.match(userIdProblem('cafe\u0301'), /form C/)
})

t.test('an accepted id stays one segment of a path in every way of writing it that a URL knows', async () => {
  fc.assert(fc.property(awkwardText.filter(isUserId), id => {
    const encoded = encodeURIComponent(id)
    const everything = encoded.replace(/[!'()*]/g, character => `%${character.charCodeAt(0).toString(16)}`)
    for (const written of [encoded, encoded.replaceAll('.', '%2e'), everything]) {
      const { pathname, search, hash } = new URL(`/users/${written}/messages`, 'http://127.0.0.1')
      const segments = pathname.split('/')
      if (segments.length !== 4 || search !== '' || hash !== '' || decodeURIComponent(segments[2] as string) !== id) {
        return false
      }
    }
    return true
  }), { seed: FUZZ_SEED, numRuns: 3000 })
})

t.test('an id never leaves its place, even where a proxy decodes the path and removes dot segments again', async () => {
  fc.assert(fc.property(awkwardText.filter(isUserId), id => {
    // What nginx does with `proxy_pass http://server/;`: decoded, normalised, and only what would
    // end the path encoded again.
    const decoded = id.replace(/[?#%]/g, encodeURIComponent)
    const { pathname } = new URL(`/users/${decoded}/messages`, 'http://127.0.0.1')
    return pathname.startsWith('/users/') && pathname.endsWith('/messages')
  }), { seed: FUZZ_SEED, numRuns: 3000 })
})

t.test('P-27 a session id is letters, digits, - and _', async t => {
  for (const id of ['5f0e4c1e-3a8b-4b2f-9d52-6f0c7f1f1b11', 'S_1', 'x'.repeat(64)]) t.ok(isSessionId(id))
  for (const id of ['', 'x'.repeat(65), 'a.b', '..', 'a/b', 'a b', 'é', 'a\n']) t.notOk(isSessionId(id), id)
})
