// Operations on the sessions of all nodes. What is on this node is done here, as without a fleet;
// the rest is done by the store where that is enough, and by the owner where it is not.

import type { Asking } from '../cluster/asking.js'
import { HoldfastError, type ErrorCode } from '../errors.js'
import { frameBytes, messageOutput } from '../protocol/codec.js'
import { mergePatch, readContext } from '../session/context.js'
import { largestOutputBytes } from '../session/delivery.js'
import { bindCursor, fingerprintOf, unbindCursor } from '../session/list-cursor.js'
import type { ListQuery, SessionManager, SessionPage } from '../session/manager.js'
import type { SessionRuntime } from '../session/runtime.js'
import type { NodeId, SharedSessionStore, StoredSummary, StoreListQuery } from '../session/shared-store.js'
import type { StoredTombstone } from '../session/store.js'
import type {
  Clock, JsonObject, JsonValue, Log, Output, SendOptions, Seq, SessionId, SessionView, Tombstone
} from '../types.js'
import type { SessionOperations } from './operations.js'

export interface FleetOperationsOptions {
  sessions: SessionRuntime
  manager: SessionManager
  /** Those on the sessions of this node. */
  local: SessionOperations
  store: SharedSessionStore
  asking: Asking
  clock: Clock
  log: Log
}

const RETRY_MS = 1000
const PAGE = 500
/** Each one meets a session that has just changed hands, or another patch. */
const PATCH_ATTEMPTS = 16
/** Pushes on their way at the same time. */
const AT_ONCE = 64

export function createFleetOperations (options: FleetOperationsOptions): SessionOperations {
  const { sessions, manager, local, store, clock } = options
  const { directory } = sessions
  const isHere = (id: SessionId): boolean => directory.get(id) !== undefined
  const { send, broadcast } = createFleetSend(options)

  /** @throws SESSION_NOT_FOUND, SESSION_ENDED, STORE_UNAVAILABLE */
  async function present (id: SessionId): Promise<StoredSummary> {
    const found = await store.find(id)
    if (found === 'unavailable') throw away()
    if (found === 'missing') throw new HoldfastError('SESSION_NOT_FOUND')
    if (isTombstone(found)) throw new HoldfastError('SESSION_ENDED', { details: { reason: found.reason } })
    return found
  }

  /** Undefined where the session changed hands, or its context changed, in between. */
  async function tryPatch (id: SessionId, patch: JsonObject): Promise<SessionView | undefined> {
    if (isHere(id)) return await local.patchContext(id, patch)
    const found = await present(id)
    if (found.owner !== null) {
      try {
        return await answerOf(options.asking, found.owner, 'patch', { id, patch }) as unknown as SessionView
      } catch (error) {
        if (error instanceof HoldfastError && error.code === 'SESSION_NOT_FOUND') return undefined
        throw error
      }
    }
    const { context } = readContext(mergePatch(found.context, patch), sessions.limits.maxContextBytes)
    const result = await store.replaceContext(id, found.context, context)
    if (result === 'unavailable') throw away()
    return result === 'kept' ? viewOf({ ...found, context }) : undefined
  }

  async function terminate (id: SessionId, note?: string): Promise<boolean> {
    if (isHere(id)) return await local.terminate(id, note)
    const result = await store.terminate(id, 'ended_by_operator', note)
    if (result === 'unavailable') throw away()
    return result !== 'missing'
  }

  answerOthers(options)
  return {
    terminate,

    async find (id) {
      if (isHere(id)) return await local.find(id)
      const found = await store.find(id)
      if (found === 'unavailable') throw away()
      if (found === 'missing') return await local.find(id)
      return isTombstone(found) ? { tombstone: withoutTokens(found) } : { view: viewOf(found) }
    },

    async list (query) {
      const page = await listStored(store, query, clock)
      const data = page.sessions.map(session => manager.peekSession(session.id) ?? viewOf(session))
      const contextBytes = data.reduce((sum, { context }) => sum + Buffer.byteLength(JSON.stringify(context)), 0)
      return { data, contextBytes, nextCursor: page.nextCursor, isFull: page.isFull }
    },

    async count () {
      const counts = await store.count()
      if (counts === 'unavailable') throw away()
      const { total, ownerless } = counts
      return { active: total - ownerless, detached: ownerless, total, outboxBytes: manager.countSessions().outboxBytes }
    },

    async terminateUser (userId, except, note) {
      const ids = await idsOf(store, { userId })
      // As of one node: with a wrong id none would be left.
      if (except !== undefined && !ids.includes(except)) {
        throw new HoldfastError(
          'SESSION_NOT_FOUND', { message: 'The user has no such session to spare; nothing was ended.' }
        )
      }
      let ended = 0
      await eachOf(ids, async id => {
        if (id !== except && await terminate(id, note)) ended++
      })
      return ended
    },

    async detach (id) {
      if (isHere(id)) return await local.detach(id)
      const { owner } = await present(id)
      return owner !== null && await answerOf(options.asking, owner, 'detach', { id }) === true
    },

    async send (target, event, payload, options) {
      if ('all' in target) return { sessions: await broadcast(event, payload, options), seq: null }
      if ('sessionId' in target) {
        const { sessionId: id } = target
        if (isHere(id)) return await local.send(target, event, payload, options)
        return { sessions: 1, seq: await send(id, outputFor(sessions, event, payload)) }
      }
      const output = outputFor(sessions, event, payload)
      return { sessions: await sendToEach(await idsOf(store, { userId: target.userId }), send, output), seq: null }
    },

    async patchContext (id, patch) {
      for (let attempt = 0; attempt < PATCH_ATTEMPTS; attempt++) {
        const view = await tryPatch(id, patch)
        if (view !== undefined) return view
      }
      throw away('The session changes hands all the time. Nothing was changed.')
    }
  }
}

