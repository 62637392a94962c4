// neostandard as it is, two rules about promises nobody waits for (one of them in a message handler
// ends the process), and who may import whom: arrows point down, from the process over the plugins
// to src/io, which knows no framework, no socket, no clock and no process.

import neostandard, { plugins } from 'neostandard'

const ts = folder => `${folder}/**/*.ts`

export default [
  ...neostandard({ ts: true, ignores: ['dist/**', '.tap/**', 'coverage/**', 'tap-snapshots/**'] }),
  {
    plugins: { '@stylistic': plugins['@stylistic'] },
    rules: {
      // `void save()` marks a promise that is left alone on purpose.
      'no-void': 'off',
      '@stylistic/max-len': ['error', { code: 120, comments: 100, ignoreUrls: true }]
    }
  },
  {
    files: ['src', 'plugins', 'conformance', 'contract', 'bench'].map(ts),
    rules: { 'max-lines': ['error', 400], 'max-lines-per-function': ['error', 120] }
  },
  {
    files: [...['src', 'plugins', 'test', 'bench', 'conformance', 'contract', 'examples'].map(ts), 'examples/**/*.tsx'],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    plugins: { '@typescript-eslint': plugins['typescript-eslint'].plugin },
    rules: {
      // tap itself waits for the subtests of a test.
      '@typescript-eslint/no-floating-promises': [
        'error',
        { allowForKnownSafePromises: [{ from: 'package', name: 'PromiseWithSubtest', package: '@tapjs/core' }] }
      ],
      '@typescript-eslint/no-misused-promises': ['error', { checksVoidReturn: { returns: false } }],
      // A schema and its static type share a name; the compiler finds real redeclarations.
      '@typescript-eslint/no-redeclare': 'off'
    }
  },

  // The domain: pure. Time comes from a Clock, lines go to a Log, and both are handed in.
  pure('src/io'),
  imports('src/io/types.ts', { allowed: [] }),
  imports('src/io/errors.ts', { allowed: ['\\./types\\.js'] }),
  imports('src/io/maybe-promise.ts', { allowed: ['\\./types\\.js'] }),
  imports('src/io/json.ts', { allowed: ['secure-json-parse', '\\./json-(fault|number)\\.js'] }),
  imports('src/io/json-fault.ts', { allowed: ['\\./json-number\\.js'] }),
  imports('src/io/json-number.ts', { allowed: [] }),
  imports('src/io/names/*.ts', { allowed: ['ipaddr\\.js', '\\./[\\w-]+\\.js', '\\.\\./(types|errors)\\.js'] }),
  imports('src/io/protocol/*.ts', {
    allowed: ['typebox(/\\w+)?', '\\./[\\w-]+\\.js', '\\.\\./(types|errors|json)\\.js', '\\.\\./names/[\\w-]+\\.js']
  }),
  imports('src/io/cluster/*.ts', {
    allowed: ['\\./[\\w-]+\\.js', '\\.\\./(types|errors)\\.js', '\\.\\./(protocol|session)/[\\w-]+\\.js']
  }),
  imports('src/io/operators/*.ts', {
    allowed: ['\\./[\\w-]+\\.js', '\\.\\./(types|errors)\\.js', '\\.\\./(cluster|protocol|session)/[\\w-]+\\.js']
  }),
  imports('src/io/events/*.ts', { allowed: ['\\./[\\w-]+\\.js', '\\.\\./types\\.js'] }),
  imports('src/io/session/*.ts', {
    allowed: [
      '\\./[\\w-]+\\.js', '\\.\\./(types|errors|json|maybe-promise)\\.js', '\\.\\./(events|names|protocol)/[\\w-]+\\.js'
    ]
  }),
  imports('src/io/session/resume-token.ts', { allowed: ['node:crypto'] }),
  imports('src/io/dispatcher/*.ts', {
    allowed: [
      'typebox(/\\w+)?', '@standard-schema/spec', '\\./[\\w-]+\\.js', '\\.\\./(types|errors|json|maybe-promise)\\.js',
      '\\.\\./(protocol|session)/[\\w-]+\\.js'
    ]
  }),
  imports('src/io/gateway/*.ts', {
    allowed: ['\\./[\\w-]+\\.js', '\\.\\./(types|errors)\\.js', '\\.\\./(protocol|session)/[\\w-]+\\.js'],
    types: ['\\.\\./dispatcher/[\\w-]+\\.js']
  }),

  // Adapters: the domain's port and at most one driver each.
  imports('src/stores/redis/*.ts', {
    allowed: [
      '\\./[\\w-]+\\.js', '\\.\\./\\.\\./io/(types|errors)\\.js', '\\.\\./\\.\\./io/session/(shared-)?store\\.js',
      'node:(crypto|fs)'
    ],
    ignores: ['src/stores/redis/ioredis.ts']
  }),
  imports('src/stores/redis/ioredis.ts', { allowed: ['ioredis', '\\./[\\w-]+\\.js'] }),
  imports('src/stores/*.ts', {
    allowed: [
      '\\.\\./io/(types|errors|session/store)\\.js', '\\./[\\w-]+\\.js'
    ],
    types: ['\\.\\./io/session/(directory|record)\\.js']
  }),
  imports('src/stores/embedded/*.ts', {
    allowed: [
      '\\./[\\w-]+\\.js', '\\.\\./append\\.js', '\\.\\./\\.\\./io/(types|errors|session/store)\\.js',
      '\\.\\./\\.\\./option-checks\\.js'
    ],
    ignores: ['src/stores/embedded/journal.ts']
  }),
  imports('src/stores/embedded/journal.ts', {
    allowed: ['node:(fs|fs/promises|path)', 'classic-level', '\\./layout\\.js']
  }),
  imports('src/cores/*.ts', {
    allowed: [
      '\\./[\\w-]+\\.js', '\\.\\./io/(types|errors|json|dispatcher/core)\\.js', '\\.\\./option-checks\\.js',
      'typebox(/\\w+)?', 'node:timers/promises'
    ],
    ignores: ['src/cores/webhook.ts']
  }),
  imports('src/cores/webhook.ts', { allowed: ['\\.\\./io/types\\.js', 'undici', 'node:crypto'] }),
  imports('src/auth/*.ts', {
    allowed: ['\\./authenticate\\.js', '\\.\\./io/(types|errors|names/ids|session/context)\\.js'],
    types: ['node:http', 'fastify'],
    ignores: ['src/auth/jwt.ts', 'src/auth/key-set.ts']
  }),
  imports('src/auth/{jwt,key-set}.ts', {
    allowed: ['jose', '\\./(authenticate|key-set)\\.js', '\\.\\./io/(types|errors)\\.js', '\\.\\./option-checks\\.js']
  }),
  // Runs in browsers.
  imports('src/client/*.ts', {
    allowed: ['\\./[\\w-]+\\.js', '\\.\\./io/protocol/close-codes\\.js'],
    types: ['\\.\\./io/(types|dispatcher/(command|schema))\\.js']
  }),

  // Plugins translate between Fastify and the domain. They meet as decorators, so of each other
  // they import types only.
  imports('plugins/*.ts', {
    allowed: [
      ...PLUGIN_BASE(),
      '\\.\\./src/(io/.*|system-clock|loopback|limits|config-options|option-checks|auth/authenticate)\\.js',
      '\\./(gateway|metrics|schemas)/[\\w-]+\\.js'
    ],
    types: ['fastify', '\\./[\\w-]+\\.js'],
    ignores: ['plugins/session-manager.ts', 'plugins/holdfast.ts']
  }),
  // The one register puts the others together.
  imports('plugins/holdfast.ts', {
    allowed: [
      'fastify-plugin', '\\.\\./src/(io/.*|limits|loopback|option-checks|auth/authenticate)\\.js', '\\./[\\w-]+\\.js'
    ],
    types: ['fastify']
  }),
  imports('plugins/session-manager.ts', {
    allowed: [
      ...PLUGIN_BASE(),
      '\\./cluster/membership\\.js',
      '\\.\\./src/(io/.*|system-clock|limits|option-checks|stores/memory)\\.js'
    ],
    types: ['fastify']
  }),
  // The one driver of WebSockets.
  imports('plugins/gateway/web-socket-server.ts', { allowed: ['node:.*', '@fastify/websocket', 'fastify', 'ws'] }),
  imports('plugins/*/*.ts', {
    ignores: ['plugins/gateway/web-socket-server.ts'],
    allowed: [
      ...PLUGIN_BASE(),
      '\\.\\./\\.\\./src/(io/.*|system-clock|loopback|limits|config-options|option-checks|auth/authenticate)\\.js',
      '\\./[\\w-]+\\.js'
    ],
    types: ['fastify', '\\.\\./[\\w-]+\\.js', '\\.\\./\\.\\./src/stores/(embedded|redis)/store\\.js']
  }),

  // The process. Only server.ts reads the environment and writes to the terminal.
  imports('src/config*.ts', {
    allowed: [
      'typebox(/\\w+)?', 'node:util', '\\./loopback\\.js', '\\./config(-\\w+)?\\.js', '\\./option-checks\\.js',
      '\\./io/(errors|json|names/\\w+)\\.js',
      '\\./config-options/\\w+\\.js'
    ]
  }),
  imports('src/config-options/*.ts', {
    allowed: ['typebox', '\\./option\\.js', '\\.\\./io/(json|names/\\w+)\\.js', '\\.\\./stores/redis/url\\.js']
  }),
  imports('src/create-store.ts', {
    allowed: [
      '\\./(limits|option-checks)\\.js', '\\./io/errors\\.js', '\\./stores/(memory|embedded/store)\\.js',
      '\\./stores/redis/(authority|ioredis|store|url)\\.js'
    ],
    types: ['\\./io/(types|session/store)\\.js']
  }),
  imports('src/workers.ts', { allowed: ['node:cluster'], types: ['\\./io/types\\.js'] }),
  {
    files: ['src/*.ts'],
    ignores: ['src/workers.ts', 'src/config*.ts'],
    rules: { 'no-restricted-imports': ['error', { name: 'node:cluster', message: 'Only src/workers.ts knows it.' }] }
  },
  {
    files: [ts('src'), ts('plugins')],
    ignores: ['src/server.ts'],
    rules: {
      'no-console': 'error',
      'no-restricted-properties': ['error',
        {
          object: 'process',
          property: 'env',
          message: 'Only src/server.ts reads the environment; pass the value as an option.'
        },
        { object: 'process', property: 'exit', message: 'Only src/server.ts ends the process.' },
        { object: 'process', property: 'on', message: 'Only src/server.ts handles signals and uncaught errors.' }
      ]
    }
  },
  {
    files: ['src/index.ts'],
    rules: {
      'no-restricted-syntax': [
        'error',
        {
          selector: 'Program > :not(ExportNamedDeclaration[source])',
          message: 'The barrel re-exports names and does nothing else.'
        }
      ]
    }
  }
]

