import { Registry } from 'prom-client'
import t from 'tap'
import { buildRestApp } from '../helpers/rest.js'
import { injectSocket } from '../helpers/socket.js'
import type { FastifyInstance } from 'fastify'

/** Value of one line of the exposition. */
async function scrape (app: FastifyInstance): Promise<(sample: string) => number | undefined> {
  const { body } = await app.inject('/metrics')
  const values = new Map(body.split('\n').filter(line => line !== '' && !line.startsWith('#')).map(line => {
    const space = line.lastIndexOf(' ')
    return [line.slice(0, space), Number(line.slice(space + 1))]
  }))
  return sample => values.get(sample)
}

t.test('the counters of sessions, commands and connections are shown as they are', async t => {
  const app = await buildRestApp(t, {
    after: app => {
      app.dispatcher.command('review.fail', {}, () => { throw new Error('x') })
      app.dispatcher.command('review.later', {}, async () => 'done')
    }
  })
  const socket = await injectSocket(app, { protocols: ['holdfast.v1'] })
  const { payload: { sessionId } } = await socket.next()
  socket.send({ command: 'echo', id: 1, payload: 1 })
  socket.send({ command: 'echo', id: 2, payload: 2 })
  socket.send({ command: 'echo', id: 2, payload: 2 })
  socket.send({ command: 'echo', id: 9 })
  socket.send({ command: 'review.fail', id: 3 })
  socket.send({ command: 'review.later', id: 4 })
  socket.send({ command: 'made-up-by-a-client', id: 5 })
  socket.send('no frame')
  await socket.take(7)
  app.sessionManager.createSession('alice')
  app.sessionManager.detachSession(sessionId)
  await socket.nextClose()

  const value = await scrape(app)
  t.equal(value('holdfast_sessions{state="active"}'), 0)
  t.equal(value('holdfast_sessions{state="detached"}'), 2)
  t.equal(value('holdfast_sessions_created_total'), 2)
  t.equal(value('holdfast_sessions_attached_total'), 1)
  t.equal(value('holdfast_sessions_detached_total'), 1)
  t.equal(value('holdfast_sessions_ended_total{reason="idle"}'), 0)
  t.equal(value('holdfast_commands_total{command="echo",outcome="ok"}'), 2)
  t.equal(value('holdfast_commands_total{command="review.fail",outcome="error"}'), 1)
  t.equal(value('holdfast_commands_total{command="review.later",outcome="ok"}'), 1)
  t.equal(value('holdfast_commands_total{command="(unknown)",outcome="unknown"}'), 1)
  t.equal(value('holdfast_commands_refused_total{code="COMMAND_GAP"}'), 1)
  t.equal(value('holdfast_commands_duplicate_total'), 1)
  t.equal(value('holdfast_commands_in_flight'), 0)
  t.equal(value('holdfast_bad_frames_total'), 1)
  t.equal(value('holdfast_outputs_total'), 5)
  t.ok((value('holdfast_outbox_bytes') ?? 0) > 0)
  t.equal(value('holdfast_connections_closed_total{code="4203"}'), 1)
  t.equal(value('holdfast_command_duration_seconds_count{command="echo"}'), 2)
  t.equal(value('holdfast_command_duration_seconds_bucket{command="echo",le="+Inf"}'), 2)
  t.ok((value('holdfast_command_duration_seconds_sum{command="echo"}') ?? -1) >= 0)
})

t.test('a second scrape shows totals, not their sum with the first', async t => {
  const app = await buildRestApp(t)
  app.sessionManager.createSession('alice')
  await scrape(app)
  t.equal((await scrape(app))('holdfast_sessions_created_total'), 1)
})

// The age of keys that are not there was shown as 0: as keys fetched just now.
t.test('what there is no value of is absent, and what is there is shown once by scrapes at the same time', async t => {
  const app = await buildRestApp(t)
  app.sessionManager.createSession('alice')
  const values = await Promise.all([scrape(app), scrape(app), scrape(app)])
  for (const value of values) {
    t.equal(value('holdfast_jwks_age_seconds'), undefined)
    t.equal(value('holdfast_sessions_created_total'), 1)
  }
})

