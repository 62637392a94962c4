// How the server answers what no plugin answers: routes that do not exist, and what Node refuses
// before there is a request. The form is that of every other error
// (plugins/schemas/error-answer.ts): `{statusCode, code, error, message}`.

import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { ERRORS, HoldfastError } from './io/errors.js'

/** For `setNotFoundHandler`. */
export async function answerNotFound (): Promise<never> {
  throw new HoldfastError('ROUTE_NOT_FOUND')
}

/** Codes of Node's parser that are worth a status of their own; all else is 400. */
const STATUS_BY_CODE: Readonly<Record<string, { statusCode: number, message: string }>> = {
  ERR_HTTP_REQUEST_TIMEOUT: { statusCode: 408, message: 'The request took too long to arrive.' },
  HPE_HEADER_OVERFLOW: { statusCode: 431, message: 'The headers are larger than 16 KiB.' }
}

/**
 * For `clientErrorHandler`: broken HTTP, too many headers, headers that take too long. The
 * connection is closed in every case.
 */
export function answerClientError (error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return
  if (socket.writable) {
    const { statusCode, message } = STATUS_BY_CODE[error.code ?? ''] ??
      { statusCode: 400, message: ERRORS.INVALID_REQUEST.message }
    const reason = STATUS_CODES[statusCode]
    const body = JSON.stringify({ statusCode, code: 'INVALID_REQUEST', error: reason, message })
    socket.write(
      `HTTP/1.1 ${statusCode} ${reason}\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: ` +
        `${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`
    )
  }
  socket.destroySoon()
}
