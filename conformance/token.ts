// Signed tokens for servers that ask for credentials: HS256, made from the secret that the server
// was started with, so that a check can be any user, or one whose rights end in two seconds.
// Signing only; what a server accepts is what the checks find out.

import { createHmac } from 'node:crypto'

export interface TokenOptions {
  userId: string
  lifetimeSeconds: number
  /** Further claims, such as iss and aud. */
  claims?: Record<string, unknown>
}

export function signToken (secret: string, { userId, lifetimeSeconds, claims = {} }: TokenOptions): string {
  const nowSeconds = Math.floor(Date.now() / 1000)
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const content = `${part({
    alg: 'HS256', typ: 'JWT'
  })}.${part({ ...claims, sub: userId, iat: nowSeconds, exp: nowSeconds + lifetimeSeconds })}`
  return `${content}.${createHmac('sha256', secret).update(content).digest('base64url')}`
}