/** What this node does for others. */
function answerOthers ({ asking, local, manager }: FleetOperationsOptions): void {
  asking.on('detach', async ({ id }) => await local.detach(id as SessionId))
  asking.on('patch', async ({ id, patch }) => await local.patchContext(
    id as SessionId, patch as JsonObject
  ) as unknown as JsonObject)
  asking.on('broadcast', async ({ event, payload, behind }) => manager.send(
    { all: true }, event as string, payload as JsonValue, { behind: behind === true }
  ).sessions)
}

type Send = (id: SessionId, output: Output) => Promise<Seq | null>

function createFleetSend (
  { sessions, manager, store, asking, clock, log }: FleetOperationsOptions
): { send: Send, broadcast: (event: string, payload: JsonValue, options?: SendOptions) => Promise<number> } {
  async function send (id: SessionId, { tail }: Output): Promise<Seq | null> {
    const pushed = await store.push(id, { pushId: null, tail })
    if (typeof pushed === 'object') return 'seq' in pushed ? pushed.seq : null
    if (pushed === 'duplicate') return null
    if (pushed !== 'missing') throw away(pushed === 'full' ? 'The inbox of the session is full.' : undefined)
    const found = await store.find(id)
    if (typeof found === 'object' && isTombstone(found)) {
      throw new HoldfastError('SESSION_ENDED', { details: { reason: found.reason } })
    }
    throw new HoldfastError('SESSION_NOT_FOUND')
  }

  /** Each node gives it to its own; where nobody listens it goes into the inboxes. */
  async function sendToNode (
    nodeId: NodeId, event: string, payload: JsonValue, output: Output, { behind = false }: SendOptions
  ): Promise<number> {
    if (nodeId === store.nodeId) return manager.send({ all: true }, event, payload, { behind }).sessions
    const answer = await asking.ask(nodeId, 'broadcast', { event, payload, behind })
    if (answer === 'unheard') return await sendToEach(await idsOf(store, { nodeId }), send, output)
    if (answer !== 'no_answer' && 'value' in answer) return answer.value as number
    log.warn({ nodeId }, 'node did not answer a broadcast')
    return 0
  }

  return {
    send,

    async broadcast (event, payload, options = {}) {
      const output = outputFor(sessions, event, payload)
      const startedAt = clock.wall()
      const nodes = await store.nodes()
      if (nodes === 'unavailable') throw away()
      const counts = await Promise.all(nodes.map(({ nodeId }) => sendToNode(nodeId, event, payload, output, options)))
      // One that was given up since then got it from its node.
      const ownerless = await idsOf(store, { state: 'detached' }, ({ owner, progress }) => {
        return owner === null && (progress.detachedAt ?? 0) < startedAt
      })
      return counts.reduce((sum, count) => sum + count, await sendToEach(ownerless, send, output))
    }
  }
}

