// What the Lua scripts do, once more in TypeScript and on plain values: the server of the
// simulations. Only what the ownership of sessions needs is here; listing is not.

import { isPrevious, previousAfter } from '../../src/io/session/resume-token.js'
import type { Argument, Reply } from '../../src/stores/redis/redis-port.js'
import type { ScriptName } from '../../src/stores/redis/scripts.js'
import { NOT_KEPT } from '../../src/io/protocol/codec.js'
import type { Flaw } from './world.js'

const GAP = `0:${NOT_KEPT.tail}`

export interface ModelSession {
  readonly fields: Map<string, string>
  outputs: string[]
  inbox: string[]
  pushIds: Set<string>
}

export interface ModelRedis {
  run(name: ScriptName, keys: readonly string[], args: readonly Argument[]): Reply
  readonly sessions: Map<string, ModelSession>
  readonly tombstones: Map<string, Map<string, string>>
  readonly deadlines: Map<string, number>
  /** By the key of a node's set. */
  readonly ofNodes: Map<string, Set<string>>
  /** Every output that was ever kept, by session and seq. */
  readonly history: Map<string, string[]>
  /** Everything is gone, as after a restart without a file. */
  empty(): void
}

type Answer = string | number | null | readonly Answer[]

function toReply (answer: Answer): Reply {
  if (typeof answer === 'string') return Buffer.from(answer)
  return typeof answer === 'object' && answer !== null ? answer.map(toReply) : answer
}

const flat = (fields: Map<string, string>): string[] => [...fields].flat()

