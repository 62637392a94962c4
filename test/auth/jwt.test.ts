import type { ServerResponse } from 'node:http'
import { SignJWT, UnsecuredJWT, type JWTPayload } from 'jose'
import t from 'tap'
import {
  checkPrincipal, placeholderAuthenticator, type Authenticate, type AuthRequest, type Principal
} from '../../src/auth/authenticate.js'
import { createJwtAuthenticator, type JwtAuthenticatorOptions } from '../../src/auth/jwt.js'
import { HoldfastError } from '../../src/io/errors.js'
import { makeKey, signWithKey, startKeySet } from '../helpers/key-set.js'

const SECRET = 'a secret that is 32 bytes long !'
const NOW_S = 1_700_000_000
const wall = (): number => NOW_S * 1000

const encode = (secret: string): Uint8Array => new TextEncoder().encode(secret)

function request (token: string | undefined): AuthRequest {
  return { token, headers: {}, address: '127.0.0.1', url: '/ws', request: {} as AuthRequest['request'] }
}

async function verify (authenticate: Authenticate, token: string | undefined): Promise<Principal> {
  return await authenticate(request(token)) as Principal
}

function signWithSecret (claims: JWTPayload, alg = 'HS256', secret = SECRET): Promise<string> {
  return new SignJWT(claims).setProtectedHeader({ alg }).sign(encode(secret))
}

const withSecret = (options: Partial<JwtAuthenticatorOptions> = {}): Authenticate => createJwtAuthenticator({
  secret: SECRET,
  wall,
  ...options
})

