// A Platform Core in Node.js without dependencies. It remembers no numbers, so it is not declared
// idempotent: a command whose answer is lost is OUTCOME_UNKNOWN, and is not sent again.
// docs/core.md is the contract; core.py beside it shows how repeats are recognised.

import { createHmac, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'

const secret = process.env.CORE_SECRET ?? 'an example secret of the core'
const approvals = new Map()

/** The error that a client is shown: a 4xx says that nothing was executed. */
class Refusal extends Error {
  constructor (status, code, message) {
    super(message)
    Object.assign(this, { status, code })
  }
}

const commands = {
  echo: ({ payload }) => ({ payload }),

  'review.approve' ({ payload, session }) {
    const item = payload?.item
    if (typeof item !== 'string') throw new Refusal(400, 'INVALID_PAYLOAD', 'item must be a text.')
    const again = approvals.has(item)
    approvals.set(item, session.userId)
    return {
      payload: { item, again },
      context: { approved: { [item]: session.userId } },
      messages: again ? [] : [{ event: 'review.approved', payload: { item } }]
    }
  }
}

function execute (data) {
  if (!Object.hasOwn(commands, data.command)) throw new Refusal(404, 'UNKNOWN_COMMAND', 'No such command.')
  return commands[data.command](data)
}

function isSigned (headers, body) {
  const { 'webhook-id': number = '', 'webhook-timestamp': at = '', 'webhook-signature': given = '' } = headers
  const digest = createHmac('sha256', secret).update(`${number}.${at}.`).update(body).digest('base64')
  const [expected, told] = [Buffer.from(`v1,${digest}`), Buffer.from(given)]
  const isFresh = Math.abs(Date.now() / 1000 - Number(at)) <= 300
  return isFresh && told.length === expected.length && timingSafeEqual(told, expected)
}

async function answer (request, response) {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  const body = Buffer.concat(chunks)
  if (!isSigned(request.headers, body)) return response.writeHead(401).end()
  const { type, data } = JSON.parse(body)
  if (type !== 'session.command') {
    console.log(type, data)
    return response.writeHead(204).end()
  }
  let status = 200
  let told
  try {
    told = execute(data)
  } catch (error) {
    if (!(error instanceof Refusal)) throw error
    status = error.status
    told = { code: error.code, message: error.message }
  }
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(told))
}

const server = createServer((request, response) => {
  answer(request, response).catch(error => {
    console.error(error)
    // The server cannot know how far this got, and tells the client so.
    if (!response.headersSent) response.writeHead(500)
    response.end()
  })
})
// Commands that arrive after this find no connection and wait for the next process; those that run
// are answered first.
process.once('SIGTERM', () => server.close())
server.listen(Number(process.env.PORT ?? 8080), '127.0.0.1', () => {
  console.log(`core on http://127.0.0.1:${server.address().port}`)
})
