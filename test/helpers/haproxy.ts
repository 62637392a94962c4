// haproxy with the configuration of deploy/, on free ports. Without the program the test says so
// and is skipped; with REQUIRE_HAPROXY=1, as in CI, it fails instead.

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { freePort } from './free-port.js'
import { spawnProgram, type Program } from './program.js'

export const HAPROXY_CONFIG = fileURLToPath(new URL('../../deploy/haproxy.cfg', import.meta.url))

/** Debian puts it where only root looks. */
export function haproxyBinary (): string | undefined {
  return ['haproxy', '/usr/sbin/haproxy'].find(name => spawnSync(name, ['-v']).status === 0)
}

export function needsHaproxy (): { skip: string | false } {
  if (haproxyBinary() !== undefined) return { skip: false }
  if (process.env['REQUIRE_HAPROXY'] === '1') throw new Error('REQUIRE_HAPROXY is set, and there is no haproxy.')
  return { skip: 'NO HAPROXY: install haproxy to run the tests of deploy/haproxy.cfg' }
}

export interface Balancer extends Program { readonly url: string, readonly wsUrl: string }

/**
 * In front of up to three nodes, each `address:port`; the places left over have the last one again.
 */
export async function startHaproxy (t: Test, nodes: readonly string[]): Promise<Balancer> {
  const port = await freePort()
  const env = { ...process.env, BIND: `127.0.0.1:${port}` } as Record<string, string | undefined>
  for (const place of [0, 1, 2]) env[`NODE_${place + 1}`] = nodes[place] ?? nodes.at(-1)
  const program = spawnProgram(t, haproxyBinary() as string, ['-db', '-f', HAPROXY_CONFIG], { env })
  const url = `http://127.0.0.1:${port}`
  await program.until('a listening haproxy', () => fetch(url).then(() => true, () => false))
  return { ...program, url, wsUrl: `ws://127.0.0.1:${port}/ws` }
}
