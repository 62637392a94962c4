// The configuration as an operator meets it: what is set where, and what is said about what cannot
// be.

import t from 'tap'
import { buildApp } from '../src/app.js'
import { configWith, loadConfig, readAction, type ConfigSources } from '../src/config.js'
import { isLoopbackName } from '../src/loopback.js'
import { renderConfig, renderHelp } from '../src/config-help.js'
import { flagOf, OPTION_KEYS, OPTIONS, optionOf } from '../src/config-options.js'
import type { HoldfastError } from '../src/io/errors.js'
import { limitsOf } from '../src/limits.js'

function load (sources: Partial<ConfigSources> = {}) {
  return loadConfig({ env: {}, argv: [], ...sources })
}

/** The problems of a configuration that does not start. */
function problemsOf (sources: Partial<ConfigSources>): string[] {
  try {
    load(sources)
  } catch (error) {
    if ((error as HoldfastError).code === 'CONFIG_INVALID') return (error as Error).message.split('\n')
    throw error
  }
  return []
}

t.test('has a default for everything', async t => {
  const config = load()
  t.match(config, {
    host: '127.0.0.1',
    port: 3000,
    logLevel: 'info',
    store: 'memory',
    sessionTimeoutSeconds: 3600,
    resumeWindowSeconds: 3600,
    heartbeatSeconds: 25,
    maxSessions: 100_000,
    maxSessionsPerUser: 64,
    maxMessageBytes: 65_536,
    commandsPerSecond: 50,
    maxInFlight: 64,
    outboxMessages: 1000,
    outboxBytes: 1_048_576,
    drainSeconds: 10,
    allowedOrigins: []
  })
  t.equal(config.adminToken, undefined)
  t.throws(() => { (config as { port: number }).port = 1 }, TypeError, 'and is frozen')
})

t.test('takes flags over the environment over .env over defaults', async t => {
  const dotenv = 'PORT=1001\nHOLDFAST_MAX_SESSIONS=11 # few\nHOLDFAST_MAX_IN_FLIGHT="21"\n'
  const config = load({ dotenv, env: { PORT: '1002', HOLDFAST_MAX_SESSIONS: '12' }, argv: ['--port', '1003'] })
  t.equal(config.port, 1003)
  t.equal(config.maxSessions, 12)
  t.equal(config.maxInFlight, 21)
  t.equal(config.maxMessageBytes, 65_536)
})

t.test('takes flags with and without an equals sign', async t => {
  t.match(
    load({ argv: ['--max-sessions=5', '--session-timeout-seconds', '1.5'] }),
    { maxSessions: 5, sessionTimeoutSeconds: 1.5 }
  )
})

t.test('reads lists, separated by commas', async t => {
  const config = load({
    env: {
      HOLDFAST_ALLOWED_ORIGINS: 'https://a.example, https://b.example:8443',
      HOLDFAST_TRUST_PROXY: '10.0.0.0/8,::1'
    }
  })
  t.same(config.allowedOrigins, ['https://a.example', 'https://b.example:8443'])
  t.same(config.trustProxy, ['10.0.0.0/8', '::1'])
  t.same(load({ env: { HOLDFAST_ALLOWED_ORIGINS: '' } }).allowedOrigins, [])
})

t.test('shows and uses origins and proxies in one form, however they were written', async t => {
  const env = {
    HOLDFAST_ALLOWED_ORIGINS: 'HTTPS://App.example:443/, https://app.example, https://*.Preview.example, ' +
      'capacitor://localhost, null',
    HOLDFAST_TRUST_PROXY: '127.0.0.1, 10.1.2.3/8, FD00:0::/8, ::ffff:10.0.0.0/104'
  }
  const config = load({ env })
  t.same(config.allowedOrigins, ['https://app.example', 'https://*.preview.example', 'capacitor://localhost', 'null'])
  t.same(config.trustProxy, ['127.0.0.1', '10.0.0.0/8', 'fd00::/8'])
  t.match(renderConfig(config), 'HOLDFAST_TRUST_PROXY=127.0.0.1,10.0.0.0/8,fd00::/8\n')
  t.same(configWith({ trustProxy: ['10.1.2.3/8', '::1'] }).trustProxy, ['10.0.0.0/8', '::1'])
})

