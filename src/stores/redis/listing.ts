// Finding, listing and counting sessions, wherever they are. A page is merged from the partitions:
// each gives a few ids after the cursor, those that run dry are asked again, and only the rows of
// the page are read. Of a user's sessions one partition knows all.

import { HoldfastError } from '../../io/errors.js'
import type { SessionId, UserId } from '../../io/types.js'
import type { SharedSessionStore, StoreListQuery, StorePage, StoredSummary } from '../../io/session/shared-store.js'
import { readFields, readSummary, readTombstone, textOf } from './layout.js'
import type { RedisNode } from './node.js'
import type { Reply } from './redis-port.js'

interface Place { readonly createdAt: number, readonly id: SessionId }

/**
 * Rows that a page may look at; a filter that matches little gives short pages that still have a
 * cursor.
 */
const MAX_ROWS = 10_000
const MAX_CONTEXT_BYTES = 1_048_576
/** Sessions of one user that a listing knows of. */
const MAX_OF_USER = 100_000

export function createListing (node: RedisNode): Pick<SharedSessionStore, 'find' | 'list' | 'count'> {
  const { gate, layout } = node

  /** Null for one that is gone meanwhile, undefined where the store does not answer. */
  async function row (id: SessionId): Promise<StoredSummary | null | undefined> {
    const [word, head, long] = (await gate.call('find', layout.sessionKeys(id), []) ?? []) as Reply[]
    if (word === undefined) return undefined
    return textOf(word) === 'session' ? readSummary(id, readFields(head as Reply, long as Reply)) : null
  }

  /** Places in order, a batch at a time; null where the store does not answer. */
  async function * ofAll (query: StoreListQuery, cursor: Place | null): AsyncGenerator<Place[] | null> {
    const { partitions } = layout
    const chunk = Math.ceil(query.limit / partitions) + 4
    const low = query.createdAfter === undefined ? '-inf' : `(${query.createdAfter}`
    const high = query.createdBefore === undefined ? '+inf' : `(${query.createdBefore}`
    const heads = Array.from({ length: partitions }, (): { places: Place[], last: Place | null, isOver: boolean } => ({
      places: [], last: cursor, isOver: false
    }))
    for (;;) {
      const dry = heads.flatMap((head, partition) => head.places.length === 0 && !head.isOver ? [partition] : [])
      const replies = await Promise.all(dry.map(partition => {
        const { last } = heads[partition] as { last: Place | null }
        return gate.call('page', [layout.byCreation(partition)], [
          query.newestFirst ? '1' : '0', low, high, String(last?.createdAt ?? ''), last?.id ?? '', String(chunk)
        ])
      }))
      for (const [i, reply] of replies.entries()) {
        if (reply === undefined) {
          yield null
          return
        }
        const head = heads[dry[i] as number] as (typeof heads)[number]
        head.places = readPlaces(reply as Reply[])
        head.isOver = head.places.length < chunk
        head.last = head.places.at(-1) ?? head.last
      }
      const merged = merge(heads, query.newestFirst)
      if (merged.length === 0 && heads.every(head => head.isOver)) return
      yield merged
    }
  }

  async function * ofUser (
    query: StoreListQuery, userId: UserId, cursor: Place | null
  ): AsyncGenerator<Place[] | null> {
    const key = layout.byUser(layout.partitionOfUser(userId))
    const reply = await gate.call('user', [key], [userId, String(MAX_OF_USER)])
    const rows = reply === undefined ? [undefined] : await Promise.all((reply as Reply[]).map(id => row(textOf(id))))
    if (rows.includes(undefined)) {
      yield null
      return
    }
    const { createdAfter = -Infinity, createdBefore = Infinity, newestFirst } = query
    yield rows
      .filter(each => each !== null && each !== undefined)
      .filter(each => each.createdAt > createdAfter && each.createdAt < createdBefore)
      .filter(each => cursor === null || order(each, cursor, newestFirst) > 0)
      .sort((a, b) => order(a, b, newestFirst))
  }

  return {
    async find (id) {
      const [word, detail, long] = (await gate.call('find', layout.sessionKeys(id), []) ?? []) as Reply[]
      if (word === undefined) return 'unavailable'
      if (textOf(word) === 'session') return readSummary(id, readFields(detail as Reply, long as Reply))
      return textOf(word) === 'ended' ? readTombstone(id, readFields(detail as Reply)) : 'missing'
    },

    async list (query): Promise<StorePage | 'unavailable'> {
      const cursor = query.cursor === undefined ? null : readCursor(query.cursor, query.newestFirst)
      const { userId, limit, maxContextBytes = MAX_CONTEXT_BYTES } = query
      const isWide = userId === undefined || userId === node.unlimitedUserId
      const places = isWide ? ofAll(query, cursor) : ofUser(query, userId, cursor)
      const sessions: StoredSummary[] = []
      let last: Place | null = cursor
      let seen = 0
      let contextBytes = 0
      const page = (isFull: boolean): StorePage => {
        return { sessions, nextCursor: last === null ? null : writeCursor(last, query.newestFirst), isFull }
      }
      for await (const batch of places) {
        if (batch === null) return 'unavailable'
        for (let i = 0; i < batch.length; i += limit) {
          const some = batch.slice(i, i + limit)
          const rows = await Promise.all(some.map(place => row(place.id)))
          for (const [at, session] of rows.entries()) {
            if (session === undefined) return 'unavailable'
            if (sessions.length === limit) return page(true)
            if (session !== null && matches(session, query)) {
              const bytes = Buffer.byteLength(JSON.stringify(session.context))
              if (sessions.length > 0 && contextBytes + bytes > maxContextBytes) return page(true)
              sessions.push(session)
              contextBytes += bytes
            }
            last = some[at] as Place
          }
          seen += some.length
          if (seen >= MAX_ROWS) return page(false)
        }
      }
      return { sessions, nextCursor: null, isFull: false }
    },

    async count () {
      const names = [...new Set([node.id, ...node.alive()])]
      const replies = await Promise.all(Array.from({ length: layout.partitions }, (_, partition) => gate.call('count', [
        layout.byCreation(partition), layout.deadlines(partition), ...names.map(name => layout.ofNode(partition, name))
      ], [])))
      const sums = new Array<number>(names.length + 2).fill(0)
      for (const reply of replies) {
        if (reply === undefined) return 'unavailable'
        for (const [i, count] of (reply as number[]).entries()) sums[i] = (sums[i] as number) + count
      }
      const [total = 0, ownerless = 0, ...owned] = sums
      return { total, ownerless, byNode: Object.fromEntries(names.map((name, i) => [name, owned[i] ?? 0])) }
    }
  }
}

