// One signed POST to the Platform Core, after the Standard Webhooks specification. createWebhookSender opens a bounded pool of kept-alive
// connections; `post` makes exactly one attempt and always settles within its limit: a peer that hangs, drips, resets, redirects or
// answers too much costs that one call. It answers with data and never throws, since every outcome is expected here; whether to repeat
// is decided by the caller (http.ts, lifecycle-queue.ts). Bodies, headers and secrets appear in no error and no log line.

import { createHmac } from 'node:crypto'
import { Pool, type Dispatcher } from 'undici'
import { HoldfastError } from '../io/errors.js'
import type { Clock, Millis } from '../io/types.js'

export interface WebhookSenderOptions {
  /** http or https, without credentials and fragment. */
  url: string
  /** `whsec_<base64>` or the key itself as text; 24 bytes at least. Without it requests are not signed. */
  secret?: string | undefined
  /** Most concurrent requests; what exceeds them waits, inside its own limit. */
  connections: number
  /** Most bytes of an answer's body. */
  maxAnswerBytes: number
  clock: Clock
}

export interface WebhookPost {
  /** The `webhook-id`: the same in every attempt of one delivery, which makes it the idempotency key. */
  id: string
  body: string
  /** Most time for connecting, sending and reading the whole answer; above 0. */
  limitMs: Millis
  signal?: AbortSignal | undefined
}

export type WebhookReply =
  /** The core answered. `retryAfterMs` is the Retry-After header, if it was a number of seconds. */
  | { readonly kind: 'answer', readonly status: number, readonly body: Uint8Array, readonly retryAfterMs: Millis | undefined }
  /** The answer was given up because it is larger than maxAnswerBytes. */
  | { readonly kind: 'too_large', readonly status: number }
  /** Nothing came, or not all of it: refused, reset, timed out, no HTTP. `reason` is a code of undici or Node.js, or TIMEOUT. */
  | { readonly kind: 'failed', readonly reason: string, readonly cause: unknown }
  /** `signal` was aborted, or the sender is closed. */
  | { readonly kind: 'aborted' }

export interface WebhookSender {
  post(request: WebhookPost): Promise<WebhookReply>
  /** Breaks off what is under way and frees the connections. */
  close(): Promise<void>
}

/** Retry-After beyond this is taken as this. */
const MAX_RETRY_AFTER_MS = 600_000
const CONNECT_TIMEOUT_MS = 5_000
const MIN_SECRET_BYTES = 24

/** @throws CONFIG_INVALID  a URL that is not http(s), or carries credentials or a fragment; a secret that is malformed or too short */
export function createWebhookSender (options: WebhookSenderOptions): WebhookSender {
  const { connections, maxAnswerBytes, clock } = options
  const url = readUrl(options.url)
  const key = options.secret === undefined ? undefined : readSecret(options.secret)
  const path = url.pathname + url.search
  const pool = new Pool(url.origin, {
    connections,
    pipelining: 1,
    // Not longer than common servers keep an idle connection open: a request on a connection that is being closed fails.
    keepAliveTimeout: 4_000,
    // Browsers' trick for dual-stack hosts; without it one dead address family takes the whole connect timeout.
    autoSelectFamily: true,
    connect: { timeout: CONNECT_TIMEOUT_MS }
  })

  async function post ({ id, body, limitMs, signal }: WebhookPost): Promise<WebhookReply> {
    if (signal?.aborted || pool.destroyed) return { kind: 'aborted' }
    const breakOff = new AbortController()
    let timedOut = false
    // undici's own timeouts restart with each byte and tick coarsely; this one bounds the whole attempt, a slow drip included.
    const timer = setTimeout(() => { timedOut = true; breakOff.abort() }, limitMs)
    const onAbort = (): void => { breakOff.abort() }
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      const response = await pool.request({
        method: 'POST',
        path,
        headers: headersOf(id, body),
        body,
        headersTimeout: limitMs,
        bodyTimeout: limitMs,
        signal: breakOff.signal
      })
      return await readReply(response, breakOff)
    } catch (cause) {
      if (timedOut) return { kind: 'failed', reason: 'TIMEOUT', cause }
      if (signal?.aborted || pool.destroyed) return { kind: 'aborted' }
      return { kind: 'failed', reason: reasonOf(cause), cause }
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  function headersOf (id: string, body: string): Record<string, string> {
    const timestamp = String(Math.floor(clock.wall() / 1000))
    const headers: Record<string, string> = {
      'content-type': 'application/json; charset=utf-8',
      accept: 'application/json',
      'user-agent': 'holdfast',
      'webhook-id': id,
      'webhook-timestamp': timestamp
    }
    if (key !== undefined) headers['webhook-signature'] = sign(key, id, timestamp, body)
    return headers
  }

  async function readReply (response: Dispatcher.ResponseData, breakOff: AbortController): Promise<WebhookReply> {
    const { statusCode: status, headers } = response
    const chunks: Buffer[] = []
    let bytes = 0
    for await (const chunk of response.body as AsyncIterable<Buffer>) {
      bytes += chunk.length
      if (bytes > maxAnswerBytes) {
        breakOff.abort()
        return { kind: 'too_large', status }
      }
      chunks.push(chunk)
    }
    return { kind: 'answer', status, body: Buffer.concat(chunks, bytes), retryAfterMs: readRetryAfter(headers['retry-after']) }
  }

  return {
    post,
    async close () { await pool.destroy() }
  }
}

/** `v1,<base64 of HMAC-SHA256(key, id.timestamp.body)>`, the signature header of Standard Webhooks 1.0. */
export function sign (key: Uint8Array, id: string, timestamp: string, body: string): string {
  return `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')}`
}

/**
 * The key in a secret: the decoded bytes after `whsec_`, else the text's UTF-8 bytes.
 *
 * @throws CONFIG_INVALID  no base64 after the prefix, or fewer than 24 bytes; the sentence does not quote the secret
 */
export function readSecret (secret: string): Uint8Array {
  const encoded = secret.startsWith('whsec_') ? secret.slice('whsec_'.length) : undefined
  if (encoded !== undefined && !/^[A-Za-z0-9+/]+={0,2}$/.test(encoded)) {
    throw new HoldfastError('CONFIG_INVALID', { message: 'The secret of the Platform Core is not base64 after whsec_.' })
  }
  const key = encoded === undefined ? Buffer.from(secret, 'utf8') : Buffer.from(encoded, 'base64')
  if (key.length < MIN_SECRET_BYTES) {
    throw new HoldfastError('CONFIG_INVALID', { message: `The secret of the Platform Core has ${key.length} bytes; at least ${MIN_SECRET_BYTES} are needed.` })
  }
  return key
}

function readUrl (text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new HoldfastError('CONFIG_INVALID', { message: 'The URL of the Platform Core is not an http or https URL.' })
  }
  if (url.username !== '' || url.password !== '' || url.hash !== '') {
    throw new HoldfastError('CONFIG_INVALID', { message: 'The URL of the Platform Core carries credentials or a fragment; requests are authenticated by their signature.' })
  }
  return url
}

// The date form of Retry-After is ignored: it would compare two machines' clocks.
function readRetryAfter (value: string | string[] | undefined): Millis | undefined {
  if (typeof value !== 'string' || !/^\d{1,9}$/.test(value)) return undefined
  return Math.min(Number(value) * 1000, MAX_RETRY_AFTER_MS)
}

function reasonOf (cause: unknown): string {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
  return typeof code === 'string' ? code : 'UNKNOWN'
}
