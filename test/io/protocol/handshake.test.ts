import fc from 'fast-check'
import t from 'tap'
import { readHandshake } from '../../../src/io/protocol/handshake.js'
import { FUZZ_SEED } from '../../helpers/fuzz-seed.js'

t.test('P-2 no offer is the basic profile, an offer with holdfast.v1 the full one, any other is refused', async t => {
  t.strictSame(readHandshake(undefined), {
    profile: 'basic',
    token: undefined,
    isTokenMalformed: false,
    resume: undefined,
    maxOutputBytes: Infinity,
    wantsGoodbye: false
  })
  for (const header of [
    'holdfast.v1', ' holdfast.v1 ', 'x,holdfast.v1', 'chat, holdfast.v1, more', 'x!#$%&\'*+-.^_`|~9,holdfast.v1'
  ]) {
    t.equal(readHandshake(header)?.profile, 'full', header)
  }
  for (const header of [
    '', ',', 'chat', 'Holdfast.v1', 'holdfast.v2', 'holdfast', 'auth.abc', 'resume.a.b.0', 'holdfast.v1x',
    'holdfast.v1,', ',holdfast.v1', 'holdfast.v1,holdfast.v1', 'holdfast.v1,auth.a=', 'holdfast.v1,a b',
    'holdfast.v1,"a"', 'holdfast.v1,ü', 'holdfast.v1,auth.a/b', 'holdfast.v1,x,x'
  ]) t.equal(readHandshake(header), undefined, header)
})

t.test('P-3 a token with a dot stands for itself, any other is base64url of its bytes', async t => {
  t.equal(readHandshake('holdfast.v1, auth.aaa.bbb.ccc')?.token, 'aaa.bbb.ccc')
  for (const token of ['secret', 'geheim: ü€', 'a b,c', '😀']) {
    t.equal(readHandshake(`auth.${Buffer.from(token).toString('base64url')},holdfast.v1`)?.token, token)
  }
  t.equal(readHandshake('holdfast.v1,auth.')?.token, '')
  t.equal(readHandshake('holdfast.v1,auth.x.y,auth.z.w')?.token, 'x.y', 'the first one counts')
  t.equal(readHandshake('holdfast.v1')?.token, undefined)
})

t.test('P-3 auth64 carries any token, one with a dot as well', async t => {
  for (const token of ['v1.abc/def', 'a.b.c', 'secret', 'geheim: ü€', '']) {
    t.equal(readHandshake(`holdfast.v1, auth64.${Buffer.from(token).toString('base64url')}`)?.token, token, token)
  }
  t.equal(readHandshake('holdfast.v1,auth.x.y,auth64.eg')?.token, 'x.y', 'the first one counts')
  t.equal(readHandshake('holdfast.v1,auth64.eg,auth.x.y')?.token, 'z')
})

t.test('P-3 what is not base64url of a text is malformed, and is no token', async t => {
  for (const entry of [
    'auth.opaque~token', 'auth64.v1.abc', 'auth.a', 'auth.ab+c', 'auth._w', 'auth64.eh', 'auth.a!b,auth.x.y'
  ]) {
    t.match(readHandshake(`holdfast.v1,${entry}`), { token: undefined, isTokenMalformed: true }, entry)
  }
  for (const entry of ['auth.', 'auth64.eg', 'auth.x.y', 'auth.x.y,auth.a!b', 'chat']) {
    t.match(readHandshake(`holdfast.v1,${entry}`), { isTokenMalformed: false }, entry)
  }
})

t.test('P-50 an output entry asks for smaller outputs; 1024 is the least; what is not a number is ignored', async t => {
  const asked = (entries: string): number | undefined => readHandshake(`holdfast.v1,${entries}`)?.maxOutputBytes
  for (const [entries, bytes] of [
    ['output.32768', 32_768], ['output.1023', 1024], ['output.0', 1024],
    ['output.999999999999999', 999_999_999_999_999], ['output.4096,output.2048', 2048]
  ] as const) t.equal(asked(entries), bytes, entries)
  for (const entries of [
    'output.', 'output.-1', 'output.1e3', 'output.1.5', 'output.9999999999999999', 'output.many', 'outputs.5000', 'chat'
  ]) {
    t.equal(asked(entries), Infinity, entries)
  }
})

t.test('P-53 refuse.goodbye asks for refusals that a browser can read', async t => {
  t.equal(readHandshake('holdfast.v1,refuse.goodbye')?.wantsGoodbye, true)
  for (const header of ['holdfast.v1', 'holdfast.v1,refuse', 'holdfast.v1,refuse.goodbye2']) {
    t.equal(readHandshake(header)?.wantsGoodbye, false)
  }
})

t.test('P-27 a resume entry has a session, a token and a lastSeq', async t => {
  t.strictSame(
    readHandshake('holdfast.v1, resume.s-1.tok_en.42')?.resume, { sessionId: 's-1', token: 'tok_en', lastSeq: 42 }
  )
  t.strictSame(readHandshake(`holdfast.v1,resume.a.b.${Number.MAX_SAFE_INTEGER}`)?.resume, {
    sessionId: 'a', token: 'b', lastSeq: Number.MAX_SAFE_INTEGER
  })
  t.strictSame(readHandshake(`holdfast.v1,resume.${'a'.repeat(64)}.${'b'.repeat(128)}.0`)?.resume, {
    sessionId: 'a'.repeat(64), token: 'b'.repeat(128), lastSeq: 0
  })
})

t.test('P-33 a resume entry in any other form is malformed, never half read', async t => {
  const bad = [
    '', 'a', 'a.b', 'a.b.', '.b.1', 'a..1', 'a.b.c', 'a.b.-1', 'a.b.+1', 'a.b.1.5', 'a.b.1e3', 'a.b.0x1', 'a.b.1.c',
    `a.b.${Number.MAX_SAFE_INTEGER + 1}`, 'a.b.99999999999999999', 'a.b.NaN', 'a.b.Infinity', `${'a'.repeat(65)}.b.1`,
    `a.${'b'.repeat(129)}.1`
  ]
  for (const entry of bad) t.equal(readHandshake(`holdfast.v1,resume.${entry}`)?.resume, 'malformed', entry)
})

t.test('P-2 an offer is a list of up to eight different tokens, and no header throws', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  const entry = fc.oneof(
    fc.constantFrom('holdfast.v1', 'auth.', 'resume.', 'resume.a.b.1', 'auth.a.b'),
    fc.string({ maxLength: 4 }),
    fc.string({ unit: 'binary' })
  )
  const isToken = (each: string): boolean => each !== '' &&
    [...each].every(character => character > ' ' && character < '\x7f' && !'"(),/:;<=>?@[\\]{}'.includes(character))
  fc.assert(fc.property(fc.array(entry, { maxLength: 12 }), entries => {
    const offer = readHandshake(entries.join(','))
    const read = entries.join(',').split(',').map(each => each.trim())
    const isSpoken = read.length <= 8 && new Set(read).size === read.length && read.every(isToken) &&
      read.includes('holdfast.v1')
    return (offer !== undefined) === isSpoken &&
      (!isSpoken || (offer?.resume !== undefined) === read.some(each => each.startsWith('resume.')))
  }), { seed: FUZZ_SEED, numRuns: 1000 })
  t.equal(readHandshake('a,b,c,d,e,f,g,h,holdfast.v1'), undefined)
  t.equal(readHandshake('a,b,c,d,e,f,g,holdfast.v1')?.profile, 'full')
})
