import fc from 'fast-check'
import t from 'tap'
import { isKept } from '../../src/io/json-number.js'
import { JsonError, MAX_DEPTH, MAX_MEMBERS, hasMoreMembers, parseJson, printJson } from '../../src/io/json.js'
import { FUZZ_SEED } from '../helpers/fuzz-seed.js'

/** What is wrong with a text, or undefined. */
function faultIn (text: string): string | undefined {
  try {
    parseJson(text)
    return undefined
  } catch (error) {
    if (!(error instanceof JsonError)) throw error
    return error.message
  }
}

const changed = (path: string): string => `${path} is a number that would be changed on its way; send it as a string`
const seeded = { seed: FUZZ_SEED, numRuns: 2000 }

// A relay that rounded 7238572949283749923 to …750000 approved somebody else's draft; 1e400 became
// null.
t.test('P-6 refuses a number that a double does not carry, and says where it is', async t => {
  for (const literal of [
    '7238572949283749923', '9007199254740993', '-9007199254740993', '1152921504606846976', '1e400', '-1e400', '1e-400',
    '0.1234567890123456789', '3.14159265358979323846', '999999999999999.99', '0.1000000000000000055511151231257827',
    `1${'0'.repeat(400)}`, `0.${'0'.repeat(400)}1`, '1.2345678e-320', `1.${'0'.repeat(30)}1`, '12345678901234567890e-3'
  ]) {
    t.equal(faultIn(`{"a":[1,{"b":${literal}}]}`), changed('/a/1/b'), literal)
    t.equal(faultIn(literal), changed('the text'), literal)
  }
  t.equal(faultIn('{"a/b~c":{"":1e999}}'), changed('/a~1b~0c/'))
  t.equal(
    faultIn('[{"a":"1e999, \\"1e999\\": \\\\"},{"x":[[],{}],"y":1e999}]'), changed('/1/y'), 'texts are passed over'
  )
})

t.test('P-6 takes every number whose value is kept, however it is written', async t => {
  for (const literal of [
    '0', '-0', '1.0', '1e2', '1E+2', '0e999', '0.000', '1e0005', '0.1', '0.30000000000000004', '9007199254740991',
    '-9007199254740991', '9007199254740992', '123456789012345680000', '1e23', '1.7976931348623157e308', '5e-324',
    '4.9E-324', '2.2250738585072014e-308', '0.10000000000000001', '5.684341886080802E-14', '1000000000000000000000000',
    `1.${'0'.repeat(400)}`, '100000000000000000000e-20', '1764093745123456'
  ]) {
    t.equal(faultIn(`{"a":${literal}}`), undefined, literal)
    t.strictSame(parseJson(literal), Number(literal))
  }
})

t.test('P-6 takes every double as common printers write it', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  fc.assert(fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), number =>
    [JSON.stringify(number), number.toExponential(), number.toExponential(16), number.toPrecision(17)].every(text =>
      // Without a point it is an integer, and may be one that a double prints otherwise.
      /^-?\d{17,}$/.test(text) || (faultIn(text) === undefined && Object.is(parseJson(text), JSON.parse(text))))
  ), seeded)
})

t.test('P-6a what the quick look lets pass is what the close look keeps', async () => {
  const digits = fc.stringMatching(/^(0|[1-9]\d{0,17})(\.\d{1,16})?$/)
  const exponent = fc.stringMatching(/^([eE][+-]?\d{1,3})?$/)
  fc.assert(fc.property(digits, exponent, (mantissa, power) =>
    (faultIn(mantissa + power) === undefined) === isKept(mantissa + power)), { numRuns: 5000 })
})

t.test('P-6 takes an integer exactly if it is printed again with the same value', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  fc.assert(fc.property(fc.bigInt({ min: -(10n ** 25n), max: 10n ** 25n }), integer => {
    const [mantissa = '', power = '0'] = String(Number(integer)).split('e+')
    const [whole = '', fraction = ''] = mantissa.split('.')
    const printed = BigInt(whole + fraction) * 10n ** BigInt(Number(power) - fraction.length)
    return (faultIn(`[${integer}]`) === undefined) === (printed === integer)
  }), seeded)
})

