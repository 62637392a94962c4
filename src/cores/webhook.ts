// One signed POST to the Platform Core, after the Standard Webhooks specification.
// createWebhookSender opens a bounded pool of kept-alive connections; `post` makes exactly one
// attempt and always settles within its limits: a peer that hangs, drips, resets, redirects or
// answers too much costs that one call. It answers with data and never throws, since every outcome
// is expected here. It says whether the request began to leave (`sent`), on which outcome.ts
// decides what surely was not executed; whether to repeat is decided by http.ts and
// lifecycle-queue.ts. Bodies, headers and secrets appear in no error and no log line.

import { createHmac } from 'node:crypto'
import { Pool, type Dispatcher } from 'undici'
import type { Clock, Millis } from '../io/types.js'

export interface WebhookSenderOptions {
  /** One that `isWebhookUrl`. */
  url: string
  /** One that `isWebhookSecret`. Without it requests are not signed. */
  secret?: string | undefined
  /** Most concurrent requests; what exceeds them waits, inside its own limit. */
  connections: number
  /** Most bytes of an answer's body. */
  maxAnswerBytes: number
  clock: Clock
}

export interface WebhookPost {
  /**
   * The `webhook-id`: the same in every attempt of one delivery, which makes it the idempotency
   * key.
   */
  id: string
  body: string
  /** Most time to wait for a connection, a free one of the pool or a new one; above 0. */
  startWithinMs: Millis
  /** Most time from the first byte of the request to the last one of the answer; above 0. */
  answerWithinMs: Millis
  signal?: AbortSignal | undefined
}

export type WebhookReply =
  /** The core answered. `retryAfterMs` is what its Retry-After header asks for, if it has one. */
  | {
    readonly kind: 'answer'
    readonly status: number
    readonly body: Uint8Array
    readonly retryAfterMs: Millis | undefined
  }
  /** The answer was given up because it is larger than maxAnswerBytes. */
  | { readonly kind: 'too_large', readonly status: number, readonly retryAfterMs: Millis | undefined }
  /**
   * No answer, or not all of it: refused, reset, timed out, not HTTP. `sent` is false if not a byte
   * of the request was written. `status` is there if the head of the answer arrived. `reason` is a
   * code of undici or Node.js, or TIMEOUT.
   */
  | {
    readonly kind: 'failed'
    readonly sent: boolean
    readonly status: number | undefined
    readonly reason: string
    readonly cause: unknown
  }
  /** `signal` was aborted, or the sender is closed. */
  | { readonly kind: 'aborted', readonly sent: boolean }

export interface WebhookSender {
  post(request: WebhookPost): Promise<WebhookReply>
  /** Breaks off what is under way and frees the connections. */
  close(): Promise<void>
}

/** Retry-After beyond this is taken as this. */
const MAX_RETRY_AFTER_MS = 600_000
const CONNECT_TIMEOUT_MS = 5_000
const MIN_SECRET_BYTES = 24
const BASE64_PREFIX = 'whsec_'