t.test('keeps a detached session as long as a session may be idle unless told otherwise', async t => {
  t.equal(load({ env: { HOLDFAST_SESSION_TIMEOUT_SECONDS: '7' } }).resumeWindowSeconds, 7)
  t.equal(load({ env: { HOLDFAST_RESUME_WINDOW_SECONDS: '0' } }).resumeWindowSeconds, 0, 'and takes zero for zero')
})

t.test('lists every problem at once', async t => {
  const problems = problemsOf({
    dotenv: 'HOLDFAST_OUTBOX_BYTES=many',
    env: { PORT: '70000', HOLDFAST_SESION_TIMEOUT_SECONDS: '5', HOLDFAST_STORE: 'mongo', HOST: '0.0.0.0' },
    argv: ['--max-in-flght', '3', 'stray', '--heartbeat-seconds']
  })
  t.equal(problems.length, 8)
  t.match(
    problems.join('\n'),
    /PORT \(environment\): "70000" is not valid\. Expected a whole number from 0 to 65535\./
  )
  t.match(problems.join('\n'), /HOLDFAST_OUTBOX_BYTES \(\.env\): "many"/)
  t.match(
    problems.join('\n'),
    /HOLDFAST_SESION_TIMEOUT_SECONDS \(environment\) is not an option; did you mean HOLDFAST_SESSION_TIMEOUT_SECONDS\?/
  )
  t.match(problems.join('\n'), /--max-in-flght is not a flag; did you mean --max-in-flight\?/)
  t.match(problems.join('\n'), /"stray" on the command line is not a flag/)
  t.match(problems.join('\n'), /--heartbeat-seconds needs a value/)
  t.match(problems.join('\n'), /one of memory, embedded, redis/)
  t.match(problems.join('\n'), /set HOLDFAST_ADMIN_TOKEN/)
})

t.test('neither clamps nor converts', async t => {
  for (const text of [
    '', ' 5', '5 ', '0x10', '1e3', '-1', '+5', '5.5', 'Infinity', 'NaN', '99999999999999999999', 'true'
  ]) {
    t.equal(problemsOf({ env: { HOLDFAST_MAX_SESSIONS: text } }).length, 1, `HOLDFAST_MAX_SESSIONS=${text}`)
  }
  for (const text of ['', '.5', '5.', '1.2345', '1,5', '-0', '5s']) {
    t.equal(problemsOf({ env: { HOLDFAST_HEARTBEAT_SECONDS: text } }).length, 1, `HOLDFAST_HEARTBEAT_SECONDS=${text}`)
  }
  t.equal(problemsOf({ env: { LOG_LEVEL: 'INFO' } }).length, 1)
})

t.test('takes the ends of every range and nothing beyond', async t => {
  for (const key of OPTION_KEYS) {
    const { env, schema } = optionOf(key)
    const { minimum, maximum } = schema as { minimum?: number, maximum?: number }
    if (minimum === undefined || maximum === undefined) continue
    // The core's URL makes the core's options count; the other two are held against each other.
    const beside = {
      HOLDFAST_CORE_URL: 'http://127.0.0.1:1',
      ...(['redisPartitions', 'workers'].includes(key) ? { HOLDFAST_REDIS_URL: 'redis://h' } : {}),
      HOLDFAST_JWKS_URL: 'http://127.0.0.1:1',
      ...(key === 'maxSessionsPerUser' ? { HOLDFAST_MAX_SESSIONS: '10000000' } : {}),
      ...(key === 'outboxBytes' ? { HOLDFAST_OUTBOX_TOTAL_BYTES: String(2 ** 40) } : {}),
      ...(key === 'outboxTotalBytes' ? { HOLDFAST_OUTBOX_BYTES: '1024' } : {})
    }
    t.same(problemsOf({ env: { ...beside, [env]: String(minimum) } }), [], `${env}=${minimum}`)
    t.same(problemsOf({ env: { ...beside, [env]: String(maximum) } }), [], `${env}=${maximum}`)
    t.equal(problemsOf({ env: { ...beside, [env]: String(maximum + 1) } }).length, 1, `${env}=${maximum + 1}`)
    if (minimum >= 1) t.equal(problemsOf({ env: { ...beside, [env]: '0' } }).length, 1, `${env}=0`)
  }
})

