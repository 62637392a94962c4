// Outputs of both kinds in random order, a store that answers when it likes, and a process that
// dies at any moment, with its last writes kept or not. Whatever happens, the client is told each
// seq once, in order and without a hole; what was kept arrives; what did not is a gap in its place.

import fc from 'fast-check'
import t from 'tap'
import { createModel } from '../../../contract/model.js'
import { restoreSessions } from '../../../src/io/session/restore.js'
import type { CommitBatch, CommitResult, CreateResult, EndResult, SessionStore } from '../../../src/io/session/store.js'
import { createDomain, type Domain, type Frame, type Peer, type Welcome } from '../../helpers/domain.js'
import { FUZZ_SEED } from '../../helpers/fuzz-seed.js'

/** What lies under every life of the process. */
interface Disk { readonly model: ReturnType<typeof createModel>, fence: number }

interface CrashingStore extends SessionStore {
  /** Carries out the oldest write; its answer gets through, or is lost with the process. */
  step(isAnswered: boolean): boolean
}

function createCrashingStore (disk: Disk): CrashingStore {
  const writes: ((isAnswered: boolean) => void)[] = []
  const fence = ++disk.fence
  function later<T> (act: () => T): Promise<T> {
    return new Promise(resolve => {
      writes.push(isAnswered => {
        const result = act()
        if (isAnswered) resolve(result)
      })
    })
  }
  return {
    traits: { survives: 'process', shared: false },
    async open (hooks) {
      for (const [id, { session }] of disk.model.sessions) {
        disk.model.claimed(id, fence)
        hooks.restore(session, fence)
      }
    },
    async close () {},
    health: () => 'ok',
    create: session => later((): CreateResult => {
      if (disk.model.create(session) === 'exists') return 'exists'
      disk.model.claimed(session.id, fence)
      return { fence }
    }),
    commit: (batch: CommitBatch) => later((): CommitResult => disk.model.commit(batch)),
    end: (id, given, tombstone) => later((): EndResult => disk.model.end(id, given, tombstone)),
    step (isAnswered) {
      const write = writes.shift()
      write?.(isAnswered)
      return write !== undefined
    }
  }
}

type Step =
  | { kind: 'send', behind: boolean }
  | { kind: 'answer' | 'flush' | 'turn' | 'ack' | 'hangUp' }
  | { kind: 'comeBack', unhandled: number }
  | { kind: 'crash', carriedOut: number }

const STEPS: fc.Arbitrary<Step>[] = [
  ...[true, true, true, false].map(behind => fc.constant<Step>({ kind: 'send', behind })),
  ...(['answer', 'answer', 'flush', 'turn', 'ack', 'hangUp'] as const).map(kind => fc.constant<Step>({ kind })),
  fc.record({ kind: fc.constant('comeBack' as const), unhandled: fc.nat({ max: 3 }) }),
  fc.record({ kind: fc.constant('crash' as const), carriedOut: fc.nat({ max: 3 }) })
]

interface World {
  readonly disk: Disk
  readonly store: CrashingStore
  readonly domain: Domain
  peer: Peer | undefined
  welcome: Welcome | undefined
  /** Frames of the peer that the client has read. */
  read: number
  /** Highest seq handled; what it was told so far, by seq. */
  handled: number
  acked: number
  readonly told: Map<number, string>
  /** Kind of what was sent, by payload; the seq that the server gave it. */
  readonly sent: Map<number, { behind: boolean, seq: number }>
  next: number
}

const GAP = 'gap not_kept'

function textOf ({ type, payload }: Frame): string {
  return type === 'gap' ? `gap ${payload.reason as string}` : `message ${payload as number}`
}

/** The client reads what has come. */
function read (world: World): void {
  const { peer, told } = world
  if (peer === undefined) return
  world.domain.turn()
  for (const frame of peer.frames().slice(world.read)) {
    world.read++
    if (frame.type === 'session_resumed') {
      world.welcome = frame.payload as Welcome
      if (frame.payload.gap !== null) throw new Error(`a gap where nothing was dropped: ${JSON.stringify(frame)}`)
    }
    if (frame.seq === undefined) continue
    const { seq } = frame
    const text = textOf(frame)
    const before = told.get(seq)
    if (seq !== world.handled + 1) throw new Error(`seq ${seq} after ${world.handled}`)
    if (before !== undefined && before !== text && text !== GAP) throw new Error(`${seq} was ${before}, and is ${text}`)
    told.set(seq, text)
    world.handled = seq
  }
}

async function settle ({ store, domain }: World, until: () => boolean = () => false): Promise<void> {
  for (let n = 0; n < 8 && !until(); n++) {
    await domain.settle()
    while (store.step(true));
  }
  await domain.settle()
}