export function createWebhookSender (options: WebhookSenderOptions): WebhookSender {
  const { connections, maxAnswerBytes, clock } = options
  const url = new URL(options.url)
  const key = options.secret === undefined ? undefined : readSecret(options.secret)
  const path = url.pathname + url.search
  const pool = new Pool(url.origin, {
    connections,
    pipelining: 1,
    // Not longer than common servers keep an idle connection open: a request on a connection that
    // is being closed fails.
    keepAliveTimeout: 4_000,
    // Browsers' trick for dual-stack hosts; without it one dead address family takes the whole
    // connect timeout.
    autoSelectFamily: true,
    connect: { timeout: CONNECT_TIMEOUT_MS }
  })

  function post ({ id, body, startWithinMs, answerWithinMs, signal }: WebhookPost): Promise<WebhookReply> {
    if (signal?.aborted || pool.destroyed) return Promise.resolve({ kind: 'aborted', sent: false })
    return new Promise(resolve => {
      const chunks: Buffer[] = []
      let bytes = 0
      let head: { status: number, retryAfterMs: Millis | undefined } | undefined
      let controller: Dispatcher.DispatchController | undefined
      let settled = false
      // undici's own timeouts restart with each byte and tick coarsely; this one bounds the wait
      // for a connection, and then the whole exchange, a slow drip included.
      let timer = setTimeout(() => fail('TIMEOUT'), startWithinMs)

      function settle (reply: WebhookReply): void {
        if (settled) return
        settled = true
        clearTimeout(timer)
        signal?.removeEventListener('abort', onAbort)
        resolve(reply)
        if (reply.kind !== 'answer') controller?.abort(new Error('given up'))
      }
      function fail (reason: string, cause?: unknown): void {
        settle({ kind: 'failed', sent: controller !== undefined, status: head?.status, reason, cause })
      }
      function onAbort (): void {
        settle({ kind: 'aborted', sent: controller !== undefined })
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      pool.dispatch({
        method: 'POST', path, headers: headersOf(id, body), body, headersTimeout: 0, bodyTimeout: 0
      }, {
        // Called with a connection in hand, right before the first byte. Throwing here keeps a
        // request that was given up while it waited from being sent. undici sends a POST once;
        // should that change, the second time ends here.
        onRequestStart (started) {
          if (settled || controller !== undefined) throw new Error('given up')
          controller = started
          clearTimeout(timer)
          timer = setTimeout(() => fail('TIMEOUT'), answerWithinMs)
        },
        onResponseStart (_, status, headers) {
          // 1xx say that an answer will come.
          if (status >= 200) head = { status, retryAfterMs: readRetryAfter(headers) }
        },
        onResponseData (_, chunk) {
          bytes += chunk.length
          if (bytes <= maxAnswerBytes) chunks.push(chunk)
          else if (head !== undefined) settle({ kind: 'too_large', ...head })
        },
        onResponseEnd () {
          if (head !== undefined) settle({ kind: 'answer', ...head, body: Buffer.concat(chunks, bytes) })
        },
        onResponseError (_, cause) {
          if (pool.destroyed) onAbort()
          else fail(reasonOf(cause), cause)
        }
      })
    })
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

  return {
    post,
    async close () { await pool.destroy() }
  }
}

/**
 * `v1,<base64 of HMAC-SHA256(key, id.timestamp.body)>`, the signature header of Standard Webhooks
 * 1.0.
 */
export function sign (key: Uint8Array, id: string, timestamp: string, body: string): string {
  return `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')}`
}

/** The key in a secret: the decoded bytes after `whsec_`, else the text's UTF-8 bytes. */
export function readSecret (secret: string): Uint8Array {
  return secret.startsWith(BASE64_PREFIX)
    ? Buffer.from(secret.slice(BASE64_PREFIX.length), 'base64')
    : Buffer.from(secret, 'utf8')
}

/** `whsec_<base64>`, or the key itself as text; 24 bytes at least. */
export function isWebhookSecret (value: unknown): boolean {
  if (typeof value !== 'string' || readSecret(value).length < MIN_SECRET_BYTES) return false
  // Buffer.from passes over what is not base64.
  return !value.startsWith(BASE64_PREFIX) || /^[A-Za-z0-9+/]+={0,2}$/.test(value.slice(BASE64_PREFIX.length))
}

/** http or https. Requests are authenticated by their signature, so no credentials; no fragment. */
export function isWebhookUrl (value: unknown): boolean {
  if (typeof value !== 'string' || !URL.canParse(value)) return false
  const { protocol, username, password, hash } = new URL(value)
  return (protocol === 'http:' || protocol === 'https:') && username === '' && password === '' && hash === ''
}

/**
 * What Retry-After asks for: seconds, or a date, which is compared with the answer's own Date,
 * since the clocks of two machines differ. A date without that comparison is 0: later, whenever.
 * Undefined if there is none, or it is neither.
 */
function readRetryAfter (headers: Record<string, string | string[] | undefined>): Millis | undefined {
  const value = headers['retry-after']
  if (typeof value !== 'string') return undefined
  if (/^\d{1,9}$/.test(value)) return Math.min(Number(value) * 1000, MAX_RETRY_AFTER_MS)
  // Date.parse alone takes much that is not a date of HTTP.
  const at = /^[A-Z][a-z]+, /.test(value) ? Date.parse(value) : NaN
  if (Number.isNaN(at)) return undefined
  const ms = at - Date.parse(String(headers['date']))
  return Number.isNaN(ms) ? 0 : Math.min(Math.max(ms, 0), MAX_RETRY_AFTER_MS)
}

function reasonOf (cause: unknown): string {
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
  return typeof code === 'string' ? code : 'UNKNOWN'
}
