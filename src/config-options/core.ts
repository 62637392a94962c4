// Options of the core that answers commands over HTTP.

import { Type } from 'typebox'
import { option, seconds, text, urlProblem } from './option.js'

export const CORE_OPTIONS = {
  coreUrl: option({
    env: 'HOLDFAST_CORE_URL',
    schema: text(),
    default: undefined,
    what: 'Where commands are POSTed. Without it the built-in commands `ping`, `echo`, `context.get` and ' +
      '`context.set` answer.',
    hit: '`CORE_UNAVAILABLE` while the core does not answer',
    problem: urlProblem
  }),
  coreSecret: option({
    env: 'HOLDFAST_CORE_SECRET',
    schema: text(),
    default: undefined,
    secret: true,
    what: 'Signs every request to the core: `whsec_` and base64, or the key itself; 24 bytes at least. Without ' +
      'it requests are not signed.',
    problem: coreSecretProblem
  }),
  coreTimeoutSeconds: option({
    env: 'HOLDFAST_CORE_TIMEOUT_SECONDS',
    schema: seconds(0.001, 3600),
    unit: 'seconds',
    default: 10,
    what: 'Most time the core has to answer one request; the time limit of the command cuts it short.',
    hit: '`OUTCOME_UNKNOWN`; for an idempotent command another attempt',
    tune: 'Raise, up to the time limit of commands, for a core that thinks long; lower for an idempotent one, so ' +
      'that a hanging request leaves time for another.'
  }),
  coreIdempotent: option({
    env: 'HOLDFAST_CORE_IDEMPOTENT',
    schema: Type.Boolean(),
    default: false,
    what: 'Whether the core answers a repeated `webhook-id` from memory, for every command. Then a command that may ' +
      'have been executed is sent again while its time lasts; otherwise it never is.',
    hit: '`OUTCOME_UNKNOWN` when no attempt was answered',
    tune: 'Set to `true` only for a core built as in docs/core.md; single commands are declared with ' +
      '`idempotent: true` in code.'
  }),
  lifecycleEvents: option({
    env: 'HOLDFAST_LIFECYCLE_EVENTS',
    schema: Type.Array(Type.Enum(['session.created', 'session.attached', 'session.detached', 'session.ended'])),
    default: [] as string[] as ('session.created' | 'session.attached' | 'session.detached' | 'session.ended')[],
    what: 'Events the core is told of: `session.created`, `session.attached`, `session.detached`, `session.ended`.'
  })
}

function coreSecretProblem (secret: string): string | undefined {
  if (/^whsec_(?![A-Za-z0-9+/]+={0,2}$)/.test(secret)) return 'what follows whsec_ is not base64'
  const key = secret.startsWith('whsec_') ? Buffer.from(secret.slice(6), 'base64') : Buffer.from(secret)
  return key.length >= 24 ? undefined : `its key is ${key.length} bytes long; the minimum is 24`
}
