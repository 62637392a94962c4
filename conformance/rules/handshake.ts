// P-1 to P-5 and P-53: what happens before and with the first frame. These checks speak HTTP by
// hand, since what they send is mostly what a client library would not let through.

import { BASIC, BOTH, FULL, check, type Check } from '../check.js'
import { expect, expectEqual, notTested } from '../expect.js'
import type { ConnectOptions, Scope } from '../kit.js'
import type { HttpAnswer } from '../socket.js'
import { signToken } from '../token.js'

const ACCEPTABLE = { basic: [], full: ['holdfast.v1'] } as const

function expectRefusal (answer: HttpAnswer, status: number, what: string): Record<string, any> {
  expect(answer.status === status, `HTTP ${status} for ${what}`, `HTTP ${answer.status} ${answer.body}`)
  let body: any
  try {
    body = JSON.parse(answer.body)
  } catch {}
  const shaped = body?.statusCode === status &&
    ['code', 'error', 'message'].every((name) => typeof body[name] === 'string')
  expect(shaped, `a JSON body {statusCode, code, error, message} with HTTP ${status} for ${what}`, answer.body)
  return body
}

async function refused (
  scope: Scope, options: ConnectOptions, status: number, what: string
): Promise<Record<string, any>> {
  return expectRefusal((await scope.handshake(options)).answer, status, what)
}

function forbiddenUser (scope: Scope): string {
  if (!scope.signsTokens) notTested('--jwt-secret')
  return scope.options.forbiddenUser ?? notTested('--forbidden-user')
}

function uncheckedHeaders (scope: Scope): { authorization: string } {
  return { authorization: `Bearer ${scope.options.uncheckedToken ?? notTested('--unchecked-token')}` }
}