t.test('P-6 refuses a key that is there twice in one object, in whatever spelling, and says where', async t => {
  for (const [text, path] of [
    ['{"a":1,"a":1}', '/a'], ['{"a":1,"\\u0061":2}', '/a'], ['[0,{"b":{"x":{},"y":[],"x":1}}]', '/1/b/x'],
    ['{"a":{"a":1},"b":[{"a":1},{"a":1}],"a":2}', '/a'], ['{"":1,"":2}', '/'], ['{ "k" : [ ":" ] , "k" : 0 }', '/k'],
    ['{"__proto__":1,"__proto__":2}', '/__proto__'], ['{"1":0,"2":0,"1":0}', '/1']
  ] as const) {
    t.equal(faultIn(text), `${path} is there twice`, text)
  }
  t.equal(
    faultIn('{"a":{"b":1},"b":1,"c":[{"b":1},{"b":":\\"b\\":"}],"d:":"a"}'),
    undefined,
    'the same key in other objects is another one'
  )
})

t.test('P-6 finds one repeated key, or one changed number, wherever it is put into a document', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  const document = fc.letrec(tie => ({
    leaf: fc.oneof(
      fc.string({ unit: 'binary' }).map(text => JSON.stringify(text)),
      fc.double({ noNaN: true, noDefaultInfinity: true }).map(n => JSON.stringify(n)),
      fc.constantFrom('null', 'true', ' [ ] ', '{}')
    ),
    node: fc.oneof(
      { maxDepth: 5 },
      tie('leaf'),
      fc.array(tie('node') as fc.Arbitrary<string>, { maxLength: 4 }).map(all => `[${all.join(' , ')}]`),
      fc.dictionary(
        fc.string({ unit: 'binary' }).filter(key => key !== '__proto__' && key !== 'constructor'),
        tie('node') as fc.Arbitrary<string>,
        { maxKeys: 4 }
      ).map(all => `{${Object.entries(all).map(([key, value]) => `${JSON.stringify(key)} :${value}`).join('\n,')}}`)
    )
  })).node as fc.Arbitrary<string>
  fc.assert(fc.property(document, document, (before, after) => {
    if (faultIn(`[${before},${after}]`) !== undefined) return false
    return faultIn(`[${before},{"k":${after},"k":1},${after}]`) === '/1/k is there twice' &&
      faultIn(`[${before},{"k":${after},"n":[12345678901234567891]},${after}]`) === changed('/1/n/0')
  }), { ...seeded, numRuns: 500 })
})

t.test('P-6 everything else arrives as written: lone surrogates, separators, a byte order mark', async t => {
  for (const text of [
    '"\\ud800"', '"\\udc00\\ud800"', '"\u2028\u2029"', '"\\u0000"', '"\uFEFF"', '""', '{"\\ud800":"\u2028"}',
    '[[],{},"",null]'
  ]) {
    t.strictSame(parseJson(text), JSON.parse(text), JSON.stringify(Buffer.from(text)))
  }
  t.strictSame(parseJson('\uFEFF{"a":1}'), { a: 1 })
  t.equal(printJson(parseJson('"\\ud800"')), '"\\ud800"')
})

t.test('P-6 refuses what is no JSON, NaN and Infinity of Python too, and quotes nothing of it', async t => {
  for (const text of [
    '', 'NaN', '[Infinity]', '{"a":-Infinity}', '{"secret":', 'secret', '\uFEFF\uFEFF{}', '01', '1.', '.5', '+1',
    "{'a':1}"
  ]) {
    t.equal(faultIn(text), 'the text is not JSON', text)
  }
  t.equal(faultIn('{"constructor":{"prototype":1}}'), 'the text has a forbidden key')
})

