// Run in the project that scripts/check-package.js makes: what may be imported, and what may not.

const PUBLIC = ['holdfast', 'holdfast/client', 'holdfast/contract', 'holdfast/package.json', ...[
  'dispatcher', 'health', 'holdfast', 'load-shedding', 'metrics', 'openapi', 'operator-auth', 'rate-limit',
  'security-headers', 'session-manager', 'sessions-api', 'start-page', 'users-api', 'websocket-gateway'
].map(name => `holdfast/plugins/${name}`)]
const PRIVATE = [
  'holdfast/plugins/gateway/handshake', 'holdfast/plugins/schemas/rest', 'holdfast/plugins/metrics/process-metrics',
  'holdfast/dist/src/index.js', 'holdfast/src/app'
]

for (const name of PUBLIC) {
  if (name.endsWith('.json')) import.meta.resolve(name)
  else await import(name)
}
for (const name of PRIVATE) {
  const taken = await import(name).then(
    () => true,
    error => { if (error.code !== 'ERR_PACKAGE_PATH_NOT_EXPORTED') throw error }
  )
  if (taken) throw new Error(`${name} can be imported`)
}
