// The files of deploy/, as far as they can be judged without running a container: by the programs
// that read them, by the options they set, and by each other.

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { parse } from 'yaml'
import { loadConfig } from '../../src/config.js'
import { OPTION_KEYS, OPTIONS } from '../../src/config-options.js'
import { readDockerfile, textsOf, type Stage } from '../helpers/dockerfile.js'
import { HAPROXY_CONFIG, haproxyBinary, needsHaproxy } from '../helpers/haproxy.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8')
const names: readonly string[] = OPTION_KEYS.map(key => OPTIONS[key].env)

interface Service {
  image: string
  build?: { context: string, dockerfile: string }
  environment?: Record<string, string>
  volumes?: string[]
  networks?: string[]
  depends_on?: string[] | Record<string, unknown>
  stop_grace_period?: string
}

interface Compose {
  services: Record<string, Service>
  networks?: Record<string, { ipam: { config: { subnet: string }[] } }>
  volumes: Record<string, unknown>
}

const FILES = ['deploy/compose.yml', 'deploy/compose.fleet.yml']
const readCompose = (path: string) => parse(read(path), { merge: true }) as Compose

/** What a deployment puts in the place of `${NAME:?words}`. */
const SECRETS = 'a-secret-of-more-than-thirty-two-bytes'
const fill = (text: string): string => text.replace(/^\$\{([A-Z_]+):\?[^}]+\}$/, SECRETS)

/** What the image sets, and the services override. */
const [build, image] = readDockerfile(read('deploy/Dockerfile')) as [Stage, Stage]
const imageEnv = Object.fromEntries(textsOf(image, 'ENV').flatMap(text => text.split(' ').map(pair => pair.split(
  '='
)))) as
  Record<string, string>

function nodesOf ({ services }: Compose): [string, Service][] {
  return Object.entries(services).filter(([, service]) => service.build !== undefined)
}

for (const path of FILES) {
  t.test(`${path}: the nodes' options are accepted, and a stop has time to drain`, async t => {
    const nodes = nodesOf(readCompose(path))
    t.ok(nodes.length > 0)
    for (const [name, { environment = {}, stop_grace_period: grace }] of nodes) {
      const env = {
        ...imageEnv,
        ...Object.fromEntries(Object.entries(environment).map(([key, text]) => [key, fill(text)]))
      }
      t.same(Object.keys(environment).filter(key => !names.includes(key)), [], name)
      const { drainSeconds } = loadConfig({ env, argv: [] })
      t.ok(parseInt(grace ?? '') >= drainSeconds + 5, `${name}: ${grace}`)
    }
  })

  t.test(`${path}: what services refer to is there`, async t => {
    const { services, volumes, networks = {} } = readCompose(path)
    for (const [name, service] of Object.entries(services)) {
      if (service.build !== undefined) {
        t.ok(existsSync(join(ROOT, 'deploy', service.build.context, service.build.dockerfile)), name)
      }
      for (const mount of service.volumes ?? []) {
        const [source] = mount.split(':') as [string]
        t.ok(source.startsWith('./') ? existsSync(join(ROOT, 'deploy', source)) : Object.hasOwn(volumes, source), mount)
      }
      const { depends_on: others = [], networks: joined = [] } = service
      for (const other of Array.isArray(others) ? others : Object.keys(others)) {
        t.ok(Object.hasOwn(services, other), other)
      }
      for (const network of joined) t.ok(Object.hasOwn(networks, network), network)
    }
  })
}

t.test('haproxy balances over the nodes of the compose file, and they trust it', async t => {
  const compose = readCompose('deploy/compose.fleet.yml')
  const servers = Array.from(
    read('deploy/haproxy.cfg').matchAll(/server \S+ "\$\{NODE_\d-([\w-]+):3000\}"/g),
    ([, name]) => name
  )
  t.same(servers, nodesOf(compose).map(([name]) => name))
  const subnet = compose.networks?.['inside']?.ipam.config[0]?.subnet
  for (const [name, { environment }] of nodesOf(compose)) {
    t.equal(environment?.['HOLDFAST_TRUST_PROXY'], subnet)
    t.equal(environment?.['HOLDFAST_NODE_NAME'], name)
  }
  t.equal(imageEnv['PORT'], '3000')
})

t.test('haproxy keeps quiet connections longer than heartbeats need', async t => {
  const [, tunnel] = /^ {4}timeout tunnel (\d+)s$/m.exec(read('deploy/haproxy.cfg')) ?? []
  t.ok(Number(tunnel) > OPTIONS.heartbeatSeconds.default + 10, String(tunnel))
})

t.test('haproxy accepts its configuration', needsHaproxy(), async t => {
  const env = { ...process.env, NODE_1: '127.0.0.1:1', NODE_2: '127.0.0.1:2', NODE_3: '127.0.0.1:3' }
  const { status, stdout, stderr } = spawnSync(
    haproxyBinary() as string, ['-c', '-f', HAPROXY_CONFIG], { env, encoding: 'utf8' }
  )
  t.equal(status, 0, stderr)
  t.notMatch(stdout + stderr, /WARNING|ALERT/)
})

t.test('the image is made of files that are there, and runs without root', async t => {
  const kept = read('.dockerignore').split('\n').filter(line => line.startsWith('!')).map(line => line.slice(1))
  const copied = textsOf(build, 'COPY').flatMap(text => text.split(' ').slice(0, -1))
  t.same(copied.sort(), kept.sort(), 'the context is what is copied')
  for (const path of copied) t.ok(existsSync(join(ROOT, path)), path)
  t.same(textsOf(image, 'USER'), ['node'])
  t.match(textsOf(image, 'HEALTHCHECK')[0], /CMD \["holdfast", "--healthcheck"\]$/)
})

t.test('the unit checks the configuration first, and a stop has time to drain', async t => {
  const unit = read('deploy/holdfast.service')
  t.match(unit, /^ExecStartPre=(\S+) --check-config\n(?:#.*\n)*ExecStart=\1$/m)
  const [, seconds] = /^TimeoutStopSec=(\d+)$/m.exec(unit) ?? []
  t.ok(Number(seconds) >= OPTIONS.drainSeconds.default + 5, String(seconds))
  for (const [, name] of unit.matchAll(/^Environment=([A-Z_]+)=/gm)) t.ok(names.includes(name as string), String(name))
})

const SYSTEMD = spawnSync('systemd-analyze', ['--version']).status === 0
t.test('systemd accepts the unit', {
  skip: SYSTEMD ? false : 'NO SYSTEMD: systemd-analyze is not installed'
}, async t => {
  // It wants to see the program, wherever this machine has it.
  const unit = join(t.testdir(), 'holdfast.service')
  writeFileSync(unit, read('deploy/holdfast.service').replaceAll('/usr/local/bin/holdfast', process.execPath))
  const { status, stderr } = spawnSync('systemd-analyze', ['verify', unit], { encoding: 'utf8' })
  t.same({ status, stderr }, { status: 0, stderr: '' })
})