// Parsing 16 MiB took a quarter of a second, in which nobody was served.
t.test('nothing larger than what is parsed in one piece can be allowed', async t => {
  for (const env of ['HOLDFAST_MAX_MESSAGE_BYTES', 'HOLDFAST_MAX_CONTEXT_BYTES']) {
    t.match(problemsOf({ env: { [env]: '1048577' } }), [
      new RegExp(`^${env} \\(environment\\): "1048577" is not valid\\. Expected a whole number from \\d+ to 1048576`)
    ])
  }
})

t.test('does not start beyond loopback without an operator token', async t => {
  for (const host of ['0.0.0.0', '::', '192.0.2.1', 'example.org']) {
    t.match(problemsOf({ env: { HOST: host } }), [/anybody could read and end sessions/], host)
    t.same(problemsOf({ env: { HOST: host, HOLDFAST_ADMIN_TOKEN: 'sixteen-letters!' } }), [], host)
  }
  for (const host of ['127.0.0.1', '127.8.8.8', '::1', 'localhost']) t.ok(isLoopbackName(host), host)
})

t.test('takes an IPv6 address of HOST in brackets as well', async t => {
  // `[::1]` counted as an address that other machines can reach.
  t.equal(load({ env: { HOST: '[::1]' } }).host, '::1')
  t.equal(configWith({ host: '[::1]' }).host, '::1')
  t.match(problemsOf({ env: { HOST: '[::]' } }), [/HOST "::" can be reached from other machines/])
  t.match(problemsOf({ env: { HOST: '[127.0.0.1]' } }), [/HOST "\[127\.0\.0\.1\]"/], 'which is no address')
})

t.test('refuses operator tokens that are short or could not be sent', async t => {
  for (const token of ['fifteen-letters', 'with a space in it', 'umlaut-äöü-in-token', '']) {
    const problems = problemsOf({ env: { HOLDFAST_ADMIN_TOKEN: token } })
    t.equal(problems.length, 1)
    if (token !== '') t.notMatch(problems.join(''), token, 'and does not print them')
  }
})

t.test('takes addresses and ranges of proxies, no hop counts, and not every address', async t => {
  for (const proxy of [
    '1', 'true', 'loopback', '10.0.0.0/33', '::1/129', '10.0.0.0/', '10.0.0.0/8/8', '10.0.0', '10.0.0.1,,', '0.0.0.0/0',
    '::/0'
  ]) {
    t.equal(problemsOf({ env: { HOLDFAST_TRUST_PROXY: proxy } }).length, 1, proxy)
  }
})

t.test('takes origins, not addresses of pages, and says which origin was meant', async t => {
  for (const origin of [
    'app.example', 'https://app.example/path', 'wss://app.example', 'https://pr-*.app.example', 'http://localhost:*',
    '*,https://app.example'
  ]) {
    t.equal(problemsOf({ env: { HOLDFAST_ALLOWED_ORIGINS: origin } }).length, 1, origin)
  }
  t.match(
    problemsOf({ env: { HOLDFAST_ALLOWED_ORIGINS: 'https://app.example/login' } }),
    [/its origin is https:\/\/app\.example/]
  )
  t.same(load({ env: { HOLDFAST_ALLOWED_ORIGINS: '*' } }).allowedOrigins, ['*'])
})