async function comeBack (world: World, unhandled: number): Promise<void> {
  read(world)
  const { domain, welcome } = world
  if (welcome === undefined) return
  // What it was told and did not handle is told again, or is lost (P-27); it takes no ack back.
  world.handled = Math.max(world.acked, world.handled - unhandled)
  world.acked = world.handled
  const { sessionId, resumeToken: token } = welcome
  const joining = domain.connectLate({ resume: { sessionId, token, lastSeq: world.handled } })
  let isThere = false
  void joining.finally(() => { isThere = true })
  await settle(world, () => isThere)
  world.peer = await joining
  world.read = 0
  domain.turn()
  const { previous } = world.peer.welcome
  if (previous !== undefined) throw new Error(`the session is lost: ${JSON.stringify(previous)}`)
}

type Client = Pick<World, 'welcome' | 'handled' | 'acked' | 'told' | 'sent' | 'next'>

async function startLife (disk: Disk, former: Client): Promise<World> {
  const store = createCrashingStore(disk)
  let ids = 0
  const domain = createDomain({ store, createId: () => disk.fence === 1 && ids++ === 0 ? 'one' : `other${++ids}` })
  await restoreSessions(domain.sessions, store, { healthChanged () {} })
  const { welcome, handled, acked, told, sent, next } = former
  return { disk, store, domain, read: 0, peer: undefined, welcome, handled, acked, told, sent, next }
}

async function take (world: World, step: Step): Promise<World> {
  const { domain, store } = world
  switch (step.kind) {
    case 'send': {
      const payload = world.next++
      const { seq } = domain.manager.send({ sessionId: 'one' }, 'e', payload, { behind: step.behind })
      world.sent.set(payload, { behind: step.behind, seq: seq as number })
      return world
    }
    case 'answer':
      domain.turn()
      store.step(true)
      await domain.settle()
      return world
    case 'flush':
      domain.sessions.committer.flush()
      return world
    case 'turn':
      read(world)
      return world
    case 'ack':
      read(world)
      if (world.peer === undefined) return world
      world.acked = world.handled
      world.peer.send({ type: 'ack', seq: world.handled })
      return world
    case 'hangUp':
      read(world)
      world.peer?.close()
      world.peer = undefined
      return world
    case 'comeBack':
      await comeBack(world, step.unhandled)
      return world
    case 'crash': {
      read(world)
      domain.turn()
      for (let n = 0; n < step.carriedOut; n++) store.step(false)
      return await startLife(world.disk, world)
    }
  }
}

const keptSeqOf = ({ disk }: World): number => disk.model.sessions.get('one')?.session.progress.lastSeq ?? 0

/** An output that waits for the store is told when the store has it (S-2). */
function checkKept (world: World): void {
  const kept = keptSeqOf(world)
  for (const [payload, { behind, seq }] of world.sent) {
    const isTold = world.told.get(seq) === `message ${payload}`
    if (!behind && isTold && seq > kept) throw new Error(`${seq} was told, and kept is ${kept}`)
  }
}

/** Everything is answered, and the client has all. */
async function checkOutcome (world: World): Promise<void> {
  await comeBack(world, 0)
  world.domain.sessions.committer.flush()
  await settle(world)
  read(world)
  const kept = keptSeqOf(world)
  if (world.handled !== kept) throw new Error(`the client has ${world.handled}, and kept is ${kept}`)
  const payloads = [...world.told.values()].filter(text => text !== GAP)
  if (new Set(payloads).size !== payloads.length) throw new Error(`told twice: ${payloads.join()}`)
}

t.test('P-55 S-22 whenever the process dies, no seq is told twice, and what is lost is a gap', async t => {
  const seen = { gaps: 0, messages: 0, resumedAbove: 0 }
  await fc.assert(fc.asyncProperty(fc.array(fc.oneof(...STEPS), { maxLength: 120, size: 'max' }), async steps => {
    const nobody = { welcome: undefined, handled: 0, acked: 0, told: new Map(), sent: new Map(), next: 0 }
    let world = await startLife({ model: createModel(), fence: 0 }, nobody)
    const joining = world.domain.connectLate()
    await settle(world)
    world.peer = await joining
    world.domain.turn()
    world.welcome = world.peer.welcome
    await settle(world)
    for (const step of steps) {
      if (step.kind === 'crash' && world.handled > keptSeqOf(world)) seen.resumedAbove++
      world = await take(world, step)
      checkKept(world)
    }
    await checkOutcome(world)
    for (const text of world.told.values()) seen[text === GAP ? 'gaps' : 'messages']++
  }), { seed: FUZZ_SEED, numRuns: 150 })
  t.comment(JSON.stringify(seen))
  t.ok(Math.min(...Object.values(seen)) > 0, 'all of it has happened')
})