/** @throws PAYLOAD_TOO_LARGE */
function outputFor ({ limits }: SessionRuntime, event: string, payload: JsonValue): Output {
  const output = messageOutput(event, payload)
  if (frameBytes(output, Number.MAX_SAFE_INTEGER) > largestOutputBytes(limits)) {
    throw new HoldfastError('PAYLOAD_TOO_LARGE')
  }
  return output
}

/** Returns how many took it; the others have ended meanwhile. */
async function sendToEach (ids: readonly SessionId[], send: Send, output: Output): Promise<number> {
  let sent = 0
  await eachOf(ids, async id => {
    try {
      await send(id, output)
      sent++
    } catch (error) {
      if (error instanceof HoldfastError && error.code === 'STORE_UNAVAILABLE') throw error
    }
  })
  return sent
}

async function eachOf<T> (items: readonly T[], act: (item: T) => Promise<unknown>): Promise<void> {
  for (let i = 0; i < items.length; i += AT_ONCE) await Promise.all(items.slice(i, i + AT_ONCE).map(act))
}

async function idsOf (
  store: SharedSessionStore, filter: Partial<StoreListQuery>, isMeant: (session: StoredSummary) => boolean = () => true
): Promise<SessionId[]> {
  const ids: SessionId[] = []
  let cursor: string | null = null
  do {
    const page = await store.list({
      newestFirst: false,
      limit: PAGE,
      ...filter,
      ...(cursor === null ? {} : { cursor })
    })
    if (page === 'unavailable') throw away()
    for (const session of page.sessions) if (isMeant(session)) ids.push(session.id)
    cursor = page.nextCursor
  } while (cursor !== null)
  return ids
}

async function listStored (
  store: SharedSessionStore, { cursor, limit = 50, ...query }: ListQuery, clock: Clock
): Promise<Pick<SessionPage, 'nextCursor' | 'isFull'> & { sessions: StoredSummary[] }> {
  const { idleForMs, newestFirst = false, ...filter } = query
  const list = fingerprintOf(query)
  const page = await store.list({
    ...filter,
    newestFirst,
    limit,
    ...(idleForMs === undefined ? {} : { activeBefore: clock.wall() - idleForMs + 1 }),
    ...(cursor === undefined ? {} : { cursor: unbindCursor(cursor, list) })
  })
  if (page === 'unavailable') throw away()
  return { ...page, nextCursor: page.nextCursor === null ? null : bindCursor(page.nextCursor, list) }
}

/** @throws what the other node threw; STORE_UNAVAILABLE where it does not answer */
async function answerOf (asking: Asking, nodeId: NodeId, topic: string, body: JsonObject): Promise<JsonValue> {
  const answer = await asking.ask(nodeId, topic, body)
  if (typeof answer === 'string') throw away('The node that has the session does not answer.')
  if ('value' in answer) return answer.value
  const { code, message, details } = answer.error
  throw new HoldfastError(code as ErrorCode, {
    ...(typeof message === 'string' && message !== '' ? { message } : {}),
    ...(details === undefined ? {} : { details: details as Record<string, string | number> })
  })
}

function isTombstone (found: StoredSummary | StoredTombstone): found is StoredTombstone {
  return 'reason' in found
}

function withoutTokens ({ tokenHash: _, previousTokenHash: __, ...tombstone }: StoredTombstone): Tombstone {
  return tombstone
}

/** As of the session's last batch: commands that run now are known to its node alone. */
function viewOf ({ progress, ...session }: StoredSummary): SessionView {
  return {
    id: session.id,
    userId: session.userId,
    createdAt: session.createdAt,
    lastActivityAt: progress.lastActiveAt,
    context: session.context,
    labels: session.labels,
    state: session.owner === null || progress.detachedAt !== null ? 'detached' : 'active',
    profile: session.profile,
    revision: progress.revision,
    lastSeq: progress.lastSeq,
    outboxMessages: session.outboxMessages,
    outboxBytes: session.outboxBytes,
    lastCommand: progress.watermark,
    inFlight: progress.open.length,
    dropped: progress.dropped,
    detachedAt: progress.detachedAt
  }
}

function away (detail?: string): HoldfastError {
  return new HoldfastError('STORE_UNAVAILABLE', {
    retryAfterMs: RETRY_MS,
    ...(detail === undefined ? {} : { message: detail })
  })
}