t.test('tokens signed with a secret', async t => {
  for (const alg of ['HS256', 'HS384', 'HS512']) {
    t.test(`${alg} is taken, and exp becomes expiresAt`, async t => {
      const token = await signWithSecret({ sub: 'ada', exp: NOW_S + 60 }, alg)
      t.strictSame(
        await verify(withSecret({ clockToleranceSeconds: 0 }), token), { userId: 'ada', expiresAt: (NOW_S + 60) * 1000 }
      )
    })
  }

  t.test('a token without exp does not expire', async t => {
    t.strictSame(await verify(withSecret(), await signWithSecret({ sub: 'ada' })), { userId: 'ada' })
  })

  t.test('the user id is taken from the configured claim', async t => {
    const token = await signWithSecret({ sub: 'x', email: 'ada@example.org' })
    t.match(await verify(withSecret({ userClaim: 'email' }), token), { userId: 'ada@example.org' })
  })

  // Roles stand in nearly every token, and an application had to verify it a second time to read
  // them.
  t.test('claims become labels where labelClaims names them, and those that are missing do not', async t => {
    const authenticate = withSecret({ labelClaims: ['roles', 'tenant', 'toString'] })
    const token = await signWithSecret({ sub: 'ada', roles: ['chief'], email: 'ada@example.org' })
    t.strictSame(await verify(authenticate, token), {
      userId: 'ada',
      expiresAt: undefined,
      labels: { roles: ['chief'] },
      context: undefined
    })
    t.strictSame(await verify(authenticate, await signWithSecret({ sub: 'ada' })), { userId: 'ada' })
  })

  t.test('claims that are too large for labels are a fault of the setup, not of the token', async t => {
    const token = await signWithSecret({ sub: 'ada', groups: ['x'.repeat(5000)] })
    await t.rejects(verify(withSecret({ labelClaims: ['groups'] }), token), {
      name: 'TypeError', message: /labels have at most 4096 bytes/
    })
  })

  t.test('issuer and audience are taken if they are right', async t => {
    const token = await signWithSecret({ sub: 'ada', iss: 'https://id.example', aud: ['other', 'holdfast'] })
    t.match(await verify(withSecret({ issuer: 'https://id.example', audience: 'holdfast' }), token), { userId: 'ada' })
  })

  // An issuer whose clock was two seconds ahead: every fresh token was 401.
  t.test('a token of an issuer whose clock is a few seconds ahead is taken', async t => {
    const token = await signWithSecret({ sub: 'ada', iat: NOW_S + 9, nbf: NOW_S + 9, exp: NOW_S + 60 })
    t.strictSame(await verify(withSecret(), token), { userId: 'ada', expiresAt: (NOW_S + 70) * 1000 })
  })

  t.test('P-47 within the tolerance an expired token is taken and ends with the tolerance', async t => {
    const token = await signWithSecret({ sub: 'ada', exp: NOW_S - 5 })
    t.strictSame(
      await verify(withSecret({ clockToleranceSeconds: 10 }), token), { userId: 'ada', expiresAt: (NOW_S + 5) * 1000 }
    )
  })

  const strict = withSecret({ issuer: 'https://id.example', audience: 'holdfast' })
  const good = { sub: 'ada', iss: 'https://id.example', aud: 'holdfast' }
  const refused: Array<[string, Authenticate, () => Promise<string> | string | undefined]> = [
    ['no token', withSecret(), () => undefined],
    ['an empty token', withSecret(), () => ''],
    ['text that is no token', withSecret(), () => 'a.b.c'],
    ['a token that expired longer ago than clocks differ', withSecret(), () => signWithSecret({
      sub: 'ada', exp: NOW_S - 10
    })],
    ['a token that just expired, without a tolerance', withSecret({ clockToleranceSeconds: 0 }), () => signWithSecret({
      sub: 'ada', exp: NOW_S
    })],
    ['a token that is not valid yet', withSecret(), () => signWithSecret({ sub: 'ada', nbf: NOW_S + 60 })],
    ['another secret', withSecret(), () => signWithSecret({ sub: 'ada' }, 'HS256', `${SECRET}!`)],
    ['a wrong issuer', strict, () => signWithSecret({ ...good, iss: 'https://evil.example' })],
    ['a missing issuer', strict, () => signWithSecret({ sub: 'ada', aud: 'holdfast' })],
    ['a wrong audience', strict, () => signWithSecret({ ...good, aud: 'other' })],
    ['a missing user claim', withSecret(), () => signWithSecret({ name: 'ada' })],
    ['a user claim that is a number', withSecret({ userClaim: 'uid' }), () => signWithSecret({ uid: 7 })],
    ['an empty user id', withSecret(), () => signWithSecret({ sub: '' })],
    ['a user id that is too long', withSecret(), () => signWithSecret({ sub: 'x'.repeat(129) })],
    ['a user id with a control character', withSecret(), () => signWithSecret({ sub: 'ada\u001b[31m' })],
    ['alg none', withSecret(), () => new UnsecuredJWT({ sub: 'ada' }).encode()],
    ['an asymmetric algorithm', withSecret(), () => signWithKey(makeKey('k1'))],
    ['a changed payload', withSecret(), async () => {
      const [header, , signature] = (await signWithSecret({ sub: 'ada' })).split('.')
      return `${header}.${Buffer.from('{"sub":"root"}').toString('base64url')}.${signature}`
    }]
  ]
  for (const [title, authenticate, token] of refused) {
    t.test(`${title} is UNAUTHENTICATED, with a constant sentence`, async t => {
      await t.rejects(verify(authenticate, await token()), {
        code: 'UNAUTHENTICATED', statusCode: 401, message: 'Valid credentials are required.'
      })
    })
  }

  t.test('the cause of a refusal names the claim and holds none of the others', async t => {
    const token = await signWithSecret({ sub: 'ada', exp: NOW_S - 11, email: 'ada@example.org' })
    const error = await verify(withSecret(), token).catch((error: HoldfastError) => error) as HoldfastError
    t.match(error.cause, { code: 'ERR_JWT_EXPIRED', message: /exp/ })
    t.notMatch(JSON.stringify(error.cause), /example\.org/)
    t.notOk((error.cause as { payload?: unknown }).payload)
  })
})