function PLUGIN_BASE () {
  return ['fastify-plugin', '@fastify/[\\w-]+', 'helmet', 'typebox(/\\w+)?', 'prom-client', 'node:(?!cluster$).*']
}

/**
 * Files import what matches one of `allowed`, and types of what matches one of `types`; nothing
 * else.
 */
function imports (files, { allowed, types = [], ignores = [] }) {
  const except = patterns => `^(?!(?:${patterns.join('|') || '$.'})$)`
  const message = 'The import table in eslint.config.js does not allow this import here; the arrow would point up, ' +
    'or a driver would spread.'
  return {
    files: [files],
    ignores,
    rules: {
      'no-restricted-imports': ['error', {
        patterns: [
          { regex: except([...allowed, ...types]), caseSensitive: true, message },
          ...types.length === 0
            ? []
            : [{
                regex: except(allowed),
                caseSensitive: true,
                allowTypeImports: true,
                message: `${message} Its types may be imported with \`import type\`.`
              }]
        ]
      }]
    }
  }
}

/** No clock, no timers, no process, no imports at run time. */
function pure (folder) {
  const timers = [
    'setTimeout', 'setInterval', 'setImmediate', 'clearTimeout', 'clearInterval', 'clearImmediate', 'queueMicrotask'
  ]
  return {
    files: [ts(folder)],
    rules: {
      'no-restricted-globals': ['error',
        ...[...timers, 'performance'].map(name => ({ name, message: 'Time comes from the Clock that is handed in.' })),
        ...['process', 'console', 'fetch', 'globalThis'].map(name => ({
          name,
          message: 'The domain knows no process; hand a port in.'
        }))
      ],
      'no-restricted-syntax': ['error',
        { selector: 'ImportExpression', message: 'The domain loads nothing at run time.' },
        {
          selector: 'MemberExpression[object.name="Date"][property.name="now"]',
          message: 'Time comes from the Clock that is handed in.'
        },
        {
          selector: 'NewExpression[callee.name="Date"][arguments.length=0]',
          message: 'Time comes from the Clock that is handed in.'
        }
      ]
    }
  }
}
