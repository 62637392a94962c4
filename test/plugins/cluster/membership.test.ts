// What a node does about its store from second to second, and what it does last. The ticks are
// those of this process, driven by hand.

import { mock } from 'node:test'
import t, { type Test } from 'tap'
import type { FastifyBaseLogger } from 'fastify'
import { createMembership, type Membership } from '../../../plugins/cluster/membership.js'
import { createModelFleet, type ModelFleet, type ModelNode } from '../../helpers/model-fleet.js'
import type { StoreHealth } from '../../../src/io/session/store.js'

interface Scene {
  fleet: ModelFleet
  node: ModelNode
  membership: Membership
  pass(seconds: number): Promise<void>
  health: StoreHealth
  ticks: number
}

async function start (t: Test): Promise<Scene> {
  mock.timers.enable({ apis: ['setInterval'] })
  t.teardown(() => { mock.timers.reset() })
  const fleet = createModelFleet()
  const node = await fleet.start('a')
  node.store.health = () => scene.health
  node.store.tick = async () => { scene.ticks++ }
  const membership = createMembership({
    sessions: node.sessions,
    store: node.store,
    clock: fleet.clock,
    log: node.log as unknown as FastifyBaseLogger,
    delay: () => new Promise(resolve => { setImmediate(resolve) }),
    yieldTurn: async () => {}
  })
  const scene: Scene = {
    fleet,
    node,
    membership,
    health: 'ok',
    ticks: 0,
    async pass (seconds) {
      for (let n = 0; n < seconds; n++) {
        fleet.clock.advance(1000)
        mock.timers.tick(1000)
        await fleet.settle()
      }
    }
  }
  return scene
}

t.test('the store is ticked once a second', async t => {
  const scene = await start(t)
  await scene.pass(3)
  t.equal(scene.ticks, 3)
})

t.test('P-39 clients are sent to other nodes when the store was away for more than 10 s, once', async t => {
  const scene = await start(t)
  const peers = [await scene.node.connectLate(), await scene.node.connectLate()]
  scene.health = 'degraded'
  await scene.pass(10)
  t.strictSame(peers.map(({ transport }) => transport.closed), [undefined, undefined])
  await scene.pass(1)
  t.strictSame(peers.map(({ transport }) => transport.closed?.code), [4204, 4204])
  scene.health = 'ok'
  const late = await scene.node.connectLate()
  scene.health = 'degraded'
  await scene.pass(20)
  t.equal(late.transport.closed, undefined)
  t.strictSame(
    scene.node.log.lines.filter(({ message }) => message.startsWith('session store is away'))
      .map(({ fields }) => fields),
    [{ connections: 2 }]
  )
})

t.test('an absence that ends in time costs nobody his connection, and the next one counts anew', async t => {
  const scene = await start(t)
  const peer = await scene.node.connectLate()
  for (const seconds of [9, 9]) {
    scene.health = 'degraded'
    await scene.pass(seconds)
    scene.health = 'ok'
    await scene.pass(1)
  }
  t.equal(peer.transport.closed, undefined)
  scene.health = 'degraded'
  await scene.pass(11)
  t.match(peer.transport.closed, { code: 4204 })
})

t.test('a node that leaves gives its sessions up and ticks no more', async t => {
  const scene = await start(t)
  const peer = await scene.node.connectLate()
  peer.close()
  await Promise.all([scene.membership.leave(), scene.fleet.settle()])
  t.equal(scene.fleet.redis.sessions.get(peer.welcome.sessionId)?.fields.get('o'), '')
  await scene.pass(2)
  t.equal(scene.ticks, 0)
})