t.test('tokens signed with a key of a key set', async t => {
  for (const alg of ['ES256', 'RS256', 'EdDSA'] as const) {
    t.test(`${alg} is taken`, async t => {
      const key = makeKey('k1', alg)
      const { url } = await startKeySet(t, [key])
      t.match(await verify(createJwtAuthenticator({ jwksUrl: url }), await signWithKey(key)), { userId: 'ada' })
    })
  }

  t.test('the key set is fetched once for many tokens, also at the same time', async t => {
    const key = makeKey('k1')
    const set = await startKeySet(t, [key])
    const authenticate = createJwtAuthenticator({ jwksUrl: set.url })
    const token = await signWithKey(key)
    await Promise.all([verify(authenticate, token), verify(authenticate, token)])
    await verify(authenticate, token)
    t.equal(set.fetches, 1)
  })

  t.test('a rotated key is fetched when its first token comes', async t => {
    const [old, fresh] = [makeKey('k1'), makeKey('k2')]
    const set = await startKeySet(t, [old])
    let at = 0
    const authenticate = createJwtAuthenticator({ jwksUrl: set.url, jwksCooldownMs: 0, now: () => at })
    await verify(authenticate, await signWithKey(old))
    set.keys = [fresh]
    at = 1
    t.match(await verify(authenticate, await signWithKey(fresh)), { userId: 'ada' })
    t.equal(set.fetches, 2)
    await t.rejects(verify(authenticate, await signWithKey(old)), { code: 'UNAUTHENTICATED' })
  })

  t.test('a token without a key id is UNAUTHENTICATED while several keys would fit', async t => {
    const [one, two] = [makeKey('k1'), makeKey('k2')]
    const { url } = await startKeySet(t, [one, two])
    await t.rejects(
      verify(createJwtAuthenticator({ jwksUrl: url }), await signWithKey(one, { sub: 'ada' }, {})),
      { code: 'UNAUTHENTICATED' }
    )
  })

  t.test('a public key is never taken for a secret', async t => {
    const key = makeKey('k1', 'RS256')
    const { url } = await startKeySet(t, [key])
    const pem = key.publicKey.export({ type: 'spki', format: 'pem' }).toString()
    for (const authenticate of [
      createJwtAuthenticator({ jwksUrl: url }), createJwtAuthenticator({ jwksUrl: url, secret: SECRET })
    ]) {
      await t.rejects(
        verify(authenticate, await signWithSecret({ sub: 'ada' }, 'HS256', pem)), { code: 'UNAUTHENTICATED' }
      )
    }
  })

  t.test('with a secret and a key set each token meets the key for its algorithm', async t => {
    const key = makeKey('k1')
    const { url } = await startKeySet(t, [key])
    const authenticate = createJwtAuthenticator({ jwksUrl: url, secret: SECRET, wall })
    t.match(await verify(authenticate, await signWithKey(key)), { userId: 'ada' })
    t.match(await verify(authenticate, await signWithSecret({ sub: 'bob' })), { userId: 'bob' })
  })

  const outages: Array<[string, (response: ServerResponse) => void]> = [
    ['fails', response => { response.writeHead(500).end() }],
    ['resets', response => { response.destroy() }],
    ['redirects', response => { response.writeHead(302, { location: '/other' }).end() }],
    ['answers no JSON', response => { response.writeHead(200).end('<html>') }],
    ['answers no key set', response => { response.writeHead(200).end('{"keys":7}') }],
    ['answers a set without keys', response => { response.writeHead(200).end('{"keys":[]}') }],
    ['says nothing', () => {}]
  ]
  for (const [title, answer] of outages) {
    t.test(`a key set that ${title} is no verdict on the token, and is asked again a second later`, async t => {
      const key = makeKey('k1')
      const set = await startKeySet(t, [key])
      let at = 0
      const authenticate = createJwtAuthenticator({ jwksUrl: set.url, jwksTimeoutMs: 1_000, now: () => at })
      const token = await signWithKey(key)
      set.answer = answer
      await t.rejects(verify(authenticate, token), { code: 'AUTH_UNAVAILABLE', statusCode: 503, retryAfterMs: 1000 })
      set.answer = undefined
      at = 1000
      t.match(await verify(authenticate, token), { userId: 'ada' })
    })
  }
})