t.test('checks secrets and addresses before anything uses them', async t => {
  t.match(problemsOf({ env: { HOLDFAST_JWT_SECRET: 'short' } }), [/not valid: it is 5 bytes long; the minimum is 32/])
  t.match(problemsOf({ env: { HOLDFAST_JWKS_URL: 'ftp://keys.example' } }), [/not an http or https URL/])
  t.match(problemsOf({ env: { HOLDFAST_CORE_URL: 'http://user:secret@core.example' } }), [/credentials or a fragment/])
  t.match(
    problemsOf({ env: { HOLDFAST_CORE_URL: 'http://core.example', HOLDFAST_CORE_SECRET: 'whsec_c2hvcnQ=' } }),
    [/its key is 5 bytes long; the minimum is 24/]
  )
  t.match(
    problemsOf({
      env: { HOLDFAST_CORE_URL: 'http://core.example', HOLDFAST_LIFECYCLE_EVENTS: 'session.created,session.lost' }
    }),
    [/session\.ended/]
  )
})

t.test('finds a secret of the core that is not base64 before anything uses it', t => {
  const core = { HOLDFAST_CORE_URL: 'http://core.example' }
  for (const secret of [`whsec_${'A'.repeat(32)}!`, `whsec_${'A'.repeat(32)}=A`]) {
    t.match(problemsOf({ env: { ...core, HOLDFAST_CORE_SECRET: secret } }), [/HOLDFAST_CORE_SECRET.*not base64/])
  }
  t.same(problemsOf({ env: { ...core, HOLDFAST_CORE_SECRET: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw' } }), [])
  t.end()
})

t.test('refuses sources that would not be read', t => {
  t.match(problemsOf({ dotEnv: 'PORT=1' } as object), [/^dotEnv is not an option of loadConfig; did you mean dotenv\?/])
  t.match(problemsOf({ env: undefined, argv: '--port=1' } as object), [/^env of loadConfig is missing/, /^argv /])
  t.end()
})

t.test('refuses options that would have no effect', async t => {
  t.match(problemsOf({ env: { HOLDFAST_JWT_ISSUER: 'me', HOLDFAST_CORE_IDEMPOTENT: 'true' } }).sort(), [
    /HOLDFAST_CORE_IDEMPOTENT has no effect without HOLDFAST_CORE_URL/,
    /HOLDFAST_JWT_ISSUER has no effect without HOLDFAST_JWT_SECRET or HOLDFAST_JWKS_URL/
  ])
  t.match(problemsOf({ env: { HOLDFAST_OUTBOX_TOTAL_BYTES: '2048' } }), [/HOLDFAST_OUTBOX_BYTES is 1048576, more than/])
  t.match(problemsOf({ env: { HOLDFAST_JWT_CLOCK_TOLERANCE_SECONDS: '5' } }), [/no effect without HOLDFAST_JWT_SECRET/])
  t.match(
    problemsOf({ env: { HOLDFAST_JWT_SECRET: 'x'.repeat(32), HOLDFAST_JWKS_MAX_STALE_SECONDS: '5' } }),
    [/no effect without HOLDFAST_JWKS_URL/]
  )
  t.match(problemsOf({ env: { HOLDFAST_MAX_SESSIONS_PER_USER: '5' } }), [
    /no effect without HOLDFAST_JWT_SECRET.*everybody is the placeholder/
  ])
  const few = { HOLDFAST_JWT_SECRET: 'x'.repeat(32), HOLDFAST_MAX_SESSIONS_PER_USER: '5', HOLDFAST_MAX_SESSIONS: '4' }
  t.match(problemsOf({ env: few }), [/HOLDFAST_MAX_SESSIONS_PER_USER is 5 and has no effect/])
  t.match(problemsOf({ env: { HOLDFAST_TRUST_PROXY: '10.0.0.0/8' } }), [
    /HOLDFAST_TRUST_PROXY has no effect: HOST "127\.0\.0\.1" is reached from this machine alone/
  ])
  for (const proxies of ['10.0.0.0/8,127.0.0.1', '127.0.0.0/8', '::1', '127.0.0.2', '0.0.0.0/1']) {
    t.same(problemsOf({ env: { HOLDFAST_TRUST_PROXY: proxies } }), [], proxies)
  }
  t.same(
    problemsOf({
      env: { HOST: '0.0.0.0', HOLDFAST_ADMIN_TOKEN: 'sixteen-letters!', HOLDFAST_TRUST_PROXY: '10.0.0.0/8' }
    }),
    []
  )
})

// Every handshake was 503: fetch takes no URL with credentials in it.
t.test('takes no address of a key set that can never be fetched', async t => {
  for (const url of [
    'https://ada:secret@id.example/keys', 'https://id.example/keys#now', 'id.example/keys', 'file:///keys.json'
  ]) {
    t.equal(problemsOf({ env: { HOLDFAST_JWKS_URL: url } }).length, 1, url)
  }
})

t.test('takes every time for headers that Node.js takes', async t => {
  t.equal(problemsOf({ env: { HOLDFAST_HANDSHAKE_SECONDS: '31' } }).length, 1)
  const app = await buildApp(configWith({ handshakeSeconds: 30, logLevel: 'silent' }))
  t.equal(app.server.headersTimeout, 30_000)
  await app.close()
})

// It counted repeats of commands that may have been executed. To ignore it would be silent, and "no
// option" no help.
t.test('says what became of options that were withdrawn', async t => {
  t.match(
    problemsOf({
      env: { HOLDFAST_CORE_RETRIES: '0' },
      dotenv: 'HOLDFAST_CORE_RETRIES=2',
      argv: ['--core-retries', '2']
    }),
    [
      /^HOLDFAST_CORE_RETRIES \(\.env\) has been withdrawn: .*HOLDFAST_CORE_IDEMPOTENT.*remove it/,
      /^HOLDFAST_CORE_RETRIES \(environment\) has been withdrawn/,
      /^--core-retries has been withdrawn/
    ]
  )
})

t.test('takes true and false for what is one or the other, and nothing else', async t => {
  const env = { HOLDFAST_CORE_URL: 'http://core.example' }
  t.equal(load({ env }).coreIdempotent, false)
  t.equal(load({ env: { ...env, HOLDFAST_CORE_IDEMPOTENT: 'true' } }).coreIdempotent, true)
  t.equal(load({ env, argv: ['--core-idempotent', 'false'] }).coreIdempotent, false)
  for (const text of ['1', 'yes', 'TRUE', '']) {
    t.match(problemsOf({ env: { ...env, HOLDFAST_CORE_IDEMPOTENT: text } }), [/Expected true or false/], text)
  }
})

t.test('does not take secrets as flags', async t => {
  const problems = problemsOf({ argv: ['--admin-token', 'sixteen-letters!', '--jwt-secret=abc'] })
  t.equal(problems.length, 2)
  t.notMatch(problems.join(''), /sixteen|abc/)
})

t.test('leaves variables of other programs alone', async t => {
  t.same(problemsOf({ env: { PATH: '/bin', PROT: '1', npm_config_x: 'y' }, dotenv: 'OTHER=1' }), [])
})

t.test('knows what the command line asks for', async t => {
  t.equal(readAction([]), 'serve')
  t.equal(readAction(['--port', '1', '--version']), 'version')
  t.equal(readAction(['--version', '--help']), 'help')
  t.equal(readAction(['--print-config']), 'print-config')
  t.equal(readAction(['--check-config', '--port', '1']), 'check-config')
  t.equal(readAction(['--healthcheck']), 'healthcheck')
})

t.test('prints a configuration that gives the same configuration, with secrets masked', async t => {
  const config = load({
    env: {
      HOLDFAST_ADMIN_TOKEN: 'sixteen-letters!',
      HOLDFAST_ALLOWED_ORIGINS: 'https://a.example,https://b.example',
      HOLDFAST_HEARTBEAT_SECONDS: '0.5'
    }
  })
  const printed = renderConfig(config)
  t.notMatch(printed, 'sixteen-letters!')
  t.match(printed, 'HOLDFAST_ADMIN_TOKEN=********')
  t.same(load({ dotenv: printed.replace('********', 'sixteen-letters!') }), config)
})

t.test('explains every option in --help', async t => {
  const help = renderHelp()
  for (const key of OPTION_KEYS) {
    t.match(help, OPTIONS[key].env)
    if (!optionOf(key).secret) t.match(help, `--${flagOf(key)},`)
  }
  for (const line of help.split('\n')) t.ok(line.length <= 100, line)
})

t.test('gives tests and hosts the defaults with changes', async t => {
  const config = configWith({ sessionTimeoutSeconds: 2 })
  t.equal(config.resumeWindowSeconds, 2)
  t.equal(configWith({ resumeWindowSeconds: 1 }).resumeWindowSeconds, 1)
  t.equal(limitsOf(configWith({ heartbeatSeconds: 1.001 })).connections.heartbeatMs, 1001)
})

t.test('a data directory alone asks for the embedded store', async t => {
  const config = load({ env: { HOLDFAST_DATA_DIR: '/var/lib/holdfast' } })
  t.match(config, { store: 'embedded', dataDir: '/var/lib/holdfast', durability: 'process' })
  const printed = renderConfig(config)
  t.match(load({ dotenv: printed }), { store: 'embedded', dataDir: '/var/lib/holdfast' }, 'also as it is printed')
  t.match(configWith({ dataDir: 'data', durability: 'disk' }), { store: 'embedded', durability: 'disk' })
})

t.test('a URL of Redis alone asks for the redis store', async t => {
  const config = load({ env: { HOLDFAST_REDIS_URL: 'redis://127.0.0.1' } })
  t.match(config, { store: 'redis', redisPrefix: 'holdfast', redisPartitions: 256, nodeName: 'node' })
  t.notMatch(renderConfig(load({ env: { HOLDFAST_REDIS_URL: 'redis://:hunter2@127.0.0.1' } })), /hunter2/)
})

t.test('several workers are refused with a store of one process', async t => {
  for (const [store, env] of [['memory', {}], ['embedded', { HOLDFAST_DATA_DIR: 'data' }]] as const) {
    t.same(problemsOf({ env: { HOLDFAST_WORKERS: '2', ...env } }), [
      `HOLDFAST_WORKERS is 2, but the ${store} store belongs to a single process: ` +
        'set HOLDFAST_REDIS_URL, so that the workers share their sessions, or leave HOLDFAST_WORKERS at 1.'
    ])
  }
  t.match(load({ env: { HOLDFAST_WORKERS: '2', HOLDFAST_REDIS_URL: 'redis://h' } }), { workers: 2 })
  t.match(load({ env: { HOLDFAST_WORKERS: '1', HOLDFAST_DATA_DIR: 'data' } }), { workers: 1 })
})

t.test('refuses what cannot be meant of stores', async t => {
  t.same(problemsOf({ env: { HOLDFAST_STORE: 'redis' } }), [
    'HOLDFAST_STORE is redis, which keeps sessions in a Redis or Valkey: set HOLDFAST_REDIS_URL.'
  ])
  t.same(problemsOf({ env: { HOLDFAST_REDIS_URL: 'redis://h', HOLDFAST_DATA_DIR: 'data' } }), [
    'HOLDFAST_DATA_DIR has no effect without HOLDFAST_STORE=embedded.'
  ])
  t.match(problemsOf({ env: { HOLDFAST_REDIS_URL: 'http://h' } }), [/redis:\/\//])
  t.match(problemsOf({ env: { HOLDFAST_REDIS_URL: 'redis://h', HOLDFAST_REDIS_PARTITIONS: '100' } }), [/power of two/])
  t.same(problemsOf({ env: { HOLDFAST_NODE_NAME: 'a' } }), [
    'HOLDFAST_NODE_NAME has no effect without HOLDFAST_STORE=redis.'
  ])
  t.same(problemsOf({ env: { HOLDFAST_STORE: 'embedded' } }), [
    'HOLDFAST_STORE is embedded, which keeps sessions in a directory: set HOLDFAST_DATA_DIR.'
  ])
  t.same(problemsOf({ env: { HOLDFAST_STORE: 'memory', HOLDFAST_DATA_DIR: 'data', HOLDFAST_DURABILITY: 'disk' } }), [
    'HOLDFAST_DATA_DIR has no effect without HOLDFAST_STORE=embedded.',
    'HOLDFAST_DURABILITY has no effect without HOLDFAST_STORE=embedded.'
  ])
  t.match(problemsOf({ env: { HOLDFAST_DATA_DIR: 'data', HOLDFAST_DURABILITY: 'always' } }), [/one of process, disk/])
})
