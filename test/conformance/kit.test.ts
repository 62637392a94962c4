// The kit against the reference server: it finds nothing wrong with it, and of every mutant it
// names the rule that the mutant breaks.

import t, { type Test } from 'tap'
import type { KitOptions } from '../../conformance/options.js'
import { runChecks, type Report } from '../../conformance/runner.js'
import { freePort } from '../helpers/free-port.js'
import { startReferenceServer, type Mutant, type ReferenceOptions } from './reference-server.js'

const JWT_SECRET = 'a secret that only tests know, 32 bytes or more'
const SHORT = { idleTimeoutMs: 5000, heartbeatMs: 200 }

const USERS = { jwtSecret: JWT_SECRET, forbiddenUser: 'kit-forbidden', uncheckedToken: 'unchecked' }

const MUTANTS: Readonly<Record<Mutant, readonly [rule: string, server?: ReferenceOptions, parts?: 'core']>> = {
  'agrees to compression': ['P-1'],
  'selects the first entry': ['P-2'],
  'reads tokens from the URL': ['P-3', { jwtSecret: JWT_SECRET }],
  'sends a frame before the first': ['P-5'],
  'takes unknown members': ['P-6'],
  'rounds numbers': ['P-6'],
  'reads any number of members': ['P-6', { maxMessageBytes: 131_072 }],
  'ignores binary': ['P-7'],
  'takes any sessionId': ['P-9'],
  'answers twice': ['P-10'],
  'executes duplicates': ['P-12', {}, 'core'],
  'takes gaps': ['P-13'],
  'remembers string ids': ['P-14'],
  'moves the watermark on a refusal': ['P-16'],
  'runs one at a time': ['P-17', {}, 'core'],
  'skips a seq on resume': ['P-20'],
  'ignores acks': ['P-21'],
  'ignores acks of the future': ['P-22'],
  'drops while detached': ['P-23'],
  'holds in basic': ['P-24'],
  'drops unwritten output': ['P-26'],
  'keeps the token': ['P-27'],
  'takes old tokens for ever': ['P-28'],
  'kills the old token at once': ['P-28'],
  'resumes for anyone': ['P-29', { jwtSecret: JWT_SECRET }],
  'live before replay': ['P-30'],
  'forgets the watermark': ['P-31'],
  'forgets the gap': ['P-32'],
  'counts the gap wrong': ['P-32'],
  'tells strangers': ['P-33'],
  'resumes from the future': ['P-34'],
  'leaves both': ['P-35'],
  'resumes after the window': ['P-36', { resumeWindowMs: 1000 }],
  'basic close keeps': ['P-37'],
  'detaches at 1000': ['P-38'],
  'terminates at 1001': ['P-39'],
  'heartbeats are activity': ['P-40', SHORT],
  'says no goodbye': ['P-42'],
  'never pings': ['P-43', SHORT],
  'counts whole messages only': ['P-43', { heartbeatMs: 200 }],
  'sends no pings between outputs': ['P-43'],
  // The kit keeps it from being silent, by a message every 400 ms.
  'asks only when it is silent itself': ['P-43', { idleTimeoutMs: 16_000, heartbeatMs: 2000 }],
  'tolerates bad frames': ['P-45'],
  'sends what is refused for ever': ['P-51'],
  'sends what breaks the line for ever': ['P-51'],
  'ends attached sessions': ['P-54', { maxSessions: 12 }],
  'is full for ever': ['P-54', { maxSessions: 12 }],
  'locks its users out': ['P-54', { jwtSecret: JWT_SECRET }],
  'hides which command was bad': ['P-6'],
  'sends outputs of any size': ['P-50'],
  'measures characters': ['P-50'],
  'replays outputs of any size': ['P-50'],
  'never says pong': ['P-52'],
  'refuses without a word': ['P-53', { jwtSecret: JWT_SECRET }],
  'runs serial commands beside others': ['P-18', { serialCommand: 'kit.serial' }, 'core'],
  'keeps what nobody may know of': ['P-36'],
  'leaves out who takes less': ['P-50', { jwtSecret: JWT_SECRET }],
  'calls the forbidden strangers': ['P-53', USERS],
  'calls an outage a refusal': ['P-53', USERS]
}

