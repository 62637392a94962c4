// Certificates for tests, made with openssl: an authority of its own, and a server that it vouches
// for.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

export interface Certificates {
  /** Paths of PEM files. */
  readonly authority: string
  readonly certificate: string
  readonly key: string
}

/** `names`: for whom the server's certificate is, as in `IP:127.0.0.1,DNS:localhost`. */
export function makeCertificates (t: Test, names = 'IP:127.0.0.1,DNS:localhost'): Certificates {
  const folder = mkdtempSync(join(tmpdir(), 'holdfast-tls-'))
  t.teardown(() => { rmSync(folder, { recursive: true, force: true }) })
  const at = (name: string): string => join(folder, name)
  const openssl = (...args: string[]): void => { execFileSync('openssl', args, { stdio: 'ignore' }) }
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  openssl('req', '-x509', ...key, '-keyout', at('ca.key'), '-out', at('ca.pem'), '-days', '2', '-subj', '/CN=test CA')
  openssl('req', ...key, '-keyout', at('server.key'), '-out', at('server.csr'), '-subj', '/CN=redis')
  writeFileSync(at('names'), `subjectAltName=${names}\n`)
  openssl(
    'x509', '-req', '-in', at('server.csr'), '-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial',
    '-out', at('server.pem'), '-days', '2', '-extfile', at('names')
  )
  return { authority: at('ca.pem'), certificate: at('server.pem'), key: at('server.key') }
}