export function createModelRedis (now: () => number, flaw: Flaw = 'none'): ModelRedis {
  const sessions = new Map<string, ModelSession>()
  const tombstones = new Map<string, Map<string, string>>()
  const deadlines = new Map<string, number>()
  const ofNodes = new Map<string, Set<string>>()
  const history = new Map<string, string[]>()
  const leases = new Map<string, number>()
  const dead = new Map<string, number>()
  const infos = new Map<string, string>()
  const meta = new Map<string, string>()
  /** The key of the deadlines in the partition of a session. */
  const deadlineKeys = new Map<string, string>()
  let lastLease = 0

  const setOf = (key: string): Set<string> => {
    const found = ofNodes.get(key) ?? new Set()
    ofNodes.set(key, found)
    return found
  }
  const get = ({ fields }: ModelSession, name: string): string => fields.get(name) ?? ''
  const number = (session: ModelSession, name: string): number => Number(get(session, name))
  const idOf = (key: string | undefined): string => (key ?? '').slice((key ?? '').lastIndexOf(':') + 1)

  function record (sid: string, from: number, outputs: readonly string[]): void {
    const kept = history.get(sid) ?? []
    outputs.forEach((output, i) => { kept[from + i] = output })
    history.set(sid, kept)
  }

  function settle (sid: string, session: ModelSession, extra: string | null): void {
    const missing = flaw === 'a reservation that nobody fills' ? 0 : number(session, 're') - number(session, 'ls')
    const filled = missing > 0 ? new Array<string>(missing).fill(GAP) : []
    const waiting = [...filled, ...session.inbox, ...extra === null ? [] : [extra]]
    record(sid, number(session, 'ls') + 1, waiting)
    session.outputs.push(...waiting)
    session.inbox = []
    set(session, { ls: number(session, 'ls') + waiting.length, ib: 0 })
  }

  function set (session: ModelSession, values: Record<string, string | number>): void {
    for (const [name, value] of Object.entries(values)) session.fields.set(name, String(value))
  }

  function finish (
    sid: string, session: ModelSession, reason: string, endedAt: string, keys: readonly string[]
  ): Answer[] {
    sessions.delete(sid)
    deadlines.delete(sid)
    if (keys[9] !== undefined) setOf(keys[9]).delete(sid)
    const stone = new Map([
      ['u', get(session, 'u')], ['r', reason], ['e', endedAt], ['wm', get(session, 'wm')], ['th', get(session, 'th')],
      ['pt', get(session, 'pt')], ['p', get(session, 'p')], ['rv', get(session, 'rv')]
    ])
    tombstones.set(sid, stone)
    return ['ended', flat(stone), get(session, 'o'), get(session, 'f')]
  }

  function append (sid: string, args: readonly string[], at: number): Answer[] {
    const session = sessions.get(sid)
    if (session === undefined) return ['missing']
    const isOwner = get(session, 'o') === args[at] && get(session, 'f') === args[at + 1]
    if (!isOwner && flaw !== 'a write without a look at the fence') return ['fenced']
    const [prev, last, released] = args.slice(at + 2, at + 5).map(Number) as [number, number, number]
    const stored = number(session, 'ls')
    const base = number(session, 'rs')
    if (flaw === 'a batch appended twice') {
      const again = args.slice(at + 8 + Number(args[at + 7]))
      record(sid, stored + 1, again)
      session.outputs.push(...again)
      set(session, { ls: stored + again.length })
      return ['kept', '0']
    }
    if (last < stored) return ['kept', '0']
    if (stored !== prev && stored !== last) return ['gap', String(stored)]
    const from = at + 8 + Number(args[at + 7])
    const batch = args.slice(from)
    session.outputs.splice(0, Math.max(0, released - base))
    const nextBase = Math.max(base, released)
    if (last > stored) {
      const first = last - batch.length + 1
      const fresh = batch.slice(Math.max(0, Math.max(stored, nextBase) + 1 - first))
      record(sid, last - fresh.length + 1, fresh)
      session.outputs.push(...fresh)
    }
    const inboxTo = Number(args[at + 5])
    if (inboxTo > number(session, 'ib')) {
      session.inbox.splice(0, inboxTo - number(session, 'ib'))
      set(session, { ib: inboxTo })
    }
    set(session, { re: Math.max(number(session, 're'), Number(args[at + 6])) })
    for (let i = at + 8; i < from; i += 2) session.fields.set(args[i] as string, args[i + 1] as string)
    set(session, { ls: last, rs: nextBase, at: now() })
    return ['kept', session.inbox.length > 0 ? '1' : '0']
  }

  const scripts: Partial<Record<ScriptName, (keys: readonly string[], args: readonly string[]) => Answer>> = {
    create (keys, args) {
      const [node = '', sid = '', user = '', , createdAt = '', ls = '', rs = '', count = ''] = args
      if (sessions.has(sid) || tombstones.has(sid)) return ['exists']
      const from = 8 + Number(count)
      const session: ModelSession = { fields: new Map(), outputs: args.slice(from), inbox: [], pushIds: new Set() }
      set(session, { u: user, c: createdAt, o: node, f: now(), ls, rs, ib: 0, at: now(), dl: '', er: '' })
      for (let i = 8; i < from; i += 2) session.fields.set(args[i] as string, args[i + 1] as string)
      sessions.set(sid, session)
      setOf(keys[9] as string).add(sid)
      record(sid, Number(rs) + 1, session.outputs)
      return ['created', String(now())]
    },

    commit: (keys, args) => append(idOf(keys[0]), args, 0),

    release (keys, args) {
      const [sid = '', keepMs = '', reason = ''] = args
      const result = append(sid, args, 5)
      const session = sessions.get(sid)
      if (result[0] !== 'kept' || session === undefined) return result
      session.fields.delete('re')
      settle(sid, session, null)
      set(session, { o: '', dl: now() + Number(keepMs), er: reason })
      deadlines.set(sid, now() + Number(keepMs))
      setOf(keys[9] as string).delete(sid)
      return ['kept', '0']
    },

    claim (keys, args) {
      const [sid = '', node = '', user = '', hash = '', next = '', lastSeen = '', labels = ''] = args
      const [expected = '', fence = ''] = args.slice(7)
      const session = sessions.get(sid)
      if (session === undefined) {
        const stone = tombstones.get(sid)
        return stone === undefined ? ['unknown'] : ['ended', flat(stone), '0']
      }
      const [latest, previous] = [get(session, 'th'), get(session, 'pt')]
      if (get(session, 'u') !== user || !(latest === hash || isPrevious(hash, previous))) return ['unknown']
      const owner = get(session, 'o')
      if (owner === '') {
        if (now() >= number(session, 'dl')) {
          return ['ended', finish(sid, session, get(session, 'er'), String(now()), keys)[1] as Answer, '1']
        }
      } else if (owner !== expected || get(session, 'f') !== fence) {
        return ['owned', owner, get(session, 'f')]
      }
      if (owner !== '') setOf(keys[10] as string).delete(sid)
      if (Number(lastSeen) > Math.max(number(session, 'ls'), number(session, 're'))) {
        return ['ended', finish(sid, session, 'state_lost', String(now()), keys)[1] as Answer, '1']
      }
      if (flaw === 'an inbox left behind by a claim') session.inbox = []
      else if (owner !== '') settle(sid, session, null)
      set(session, {
        o: node,
        f: Math.max(number(session, 'f') + 1, now()),
        n: args[12] as string,
        th: next,
        pt: flaw === 'a token that dies with its first use' ? '' : previousAfter(hash, latest, previous),
        l: labels,
        da: '',
        dl: '',
        er: '',
        ib: 0,
        at: now()
      })
      deadlines.delete(sid)
      setOf(keys[9] as string).add(sid)
      return ['claimed', get(session, 'f'), owner, flat(session.fields), [], session.outputs]
    },

    end (keys, args) {
      const [sid = '', node = '', fence = '', reason = '', endedAt = '', , , wm = '', th = '', pt = ''] = args
      const session = sessions.get(sid)
      if (session === undefined) return ['missing']
      if (get(session, 'o') !== node || get(session, 'f') !== fence) return ['fenced']
      set(session, { wm, th, pt })
      return finish(sid, session, reason, endedAt, keys)
    },

    terminate (keys, args) {
      const [sid = '', owner = '', reason = ''] = args
      const session = sessions.get(sid)
      if (session === undefined) return ['missing']
      if (get(session, 'o') !== owner) return ['moved']
      return finish(sid, session, reason, String(now()), keys)
    },

    expire (keys, args) {
      const [sid = '', reason = ''] = args
      const session = sessions.get(sid)
      if (session === undefined || get(session, 'o') !== '') {
        deadlines.delete(sid)
        return [session === undefined ? 'missing' : 'owned']
      }
      if (reason === '' && now() < number(session, 'dl')) return ['early']
      return finish(sid, session, reason === '' ? get(session, 'er') : reason, String(now()), keys)
    },

    orphan (keys, args) {
      const [sid = '', node = '', windowMs = '', idleMs = '', unheardMs = ''] = args
      const session = sessions.get(sid)
      const isOther = flaw !== 'an undo of whatever call' && args[8] !== '' && session !== undefined &&
        get(session, 'n') !== args[8]
      if (isOther && get(session, 'o') === node) return ['not_theirs']
      if (session === undefined || get(session, 'o') !== node) {
        setOf(keys[9] as string).delete(sid)
        return ['not_theirs']
      }
      if (get(session, 'p') === 'basic') return finish(sid, session, 'disconnected', String(now()), keys)
      settle(sid, session, null)
      const isUnheard = get(session, 'he') === '0' && number(session, 'ls') === 0 && number(session, 'wm') === 0
      const windowEnd = now() + (isUnheard ? Math.min(Number(windowMs), Number(unheardMs)) : Number(windowMs))
      const idleEnd = number(session, 'at') + Number(idleMs)
      const deadline = Math.min(windowEnd, idleEnd)
      set(session, { o: '', dl: deadline, er: idleEnd < windowEnd ? 'idle' : 'resume_window' })
      if (get(session, 'da') === '') set(session, { da: now() })
      deadlines.set(sid, deadline)
      setOf(keys[9] as string).delete(sid)
      return ['orphaned']
    },

    push (keys, args) {
      const [pushId = '', entry = ''] = args
      const sid = idOf(keys[0])
      const session = sessions.get(sid)
      if (session === undefined || (get(session, 'o') === '' && now() >= number(session, 'dl'))) return ['missing']
      if (pushId !== '' && session.pushIds.has(pushId)) return ['duplicate']
      if (pushId !== '') session.pushIds.add(pushId)
      if (get(session, 'o') === '') {
        settle(sid, session, entry)
        return ['sequenced', get(session, 'ls')]
      }
      session.inbox.push(entry)
      return ['queued', get(session, 'o')]
    },

    inbox (keys, args) {
      const [node = '', fence = '', after = '', most = ''] = args
      const session = sessions.get(idOf(keys[0]))
      if (session === undefined) return ['missing']
      if (get(session, 'o') !== node || get(session, 'f') !== fence) return ['fenced']
      const skip = Math.max(0, Number(after) - number(session, 'ib'))
      return ['entries', String(number(session, 'ib') + skip + 1), session.inbox.slice(skip, skip + Number(most))]
    },

    touch: (keys, [node, ...fences]) => keys.map((key, i) => {
      const session = sessions.get(idOf(key))
      if (session === undefined) return 'missing'
      if (get(session, 'o') !== node || get(session, 'f') !== fences[i]) return 'fenced'
      return session.inbox.length > 0 ? 'inbox' : 'ok'
    }),

    find (keys) {
      const sid = idOf(keys[0])
      const session = sessions.get(sid)
      if (session !== undefined) return ['session', flat(session.fields), []]
      const stone = tombstones.get(sid)
      return stone === undefined ? ['missing'] : ['ended', flat(stone)]
    },

    due: keys => [...deadlines]
      .filter(([sid, at]) => at <= now() && deadlineKeys.get(sid) === keys[0])
      .map(([sid]) => sid),
    members: keys => [...setOf(keys[0] as string)],
    meta (_, args) {
      const [layout = '', partitions = ''] = args
      if (meta.size === 0) meta.set('layout', layout).set('partitions', partitions)
      return [meta.get('layout') as string, meta.get('partitions') as string]
    },

    lease (_, args) {
      const [node = '', term = '', info = ''] = args
      if (dead.has(node)) return ['dead']
      const isBack = now() - lastLease > Number(term) / 2
      lastLease = now()
      for (const [other, until] of leases) {
        if (isBack) leases.set(other, Math.max(until, now() + Number(term)))
      }
      leases.set(node, now() + Number(term))
      infos.set(node, info)
      for (const [other, until] of leases) {
        if (until >= now()) continue
        leases.delete(other)
        dead.set(other, now())
      }
      const alive = [...leases].sort(([, a], [, b]) => a - b)
      return [
        'ok', String(now()), alive.flatMap(([name, until]) => [name, String(until)]),
        alive.map(([name]) => infos.get(name) ?? '{}'), [...dead.keys()]
      ]
    },

    leave (_, args) {
      leases.delete(args[0] as string)
      dead.set(args[0] as string, now())
      return ['ok']
    }
  }

  return {
    sessions,
    tombstones,
    deadlines,
    ofNodes,
    history,

    run (name, keys, args) {
      const script = scripts[name]
      if (script === undefined) throw new Error(`The model does not know ${name}.`)
      if (keys[8]?.endsWith(':x') === true) deadlineKeys.set(idOf(keys[0]), keys[8])
      return toReply(script(keys, args.map(arg => typeof arg === 'string' ? arg : arg.toString('latin1'))))
    },

    empty () {
      for (const map of [sessions, tombstones, deadlines, ofNodes, leases, dead, infos, meta]) map.clear()
      lastLease = 0
    }
  }
}