t.test('P-6 looks no deeper than the bound, however deep the text is', async t => {
  for (const [open, close] of [['[', ']'], ['{"a":', '}']] as const) {
    const nest = (depth: number): string => open.repeat(depth) + (open === '[' ? '' : '1') + close.repeat(depth)
    t.equal(faultIn(nest(MAX_DEPTH)), undefined)
    t.equal(faultIn(nest(MAX_DEPTH + 1)), 'the text is nested deeper than 32')
    t.type(faultIn(nest(100_000)), 'string')
  }
})

t.test('P-6 counts members, arrays and objects, and not what is in strings or plain in arrays', async t => {
  const most = (member: string, each: number): string =>
    `[${Array<string>((MAX_MEMBERS - 1) / each | 0).fill(member).join()}`
  for (const [member, each] of [['{"a":0}', 2], ['[]', 1], ['{"a":{"b":[]}}', 5]] as const) {
    t.equal(faultIn(`${most(member, each)},0,"{\\"[:"]`), undefined, member)
    t.equal(
      faultIn(`${most(member, each)},${member}]`),
      `the text has more than ${MAX_MEMBERS} members, arrays and objects`,
      member
    )
  }
  t.equal(faultIn(`[${'0,'.repeat(2 * MAX_MEMBERS)}0]`), undefined)
  t.equal(
    faultIn(`{${'"a":0,'.repeat(MAX_MEMBERS)}`),
    `the text has more than ${MAX_MEMBERS} members, arrays and objects`,
    'before the parser has looked at it'
  )
})

t.test('a value is counted no further than it has to be', async t => {
  const value = { a: [1, { b: null }, []], c: 'x' }
  t.notOk(hasMoreMembers(value, 7))
  t.ok(hasMoreMembers(value, 6))
  t.notOk(hasMoreMembers('text', 0))
  const guarded = { first: [], second: [], get third () { throw new Error('looked too far') } }
  t.ok(hasMoreMembers(guarded, 2))
})

/**
 * What `parseJson` was before it looked at bytes: it compared the number of members in text and
 * value.
 */
function isFaultyByCounting (text: string): boolean {
  const count = (value: unknown): number => typeof value !== 'object' || value === null
    ? 0
    : Object.values(value).reduce<number>(
      (sum, member) => sum + count(member),
      Array.isArray(value) ? 0 : Object.keys(value).length
    )
  const bare = text.replace(/"(?:[^"\\]|\\.)*"/g, '""')
  const hasChanged = (bare.match(/\d[\d.eE+-]*/g) ?? []).some(literal => !isKept(literal))
  return hasChanged || (bare.match(/:/g) ?? []).length !== count(JSON.parse(text))
}

t.test('P-6 finds by its one look at the bytes what counting members twice found', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  // Few keys, so that many are there twice; some that look alike to whoever compares ends and
  // lengths.
  const key = fc.constantFrom(
    '""', '"a"', '"\\u0061"', '"axb"', '"ayb"', '"é"', '"e\u0301"', '"\\""', '"\\\\"', '"a:"', `"${'k'.repeat(15)}"`,
    `"${'k'.repeat(16)}"`, `"${'k'.repeat(17)}"`, '"nine char"'
  )
  const leaf = fc.oneof(
    key,
    fc.constantFrom(
      '0', '-1', '1.5e3', '1e400', '9007199254740993', '12345678901234567', '0.1', '123456789012.25', 'null', 'true',
      '[]', '{}', '"-1e400"'
    )
  )
  const node = fc.letrec(tie => ({
    node: fc.oneof(
      { maxDepth: 4 },
      leaf,
      fc.array(tie('node') as fc.Arbitrary<string>, { maxLength: 3 }).map(all => `[${all.join(', ')}]`),
      fc.array(fc.tuple(key, tie('node') as fc.Arbitrary<string>), { maxLength: 4 }).map(
        all => `{${all.map(([name, value]) => `${name}: ${value}`).join()}}`
      )
    )
  })).node as fc.Arbitrary<string>
  let faulty = 0
  fc.assert(fc.property(node, text => {
    const isFaulty = isFaultyByCounting(text)
    faulty += Number(isFaulty)
    return (faultIn(text) !== undefined) === isFaulty
  }), { ...seeded, numRuns: 5000 })
  t.ok(faulty > 100, `${faulty} of 5000 texts were faulty`)
})

