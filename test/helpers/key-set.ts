// A token issuer: keys, tokens, and a real HTTP server that publishes the keys and can have a bad
// day.

import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { SignJWT, exportJWK, type JWTPayload } from 'jose'
import type { Test } from 'tap'

export interface Key { kid: string, alg: string, privateKey: KeyObject, publicKey: KeyObject }

export function makeKey (kid: string, alg: 'ES256' | 'RS256' | 'EdDSA' = 'ES256'): Key {
  const pair = alg === 'ES256'
    ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
    : alg === 'RS256' ? generateKeyPairSync('rsa', { modulusLength: 2048 }) : generateKeyPairSync('ed25519')
  return { kid, alg, ...pair }
}

export function signWithKey (
  key: Key, claims: JWTPayload = { sub: 'ada' }, header: object = { kid: key.kid }
): Promise<string> {
  return new SignJWT(claims).setProtectedHeader({ alg: key.alg, ...header }).sign(key.privateKey)
}

/** An issuer's key set on a port of its own, with a count of how often it was fetched. */
export async function startKeySet (t: Test, keys: Key[]) {
  const state = { keys, fetches: 0, url: '', answer: undefined as ((response: ServerResponse) => void) | undefined }
  const server = createServer((_, response) => {
    state.fetches++
    if (state.answer !== undefined) { state.answer(response); return }
    void Promise.all(state.keys.map(async key => ({
      ...await exportJWK(key.publicKey),
      kid: key.kid,
      alg: key.alg,
      use: 'sig'
    }))).then(list => {
      response.writeHead(200, { 'content-type': 'application/json', connection: 'close' }).end(JSON.stringify({
        keys: list
      }))
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(async () => {
    server.closeAllConnections()
    server.close()
    await once(server, 'close')
  })
  state.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json`
  return state
}