t.test('options', async t => {
  const bad: Array<[string, object, RegExp]> = [
    ['neither secret nor key set', {}, /needs a secret or a jwksUrl/],
    // The audience was not checked then, and a token for another application was taken.
    ['a misspelt audience', { audiance: 'desk' }, /^audiance is not an option .*; did you mean audience\?/m],
    ['an empty audience', { audience: '' }, /^audience of createJwtAuthenticator: "" is not valid\./m],
    ['several audiences', { audience: ['desk', 'mobile'] }, /^audience .*: an array is not valid/m],
    ['an empty issuer', { issuer: '' }, /^issuer .*: "" is not valid/m],
    ['an issuer that is an address object', { issuer: new URL('https://id.example') }, /^issuer .*: an object is/m],
    ['an option of plugins', { prefix: '/v1' }, /^prefix is not an option of createJwtAuthenticator/m],
    ['a name that every object has', { constructor: 'desk' }, /^constructor is not an option/m],
    ['a short secret', { secret: 'x'.repeat(31) }, /^secret .*: a text of 31 bytes is not valid/m],
    ['a secret that is bytes', { secret: encode(SECRET) }, /^secret .*: an object is not valid/m],
    ['a URL that is none', { jwksUrl: 'keys' }, /^jwksUrl of .* Expected an http or https URL/m],
    ['a URL of a file', { jwksUrl: 'file:///etc/keys.json' }, /^jwksUrl /m],
    ['a URL with credentials, which fetch refuses', { jwksUrl: 'https://ada:quoted@id.example/keys' }, /^jwksUrl /m],
    ['an empty name of the claim of users', { userClaim: '' }, /^userClaim /m],
    ['a negative tolerance', { clockToleranceSeconds: -1 }, /^clockToleranceSeconds .*: -1 is not valid/m],
    ['a tolerance that is no number', { clockToleranceSeconds: NaN }, /^clockToleranceSeconds .*: NaN /m],
    ['a tolerance of hours', { clockToleranceSeconds: 3600 }, /^clockToleranceSeconds .*from 0 to 300\./m],
    // It passed, and every token was 401.
    ['a tolerance that is text', { clockToleranceSeconds: '10' }, /^clockToleranceSeconds .*: "10" is not valid/m],
    ['a name of a claim that is not in an array', { labelClaims: 'roles' }, /^labelClaims .*: "roles" is not valid/m],
    ['an empty name of a claim', { labelClaims: ['roles', ''] }, /^labelClaims .*: "" is not valid/m],
    ['a clock that is none', { wall: 1_700_000_000 }, /^wall /m],
    ['another clock that is none', { now: {} }, /^now /m],
    ['a log that is a function', { log: console.log }, /^log .*: a function is not valid/m],
    ['a negative cooldown', { jwksCooldownMs: -1 }, /^jwksCooldownMs /m],
    ['an age that is text', { jwksMaxAgeMs: '600000' }, /^jwksMaxAgeMs /m],
    ['an endless age', { jwksMaxStaleMs: Infinity }, /^jwksMaxStaleMs .*: Infinity is not valid/m],
    ['no time for an answer', { jwksTimeoutMs: 0 }, /^jwksTimeoutMs .*Expected 1 to 600000 milliseconds/m]
  ]
  for (const [title, options, message] of bad) {
    t.test(`${title} is CONFIG_INVALID, and named`, async t => {
      const verifies = message.source.startsWith('needs') ? {} : { secret: SECRET }
      t.throws(() => createJwtAuthenticator({ ...verifies, ...options }), { code: 'CONFIG_INVALID', message })
    })
  }

  t.test('everything that is wrong is said at once', async t => {
    t.throws(() => createJwtAuthenticator({ secert: SECRET, issuer: '', userClaim: 7 } as object), {
      message: /^secert is not .* did you mean secret\?\.\nissuer .*\nuserClaim .*: 7 is not valid.*$/
    })
  })

  t.test('no options at all are CONFIG_INVALID', async t => {
    for (const options of [undefined, null, SECRET]) {
      t.throws(() => createJwtAuthenticator(options as never), { code: 'CONFIG_INVALID', message: /an object/ })
    }
  })

  t.test('no sentence quotes what may be a secret', async t => {
    for (const options of [{ secret: 'quoted' }, { secret: 31337 }, { jwksUrl: 'https://ada:quoted@id.example/keys' }]) {
      t.throws(() => createJwtAuthenticator(options as object), { message: /^(?!.*(quoted|31337))/s })
    }
  })

  t.test('an option that is undefined counts as absent', async t => {
    const authenticate = withSecret({ audience: undefined, issuer: undefined, log: undefined, jwksUrl: undefined })
    t.match(await verify(authenticate, await signWithSecret({ sub: 'ada' })), { userId: 'ada' })
  })
})

t.test('principals', async t => {
  t.test('the placeholder takes everyone for human_reviewer_1', async t => {
    t.strictSame(await verify(placeholderAuthenticator(), undefined), { userId: 'human_reviewer_1' })
  })

  t.test('an application\'s principal passes if it is one', async t => {
    t.strictSame(checkPrincipal({ userId: 'ünal', expiresAt: 5 }), { userId: 'ünal', expiresAt: 5 })
  })

  const bad: Array<[string, unknown]> = [
    ['undefined', undefined],
    ['no user id', {}],
    ['a user id that is no text', { userId: 7 }],
    ['half a surrogate pair', { userId: 'a\ud800' }],
    ['an end that is no number', { userId: 'ada', expiresAt: 'tomorrow' }],
    ['an endless end', { userId: 'ada', expiresAt: Infinity }]
  ]
  for (const [title, principal] of bad) {
    t.test(`${title} is UNAUTHENTICATED`, async t => {
      t.throws(() => checkPrincipal(principal as Principal), { code: 'UNAUTHENTICATED', cause: { name: 'TypeError' } })
    })
  }
})
