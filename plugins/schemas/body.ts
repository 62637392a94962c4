// How the server reads bodies, on every route: JSON, or nothing.
//
// JSON is read as frames are (P-6): what an operator sends reaches clients unchanged, or not at
// all. Fastify's own parser would round numbers and keep the last of two equal keys. And many HTTP
// clients send `Content-Type: application/json` with each request, a DELETE without a body among
// them; what has no content has no type (RFC 9110, section 8.3), so such a request is taken as if
// the header were not there.

import type { FastifyInstance } from 'fastify'
import { HoldfastError } from '../../src/io/errors.js'
import { type JsonError, parseJson } from '../../src/io/json.js'

/**
 * Replaces the parsers of a scope; call it before routes are declared. A route that needs a body
 * refuses a missing one by its schema.
 */
export function readBodies (scope: FastifyInstance): void {
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser(
    ['application/json', 'application/merge-patch+json'],
    { parseAs: 'string' },
    (_request, text, done) => {
      try {
        done(null, text === '' ? undefined : parseJson(text as string))
      } catch (error) {
        done(new HoldfastError(
          'INVALID_REQUEST', { message: `The body is not valid: ${(error as JsonError).message}.` }
        ))
      }
    }
  )
  // Of any other type not a byte is kept.
  scope.addContentTypeParser('*', (_request, stream, done) => {
    const onData = (): void => {
      stream.off('end', onEnd)
      done(new HoldfastError('INVALID_REQUEST', { message: 'The content type of the body is not application/json.' }))
    }
    const onEnd = (): void => {
      stream.off('data', onData)
      done(null, undefined)
    }
    stream.once('data', onData)
    stream.once('end', onEnd)
  })
}