export const handshakeChecks: readonly Check[] = [
  check('P-1', 'upgrades and agrees to no extension', BOTH, async (scope) => {
    const { answer, link } = await scope.handshake({
      protocols: ACCEPTABLE[scope.profile],
      headers: { 'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits' }
    })
    expect(link !== undefined, 'HTTP 101', `HTTP ${answer.status} ${answer.body}`)
    expectEqual(answer.headers.get('sec-websocket-extensions'), undefined, 'Sec-WebSocket-Extensions')
  }),
  check('P-1', 'keeps to RFC 6455 and JSON objects while it answers', BOTH, async (scope) => {
    const peer = await scope.connect()
    peer.command('echo', { text: 'ä€😀\u2028', deep: [[1.5, null, true]] }, 'a')
    expectEqual((await peer.answer('a')).payload, { text: 'ä€😀\u2028', deep: [[1.5, null, true]] }, 'the payload')
  }),
  check('P-1', 'reads a message that comes in fragments with a ping between them', BOTH, async (scope) => {
    const peer = await scope.connect()
    const { encodeFrame, OPCODE } = await import('../frames.js')
    const text = Buffer.from(JSON.stringify({
      sessionId: peer.sessionId, command: 'echo', payload: 'in pieces', id: 'f'
    }))
    peer.link.sendBytes(encodeFrame(OPCODE.text, text.subarray(0, 5), { fin: false }))
    peer.link.sendBytes(encodeFrame(OPCODE.ping, Buffer.from('between')))
    peer.link.sendBytes(encodeFrame(OPCODE.continuation, text.subarray(5, 9), { fin: false }))
    peer.link.sendBytes(encodeFrame(OPCODE.continuation, text.subarray(9)))
    expectEqual((await peer.answer('f')).payload, 'in pieces', 'the payload')
  }),
  check('P-2', 'selects no subprotocol if none was offered', BASIC, async (scope) => {
    const { answer } = await scope.handshake({ protocols: [] })
    expectEqual(answer.status, 101, 'HTTP status')
    expectEqual(answer.headers.get('sec-websocket-protocol'), undefined, 'Sec-WebSocket-Protocol')
  }),
  check('P-2', 'selects holdfast.v1 among other entries', FULL, async (scope) => {
    for (const protocols of [
      ['holdfast.v1'], ['chat', 'holdfast.v1', 'holdfast.v2'], ['resume.x.y.0', 'holdfast.v1']
    ]) {
      const { answer } = await scope.handshake({ protocols })
      expectEqual(
        answer.headers.get('sec-websocket-protocol'),
        'holdfast.v1',
        `for the offer ${protocols.join(', ')} the subprotocol`
      )
    }
  }),
  check('P-2', 'refuses an offer without holdfast.v1', FULL, async (scope) => {
    for (const protocols of [['chat'], ['holdfast.v2', 'holdfast'], ['resume.x.y.0'], ['HOLDFAST.V1']]) {
      const body = await refused(scope, { protocols }, 400, `the offer ${protocols.join(', ')}`)
      expectEqual(body['code'], 'SUBPROTOCOL_UNSUPPORTED', `for the offer ${protocols.join(', ')} the code`)
    }
  }),
  check('P-2', 'refuses a list of more than eight entries, or with one twice', FULL, async (scope) => {
    const eight = ['holdfast.v1', 'a', 'b', 'c', 'd', 'e', 'f', 'g']
    const { answer } = await scope.handshake({ protocols: eight })
    expectEqual(answer.status, 101, 'the HTTP status for eight entries')
    for (const protocols of [[...eight, 'h'], ['holdfast.v1', 'a', 'a']]) {
      const body = await refused(scope, { protocols }, 400, `the offer ${protocols.join(', ')}`)
      expectEqual(body['code'], 'SUBPROTOCOL_UNSUPPORTED', `for the offer ${protocols.join(', ')} the code`)
    }
  }),
  check('P-3', 'takes a token from the header or from the auth entry', FULL, async (scope) => {
    const secret = scope.options.jwtSecret ?? notTested('--jwt-secret')
    const token = signToken(secret, { userId: 'kit-entry', lifetimeSeconds: 60, claims: scope.options.jwtClaims })
    const none = { authorization: [] }
    const byEntry = await scope.connect({ headers: none, protocols: ['holdfast.v1', `auth.${token}`] })
    expectEqual(byEntry.facts['userId'], 'kit-entry', 'the user of the auth entry')
    const other = signToken(secret, { userId: 'kit-header', lifetimeSeconds: 60, claims: scope.options.jwtClaims })
    const both = await scope.connect({
      headers: { authorization: `Bearer ${other}` },
      protocols: ['holdfast.v1', `auth.${token}`]
    })
    expectEqual(both.facts['userId'], 'kit-header', 'with both given, the user')
  }),
  check('P-3', 'takes a token from the auth64 entry', FULL, async (scope) => {
    const secret = scope.options.jwtSecret ?? notTested('--jwt-secret')
    const token = signToken(secret, { userId: 'kit-base64url', lifetimeSeconds: 60, claims: scope.options.jwtClaims })
    const peer = await scope.connect({
      headers: { authorization: [] }, protocols: ['holdfast.v1', `auth64.${Buffer.from(token).toString('base64url')}`]
    })
    expectEqual(peer.facts['userId'], 'kit-base64url', 'the user of the auth64 entry')
  }),
  check('P-3', 'takes no token from the URL', BOTH, async (scope) => {
    const secret = scope.options.jwtSecret ?? notTested('--jwt-secret')
    const token = signToken(secret, { userId: 'kit-url', lifetimeSeconds: 60, claims: scope.options.jwtClaims })
    const { pathname } = new URL(scope.options.url)
    for (const name of ['token', 'access_token', 'auth', 'authorization']) {
      const target = `${pathname}?${name}=${token}`
      await refused(
        scope,
        { target, headers: { authorization: [] }, protocols: ACCEPTABLE[scope.profile] },
        401,
        `a token in ?${name}=`
      )
    }
  }),
  check('P-4', 'answers 401 to missing and wrong credentials', BOTH, async (scope) => {
    const secret = scope.options.jwtSecret ?? notTested('--jwt-secret')
    const claims = scope.options.jwtClaims
    const wrong = signToken(`${secret}x`, { userId: 'kit', lifetimeSeconds: 60, claims })
    const old = signToken(secret, { userId: 'kit', lifetimeSeconds: -3600, claims })
    for (const authorization of [[], 'Bearer', 'Bearer x', 'Basic a2l0OmtpdA==', `Bearer ${wrong}`, `Bearer ${old}`]) {
      await refused(
        scope,
        { headers: { authorization }, protocols: ACCEPTABLE[scope.profile] },
        401,
        `Authorization ${String(authorization)}`
      )
    }
  }),
  check('P-53', 'says goodbye with 4401 to a client that cannot read a status', FULL, async (scope) => {
    const secret = scope.options.jwtSecret ?? notTested('--jwt-secret')
    const claims = scope.options.jwtClaims
    const old = signToken(secret, { userId: 'kit', lifetimeSeconds: -3600, claims })
    for (const entry of ['auth.bm9uZQ', `auth.${old}`]) {
      const headers = { authorization: [] }
      await refused(
        scope, { headers, protocols: ['holdfast.v1', entry] }, 401, `${entry.slice(0, 12)} without refuse.goodbye`
      )
      const peer = await scope.connect({ headers, protocols: ['holdfast.v1', 'refuse.goodbye', entry] })
      expectEqual(peer.opening.type, 'goodbye', 'the first frame')
      const end = await peer.closed('a close with 4401')
      expectEqual([end.code, end.goodbye?.payload?.reason], [4401, 'unauthenticated'], 'close code and reason')
    }
  }),
  check('P-4', 'answers 403 to a user who may not connect', BOTH, async (scope) => {
    const user = forbiddenUser(scope)
    await refused(scope, { user, protocols: ACCEPTABLE[scope.profile] }, 403, 'a user who may not connect')
  }),
  check('P-4', 'answers 503 with Retry-After while credentials cannot be checked', BOTH, async (scope) => {
    const headers = uncheckedHeaders(scope)
    const { answer } = await scope.handshake({ headers, protocols: ACCEPTABLE[scope.profile] })
    expectRefusal(answer, 503, 'a token that cannot be checked')
    expect(
      /^\d+$/.test(answer.headers.get('retry-after') ?? ''),
      'Retry-After in whole seconds',
      answer.headers.get('retry-after')
    )
  }),
  check('P-53', 'says goodbye with 4403 to a user who may not connect', FULL, async (scope) => {
    const peer = await scope.connect({ user: forbiddenUser(scope), protocols: ['holdfast.v1', 'refuse.goodbye'] })
    const end = await peer.closed('a close with 4403')
    expectEqual(
      [peer.opening.type, end.code, end.goodbye?.payload?.reason],
      ['goodbye', 4403, 'forbidden'],
      'first frame, close code and reason'
    )
  }),
  check('P-53', 'says goodbye with 4105 while credentials cannot be checked', FULL, async (scope) => {
    const peer = await scope.connect({ headers: uncheckedHeaders(scope), protocols: ['holdfast.v1', 'refuse.goodbye'] })
    const end = await peer.closed('a close with 4105')
    expectEqual(
      [peer.opening.type, end.code, end.goodbye?.payload?.reason],
      ['goodbye', 4105, 'auth_unavailable'],
      'first frame, close code and reason'
    )
    expect(end.goodbye?.payload?.retryAfterMs > 0, 'retryAfterMs in goodbye', end.goodbye)
  }),
  check('P-4', 'answers 426 to a request that asks for no upgrade', BOTH, async (scope) => {
    await refused(
      scope, { without: ['connection', 'upgrade', 'sec-websocket-key', 'sec-websocket-version'] }, 426, 'a plain GET'
    )
  }),
  check('P-4', 'answers 400 to a malformed handshake', BOTH, async (scope) => {
    const protocols = ACCEPTABLE[scope.profile]
    await refused(scope, { protocols, without: ['sec-websocket-key'] }, 400, 'a handshake without Sec-WebSocket-Key')
    const headers = { 'Sec-WebSocket-Key': 'dG9vIHNob3J0' }
    await refused(
      scope, { protocols, headers, without: ['sec-websocket-key'] }, 400, 'a Sec-WebSocket-Key of the wrong length'
    )
  }),
  check('P-4', 'upgrades nothing that HTTP/1.1 does not allow', BOTH, async (scope) => {
    const protocols = ACCEPTABLE[scope.profile]
    const { host } = new URL(scope.options.url)
    const cases: Record<string, ConnectOptions> = {
      'HTTP/1.0': { httpVersion: '1.0' },
      'no Host': { without: ['host'] },
      'two Hosts': { headers: { Host: [host] } },
      'a body': { headers: { 'Content-Length': '5' } },
      'the method POST': { method: 'POST' }
    }
    for (const [what, options] of Object.entries(cases)) {
      const { answer } = await scope.handshake({ ...options, protocols })
      expect(
        answer.status >= 400 && answer.status < 500, `HTTP 4xx for a handshake with ${what}`, `HTTP ${answer.status}`
      )
    }
  }),
  check('P-5', 'begins with session_created and says its limits', BOTH, async (scope) => {
    const peer = await scope.connect()
    expectEqual(peer.opening.type, 'session_created', 'the first frame')
    expectEqual(peer.opening.seq, undefined, 'seq of session_created')
    const { sessionId, userId, protocol, idleTimeoutMs, heartbeatMs, limits } = peer.opening.payload ?? {}
    const told = typeof sessionId === 'string' && typeof userId === 'string' && protocol !== undefined &&
      idleTimeoutMs > 0 && heartbeatMs > 0
    expect(told, 'payload with sessionId, userId, protocol, idleTimeoutMs, heartbeatMs', peer.opening)
    expect(
      limits?.maxMessageBytes > 0 && limits.commandsPerSecond > 0 && limits.maxInFlight > 0,
      'limits {maxMessageBytes, commandsPerSecond, maxInFlight}',
      limits
    )
    expectEqual(peer.opening.payload.revision, '1.1', 'the revision')
    if (scope.profile === 'basic') {
      expectEqual(peer.facts['resumeToken'], undefined, 'in the basic profile resumeToken')
    } else {
      expect(typeof peer.facts['resumeWindowMs'] === 'number', 'resumeWindowMs', peer.opening)
      expect(
        peer.facts['resumeWindowMs'] === 0 || typeof peer.facts['resumeToken'] === 'string', 'resumeToken', peer.opening
      )
      expectEqual(peer.facts['previous'], undefined, 'without a resume, previous')
    }
  }),
  check('P-5', 'gives each connection a session of its own', BOTH, async (scope) => {
    const peers = await Promise.all([scope.connect(), scope.connect(), scope.connect()])
    expectEqual(new Set(peers.map(({ sessionId }) => sessionId)).size, 3, 'the number of session ids')
    if (scope.profile === 'full' && scope.facts.resumeWindowMs > 0) {
      expectEqual(new Set(peers.map(({ token }) => token)).size, 3, 'the number of tokens')
    }
  })
]