async function run (given: ReferenceOptions, withCore: boolean, options: Partial<KitOptions>): Promise<Report> {
  const port = withCore ? await freePort() : undefined
  const server = await startReferenceServer({
    ...given,
    ...(port === undefined ? {} : { coreUrl: `http://127.0.0.1:${port}` })
  })
  try {
    return await runChecks({
      url: server.url,
      admin: server.admin,
      profiles: ['basic', 'full'],
      requireAll: false,
      timeoutMs: 20_000,
      parallel: 8,
      verbose: false,
      jwtClaims: {},
      ...(port === undefined ? {} : { core: { host: '127.0.0.1', port } }),
      ...(given.jwtSecret === undefined ? {} : { jwtSecret: given.jwtSecret }),
      ...(given.serialCommand === undefined ? {} : { serialCommand: given.serialCommand }),
      ...(given.forbiddenUser === undefined ? {} : { forbiddenUser: given.forbiddenUser }),
      ...(given.uncheckedToken === undefined ? {} : { uncheckedToken: given.uncheckedToken }),
      ...options
    })
  } finally {
    await server.close()
  }
}

function clean (t: Test, report: Report, untested: readonly string[]): void {
  t.same(report.lines.filter((line) => line.startsWith('FAIL')), [])
  t.same(report.untestedRules, untested)
  t.equal(report.exitCode, 0)
}

t.test('finds nothing wrong with the reference server', { jobs: 6 }, async (t) => {
  t.test('with its built-in commands', async (t) => {
    const report = await run({}, false, {})
    clean(t, report, ['P-3', 'P-17', 'P-18', 'P-19', 'P-29', 'P-36', 'P-40', 'P-47', 'P-48', 'P-53', 'P-54', 'P-55'])
  })
  t.test('with a core and credentials', async (t) => {
    const only = [
      'P-3', 'P-4', 'P-10', 'P-12', 'P-14', 'P-15', 'P-17', 'P-18', 'P-19', 'P-29', 'P-31', 'P-47', 'P-50', 'P-53',
      'P-54', 'P-55'
    ]
    const server = { ...USERS, commandTimeoutMs: 6000, serialCommand: 'kit.serial' }
    clean(t, await run(server, true, { commandTimeoutMs: 6000, only }), [])
  })
  t.test('with short times', async (t) => {
    const report = await run({ ...SHORT, resumeWindowMs: 10_000 }, false, { only: ['P-36', 'P-40', 'P-43'] })
    clean(t, report, [])
  })
  t.test('with a peer that is silent', async (t) => {
    clean(t, await run({ heartbeatMs: 200 }, false, { only: ['P-43'] }), [])
  })
  t.test('with a session that nobody may know of', async (t) => {
    clean(t, await run({}, false, { only: ['P-36'], patient: true }), [])
  })
  t.test('when it is full', async (t) => {
    clean(t, await run({ maxSessions: 12 }, false, { only: ['P-54'] }), [])
  })
  t.test('with a short resume window', async (t) => {
    clean(t, await run({ resumeWindowMs: 5000 }, false, { only: ['P-36'] }), [])
  })
  t.test('with no resume window', async (t) => {
    clean(t, await run({ resumeWindowMs: 0 }, false, { only: ['P-5', 'P-36', 'P-38'] }), [])
  })
})

t.test('names the rule that a mutant breaks', { jobs: 6 }, async (t) => {
  for (const [mutant, [rule, server, parts]] of Object.entries(MUTANTS)) {
    t.test(`${rule} is named when the server ${mutant}`, async (t) => {
      const report = await run(
        { ...server, mutant: mutant as Mutant }, parts === 'core', { only: [rule], timeoutMs: 2000, patient: true }
      )
      t.ok(report.failedRules.includes(rule), report.lines.join('\n'))
      const named = report.lines.filter((line) => line.startsWith(`FAIL ${rule} `))
      t.ok(named.some((line) => /expected .+, got .+/.test(line)), named.join('\n'))
      t.equal(report.exitCode, 1)
    })
  }
})

t.test('counts a rule that was not tested as a failure only if asked to', async (t) => {
  const report = await run({}, false, { only: ['P-18'] })
  t.match(report.lines, ['not tested P-18: needs --core', /^0 of 1 rules hold/])
  t.equal(report.exitCode, 0)
  t.equal((await run({}, false, { only: ['P-18'], requireAll: true })).exitCode, 1)
})
