// What is shown to whoever opens the server's own address: a person gets a page that says what this
// is and where to go, a program the same as JSON. It holds nothing that /openapi.json does not tell
// as well, so it needs no operator.

import type {} from '@fastify/rate-limit'
import fp from 'fastify-plugin'
import { aText, checkPluginOptions, type OptionCheck } from '../src/option-checks.js'
import { wantsHtml } from './schemas/accept.js'

export interface StartPageOptions {
  /** Version of the server, shown on the page. */
  version: string
}

const CHECKS: Record<keyof StartPageOptions, OptionCheck> = { version: { ...aText('a version'), required: true } }

const LINKS = {
  clients: '/ws', operators: '/sessions', page: '/docs', description: '/openapi.json', health: '/health/ready'
}

export default fp<StartPageOptions>(async function startPage (fastify, options) {
  checkPluginOptions('holdfast/start-page', options, CHECKS)
  const { version } = options
  const limit = fastify.hasDecorator('rateLimit') ? { onRequest: fastify.rateLimit() } : {}
  const page = render(version)
  fastify.get('/', { ...limit, schema: { hide: true } }, async ({ headers }, reply) => {
    reply.header('vary', 'accept')
    if (!wantsHtml(headers.accept)) return { name: 'holdfast', version, ...LINKS }
    return reply.type('text/html; charset=utf-8').send(page)
  })
}, { name: 'holdfast/start-page', fastify: '5.x', encapsulate: true })

function render (version: string): string {
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Holdfast</title>
<h1>Holdfast ${version.replace(/[^\w.+-]/g, '')}</h1>
<p>A session server is running here. Clients connect to it by WebSocket, at <code>${LINKS.clients}</code>.</p>
<ul>
<li><a href="${LINKS.page}">The operator API</a>, and its <a href="${LINKS.description}">description</a></li>
<li><a href="${LINKS.operators}">Sessions</a>, for operators</li>
<li><a href="${LINKS.health}">Whether it accepts clients</a></li>
</ul>
`
}