function readPlaces (reply: Reply[]): Place[] {
  const places: Place[] = []
  for (let i = 0; i < reply.length; i += 2) {
    places.push({ id: textOf(reply[i]), createdAt: Number(textOf(reply[i + 1])) })
  }
  return places
}

/** Takes what is certain to come next: up to the first end of a partition that may have more. */
function merge (heads: { places: Place[], isOver: boolean }[], newestFirst: boolean): Place[] {
  const ends = heads.filter(head => !head.isOver).flatMap(head => head.places.at(-1) ?? [])
  const bound = ends.sort((a, b) => order(a, b, newestFirst))[0] ?? null
  const taken: Place[] = []
  for (const head of heads) {
    const beyond = bound === null ? -1 : head.places.findIndex(place => order(place, bound, newestFirst) > 0)
    taken.push(...head.places.splice(0, beyond === -1 ? head.places.length : beyond))
  }
  return taken.sort((a, b) => order(a, b, newestFirst))
}

function order (a: Place, b: Place, newestFirst: boolean): number {
  const sign = newestFirst ? -1 : 1
  return sign * (a.createdAt - b.createdAt || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))
}

function matches (session: StoredSummary, query: StoreListQuery): boolean {
  const isDetached = session.owner === null || session.progress.detachedAt !== null
  return (query.state === undefined || isDetached === (query.state === 'detached')) &&
    (query.userId === undefined || session.userId === query.userId) &&
    (query.nodeId === undefined || session.owner === query.nodeId) &&
    (query.activeBefore === undefined || session.progress.lastActiveAt < query.activeBefore)
}

function writeCursor ({ createdAt, id }: Place, newestFirst: boolean): string {
  return Buffer.from(`${newestFirst ? 'n' : 'o'}${createdAt},${id}`).toString('base64url')
}

function readCursor (cursor: string, newestFirst: boolean): Place {
  const text = Buffer.from(cursor, 'base64url').toString()
  const [, direction, createdAt, id] = /^([no])(\d{1,16}),([\x21-\x7e]{1,128})$/.exec(text) ?? []
  if (direction !== (newestFirst ? 'n' : 'o') || createdAt === undefined || id === undefined) {
    throw new HoldfastError('INVALID_CURSOR')
  }
  return { createdAt: Number(createdAt), id }
}