t.test('P-6 a fault names no more of a path than fits into a frame', async t => {
  t.ok((faultIn(`{"${'y'.repeat(5000)}":1e999}`) as string).length < 250)
})

t.test('P-6 a value of the platform that JSON cannot carry is refused by name, never printed as null', async t => {
  const refused: Array<[unknown, string]> = [
    [NaN, 'the value is NaN'], [{ a: [1, -Infinity] }, '/a/1 is -Infinity'],
    [{ a: { b: Infinity } }, '/a/b is Infinity'], [[new Date(NaN)], '/0 is an invalid Date'],
    [{ n: [1n] }, '/n/0 is a BigInt'],
    [{ toJSON: () => ({ x: NaN }) }, '/x is NaN'], [[Object(NaN)], '/0 is NaN']
  ]
  for (const [value, problem] of refused) {
    t.throws(() => printJson(value), { name: 'TypeError', message: `${problem}, which JSON cannot carry` }, problem)
  }
  for (const value of [() => 1, Symbol('x'), { toJSON: () => undefined }]) t.throws(() => printJson(value), TypeError)
  const cycle: Record<string, unknown> = { n: null }
  cycle.self = cycle
  t.throws(() => printJson(cycle), { message: /circular/ })
})

t.test('P-6 a value is refused exactly when JSON.stringify would make null of something in it', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  const becomesNull = (value: unknown): boolean => {
    let found = false
    JSON.stringify(value, function (this: Record<string, unknown>, key, told: unknown) {
      const plain = told instanceof Number ? told.valueOf() : told
      found ||= typeof plain === 'number' ? !Number.isFinite(plain) : plain === null && this[key] instanceof Date
      return told
    })
    return found
  }
  const isRefused = (value: unknown): boolean => {
    try {
      printJson(value)
      return false
    } catch {
      return true
    }
  }
  const hidden = (value: unknown): object => Object.defineProperty({ n: 1 }, 'toJSON', { value: () => value })
  const leaf = fc.oneof(
    fc.jsonValue({ maxDepth: 1 }),
    fc.constantFrom(
      NaN, Infinity, undefined, 'null', Object(NaN), Object(1), new Date(NaN), new Date(0), hidden(NaN), hidden(1)
    )
  )
  const value = fc.oneof(leaf, fc.dictionary(fc.constantFrom('a', 'b', 'null', 'toString'), leaf), fc.array(leaf))
  fc.assert(fc.property(value, value => isRefused(value) === becomesNull(value)), seeded)
})

t.test('P-6 any other value is printed as JSON.stringify prints it', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  const samples = [
    undefined,
    null,
    { a: undefined, b: null },
    [undefined, null],
    new Date(0),
    { at: new Date(0), n: null },
    'null',
    { null: 'null' },
    -0,
    2 ** 60,
    new Map([[1, null]]),
    { toJSON: () => null },
    { text: 'null', n: 1, gone: undefined }
  ]
  for (const value of samples) t.equal(printJson(value), JSON.stringify(value) ?? 'null')
  fc.assert(fc.property(fc.jsonValue(), value => printJson(value) === JSON.stringify(value)), seeded)
  fc.assert(fc.property(fc.jsonValue({ noUnicodeString: false }), value => {
    const text = JSON.stringify(value)
    return text.includes('__proto__') || text.includes('constructor') || JSON.stringify(parseJson(text)) === text
  }), seeded)
})