t.test('buckets of a duration are cumulative and in seconds', async t => {
  const app = await buildRestApp(t)
  const stats = app.dispatcher.stats.find(({ name }) => name === 'echo')
  stats?.durations.splice(0, 4, 1, 2, 0, 4)
  const value = await scrape(app)
  const bucket = (le: string): number | undefined => value(
    `holdfast_command_duration_seconds_bucket{command="echo",le="${le}"}`
  )
  t.same(
    [bucket('0.001'), bucket('0.005'), bucket('0.01'), bucket('0.025'), bucket('10'), bucket('+Inf')],
    [1, 3, 3, 7, 7, 7]
  )
})

t.test('HTTP answers are measured by route template, never by path', async t => {
  const app = await buildRestApp(t)
  const { id } = app.sessionManager.createSession('alice-the-user')
  await app.inject(`/sessions/${id}`)
  await app.inject('/sessions/not-there')
  await app.inject('/users/alice-the-user/sessions')
  await app.inject('/no/such/route')
  const { body } = await app.inject('/metrics')
  const value = await scrape(app)
  t.equal(value('holdfast_http_request_duration_seconds_count{method="GET",route="/sessions/:id",status="200"}'), 1)
  t.equal(value('holdfast_http_request_duration_seconds_count{method="GET",route="/sessions/:id",status="404"}'), 1)
  t.equal(value('holdfast_http_request_duration_seconds_count{method="GET",route="(none)",status="404"}'), 1)
  for (const secret of [id, 'alice-the-user', 'not-there', '/no/such/route']) t.notOk(body.includes(secret), secret)
})

t.test('names and ids that clients make up are in no label', async t => {
  const app = await buildRestApp(t)
  const socket = await injectSocket(app)
  const { payload: { sessionId, userId } } = await socket.next()
  socket.send({ sessionId, command: 'evil"}\n', id: 'client-made-id' })
  await socket.next()
  socket.ws.close(4999)
  await socket.nextClose()
  const { body } = await app.inject('/metrics')
  for (const word of [sessionId, userId, 'evil', 'client-made-id', '4999']) t.notOk(body.includes(word), word)
})

t.test('the exposition is well formed: help, type and unique samples', async t => {
  const app = await buildRestApp(t)
  const answer = await app.inject('/metrics')
  t.match(answer.headers['content-type'], /^text\/plain; version=0\.0\.4/)
  const lines = answer.body.trimEnd().split('\n').filter(line => line !== '')
  const samples = lines.filter(line => !line.startsWith('#'))
  t.equal(new Set(samples.map(line => line.slice(0, line.lastIndexOf(' ')))).size, samples.length)
  for (const line of samples) t.match(line, /^[a-z_]+(\{([a-z]+="(\\.|[^"\\])*",?)*\})? -?[0-9.e+-]+$/)
  t.equal(
    lines.filter(line => line.startsWith('# HELP')).length, lines.filter(line => line.startsWith('# TYPE')).length
  )
})

t.test('a registry of the host is used; a second server needs one of its own', async t => {
  const registry = new Registry()
  const app = await buildRestApp(t, { metrics: { registry } })
  app.sessionManager.createSession('alice')
  t.match(await registry.metrics(), /^holdfast_sessions_created_total 1$/m)
  await t.rejects(buildRestApp(t, { metrics: { registry } }), /already been registered/)
})

t.test('closing stops the histogram of the event loop', async t => {
  const { collectProcessMetrics } = await import('../../plugins/metrics/process-metrics.js')
  const registry = new Registry()
  const stop = collectProcessMetrics(registry, { readLostLogLines: () => 3 })
  await new Promise(resolve => setTimeout(resolve, 60))
  const blockedUntil = Date.now() + 60
  while (Date.now() < blockedUntil);
  await new Promise(resolve => setTimeout(resolve, 30))
  const before = await registry.getSingleMetricAsString('nodejs_eventloop_lag_seconds')
  t.ok(Number(/quantile="1"\} (\S+)/.exec(before)?.[1]) > 0.02, before)
  stop()
  const busyUntil = Date.now() + 60
  while (Date.now() < busyUntil);
  await new Promise(resolve => setTimeout(resolve, 30))
  t.match(await registry.getSingleMetricAsString('nodejs_eventloop_lag_seconds'), /quantile="1"\} 0$/m)
})

t.test('of several workers each labels what is its own, and sends the next scrape to another one', async t => {
  const app = await buildRestApp(t, { metrics: { worker: 3 } })
  const { body, headers } = await app.inject('/metrics')
  const samples = body.split('\n').filter(line => line !== '' && !line.startsWith('#'))
  t.same(samples.filter(line => !line.includes('worker="3"')), [])
  t.equal(headers.connection, 'close')
})
